//! Fuzzes the server's answer, as the client reads it.
#![no_main]

use cosserver::protocol::answer::{self, Answer};
use cosserver::protocol::{limits, prompt};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(read) = Answer::decode(bytes) {
        if let Answer::Prompts { by, texts } = &read {
            // The monitor shortens the texts to what a record can hold.
            let fitting = prompt::fit(texts.clone());
            let bytes: usize = fitting.iter().map(|t| t.words.len()).sum();
            assert!(fitting.len() == texts.len() && bytes <= limits::PROMPTS_BYTES);
            let asked = Answer::Prompts {
                by: *by,
                texts: fitting,
            };
            let asked = asked.encode().unwrap();
            assert!(asked.len() <= limits::COMMAND_PIECE);
        }
        assert_eq!(Answer::decode(&read.encode().unwrap()), Ok(read));
    }
    if let Ok(reference) = answer::parse_denied(bytes) {
        assert_eq!(answer::compose_denied(reference).unwrap()[7..], *bytes);
    }
});
