//! What the doors come to: who passes, who is asked for what, who is refused. Pure; the
//! monitor's.
//!
//! [`Admitted`] is somebody who is not kept out for good (the outer door's exclude list),
//! and [`Known`] somebody whose machine both doors let in. Neither can be made without
//! having looked.

use super::id::Id;
use super::outer::Level;
use crate::refusal::{Cause, Refusal};
use crate::secret::PublicKey;

/// Whoever calls with a machine key that is proven.
pub trait Machine {
    /// That key.
    fn machine(&self) -> &PublicKey;
}

impl<T: Machine> Machine for Box<T> {
    fn machine(&self) -> &PublicKey {
        (**self).machine()
    }
}

/// How the inner door's file knows a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It has never heard of it.
    Never,
    /// The manager has deleted it.
    Deleted,
    /// It is authorized; whether it was long unseen, so that it is to be noted.
    Known {
        /// Not seen within the hour.
        unseen: bool,
    },
}

/// What both doors say of one machine, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sight {
    /// Which machine.
    pub id: Id,
    /// It is kept out for good.
    pub excluded: bool,
    /// It is on the include list.
    pub included: bool,
    /// The security level.
    pub level: Level,
    /// How the inner door knows it; with [`Level::Off`] it is not asked.
    pub standing: Standing,
    /// Machines that call from the host itself pass.
    pub remote_only: bool,
    /// Whoever types a name is registered.
    pub build_mode: bool,
    /// There is a password that could be right: a one-time one, or the backdoor's.
    pub passwords: bool,
    /// What is said to whoever is let in.
    pub welcome: String,
}

/// What an unknown machine is asked for, while the outer door is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Want {
    /// A name.
    Name,
    /// An activation password.
    Activation,
}

/// That a machine is let in by both doors. Only looking, or registering it, makes one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pass {
    id: Id,
    /// It is to be registered: a host's, which has proven its cookie.
    pub introduce: bool,
}

impl Pass {
    /// Of a machine that has just been registered.
    pub(super) const fn registered(id: Id) -> Self {
        let introduce = false;
        Self { id, introduce }
    }

    /// Which machine.
    pub const fn id(&self) -> Id {
        self.id
    }
}

/// Where it goes on for somebody at the doors.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Way {
    /// In.
    In(Pass),
    /// He must be asked first.
    Ask(Want),
    /// Away, and why.
    Away(&'static str),
}

/// Why a machine is refused that the manager has deleted.
const DELETED: &str = "its machine was deleted from the inner door";

/// Decides, by what was seen, for a host whose cookie is proven or for anybody else, who
/// calls from this host itself or from another.
pub fn way(sight: &Sight, is_host: bool, is_local: bool) -> Way {
    let passes = |introduce| {
        let id = sight.id;
        Way::In(Pass { id, introduce })
    };
    if sight.excluded {
        return Way::Away("its machine is excluded");
    }
    if sight.level == Level::Off || (sight.remote_only && is_local) {
        return passes(false);
    }
    let is_known = matches!(sight.standing, Standing::Known { .. });
    if is_host {
        match sight.standing {
            Standing::Known { .. } => return passes(false),
            Standing::Never => return passes(true),
            Standing::Deleted => {}
        }
    }
    let is_closed = sight.level == Level::Closed;
    if is_closed && is_host {
        return Way::Away(DELETED);
    }
    if is_closed && !sight.included {
        return Way::Away("the outer door is closed, and its machine is not included");
    }
    if is_known {
        return passes(false);
    }
    if is_closed {
        return Way::Away("the outer door is closed, and the inner door does not know its machine");
    }
    if sight.build_mode {
        return Way::Ask(Want::Name);
    }
    if sight.passwords {
        return Way::Ask(Want::Activation);
    }
    if sight.standing == Standing::Deleted {
        return Way::Away(DELETED);
    }
    Way::Away(
        "the inner door does not know its machine, and there is no password by which it could register",
    )
}

/// Somebody whose machine is not excluded. Made before his request is decoded.
pub struct Admitted<T> {
    who: T,
}

impl<T: Machine> Admitted<T> {
    /// Lets him through, unless his machine is excluded.
    ///
    /// # Errors
    /// It is.
    pub fn by(who: T, sight: &Sight) -> Result<Self, Refusal> {
        is_of(&who, sight.id)?;
        if sight.excluded {
            let words = format!("machine {} is on the exclude list", sight.id);
            return Err(Refusal::new(Cause::Excluded, words));
        }
        Ok(Self { who })
    }
}

impl<T> Admitted<T> {
    /// Who it is.
    pub const fn who(&self) -> &T {
        &self.who
    }

    /// The same, for the next step.
    pub fn into_who(self) -> T {
        self.who
    }
}

/// Somebody whose machine both doors let in.
pub struct Known<T> {
    who: T,
}

impl<T: Machine> Known<T> {
    /// Lets him in.
    ///
    /// # Errors
    /// It is another machine's pass.
    pub fn by(who: T, pass: &Pass) -> Result<Self, Refusal> {
        is_of(&who, pass.id)?;
        Ok(Self { who })
    }
}

impl<T> Known<T> {
    /// Who it is.
    pub const fn who(&self) -> &T {
        &self.who
    }

    /// The same, to be answered.
    pub const fn who_mut(&mut self) -> &mut T {
        &mut self.who
    }

    /// The same, for the next step.
    pub fn into_who(self) -> T {
        self.who
    }
}

fn is_of(who: &impl Machine, id: Id) -> Result<(), Refusal> {
    if Id::of(who.machine()) == id {
        return Ok(());
    }
    let words = "the doors were asked about another machine";
    Err(Refusal::new(Cause::System, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(level: Level, standing: Standing) -> Sight {
        Sight {
            id: Id([1; 16]),
            excluded: false,
            included: false,
            level,
            standing,
            remote_only: false,
            build_mode: false,
            passwords: false,
            welcome: String::new(),
        }
    }

    const KNOWN: Standing = Standing::Known { unseen: false };

    fn is_in(way: Way) -> bool {
        matches!(way, Way::In(_))
    }

    #[test]
    fn the_excluded_never_pass() {
        for level in Level::ALL {
            for standing in [KNOWN, Standing::Never, Standing::Deleted] {
                for n in 0..16 {
                    let seen = Sight {
                        excluded: true,
                        included: n & 1 > 0,
                        remote_only: n & 2 > 0,
                        build_mode: n & 4 > 0,
                        passwords: true,
                        ..sight(level, standing)
                    };
                    for (host, local) in
                        [(true, true), (true, false), (false, true), (false, false)]
                    {
                        assert!(matches!(way(&seen, host, local), Way::Away(_)));
                    }
                }
            }
        }
    }

    #[test]
    fn a_closed_door_wants_both_lists() {
        let closed = |included, standing| {
            let seen = Sight {
                included,
                build_mode: true,
                passwords: true,
                ..sight(Level::Closed, standing)
            };
            way(&seen, false, false)
        };
        assert!(is_in(closed(true, KNOWN)));
        for (included, standing) in [
            (false, KNOWN),
            (true, Standing::Never),
            (true, Standing::Deleted),
            (false, Standing::Never),
        ] {
            assert!(matches!(closed(included, standing), Way::Away(_)));
        }
    }

    #[test]
    fn an_open_door_asks_whom_it_does_not_know() {
        let open = |build_mode, passwords, standing| {
            let seen = Sight {
                build_mode,
                passwords,
                ..sight(Level::Open, standing)
            };
            way(&seen, false, false)
        };
        assert!(is_in(open(false, false, KNOWN)));
        for standing in [Standing::Never, Standing::Deleted] {
            assert_eq!(open(true, true, standing), Way::Ask(Want::Name));
            assert_eq!(open(false, true, standing), Way::Ask(Want::Activation));
            assert!(matches!(open(false, false, standing), Way::Away(_)));
        }
    }

    #[test]
    fn a_proven_host_is_known_unless_it_was_deleted() {
        for level in [Level::Open, Level::Closed] {
            assert!(is_in(way(&sight(level, KNOWN), true, false)));
            let Way::In(pass) = way(&sight(level, Standing::Never), true, false) else {
                panic!("a host's first proof");
            };
            assert!(pass.introduce);
            let deleted = way(&sight(level, Standing::Deleted), true, false);
            assert_eq!(deleted, Way::Away(DELETED), "{level:?}");
        }
        let open = Sight {
            passwords: true,
            ..sight(Level::Open, Standing::Deleted)
        };
        assert_eq!(way(&open, true, false), Way::Ask(Want::Activation));
    }

    #[test]
    fn level_0_and_local_machines_are_not_asked_about() {
        for host in [true, false] {
            for standing in [Standing::Never, Standing::Deleted] {
                assert!(is_in(way(&sight(Level::Off, standing), host, false)));
                let remote_only = Sight {
                    remote_only: true,
                    ..sight(Level::Closed, standing)
                };
                assert!(is_in(way(&remote_only, host, true)));
            }
        }
        let remote_only = Sight {
            remote_only: true,
            ..sight(Level::Closed, Standing::Never)
        };
        assert!(matches!(way(&remote_only, false, false), Way::Away(_)));
    }

    #[test]
    fn a_pass_is_for_one_machine() {
        struct Caller(PublicKey);
        impl Machine for Caller {
            fn machine(&self) -> &PublicKey {
                &self.0
            }
        }
        let key = PublicKey([9; 32]);
        let own = Pass::registered(Id::of(&key));
        assert!(Known::by(Caller(key), &own).is_ok());
        assert!(Known::by(Caller(PublicKey([8; 32])), &own).is_err());
        let seen = Sight {
            id: Id::of(&key),
            ..sight(Level::Open, KNOWN)
        };
        assert!(Admitted::by(Caller(key), &seen).is_ok());
        assert!(Admitted::by(Caller(PublicKey([8; 32])), &seen).is_err());
        let excluded = Sight {
            excluded: true,
            ..seen
        };
        assert!(Admitted::by(Caller(key), &excluded).is_err());
    }
}
