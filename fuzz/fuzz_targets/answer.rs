//! What a server answers, as the client reads it.
#![no_main]

use cosserver::wire::answer::{self, Answer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = Answer::decode(bytes) {
        assert_eq!(Answer::decode(&read.encode().unwrap()), Ok(read));
    }
    if let Ok(reference) = answer::parse_denied(bytes) {
        assert_eq!(answer::compose_denied(reference).unwrap()[7..], *bytes);
    }
});
