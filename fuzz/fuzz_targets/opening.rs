//! Fuzzes the contents of message 1: the opening, the request in it, and the command that may
//! follow.
#![no_main]

use cosserver::protocol::opening::Opening;
use cosserver::protocol::request::{self, Request};
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};

fn read_request(bytes: &[u8]) {
    if let Ok(read) = Request::decode(bytes) {
        assert_eq!(Request::decode(&read.encode().unwrap()), Ok(read));
    }
}

fuzz_target!(|bytes: &[u8]| {
    read_request(bytes);
    if let Ok(read) = Opening::decode(bytes) {
        read_request(read.request);
        assert_eq!(Opening::decode(&read.encode().unwrap()).as_ref(), Ok(&read));
    }
    let digest = Sha256::digest(bytes).into();
    if let Ok(words) = request::decode_words(bytes, &digest) {
        assert_eq!(request::encode_words(&words).as_deref(), Ok(bytes));
    }
});
