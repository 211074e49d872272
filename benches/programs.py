#!/usr/bin/env python3
"""Measures real programs over cosrsh and over ssh, by turns, and compares every result byte for
byte. Prints medians and ssh's time divided by ours.

Runs as root, on the loopback device of its own network namespace, in its own mount namespace (the
data is in memory), with the daemons of peers.sh, which it runs first. ssh uses its fastest cipher
and no post-quantum key agreement (peers.sh writes its configuration); sshd is as Debian ships it.

`scripts/need bench` installs rsync, git and OpenSSH. The other programs are optional. A task is
skipped if its program is missing:
  apt-get install --no-install-recommends sshfs restic borgbackup ansible-core
"""

import argparse
import contextlib
import os
import pwd
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from bench import keep, machine, version
from measure import sockets, until
from peers import TOP, USER, WORK, Peer, built_in
from system import own_mounts, own_network

MB = 1000 * 1000
HOST = f"{USER}@hostb"      # an entry of hostinfo and of ssh's configuration
SSH_CONFIG = f"{WORK}/ssh/config"


@dataclass
class Side:
    """One of the two compared clients."""

    name: str
    peer: Peer
    client: list

    @property
    def command(self):
        """Returns the client as one word, for programs that split it themselves."""
        return " ".join(self.client)

    def sftp(self, *words):
        """Returns the command line of sftp(1) over this client."""
        through = ["-F", SSH_CONFIG] if self.name == "ssh" else ["-S", f"{WORK}/bin/cosrsh"]
        return ["sftp", "-q", *through, *words, HOST]


class Workspace:
    """The data folder, in memory: the data to send, USER's folder as the remote end (`remote`), and
    the folder for data that comes back (`back`)."""

    def __init__(self, scale):
        self.folder, self.scale = f"{WORK}/data", scale
        self.random = random.Random(1)      # the same data in every run
        os.makedirs(self.folder, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "cosserver-programs", self.folder], check=True)
        self.remote, self.back, self.log = (self.path(name) for name in ("remote", "back", "log"))
        self.env = {**os.environ, "HOME": self.folder, "PATH": f"{WORK}/bin:{os.environ['PATH']}",
                    "COS_CONFIG_DIR": os.path.expandvars("$COS_DIR/A"), "LC_ALL": "C.UTF-8"}
        self.clear()

    def path(self, name):
        return os.path.join(self.folder, name)

    def scaled(self, count):
        return max(1, int(count * self.scale))

    def clear(self):
        """Empties both ends."""
        for folder in (self.remote, self.back):
            shutil.rmtree(folder, ignore_errors=True)
            os.mkdir(folder)
        self.give(self.remote)

    def give(self, top):
        """Makes USER the owner of a tree."""
        user = pwd.getpwnam(USER)
        subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", top], check=True)

    def file(self, name, size):
        """Creates a file of random bytes, unless it exists."""
        if not os.path.exists(self.path(name)):
            with open(self.path(name), "wb") as f:
                while size > 0:
                    size -= f.write(self.random.randbytes(min(size, MB)))
        return self.path(name)

    def tree(self, name, files, size):
        """Creates a tree of `files` files of `size` random bytes, a hundred in each folder."""
        top = self.path(name)
        for n in range(0 if os.path.exists(top) else files):
            folder = f"{top}/{n // 100}"
            os.makedirs(folder, exist_ok=True)
            with open(f"{folder}/{n}", "wb") as f:
                f.write(self.random.randbytes(size))
        return top

    def run(self, argv, env=None, **files):
        """Runs a program with its messages in the log. On failure, raises an error with them."""
        with open(self.log, "w+") as log:
            # Not a pipe: sshfs and a shared connection of ssh would keep it open.
            for name, default in (("stdin", subprocess.DEVNULL), ("stdout", log), ("stderr", log)):
                files.setdefault(name, default)
            child = subprocess.run(argv, env={**self.env, **(env or {})}, check=False, **{"cwd": self.folder, **files})
            if child.returncode != 0:
                log.seek(0)
                raise TaskError(f"{argv[0]} ends with status {child.returncode}:\n{log.read().strip()}")

    def same(self, one, other):
        """Compares two files or trees."""
        self.run(["diff", "-rq", one, other])


class TaskError(Exception):
    """A program failed, or its result differs."""


class Task:
    """A measured task. The constructor creates the data. `run` yields the name of each figure and
    the function to time, and compares the results in between."""

    needs = ()

    def __init__(self, space):
        self.space = space

    def prepare(self, side):
        """Called once for each side, before the first round."""

    def close(self):
        """Called once, after the last round or a failure."""


def megabytes(size):
    return f"{size / MB:g} MB"


class Rsync(Task):
    """rsync into an empty folder: many small files, and one large one."""

    needs = ("rsync",)

    def __init__(self, space):
        super().__init__(space)
        self.files, self.size = space.scaled(10_000), space.scaled(200 * MB)
        self.small, self.large = space.tree("small", self.files, 2000), space.file("large", self.size)

    def run(self, side):
        for what, source in ((f"{self.files:,} files", self.small), (megabytes(self.size), self.large)):
            target = f"{self.space.remote}/{os.path.basename(source)}"
            argv = ["rsync", "-a", "-e", side.command, source, f"{HOST}:{self.space.remote}/"]
            yield f"rsync {what}", lambda argv=argv: self.space.run(argv)
            self.space.same(source, target)


class Stream(Task):
    """The client without another program: a large file through standard input and output."""

    def __init__(self, space):
        super().__init__(space)
        self.size = space.scaled(200 * MB)
        self.large = space.file("large", self.size)

    def stdin(self, side, command):
        with open(self.large, "rb") as f:
            self.space.run([*side.client, HOST, command], stdin=f)

    def run(self, side):
        result = f"{self.space.remote}/result"
        yield f"cat >/dev/null, {megabytes(self.size)}", lambda: self.stdin(side, "cat >/dev/null")
        # Output to /dev/null cannot be compared: send it again, untimed.
        self.stdin(side, f"cat >{result}")
        self.space.same(self.large, result)

        def stdout():
            with open(f"{self.space.back}/large", "wb") as f:
                self.space.run([*side.client, HOST, f"cat {self.large}"], stdout=f)

        yield f"cat FILE, {megabytes(self.size)}", stdout
        self.space.same(self.large, f"{self.space.back}/large")


class Git(Task):
    """Clone and push of a repository."""

    needs = ("git",)
    COMMITS, FILES, SIZE = 20, 100, 10_000      # in each commit so many files of so many bytes

    def __init__(self, space):
        super().__init__(space)
        # root reads USER's repositories.
        with open(space.path(".gitconfig"), "w") as f:
            f.write("[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n")
        self.source = space.path("source.git")
        self.bare(self.source)
        with open(space.path("import"), "wb") as f:
            for commit in range(self.COMMITS):
                f.write(b"commit refs/heads/main\ncommitter a <a@example.org> %d +0000\ndata 1\nx\n" % (10**9 + commit))
                for n in range(space.scaled(self.FILES)):
                    f.write(b"M 644 inline %d/%d\ndata %d\n" % (commit, n, self.SIZE))
                    f.write(space.random.randbytes(self.SIZE) + b"\n")
        with open(space.path("import"), "rb") as f:
            space.run(["git", "-C", self.source, "fast-import", "--quiet"], stdin=f)
        os.remove(space.path("import"))

    def bare(self, path):
        self.space.run(["git", "init", "-q", "--bare", path])
        self.space.run(["git", "-C", path, "config", "receive.autogc", "false"])

    def head(self, repository):
        """Verifies every object, and returns the commit, which then identifies all content."""
        self.space.run(["git", "-C", repository, "fsck", "--full", "--strict"])
        line = ["git", "-C", repository, "rev-parse", "main"]
        return subprocess.run(line, env=self.space.env, check=True, stdout=subprocess.PIPE).stdout

    def compare(self, repository):
        if self.head(repository) != self.head(self.source):
            raise TaskError(f"{repository} has other commits")

    def run(self, side):
        env = {"GIT_SSH_COMMAND": side.command}
        remote, target = (f"{self.space.remote}/{name}.git" for name in ("source", "target"))
        clone = f"{self.space.back}/clone"
        shutil.copytree(self.source, remote)
        self.bare(target)
        self.space.give(self.space.remote)
        from_remote, to_target = (f"ssh://{HOST}{path}" for path in (remote, target))
        yield "git clone", lambda: self.space.run(["git", "clone", "-q", from_remote, clone], env)
        self.compare(clone)
        yield "git push", lambda: self.space.run(["git", "-C", clone, "push", "-q", to_target, "main"], env)
        self.compare(target)


class Sftp(Task):
    """sftp, with the same sftp-server on both sides."""

    needs = ("sftp",)

    def __init__(self, space):
        super().__init__(space)
        self.files, self.size = space.scaled(1_000), space.scaled(200 * MB)
        self.small, self.large = space.tree("thousand", self.files, 2000), space.file("large", self.size)

    def batch(self, side, line):
        with open(self.space.path("batch"), "w") as f:
            f.write(line + "\n")
        self.space.run(side.sftp("-b", self.space.path("batch")))

    def run(self, side):
        remote, back = self.space.remote, self.space.back
        large, small = megabytes(self.size), f"{self.files:,} files"
        for what, line in (
            (f"put {large}", f"put {self.large} {remote}/large"),
            (f"get {large}", f"get {remote}/large {back}/large"),
            (f"put {small}", f"put -R {self.small} {remote}/small"),
            (f"get {small}", f"get -R {remote}/small {back}/small"),
            ("ls", f"ls {remote}"),
        ):
            yield f"sftp {what}", lambda line=line: self.batch(side, line)
        for one, other in ((self.large, f"{back}/large"), (self.small, f"{back}/small")):
            self.space.same(one, other)


class Sshfs(Task):
    """A mounted folder, with a tree that is copied there and back. Each way has its own mount, so
    that nothing is read from a cache."""

    needs = ("sshfs", "/dev/fuse")

    def __init__(self, space):
        super().__init__(space)
        self.tree = space.path("mixed")
        self.files, self.size = space.scaled(1_000), space.scaled(50 * MB)
        space.tree("mixed", self.files, 2000)
        space.file("mixed/large", self.size)
        self.mount = space.path("mount")
        os.mkdir(self.mount)

    def copy(self, side, source, target):
        self.space.run(["sshfs", "-o", f"ssh_command={side.command}", f"{HOST}:{self.space.remote}", self.mount])
        try:
            self.space.run(["cp", "-r", source, target])
        finally:
            self.space.run(["umount", self.mount])

    def run(self, side):
        what = f"{self.files:,} files and {megabytes(self.size)}"
        yield f"sshfs write {what}", lambda: self.copy(side, self.tree, f"{self.mount}/copy")
        self.space.same(self.tree, f"{self.space.remote}/copy")
        yield f"sshfs read {what}", lambda: self.copy(side, f"{self.mount}/copy", f"{self.space.back}/copy")
        self.space.same(self.tree, f"{self.space.back}/copy")


class Backup(Task):
    """The data for backup programs."""

    def __init__(self, space):
        super().__init__(space)
        self.files = space.scaled(1_000)
        self.tree, self.what = space.tree("backup", self.files, 100_000), megabytes(self.files * 100_000)


class Restic(Backup):
    """restic through its backend for sftp."""

    needs = ("restic",)

    def run(self, side):
        repository = f"{self.space.remote}/restic"
        restic = ["restic", "-q", "--no-cache", "-o", f"sftp.command={side.command} {HOST} -s sftp",
                  "-r", f"sftp:{HOST}:{repository}"]
        env = {"RESTIC_PASSWORD": "secret"}
        self.space.run([*restic, "init"], env)
        yield f"restic backup {self.what}", lambda: self.space.run([*restic, "backup", self.tree], env)
        yield (f"restic restore {self.what}",
               lambda: self.space.run([*restic, "restore", "latest", "--target", self.space.back], env))
        self.space.same(self.tree, self.space.back + self.tree)


class Borg(Backup):
    """BorgBackup, which runs itself at the other end."""

    needs = ("borg",)

    def run(self, side):
        base = self.space.path("borg")
        shutil.rmtree(base, ignore_errors=True)
        env = {"BORG_RSH": side.command, "BORG_REPO": f"ssh://{HOST}{self.space.remote}/borg", "BORG_BASE_DIR": base,
               "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"}
        self.space.run(["borg", "init", "-e", "none"], env)
        tree, back = os.path.basename(self.tree), self.space.back
        yield f"borg create {self.what}", lambda: self.space.run(["borg", "create", "::one", tree], env)
        yield f"borg extract {self.what}", lambda: self.space.run(["borg", "extract", "::one"], env, cwd=back)
        self.space.same(self.tree, f"{back}/{tree}")


class Ansible(Task):
    """A playbook with the stock connection plugin and pipelining. ssh's connection is shared, and
    open before the first round. cosrsh has the same arguments, and opens one for each command."""

    needs = ("ansible-playbook",)
    TASKS = 10

    def __init__(self, space):
        super().__init__(space)
        self.playbook, self.share = space.path("playbook.yml"), space.path("share")
        self.sources = [space.file(f"ansible.{n}", 10_000) for n in range(3)]
        tasks = []
        for n, source in enumerate(self.sources):
            copy = f"{space.remote}/{os.path.basename(source)}"
            tasks += [f'copy: {{src: {source}, dest: {copy}, mode: "0640"}}', 'command: "true"',
                      f"stat: {{path: {copy}}}\n      register: found\n      failed_when: found.stat.size != 10000"]
        tasks.append('command: "true"')
        assert len(tasks) == self.TASKS
        self.settings = space.path("ansible.cfg")
        with open(self.settings, "w"):
            pass        # those of the machine do not count
        with open(self.playbook, "w") as f:
            f.write("- hosts: all\n  gather_facts: false\n  tasks:\n" + "".join(f"    - {task}\n" for task in tasks))

    def play(self, side):
        share = f"-o ControlMaster=auto -o ControlPersist=3600s -o ControlPath={self.share}"
        env = {
            "ANSIBLE_SSH_EXECUTABLE": side.client[0], "ANSIBLE_PIPELINING": "True", "ANSIBLE_CONFIG": self.settings,
            # sftp calls ssh by its path. Use for both the method that works with any client.
            "ANSIBLE_SSH_TRANSFER_METHOD": "piped",
            "ANSIBLE_SSH_ARGS": f"-F {SSH_CONFIG} -C {share}",
            "ANSIBLE_HOME": self.space.path("ansible"), "ANSIBLE_REMOTE_TMP": f"{self.space.remote}/tmp",
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
        }
        self.space.run(["ansible-playbook", "-i", "hostb,", "-u", USER, self.playbook], env)

    def prepare(self, side):
        self.play(side)

    def run(self, side):
        yield f"ansible, {self.TASKS} tasks", lambda: self.play(side)
        for source in self.sources:
            self.space.same(source, f"{self.space.remote}/{os.path.basename(source)}")

    def close(self):
        if os.path.exists(self.share):
            self.space.run(["ssh", "-F", SSH_CONFIG, "-o", f"ControlPath={self.share}", "-O", "exit", HOST])


TASKS = {"rsync": Rsync, "stream": Stream, "git": Git, "sftp": Sftp, "sshfs": Sshfs, "restic": Restic, "borg": Borg,
         "ansible": Ansible}


def missing(task):
    """Returns the first missing program or file that a task needs, or None."""
    for need in task.needs:
        if not (os.path.exists(need) if need.startswith("/") else shutil.which(need)):
            return need
    return None


def sides():
    """Returns the installed ones of the two clients, ours first."""
    peers, found = built_in(), []
    ssh = ["/usr/bin/ssh", "-F", SSH_CONFIG]
    for name, peer, client in (("cosrsh", "cosserver", ["cosrsh"]), ("ssh", "openssh", ssh)):
        if lacks := peers[peer].missing():
            print(f"programs: {name}: skipped, there is no {lacks}", file=sys.stderr)
        else:
            found.append(Side(name, peers[peer], client))
    if not found or found[0].name != "cosrsh":
        raise SystemExit("programs: cosserver is not built: run make first")
    link = f"{WORK}/bin/cosrsh"
    with contextlib.suppress(FileNotFoundError):
        os.remove(link)
    os.symlink(os.path.expandvars("$COS_BIN/cos"), link)
    return found


def start(peer, stack):
    """Starts a peer's daemon, which ends with the stack."""
    log = stack.enter_context(open(f"{WORK}/log.{peer.name}", "wb"))
    child = stack.enter_context(subprocess.Popen(peer.server, stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    stack.callback(child.terminate)
    if not until(lambda: sockets(peer.port, "0A"), 10):
        raise SystemExit(f"programs: {peer.name} does not listen, see {log.name}")


def turn(task, side, times):
    """Runs a task once over one side, and adds its seconds to `times`."""
    task.space.clear()
    for what, function in task.run(side):
        begin = time.monotonic()
        function()
        times.setdefault(what, {}).setdefault(side.name, []).append(time.monotonic() - begin)


def measure(name, space, both, rounds):
    """Runs all rounds of a task, and returns the seconds by figure and side."""
    times = {}
    task = TASKS[name](space)
    side = None
    try:
        for side in both:
            task.space.clear()
            task.prepare(side)
        for n in range(rounds):
            print(f"programs: {name}: round {n + 1} of {rounds}", file=sys.stderr, flush=True)
            for side in both if n % 2 == 0 else both[::-1]:
                turn(task, side, times)
    except TaskError as e:
        raise TaskError(f"over {side.name}: {e}") from None
    finally:
        task.close()
    return times


def report(times):
    """Prints a task's figures, and returns them for the file."""
    figures = {}
    for what, by in times.items():
        medians = {name: statistics.median(seconds) for name, seconds in by.items()}
        figures[what] = {"seconds": by, "medians": medians}
        text = "  ".join(f"{name} {median:7.3f} s" for name, median in sorted(medians.items()))
        if len(by) == 2:
            pairs = [theirs / ours for ours, theirs in zip(by["cosrsh"], by["ssh"])]
            figures[what].update(ratio=medians["ssh"] / medians["cosrsh"], median_of_pairs=statistics.median(pairs))
            text += (f"  ratio {figures[what]['ratio']:5.2f}, median of pairs {figures[what]['median_of_pairs']:5.2f}"
                     f" ({' '.join(f'{pair:.2f}' for pair in sorted(pairs))})")
        print(f"{what:37} {text}", flush=True)
    return figures


def arguments():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--rounds", type=int, default=5, help="pairs of runs of each task (%(default)s)")
    a.add_argument("--only", default=",".join(TASKS), metavar="NAME,NAME", help="of: " + ",".join(TASKS))
    a.add_argument("--json", metavar="FILE", help="keep the figures in this file")
    a.add_argument("--scale", type=float, default=1, help="a factor for sizes and counts of files, for a trial")
    o = a.parse_args()
    o.only = o.only.split(",")
    if wrong := [name for name in o.only if name not in TASKS]:
        a.error(f"no such task: {', '.join(wrong)}")
    if o.rounds < 1 or o.scale <= 0:
        a.error("--rounds and --scale must be greater than zero")
    return o


def main():
    o = arguments()
    if os.geteuid() != 0:
        raise SystemExit("programs: run it as root: it gives the daemons a network of their own")
    subprocess.run([f"{TOP}/benches/peers.sh"], check=True, stdout=sys.stderr)
    both = sides()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))     # and so clean up
    own_network()
    own_mounts()
    space = Workspace(o.scale)
    doc = {"machine": machine(), "rounds": o.rounds, "scale": o.scale,
           "versions": {side.name: version(side.peer) for side in both}, "figures": {}}
    failed = False
    with contextlib.ExitStack() as stack:
        for side in both:
            start(side.peer, stack)
            space.run([*side.client, HOST, "true"])
        for name in o.only:
            if lacks := missing(TASKS[name]):
                print(f"programs: {name}: skipped, there is no {lacks}", file=sys.stderr)
                continue
            try:
                doc["figures"].update(report(measure(name, space, both, o.rounds)))
            except TaskError as e:
                print(f"programs: {name}: {e}", file=sys.stderr)
                failed = True
            keep(o.json, doc)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
