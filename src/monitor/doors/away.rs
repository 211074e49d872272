//! A machine is excluded while it is here: whoever is at the doors, logs in, or is in a
//! session from there is sent away (`cosadm exclude add --now`).

use crate::channel::gate::Connection;
use crate::door::Id;
use crate::monitor::Monitor;
use crate::monitor::answer::Stranger;
use crate::monitor::logins::LoginId;
use crate::refusal::{Cause, Refusal};

impl Monitor {
    /// Whoever of an excluded machine is at the doors or logs in is sent away.
    pub(in super::super) fn send_away(&mut self, id: Id) -> usize {
        let concerned = |s: &Stranger| match s {
            Stranger::AtDoor(visit) => visit.machines().contains(&id),
            Stranger::Asked(asked) => asked.machines().contains(&id),
            Stranger::Greeted(_) | Stranger::Waiting(_) | Stranger::LoggingIn(_) => false,
        };
        let all = self.strangers.iter().filter(|(_, s)| concerned(s));
        let all: Vec<Connection> = all.map(|(c, _)| *c).collect();
        let words = "its machine was excluded meanwhile";
        for c in &all {
            self.strangers.remove(c);
            self.refuse(*c, &Refusal::new(Cause::Excluded, words));
        }
        let logins: Vec<LoginId> = self.logins.of_machine(id);
        for login in &logins {
            self.refuse_login(*login, Cause::Excluded, words);
        }
        all.len() + logins.len()
    }
}
