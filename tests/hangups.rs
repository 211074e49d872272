//! A session that is hung up ends completely, in all process groups of its processes: `timeout`,
//! shells with job control. A process with its own session lives on.

use crate::daemon;

use std::collections::BTreeSet;
use std::process::{Child, Command};

use daemon::session::{Gate, Session, lives};
use daemon::{COSADM, COSSERVER, Daemon, members, must, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// No process is killed during the test: what ends, ends by its hang-up.
const NEVER_KILL: &str = "[exec]\nhup-to-kill = 1000\n";
const KILL_SOON: &str = "[exec]\nhup-to-kill = 1\n";

fn groups(leader: i32) -> usize {
    let groups = members(leader).into_iter().map(|(_, group)| group);
    groups.collect::<BTreeSet<_>>().len()
}

/// Returns the leader of a session, which prints its process ID, once the session has this many
/// processes and groups.
fn leader(session: &Session, processes: usize, in_groups: usize) -> i32 {
    let (_, leader) = session.out.wait_from(0, |l| l.parse::<i32>().is_ok());
    let leader = leader.parse().unwrap();
    until("all its processes run", || {
        members(leader).len() == processes && groups(leader) == in_groups
    });
    leader
}

fn is_gone(leader: i32) {
    until("every process of the session ends", || {
        members(leader).is_empty()
    });
}

/// Wraps a script for bash, whose job control needs no terminal, whatever the user's shell is.
fn bash(script: &str) -> String {
    format!("exec bash -c '{}'", script.replace('\'', "'\\''"))
}

fn sigkill(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

fn cosadm_kill(d: &Daemon, id: &str) {
    must(
        Command::new(COSADM)
            .arg("-C")
            .arg(d.server())
            .args(["kill", id]),
    );
}

/// A shell, and `timeout` with its command in its own group.
const TIMEOUT: &str = "echo $$; timeout 1000 sleep 1000; echo never";

#[test]
fn what_timeout_runs_ends_with_its_client() {
    let ends = [
        "client killed",
        "SIGTERM",
        "SIGTERM twice",
        "SIGHUP",
        "cosadm kill",
        "relay killed",
        "daemon stopped",
    ];
    for end in ends {
        let d = Daemon::start_with(&format!("{NEVER_KILL}[daemon]\ngrace = 0\n"), "");
        let session = d.session(&[TIMEOUT]);
        let leader = leader(&session, 3, 2);
        match end {
            "client killed" => session.signal(Signal::SIGKILL),
            "SIGTERM" => session.signal(Signal::SIGTERM),
            "SIGTERM twice" => {
                session.signal(Signal::SIGTERM);
                session.signal(Signal::SIGTERM);
            }
            "SIGHUP" => session.signal(Signal::SIGHUP),
            "cosadm kill" => cosadm_kill(&d, "0"),
            "relay killed" => sigkill(d.process("relay")),
            _ => d.signal(Signal::SIGTERM),
        }
        is_gone(leader);
        d.log.wait("end session=0 ");
        let ended = session.finish();
        assert_eq!(ended.out.len(), 1, "{end}: {ended:?}");
    }
}

#[test]
fn under_inetd_what_timeout_runs_ends_with_its_client() {
    let folder = daemon::prepare(NEVER_KILL, "");
    let d = Daemon::start_by(daemon::inetd::superserver(), folder, &[]);
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let session = d.session(&[TIMEOUT]);
        let leader = leader(&session, 3, 2);
        session.signal(signal);
        is_gone(leader);
    }
}

#[test]
fn another_process_group_is_killed_after_the_grace_and_another_session_lives_on() {
    let d = Daemon::start_with(KILL_SOON, "");
    let script = "set -m; setsid sh -c 'echo escaped $$; exec sleep 1000' & \
                  (trap '' HUP; echo stays; exec sleep 1000) & \
                  (trap '' HUP; echo stays; exec sleep 1000) & \
                  echo $$; wait %2 %3";
    let session = d.session(&[&bash(script)]);
    let (_, escaped) = session.out.wait_from(0, |l| l.starts_with("escaped "));
    let escaped: i32 = escaped["escaped ".len()..].parse().unwrap();
    let leader = leader(&session, 3, 3);
    until("both stay", || session.out.count("stays") == 2);
    session.signal(Signal::SIGKILL);
    let line = d.log.wait("end session=0 ");
    is_gone(leader);
    let there = lives(escaped);
    sigkill(escaped);
    assert!(there, "what left the session is not ours to kill");
    let ms = line.split("ms=").nth(1).unwrap().split(' ').next().unwrap();
    let ms: u64 = ms.parse().unwrap();
    assert!(ms >= 1000, "not before the grace: {line}");
}

/// A session keeps its slot while one of its processes is left in any group, and no longer.
#[test]
fn the_last_of_another_group_frees_the_slot() {
    let settings =
        "[exec]\nhup-to-kill = 1000\n[limits]\nsessions = 1\n[daemon]\nrefusal-interval = 1\n";
    let d = Daemon::start_with(settings, "");
    let mut gate = Gate::new(d.folder.path("gate"));
    let stays = format!("trap \"\" HUP; echo stays; read x <{}", gate.name());
    let script = format!("set -m; sh -c '{stays}' & echo $$; wait");
    let session = d.session(&[&bash(&script)]);
    session.out.wait("stays");
    let leader = leader(&session, 2, 2);
    session.signal(Signal::SIGKILL);
    until("the leader has ended", || !lives(leader));
    let refused = d.session(&["true"]).finish();
    assert_eq!(refused.status, Some(255), "{refused:?}");
    assert!(d.log.wait("denied ").contains("cause=busy"));
    assert_eq!(d.log.count("end session="), 0);
    gate.open();
    let line = d.log.wait("end session=0 ");
    assert!(
        line.contains("how=client-gone") && line.contains("status=signal-1"),
        "{line}"
    );
    assert_eq!(d.session(&["true"]).finish().status, Some(0));
}

/// A process that a command starts to handle its hang-up may be in another group, and is not hung
/// up.
#[test]
fn a_command_tidies_up_by_what_it_starts_in_another_group() {
    let d = Daemon::start_with(NEVER_KILL, "");
    let mut gate = Gate::new(d.folder.path("gate"));
    let idle = Gate::new(d.folder.path("idle"));
    let file = d.folder.path("tidied");
    let script = format!(
        "trap 'timeout 100 sh -c \"read x <{}; : >{}\"; exit' HUP; exec 8<>{}; echo $$; \
         while :; do read x <&8; done",
        gate.name(),
        file.display(),
        idle.name()
    );
    let session = d.session(&[&script]);
    let leader = leader(&session, 1, 1);
    session.signal(Signal::SIGKILL);
    until("it tidies up", || groups(leader) == 2);
    gate.open();
    until("it has tidied up", || file.exists());
    d.log.wait("end session=0 ");
    is_gone(leader);
}

/// Processes that fork during the search for them.
#[test]
fn a_command_that_never_stops_starting_process_groups_is_killed() {
    let d = Daemon::start_with(KILL_SOON, "");
    let script = "set -m; trap '' HUP; echo $$; while :; do sleep 100 & done";
    let session = d.session(&[&bash(&format!("ulimit -u 4000; {script}"))]);
    let (_, leader) = session.out.wait_from(0, |l| l.parse::<i32>().is_ok());
    let leader = leader.parse().unwrap();
    until("it has some", || groups(leader) > 20);
    session.signal(Signal::SIGKILL);
    d.log.wait("end session=0 ");
    is_gone(leader);
}

/// A normal end sends no signal to a process, whatever group it is in.
#[test]
fn what_a_command_leaves_behind_at_its_end_lives_on() {
    let d = Daemon::start();
    let leave = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; exit 3";
    for script in [leave.to_owned(), format!("set -m; {leave}")] {
        let ended = d.session(&[&bash(&script)]).finish();
        assert_eq!(ended.status, Some(3));
        d.log.wait("status=3 ");
        let left = ended.out[0].parse().unwrap();
        let there = lives(left);
        sigkill(left);
        assert!(there, "{script}");
    }
}

/// A signal goes to the first group. If it ends the command, or requests its end, the other groups
/// end as well; if the command continues after it, the others are not affected.
#[test]
fn what_a_signalled_command_leaves_in_other_groups_is_hung_up() {
    let cases = [
        (Signal::SIGTERM, "trap 'exit 3' TERM", 3, false),
        (Signal::SIGHUP, "trap 'exit 3' HUP", 3, false),
        (Signal::SIGINT, "trap - INT", 130, false),
        (Signal::SIGINT, "trap 'exit 3' INT", 3, true),
    ];
    for (signal, trap, status, lives_on) in cases {
        let d = Daemon::start_with(NEVER_KILL, "");
        let sleep = "sleep 1000 </dev/null >/dev/null 2>&1";
        let idle = Gate::new(d.folder.path("idle"));
        let script = format!(
            "{trap}; {sleep} & set -m; {sleep} & set +m; echo $$; exec 8<>{}; read x <&8",
            idle.name()
        );
        let session = d.session(&[&bash(&script)]);
        let leader = leader(&session, 3, 2);
        let all = members(leader);
        let apart = all.iter().find(|(_, group)| *group != leader).unwrap().0;
        let beside = all
            .iter()
            .find(|(pid, group)| *group == leader && *pid != leader);
        let beside = beside.unwrap().0;
        // Until then their shell has not set them up completely: to ignore SIGINT, for example.
        until("both sleep", || {
            [beside, apart].map(|pid| daemon::status(pid, "Name")) == ["sleep"; 2]
        });
        session.signal(signal);
        assert_eq!(session.finish().status, Some(status), "{signal} {trap}");
        d.log.wait("end session=0 ");
        if lives_on {
            assert!(lives(apart), "{signal} {trap}");
            sigkill(apart);
        } else {
            assert!(!lives(apart), "{signal} {trap}");
        }
        // It has received the signal: a shell makes its background processes ignore SIGINT.
        if signal == Signal::SIGINT {
            assert!(lives(beside), "{signal} {trap}");
            sigkill(beside);
        }
    }
}

/// A chroot without `/proc`, or with one that shows no other processes.
#[test]
fn without_proc_the_first_group_is_hung_up_and_killed() {
    if !daemon::needs_root() {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.args(["mount -t tmpfs none /proc && exec \"$@\"", "sh", COSSERVER]);
    let d = Daemon::start_by(command, daemon::prepare(KILL_SOON, ""), &[]);
    let script = "(trap '' HUP; echo stays; exec sleep 1000) & set -m; sleep 1000 & set +m; \
                  echo $$; wait";
    let session = d.session(&[&bash(script)]);
    session.out.wait("stays");
    let leader = leader(&session, 3, 2);
    session.signal(Signal::SIGKILL);
    until("the group is gone", || {
        members(leader).iter().all(|(_, group)| *group != leader)
    });
    d.log.wait("end session=0 ");
    let left = members(leader);
    assert_eq!(left.len(), 1);
    sigkill(left[0].0);
    // Also on a signal of its client.
    let session = d.session(&["echo $$; read x"]);
    session.out.wait_from(0, |l| l.parse::<i32>().is_ok());
    session.signal(Signal::SIGTERM);
    assert_eq!(session.finish().status, Some(143));
    d.log.wait("end session=1 ");
}

/// Idle processes, ended with the value.
struct Processes(Vec<Child>);

impl Processes {
    fn of(size: usize) -> Self {
        let start = |_| Command::new("sleep").arg("1000").spawn().unwrap();
        Self((0..size).map(start).collect())
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for one in &mut self.0 {
            let _ = one.kill();
            let _ = one.wait();
        }
    }
}

/// Other commands are served while a machine with many processes is searched.
#[test]
fn search_through_many_processes_delays_no_other_command() {
    let d = Daemon::start_with(NEVER_KILL, "");
    let _crowd = Processes::of(if daemon::long() { 4000 } else { 500 });
    for _ in 0..20 {
        let session = d.session(&[TIMEOUT]);
        let leader = leader(&session, 3, 2);
        session.signal(Signal::SIGKILL);
        assert_eq!(d.says(0, &["echo served"]), b"served\n");
        is_gone(leader);
    }
}
