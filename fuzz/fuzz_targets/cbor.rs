//! Fuzzes the check of the canonical CBOR form, which precedes all decoding.
#![no_main]

use cosserver::protocol::cbor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if cbor::check(bytes).is_ok() {
        // An item is accepted only whole: not one byte shorter or longer.
        assert!(cbor::check(&bytes[..bytes.len() - 1]).is_err());
        assert!(cbor::check(&[bytes, &[0]].concat()).is_err());
    }
});
