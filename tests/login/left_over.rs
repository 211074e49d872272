//! What an application leaves behind is hung up and killed, also if the kernel cannot signal a
//! process group by a descriptor (before Linux 6.9).

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::daemon::session::{Session, ends};
use crate::daemon::{needs_root, until};
use crate::login::{Logins, Plan};

/// An application whose leader ends on a hang-up while another process of its group does not; and
/// one whose leader does not end.
const APPLICATIONS: &str = "
[gui.family]
command = [\"/bin/sh\", \"-c\", \"sh -c 'trap \\\"\\\" HUP; echo $$; exec sleep 600' & wait\"]
users = [\"*\"]
[gui.alone]
command = [\"/bin/sh\", \"-c\", \"trap '' HUP; echo $$ >new; mv new pid; exec sleep 600\"]
users = [\"*\"]
[gui.stubborn]
command = [\"/bin/sh\", \"-c\", \"trap '' HUP; echo $$; exec sleep 600\"]
users = [\"*\"]
";

/// Starts a daemon on this kernel, or on one that cannot signal a group by a descriptor.
fn start(old: bool) -> Logins {
    let plan = Plan {
        settings: "[exec]\nhup-to-kill = 1\n",
        applications: APPLICATIONS,
        ..Plan::default()
    };
    let mut command = Command::new("env");
    if old {
        let flags = SeccompCondition::new(3, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0);
        let rule = SeccompRule::new(vec![flags.unwrap()]).unwrap();
        #[allow(clippy::useless_conversion, reason = "32 bits on 32-bit machines")]
        let number = i64::from(libc::SYS_pidfd_send_signal);
        let rules = BTreeMap::from([(number, vec![rule])]);
        let einval = SeccompAction::Errno(libc::EINVAL as u32);
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, einval, arch).unwrap();
        let program: BpfProgram = filter.try_into().unwrap();
        unsafe {
            command.pre_exec(move || {
                seccompiler::apply_filter(&program)
                    .map_err(|e| std::io::Error::other(e.to_string()))
            });
        }
    }
    plan.start_by(command)
}

/// Starts the application; returns the process ID that it prints.
fn runs(l: &Logins, name: &str) -> (Session, i32) {
    let mut session = Session::spawn(&mut l.gui("alice", "secret\n", &[], &[name]));
    let (_, line) = session.out.wait_from(0, |_| true);
    drop(session.stdin.take());
    (session, line.parse().unwrap())
}

#[test]
fn processes_that_ignore_sighup_are_killed_on_old_and_new_kernels() {
    if !needs_root() {
        return;
    }
    for old in [false, true] {
        let l = start(old);
        let (session, pid) = runs(&l, "family");
        session.signal(Signal::SIGKILL);
        assert!(ends(pid), "old {old}: a child of the application goes on");
        l.all_closed(1);

        let l = start(old);
        let (session, pid) = runs(&l, "stubborn");
        kill(Pid::from_raw(l.d.process("login")), Signal::SIGKILL).unwrap();
        assert!(ends(pid), "old {old}: it outlives its worker");
        assert_eq!(session.finish().status, Some(255));
        l.all_closed(1);

        // The same with a detached application.
        let l = start(old);
        let gui = &mut l.gui("alice", "secret\n", &["--detach"], &["alone"]);
        assert_eq!(l.ended(gui).status, Some(0));
        let file = l.d.folder.path("home/alice/pid");
        until("it runs", || file.exists());
        let pid = std::fs::read_to_string(&file).unwrap();
        kill(Pid::from_raw(l.d.process("login")), Signal::SIGKILL).unwrap();
        assert!(
            ends(pid.trim().parse().unwrap()),
            "old {old}: it outlives its worker"
        );
        l.all_closed(1);

        // An application that ends by itself is reaped, and its session closed.
        let l = start(old);
        let (session, pid) = runs(&l, "stubborn");
        kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
        assert_eq!(session.finish().status, Some(128 + 15));
        l.all_closed(1);
        l.d.log.wait("status=signal-15");
    }
}
