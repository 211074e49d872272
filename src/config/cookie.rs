//! Cookies: the secrets with which hosts authenticate to each other. `NAME.in` is for requests from
//! that host, `NAME.out` for requests to it. Each file has one or two lines `cookie HEX64`, the
//! newest first; two are live while a cookie is rotated.
//!
//! The monitor reads `.in`, the client `.out`, `cosadm` writes both.

use std::path::Path;

use zeroize::Zeroizing;

use super::name::HostName;
use super::paths::Paths;
use super::secure::{self, Kind};
use crate::fault::Fault;
use crate::secret::Secret;

/// The most cookies that may be live for one host and direction.
pub const LIVE_MAX: usize = 2;
const FILE_MAX: usize = 4096;

/// Loads the cookies of requests from that host, the newest first: one or two.
///
/// # Errors
/// There is none, or the file is not trusted or wrong: the host is denied.
pub fn load_in(paths: &Paths, host: &HostName) -> Result<Vec<Secret>, Fault> {
    load(paths, &paths.cookie_in(host))?.ok_or_else(|| {
        let words = format!(
            "there is no cookie, so {host} cannot ask this host; {} makes one",
            paths.cosadm(format_args!("host rotate {host}"))
        );
        Fault::of(&paths.cookie_in(host), words)
    })
}

/// Loads the cookies of requests to that host, the newest first: one or two.
///
/// # Errors
/// There is none, or the file is not trusted or wrong.
pub fn load_out(paths: &Paths, host: &HostName) -> Result<Vec<Secret>, Fault> {
    load(paths, &paths.cookie_out(host))?.ok_or_else(|| {
        let words = format!(
            "there is no cookie for {host}; {} installs one from its invitation",
            paths.cosadm("host join FILE")
        );
        Fault::of(&paths.cookie_out(host), words)
    })
}

/// Writes the cookies of requests from that host, the newest first.
///
/// # Errors
/// There are none or more than two, or the file could not be written.
pub fn write_in(paths: &Paths, host: &HostName, cookies: &[Secret]) -> Result<(), Fault> {
    write(&paths.cookie_in(host), cookies)
}

/// Writes the cookies of requests to that host, the newest first.
///
/// # Errors
/// There are none or more than two, or the file could not be written.
pub fn write_out(paths: &Paths, host: &HostName, cookies: &[Secret]) -> Result<(), Fault> {
    write(&paths.cookie_out(host), cookies)
}

/// Loads the cookies of a file; `None` if it is missing.
pub(crate) fn load(paths: &Paths, file: &Path) -> Result<Option<Vec<Secret>>, Fault> {
    match paths.read_if_there(file, Kind::Secret, FILE_MAX)? {
        Some(bytes) => parse(&bytes, file).map(Some),
        None => Ok(None),
    }
}

fn parse(bytes: &[u8], file: &Path) -> Result<Vec<Secret>, Fault> {
    let mut cookies: Vec<Secret> = Vec::with_capacity(LIVE_MAX);
    for (number, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
        // Do not repeat the line: it is a secret, or close to one.
        let wrong = |why: &str| Fault::at(file, number, why);
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let line = std::str::from_utf8(line).map_err(|_| wrong("it is not text"))?;
        let cookie = line
            .strip_prefix("cookie ")
            .map(str::trim)
            .and_then(Secret::from_hex);
        let cookie =
            cookie.ok_or_else(|| wrong("a line is \"cookie\" and 64 hexadecimal digits"))?;
        if cookies.len() == LIVE_MAX {
            return Err(wrong(
                "more than two cookies; remove the older ones below the first two",
            ));
        }
        cookies.push(cookie);
    }
    if cookies.is_empty() {
        return Err(Fault::of(file, "there is no cookie in it"));
    }
    Ok(cookies)
}

fn write(file: &Path, cookies: &[Secret]) -> Result<(), Fault> {
    if cookies.is_empty() || cookies.len() > LIVE_MAX {
        return Err(Fault::of(file, "there must be one or two live cookies"));
    }
    // Reserve it in full, so that the text never moves and leaves a copy.
    let mut text = Zeroizing::new(String::with_capacity(LIVE_MAX * 80));
    for cookie in cookies {
        text.push_str("cookie ");
        text.push_str(&cookie.to_hex());
        text.push('\n');
    }
    secure::replace(file, text.as_bytes(), 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    #[test]
    fn written_and_read() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        scratch.folder("cookies", 0o700);
        let host = HostName::parse("hosta").unwrap();
        let [a, b, c] = [
            Secret::random().unwrap(),
            Secret::random().unwrap(),
            Secret::random().unwrap(),
        ];
        assert!(
            load_in(&paths, &host)
                .err()
                .unwrap()
                .to_string()
                .contains(&paths.cosadm("host rotate hosta"))
        );
        assert!(
            load_out(&paths, &host)
                .err()
                .unwrap()
                .to_string()
                .contains(&paths.cosadm("host join FILE"))
        );
        write_in(&paths, &host, &[a.clone(), b.clone()]).unwrap();
        write_out(&paths, &host, std::slice::from_ref(&c)).unwrap();
        let read = load_in(&paths, &host).unwrap();
        assert!(read.len() == 2 && read[0].same(&a) && read[1].same(&b));
        assert!(load_out(&paths, &host).unwrap()[0].same(&c));
        assert!(write_in(&paths, &host, &[a, b, c]).is_err());
        assert!(write_in(&paths, &host, &[]).is_err());
    }

    #[test]
    fn wrong_files() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        let host = HostName::parse("hosta").unwrap();
        let hex = "0a".repeat(32);
        let line = format!("cookie {hex}\n");
        let take = |content: &[u8], mode| {
            scratch.file("cookies/hosta.in", content, mode);
            load_in(&paths, &host)
                .map(|c| c.len())
                .map_err(|e| e.to_string())
        };
        assert_eq!(take(line.as_bytes(), 0o600), Ok(1));
        assert_eq!(take(format!("# x\n\r\n  {line}").as_bytes(), 0o600), Ok(1));
        assert_eq!(take(line.repeat(2).as_bytes(), 0o400), Ok(2));
        for (content, mode) in [
            (line.as_bytes(), 0o640),
            (line.repeat(3).as_bytes(), 0o600),
            (b"", 0o600),
            (b"# none", 0o600),
            (hex.as_bytes(), 0o600),
            (b"cookie abc", 0o600),
            (b"cookie \xff", 0o600),
            (&[b'\n'; 5000], 0o600),
        ] {
            let told = take(content, mode).unwrap_err();
            assert!(
                told.contains("hosta.in") && !told.contains("0a0a"),
                "{told}"
            );
        }
    }
}
