//! Which event belongs to whom: the tokens of the monitor's loop.

use mio::Token;

use super::accounts::LookUp;
use super::logins::LoginId;

pub(super) const SIGNALS: Token = Token(0);
pub(super) const GATE: Token = Token(1);
pub(super) const RELAY: Token = Token(2);
pub(super) const NAMES: Token = Token(3);

/// Whose event it is.
pub(super) enum Whose {
    Signals,
    Gate,
    Relay,
    /// The helper that resolves HOSTINFO's names.
    Names,
    /// A helper that looks an account up.
    LookUp(LookUp),
    /// The thread of a session.
    Session(u64),
    /// The job of a session.
    Job(u64),
    /// The worker of a login.
    Login(LoginId),
}

pub(super) fn session(id: u64) -> Token {
    Token(number(id).saturating_mul(4).saturating_add(4))
}

pub(super) fn job(id: u64) -> Token {
    Token(number(id).saturating_mul(4).saturating_add(5))
}

pub(super) fn look_up(which: LookUp) -> Token {
    Token(number(which).saturating_mul(4).saturating_add(6))
}

pub(super) fn login(id: LoginId) -> Token {
    Token(number(id).saturating_mul(4).saturating_add(7))
}

fn number(id: u64) -> usize {
    usize::try_from(id).unwrap_or(usize::MAX)
}

pub(super) fn whose(token: Token) -> Whose {
    let id = u64::try_from((token.0 / 4).saturating_sub(1)).unwrap_or(u64::MAX);
    match (token, token.0 % 4) {
        (SIGNALS, _) => Whose::Signals,
        (GATE, _) => Whose::Gate,
        (RELAY, _) => Whose::Relay,
        (NAMES, _) => Whose::Names,
        (_, 0) => Whose::Session(id),
        (_, 1) => Whose::Job(id),
        (_, 2) => Whose::LookUp(id),
        (_, _) => Whose::Login(id),
    }
}
