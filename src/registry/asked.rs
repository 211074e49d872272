//! The messages between the monitor and the registry worker. Each question has a ticket, which its
//! answer carries.

use zeroize::Zeroizing;

use super::decision::{AdmissionPass, MachineStatus, RegistrationState};
use super::doors::RegistrationOutcome;
use super::id::{Id, Name};
use super::outer::Level;
use crate::ipc::fields::{self, Get, Put, Reader, Writer, fields, reason};

/// Longest message, bytes: a password, two names, an error's words.
pub const MESSAGE: usize = 8_192;

/// A question of the monitor.
pub enum Question {
    /// What is the status of this machine?
    Look(Id),
    /// A host has proven its cookie: its machine, its name, whether it connects from another host.
    Introduce(Id, Name, bool),
    /// This machine was seen.
    Visited(Id),
    /// The machine's user typed a name, in build mode.
    Register(Id, Name, bool),
    /// The machine's user typed an activation password; the name is used with the backdoor
    /// password.
    Activate(Id, Zeroizing<Vec<u8>>, Name, bool),
}

/// An answer of the registry worker.
pub enum Answer {
    /// The machine's status.
    MachineStatus(Box<MachineStatus>),
    /// The result of a registration.
    RegistrationOutcome(RegistrationOutcome),
    /// The record was written.
    Done,
    /// A door could not be read or written.
    Fault(String),
}

fields!(enum Question {
    1 Look(id),
    2 Introduce(id, name, remote),
    3 Visited(id),
    4 Register(id, name, remote),
    5 Activate(id, password, name, remote),
});
fields!(enum Answer {
    1 MachineStatus(status),
    2 RegistrationOutcome(outcome),
    3 Done,
    4 Fault(why: reason),
});
fields!(enum RegistrationOutcome { 1 Registered(pass: pass, name), 2 Wrong(why: wrong) });
fields!(struct MachineStatus {
    id,
    excluded,
    included,
    level,
    state,
    remote_only,
    build_mode,
    passwords,
    welcome,
});
fields!(enum Level { 0 Off, 1 Open, 2 Closed });
fields!(enum RegistrationState { 0 Never, 1 Deleted, 2 Known { unseen } });

macro_rules! ticketed {
    ($type:ident) => {
        impl $type {
            /// Encodes the message.
            pub fn encode(&self, ticket: u64) -> Vec<u8> {
                fields::encode(&(ticket, self))
            }

            /// Parses a message into its ticket and the rest. Returns `None` if it is malformed.
            pub fn decode(message: &[u8]) -> Option<(u64, Self)> {
                fields::decode(message)
            }
        }
    };
}
ticketed!(Question);
ticketed!(Answer);

/// The pass of a machine that the worker has registered.
mod pass {
    use super::{AdmissionPass, Get, Put, Reader, Writer};

    pub(super) fn put(pass: &AdmissionPass, w: &mut Writer) {
        pass.id().put(w);
    }

    pub(super) fn get(r: &mut Reader<'_>) -> Option<AdmissionPass> {
        Get::get(r).map(AdmissionPass::registered)
    }
}

mod wrong {
    use super::{Get, Put, Reader, RegistrationOutcome, Writer};

    pub(super) fn put(why: &str, w: &mut Writer) {
        why.put(w);
    }

    pub(super) fn get(r: &mut Reader<'_>) -> Option<&'static str> {
        Get::get(r).map(RegistrationOutcome::wrong)
    }
}

impl Put for Id {
    fn put(&self, w: &mut Writer) {
        self.0.put(w);
    }
}

impl Get<'_> for Id {
    fn get(r: &mut Reader<'_>) -> Option<Self> {
        Get::get(r).map(Self)
    }
}

impl Put for Name {
    fn put(&self, w: &mut Writer) {
        self.as_str().put(w);
    }
}

impl<'a> Get<'a> for Name {
    fn get(r: &mut Reader<'a>) -> Option<Self> {
        Self::parse(Get::get(r)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_round_trip() {
        let id = Id([3; 16]);
        let name = || Name::parse("Réception").unwrap();
        let password = || Zeroizing::new(b"secret".to_vec());
        for question in [
            Question::Look(id),
            Question::Introduce(id, name(), true),
            Question::Visited(id),
            Question::Register(id, name(), false),
            Question::Activate(id, password(), name(), true),
        ] {
            let bytes = question.encode(7);
            let (ticket, back) = Question::decode(&bytes).unwrap();
            assert_eq!((ticket, back.encode(7)), (7, bytes.clone()));
            assert!(Question::decode(&bytes[..bytes.len() - 1]).is_none());
            assert!(Question::decode(&[&bytes[..], &[0]].concat()).is_none());
        }
    }

    #[test]
    fn answers_round_trip() {
        let id = Id([3; 16]);
        let seen = MachineStatus {
            id,
            excluded: false,
            included: true,
            level: Level::Open,
            state: RegistrationState::Known { unseen: true },
            remote_only: true,
            build_mode: false,
            passwords: true,
            welcome: "Grüezi".into(),
        };
        let name = Name::parse("pc").unwrap();
        for answer in [
            Answer::MachineStatus(Box::new(seen)),
            Answer::RegistrationOutcome(RegistrationOutcome::Registered(
                AdmissionPass::registered(id),
                name,
            )),
            Answer::RegistrationOutcome(RegistrationOutcome::Wrong(
                "the activation password is wrong",
            )),
            Answer::Done,
            Answer::Fault("ü".repeat(fields::REASON)),
        ] {
            let bytes = answer.encode(9);
            assert!(bytes.len() <= MESSAGE);
            let (ticket, back) = Answer::decode(&bytes).unwrap();
            assert_eq!((ticket, back.encode(9)), (9, bytes.clone()));
            assert!(Answer::decode(&bytes[..bytes.len() - 1]).is_none());
        }
    }
}
