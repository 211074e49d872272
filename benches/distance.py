#!/usr/bin/env python3
"""Measures the throughput of a stream over a link with a long delay, and that of plain TCP.

Runs as root: it creates two network namespaces and a link between them (benches/line.py).
`--programs` may be given several times, as NAME=FOLDER of built programs. They alternate with TCP
in each round, and the medians and their ratios are printed. MB is 10^6 bytes. Rates are measured
from the first byte that arrives to the last; `whole` is from the start of the client to its end.

With --ssh it also measures OpenSSH, with its own server and the cipher and key exchange that are
the fastest here. --round-trips measures several links, one after another. --json writes all rates
to a file, for the chart that benches/figures.py draws.

With --held it measures the daemon's memory instead, with so many sessions held, before and after
each session has moved --bytes each way.
"""

import argparse
import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(TOP, "benches"))

from line import FAR, NEAR, Here, Line
from system import COMMANDS, machine, memory, name_of, slurp

PORT, RAW_PORT = 9002, 9001
BLOCK = 1 << 18
WAYS = ("down", "up", "both")
CALM = ["net.ipv4.tcp_no_metrics_save=1"]    # no run learns from the one before


def read_all(fd, said):
    """Reads to the end. Appends the number of bytes and the seconds since the first."""
    total, first, block = 0, None, bytearray(BLOCK)
    while n := os.readv(fd, [block]):
        first = first or time.monotonic()
        total += n
    said.append((total, time.monotonic() - (first or 0)))


def write_all(fd, count, close):
    """Writes `count` zero bytes, and then calls `close`."""
    block, left = memoryview(bytes(BLOCK)), count
    with contextlib.suppress(BrokenPipeError):
        while left:
            left -= os.write(fd, block[:min(left, BLOCK)])
    close()


def ends(reader, writer, count, close):
    """Reads all of one descriptor while `count` bytes are written to the other."""
    said = []
    thread = threading.Thread(target=read_all, args=(reader, said))
    thread.start()
    write_all(writer, count, close)
    thread.join()
    return said[0]


def far_end(way, count):
    """The command at the far end: reads and writes as `way` says, and reports how long it read."""
    got, seconds = ends(0, 1, 0 if way == "up" else count, lambda: os.close(1))
    sys.stderr.write(f"{got} {seconds}\n")


def raw_server():
    """The far end of plain TCP: the first line names the way and the number of bytes."""
    with socket.create_server((FAR, RAW_PORT)) as listener:
        while True:
            sock, _ = listener.accept()
            way, count = sock.makefile("rb", buffering=0).readline().decode().split()
            got, seconds = ends(sock.fileno(), sock.fileno(), 0 if way == "up" else int(count),
                                lambda s=sock: s.shutdown(socket.SHUT_WR) if way != "up" else None)
            if way == "up":
                sock.sendall(f"{got} {seconds}\n".encode())
            sock.close()


def raw_client(way, count):
    """The near end of plain TCP: prints bytes and seconds of a way; of `both`, only of `down`."""
    sock = socket.create_connection((FAR, RAW_PORT))
    sock.sendall(f"{way} {count}\n".encode())
    if way == "up":
        write_all(sock.fileno(), count, lambda: sock.shutdown(socket.SHUT_WR))
        print("up", sock.makefile("r").readline().strip())
    else:
        sent = count if way == "both" else 0
        print("down", *ends(sock.fileno(), sock.fileno(), sent, lambda: sock.shutdown(socket.SHUT_WR)))


class Commands:
    """A peer that runs the far end as a command, by its method client()."""

    def transfer(self, way, count):
        """Returns the rate in MB/s, that of the slower way of two, and the whole time."""
        begin = time.monotonic()
        sent = 0 if way == "down" else count
        child = self.client([sys.executable, "-B", os.path.abspath(__file__), "--far-end", way, "--bytes", str(count)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        down = ends(child.stdout.fileno(), child.stdin.fileno(), sent, child.stdin.close)
        said = child.stderr.read().decode()
        if child.wait() != 0:
            raise SystemExit(f"distance: {self.name}: {way}: status {child.returncode}: {said}")
        up = tuple(map(float, said.split()))
        whole = time.monotonic() - begin
        rates = [n / 1e6 / seconds for n, seconds, wanted in ((*down, way != "up"), (*up, way != "down")) if wanted]
        return min(rates), whole

    def started(self, line, words, name):
        """Starts the daemon, and waits until its log says that it listens."""
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.child = subprocess.Popen(words, stderr=self.log, preexec_fn=line.at(FAR))
        until = time.monotonic() + 10
        while "listening on" not in slurp(self.log.name):
            if time.monotonic() > until or self.child.poll() is not None:
                raise SystemExit(f"distance: {name} does not listen:\n{slurp(self.log.name)}")
            time.sleep(0.05)

    def close(self):
        self.child.send_signal(signal.SIGTERM)
        self.child.wait(timeout=30)
        self.log.close()
        shutil.rmtree(self.folder)


class Ssh(Commands):
    """OpenSSH, run as root, with keys generated for this measurement."""

    name = "OpenSSH"

    def __init__(self, line, port):
        self.line = line
        self.folder = tempfile.mkdtemp(prefix="cosserver-distance-")
        for key in ("host", "id"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{self.folder}/{key}"], check=True)
        with open(f"{self.folder}/host.pub") as key, open(f"{self.folder}/known", "w") as f:
            f.write(f"[{FAR}]:{port} {key.read()}")
        options = [f"ListenAddress={FAR}", f"Port={port}", f"HostKey={self.folder}/host", "PidFile=none", "UsePAM=no",
                   "PermitRootLogin=prohibit-password", f"AuthorizedKeysFile={self.folder}/id.pub", "StrictModes=no"]
        os.makedirs("/run/sshd", exist_ok=True)
        words = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *(f"-o{option}" for option in options)]
        self.started(line, words, self.name)
        options = [f"Port={port}", "Ciphers=aes128-gcm@openssh.com", "KexAlgorithms=curve25519-sha256", "BatchMode=yes",
                   "IdentitiesOnly=yes", f"UserKnownHostsFile={self.folder}/known", "LogLevel=ERROR"]
        self.words = ["ssh", "-F", "/dev/null", "-i", f"{self.folder}/id", *(f"-o{option}" for option in options),
                      f"root@{FAR}"]

    def client(self, words, **files):
        return subprocess.Popen([*self.words, *words], preexec_fn=self.line.at(NEAR), **files)


class Daemon(Commands):
    """A cosserver daemon at the far end, with the configuration of its client at the near end."""

    def __init__(self, name, programs, line, settings, port=PORT):
        self.name, self.programs, self.line = name, programs, line
        self.folder = tempfile.mkdtemp(prefix="cosserver-distance-")
        server, client, card = (os.path.join(self.folder, part) for part in ("S", "A", "card"))
        adm = os.path.join(programs, "cosadm")
        subprocess.run([adm, "-C", server, "init"], check=True, stdout=subprocess.DEVNULL)
        with open(f"{server}/cosserver.toml", "w") as f:
            f.write(f'name = "far"\nlisten = ["{FAR}"]\nport = {port}\n{settings}')
        # On the loopback device, the source address of a connection is its destination.
        invite = ["host", "invite", "near", "--addr", NEAR, "--addr", FAR, "--run-as", "root"]
        with open(os.open(card, os.O_WRONLY | os.O_CREAT, 0o600), "w") as f:
            subprocess.run([adm, "-C", server, *invite], check=True, stdout=f, stderr=subprocess.DEVNULL,
                           preexec_fn=line.at(FAR))
        print_settings = [os.path.join(programs, "cosserver"), "-T", "-f", f"{server}/cosserver.toml"]
        if "ssh-client" in subprocess.run(print_settings, check=True, capture_output=True, text=True).stdout:
            # Exclude the time that root's ~/.bashrc takes.
            with open(f"{server}/cosserver.toml", "a") as f:
                f.write("\n[exec]\nssh-client = false\n")
        subprocess.run([adm, "-C", client, "init"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([adm, "-C", client, "host", "join", card, "--name", "far"], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(f"{client}/hostinfo") as f:
            text = f.read()
        words = [f"addr={FAR}" if word.startswith("addr=") else word for word in text.split(" ")]
        with open(f"{client}/hostinfo", "w") as f:
            f.write(" ".join(words))
        self.started(line, [os.path.join(programs, "cosserver"), "-D", "-e", "-f", f"{server}/cosserver.toml"], name)

    def client(self, words, **files):
        line = [os.path.join(self.programs, "cos"), "-C", os.path.join(self.folder, "A"), "run", "far", *words]
        return subprocess.Popen(line, preexec_fn=self.line.at(NEAR), **files)

    def memory(self):
        """Returns the PSS of the daemon and its children except commands, KiB."""
        children = slurp(f"/proc/{self.child.pid}/task/{self.child.pid}/children").split()
        own = [pid for pid in map(int, children) if name_of(pid) not in COMMANDS]
        return memory([self.child.pid, *own])[0]


class Raw:
    """Plain TCP."""

    name = "TCP"

    def __init__(self, line):
        self.line = line
        self.child = self.start(FAR, "--raw-server", "x")
        time.sleep(0.5)

    def start(self, end, *words, **files):
        return subprocess.Popen([sys.executable, "-B", os.path.abspath(__file__), *words],
                                preexec_fn=self.line.at(end), **files)

    def transfer(self, way, count):
        begin = time.monotonic()
        child = self.start(NEAR, "--raw-client", way, "--bytes", str(count), stdout=subprocess.PIPE)
        said = child.communicate(timeout=600)[0].decode().split()
        return float(said[1]) / 1e6 / float(said[2]), time.monotonic() - begin

    def close(self):
        self.child.kill()
        self.child.wait()


def measure(o, line):
    """Returns the rates and times by name of the peer and way."""
    for setting in CALM + o.sysctl:
        for end in (NEAR, FAR):
            subprocess.run(["sysctl", "-qw", setting], check=True, preexec_fn=line.at(end))
    peers = [Raw(line)]
    try:
        for name, programs in o.programs:
            peers.append(Daemon(name, programs, line, o.settings, PORT + len(peers)))
        if o.ssh:
            peers.append(Ssh(line, PORT + len(peers)))
        figures = {(peer.name, way): [] for peer in peers for way in o.ways}
        for round_ in range(o.rounds):
            for way in o.ways:
                for peer in peers if round_ % 2 == 0 else reversed(peers):
                    figures[peer.name, way].append(peer.transfer(way, o.bytes))
                    time.sleep(0.3)
        report(o, peers, figures)
        return figures
    finally:
        for peer in peers:
            peer.close()


def report(o, peers, figures):
    for way in o.ways:
        for peer in peers:
            runs = figures[peer.name, way]
            rates, wholes = ([run[i] for run in runs] for i in (0, 1))
            text = f"{way:5} {peer.name:10} {statistics.median(rates):8.1f} MB/s  whole {statistics.median(wholes):6.2f} s"
            for other in peers[:peers.index(peer)]:
                pairs = [a / b for a, b in zip(rates, (run[0] for run in figures[other.name, way]))]
                text += f"  {statistics.median(pairs):.2f} x {other.name}"
            print(text + f"  ({' '.join(f'{rate:.0f}' for rate in rates)})", flush=True)


def held(o, line):
    """Prints the daemon's memory with held sessions, before and after each has moved bytes."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    job = f"head -c {o.bytes} >/dev/null; head -c {o.bytes} /dev/zero; exec sleep 100000"
    for name, programs in o.programs:
        daemon = Daemon(name, programs, line, f"[limits]\nsessions-per-host = 4096\n{o.settings.removeprefix('[limits]')}")
        clients = []
        try:
            idle = daemon.memory()
            for _ in range(o.held):
                child = daemon.client([job], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                clients.append(child)
            settle(daemon)
            before = daemon.memory()
            for at in range(0, o.held, o.at_once):
                threads = [threading.Thread(target=move, args=(child, o.bytes)) for child in clients[at:at + o.at_once]]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            settle(daemon)
            after = daemon.memory()
            print(f"{name}: idle {idle} KiB, {o.held} sessions held: {before} KiB ({(before - idle) / o.held:.1f} each), "
                  f"after {o.bytes} bytes each way: {after} KiB ({(after - idle) / o.held:.1f} each), "
                  f"{after / before:.3f}", flush=True)
        finally:
            for child in clients:
                child.kill()
                child.wait()
            daemon.close()


def settle(daemon):
    """Waits until the memory stays the same within 64 KiB."""
    last, same = None, 0
    while same < 3:
        now = daemon.memory()
        same = same + 1 if last is not None and abs(now - last) <= 64 else 0
        last = now
        time.sleep(1)


def move(child, count):
    """Writes `count` bytes to a session, and then reads as many."""
    write_all(child.stdin.fileno(), count, child.stdin.flush)
    left = count
    while left:
        left -= len(os.read(child.stdout.fileno(), min(left, BLOCK)))


def named(text):
    name, _, folder = text.partition("=")
    return (name, os.path.abspath(folder)) if folder else ("cosserver", os.path.abspath(name))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--round-trip", type=float, default=80, help="milliseconds (%(default)s); 0: the loopback device")
    a.add_argument("--round-trips", default="", metavar="MS,MS", help="several lines, in place of --round-trip")
    a.add_argument("--ssh", action="store_true", help="OpenSSH too")
    a.add_argument("--json", metavar="FILE", help="keep the rates of all lines there")
    a.add_argument("--rate", type=float, default=1000, help="Mbit/s (%(default)s)")
    a.add_argument("--bytes", type=int, default=200_000_000, help="of each transfer (%(default)s)")
    a.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    a.add_argument("--ways", default="down,up,both", help="of: " + ",".join(WAYS))
    a.add_argument("--programs", type=named, action="append", default=[], metavar="NAME=FOLDER",
                   help="built programs; those of this tree, unless given")
    a.add_argument("--settings", default="", help="more lines for cosserver.toml")
    a.add_argument("--sysctl", action="append", default=[], metavar="KEY=VALUE", help="set at both ends")
    a.add_argument("--held", type=int, default=0, metavar="N", help="memory of N sessions")
    a.add_argument("--at-once", type=int, default=8, help="so many of them move bytes at a time (%(default)s)")
    for hidden in ("--far-end", "--raw-client", "--raw-server"):
        a.add_argument(hidden, help=argparse.SUPPRESS)
    o = a.parse_args()
    if o.far_end:
        return far_end(o.far_end, o.bytes)
    if o.raw_client:
        return raw_client(o.raw_client, o.bytes)
    if o.raw_server:
        return raw_server()
    o.ways = o.ways.split(",")
    if wrong := set(o.ways) - set(WAYS):
        a.error(f"no such way: {', '.join(wrong)}")
    if os.geteuid() != 0:
        raise SystemExit("distance: run it as root: it makes networks of its own")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not o.programs:
        o.programs = [("cosserver", os.environ.get("CARGO_TARGET_DIR", f"{TOP}/target") + "/release")]
    o.settings = o.settings.replace("\\n", "\n")
    doc = {"machine": machine(), "rate": o.rate, "bytes": o.bytes, "lines": []}
    for round_trip in map(float, o.round_trips.split(",") if o.round_trips else [o.round_trip]):
        with Line(round_trip / 1000, o.rate * 1e6) if round_trip else Here() as line:
            if o.held:
                held(o, line)
                continue
            if o.round_trips:
                print(f"{round_trip:g} ms:")
            figures = measure(o, line)
            rates = [{"peer": peer, "way": way, "rates": [run[0] for run in runs]} for (peer, way), runs in figures.items()]
            doc["lines"].append({"round_trip": round_trip, "figures": rates})
    if o.json and doc["lines"]:
        with open(o.json, "w") as f:
            json.dump(doc, f, indent=1)


if __name__ == "__main__":
    main()
