//! Fuzzes what any user may send to the signer, and what a client receives from it.
#![no_main]

use cosserver::signer::fields::{Ask, MESSAGE, Reply};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = Ask::decode(bytes) {
        assert!(bytes.len() <= MESSAGE);
        assert_eq!(Ask::decode(&read.encode().unwrap()), Ok(read));
    }
    if let Ok(read) = Reply::decode(bytes) {
        // Encoding shortens a reason that is too long, and only once.
        let again = read.encode().unwrap();
        assert_eq!(Reply::decode(&again).unwrap().encode(), Ok(again));
    }
});
