//! Local errors, in words for the administrator or user who must act.
//!
//! Used by every program. A `Fault` concerns this side: a file, a system call, a setting. A peer's
//! error is a `Refusal` and never a `Fault`, so that the one coarse answer of the wire and the
//! clear words of the log cannot be confused. Never put a secret, or unescaped bytes of a peer,
//! into a fault.

use std::fmt;
use std::path::Path;

/// One sentence for the administrator: `file:line: what is wrong; what was probably meant`, as far
/// as each is known; and at most one remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    words: String,
    remedy: Option<String>,
}

impl Fault {
    /// Creates a fault in plain words.
    pub fn new(words: impl Into<String>) -> Self {
        Self {
            words: words.into(),
            remedy: None,
        }
    }

    /// Creates a fault in a file at a known line (1 is the first).
    pub fn at(file: &Path, line: usize, words: impl fmt::Display) -> Self {
        Self::new(format!("{}:{line}: {words}", file.display()))
    }

    /// Creates a fault about a file as a whole.
    pub fn of(file: &Path, words: impl fmt::Display) -> Self {
        Self::new(format!("{}: {words}", file.display()))
    }

    /// Returns the fault, prefixed with the action that failed.
    #[must_use]
    pub fn while_doing(self, what: impl fmt::Display) -> Self {
        Self {
            words: format!("{what}: {}", self.words),
            ..self
        }
    }

    /// Returns the fault with a remedy, which is on a line of its own.
    #[must_use]
    pub fn with_remedy(self, remedy: impl fmt::Display) -> Self {
        Self {
            remedy: Some(remedy.to_string()),
            ..self
        }
    }

    /// Returns the fault and its remedy in one line, for a log or another process.
    pub fn in_one_line(&self) -> String {
        match &self.remedy {
            Some(remedy) => format!("{}; {remedy}", self.words),
            None => self.words.clone(),
        }
    }

    /// Returns the remedy, if it is known.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl std::error::Error for Fault {}

impl From<std::io::Error> for Fault {
    fn from(e: std::io::Error) -> Self {
        Self::new(e.to_string())
    }
}

impl From<nix::errno::Errno> for Fault {
    fn from(e: nix::errno::Errno) -> Self {
        Self::new(std::io::Error::from(e).to_string())
    }
}

/// The longest piece of input that a message repeats, in characters.
const REPEATED: usize = 64;

/// Returns text from a file, in quotes, with control characters escaped and cut after 64
/// characters, so that a message stays one readable line.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (count, c) in text.chars().enumerate() {
        if count == REPEATED {
            out.push('…');
            break;
        }
        out.extend(c.escape_debug().filter(|_| c != '\''));
        if c == '\'' {
            out.push(c);
        }
    }
    out.push('"');
    out
}
