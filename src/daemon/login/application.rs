//! The application: started as the user, waited for, and hung up if the monitor is gone.
//!
//! Runs in the login worker, its parent. Owns the application's process. Must not reap it before
//! the monitor has received the report of its end, and must not hang up a detached one because the
//! monitor is gone.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{AccessFlags, Pid, faccessat, getgroups};

use super::Line;
use super::conversation::Held;
use super::pam::Transaction;
use crate::fault::Fault;
use crate::ipc::MESSAGE;
use crate::ipc::login::{LAUNCH_DESCRIPTORS, Launch, Order, Started, WorkerToMonitor};
use crate::protocol::prompt::fit;
use crate::sys::account::Account;
use crate::sys::id_number::IdNumber;
use crate::sys::job::{Ends, Identity, Program, Starter};
use crate::sys::process::{self, Ended, Limits};
use crate::sys::session::{self, Number};
use crate::sys::signals::Signals;

/// Time from SIGHUP to SIGKILL, for an application whose monitor is gone.
const GRACE: Duration = Duration::from_secs(5);

/// How often the worker checks for processes that an ended application has left in its session.
const LOOKING: Duration = Duration::from_millis(50);

/// An application that runs.
pub(super) struct Application {
    pid: Pid,
    signals: Signals,
    started: Option<Started>,
    /// It runs on without the monitor.
    detached: bool,
    hung_up: bool,
    /// When the rest of its session is killed, once it was hung up.
    kill_at: Option<Instant>,
}

impl Application {
    /// Starts the application. The session must be open.
    pub(super) fn start(
        launch: &Launch,
        account: &Account,
        fds: [OwnedFd; LAUNCH_DESCRIPTORS],
        pam: &mut dyn Transaction,
        held: &Held,
    ) -> Result<Self, Fault> {
        let signals = Signals::catch(&[
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
        ])?;
        if launch.detach {
            can_execute(launch, account)?;
        }
        let variables = pam.environment();
        let program = program(launch, account, &variables)?;
        let [stdin, stdout, stderr] = &fds;
        let ends = Ends {
            // A detached application gets /dev/null, which must stay root's.
            are_its_own: !launch.detach,
            stdin: stdin.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stderr.as_fd(),
        };
        // The limits are those of the session now; leave them.
        let pid = Starter::default().job(program, ends, Limits::default(), None)?;
        let started = Started {
            pid: pid.as_raw(),
            texts: fit(std::mem::take(&mut *held.borrow_mut())),
            variables: reported_variables(variables),
        };
        Ok(Self {
            pid,
            signals,
            started: Some(started),
            detached: launch.detach,
            hung_up: false,
            kill_at: None,
        })
    }

    /// Reports that the application runs, waits for its end and reports that. Reaps it once the
    /// monitor has received the report.
    pub(super) fn wait_and_report(mut self, line: &Line) -> Result<(), Fault> {
        let mut orphaned = self
            .started
            .take()
            .is_some_and(|started| line.say(&WorkerToMonitor::Running(started)).is_err());
        let mut told = false;
        loop {
            if orphaned && !self.detached {
                self.hang_up();
            }
            if let Some(ended) = process::ended(self.pid) {
                if !told && !orphaned {
                    told = true;
                    orphaned = line.say(&word_of(ended)).is_err();
                }
                if orphaned && !self.leaves_others() {
                    process::reap(self.pid);
                    return Ok(());
                }
            }
            self.wait(line, orphaned);
            if self
                .signals
                .take()
                .into_iter()
                .any(|s| s != Signal::SIGCHLD)
            {
                self.hang_up();
            }
            if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                session::kill_all(&self.number());
                self.kill_at = None;
            }
            if !orphaned {
                match line.try_next() {
                    Ok(Some((Order::Reap, _))) if told && !self.leaves_others() => {
                        process::reap(self.pid);
                        return Ok(());
                    }
                    Ok(Some(_)) | Err(_) => orphaned = true,
                    Ok(None) => {}
                }
            }
        }
    }

    /// Returns the number of its session. It stays valid because only this process reaps the
    /// leader.
    const fn number(&self) -> Number {
        Number::kept(self.pid)
    }

    /// Hangs up every process of its session, once, and sets the time when the rest is killed.
    fn hang_up(&mut self) {
        if !std::mem::replace(&mut self.hung_up, true) {
            session::hang_up(&self.number());
            self.kill_at = Some(Instant::now() + GRACE);
        }
    }

    /// Whether it was hung up and other processes of its session are still to be killed.
    fn leaves_others(&self) -> bool {
        self.kill_at.is_some() && session::has_others(&self.number())
    }

    fn wait(&self, line: &Line, orphaned: bool) {
        let channel = line.channel.borrow();
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if !orphaned {
            fds.push(PollFd::new(channel.as_fd(), PollFlags::POLLIN));
        }
        let left = self.kill_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            match process::ended(self.pid) {
                Some(_) => left.min(LOOKING),
                None => left,
            }
        });
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let _ = poll(&mut fds, timeout);
    }
}

/// Checks that the file exists and that the user may execute it. A detached application could not
/// report that after its start.
fn can_execute(launch: &Launch, account: &Account) -> Result<(), Fault> {
    let path = Path::new(OsStr::from_bytes(launch.path.to_bytes()));
    let user = launch.becomes_user.then_some((account.uid, account.gid));
    process::as_user(user, || {
        let about = std::fs::metadata(path).map_err(|e| Fault::of(path, e))?;
        let it = AtFlags::AT_EACCESS;
        faccessat(AT_FDCWD, path, AccessFlags::X_OK, it).map_err(|e| Fault::of(path, e.desc()))?;
        if about.is_file() && about.permissions().mode() & 0o111 != 0 {
            Ok(())
        } else {
            Err(Fault::of(path, "it cannot be executed"))
        }
    })
}

fn word_of(ended: Ended) -> WorkerToMonitor {
    match ended {
        Ended::Exited(n) => WorkerToMonitor::Exited(u8::try_from(n & 0xff).unwrap_or(255)),
        Ended::Killed(n) => WorkerToMonitor::Killed(u8::try_from(n).unwrap_or(127)),
    }
}

fn program(launch: &Launch, account: &Account, variables: &[CString]) -> Result<Program, Fault> {
    let user = if launch.becomes_user {
        Some(Identity {
            uid: account.uid,
            gid: account.gid,
            // Including the groups that the credentials have added.
            groups: IdNumber::all(getgroups()?.iter().map(|g| g.as_raw()))
                .ok_or_else(|| Fault::new("an invalid group"))?,
        })
    } else {
        None
    };
    let folder = CString::new(account.home.as_os_str().as_bytes());
    Ok(Program {
        path: launch.path.clone(),
        argv: launch.argv.clone(),
        environment: environment(launch, variables),
        folder: folder.map_err(|_| Fault::new("a NUL byte in the home folder's name"))?,
        mask: current_mask(),
        user,
    })
}

/// Returns the umask that the session has set. Reading it requires setting it.
fn current_mask() -> u16 {
    let mask = umask(Mode::from_bits_truncate(0o077));
    umask(mask);
    u16::try_from(mask.bits()).unwrap_or(0o077)
}

/// Returns one value for each name: our fixed variables, else PAM's, else our defaults.
fn environment(launch: &Launch, variables: &[CString]) -> Vec<CString> {
    let mut all: BTreeMap<Vec<u8>, CString> = BTreeMap::new();
    for variable in launch.defaults.iter().chain(variables).chain(&launch.fixed) {
        if let Some(name) = name_of(variable) {
            all.insert(name.to_vec(), variable.clone());
        }
    }
    all.into_values().collect()
}

/// Returns those of PAM's variables that the monitor gets, for the cleanup worker: as many as a
/// message holds. A user may set more of them (pam_env(8), `user_readenv`), and a message that
/// cannot be sent would end the user's session.
fn reported_variables(variables: Vec<CString>) -> Vec<CString> {
    /// Bytes, each variable with its length before it, and number of variables: half of a message.
    const ROOM: usize = MESSAGE / 2;
    const MOST: usize = 2048;
    let mut room = ROOM;
    let mut fits = |variable: &CString| {
        let left = room.checked_sub(variable.as_bytes().len().saturating_add(8));
        room = left.unwrap_or(room);
        left.is_some()
    };
    let mut told: Vec<CString> = variables.into_iter().filter(&mut fits).collect();
    told.truncate(MOST);
    told
}

fn name_of(variable: &CStr) -> Option<&[u8]> {
    let bytes = variable.to_bytes();
    let end = bytes.iter().position(|b| *b == b'=').filter(|n| *n > 0)?;
    bytes.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fixed_goes_before_pam_and_pam_before_the_defaults() {
        let strings = |all: &[&str]| all.iter().map(|s| CString::new(*s).unwrap()).collect();
        let launch = Launch {
            path: c"/x".into(),
            argv: Vec::new(),
            defaults: strings(&["PATH=/default", "LANG=C"]),
            fixed: strings(&["HOME=/home/a", "GUI_PORT=9003"]),
            becomes_user: true,
            detach: false,
        };
        let variables: Vec<CString> = strings(&["PATH=/pam", "HOME=/evil", "=x", "none"]);
        let all = environment(&launch, &variables);
        let expected: Vec<CString> =
            strings(&["GUI_PORT=9003", "HOME=/home/a", "LANG=C", "PATH=/pam"]);
        assert_eq!(all, expected);
    }
}
