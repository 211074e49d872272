//! The check of the canonical form, before anything is decoded.
#![no_main]

use cosserver::protocol::cbor;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if cbor::check(bytes).is_ok() {
        // An item is whole: no shorter and no longer one is taken for it.
        assert!(cbor::check(&bytes[..bytes.len() - 1]).is_err());
        assert!(cbor::check(&[bytes, &[0]].concat()).is_err());
    }
});
