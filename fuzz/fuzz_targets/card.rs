//! Fuzzes an invitation card, as copied from a mail or from paper.
#![no_main]

use cosserver::config::card::Card;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(card) = Card::parse(bytes) {
        let again = Card::parse(card.print().as_bytes()).unwrap();
        assert!(again.cookie.same(&card.cookie) && again.key == card.key);
        assert_eq!(again.addresses, card.addresses);
    }
});
