//! The port of `cosserver` in `/etc/services`. The file is read directly, without the name service,
//! so that no command waits for a slow directory or runs a library's code.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::config::words::readable;

/// The default port.
const PORT: u16 = 9002;
const SERVICE: &str = "cosserver";
const FILE: &str = "/etc/services";
/// The longest services file that is read, in bytes; the longest that are shipped have some
/// 700,000.
const FILE_MAX: u64 = 2 * 1024 * 1024;

/// Returns the TCP port of `cosserver` in `/etc/services`, else 9002.
pub fn default_port() -> u16 {
    port_of(Path::new(FILE))
}

/// Returns the port in a file, else the default; the default also if the file is missing or not a
/// regular file.
fn port_of(file: &Path) -> u16 {
    let read = || -> std::io::Result<Vec<u8>> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(file)?;
        let about = file.metadata()?;
        let length = about.len().min(FILE_MAX);
        // Without initial capacity it is read in small pieces.
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
        if about.is_file() {
            file.take(FILE_MAX).read_to_end(&mut bytes)?;
        }
        Ok(bytes)
    };
    read().ok().and_then(|bytes| find(&bytes)).unwrap_or(PORT)
}

/// Finds the service in lines `name port/protocol alias…`, with comments after `#`.
fn find(text: &[u8]) -> Option<u16> {
    // Most files have hundreds of lines and no such service, so search the text first.
    let service = SERVICE.as_bytes();
    text.windows(service.len()).find(|w| *w == service)?;
    for line in text.split(|b| *b == b'\n') {
        let mut words = readable(line)
            .0
            .split('#')
            .next()
            .unwrap_or("")
            .split_ascii_whitespace();
        let (Some(name), Some(port)) = (words.next(), words.next()) else {
            continue;
        };
        let Some((port, "tcp")) = port.split_once('/') else {
            continue;
        };
        if name == SERVICE || words.any(|alias| alias == SERVICE) {
            match port.parse() {
                Ok(0) | Err(_) => {}
                Ok(port) => return Some(port),
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Scratch;

    #[test]
    fn the_port_is_what_the_file_says_else_9002() {
        let scratch = Scratch::new();
        let said = |text: &[u8]| port_of(&scratch.file("services", text, 0o644));
        assert_eq!(said(b"ssh 22/tcp\ncosserver 9102/tcp\n"), 9102);
        assert_eq!(said(b"ssh 22/tcp\n"), 9002);
        assert_eq!(said(b""), 9002);
        // Not more than this is read.
        let mut long = vec![b'\n'; usize::try_from(FILE_MAX).unwrap()];
        long.extend_from_slice(b"cosserver 9102/tcp\n");
        assert_eq!(said(&long), 9002);
        assert_eq!(said(&long[1000..]), 9102);
        assert_eq!(port_of(&scratch.path().join("none")), 9002);
        // A fifo neither blocks nor is read.
        let fifo = scratch.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(port_of(&fifo)));
        let said = receiver.recv_timeout(std::time::Duration::from_secs(30));
        assert_eq!(said, Ok(9002));
        assert_eq!(port_of(scratch.path()), 9002);
        assert_eq!(default_port(), port_of(Path::new("/etc/services")));
    }

    #[test]
    fn lines_of_a_services_file() {
        assert_eq!(
            find(b"ssh 22/tcp\ncosserver\t9102/tcp # ours\n"),
            Some(9102)
        );
        assert_eq!(find(b"cos 9103/tcp x cosserver"), Some(9103));
        assert_eq!(find(b"cosserver 9104/tcp # f\xfcr uns\n"), Some(9104));
        assert_eq!(
            find(b"cosserver 9102/udp\n#cosserver 1/tcp\nx 2/tcp # cosserver\n"),
            None
        );
        assert_eq!(
            find(b"cosserver 0/tcp\ncosserver 99999/tcp\ncosserver\ncosserver 5/tcp"),
            Some(5)
        );
        assert_eq!(find(b"\xff\xfe\ncosserver 7/tcp"), Some(7));
        assert_eq!(find(b""), None);
    }
}
