//! Fuzzes both hellos: as whole records, and as contents of a valid record.
#![no_main]

use cosserver::protocol::hello::{Hello, ServerHello, Suite};
use cosserver::protocol::record::{self, Kind};
use libfuzzer_sys::fuzz_target;

fn read(record: &[u8]) {
    if let Ok(read) = Hello::parse(record) {
        assert_eq!(Hello::parse(&read.compose().unwrap()), Ok(read));
    }
    let suites = vec![Suite::AesGcm, Suite::ChaChaPoly];
    let hello = Hello {
        version: 1,
        suites,
        wants_host_key: true,
    };
    if let Ok(read) = ServerHello::parse(record, &hello) {
        assert_eq!(
            ServerHello::parse(&read.compose().unwrap(), &hello),
            Ok(read)
        );
    }
}

fuzz_target!(|bytes: &[u8]| {
    read(bytes);
    for kind in [Kind::Hello, Kind::ServerHello] {
        if let Ok(record) = record::compose(kind, bytes) {
            read(&record);
        }
    }
});
