//! The event sources: the tokens of the monitor's event loop. Pure: runs in the monitor.

use mio::Token;

use super::logins::LoginId;

pub(super) const SIGNALS: Token = Token(0);
pub(super) const GATE: Token = Token(1);
pub(super) const RELAY: Token = Token(2);
pub(super) const SIGN: Token = Token(3);
pub(super) const CONTROL: Token = Token(4);
pub(super) const REGISTRY_WORKER: Token = Token(5);
pub(super) const GUARD: Token = Token(6);

/// The distance between the tokens of two instances of a kind (session, job, and so on). At least
/// the number of these kinds, which is 6, and of the single sources above, which is 7: the first
/// instances have tokens from this number on.
const STRIDE: usize = 7;

/// The source of an event.
pub(super) enum EventSource {
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
    /// A client of the signer's socket.
    WantsSignature(u64),
    /// The registry worker.
    RegistryWorker,
    /// The administrator's socket.
    Control,
    /// A client of the administrator's socket.
    Administers(u64),
    /// None.
    Unknown,
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
            .saturating_mul(STRIDE)
            .saturating_add(kind),
    )
}

pub(super) fn source(event_source: Token) -> EventSource {
    let id = u64::try_from((event_source.0 / STRIDE).saturating_sub(1)).unwrap_or(u64::MAX);
    match (event_source, event_source.0 % STRIDE) {
        (SIGNALS, _) => EventSource::Signals,
        (GATE, _) => EventSource::Gate,
        (RELAY, _) => EventSource::Relay,
        (GUARD, _) => EventSource::Guard,
        (SIGN, _) => EventSource::Sign,
        (CONTROL, _) => EventSource::Control,
        (REGISTRY_WORKER, _) => EventSource::RegistryWorker,
        (_, 0) => EventSource::Session(id),
        (_, 1) => EventSource::Job(id),
        (_, 2) => EventSource::LookUp(id),
        (_, 3) => EventSource::Login(id),
        (_, 4) => EventSource::WantsSignature(id),
        (_, 5) => EventSource::Administers(id),
        (_, _) => EventSource::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_event_sources_are_distinct() {
        for id in [0, 1, 7, 8, 1 << 40] {
            assert!(matches!(source(session(id)), EventSource::Session(n) if n == id));
            assert!(matches!(source(job(id)), EventSource::Job(n) if n == id));
            assert!(matches!(source(look_up(id)), EventSource::LookUp(n) if n == id));
            assert!(matches!(source(login(id)), EventSource::Login(n) if n == id));
            assert!(
                matches!(source(wants_signature(id)), EventSource::WantsSignature(n) if n == id)
            );
            assert!(matches!(source(administers(id)), EventSource::Administers(n) if n == id));
        }
        for (event_source, is) in [(SIGN, true), (CONTROL, false)] {
            assert_eq!(matches!(source(event_source), EventSource::Sign), is);
            assert_eq!(matches!(source(event_source), EventSource::Control), !is);
        }
        let single = [SIGNALS, GATE, RELAY, SIGN, CONTROL, REGISTRY_WORKER, GUARD];
        assert!(single.iter().all(|token| token.0 < STRIDE));
    }
}
