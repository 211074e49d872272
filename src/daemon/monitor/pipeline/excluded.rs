//! Exclusion of a machine that is connected (`cosadm exclude add --now`): ends its pending
//! admissions, logins, requests that wait for an account, and sessions. Runs in the monitor.

use std::net::IpAddr;

use crate::daemon::monitor::Monitor;
use crate::daemon::monitor::logins::LoginId;
use crate::daemon::monitor::preauth::Preauth;
use crate::ipc::gate::Connection;
use crate::refusal::{Cause, Refusal};
use crate::registry::Id;

impl Monitor {
    /// Refuses all undecided requests of an excluded machine. Returns how many there were.
    pub(in crate::daemon::monitor) fn refuse_undecided(&mut self, id: Id) -> usize {
        let all = self.unauthenticated.iter();
        let all: Vec<(Connection, IpAddr)> = all
            .filter_map(|(c, s)| Some((*c, self.comes_from(*c, s, id)?)))
            .collect();
        let words = "its machine has been excluded";
        for (c, peer) in &all {
            self.forget(*c);
            self.refuse(*c, &Refusal::new(Cause::Excluded, words).of(*peer));
        }
        let logins: Vec<LoginId> = self.logins.of_machine(id);
        for login in &logins {
            self.interrupt_login(*login, Cause::Excluded, words);
        }
        all.len() + logins.len()
    }

    /// Returns the address of an unauthenticated connection of this machine; `None`: it is
    /// another's, or a login.
    fn comes_from(&self, c: Connection, preauth: &Preauth, id: Id) -> Option<IpAddr> {
        match preauth {
            Preauth::AtDoor(admission) => {
                admission.machines().contains(&id).then_some(admission.peer)
            }
            Preauth::Asked(asked) => asked.machines().contains(&id).then(|| asked.peer()),
            Preauth::Waiting(which) => {
                let mut waiting = self.pending.get(which).into_iter().flatten();
                let pending = waiting.find(|p| p.connection == c)?;
                let authenticated = pending.granted.authenticated();
                authenticated
                    .machines()
                    .contains(&id)
                    .then(|| authenticated.peer())
            }
            Preauth::Greeted(_) | Preauth::LoggingIn(_) => None,
        }
    }
}
