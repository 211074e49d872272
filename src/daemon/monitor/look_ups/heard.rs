//! What the look-up processes have said, on its way to whoever asked.
//!
//! Runs in the monitor. Owns nothing: takes the news of [`super::LookUps`], logs it, and hands
//! each answer to who waits for it. Must not wait, and logs no text of a process but as a value.

use std::net::IpAddr;
use std::time::Instant;

use super::{Found, LookUpEvent};
use crate::log::Level;
use crate::sys::confine::Confined;

use super::super::Monitor;

impl Monitor {
    /// A request is coming: a process gets ready to look its user up. Not for an address that
    /// HOSTINFO does not list; not while an account is known, which it probably asks for; and
    /// only for root, which alone serves more than one user.
    pub(in super::super) fn prepare_look_up(&mut self, from: IpAddr) {
        let now = Instant::now();
        let serves_others = self.accounts.serves().is_none();
        if serves_others && !self.accounts.knows_any(now) && self.listed.has(from) {
            self.look_ups.prepare(self.poll.registry(), now);
        }
    }

    /// Takes what the look-up processes have said.
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
                        let pairs: [(&str, &dyn std::fmt::Display); 2] =
                            [("process", &"lookup"), ("why", &why)];
                        self.log.say(Level::Error, "lost", &pairs);
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
