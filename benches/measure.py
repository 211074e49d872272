"""The measurements. Each takes a Running and returns figures by name."""

import contextlib
import hashlib
import os
import resource
import select
import signal
import socket
import statistics
import subprocess
import time

from peers import WORK
from system import Group, Rest, is_dead, memory, own_network, sizes, slurp, threads

MIB = 1 << 20


class Running:
    """A peer whose server runs, as a context manager."""

    def __init__(self, peer, quick, silent):
        self.peer, self.quick, self.silent = peer, quick, silent

    def __enter__(self):
        own_network()
        self.server, self.client = (Group(f"{self.peer.name}-{side}") for side in ("server", "client"))
        self.log = open(f"{WORK}/log.{self.peer.name}", "wb")
        try:
            self.child = self.server.start(self.peer.server, self.peer.env, stderr=self.log)
            if not until(lambda: sockets(self.peer.port, "0A"), 10):
                raise RuntimeError(f"does not listen on port {self.peer.port}, see {self.log.name}")
            time.sleep(0.3)
            for line in self.peer.before:
                subprocess.run(line, env={**os.environ, **self.peer.env}, check=True, stdout=subprocess.DEVNULL)
            if self.peer.link:
                self.client.start(self.peer.link, self.peer.env).wait(timeout=15)
                time.sleep(0.3)
        except BaseException:
            self.__exit__()
            raise
        self.idle = len(self.server.own())
        return self

    def __exit__(self, *_):
        if self.peer.unlink:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.client.start(self.peer.unlink, self.peer.env).wait(timeout=5)
        self.client.end()
        self.server.end(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired, AttributeError):
            self.child.wait(timeout=5)
        self.log.close()

    def settle(self, seconds=3.0):
        """Waits until the server has only its idle processes again."""
        until(lambda: len(self.server.own()) <= self.idle, seconds)

    def times(self, line, count, side_by_side=1, limit=30):
        """Runs the client `count` times. Returns (milliseconds, status) of each run, and the
        total seconds."""
        begin = time.monotonic()
        child = self.client.start([f"{WORK}/bin/times", count, side_by_side, limit, *line], self.peer.env,
                                  stdout=subprocess.PIPE)
        said = child.communicate(timeout=1200)[0].decode()
        rows = [row.split() for row in said.splitlines()]
        return [(float(us) / 1e3, int(status)) for us, status in rows], time.monotonic() - begin

    def seconds(self):
        return (*self.server.seconds(), *self.client.seconds())

    def run(self, what, values=None, **files):
        return self.client.start(self.peer.line(what, **(values or {})), self.peer.env, **files)


def sockets(port, state):
    """Counts the sockets with this local port and state (0A listen, 01 established)."""
    rows = slurp("/proc/net/tcp").splitlines() + slurp("/proc/net/tcp6").splitlines()
    return sum(word[1].endswith(f":{port:04X}") and word[3] == state for word in map(str.split, rows))


def until(what, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


def part(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def latency(r):
    """Measures one command on a new connection by a new client."""
    count = 60 if r.quick else 200
    line = r.peer.line("true")
    r.times(line, 5)
    r.settle()
    before = r.seconds()
    runs, _ = r.times(line, count)
    r.settle()
    used = [b - a for a, b in zip(before, r.seconds())]
    good = [ms for ms, status in runs if status == 0]
    if not good:
        return {"exec_errors": len(runs)}
    start, _ = r.times(r.peer.startup, 60)
    return {"exec_p50": statistics.median(good), "exec_p95": part(good, .95), "exec_p99": part(good, .99),
            "exec_errors": len(runs) - len(good), "startup_p50": statistics.median(ms for ms, _ in start),
            "exec_server_cpu": (used[0] + used[1]) * 1e3 / count,
            "exec_client_cpu": (used[2] + used[3]) * 1e3 / count}


def rate(r):
    """Measures commands of eight concurrent clients."""
    count = 120 if r.quick else 2000
    runs, seconds = r.times(r.peer.line("true"), count, side_by_side=8)
    r.settle()
    good = sum(status == 0 for _, status in runs)
    return {"rate": good / seconds, "rate_errors": count - good}


def throughput(r, what):
    size, rounds = (256 * MIB, 2) if r.quick else (1024 * MIB, 5)
    if r.peer.line(what, bytes=size) is None:
        return {}
    speeds, used, bad = [], [], 0
    os.truncate(f"{WORK}/zeros", size)
    for _ in range(rounds):
        before, begin = r.seconds(), time.monotonic()
        with open(f"{WORK}/zeros" if what == "stdin" else "/dev/null", "rb") as stdin:
            child = r.run(what, {"bytes": size}, stdin=stdin)
        try:
            bad += child.wait(timeout=120) != 0
        except subprocess.TimeoutExpired:
            child.kill()
            bad += 1
        seconds = time.monotonic() - begin
        r.settle()
        speeds.append(size / 1e6 / seconds)
        used.append([(b - a) * (1 << 30) / size for a, b in zip(before, r.seconds())])
    if bad:
        return {f"{what}_errors": bad}
    mean = [statistics.mean(column) for column in zip(*used)]
    names = ("server_user", "server_sys", "client_user", "client_sys")
    return {f"{what}_mbs": statistics.median(speeds), **{f"{what}_{n}": v for n, v in zip(names, mean)}}


def stdout(r):
    return throughput(r, "stdout")


def stdin(r):
    return throughput(r, "stdin")


def held(r):
    """Measures the memory of an idle server and of one with a hundred waiting sessions. The first
    session counts separately, because it includes what a server starts or allocates only once."""
    pss0, rss0 = memory(r.server.own())
    out = {"idle_pss": pss0, "idle_rss": rss0}
    if r.peer.line("hold", seconds=60) is None:
        return out
    clients, waiting = [], lambda: len(r.server.named({"sleep"}))
    try:
        for number in range(100):
            clients.append(r.run("hold", {"seconds": 60}))
            until(lambda: waiting() > number, 0.5)
            if number == 0:
                first, _ = memory(r.server.own())
        until(lambda: waiting() >= 100, 5)
        count = waiting()
        pss, _ = memory(r.server.own())
        processes = len(r.server.own())
    finally:
        for client in clients:
            client.kill()
            client.wait()
        for pid in r.server.named({"sleep"}):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
    r.settle(10)
    out["held"] = count
    if count > 1:
        out.update(first_pss=first - pss0, held_pss=(pss - first) / (count - 1),
                   held_procs=(processes - r.idle) / count)
    return out


def many_files(count):
    """Raises this process's limit of descriptors for `count` connections."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(now, min(most, count + 100)), most))


class Silent:
    """Connections that never send anything, opened within about two seconds. If there are
    more than a thousand, each thousand has its own source address, from 127.1.0.1."""

    def __init__(self, port, count):
        self.open, self.dropped = {}, 0
        self.poll = select.poll()
        many_files(count)
        batch = max(20, count // 40)        # more at once would overflow the backlog
        for number in range(count):
            s = socket.socket()
            s.setblocking(False)
            if count > 1000:
                s.bind((f"127.1.0.{1 + number // 1000}", 0))
            s.connect_ex(("127.0.0.1", port))
            self.open[s.fileno()] = s
            self.poll.register(s, select.POLLIN)
            if number % batch == batch - 1:
                time.sleep(0.05)

    def left(self):
        """Closes the connections that the server has ended, and returns how many are left."""
        for fd, _ in self.poll.poll(0):
            try:
                said = self.open[fd].recv(65536)
            except OSError:
                said = b""
            if not said:
                self.poll.unregister(fd)
                self.open.pop(fd).close()
                self.dropped += 1
        return len(self.open)

    def watch(self, seconds, since, marks):
        """Watches them for `seconds`. Returns when the count first fell to each mark."""
        seen, end = {}, time.monotonic() + seconds
        while True:
            left = self.left()
            for mark in marks:
                if left <= mark:
                    seen.setdefault(mark, time.monotonic() - since)
            if not left or time.monotonic() > end:
                return seen
            time.sleep(0.2)

    def close(self):
        for s in self.open.values():
            s.close()
        self.open.clear()


def brief(r):
    """Measures the latency during a flood. Returns how many of five runs succeeded, their
    median, and the p99 of a hundred more. The p99 is omitted if the median is too long for all
    runs to end before the silent connections are dropped."""
    line = r.peer.line("true")
    good = [ms for ms, status in r.times(line, 5, limit=10)[0] if status == 0]
    if not good:
        return 0, None, None
    median, p99 = statistics.median(good), None
    if median < 50:
        p99 = part([ms if status == 0 else float("inf") for ms, status in r.times(line, 100, limit=10)[0]], .99)
    return len(good), median, p99


def flood(r):
    """Measures the cost of many silent connections, and their effect on others."""
    count = r.silent
    _, quiet, quiet_p99 = brief(r)
    r.settle()
    before, threads0 = memory(r.server.own())[0], threads(r.server.own())
    since = time.monotonic()
    silent = Silent(r.peer.port, count)
    try:
        silent.left()
        dropped, up = silent.dropped, sockets(r.peer.port, "01")
        after, _ = memory(r.server.own())
        processes, more = len(r.server.own()) - r.idle, threads(r.server.own()) - threads0
        served, median, p99 = brief(r)
        seen = silent.watch(15 if r.quick else 330, since, (count // 2, 0))
        left = silent.left()
    finally:
        silent.close()
    time.sleep(2)
    again, _ = r.times(r.peer.line("true"), 3, limit=10)
    r.settle(10)
    return {"flood_kept": up, "flood_pending": count - dropped - up, "flood_dropped": dropped,
            "flood_procs": processes, "flood_threads": more, "flood_pss": after - before,
            "flood_served": served, "flood_exec": median, "flood_p99": p99,
            "flood_quiet": quiet, "flood_quiet_p99": quiet_p99,
            "flood_half_gone_s": seen.get(count // 2), "flood_all_gone_s": seen.get(0), "flood_left": left,
            "flood_recovers": sum(status == 0 for _, status in again)}


def digest(stream):
    return hashlib.file_digest(stream, "md5").hexdigest().encode()


def semantics(r):
    """Tests what arrives on the other side, and what happens when a client ends."""
    out = {}
    if r.peer.line("mixed"):
        child = r.run("mixed", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            streams = child.communicate(timeout=15)
            out["exit_status"] = child.returncode
        except subprocess.TimeoutExpired:
            child.kill()
            streams = child.communicate()
            out["exit_status"] = "hangs"
        where = [name for name, data in zip(("stdout", "stderr"), streams) if b"err" in data.split(b"\n")]
        out["stderr_at"] = where[0] if where else "lost"
        r.settle()
    with open(f"{WORK}/random", "rb") as f:
        right = digest(f)
    if r.peer.line("md5"):
        with open(f"{WORK}/random", "rb") as f:
            child = r.run("md5", stdin=f, stdout=subprocess.PIPE)
            out["stdin_intact"] = child.communicate(timeout=60)[0].split()[:1] == [right]
    if r.peer.line("cat"):
        child = r.run("cat", stdout=subprocess.PIPE)
        out["stdout_intact"] = digest(child.stdout) == right
        child.wait(timeout=30)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        if r.peer.line("hold", seconds=60) is None:
            break
        child = r.run("hold", {"seconds": 60})
        if until(lambda: r.server.named({"sleep"}), 10):
            time.sleep(0.3)
            jobs = r.server.named({"sleep"})
            os.kill(child.pid, number)
            out[f"dies_on_{number.name[3:].lower()}"] = until(lambda: all(map(is_dead, jobs)), 4)
            for pid in [*jobs, child.pid]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        else:
            child.kill()
        child.wait()
        r.settle(5)
    return out


def size(r):
    """Measures the size on disk, with libraries."""
    server = [sizes(program) for program in r.peer.server_bins]
    client = sizes(r.peer.client_bin)
    return {"size_bin": sum(s[0] for s in server) / 1024, "size_libs": max(s[1] for s in server) / 1024,
            "size_nlibs": max(s[2] for s in server), "size_client": client[0] / 1024,
            "size_client_libs": client[1] / 1024}


# name: the function, whether other load spoils it, whether it depends only on the server
TESTS = {
    "latency": (latency, True, False),
    "rate": (rate, True, False),
    "stdout": (stdout, True, False),
    "stdin": (stdin, True, False),
    "held": (held, False, False),
    "semantics": (semantics, False, False),
    "size": (size, False, True),
    "flood": (flood, False, True),
}
QUIET = 0.2     # processors that the rest of the machine may keep busy


def measure(r, name):
    """Runs one measurement. Repeats it at most twice if the rest of the machine was busy. The
    load during the best run is recorded with its figures."""
    function, spoils, _ = TESTS[name]
    best = None
    for _ in range(3 if spoils else 1):
        if spoils:
            for _ in range(60):
                rest = Rest()
                time.sleep(1)
                if rest.processors() < QUIET / 2:
                    break
        rest = Rest(r.server, r.client)
        figures = function(r)
        load = rest.processors()
        if best is None or load < best[0]:
            best = load, figures
        if load <= QUIET:
            break
    return {**best[1], f"outside_{name}": round(best[0], 2)}
