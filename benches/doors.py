#!/usr/bin/env python3
"""Measures how much the doors add to `cos run HOST true`.

Compares three hosts by turns: one at security level 0, one whose outer door is closed with a
million machines registered and included, and one with such an inner door in a shared folder. With
--without, also measures the programs of a version that has no doors (9b5c0c8 is the last one).

Runs in its own network namespace if it is root. Prints medians and the differences.
Usage: benches/doors.py [--runs N] [--machines N] [--without FOLDER] [--check]    (400, 1000000)
"""

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from system import own_network, slurp

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# How much time the doors may add, in percent of the time without them.
BUDGET = 5


class Host:
    """A daemon with its own folder, and a client that is joined to it."""

    def __init__(self, folder, programs, name, has_doors=True):
        self.programs, self.server, self.client = programs, f"{folder}/{name}-S", f"{folder}/{name}-A"
        me = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
        self.cosadm("init")
        # The user's .bashrc is not what is measured.
        settings = slurp(f"{self.server}/cosserver.toml").replace("[exec]\n", "[exec]\nssh-client = false\n", 1)
        with open(f"{self.server}/cosserver.toml", "w") as f:
            f.write(settings)
        card = self.cosadm("host", "invite", "hosta", "--addr", "127.0.0.1", "--run-as", me)
        with open(f"{folder}/{name}.card", "w") as f:
            f.write(card)
        self.cosadm("init", place=self.client)
        self.cosadm("host", "join", f"{folder}/{name}.card", "--name", "hostb", place=self.client)
        self.process = None
        if has_doors:
            own = subprocess.run([f"{programs}/cos", "-C", self.client, "key", "show"], capture_output=True, text=True, check=True)
            self.machine = re.search("[0-9a-f]{32}", own.stdout)[0]
            # Register the client's machine, so that the closed doors allow it.
            self.cosadm("machine", "add", self.machine, "--name", "hosta")

    def cosadm(self, *words, place=None):
        line = [f"{self.programs}/cosadm", "-C", place or self.server, *words]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    def start(self):
        log = open(f"{self.server}/log", "w")
        line = [f"{self.programs}/cosserver", "-D", "-e", "-f", f"{self.server}/cosserver.toml", "-p", "0"]
        self.process = subprocess.Popen(line, stderr=log)
        for _ in range(6000):
            found = re.search(r"listening .*?:(\d+)", open(log.name).read())
            if found:
                self.port = found[1]
                return
            time.sleep(0.01)
        raise SystemExit(f"doors.py: the daemon does not start: {open(log.name).read()}")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()

    def door_seconds(self):
        """Returns the processor time of the processes that read the doors, seconds."""
        children = slurp(f"/proc/{self.process.pid}/task/{self.process.pid}/children").split()
        doors = [pid for pid in children if slurp(f"/proc/{pid}/cmdline").startswith("cosserver: registry")]
        return sum(int(slurp(f"/proc/{pid}/schedstat").split()[0]) for pid in doors) / 1e9

    def line(self):
        return [f"{self.programs}/cos", "-C", self.client, "run", "-p", self.port, "hostb", "true"]


def ids(count):
    """Returns sorted IDs at equal distances."""
    step = (1 << 128) // count
    return ((n * step + step // 2).to_bytes(16, "big") for n in range(count))


def fill(file, count):
    """Adds authorized machines to an inner door's text file at once; with `cosadm`, each would need a command."""
    with open(file) as f:
        lines = f.read().splitlines()
    is_machine = re.compile("[0-9a-f]{32} ").match
    if lines[0] != "cosserver idfile 1":
        raise SystemExit(f"doors.py: {file} begins with {lines[0]!r}")
    changes = next(int(line.split()[1]) for line in lines if line.startswith("changes "))
    rest = [line for line in lines[1:] if not is_machine(line) and line.split(" ")[0] not in ("changes", "sorted")]
    machines = [line for line in lines if is_machine(line)]
    machines += (f"{id_.hex()} remote 2026-01-01T00:00:00Z machine {n}" for n, id_ in enumerate(ids(count)))
    # Settings and passwords come before the machines, which are sorted by ID.
    body = "".join(f"{line}\n" for line in rest + sorted(machines)).encode()
    now = int(time.time())
    head = f"{lines[0]}\nchanges {changes + 1}\nsorted {now} {len(body)}\n".encode()
    draft = f"{file}.new"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as f:
        f.write(head + body)
    os.utime(draft, (now, now))
    os.rename(draft, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=400, help="commands by each host (400)")
    parser.add_argument("--machines", type=int, default=1_000_000, help="machines that are registered (1000000)")
    parser.add_argument("--without", metavar="FOLDER", help="release programs of a version without doors, to compare with")
    parser.add_argument("--check", action="store_true", help=f"fail if the doors add more than {BUDGET} %%")
    args = parser.parse_args()
    programs = os.environ.get("COS_BIN", os.path.join(os.environ.get("CARGO_TARGET_DIR", f"{TOP}/target"), "release"))
    programs = os.path.abspath(programs)
    if os.geteuid() == 0:
        own_network()
    folder = tempfile.mkdtemp(prefix="cosserver-doors-")
    hosts = {}
    try:
        times = f"{folder}/times"
        subprocess.run(["cc", "-O2", "-o", times, f"{TOP}/benches/ref/times.c"], check=True)
        for name in ("level 0", "doors closed", "shared folder"):
            hosts[name] = host = Host(folder, programs, name.replace(" ", "-"))
            state = f"{host.server}/state"
            if name == "level 0":
                host.cosadm("sestab", "level", "0")
            else:
                inner = state
                if name == "shared folder":
                    inner = f"{folder}/shared"
                    os.mkdir(inner, 0o700)
                    host.cosadm("settings", "set", "folder", inner)
                    host.cosadm("machine", "add", host.machine, "--name", "hosta")
                fill(f"{inner}/idfile", args.machines)
                begun = time.monotonic()
                host.cosadm("door", "close")
                print(f"{name}: cosadm door close with {args.machines} machines: {time.monotonic() - begun:.1f} s")
        if args.without:
            hosts["without doors"] = Host(folder, os.path.abspath(args.without), "without-doors", has_doors=False)
        for name, host in hosts.items():
            begun = time.monotonic()
            host.start()
            print(f"{name}: the daemon listens after {time.monotonic() - begun:.2f} s")
        runs = {name: [] for name in hosts}

        def once(name, count=1):
            said = subprocess.run([times, str(count), "1", "30", *hosts[name].line()], stdout=subprocess.PIPE, check=True, text=True)
            rows = [row.split() for row in said.stdout.splitlines()]
            bad = [row for row in rows if row[1] != "0"]
            if bad:
                raise SystemExit(f"doors.py: {name}: `cos run hostb true` ends with {bad[0][1]}")
            return float(rows[0][0]) / 1e3

        for name in hosts:
            once(name, 10)
        used = {name: -host.door_seconds() for name, host in hosts.items()}
        order = list(hosts)
        for turn in range(args.runs):
            first = turn % len(order)
            for name in order[first:] + order[:first]:
                runs[name].append(once(name))
        base = statistics.median(runs["without doors" if args.without else "level 0"])
        worst = 0
        print(f"{args.runs} commands by each host by turns, ms from start to end of the client")
        for name, all_runs in runs.items():
            median, ordered = statistics.median(all_runs), sorted(all_runs)
            added = (median / base - 1) * 100
            worst = max(worst, added)
            looks = (used[name] + hosts[name].door_seconds()) * 1e3 / args.runs
            print(f"{name:14} p10 {ordered[len(ordered) // 10]:6.3f}  p50 {median:6.3f}  p95 {ordered[len(ordered) * 95 // 100]:6.3f}  "
                  f"{added:+5.1f} %  the door process's processor {looks:.3f}")
        return int(args.check and worst > BUDGET)
    finally:
        for host in hosts.values():
            host.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
