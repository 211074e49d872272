//! The programs of inetd services with `wait = true`: each is started with a listening socket at the
//! first connection, and serves all connections until it ends.
//!
//! Runs in the monitor. Owns the programs and the paths of their sockets. Must not start one that is
//! running, and keeps no listening socket itself: if a program ends, what it has not accepted ends.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Pid, Uid, chown};

use super::ground::Ground;
use super::jobs::Jobs;
use crate::config::named_services::{Kind, NamedServices};
use crate::fault::Fault;
use crate::log::log;
use crate::sys::account::Account;
use crate::sys::id_number::IdNumber;
use crate::sys::job::{Ends, Identity, Program};
use crate::sys::process::{self, Ended};
use crate::sys::socket;

/// The file mode creation mask of the programs.
const MASK: u16 = 0o022;

/// The programs that run, by the names of their services.
#[derive(Default)]
pub(super) struct SharedPrograms(BTreeMap<String, Running>);

/// A program that runs.
struct Running {
    pid: Pid,
    command: Vec<String>,
    uid: IdNumber,
    /// Whether it was told to end.
    ends: bool,
}

impl SharedPrograms {
    /// Returns the path of a service's socket, and starts its program if it does not run.
    ///
    /// # Errors
    /// The socket cannot be made, or the system starts no process.
    pub(super) fn socket_of(
        &mut self,
        ground: &mut Ground,
        jobs: &mut Jobs,
        name: &str,
        command: &[String],
        account: &Account,
        becomes_user: bool,
    ) -> Result<PathBuf, Fault> {
        let path = ground.paths.service_socket(name);
        if let Some(running) = self.0.get_mut(name).filter(|running| !running.ends) {
            if running.command == command && running.uid == account.uid {
                return Ok(path);
            }
            // The settings have changed.
            running.end();
        }
        ground
            .unreaped
            .extend(self.0.remove(name).map(|old| old.pid));
        let listener = socket::unix_listener(&path).map_err(|e| Fault::of(&path, e))?;
        if becomes_user {
            let (uid, gid) = (account.uid.get(), account.gid.get());
            let user = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            chown(&path, user.0, user.1).map_err(|e| Fault::of(&path, e))?;
        }
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let program = program(ground, name, command, account, becomes_user)?;
        let ends = Ends {
            are_its_own: false,
            stdin: listener.as_fd(),
            stdout: null.as_fd(),
            stderr: null.as_fd(),
        };
        let pid = jobs.start_service(ground, program, ends)?;
        log!(
            ground.log,
            Info,
            "started",
            service = name,
            user = account.name,
            pid
        );
        let running = Running {
            pid,
            command: command.to_vec(),
            uid: account.uid,
            ends: false,
        };
        self.0.insert(name.to_owned(), running);
        Ok(path)
    }

    /// Reaps the programs that have ended: the next connection starts them again.
    pub(super) fn ended(&mut self, ground: &mut Ground) {
        self.0.retain(|name, running| {
            let Some(ended) = process::ended(running.pid) else {
                return true;
            };
            process::reap(running.pid);
            let status = match ended {
                Ended::Exited(status) => status.to_string(),
                Ended::Killed(signal) => format!("signal-{signal}"),
            };
            log!(ground.log, Info, "ended", service = name, status);
            remove_socket(ground, name);
            false
        });
    }

    /// Ends the programs whose services are no longer there, after a reload.
    pub(super) fn reload(&mut self, services: &NamedServices) {
        let is_there = |name: &String| {
            let service = services.get(name);
            service.is_some_and(|s| matches!(s.kind, Kind::Inetd { wait: true, .. }))
        };
        for (_, running) in self.0.iter_mut().filter(|(name, _)| !is_there(name)) {
            running.end();
        }
    }

    /// Ends the programs, and removes their sockets.
    pub(super) fn stop(&mut self, ground: &mut Ground) {
        for (name, mut running) in std::mem::take(&mut self.0) {
            running.end();
            remove_socket(ground, &name);
        }
    }
}

impl Running {
    fn end(&mut self) {
        if !std::mem::replace(&mut self.ends, true) {
            process::signal_group(self.pid, Signal::SIGTERM);
        }
    }
}

fn remove_socket(ground: &mut Ground, name: &str) {
    let path = ground.paths.service_socket(name);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            log!(ground.log, Warning, "fault", why = Fault::of(&path, e));
        }
        Ok(()) | Err(_) => {}
    }
}

/// Returns a service's program, ready to start as this user.
fn program(
    ground: &Ground,
    name: &str,
    command: &[String],
    account: &Account,
    becomes_user: bool,
) -> Result<Program, Fault> {
    let string = |bytes: &[u8]| {
        CString::new(bytes).map_err(|_| Fault::new("a NUL byte in the program or its user"))
    };
    let argv: Result<Vec<CString>, Fault> = command.iter().map(|w| string(w.as_bytes())).collect();
    let argv = argv?;
    let path = argv.first().cloned();
    let variables: [(&str, &[u8]); 6] = [
        ("HOME", account.home.as_os_str().as_bytes()),
        ("USER", account.name.as_bytes()),
        ("LOGNAME", account.name.as_bytes()),
        ("SHELL", account.shell.as_os_str().as_bytes()),
        ("PATH", ground.settings.exec.path.as_bytes()),
        ("COS_SERVICE", name.as_bytes()),
    ];
    let pair = |(name, value): (&str, &[u8])| string(&[name.as_bytes(), b"=", value].concat());
    Ok(Program {
        path: path.ok_or_else(|| Fault::new("an empty command"))?,
        argv,
        environment: variables.into_iter().map(pair).collect::<Result<_, _>>()?,
        folder: c"/".into(),
        mask: MASK,
        user: becomes_user.then(|| Identity {
            uid: account.uid,
            gid: account.gid,
            groups: account.groups.clone(),
        }),
    })
}
