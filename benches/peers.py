"""The daemons that are measured: how each is started and called. A daemon is measured if its
programs and the files that peers.sh creates for it exist. A file can define more, see
from_file()."""

import os
import pwd
import shutil
import tomllib
from dataclasses import dataclass, field

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WORK = os.environ.get("BENCH_DIR", "/var/tmp/cosserver-bench")
USER = "rbench"

# The commands that the other side runs.
COMMANDS = {
    "true": "true",
    "mixed": "echo out; echo err >&2; exit 42",
    "stdout": "head -c {bytes} /dev/zero",
    "stdin": "cat >/dev/null",
    "hold": "exec sleep {seconds}",
    "md5": "md5sum",
    "cat": f"cat {WORK}/random",
}


@dataclass
class Peer:
    name: str
    port: int
    server: list                                # stays in the foreground
    client: list                                # {cmd} stands for the command
    server_bins: list
    client_bin: str
    startup: list                               # the least that the client can do
    fixed: dict = field(default_factory=dict)   # command: a whole line, or None: it cannot
    env: dict = field(default_factory=dict)
    before: list = field(default_factory=list)  # to be run once it is up
    link: list = field(default_factory=list)    # a connection that is kept and shared
    unlink: list = field(default_factory=list)
    same_server_as: str = ""                    # what the server decides was measured there
    version: list = field(default_factory=list)
    needs: list = field(default_factory=list)   # files of its set-up

    def line(self, what, **values):
        """Returns the client's command line, or None if the peer cannot do that."""
        line = self.fixed.get(what, self.client)
        if line is None:
            return None
        command = COMMANDS[what].format(**values)
        fill = {"{cmd}": command, "{port}": str(self.port), "{bytes}": str(values.get("bytes", ""))}
        return [filled(word, fill) for word in line]

    def missing(self):
        """Returns the first missing program or file that it needs, or None."""
        programs = [self.server[0], self.client[0], *self.server_bins, self.client_bin]
        for program in programs:
            if not shutil.which(program):
                return program
        return next((path for path in self.needs if not os.path.exists(path)), None)


def filled(word, values):
    for key, value in values.items():
        word = word.replace(key, value)
    return word


def ssh_line(port, *more):
    options = ["IdentitiesOnly=yes", f"UserKnownHostsFile={WORK}/ssh/known_hosts", "StrictHostKeyChecking=yes",
               "BatchMode=yes", "LogLevel=ERROR"]
    line = ["/usr/bin/ssh", "-F", "/dev/null", "-i", f"{WORK}/ssh/id", "-p", str(port)]
    for option in options:
        line += ["-o", option]
    return [*line, *more, f"{USER}@127.0.0.1"]


def openssh(name, *more, port=42022, config="sshd_config", **rest):
    return Peer(
        name, port, ["/usr/sbin/sshd", "-D", "-f", f"{WORK}/ssh/{config}"], [*ssh_line(port, *more), "{cmd}"],
        ["/usr/sbin/sshd"], "/usr/bin/ssh", ["ssh", "-V"], version=["ssh", "-V"],
        needs=[f"{WORK}/ssh/{config}", f"{WORK}/ssh/id"], **rest)


def built_in():
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        raise SystemExit(f"bench: there is no user {USER}; benches/peers.sh makes what is needed") from None
    programs = os.environ.get("COS_BIN", os.path.join(os.environ.get("CARGO_TARGET_DIR", f"{TOP}/target"), "release"))
    os.environ.setdefault("COS_BIN", os.path.abspath(programs))
    os.environ.setdefault("COS_DIR", f"{WORK}/cos")
    floor, share = f"{WORK}/bin/floor", f"{WORK}/ssh/share"
    cannot = dict.fromkeys
    peers = [
        *from_file(f"{TOP}/benches/peer.toml").values(),
        openssh("openssh"),
        openssh("openssh-aes128gcm", "-c", "aes128-gcm@openssh.com", same_server_as="openssh"),
        openssh("openssh-mux", "-S", share, same_server_as="openssh",
                link=ssh_line(42022, "-M", "-N", "-f", "-S", share), unlink=ssh_line(42022, "-S", share, "-O", "exit")),
        # the minimum: no PAM, one host key, no post-quantum exchange
        openssh("openssh-lean", "-c", "aes128-gcm@openssh.com", "-o", "KexAlgorithms=curve25519-sha256",
                port=42023, config="sshd_config.lean"),
        Peer("dropbear", 42032,
             ["/usr/sbin/dropbear", "-F", "-E", "-p", "127.0.0.1:42032", "-r", f"{WORK}/dropbear/host",
              "-P", f"{WORK}/dropbear/pid"],
             ["/usr/bin/dbclient", "-y", "-y", "-T", "-i", f"{WORK}/dropbear/id", "-p", "42032",
              f"{USER}@127.0.0.1", "{cmd}"],
             ["/usr/sbin/dropbear"], "/usr/bin/dbclient", ["dbclient", "-V"], version=["dropbear", "-V"],
             needs=[f"{WORK}/dropbear/id"]),
        Peer("rsh-redone", 514, ["/usr/sbin/inetd", "-i", "-R", "60000", f"{WORK}/rsh/inetd.conf"],
             ["/usr/bin/rsh-redone-rsh", "-l", USER, "127.0.0.1", "{cmd}"],
             ["/usr/sbin/in.rshd", "/usr/sbin/inetd"], "/usr/bin/rsh-redone-rsh", ["rsh-redone-rsh", "-?"],
             version=["dpkg-query", "-W", "rsh-redone-server"], needs=[f"{WORK}/rsh/inetd.conf"]),
        # the floors, see ref/floor.c: minimum cost with authentication and encryption, or without
        Peer("ref-auth", 42082, [floor, "server", "42082", str(user.pw_uid), str(user.pw_gid)],
             [floor, "client", "42082", "auth", "{cmd}"], [floor], floor, [floor, "nothing"],
             fixed=cannot(("stdout", "stdin", "mixed", "md5", "cat"))),
        Peer("ref-plain", 42072, [floor, "server", "42072", str(user.pw_uid), str(user.pw_gid)],
             [floor, "client", "42072", "true"], [floor], floor, [floor, "nothing"],
             fixed={"stdout": [floor, "client", "42072", "out", "{bytes}"], "stdin": [floor, "client", "42072", "in"],
                    **cannot(("hold", "mixed", "md5", "cat"))}),
    ]
    return {peer.name: peer for peer in peers}


def from_file(path):
    """Reads peers from a TOML file of [[peer]] tables. The keys are the fields of Peer.
    Environment variables are expanded, and `false` under `fixed` means that the peer cannot do
    that."""
    def filled_in(value):
        if isinstance(value, str):
            value = os.path.expandvars(value)
            if "$" in value:
                raise SystemExit(f"bench: {path}: {value}: a variable is not set")
            return value
        if isinstance(value, list):
            return [filled_in(item) for item in value]
        if isinstance(value, dict):
            return {key: None if item is False else filled_in(item) for key, item in value.items()}
        return value

    with open(path, "rb") as f:
        tables = tomllib.load(f)["peer"]
    peers = {}
    for table in map(filled_in, tables):
        table["server"] = [filled(word, {"{port}": str(table["port"])}) for word in table["server"]]
        table.setdefault("server_bins", [table["server"][0]])
        table.setdefault("client_bin", table["client"][0])
        table.setdefault("startup", [table["client"][0], "--version"])
        peers[table["name"]] = Peer(**table)
    return peers
