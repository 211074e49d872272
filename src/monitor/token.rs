//! Which event belongs to whom: the tokens of the monitor's loop.

use mio::Token;

use super::doors::Keeps;
use super::logins::LoginId;

pub(super) const SIGNALS: Token = Token(0);
pub(super) const GATE: Token = Token(1);
pub(super) const RELAY: Token = Token(2);
pub(super) const SIGN: Token = Token(3);
pub(super) const CONTROL: Token = Token(4);
pub(super) const DOOR: Token = Token(5);
pub(super) const REGISTRAR: Token = Token(6);
pub(super) const GUARD: Token = Token(7);

/// The kinds of tokens that there are many of: session, job, and so on. The first so
/// many numbers are those above.
const KINDS: usize = 8;

/// Whose event it is.
pub(super) enum Whose {
    Signals,
    Gate,
    Relay,
    /// A look-up process.
    LookUp(u64),
    /// The thread of a session.
    Session(u64),
    /// The job of a session.
    Job(u64),
    /// The worker of a login.
    Login(LoginId),
    /// The guard, which is dead.
    Guard,
    /// The signer's socket.
    Sign,
    /// One who has called there.
    WantsSignature(u64),
    /// A door process.
    Door(Keeps),
    /// The administrator's socket.
    Control,
    /// One who has called there.
    Administers(u64),
    /// Nobody's.
    Nobody,
}

pub(super) fn session(id: u64) -> Token {
    numbered(id, 0)
}

pub(super) fn job(id: u64) -> Token {
    numbered(id, 1)
}

pub(super) fn look_up(id: u64) -> Token {
    numbered(id, 2)
}

pub(super) fn login(id: LoginId) -> Token {
    numbered(id, 3)
}

pub(super) fn wants_signature(id: u64) -> Token {
    numbered(id, 4)
}

pub(super) fn administers(id: u64) -> Token {
    numbered(id, 5)
}

fn numbered(id: u64, kind: usize) -> Token {
    let id = usize::try_from(id).unwrap_or(usize::MAX);
    Token(
        id.saturating_add(1)
            .saturating_mul(KINDS)
            .saturating_add(kind),
    )
}

pub(super) fn whose(token: Token) -> Whose {
    let id = u64::try_from((token.0 / KINDS).saturating_sub(1)).unwrap_or(u64::MAX);
    match (token, token.0 % KINDS) {
        (SIGNALS, _) => Whose::Signals,
        (GATE, _) => Whose::Gate,
        (RELAY, _) => Whose::Relay,
        (GUARD, _) => Whose::Guard,
        (SIGN, _) => Whose::Sign,
        (CONTROL, _) => Whose::Control,
        (DOOR, _) => Whose::Door(Keeps::Looks),
        (REGISTRAR, _) => Whose::Door(Keeps::Writes),
        (_, 0) => Whose::Session(id),
        (_, 1) => Whose::Job(id),
        (_, 2) => Whose::LookUp(id),
        (_, 3) => Whose::Login(id),
        (_, 4) => Whose::WantsSignature(id),
        (_, 5) => Whose::Administers(id),
        (_, _) => Whose::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_is_anothers() {
        for id in [0, 1, 7, 8, 1 << 40] {
            assert!(matches!(whose(session(id)), Whose::Session(n) if n == id));
            assert!(matches!(whose(job(id)), Whose::Job(n) if n == id));
            assert!(matches!(whose(look_up(id)), Whose::LookUp(n) if n == id));
            assert!(matches!(whose(login(id)), Whose::Login(n) if n == id));
            assert!(matches!(whose(wants_signature(id)), Whose::WantsSignature(n) if n == id));
            assert!(matches!(whose(administers(id)), Whose::Administers(n) if n == id));
        }
        for (token, is) in [(SIGN, true), (CONTROL, false)] {
            assert_eq!(matches!(whose(token), Whose::Sign), is);
            assert_eq!(matches!(whose(token), Whose::Control), !is);
        }
    }
}
