//! Fuzzes the host table, which the administrator writes.
#![no_main]

use std::path::Path;

use cosserver::config::hostinfo::HostTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let table = HostTable::parse(bytes, Path::new("hostinfo"));
    for entry in table.entries() {
        assert!(table.get(&entry.name).is_some());
    }
    for fault in table.faults() {
        assert!(fault.to_string().starts_with("hostinfo:"));
    }
});
