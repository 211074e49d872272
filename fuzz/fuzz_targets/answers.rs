//! Fuzzes a peer's answers to prompts, as the monitor reads them.
#![no_main]

use cosserver::protocol::limits;
use cosserver::protocol::prompt::Answers;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for expected in [0, 1, 2, 3, limits::PROMPTS, limits::PROMPTS + 1] {
        let Ok(read) = Answers::decode(bytes, expected) else {
            continue;
        };
        assert!(read.all().len() == expected && expected <= limits::PROMPTS);
        for answer in read.all() {
            assert!(answer.len() <= limits::REPLY && !answer.contains(&0));
        }
        let again = Answers::decode(&read.encode().unwrap(), expected).unwrap();
        assert!(again.all() == read.all());
    }
});
