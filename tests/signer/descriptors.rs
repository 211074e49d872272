//! A user sends the signer's socket descriptors whose close takes as long as the user likes.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{ALICE, BOB, COSADM, Machine, can, inside};
use crate::daemon::must;
use crate::daemon::session::{Session, ends};

/// Sends TCP sockets that linger for an hour, with unread data: as the message, in an empty one,
/// after another, on a connection that is then closed, and on one that stays. Prints how many the
/// kernel accepted.
const LINGERING: &str = "
import array, os, socket, struct, sys
os.setuid(int(sys.argv[1]))
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
listener.bind(('127.0.0.1', 0))
listener.listen()
def lingering():
    s = socket.socket()
    s.connect(listener.getsockname())
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 3600))
    s.setblocking(False)
    try:
        while True: s.send(bytes(65536))
    except BlockingIOError: return s
# In a child, whose own copy is closed without lingering because it ends.
def send(call, words):
    child = os.fork()
    if child == 0:
        own = lingering()
        rights = array.array('i', [own.fileno()])
        try: call.sendmsg([words], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except OSError: os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
taken, kept = 0, []
for before, words, stays in [((), b'x', True), ((), b'', True), ((), b'x', False),
                             ((b'x',), b'y', True), ((b'x', b''), b'', False)] * 4:
    call = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    call.connect('/run/cosserver/sign')
    try:
        for first in before: call.send(first)
    except ConnectionError: pass
    taken += send(call, words)
    if stays: kept.append(call)
    else: call.close()
print('taken', taken, flush=True)
sys.stdin.read()
";

/// Runs a program as on a kernel before Linux 6.16, which cannot refuse descriptors.
const OLDER: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_setsockopt, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 83, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOPROTOOPT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof(filter) / sizeof(*filter), .filter = filter};
    (void)argc;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return 125;
    execv(argv[1], argv + 1);
    return 126;
}
"#;

/// Regression: the monitor dropped what it had been sent and blocked in close(2), even when it was
/// told to end.
#[test]
fn lingering_sockets_that_a_user_sends_do_not_stop_the_daemon() {
    if !can() {
        return;
    }
    let m = Machine::new("users=bob:root");
    let source = m.path("older.c");
    let older = m.path("bin/older");
    fs::write(&source, OLDER).unwrap();
    must(
        Command::new("cc")
            .args(["-Wall", "-Werror", "-o"])
            .arg(&older)
            .arg(&source),
    );
    let older = [older.display().to_string()];
    for before in [&[][..], &older] {
        let signing = m.daemon_by(before);
        let words = ["python3", "-c", LINGERING, &ALICE.to_string()].map(str::to_owned);
        let mut user = Session::spawn(&mut inside(&m.path(""), &words));
        let taken = user.out.wait("taken ");
        if !before.is_empty() {
            assert_ne!(taken, "taken 0");
        }
        // It answers other users, and its administrator.
        for _ in 0..3 {
            m.is(BOB, &[], "root");
            must(m.root(COSADM).arg("who"));
        }
        if taken != "taken 0" {
            signing.log.wait(&format!("unread uid={ALICE}"));
        }
        // It ends in time, with more of such data unread.
        let mut more = Session::spawn(&mut inside(&m.path(""), &words));
        more.out.wait("taken ");
        let pid = i32::try_from(signing.child.id()).unwrap();
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        assert!(ends(pid), "{:?}", signing.log.all());
        drop((user.stdin.take(), more.stdin.take()));
        drop(signing);
        // The settings name a port once.
        let settings = m.path("etc/cosserver/cosserver.toml");
        let text = fs::read_to_string(&settings).unwrap();
        fs::write(
            &settings,
            text.replacen("listen = [\"127.0.0.1\"]\n", "", 1),
        )
        .unwrap();
    }
}
