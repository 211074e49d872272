//! The client machine keys that are recorded with the first cookie proof of their host:
//! `state/machines/NAME`, one line `x25519-public HEX64`. From then on, the same cookie from
//! another machine is refused, until `cosadm host rotate` removes the key.
//!
//! The monitor reads and records them; `cosadm` shows and removes them.

use super::name::HostName;
use super::paths::Paths;
use super::secure::{self, Created, Kind};
use crate::fault::Fault;
use crate::secret::PublicKey;

const FILE_MAX: usize = 4096;
const WORD: &str = "x25519-public";
/// How often to retry when the record is being removed at the same time.
const TRIES: usize = 8;

/// The result of recording a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// There was none; now it is this one.
    New,
    /// This one was recorded already.
    Same,
    /// Another key is recorded: this is not the machine of the first proof.
    Other,
}

/// Returns the key recorded for a host, if there is one.
///
/// # Errors
/// The file is not trusted or wrong: the host is denied.
pub fn recorded(paths: &Paths, host: &HostName) -> Result<Option<PublicKey>, Fault> {
    let file = paths.recorded_machine(host);
    let Some(bytes) = paths.read_if_there(&file, Kind::Policy, FILE_MAX)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes)
        .ok()
        .map(str::trim)
        .and_then(|text| text.strip_prefix(WORD));
    let key = text
        .filter(|rest| rest.starts_with(' '))
        .and_then(|rest| PublicKey::from_hex(rest.trim()));
    let words = format!(
        "its one line must be \"{WORD}\" and 64 hexadecimal digits; {} removes it",
        paths.cosadm(format_args!("host rotate {host}"))
    );
    key.map(Some).ok_or_else(|| Fault::of(&file, words))
}

/// Records a key for a host, unless one is recorded. If two race, one is recorded, and the other
/// learns which.
///
/// # Errors
/// The record is not trusted or wrong, or could not be written: the host is denied.
pub fn record(paths: &Paths, host: &HostName, key: PublicKey) -> Result<Recorded, Fault> {
    let folder = paths.machines();
    for _ in 0..TRIES {
        if let Some(first) = recorded(paths, host)? {
            return Ok(if first == key {
                Recorded::Same
            } else {
                Recorded::Other
            });
        }
        secure::make_folder(&paths.state, 0o700)?;
        secure::make_folder(&folder, 0o700)?;
        let line = format!("{WORD} {}\n", key.to_hex());
        if secure::create_new(&paths.recorded_machine(host), line.as_bytes(), 0o600)?
            == Created::New
        {
            return Ok(Recorded::New);
        }
    }
    Err(Fault::of(
        &paths.recorded_machine(host),
        "it keeps appearing and vanishing; nothing was recorded",
    ))
}

/// Removes the key recorded for a host, and returns whether there was one.
///
/// # Errors
/// A system call failed.
pub fn forget(paths: &Paths, host: &HostName) -> Result<bool, Fault> {
    secure::remove(&paths.recorded_machine(host))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::config::scratch::Scratch;

    #[test]
    fn first_machine_key_is_recorded() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let host = HostName::parse("hosta").unwrap();
        let [one, two] = [PublicKey([1; 32]), PublicKey([2; 32])];
        assert_eq!(recorded(&paths, &host).unwrap(), None);
        assert!(!forget(&paths, &host).unwrap());
        assert_eq!(record(&paths, &host, one).unwrap(), Recorded::New);
        assert_eq!(record(&paths, &host, one).unwrap(), Recorded::Same);
        assert_eq!(record(&paths, &host, two).unwrap(), Recorded::Other);
        assert_eq!(recorded(&paths, &host).unwrap(), Some(one));
        assert!(forget(&paths, &host).unwrap());
        assert_eq!(record(&paths, &host, two).unwrap(), Recorded::New);
    }

    #[test]
    fn one_of_two_concurrent_keys_is_recorded() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        for round in 0..50_u8 {
            let host = HostName::parse(&format!("h{round}")).unwrap();
            let start = Barrier::new(2);
            let race = |n: u8| {
                start.wait();
                record(&paths, &host, PublicKey([n; 32])).unwrap()
            };
            let (one, two) = std::thread::scope(|s| {
                let one = s.spawn(|| race(1));
                let two = s.spawn(|| race(2));
                (one.join().unwrap(), two.join().unwrap())
            });
            let first = recorded(&paths, &host).unwrap().unwrap();
            match first.0[0] {
                1 => assert_eq!((one, two), (Recorded::New, Recorded::Other)),
                _ => assert_eq!((one, two), (Recorded::Other, Recorded::New)),
            }
        }
    }

    #[test]
    fn invalid_machine_record_denies() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let host = HostName::parse("hosta").unwrap();
        let line = format!("x25519-public {}\n", "01".repeat(32));
        for (content, mode) in [
            (line.as_str(), 0o666),
            ("", 0o600),
            ("x25519-public 12", 0o600),
            (&line[1..], 0o600),
        ] {
            scratch.file("state/machines/hosta", content, mode);
            assert!(recorded(&paths, &host).is_err());
            assert!(record(&paths, &host, PublicKey([1; 32])).is_err());
        }
        scratch.file("state/machines/hosta", &line, 0o600);
        assert_eq!(
            record(&paths, &host, PublicKey([1; 32])).unwrap(),
            Recorded::Same
        );
    }
}
