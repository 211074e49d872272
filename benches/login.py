#!/usr/bin/env python3
"""Measures a login and PAM without cosserver, by turns: `cos gui HOST true` with a correct
password, and pam_start to pam_end in a process that already runs.

Runs as root, with its own network namespace, accounts and PAM service (a mount namespace: the
machine's files do not change). The password is hashed as this machine's PAM hashes
passwords. Prints medians and the difference in milliseconds.
Usage: benches/login.py [LOGINS]    (200)
"""

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

from system import own_mounts, own_network

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PASSWORD = "correct horse"
STACK = "".join(f"{kind} required pam_unix.so\n" for kind in ("auth", "account", "password", "session"))


def own_accounts(folder):
    """Mounts a copy of /etc with one more account, bench, and with our PAM service."""
    own_mounts()
    etc = f"{folder}/etc"
    shutil.copytree("/etc", etc, symlinks=True, ignore_dangling_symlinks=True)
    subprocess.run(["mount", "--bind", etc, "/etc"], check=True)
    with open("/etc/passwd", "a") as f:
        f.write("bench:x:3001:3001::/:/bin/sh\n")
    with open("/etc/group", "a") as f:
        f.write("bench:x:3001:\n")
    with open("/etc/shadow", "a") as f:
        f.write("bench:!:20000:0:99999:7:::\n")
    subprocess.run(["chpasswd"], input=f"bench:{PASSWORD}\n", text=True, check=True)
    with open("/etc/pam.d/cosserver", "w") as f:
        f.write(STACK)


def daemon(folder, programs):
    """Starts a daemon on any free port, and configures a client for it."""
    host, person = f"{folder}/S", f"{folder}/A"
    for place in (host, person):
        subprocess.run([f"{programs}/cosadm", "-C", place, "init"], check=True, stdout=subprocess.DEVNULL)
    with open(f"{host}/cosserver.toml", "a") as f:
        f.write('[gui.true]\ncommand = ["/bin/true"]\nusers = ["bench"]\n')
    key = subprocess.run([f"{programs}/cosadm", "-C", host, "check"], capture_output=True, text=True, check=True)
    own = subprocess.run([f"{programs}/cos", "-C", person, "key", "show"], capture_output=True, text=True, check=True)
    machine = re.search("[0-9a-f]{32}", own.stdout)[0]
    # An older version includes the machine only when the door is closed.
    for words in (["machine", "add", machine, "--name", "bench"], ["door", "close"]):
        subprocess.run([f"{programs}/cosadm", "-C", host, *words], check=True, capture_output=True)
    with open(f"{person}/known_hosts", "w") as f:
        f.write(f"127.0.0.1 {re.search('public ([0-9a-f]{64})', key.stdout)[1]}\n")
    log = open(f"{folder}/log", "w+")
    process = subprocess.Popen([f"{programs}/cosserver", "-D", "-e", "-f", f"{host}/cosserver.toml", "-p", "0"], stderr=log)
    for _ in range(1000):
        found = re.search(r"listening .*?:(\d+)", open(log.name).read())
        if found:
            return process, found[1]
        time.sleep(0.01)
    process.kill()
    raise SystemExit(f"login.py: the daemon does not start: {open(log.name).read()}")


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    programs = os.environ.get("COS_BIN", os.path.join(os.environ.get("CARGO_TARGET_DIR", f"{TOP}/target"), "release"))
    programs = os.path.abspath(programs)
    own_network()
    folder = tempfile.mkdtemp(prefix="cosserver-login-")
    os.chmod(folder, 0o711)
    running = []
    try:
        own_accounts(folder)
        alone = f"{folder}/pam"
        subprocess.run(["cc", "-O2", "-o", alone, f"{TOP}/benches/ref/pam.c", "-lpam"], check=True)
        pam = subprocess.Popen([alone, "cosserver", "bench", PASSWORD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        running.append(pam)
        process, port = daemon(folder, programs)
        running.append(process)
        with open(f"{folder}/answers", "w") as f:
            f.write(PASSWORD + "\n")
        line = [f"{programs}/cos", "-C", f"{folder}/A", "gui", "-p", port, "-l", "bench", "--password-fd", "0", "127.0.0.1", "true"]
        ours, theirs = [], []
        for _ in range(count):
            with open(f"{folder}/answers") as answers:
                begun = time.perf_counter()
                subprocess.run(line, stdin=answers, check=True)
                ours.append((time.perf_counter() - begun) * 1e3)
            pam.stdin.write("\n")
            pam.stdin.flush()
            theirs.append(int(pam.stdout.readline()) / 1e3)
        ours, theirs = statistics.median(ours), statistics.median(theirs)
        print(f"{count} logins by turns, medians: cos gui {ours:.1f} ms, PAM alone {theirs:.1f} ms, beyond it {ours - theirs:.1f} ms")
    finally:
        for process in running:
            process.terminate()
            process.wait()
        # The copy of /etc is mounted only in this namespace, which ends with this process.
        subprocess.run(["umount", "-l", "/etc"], check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
