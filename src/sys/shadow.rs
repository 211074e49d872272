//! Whether an account may be used, according to shadow(5) and nologin(5).
//!
//! The monitor reads `/etc/shadow` itself, and uses only the lock and the expiry date. The look-up
//! process must not be able to read it: the file has every user's password hash, and NSS modules
//! run in that process.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// The longest `/etc/shadow` that is read, bytes.
const LONGEST: usize = 16 << 20;

/// Files that, if present, allow only root to log in; the same as for pam_nologin(8).
const NOLOGIN: [&str; 2] = ["/etc/nologin", "/var/run/nologin"];

/// The file with locked passwords and expiry dates of accounts.
pub const SHADOW: &str = "/etc/shadow";

/// The validity of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// It has a password, which is locked.
    pub locked: bool,
    /// The first day on which it may no longer be used, counted from 1970-01-01.
    pub expires: Option<u64>,
}

/// Returns the file because of which only root may log in now, if there is one.
pub fn nologin() -> Option<&'static str> {
    let is_there = |file: &&str| std::fs::metadata(file).is_ok();
    NOLOGIN.into_iter().find(is_there)
}

/// Returns the current day (UTC), counted as in [`Validity::expires`].
pub fn today() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() / 86_400)
}

/// Returns what `/etc/shadow` says of an account; `None`: the account has no line there, or there
/// is no such file.
///
/// # Errors
/// The file cannot be read, or the account's line is invalid.
pub fn local(name: &str) -> io::Result<Option<Validity>> {
    let bytes = match read(Path::new(SHADOW)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut lines = bytes.split(|b| *b == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"));
    let wrong = || io::Error::other(format!("the line of {name} is no line of shadow(5)"));
    line.map(|line| parse(line).ok_or_else(wrong)).transpose()
}

/// Reads the whole file, into memory that is wiped. The file is normally replaced and not changed;
/// if it grows during the read, it is read again.
fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    const TRIES: usize = 8;
    for _ in 0..TRIES {
        let mut file = File::open(path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length > LONGEST {
            return Err(io::Error::other("it is longer than 16 MiB"));
        }
        let mut bytes = Zeroizing::new(vec![0; length + 1]);
        let mut used = 0;
        loop {
            let room = bytes.get_mut(used..).unwrap_or_default();
            if room.is_empty() {
                break;
            }
            match file.read(room) {
                Ok(0) => {
                    bytes.truncate(used);
                    return Ok(bytes);
                }
                Ok(n) => used += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
    Err(io::Error::other("it changes all the time"))
}

/// Parses a line after the name and its colon.
fn parse(line: &[u8]) -> Option<Validity> {
    let mut fields = line.split(|b| *b == b':');
    let locked = is_locked(fields.next()?);
    let expires = match std::str::from_utf8(fields.nth(5).unwrap_or_default()).ok()? {
        "" | "-1" => None,
        day => Some(day.parse().ok()?),
    };
    Some(Validity { locked, expires })
}

/// Returns whether a password is locked, as by `usermod -L` and `passwd -l`: a `!` before a hash.
/// An account that never had a password (only `!` or `*`) is not locked.
pub fn is_locked(password: &[u8]) -> bool {
    let rest = password.trim_ascii();
    let hash: &[u8] = match rest.iter().position(|b| *b != b'!') {
        Some(at) => rest.get(at..).unwrap_or_default(),
        None => return false,
    };
    rest.starts_with(b"!") && !hash.starts_with(b"*")
}

/// Returns what NSS says of an account in a directory; `None`: nothing, or nothing to this process.
/// May block.
#[cfg(target_os = "linux")]
pub fn by_nss(name: &str) -> Option<Validity> {
    use std::ffi::{CStr, CString};
    let name = CString::new(name).ok()?;
    let mut buffer = Zeroizing::new(vec![0_u8; 16 * 1024]);
    let mut found = std::ptr::null_mut();
    // SAFETY: a structure of numbers and pointers, for which zeros are valid.
    let mut entry: libc::spwd = unsafe { std::mem::zeroed() };
    let (at, length) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the name ends with NUL; buffer, entry and result outlive the call.
    unsafe { libc::getspnam_r(name.as_ptr(), &raw mut entry, at, length, &raw mut found) };
    if found.is_null() || entry.sp_pwdp.is_null() {
        return None;
    }
    // SAFETY: a string in the buffer, which is still valid.
    let password = unsafe { CStr::from_ptr(entry.sp_pwdp) };
    Some(Validity {
        locked: is_locked(password.to_bytes()),
        expires: u64::try_from(entry.sp_expire).ok(),
    })
}

/// This system has no such call.
#[cfg(not(target_os = "linux"))]
pub fn by_nss(_: &str) -> Option<Validity> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_lock_and_a_date() {
        let is = |line: &str, locked, expires| {
            let is = Some(Validity { locked, expires });
            assert_eq!(parse(line.as_bytes()), is, "{line}");
        };
        is("$y$j9T$x:20000:0:99999:7:::", false, None);
        is("*:20000:0:99999:7:::", false, None);
        is("!:20000:0:99999:7::20100:", false, Some(20_100));
        is("!!:20000::::::", false, None);
        is("!*:20000::::::", false, None);
        is("!$y$j9T$x:20000:0:99999:7::1:", true, Some(1));
        is("!$y$j9T$x:20000:0:99999:7::0:", true, Some(0));
        is("x:20000:0:99999:7::-1:", false, None);
        is("", false, None);
        assert_eq!(parse(b"x:20000:0:99999:7::soon:"), None);
    }

    #[test]
    fn a_file_is_read_to_its_end() {
        let path = std::env::temp_dir().join(format!("cos-shadow-{}", std::process::id()));
        for text in ["", "root:*:20000:0:99999:7:::\n"] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read(&path).unwrap().as_slice(), text.as_bytes());
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
