//! The messages between the monitor and the registry worker. Each question has a ticket, which its
//! answer carries.

use zeroize::Zeroizing;

use super::decision::{AdmissionPass, MachineStatus, RegistrationState};
use super::doors::RegistrationOutcome;
use super::id::{Id, Name};
use super::outer::Level;
use crate::ipc::fields::{Reader, Writer};

/// Longest message, bytes: a password, two names, an error's words.
pub const MESSAGE: usize = 8_192;

/// Longest error text that is passed on, bytes.
const WORDS: usize = 2_048;

/// A question of the monitor.
pub enum Question {
    /// What is the status of this machine?
    Look(Id),
    /// A host has proven its cookie: its machine, its name, whether it connects from another host.
    Introduce(Id, Name, bool),
    /// This machine was seen.
    Saw(Id),
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

impl Question {
    /// Encodes the message.
    pub fn encode(&self, ticket: u64) -> Vec<u8> {
        let new = |kind, id: &Id| Writer::sized(kind, 1_024).number(ticket).bytes(&id.0);
        let flag = u64::from;
        match self {
            Self::Look(id) => new(1, id),
            Self::Introduce(id, name, remote) => new(2, id)
                .bytes(name.as_str().as_bytes())
                .number(flag(*remote)),
            Self::Saw(id) => new(3, id),
            Self::Register(id, name, remote) => new(4, id)
                .bytes(name.as_str().as_bytes())
                .number(flag(*remote)),
            Self::Activate(id, password, name, remote) => {
                Writer::sized(5, password.len().saturating_add(1_024))
                    .number(ticket)
                    .bytes(&id.0)
                    .bytes(name.as_str().as_bytes())
                    .number(flag(*remote))
                    .bytes(password)
            }
        }
        .done()
    }

    /// Parses a message into its ticket and the question. `None`: it is not a question.
    pub fn decode(message: &[u8]) -> Option<(u64, Self)> {
        let (kind, mut r) = Reader::new(message)?;
        let (ticket, id) = (r.number()?, Id(r.array()?));
        let question = match kind {
            1 => Self::Look(id),
            2 => Self::Introduce(id, name(&mut r)?, r.flag()?),
            3 => Self::Saw(id),
            4 => Self::Register(id, name(&mut r)?, r.flag()?),
            5 => {
                let (name, remote) = (name(&mut r)?, r.flag()?);
                let password = Zeroizing::new(r.bytes()?.to_vec());
                Self::Activate(id, password, name, remote)
            }
            _ => return None,
        };
        r.done((ticket, question))
    }
}

impl Answer {
    /// Encodes the message.
    pub fn encode(&self, ticket: u64) -> Vec<u8> {
        let new = |kind| Writer::sized(kind, 256).number(ticket);
        let flag = u64::from;
        match self {
            Self::MachineStatus(s) => {
                let (state, unseen) = match s.state {
                    RegistrationState::Never => (0, false),
                    RegistrationState::Deleted => (1, false),
                    RegistrationState::Known { unseen } => (2, unseen),
                };
                new(1)
                    .bytes(&s.id.0)
                    .number(flag(s.excluded))
                    .number(flag(s.included))
                    .number(s.level.number().into())
                    .number(state)
                    .number(flag(unseen))
                    .number(flag(s.remote_only))
                    .number(flag(s.build_mode))
                    .number(flag(s.passwords))
                    .bytes(s.welcome.as_bytes())
            }
            Self::RegistrationOutcome(RegistrationOutcome::Registered(pass, name)) => {
                new(2).bytes(&pass.id().0).bytes(name.as_str().as_bytes())
            }
            Self::RegistrationOutcome(RegistrationOutcome::Wrong(why)) => {
                new(3).bytes(why.as_bytes())
            }
            Self::Done => new(4),
            Self::Fault(words) => {
                let end = (0..=WORDS.min(words.len())).rev();
                let end = end.into_iter().find(|n| words.is_char_boundary(*n));
                new(5).bytes(words.get(..end.unwrap_or(0)).unwrap_or_default().as_bytes())
            }
        }
        .done()
    }

    /// Parses a message into its ticket and the answer. `None`: it is not an answer.
    pub fn decode(message: &[u8]) -> Option<(u64, Self)> {
        let (kind, mut r) = Reader::new(message)?;
        let ticket = r.number()?;
        let answer = match kind {
            1 => Self::MachineStatus(Box::new(status(&mut r)?)),
            2 => {
                let pass = AdmissionPass::registered(Id(r.array()?));
                Self::RegistrationOutcome(RegistrationOutcome::Registered(pass, name(&mut r)?))
            }
            3 => Self::RegistrationOutcome(RegistrationOutcome::wrong(r.bytes()?)),
            4 => Self::Done,
            5 => Self::Fault(r.text()?),
            _ => return None,
        };
        r.done((ticket, answer))
    }
}

fn status(r: &mut Reader<'_>) -> Option<MachineStatus> {
    Some(MachineStatus {
        id: Id(r.array()?),
        excluded: r.flag()?,
        included: r.flag()?,
        level: Level::of(r.number()?)?,
        state: {
            let (state, unseen) = (r.number::<u8>()?, r.flag()?);
            match state {
                0 => RegistrationState::Never,
                1 => RegistrationState::Deleted,
                2 => RegistrationState::Known { unseen },
                _ => return None,
            }
        },
        remote_only: r.flag()?,
        build_mode: r.flag()?,
        passwords: r.flag()?,
        welcome: r.text()?,
    })
}

fn name(r: &mut Reader<'_>) -> Option<Name> {
    Name::parse(&r.text()?).ok()
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
            Question::Saw(id),
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
            Answer::Fault("ü".repeat(WORDS)),
        ] {
            let bytes = answer.encode(9);
            assert!(bytes.len() <= MESSAGE);
            let (ticket, back) = Answer::decode(&bytes).unwrap();
            assert_eq!((ticket, back.encode(9)), (9, bytes.clone()));
            assert!(Answer::decode(&bytes[..bytes.len() - 1]).is_none());
        }
    }
}
