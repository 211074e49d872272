//! A machine is excluded while it is here: whoever is at the doors, logs in, waits for his
//! account, or is in a session from there is sent away (`cosadm exclude add --now`).

use std::net::IpAddr;

use crate::daemon::monitor::Monitor;
use crate::daemon::monitor::logins::LoginId;
use crate::daemon::monitor::preauth::Preauth;
use crate::ipc::gate::Connection;
use crate::refusal::{Cause, Refusal};
use crate::registry::Id;

impl Monitor {
    /// Sends away whoever of an excluded machine is still to be decided. How many.
    pub(in super::super) fn send_away(&mut self, id: Id) -> usize {
        let all = self.unauthenticated.iter();
        let all: Vec<(Connection, IpAddr)> = all
            .filter_map(|(c, s)| Some((*c, self.comes_from(*c, s, id)?)))
            .collect();
        let words = "its machine was excluded meanwhile";
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

    /// From where a stranger calls by this machine; `None`: by another, or he logs in.
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
