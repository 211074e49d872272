//! The events of the look-up processes, passed on to the requests that wait for them.
//!
//! Runs in the monitor. Owns nothing: takes the events of [`super::LookUps`], logs them, and passes
//! on each answer. Must not wait, and logs no text of a process but as a value.

use std::net::IpAddr;
use std::time::Instant;

use super::{Found, LookUpEvent};
use crate::log::{Level, log};
use crate::sys::confine::Confined;

use super::super::Monitor;

impl Monitor {
    /// Prepares a look-up process for the user of a request that is coming. Not for an address that
    /// HOSTINFO does not list; not while an account is known, which the request probably needs; and
    /// only as root, since others serve one user only.
    pub(in super::super) fn prepare_look_up(&mut self, from: IpAddr) {
        let now = Instant::now();
        let serves_others = self.accounts.serves().is_none();
        if serves_others && !self.accounts.knows_any(now) && self.listed.has(from) {
            self.look_ups.prepare(self.poll.registry(), now);
        }
    }

    /// Handles the events of the look-up processes.
    pub(in super::super) fn take_look_ups(&mut self, now: Instant) {
        loop {
            let all = self.look_ups.event();
            if all.is_empty() {
                break;
            }
            for event in all {
                match event {
                    LookUpEvent::Ready(confined, is_first) => self.log_look_up(confined, is_first),
                    LookUpEvent::Lost(why) => {
                        log!(self.log, Error, "lost", process = "lookup", why);
                    }
                    LookUpEvent::Found(which, Found::User(found)) => {
                        let found = found.as_ref().map(Option::as_deref);
                        self.user_found(which, found.map_err(String::as_str), now);
                    }
                    LookUpEvent::Found(which, Found::Host(found)) => {
                        self.host_found(which, found, now)
                    }
                }
            }
        }
        self.look_ups.close_unread();
        self.unreaped.extend(self.look_ups.unreaped());
    }

    fn log_look_up(&mut self, confined: Confined, is_first: bool) {
        let level = match is_first && self.inetd.is_none() {
            true => Level::Info,
            false => Level::Debug,
        };
        self.log.say(
            level,
            "started",
            &[
                ("process", &"lookup"),
                ("user", &confined.user),
                ("landlock", &confined.landlock),
                ("seccomp", &confined.seccomp),
            ],
        );
        for (protection, why) in confined.missing().filter(|_| is_first) {
            self.warn_of_missing("lookup", protection, &why);
        }
    }
}
