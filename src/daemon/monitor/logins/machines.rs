//! Which machines log in: an exclusion concerns them.

use super::{Login, LoginId, Logins, Who};
use crate::registry::{Id, Machine};

impl Who {
    /// The machines that ask.
    pub(super) fn machines(&self) -> Vec<Id> {
        match self {
            Self::LoginClaim(known) => vec![Id::of(known.inner().machine())],
            Self::Host(known, _) => known.inner().machines(),
        }
    }
}

impl Logins {
    /// The logins of a machine that are still to be decided.
    pub(in super::super) fn of_machine(&self, id: Id) -> Vec<LoginId> {
        let of = |l: &Login| l.is_under_way() && l.machines.contains(&id);
        let all = self.all.iter().filter(|(_, l)| of(l));
        all.map(|(id, _)| *id).collect()
    }
}
