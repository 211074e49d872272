//! Fuzzes the contents of an opened record after AuthAccept.
#![no_main]

use cosserver::protocol::stream::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = Message::parse(bytes) {
        assert_eq!(read.compose(), bytes);
    }
});
