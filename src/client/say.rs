//! What the client says for itself: `-v` steps, and the one line of a failure.
//! Run by the client alone. Standard error belongs to the remote command, so
//! without `-v` and without a failure nothing is said, and standard output is
//! never written to.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Speaks on standard error, each line in one write.
pub struct Voice {
    verbose: bool,
    begun: Instant,
}

impl Voice {
    /// A voice that tells steps where `verbose` asks for them.
    pub fn new(verbose: bool) -> Self {
        Self {
            verbose,
            begun: Instant::now(),
        }
    }

    /// Tells a step with the milliseconds since the start, where `-v` asks for
    /// it. A step that would have to wait for a reader is left out: telling it
    /// must never hold up signals or data.
    pub fn step(&self, words: impl FnOnce() -> String) {
        if !self.verbose {
            return;
        }
        let stderr = io::stderr();
        let mut ready = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
        if poll(&mut ready, PollTimeout::ZERO) == Ok(1) {
            let ms = self.begun.elapsed().as_micros();
            let (whole, part) = (ms / 1000, ms % 1000);
            line(&format!("cos: {whole}.{part:03} ms: {}", words()));
        }
    }
}

/// The one line of a failure: `cos: HOST: what is wrong`. What could steer a terminal
/// or deceive its reader is shown as `?`: part of it may be another host's words.
pub fn complain(host: Option<&str>, words: &str) {
    let host = host.map_or_else(String::new, |h| format!("{h}: "));
    line(&format!("cos: {host}{words}"));
}

/// Writes to standard output what was asked for by `--help` or `--version`.
pub fn tell(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// One line on standard error.
pub fn line(words: &str) {
    let mut line: String = words
        .chars()
        .map(|c| if is_shown(c) { c } else { '?' })
        .collect();
    line.push('\n');
    // Where nobody reads our errors there is nobody to tell that to.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// Whether a character may be shown where another host chose it: neither one that steers
/// a terminal, nor one that is not seen and changes what is (Unicode's Cc, Cf, Zl and Zp,
/// and others that are ignorable).
pub fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{ad}'
                | '\u{34f}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{890}'..='\u{891}'
                | '\u{8e2}'
                | '\u{115f}'..='\u{1160}'
                | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{110bd}'
                | '\u{110cd}'
                | '\u{13430}'..='\u{1343f}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unseen_is_shown() {
        for c in "\0\x1b\u{7f}\u{9b}\u{ad}\u{200b}\u{200d}\u{200e}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}".chars() {
            assert!(!is_shown(c), "{c:?}");
        }
        for c in " aé\u{301}あ\u{a0}‘€😀".chars() {
            assert!(is_shown(c), "{c:?}");
        }
    }
}
