//! An application ends with its login, in all process groups of its processes.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Command;

use crate::daemon::session::lives;
use crate::daemon::{COSADM, members, must, needs_root, until};
use crate::login::{Logins, Plan, look_inner};

/// One that ends on a hang-up, with a process that `timeout` has put into another group, and one
/// that leaves a process there that must be killed.
const APPLICATIONS: &str = "
[gui.timed]
command = [\"/bin/sh\", \"-c\", \"echo $$ >new; mv new pid; timeout 600 sleep 600; echo never\"]
users = [\"*\"]
[gui.stubborn]
command = [\"/bin/sh\", \"-c\", \"timeout 600 sh -c 'trap \\\"\\\" HUP; echo $PPID >up; exec sleep 600' & until test -s up; do sleep 0.1; done; echo $$ >new; mv new pid; wait\"]
users = [\"*\"]
";

fn start(grace: &'static str) -> Logins {
    Plan {
        settings: grace,
        applications: APPLICATIONS,
        ..Plan::default()
    }
    .start()
}

/// Returns the leader of the application's session, which has this many processes.
fn leader(l: &Logins, processes: usize) -> i32 {
    let file = l.d.folder.path("home/alice/pid");
    until("it runs", || file.exists());
    let leader = std::fs::read_to_string(&file).unwrap();
    let leader = leader.trim().parse().unwrap();
    until("all of it runs", || {
        let all = members(leader);
        all.len() == processes && all.iter().any(|(_, group)| *group != leader)
    });
    leader
}

fn sigkill(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[test]
fn other_process_groups_end_with_the_login_too() {
    if !needs_root() {
        return;
    }
    let grace = "[exec]\nhup-to-kill = 1000\n[daemon]\ngrace = 0\n";
    for end in [
        "client", "SIGTERM", "cosadm", "monitor", "worker", "stopped",
    ] {
        let l = start(grace);
        let client = look_inner(&mut l.gui("alice", "secret\n", &[], &["timed"]));
        let leader = leader(&l, 3);
        match end {
            "client" => client.signal(Signal::SIGKILL),
            "SIGTERM" => client.signal(Signal::SIGTERM),
            "cosadm" => kill_session(&l),
            "monitor" => sigkill(l.d.pid()),
            "worker" => sigkill(l.d.process("login")),
            _ => l.d.signal(Signal::SIGTERM),
        }
        until(&format!("{end}: it ends"), || members(leader).is_empty());
        l.all_closed(1);
    }
}

fn kill_session(l: &Logins) {
    let mut cosadm = Command::new(COSADM);
    must(cosadm.arg("-C").arg(l.d.server()).args(["kill", "0"]));
}

#[test]
fn another_process_group_that_ignores_the_hang_up_is_killed() {
    if !needs_root() {
        return;
    }
    for end in [
        "client",
        "cosadm",
        "monitor",
        "worker",
        "detached",
        "detached, worker",
    ] {
        let l = start("[exec]\nhup-to-kill = 1\n");
        let flags: &[&str] = match end.starts_with("detached") {
            true => &["--detach"],
            false => &[],
        };
        let client = look_inner(&mut l.gui("alice", "secret\n", flags, &["stubborn"]));
        let leader = leader(&l, 3);
        match end {
            "client" => client.signal(Signal::SIGKILL),
            "cosadm" | "detached" => kill_session(&l),
            "monitor" => sigkill(l.d.pid()),
            _ => sigkill(l.d.process("login")),
        }
        until("its leader ends by the hang-up", || !lives(leader));
        until(&format!("{end}: all of it ends"), || {
            members(leader).is_empty()
        });
        l.all_closed(1);
    }
}
