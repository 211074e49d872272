//! The machines that log in, for exclusions. Runs in the monitor.

use super::{Login, LoginId, LoginSubject, Logins};
use crate::registry::{Id, Machine};

impl LoginSubject {
    /// Returns the machines that make the request.
    pub(super) fn machines(&self) -> Vec<Id> {
        match self {
            Self::LoginClaim(known) => vec![Id::of(known.inner().machine())],
            Self::Host(known, _) => known.inner().machines(),
        }
    }
}

impl Logins {
    /// Returns the undecided logins of a machine.
    pub(in super::super) fn of_machine(&self, id: Id) -> Vec<LoginId> {
        let of = |l: &Login| l.is_under_way() && l.machines.contains(&id);
        let all = self.all.iter().filter(|(_, l)| of(l));
        all.map(|(id, _)| *id).collect()
    }
}
