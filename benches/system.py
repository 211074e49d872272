"""System access for the measurements: namespaces, control groups, memory, and the load of the
rest of the machine."""

import ctypes
import os
import platform
import signal
import subprocess
import time

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000

# Remote commands and their shells do not count as the daemon's memory.
COMMANDS = {"sh", "dash", "bash", "sleep", "cat", "head", "true", "echo", "md5sum"}


def slurp(path):
    with open(path) as f:
        return f.read()


def machine():
    """Describes this machine, with the current time."""
    lines = slurp("/proc/cpuinfo").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} processors, Linux {platform.release()}, {time.strftime('%F %T')}"


def own_network():
    """Moves this process to a new network namespace with only a loopback device: no other
    process can reach the daemons, and no earlier connection remains."""
    unshare(CLONE_NEWNET, "a network of its own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def own_mounts():
    """Moves this process to a new mount namespace: only this process and its children see what
    is mounted after that, and it ends with them."""
    unshare(CLONE_NEWNS, "mounts of its own")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)


def unshare(what, name):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(what) != 0:
        raise SystemExit(f"bench: {name}: {os.strerror(ctypes.get_errno())}; run it as root")


def group_root():
    for line in slurp("/proc/mounts").splitlines():
        _, where, kind = line.split()[:3]
        if kind == "cgroup2":
            return where
    raise SystemExit("bench: no cgroup2 file system is mounted here; the figures need one")


class Group:
    """A control group. Processes started in it stay in it with all their descendants, and its
    processor time includes that of ended processes."""

    def __init__(self, name):
        self.path = f"{group_root()}/cosserver-bench-{os.getpid()}-{name}"
        os.makedirs(self.path, exist_ok=True)

    def start(self, argv, env=None, **files):
        for name in ("stdin", "stdout", "stderr"):
            files.setdefault(name, subprocess.DEVNULL)
        enter = ["/bin/sh", "-c", 'echo 0 >"$0/cgroup.procs" && exec "$@"', self.path]
        return subprocess.Popen([*enter, *map(str, argv)], env={**os.environ, **(env or {})}, **files)

    def pids(self):
        try:
            return [int(word) for word in slurp(f"{self.path}/cgroup.procs").split() if word != "0"]
        except OSError:
            return []

    def named(self, names):
        return [pid for pid in self.pids() if name_of(pid) in names]

    def own(self):
        """Returns the daemon's processes: all except remote commands and dead processes."""
        return [pid for pid in self.pids() if (name := name_of(pid)) and name not in COMMANDS and not is_dead(pid)]

    def seconds(self):
        """Returns the user and system seconds so far."""
        stat = dict(line.split() for line in slurp(f"{self.path}/cpu.stat").splitlines())
        return int(stat["user_usec"]) / 1e6, int(stat["system_usec"]) / 1e6

    def end(self, first=signal.SIGKILL):
        """Kills all its processes, and removes the group."""
        number, until = first, time.monotonic() + 5
        while (pids := self.pids()) and time.monotonic() < until:
            for pid in pids:
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
            time.sleep(0.1)
            number = signal.SIGKILL
        try:
            os.rmdir(self.path)
        except OSError:
            pass


def name_of(pid):
    try:
        return slurp(f"/proc/{pid}/comm").strip()
    except OSError:
        return ""


def is_dead(pid):
    try:
        return slurp(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


def threads(pids):
    count = 0
    for pid in pids:
        try:
            count += len(os.listdir(f"/proc/{pid}/task"))
        except OSError:
            pass
    return count


def memory(pids):
    """Returns the total PSS and RSS of the processes, in KiB."""
    total = {"Pss:": 0, "Rss:": 0}
    for pid in pids:
        try:
            for line in slurp(f"/proc/{pid}/smaps_rollup").splitlines():
                word = line.split()
                if word[0] in total:
                    total[word[0]] += int(word[1])
        except OSError:
            pass
    return total["Pss:"], total["Rss:"]


class Rest:
    """Measures how many processors all processes outside the given groups have kept busy since
    its creation."""

    def __init__(self, *groups):
        self.groups = groups
        self.since = self.now()

    def now(self):
        ticks = [int(word) for word in slurp("/proc/stat").splitlines()[0].split()[1:9]]
        user, nice, system, _idle, _wait, irq, softirq, steal = ticks
        busy = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), busy, sum(sum(group.seconds()) for group in self.groups)

    def processors(self):
        seconds, busy, ours = (b - a for a, b in zip(self.since, self.now()))
        return max(0.0, (busy - ours) / seconds) if seconds > 0 else 0.0


def sizes(program):
    """Returns the bytes of a program, the bytes of its shared libraries except libc, and the
    number of those libraries."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    libraries = set()
    for line in said.splitlines():
        if "=>" not in line:
            continue
        path = line.split("=>")[1].split()[0]
        if path.startswith("/") and not os.path.basename(path).startswith("libc.so"):
            libraries.add(os.path.realpath(path))
    return os.path.getsize(os.path.realpath(program)), sum(map(os.path.getsize, libraries)), len(libraries)
