//! Many clients of the signer at the same time: many programs of one user, many users, and what the
//! log says of it.

use std::fs;
use std::time::Instant;

use cosserver::secret::KeyPair;
use cosserver::signer::fields::Reply;

use super::{ALICE, Machine, can, inside, mode};
use crate::daemon::session::{Gate, Session};
use crate::daemon::{self, append, must};

/// Connections of a user to the signer that send nothing, until the input ends.
const IDLE: &str = "
import os, socket, sys
os.setuid(int(sys.argv[1]))
calls = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(8 + 64)]
for call in calls:
    call.connect('/run/cosserver/sign')
print('called', flush=True)
sys.stdin.read()
";

/// Regression: of 40 concurrent programs six failed, with \"Connection reset by peer\".
#[test]
fn many_programs_of_one_user_are_signed_for_concurrently() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice:root");
    let _signing = m.daemon();
    let start = |how_many: usize| -> Vec<Session> {
        let mut all = Vec::new();
        for _ in 0..how_many {
            let mut command = m.of(ALICE, "cos");
            command.args(["run", "-v", "hostb", "/usr/bin/id", "-un"]);
            all.push(Session::spawn(&mut command));
        }
        all
    };
    let all_are_root = |clients: Vec<Session>| {
        for client in clients {
            let ended = client.finish();
            assert_eq!(ended.out, ["root"], "{ended:?}\n{}", m.server.log_text());
        }
    };
    all_are_root(start(64));
    // If even the queue is full, they connect again.
    let words = ["python3", "-c", IDLE, &ALICE.to_string()].map(str::to_owned);
    let mut idle = Session::spawn(&mut inside(&m.path(""), &words));
    idle.out.wait("called");
    let clients = start(8);
    for client in &clients {
        client.err.wait("hello, suite");
    }
    drop(idle.stdin.take());
    all_are_root(clients);
}

/// Regression: twelve user IDs, as one user may have them (subuid), took every slot and sent
/// nothing.
#[test]
fn silent_callers_do_not_block_other_signatures() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice:root");
    let _signing = m.daemon();
    let silent: Vec<Session> = (0..12)
        .map(|n| {
            let words = ["python3", "-c", IDLE, &(63_000 + n).to_string()].map(str::to_owned);
            let idle = Session::spawn(&mut inside(&m.path(""), &words));
            // Those that find the queue full are hung up, and do not connect again.
            idle.out.wait("called");
            idle
        })
        .collect();
    let mut command = m.of(ALICE, "cos");
    command.args(["run", "hostb", "/usr/bin/id", "-un"]);
    let ended = Session::spawn(&mut command).finish();
    assert_eq!(ended.out, ["root"], "{ended:?}");
    drop(silent);
}

/// Users who are not yet known, while a directory is slow. Regression: the fifth was told to try
/// again.
#[test]
fn concurrent_user_look_ups_by_the_signer_all_succeed() {
    if !can() {
        return;
    }
    let pairs: Vec<String> = (0..16).map(|n| format!("user{n}:root")).collect();
    let m = Machine::new(&format!("users={}", pairs.join(",")));
    let source = m.path("slow.c");
    fs::write(&source, SLOW).unwrap();
    let mut go = Gate::new(m.path("go"));
    // The look-up process, which has no privileges, opens it.
    mode(&go.path, 0o666);
    let wait_at = format!("-DSLOW=\"{}\"", go.path.display());
    daemon::nss::install(&m.path("etc"), &m.bin, "slow", &source, &[wait_at]);
    let passwd = m.path("etc/passwd");
    for n in 0..16 {
        append(
            &passwd,
            &format!("user{n}:x:{}:100::/:/bin/sh\n", 62_000 + n),
        );
    }
    let sources = "passwd: slow files\ngroup: files\nhosts: files\n";
    fs::write(m.path("etc/nsswitch.conf"), sources).unwrap();
    let signing = m.daemon();
    let clients: Vec<Session> = (0..16)
        .map(|n| {
            let mut command = m.of_number(62_000 + n, "cos");
            command.args(["run", "hostb", "/usr/bin/id", "-un"]);
            Session::spawn(&mut command)
        })
        .collect();
    let pid = signing.child.id();
    let sockets = || {
        let all = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        all.filter_map(|f| fs::read_link(f.path()).ok())
            .filter(|to| to.to_str().unwrap().starts_with("socket:"))
            .count()
    };
    daemon::until("all have called", || sockets() >= 16);
    assert_eq!(signing.log.count("signed "), 0);
    go.open();
    for client in clients {
        let ended = client.finish();
        assert_eq!(ended.out, ["root"], "{ended:?}\n{:?}", signing.log.all());
    }
}

/// A directory of accounts that knows no user, and answers only when a FIFO is written.
const SLOW: &str = r#"
#include <fcntl.h>
#include <nss.h>
#include <poll.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static enum nss_status nobody(void)
{
    /* Other programs that ask are not to be kept waiting. */
    char name[16] = "";
    prctl(PR_GET_NAME, name);
    if (strcmp(name, "cos: lookup") != 0)
        return NSS_STATUS_NOTFOUND;
    struct pollfd written = {.fd = open(SLOW, O_RDONLY | O_NONBLOCK), .events = POLLIN};
    poll(&written, 1, -1);
    close(written.fd);
    return NSS_STATUS_NOTFOUND;
}

enum nss_status _nss_slow_getpwuid_r(uid_t uid, struct passwd *p, char *b, size_t n, int *e)
{
    (void)uid, (void)p, (void)b, (void)n, (void)e;
    return nobody();
}

enum nss_status _nss_slow_getpwnam_r(const char *name, struct passwd *p, char *b, size_t n, int *e)
{
    (void)name, (void)p, (void)b, (void)n, (void)e;
    return NSS_STATUS_NOTFOUND;
}
"#;

#[test]
fn one_users_signatures_fill_no_log() {
    if !can() {
        return;
    }
    let m = Machine::new("users=-");
    let signing = m.daemon();
    let message = m.ask(&[1; 32], KeyPair::random().unwrap().public);
    let message = message.encode().unwrap();
    let begun = Instant::now();
    for _ in 0..200 {
        assert!(matches!(m.says(&message), Some(Reply::Signed(_))));
    }
    signing.log.wait("signed user=root");
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap();
    let lines = signing.log.count("signed user=root");
    assert!(lines <= 10 * (seconds + 2), "{lines} in {seconds} s");
}

/// Connections of a user with invalid questions, one after the other.
const RUBBISH: &str = "
import os, socket, sys
os.setuid(int(sys.argv[1]))
for _ in range(400):
    call = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    call.connect('/run/cosserver/sign')
    try:
        call.send(b'rubbish')
        call.recv(8192)
    except ConnectionError: pass
    call.close()
";

/// Regression: they used up the log lines that are allowed for failures of unauthenticated peers in
/// a second. So a user could hide the failed guesses of an outside accomplice from the log.
#[test]
fn refused_signatures_do_not_use_up_log_lines_of_unauthenticated_peers() {
    if !can() {
        return;
    }
    let m = Machine::new("users=alice:root");
    let signing = m.daemon();
    let begun = Instant::now();
    let words = ["python3", "-c", RUBBISH, &ALICE.to_string()].map(str::to_owned);
    must(&mut inside(&m.path(""), &words));
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 2;
    signing.log.wait("not-signed ");
    let lines = signing.log.count("not-signed ");
    assert!(
        (1..=10 * seconds).contains(&lines),
        "{lines} lines in {seconds} s"
    );
}
