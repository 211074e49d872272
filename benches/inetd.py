#!/usr/bin/env python3
"""Measures `cosrsh HOST true` and `rsh HOST true`, both served by the same inetd.

Runs as root, in its own namespaces. `scripts/need bench` installs openbsd-inetd and
rsh-redone, and benches/peers.sh, which this program runs, sets them up. The two alternate in
pairs. No call starts before the processes of the previous one have ended. Each batch of
pairs has its own network namespace: rsh takes two of its 512 privileged ports for each call,
and they cannot be reused for a minute.
"""

import argparse
import ctypes
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from measure import part
from peers import TOP, USER, WORK
from system import own_network, slurp

CLONE_NEWNS = 0x00020000
PORT = 9002
# Pairs in one network namespace.
BATCH = 40


def own_mounts(state):
    """Creates a mount namespace, in which the daemon's run folder is in memory, as
    /run/cosserver is, and the account exists that `make install` creates."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise SystemExit(f"inetd: mounts of its own: {os.strerror(ctypes.get_errno())}; run it as root")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    os.makedirs(f"{state}/run", exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "run", f"{state}/run"], check=True)
    accounts = slurp("/etc/passwd")
    if "\n_cosserver:" not in accounts:
        with open(f"{WORK}/passwd", "w") as f:
            f.write(accounts + "_cosserver:x:990:990::/nonexistent:/usr/sbin/nologin\n")
        subprocess.run(["mount", "--bind", f"{WORK}/passwd", "/etc/passwd"], check=True)


def children(pid):
    return slurp(f"/proc/{pid}/task/{pid}/children").split()


def seconds(pid):
    """Returns the processor time of the reaped children and descendants of a process."""
    fields = slurp(f"/proc/{pid}/stat").rsplit(")", 1)[1].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def until(what, seconds=10):
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise SystemExit("inetd: what was started does not end, or inetd does not listen")
        time.sleep(0.0005)


def listening(port):
    rows = slurp("/proc/net/tcp").splitlines()
    return any(word[1].endswith(f":{port:04X}") and word[3] == "0A" for word in map(str.split, rows))


def once(line, env):
    """Runs one call, and returns its milliseconds and its exit status."""
    said = subprocess.run([f"{WORK}/bin/times", "1", "1", "30", *line], env={**os.environ, **env},
                          stdout=subprocess.PIPE, check=True, text=True).stdout.split()
    return float(said[0]) / 1e3, int(said[1])


def batch(conf, calls, pairs, runs, used):
    """Runs `pairs` pairs with one inetd, and adds their times to `runs`. Then runs as many
    calls of each in a row, to measure the processor time."""
    own_network()
    inetd = subprocess.Popen(["/usr/sbin/inetd", "-i", "-R", "60000", conf], stdin=subprocess.DEVNULL)
    try:
        until(lambda: listening(PORT) and listening(514))
        quiet = lambda: not children(inetd.pid)
        for line, env in calls.values():
            once(line, env)
            until(quiet)
        for pair in range(pairs):
            for name in sorted(calls, reverse=pair % 2 == 1):
                runs[name].append(once(*calls[name]))
                until(quiet)
        for name, call in calls.items():
            before = seconds(inetd.pid)
            for _ in range(pairs):
                once(*call)
                until(quiet)
            used[name] += seconds(inetd.pid) - before
    finally:
        inetd.send_signal(signal.SIGTERM)
        inetd.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=300, help="calls of each (300)")
    parser.add_argument("--check", action="store_true", help="fail if cosrsh is slower")
    args = parser.parse_args()
    for program in ("/usr/sbin/inetd", "in.rshd", "rsh-redone-rsh"):
        if not shutil.which(program):
            raise SystemExit(f"inetd: no {program}: scripts/need bench installs it")
    subprocess.run([f"{TOP}/benches/peers.sh"], check=True, stdout=subprocess.DEVNULL)
    programs = os.environ.get("COS_BIN", os.path.join(os.environ.get("CARGO_TARGET_DIR", f"{TOP}/target"), "release"))
    programs = os.path.abspath(programs)
    server, client = f"{WORK}/cos/S", f"{WORK}/cos/A"
    own_mounts(server)
    cosrsh, conf = pathlib.Path(f"{WORK}/bin/cosrsh"), f"{WORK}/rsh/both.conf"
    cosrsh.unlink(missing_ok=True)
    cosrsh.symlink_to(f"{programs}/cos")
    with open(conf, "w") as f:
        for port, program, words in ((514, "/usr/sbin/in.rshd", "in.rshd"),
                                     (PORT, f"{programs}/cosserver", f"cosserver -i -f {server}/cosserver.toml")):
            f.write(f"127.0.0.1:{port} stream tcp nowait.60000 root {program} {words}\n")
    calls = {
        "cosrsh": ([str(cosrsh), "-p", str(PORT), "-l", USER, "hostb", "true"], {"COS_CONFIG_DIR": client}),
        "rsh": (["/usr/bin/rsh-redone-rsh", "-l", USER, "127.0.0.1", "true"], {}),
    }
    runs = {name: [] for name in calls}
    used = dict.fromkeys(calls, 0)
    left = args.pairs
    while left > 0:
        batch(conf, calls, min(left, BATCH), runs, used)
        left -= BATCH
    medians = {}
    print(f"{args.pairs} pairs, ms from start to end of the client, both by one inetd")
    for name, all_runs in runs.items():
        good = [ms for ms, status in all_runs if status == 0]
        if not good:
            raise SystemExit(f"inetd: {name} never succeeded")
        medians[name] = statistics.median(good)
        print(f"{name:8} p50 {medians[name]:6.2f}  p95 {part(good, .95):6.2f}  failed {len(all_runs) - len(good)}  "
              f"server's processors {used[name] * 1e3 / args.pairs:5.2f}")
    ratio = medians["cosrsh"] / medians["rsh"]
    print(f"cosrsh takes {ratio:.2f} of rsh's time")
    return int(args.check and ratio > 1)


if __name__ == "__main__":
    sys.exit(main())
