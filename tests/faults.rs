//! System calls of the daemon that fail, as injected by strace(1): what depends on the failed call
//! ends, and nothing else.
#![cfg(target_os = "linux")]

use crate::daemon;

use std::process::{Child, Command, Stdio};

use daemon::hostile::RawConnection;
use daemon::{Daemon, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The failing system calls of a process, until the value is dropped.
struct Failing(Child);

impl Failing {
    /// `what` is `CALL:error=E:when=N`. `None`: this machine has no strace, or denies tracing.
    fn of(pid: i32, what: &str) -> Option<Self> {
        let probe = Command::new("strace")
            .args(["-o", "/dev/null", "true"])
            .stderr(Stdio::null())
            .status();
        if !probe.is_ok_and(|status| status.success()) {
            assert!(!daemon::in_ci(), "no strace");
            daemon::report_skipped("no strace");
            return None;
        }
        let (call, _) = what.split_once(':').unwrap();
        let child = Command::new("strace")
            .args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
            .args(["-e", &format!("inject={what}"), "-p", &pid.to_string()])
            .spawn()
            .unwrap();
        let failing = Self(child);
        until("it is traced", || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status
                .lines()
                .any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"))
        });
        Some(failing)
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        // strace detaches from the process, which continues.
        let pid = Pid::from_raw(self.0.id().try_into().unwrap());
        let _ = kill(pid, Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Regression: if the kernel had no memory for a message to the relay or the gate, the process was
/// taken for dead, and every session ended.
#[test]
fn lack_of_memory_is_not_taken_for_a_process_end() {
    if !daemon::needs_root() {
        return;
    }
    let d = Daemon::start();
    d.says(0, &["true"]);
    let mut session = d.session(&["read x; echo first $x; read x; echo second $x"]);
    for (call, errors) in [
        ("sendmsg", &["ENOMEM", "ENOBUFS", "ETOOMANYREFS"][..]),
        ("recvmsg", &["ENOMEM", "ENOBUFS"]),
    ] {
        for error in errors {
            // Every second call.
            let Some(_failing) = Failing::of(d.pid(), &format!("{call}:error={error}:when=1+2"))
            else {
                return;
            };
            for _ in 0..3 {
                d.says(3, &["exit 3"]);
            }
        }
    }
    session.say("one");
    session.out.wait("first one");
    session.say("two");
    session.out.wait("second two");
    assert_eq!(d.log.count("lost process="), 0, "{}", d.log_text());
}

/// Regression: if a job's end could not be reported, it was never reported, and the client waited
/// forever.
#[test]
fn session_with_an_unreportable_end_is_hung_up() {
    if !daemon::needs_root() {
        return;
    }
    let d = Daemon::start();
    let mut session = d.session(&["echo begun; read x; exit 3"]);
    session.out.wait("begun");
    let Some(_failing) = Failing::of(d.pid(), "sendmsg:error=EIO:when=1") else {
        return;
    };
    session.say("end");
    assert_eq!(session.finish().status, Some(255));
    d.log.wait("end session=0 ");
    assert_eq!(d.log.count("how=done"), 0, "{}", d.log_text());
}

/// Regression: a gate whose read was interrupted waited for the peer's next byte, while the peer
/// waited for an answer.
#[test]
fn an_interrupted_read_of_the_gate_goes_on() {
    if !daemon::needs_root() {
        return;
    }
    // strace replaces the call by an invalid one, for which the gate's seccomp filter would kill
    // it.
    let d = Daemon::start_by(
        daemon::missing::without(libc::SYS_seccomp, libc::ENOSYS),
        daemon::configured("", ""),
        &[],
    );
    let mut peer = RawConnection::connect(d.port);
    // By then the gate has accepted it and found nothing to read.
    d.says(0, &["true"]);
    let Some(_failing) = Failing::of(d.process("gate"), "read:error=EINTR:when=1") else {
        return;
    };
    peer.greet();
}

/// Regression: the kernel reports only once that a process has ended. A call that then failed was
/// not repeated.
#[test]
fn a_jobs_end_is_asked_for_again() {
    if !daemon::needs_root() {
        return;
    }
    let d = Daemon::start();
    d.says(0, &["true"]);
    let Some(_failing) = Failing::of(d.pid(), "waitid:error=EAGAIN:when=1") else {
        return;
    };
    d.says(3, &["exit 3"]);
}
