//! Fuzzes the envelope of the records before AuthAccept.
#![no_main]

use cosserver::protocol::record::{self, Kind};
use libfuzzer_sys::fuzz_target;

const KINDS: [Kind; 6] = [
    Kind::Hello,
    Kind::ServerHello,
    Kind::ClientHello,
    Kind::Answer,
    Kind::Denied,
    Kind::Sealed,
];

fuzz_target!(|bytes: &[u8]| {
    for due in KINDS {
        if let Ok(read) = record::parse(bytes, &[due]) {
            assert_eq!(
                record::compose(read.kind, read.content).as_deref(),
                Ok(bytes)
            );
        }
    }
});
