#!/usr/bin/env python3
"""Measures sftp(1) by cosrsh beside sftp(1) by ssh, by turns: a large file and many small
ones, put and got, with the same sftp-server. Prints medians and ssh's time divided by ours.

Runs as root, in a network of its own, with the daemons of peers.sh, which is run if it was not.
Usage: benches/sftp.py [ROUNDS]    (10)
"""

import contextlib
import os
import pwd
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from measure import sockets, until
from peers import TOP, USER, WORK, built_in
from system import own_network

LARGE = 200 * 1000 * 1000
SMALL, FILES = 2000, 1000


def line(peer, batch):
    """sftp's command line for a peer, without an environment."""
    options = ["sftp", "-q", "-b", batch, "-P", str(peer.port)]
    if peer.name == "cosserver":
        return [*options, "-S", f"{WORK}/bin/cosrsh", f"{USER}@hostb"]
    more = ["IdentitiesOnly=yes", f"UserKnownHostsFile={WORK}/ssh/known_hosts", "StrictHostKeyChecking=yes"]
    return [*options, "-F", "/dev/null", "-i", f"{WORK}/ssh/id", *(f"-o{o}" for o in more), f"{USER}@127.0.0.1"]


def plant(folder):
    """What is carried, and the folder of the other side."""
    with open(f"{folder}/large", "wb") as f:
        f.write(os.urandom(LARGE))
    os.mkdir(f"{folder}/small")
    for n in range(FILES):
        with open(f"{folder}/small/{n}", "wb") as f:
            f.write(os.urandom(SMALL))
    os.mkdir(f"{folder}/there")
    os.chmod(folder, 0o755)
    os.chown(f"{folder}/there", pwd.getpwnam(USER).pw_uid, -1)


def daemon(peer, stack):
    """Starts a peer's daemon, until the stack ends."""
    log = stack.enter_context(open(f"{WORK}/log.{peer.name}", "wb"))
    child = stack.enter_context(subprocess.Popen(peer.server, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    stack.callback(child.terminate)
    if not until(lambda: sockets(peer.port, "0A"), 10):
        raise SystemExit(f"sftp.py: {peer.name} does not listen, see {log.name}")


def transfer(peer, folder, commands):
    """Seconds of one run of sftp."""
    with open(f"{folder}/batch", "w") as f:
        f.write(commands)
    env = {**os.environ, "COS_CONFIG_DIR": os.path.expandvars("$COS_DIR/A")}
    begin = time.monotonic()
    subprocess.run(line(peer, f"{folder}/batch"), env=env, check=True, stdin=subprocess.DEVNULL,
                   stdout=subprocess.DEVNULL, cwd=folder)
    return time.monotonic() - begin


def clear(folder):
    for name in ("there/large", "there/small", "back", "back-small"):
        path = f"{folder}/{name}"
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.remove(path)


def one_round(peer, folder, times):
    there = f"{folder}/there"
    for what, commands in (
        ("put 200 MB", f"put large {there}/large\n"), ("get 200 MB", f"get {there}/large back\n"),
        ("put 1,000 files", f"put -R small {there}/small\n"), ("get 1,000 files", f"get -R {there}/small back-small\n"),
        ("ls", f"ls {there}\n"),
    ):
        times.setdefault(what, {}).setdefault(peer.name, []).append(transfer(peer, folder, commands))
    for one, other in (("large", "back"), ("small", "back-small")):
        subprocess.run(["diff", "-r", f"{folder}/{one}", f"{folder}/{other}"], check=True)
    clear(folder)


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    if os.geteuid() != 0:
        raise SystemExit("sftp.py: run it as root: it gives the daemons a network of their own")
    subprocess.run([f"{TOP}/benches/peers.sh"], check=True, stdout=sys.stderr)
    peers = [built_in()[name] for name in ("cosserver", "openssh")]
    for peer in peers:
        if missing := peer.missing():
            print(f"sftp.py: {peer.name}: passed over, there is no {missing}", file=sys.stderr)
            return
    cosrsh = f"{WORK}/bin/cosrsh"
    if os.path.lexists(cosrsh):
        os.remove(cosrsh)
    os.symlink(os.path.expandvars("$COS_BIN/cos"), cosrsh)
    own_network()
    times = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        plant(folder)
        with contextlib.ExitStack() as stack:
            for peer in peers:
                daemon(peer, stack)
            for n in range(rounds):
                for peer in peers if n % 2 else peers[::-1]:
                    one_round(peer, folder, times)
    for what, by in times.items():
        ours, theirs = (by[peer.name] for peer in peers)
        ratio = statistics.median(t / o for o, t in zip(ours, theirs))
        print(f"{what:16} cosrsh {statistics.median(ours):7.3f} s  ssh {statistics.median(theirs):7.3f} s  "
              f"ratio {statistics.median(theirs) / statistics.median(ours):.2f}, median of pairs {ratio:.2f}")


if __name__ == "__main__":
    main()
