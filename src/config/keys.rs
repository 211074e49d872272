//! The two private keys, `host.key` (the server's) and `machine.key` (the client's), and a key's
//! fingerprint. Each is a file of one line, `x25519-private HEX64`, that no other user may read.
//!
//! The monitor reads `host.key`, the client `machine.key`; `cosadm init` creates both.

use std::path::Path;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::paths::Paths;
use super::secure::{self, Created, Kind};
use crate::fault::Fault;
use crate::secret::{KeyPair, PublicKey, Secret, to_hex};

const FILE_MAX: usize = 4096;
const WORD: &str = "x25519-private";

/// Loads the host's key pair, by which its clients identify it.
///
/// # Errors
/// The file is missing, not trusted or wrong.
pub fn load_host_key(paths: &Paths) -> Result<KeyPair, Fault> {
    load(paths, &paths.host_key())
}

/// Loads the machine's (or the user's) key pair, by which servers identify it.
///
/// # Errors
/// The file is missing, not trusted or wrong.
pub fn load_machine_key(paths: &Paths) -> Result<KeyPair, Fault> {
    load(paths, &paths.machine_key())
}

/// Loads the caller's own key pair, and creates it, with its folder, if there is none.
///
/// # Errors
/// The file or its folder cannot be created, is not trusted, or is wrong.
pub fn own_machine_key(paths: &Paths) -> Result<KeyPair, Fault> {
    let file = paths.machine_key();
    if !file.exists() {
        secure::make_folders(&paths.dir, 0o700)?;
        create(&file)?;
    }
    load_machine_key(paths)
}

/// Creates a new key file, unless it exists.
///
/// # Errors
/// The file could not be written.
pub fn create(file: &Path) -> Result<Created, Fault> {
    let pair = KeyPair::random()?;
    // Reserve it in full, so that the text never moves and leaves a copy.
    let mut text = Zeroizing::new(String::with_capacity(128));
    text.push_str(WORD);
    text.push(' ');
    text.push_str(&pair.private.to_hex());
    text.push('\n');
    secure::create_new(file, text.as_bytes(), 0o600)
}

/// Returns a key's fingerprint for users to compare: the first 32 hexadecimal digits of its
/// SHA-256.
pub fn fingerprint(key: &PublicKey) -> String {
    to_hex(&Sha256::digest(key.0)).chars().take(32).collect()
}

fn load(paths: &Paths, file: &Path) -> Result<KeyPair, Fault> {
    let bytes = paths
        .read_if_there(file, Kind::Secret, FILE_MAX)?
        .ok_or_else(|| {
            Fault::of(
                file,
                format!("there is no key; {} makes one", paths.cosadm("init")),
            )
        })?;
    let wrong = || {
        Fault::of(
            file,
            format!("its one line must be \"{WORD}\" and 64 hexadecimal digits"),
        )
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong())?;
    let hex = text
        .trim()
        .strip_prefix(WORD)
        .filter(|rest| rest.starts_with(' '));
    hex.map(str::trim)
        .and_then(Secret::from_hex)
        .map(KeyPair::of)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    #[test]
    fn made_once_and_read() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        assert!(
            load_host_key(&paths)
                .err()
                .unwrap()
                .to_string()
                .contains(&paths.cosadm("init"))
        );
        assert_eq!(create(&paths.host_key()).unwrap(), Created::New);
        let pair = load_host_key(&paths).unwrap();
        assert_eq!(create(&paths.host_key()).unwrap(), Created::There);
        assert_eq!(load_host_key(&paths).unwrap().public, pair.public);
        create(&paths.machine_key()).unwrap();
        assert_ne!(load_machine_key(&paths).unwrap().public, pair.public);
        assert_eq!(fingerprint(&pair.public).len(), 32);
    }

    #[test]
    fn wrong_files() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let hex = "0a".repeat(32);
        let take = |content: &str, mode| {
            scratch.file("host.key", content, mode);
            load_host_key(&paths).map(|_| ()).map_err(|e| e.to_string())
        };
        assert_eq!(take(&format!("x25519-private {hex}\n"), 0o600), Ok(()));
        assert_eq!(take(&format!("x25519-private {hex}"), 0o400), Ok(()));
        for (content, mode) in [
            (format!("x25519-private {hex}\n"), 0o644),
            (format!("x25519-private{hex}\n"), 0o600),
            (format!("x25519-public {hex}\n"), 0o600),
            (format!("x25519-private {hex}0\n"), 0o600),
            (format!("x25519-private {hex}\nmore\n"), 0o600),
            (String::new(), 0o600),
        ] {
            let told = take(&content, mode).unwrap_err();
            assert!(
                told.contains("host.key") && !told.contains("0a0a"),
                "{told}"
            );
        }
    }
}
