//! The processes of a session, in all their process groups.
//!
//! A signal to a process group misses processes that `timeout`(1), a shell with job control or GNU
//! parallel has moved to another group. The system lists such processes only in `/proc`, so without
//! it nothing is found here. Only process IDs come from there: the kernel is asked which session a
//! process is in, so that the `/proc` of another namespace has no effect.

use std::collections::BTreeSet;
use std::fs::ReadDir;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpgid, getsid};

use super::{pidfd, process};

/// The most passes over all processes before SIGHUP is sent: the second finds what was started
/// during the first.
pub const GATHERINGS: usize = 3;

/// The most passes over all processes for SIGKILL.
pub const KILLINGS: usize = 100;

/// One pass over the IDs of all processes.
pub struct Walk {
    entries: ReadDir,
    failed: bool,
    has_seen_itself: bool,
}

impl Walk {
    /// Begins a pass. `None`: there is no `/proc`.
    pub fn begin() -> Option<Self> {
        Some(Self {
            entries: std::fs::read_dir("/proc").ok()?,
            failed: false,
            has_seen_itself: false,
        })
    }

    /// Returns whether the finished pass has shown this process, and therefore the others.
    pub const fn is_whole(&self) -> bool {
        self.has_seen_itself && !self.failed
    }
}

impl Iterator for Walk {
    type Item = Pid;

    fn next(&mut self) -> Option<Pid> {
        loop {
            let Ok(entry) = self.entries.next()? else {
                self.failed = true;
                return None;
            };
            let name = entry.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
                let pid = Pid::from_raw(pid);
                self.has_seen_itself |= pid == nix::unistd::getpid();
                return Some(pid);
            }
        }
    }
}

/// Returns the session of a process: the process ID of its leader.
pub fn of(pid: Pid) -> Option<Pid> {
    getsid(Some(pid)).ok()
}

/// A process of a session that has not ended.
pub struct Member {
    pid: Pid,
    /// Whether it has left the session's first process group.
    is_apart: bool,
    /// `None`: the system has no pidfds.
    pidfd: Option<OwnedFd>,
}

impl Member {
    /// Returns the process with this ID, if it is in the session of this leader.
    pub fn of(pid: Pid, leader: Pid) -> Option<Self> {
        let is_one = || of(pid) == Some(leader);
        if !is_one() {
            return None;
        }
        let pidfd = pidfd::open(pid);
        let group = getpgid(Some(pid)).ok()?;
        let has_ended = match &pidfd {
            Some(pidfd) => pidfd::has_ended(pidfd),
            None => is_zombie(pid),
        };
        // The ID may have become another process's in the meantime.
        (!has_ended && is_one()).then_some(Self {
            pid,
            is_apart: group != leader,
            pidfd,
        })
    }

    /// Returns whether it has left the session's first process group.
    pub const fn is_apart(&self) -> bool {
        self.is_apart
    }

    /// Signals it.
    pub fn signal(&self, signal: Signal) {
        pidfd::signal(self.pidfd.as_ref(), self.pid, signal);
    }

    /// Returns whether it has ended, as far as the system tells.
    pub fn has_ended(&self) -> bool {
        self.pidfd.as_ref().is_some_and(pidfd::has_ended)
    }
}

/// Returns whether a process has ended and was not reaped.
fn is_zombie(pid: Pid) -> bool {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name, in parentheses, may contain any character.
    let end = stat.iter().rposition(|b| *b == b')');
    let state = end.and_then(|end| stat.get(end + 2));
    state.is_none_or(|state| b"ZX".contains(state))
}

/// Returns every process of the sessions of these leaders that has left its first group.
pub fn apart(leaders: &BTreeSet<i32>) -> Vec<Member> {
    let walk = Walk::begin().into_iter().flatten();
    walk.filter_map(|pid| {
        let leader = of(pid).filter(|leader| leaders.contains(&leader.as_raw()))?;
        Member::of(pid, leader).filter(Member::is_apart)
    })
    .collect()
}

/// A session's ID, which is its leader's process ID.
pub struct Number {
    leader: Pid,
    /// For a leader that other processes may have reaped.
    pidfd: Option<OwnedFd>,
    is_kept: bool,
}

impl Number {
    /// Creates it for a leader that no process reaps while this exists.
    pub const fn kept(leader: Pid) -> Self {
        Self {
            leader,
            pidfd: None,
            is_kept: true,
        }
    }

    /// Creates it for a leader that other processes may have reaped, with its pidfd.
    pub const fn loose(leader: Pid, pidfd: Option<OwnedFd>) -> Self {
        Self {
            leader,
            pidfd,
            is_kept: false,
        }
    }

    /// Returns the leader.
    pub const fn leader(&self) -> Pid {
        self.leader
    }

    /// Returns whether the ID is still the session's: no process gets it while a process of the
    /// session lives.
    pub fn is_its_own(&self) -> bool {
        self.is_kept
            || self.pidfd.as_ref().is_some_and(pidfd::is_there)
            || kill(self.leader, None) == Err(Errno::ESRCH)
    }

    /// Signals the session's first process group.
    fn signal_group(&self, signal: Signal) {
        match &self.pidfd {
            Some(pidfd) => pidfd::signal_led(pidfd, self.leader, signal),
            None if self.is_kept => process::signal_group(self.leader, signal),
            None => {}
        }
    }
}

/// The processes of a session that a pass has found.
#[derive(Default)]
pub struct Found {
    /// Whether the pass has shown the leader, and therefore the others.
    pub leader: bool,
    /// Processes in the first process group.
    pub in_group: BTreeSet<i32>,
    /// Processes that have left it.
    pub apart: BTreeSet<i32>,
}

impl Found {
    /// Adds a process of the session, and sends it the signal that `signal` returns for its kind
    /// (`true`: it has left the first group).
    pub fn enter(&mut self, pid: Pid, number: &Number, signal: impl Fn(bool) -> Option<Signal>) {
        if pid == number.leader() {
            self.leader = true;
            return;
        }
        let Some(member) = Member::of(pid, number.leader()) else {
            return;
        };
        if let Some(signal) = signal(member.is_apart).filter(|_| number.is_its_own()) {
            member.signal(signal);
        }
        let set = match member.is_apart {
            true => &mut self.apart,
            false => &mut self.in_group,
        };
        set.insert(pid.as_raw());
    }

    /// Returns whether the finished pass has shown all processes of the session.
    pub const fn is_whole(&self, walk: &Walk, number: &Number) -> bool {
        walk.is_whole() && (self.leader || !number.is_kept)
    }
}

/// Signals those of these processes that are in the session and have left its first group.
pub fn signal_apart(processes: &BTreeSet<i32>, number: &Number, signal: Signal) {
    for pid in processes {
        let member = Member::of(Pid::from_raw(*pid), number.leader());
        if let Some(member) = member.filter(Member::is_apart) {
            if number.is_its_own() {
                member.signal(signal);
            }
        }
    }
}

/// Makes one pass for the processes of one session. `None`: the system does not tell.
fn look(number: &Number, signal: Option<Signal>) -> Option<Found> {
    let mut found = Found::default();
    if !number.is_its_own() {
        return Some(found);
    }
    let mut walk = Walk::begin()?;
    for pid in walk.by_ref() {
        if of(pid) == Some(number.leader()) {
            found.enter(pid, number, |_| signal);
        }
    }
    found.is_whole(&walk, number).then_some(found)
}

/// Sends SIGHUP to every process of a session. Searches for processes outside the first group
/// before anything is sent, so that a process started to handle the signal is not signalled.
pub fn hang_up(number: &Number) {
    let mut known = BTreeSet::new();
    for _ in 0..GATHERINGS {
        let before = known.len();
        known.extend(look(number, None).unwrap_or_default().apart);
        if known.len() == before {
            break;
        }
    }
    number.signal_group(Signal::SIGHUP);
    signal_apart(&known, number, Signal::SIGHUP);
}

/// Sends SIGKILL to every process of a session, until a pass finds no new process.
pub fn kill_all(number: &Number) {
    number.signal_group(Signal::SIGKILL);
    let mut known = BTreeSet::new();
    for _ in 0..KILLINGS {
        let before = known.len();
        let found = look(number, Some(Signal::SIGKILL)).unwrap_or_default();
        known.extend(found.apart);
        known.extend(found.in_group);
        if known.len() == before {
            return;
        }
    }
}

/// Returns whether a process of the session other than its leader is left. Also returns `false` if
/// the system does not tell.
pub fn has_others(number: &Number) -> bool {
    look(number, None).is_some_and(|f| !f.in_group.is_empty() || !f.apart.is_empty())
}

#[cfg(all(test, target_os = "linux"))]
#[allow(
    clippy::disallowed_methods,
    reason = "a session has to be made of something"
)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;
    use crate::sys::forked::Forked;

    /// A session is gone if its leader was reaped and another process has got its ID since.
    #[test]
    fn a_number_that_another_process_has_is_no_sessions() {
        let another = Forked::start(|| std::thread::sleep(Duration::from_secs(60))).unwrap();
        let number = Number::loose(another.pid, None);
        assert!(!number.is_its_own());
        assert!(Number::kept(another.pid).is_its_own());
        // Unless the process is the leader itself.
        let pidfd = pidfd::open(another.pid);
        let leads = pidfd.is_some();
        assert_eq!(Number::loose(another.pid, pidfd).is_its_own(), leads);
        another.end();
        assert!(number.is_its_own());
    }

    /// Processes in their own group, in the first group, in another session; and one that has
    /// ended.
    #[test]
    fn what_is_in_a_session_is_found_in_whatever_group() {
        let script = "sleep 60 & echo $!; set -m; sleep 60 & echo $!; setsid sleep 1 & \
                      true & set +m; echo end; read x";
        let mut leader = Command::new("setsid")
            .args(["bash", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(leader.stdout.take().unwrap()).lines();
        let lines: Vec<String> = lines.map_while(Result::ok).take(3).collect();
        let number = Number::kept(Pid::from_raw(i32::try_from(leader.id()).unwrap()));
        let pid = |n: usize| lines.get(n).unwrap().parse::<i32>().unwrap();
        let own = |n| BTreeSet::from([pid(n)]);
        let seen = || {
            let found = look(&number, None).unwrap();
            assert!(found.leader);
            (found.in_group, found.apart) == (own(0), own(1))
        };
        let end = std::time::Instant::now() + Duration::from_secs(30);
        // Until setsid has run.
        while !seen() {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
        assert!(has_others(&number));
        assert_eq!(apart(&BTreeSet::from([number.leader().as_raw()])).len(), 1);
        kill_all(&number);
        while has_others(&number) {
            assert!(std::time::Instant::now() < end);
            std::thread::yield_now();
        }
        let ended = leader.wait().unwrap();
        assert!(!ended.success());
    }
}
