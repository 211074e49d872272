//! The client's pins, `known_hosts`: lines `NAME HEX64`, `#` comments. Several lines may pin
//! several keys for one name. A pin is the host's public key under its name in this host table.
//!
//! The client reads it; `cosadm host join` and `remove` change it.

use std::path::Path;

use super::name::HostName;
use super::paths::Paths;
use super::secure::{self, Kind};
use super::words::{numbered, quoted, readable};
use crate::fault::Fault;
use crate::secret::PublicKey;

const FILE_MAX: usize = 16 * 1024 * 1024;

/// One pin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pin {
    /// The host.
    pub name: HostName,
    /// Its public key.
    pub key: PublicKey,
    /// The number of its line; 1 is the first.
    pub line: usize,
}

/// Returns the keys pinned for a host; none if the file or the host is missing.
///
/// # Errors
/// The file is not trusted or unreadable, or a line of this host is wrong.
pub fn pins(paths: &Paths, host: &HostName) -> Result<Vec<PublicKey>, Fault> {
    let file = paths.known_hosts();
    let Some(bytes) = paths.read_if_there(&file, Kind::Policy, FILE_MAX)? else {
        return Ok(Vec::new());
    };
    let mut keys = Vec::new();
    for (number, line) in numbered(&bytes) {
        if first_word(line).eq_ignore_ascii_case(host.as_str().as_bytes()) {
            keys.extend(parse_line(line, number, &file)?.map(|pin| pin.key));
        }
    }
    Ok(keys)
}

/// Returns every pin, and a fault for every wrong line.
///
/// # Errors
/// The file is not trusted or unreadable.
pub fn load(paths: &Paths) -> Result<(Vec<Pin>, Vec<Fault>), Fault> {
    let file = paths.known_hosts();
    let bytes = paths
        .read_if_there(&file, Kind::Policy, FILE_MAX)?
        .unwrap_or_default();
    Ok(parse(&bytes, &file))
}

/// Adds a pin, unless it exists, and returns whether it was added.
///
/// # Errors
/// The file is not trusted or could not be written.
pub fn pin(paths: &Paths, host: &HostName, key: &PublicKey) -> Result<bool, Fault> {
    if pins(paths, host)?.contains(key) {
        return Ok(false);
    }
    edit(paths, |text| {
        if !text.is_empty() && !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(format!("{host} {}\n", key.to_hex()).as_bytes());
        true
    })
}

/// Removes every pin of a host, and returns whether there was one.
///
/// # Errors
/// The file is not trusted or could not be written.
pub fn unpin(paths: &Paths, host: &HostName) -> Result<bool, Fault> {
    edit(paths, |text| {
        let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
        let about = |line: &&&[u8]| first_word(line).eq_ignore_ascii_case(host.as_str().as_bytes());
        let kept: Vec<u8> = lines
            .iter()
            .filter(|line| !about(line))
            .copied()
            .flatten()
            .copied()
            .collect();
        let changed = kept.len() != text.len();
        *text = kept;
        changed
    })
}

fn edit(paths: &Paths, change: impl FnOnce(&mut Vec<u8>) -> bool) -> Result<bool, Fault> {
    let file = paths.known_hosts();
    let mut text = paths
        .read_if_there(&file, Kind::Policy, FILE_MAX)?
        .map_or_else(Vec::new, |t| t.to_vec());
    if !change(&mut text) {
        return Ok(false);
    }
    secure::replace(&file, &text, 0o644)?;
    Ok(true)
}

fn parse(bytes: &[u8], file: &Path) -> (Vec<Pin>, Vec<Fault>) {
    let (mut pins, mut faults) = (Vec::new(), Vec::new());
    for (number, line) in numbered(bytes) {
        match parse_line(line, number, file) {
            Ok(pin) => pins.extend(pin),
            Err(fault) => faults.push(fault),
        }
    }
    (pins, faults)
}

fn parse_line(line: &[u8], number: usize, file: &Path) -> Result<Option<Pin>, Fault> {
    let wrong = |why: String| Fault::at(file, number, why);
    let (text, is_whole) = readable(line);
    let has_comment = text
        .split_ascii_whitespace()
        .any(|word| word.starts_with('#'));
    if !is_whole && !has_comment {
        return Err(wrong("it is not UTF-8 text".into()));
    }
    let mut words = text.split_ascii_whitespace();
    let Some(name) = words.next().filter(|word| !word.starts_with('#')) else {
        return Ok(None);
    };
    let name = HostName::parse(name).map_err(|e| wrong(e.to_string()))?;
    let key = words.next().unwrap_or("");
    let key = PublicKey::from_hex(key).ok_or_else(|| {
        wrong(format!(
            "after {name} comes a key of 64 hexadecimal digits, not {}",
            quoted(key)
        ))
    })?;
    match words.next() {
        Some(word) if !word.starts_with('#') => Err(wrong(format!(
            "after the key comes nothing, not {}",
            quoted(word)
        ))),
        Some(_) | None => Ok(Some(Pin {
            name,
            key,
            line: number,
        })),
    }
}

fn first_word(line: &[u8]) -> &[u8] {
    let line = line.trim_ascii();
    line.split(u8::is_ascii_whitespace)
        .next()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    #[test]
    fn pinning() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let [a, b] = ["hosta", "hostb"].map(|n| HostName::parse(n).unwrap());
        let [one, two] = [PublicKey([1; 32]), PublicKey([2; 32])];
        assert_eq!(pins(&paths, &a).unwrap(), []);
        assert!(!unpin(&paths, &a).unwrap());
        assert!(pin(&paths, &a, &one).unwrap());
        assert!(!pin(&paths, &a, &one).unwrap());
        pin(&paths, &a, &two).unwrap();
        pin(&paths, &b, &two).unwrap();
        assert_eq!(pins(&paths, &a).unwrap(), [one, two]);
        assert!(unpin(&paths, &a).unwrap());
        assert_eq!(pins(&paths, &a).unwrap(), []);
        assert_eq!(pins(&paths, &b).unwrap(), [two]);
    }

    #[test]
    fn comments_are_kept_and_a_wrong_line_disables_only_its_host() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let [a, b, c] = ["hosta", "hostb", "hostc"].map(|n| HostName::parse(n).unwrap());
        let key = PublicKey([3; 32]);
        let hex = key.to_hex();
        let text =
            format!("# mine\n\n HostA {hex} # x\r\nhostb 12\nø\nhostc {hex} y\nhosta-2 {hex}");
        scratch.file("known_hosts", text, 0o644);
        assert_eq!(pins(&paths, &a).unwrap(), [key]);
        assert!(
            pins(&paths, &b)
                .unwrap_err()
                .to_string()
                .contains("known_hosts:4: after hostb comes a key")
        );
        assert!(
            pins(&paths, &c)
                .unwrap_err()
                .to_string()
                .contains("known_hosts:6: after the key comes nothing")
        );
        let (all, faults) = load(&paths).unwrap();
        assert_eq!((all.len(), faults.len()), (2, 3), "{faults:?}");
        unpin(&paths, &a).unwrap();
        pin(&paths, &a, &key).unwrap();
        let text = std::fs::read(paths.known_hosts()).unwrap();
        assert!(text.starts_with(b"# mine\n\nhostb 12\n"));
        assert!(text.ends_with(format!("hosta-2 {hex}\nhosta {hex}\n").as_bytes()));
        scratch.file("known_hosts", "", 0o666);
        assert!(pins(&paths, &a).is_err() && pin(&paths, &a, &key).is_err());
    }

    #[test]
    fn a_comment_need_not_be_utf_8() {
        let key = "11".repeat(32);
        let text = [
            &b"# Schl\xfcssel\nhostb "[..],
            key.as_bytes(),
            b" # M\xfcller\nhostc\xfc ",
            key.as_bytes(),
            b"\n",
        ];
        let (pins, faults) = parse(&text.concat(), Path::new("known_hosts"));
        assert_eq!(pins.iter().map(|p| p.line).collect::<Vec<_>>(), [2]);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].to_string().contains(":3: it is not UTF-8"));
    }
}
