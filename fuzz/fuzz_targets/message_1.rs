//! Fuzzes message 1 of a ClientHello: arbitrary bytes must not open, the opening in a valid message
//! must come out unchanged, and a changed message must not open.
#![no_main]

use std::sync::LazyLock;

use cosserver::secret::{KeyPair, Secret};
use cosserver::protocol::hello::Suite;
use cosserver::protocol::noise::{Initiator, Opened, Prepared, Responder};
use cosserver::protocol::opening::Opening;
use cosserver::protocol::record::{self, Kind};
use libfuzzer_sys::fuzz_target;

const HELLOS: [&[u8]; 2] = [b"hello", b"server hello"];
static HOST: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::of(Secret::new([1; 32])));
static MACHINE: LazyLock<KeyPair> = LazyLock::new(|| KeyPair::of(Secret::new([2; 32])));

fn open(suite: Suite, message: &[u8]) -> Option<Opened> {
    let [hello, server_hello] = HELLOS;
    Responder::open(
        suite,
        &HOST,
        hello,
        server_hello,
        message,
        Prepared::default(),
    )
    .ok()
}

fn made(suite: Suite, payload: &[u8]) -> Option<Vec<u8>> {
    let [hello, server_hello] = HELLOS;
    let prepared = Prepared::default();
    let mut initiator =
        Initiator::new(suite, &MACHINE, &HOST.public, hello, server_hello, prepared).unwrap();
    initiator.message_1(payload).ok()
}

fuzz_target!(|bytes: &[u8]| {
    for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
        // As an unauthenticated peer sends it: the envelope with arbitrary content.
        assert!(open(suite, bytes).is_none());
        if let Ok(envelope) = record::parse(bytes, &[Kind::ClientHello]) {
            assert!(open(suite, envelope.content).is_none());
        }
        let Some(mut message) = made(suite, bytes) else {
            continue;
        };
        let opened = open(suite, &message).unwrap();
        assert_eq!(*opened.payload, bytes);
        assert_eq!(opened.machine, MACHINE.public);
        let _ = Opening::decode(&opened.payload);
        // The input also determines which byte is changed, and how.
        let (at, how) = match bytes {
            [a, b, how, ..] => (u16::from_be_bytes([*a, *b]), *how),
            _ => (0, 0),
        };
        let at = usize::from(at) % message.len();
        message[at] ^= if how == 0 { 1 } else { how };
        assert!(open(suite, &message).is_none());
    }
});
