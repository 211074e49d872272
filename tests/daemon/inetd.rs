//! A minimal superserver, which starts a daemon for each connection as inetd does. It takes the
//! flags of a standalone daemon, and reports in the same way where it listens. It ends the daemons
//! that it has started.

use std::process::Command;

use super::{COSSERVER, Daemon, Folder};

const SERVER: &str = r#"
import os, signal, socket, sys
program, words = sys.argv[1], sys.argv[2:]
flags = [w for n, w in enumerate(words) if w not in ("-D", "-p") and words[n - 1] != "-p"]
server = socket.create_server(("127.0.0.1", 0), backlog=4096)
running = set()
def end(*_):
    for pid in list(running):
        try: os.kill(pid, signal.SIGKILL)
        except ProcessLookupError: pass
    os._exit(0)
def reap(*_):
    while running:
        # A second signal may come between these lines.
        try: pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError: return
        if pid == 0: return
        running.discard(pid)
both = [signal.SIGTERM, signal.SIGCHLD]
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGCHLD, reap)
print("listening on 127.0.0.1:%d" % server.getsockname()[1], file=sys.stderr, flush=True)
while True:
    connection, _ = server.accept()
    signal.pthread_sigmask(signal.SIG_BLOCK, both)
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
        os.dup2(connection.fileno(), 0)
        os.execv(program, [program, "-i", *flags])
    running.add(pid)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    connection.close()
"#;

/// Returns the command that becomes such a superserver for [`Daemon::start_by`].
pub fn superserver() -> Command {
    superserver_by("python3", &[])
}

/// The same by way of another program, which executes its arguments.
pub fn superserver_by(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    if program != "python3" {
        command.arg("python3");
    }
    command.args(["-c", SERVER, COSSERVER]);
    command
}

impl Daemon {
    /// Starts a superserver on directories that [`super::prepare`] made, with further flags for
    /// each daemon.
    pub fn inetd_in(folder: Folder, flags: &[&str]) -> Self {
        Self::start_by(superserver(), folder, flags)
    }

    /// The same with only these settings.
    pub fn inetd_as(settings: &str) -> Self {
        Self::inetd_in(super::configured(settings, ""), &[])
    }
}
