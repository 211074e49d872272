//! The access decision: allow, prompt or deny, from what both doors say of a machine.
//!
//! Pure. Runs in the monitor.
//!
//! [`Admitted`] is a caller whose machine is not on the outer door's exclude list. [`Known`] is a
//! caller whose machine both doors allow. Neither can be created without a machine's status; the
//! monitor gets one from the registry only.

use super::id::Id;
use super::outer::Level;
use crate::refusal::{Cause, Refusal};
use crate::secret::PublicKey;

/// A caller with a proven machine key.
pub trait Machine {
    /// Returns that key.
    fn machine(&self) -> &PublicKey;
}

impl<T: Machine> Machine for Box<T> {
    fn machine(&self) -> &PublicKey {
        (**self).machine()
    }
}

/// The state of a machine in the inner door's file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegistrationState {
    /// The file has no entry for it.
    Never,
    /// The administrator has deleted it.
    Deleted,
    /// It is authorized.
    Known {
        /// It was not seen within the last hour, so the new time is to be recorded.
        unseen: bool,
    },
}

/// The status of one machine according to both doors, at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineStatus {
    /// The machine's ID.
    pub id: Id,
    /// It is on the exclude list and is always denied.
    pub excluded: bool,
    /// It is on the include list.
    pub included: bool,
    /// The security level.
    pub level: Level,
    /// Its state in the inner door, which is not asked at [`Level::Off`].
    pub state: RegistrationState,
    /// Machines that connect from this host itself are allowed.
    pub remote_only: bool,
    /// Build mode is on: a user who types a name registers the machine.
    pub build_mode: bool,
    /// A password could be right: there is a one-time password or the backdoor password.
    pub passwords: bool,
    /// The message for a machine that is allowed.
    pub welcome: String,
}

/// What the user of an unknown machine is asked for while the outer door is open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PromptFor {
    /// A name.
    Name,
    /// An activation password.
    Activation,
}

/// Proof that both doors allow a machine: made of its status ([`decide`]), or by registering it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdmissionPass {
    id: Id,
    /// The machine is to be registered: it belongs to a host that has proven its cookie.
    pub introduce: bool,
}

impl AdmissionPass {
    /// Returns the pass of a machine that has just been registered.
    pub(super) const fn registered(id: Id) -> Self {
        let introduce = false;
        Self { id, introduce }
    }

    /// Returns the machine's ID.
    pub const fn id(&self) -> Id {
        self.id
    }
}

/// The access decision for a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessDecision {
    /// The machine is allowed.
    Allow(AdmissionPass),
    /// Its user must be asked first.
    Prompt(PromptFor),
    /// The machine is denied, for this reason.
    Deny(&'static str),
}

/// The reason why a machine is denied that the administrator has deleted.
const DELETED: &str = "its machine was deleted from the inner door";

/// Decides from the machine's status. `is_host` is true for a host that has proven its cookie.
/// `is_local` is true if the caller connects from this host itself.
pub fn decide(status: &MachineStatus, is_host: bool, is_local: bool) -> AccessDecision {
    let passes = |introduce| {
        let id = status.id;
        AccessDecision::Allow(AdmissionPass { id, introduce })
    };
    if status.excluded {
        return AccessDecision::Deny("its machine is excluded");
    }
    if status.level == Level::Off || (status.remote_only && is_local) {
        return passes(false);
    }
    let is_known = matches!(status.state, RegistrationState::Known { .. });
    if is_host {
        match status.state {
            RegistrationState::Known { .. } => return passes(false),
            RegistrationState::Never => return passes(true),
            RegistrationState::Deleted => {}
        }
    }
    let is_closed = status.level == Level::Closed;
    if is_closed && is_host {
        return AccessDecision::Deny(DELETED);
    }
    if is_closed && !status.included {
        return AccessDecision::Deny("the outer door is closed, and its machine is not included");
    }
    if is_known {
        return passes(false);
    }
    if is_closed {
        return AccessDecision::Deny(
            "the outer door is closed, and the inner door does not know its machine",
        );
    }
    if status.build_mode {
        return AccessDecision::Prompt(PromptFor::Name);
    }
    if status.passwords {
        return AccessDecision::Prompt(PromptFor::Activation);
    }
    if status.state == RegistrationState::Deleted {
        return AccessDecision::Deny(DELETED);
    }
    AccessDecision::Deny(
        "the inner door does not know its machine, and there is no password by which it could register",
    )
}

/// A caller whose machine is not excluded. Created before its request is decoded.
pub struct Admitted<T> {
    inner: T,
}

impl<T: Machine> Admitted<T> {
    /// Admits the caller unless its machine is excluded.
    ///
    /// # Errors
    /// The machine is excluded, or the status is that of another machine.
    pub fn by(inner: T, status: &MachineStatus) -> Result<Self, Refusal> {
        is_of(&inner, status.id)?;
        if status.excluded {
            let words = format!("machine {} is on the exclude list", status.id);
            return Err(Refusal::new(Cause::Excluded, words));
        }
        Ok(Self { inner })
    }
}

impl<T> Admitted<T> {
    /// Returns the caller.
    pub const fn inner(&self) -> &T {
        &self.inner
    }

    /// Returns the caller by value, for the next step.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

/// A caller whose machine both doors allow.
pub struct Known<T> {
    inner: T,
}

impl<T: Machine> Known<T> {
    /// Accepts the caller with the pass of its machine.
    ///
    /// # Errors
    /// The pass is that of another machine.
    pub fn by(inner: T, pass: &AdmissionPass) -> Result<Self, Refusal> {
        is_of(&inner, pass.id)?;
        Ok(Self { inner })
    }
}

impl<T> Known<T> {
    /// Returns the caller.
    pub const fn inner(&self) -> &T {
        &self.inner
    }

    /// Returns the caller for answering it.
    pub const fn inner_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Returns the caller by value, for the next step.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

fn is_of(inner: &impl Machine, id: Id) -> Result<(), Refusal> {
    if Id::of(inner.machine()) == id {
        return Ok(());
    }
    let words = "the registry was asked about another machine";
    Err(Refusal::new(Cause::System, words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(level: Level, state: RegistrationState) -> MachineStatus {
        MachineStatus {
            id: Id([1; 16]),
            excluded: false,
            included: false,
            level,
            state,
            remote_only: false,
            build_mode: false,
            passwords: false,
            welcome: String::new(),
        }
    }

    const KNOWN: RegistrationState = RegistrationState::Known { unseen: false };

    fn is_in(decide: AccessDecision) -> bool {
        matches!(decide, AccessDecision::Allow(_))
    }

    #[test]
    fn excluded_machine_is_always_denied() {
        for level in Level::ALL {
            for state in [KNOWN, RegistrationState::Never, RegistrationState::Deleted] {
                for n in 0..16 {
                    let seen = MachineStatus {
                        excluded: true,
                        included: n & 1 > 0,
                        remote_only: n & 2 > 0,
                        build_mode: n & 4 > 0,
                        passwords: true,
                        ..status(level, state)
                    };
                    for (host, local) in
                        [(true, true), (true, false), (false, true), (false, false)]
                    {
                        assert!(matches!(
                            decide(&seen, host, local),
                            AccessDecision::Deny(_)
                        ));
                    }
                }
            }
        }
    }

    #[test]
    fn closed_outer_door_requires_both_lists() {
        let closed = |included, state| {
            let seen = MachineStatus {
                included,
                build_mode: true,
                passwords: true,
                ..status(Level::Closed, state)
            };
            decide(&seen, false, false)
        };
        assert!(is_in(closed(true, KNOWN)));
        for (included, state) in [
            (false, KNOWN),
            (true, RegistrationState::Never),
            (true, RegistrationState::Deleted),
            (false, RegistrationState::Never),
        ] {
            assert!(matches!(closed(included, state), AccessDecision::Deny(_)));
        }
    }

    #[test]
    fn open_outer_door_prompts_unknown_machines() {
        let open = |build_mode, passwords, state| {
            let seen = MachineStatus {
                build_mode,
                passwords,
                ..status(Level::Open, state)
            };
            decide(&seen, false, false)
        };
        assert!(is_in(open(false, false, KNOWN)));
        for state in [RegistrationState::Never, RegistrationState::Deleted] {
            assert_eq!(
                open(true, true, state),
                AccessDecision::Prompt(PromptFor::Name)
            );
            assert_eq!(
                open(false, true, state),
                AccessDecision::Prompt(PromptFor::Activation)
            );
            assert!(matches!(open(false, false, state), AccessDecision::Deny(_)));
        }
    }

    #[test]
    fn authenticated_host_is_registered_unless_deleted() {
        for level in [Level::Open, Level::Closed] {
            assert!(is_in(decide(&status(level, KNOWN), true, false)));
            let AccessDecision::Allow(pass) =
                decide(&status(level, RegistrationState::Never), true, false)
            else {
                panic!("a host's first proof");
            };
            assert!(pass.introduce);
            let deleted = decide(&status(level, RegistrationState::Deleted), true, false);
            assert_eq!(deleted, AccessDecision::Deny(DELETED), "{level:?}");
        }
        let open = MachineStatus {
            passwords: true,
            ..status(Level::Open, RegistrationState::Deleted)
        };
        assert_eq!(
            decide(&open, true, false),
            AccessDecision::Prompt(PromptFor::Activation)
        );
    }

    #[test]
    fn registry_skips_level_0_and_local_machines() {
        for host in [true, false] {
            for state in [RegistrationState::Never, RegistrationState::Deleted] {
                assert!(is_in(decide(&status(Level::Off, state), host, false)));
                let remote_only = MachineStatus {
                    remote_only: true,
                    ..status(Level::Closed, state)
                };
                assert!(is_in(decide(&remote_only, host, true)));
            }
        }
        let remote_only = MachineStatus {
            remote_only: true,
            ..status(Level::Closed, RegistrationState::Never)
        };
        assert!(matches!(
            decide(&remote_only, false, false),
            AccessDecision::Deny(_)
        ));
    }

    #[test]
    fn access_decision_is_valid_for_one_machine() {
        struct Caller(PublicKey);
        impl Machine for Caller {
            fn machine(&self) -> &PublicKey {
                &self.0
            }
        }
        let key = PublicKey([9; 32]);
        let own = AdmissionPass::registered(Id::of(&key));
        assert!(Known::by(Caller(key), &own).is_ok());
        assert!(Known::by(Caller(PublicKey([8; 32])), &own).is_err());
        let seen = MachineStatus {
            id: Id::of(&key),
            ..status(Level::Open, KNOWN)
        };
        assert!(Admitted::by(Caller(key), &seen).is_ok());
        assert!(Admitted::by(Caller(PublicKey([8; 32])), &seen).is_err());
        let excluded = MachineStatus {
            excluded: true,
            ..seen
        };
        assert!(Admitted::by(Caller(key), &excluded).is_err());
    }
}
