//! Fuzzes `cosserver.toml`, which the administrator writes.
#![no_main]

use std::path::Path;

use cosserver::config::paths::Paths;
use cosserver::config::settings::Settings;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Settings::parse(text, &Paths::of_dir(Path::new("/folder")));
    }
});
