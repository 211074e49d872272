//! A client at a terminal that the test controls.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use nix::sys::termios::{LocalFlags, tcgetattr};

use crate::daemon::session::{Patient, Session};
use crate::daemon::until;

/// A client at its own terminal.
pub struct Seat {
    terminal: fs::File,
    pub seen: String,
    pub client: Session,
}

impl Seat {
    pub fn take(command: &Command) -> Self {
        Self::start(command, false)
    }

    /// The same for a program whose output is also the screen.
    pub fn take_whole(command: &Command) -> Self {
        Self::start(command, true)
    }

    fn start(command: &Command, whole: bool) -> Self {
        let ends = nix::pty::openpty(None, None).unwrap();
        let mut setsid = Command::new("setsid");
        setsid
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => setsid.env(name, value),
                None => setsid.env_remove(name),
            };
        }
        setsid.stdout(Stdio::piped()).stderr(Stdio::piped());
        if whole {
            setsid.stdout(ends.slave.try_clone().unwrap());
        }
        // Standard input is the terminal, so that it becomes the session's controlling terminal.
        setsid.stdin(ends.slave);
        let client = Session::of(setsid.spawn().unwrap());
        Self {
            terminal: ends.master.into(),
            seen: String::new(),
            client,
        }
    }

    /// Waits until the screen shows this.
    pub fn sees(&mut self, what: &str) {
        while !self.seen.contains(what) {
            let mut bytes = [0; 512];
            let read = std::io::Read::read(&mut Patient(&self.terminal), &mut bytes);
            let n = read.unwrap_or_else(|e| {
                let said = self.client.err.all();
                panic!("no {what:?}, {e}: {:?} {said:?}", self.seen)
            });
            self.seen += &String::from_utf8_lossy(&bytes[..n]);
        }
    }

    pub fn echoes(&self) -> bool {
        let settings = tcgetattr(self.terminal.as_fd()).unwrap();
        settings.local_flags.contains(LocalFlags::ECHO)
    }

    /// Types once the echo is off.
    pub fn types_unseen(&mut self, keys: &[u8]) {
        until("the echo is off", || !self.echoes());
        self.terminal.write_all(keys).unwrap();
    }

    pub fn types(&mut self, keys: &[u8]) {
        self.terminal.write_all(keys).unwrap();
    }

    /// Waits for the client's end; the echo must be on again.
    pub fn ends(self) -> crate::daemon::session::Ended {
        let Self {
            terminal, client, ..
        } = self;
        let ended = client.finish();
        let settings = tcgetattr(terminal.as_fd()).unwrap();
        assert!(
            settings.local_flags.contains(LocalFlags::ECHO),
            "no echo: {ended:?}"
        );
        ended
    }
}
