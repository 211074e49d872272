//! Sources of the answers to prompts: a descriptor (`--password-fd`), a program (`COS_ASKPASS`), or
//! the user at the terminal.
//!
//! Runs in the client. Owns the descriptor. Must not ask at the terminal in batch mode, and must
//! not write to standard output.

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::config::words::{self, quoted};
use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::limits::REPLY;
use crate::protocol::prompt::{Answers, Style, Text};
use crate::sys::inherited;
use crate::tty::{self, Terminal};

/// Answers prompts.
pub struct Asker {
    from: Source,
    /// Do not ask the user: a prompt without another source of answers fails.
    batch: bool,
    /// The login as `USER@HOST`.
    who: String,
    /// What would have made the prompt unnecessary.
    missing_alternative: Option<Fault>,
}

enum Source {
    Descriptor(File, i32),
    Anybody,
}

impl Asker {
    /// Returns an asker that reads from the source the caller has named. `batch`: never ask the
    /// user. `who`: the login as `USER@HOST`, shown in each prompt.
    ///
    /// # Errors
    /// The descriptor is not open.
    pub fn new(password_fd: Option<i32>, batch: bool, who: String) -> Result<Self, Fault> {
        let from = match password_fd {
            None => Source::Anybody,
            Some(number) => {
                let file = inherited::descriptor(number);
                let file = file
                    .map_err(|_| Fault::new(format!("--password-fd {number}: it is not open")))?;
                Source::Descriptor(file, number)
            }
        };
        Ok(Self {
            from,
            batch,
            who,
            missing_alternative: None,
        })
    }

    /// Records what is missing to continue without a prompt. It is reported if the prompt stays
    /// unanswered.
    pub fn note_missing_alternative(&mut self, missing: Fault) {
        self.missing_alternative = Some(missing);
    }

    /// Returns what is missing to continue without a prompt, if known.
    pub(super) fn missing_alternative(&self) -> Option<Fault> {
        self.missing_alternative.clone()
    }

    /// Returns the answers to the prompts among these texts, and prints the other texts. `host`:
    /// the host's connection.
    ///
    /// # Errors
    /// There is no answer, or the host does not wait for the user at the terminal.
    pub(super) fn answer(
        &mut self,
        texts: &[Text],
        host: BorrowedFd<'_>,
    ) -> Result<Answers, Fault> {
        let mut answers = Vec::new();
        for text in texts {
            if text.style.is_prompt() {
                answers.push(self.one(text, host)?);
            } else {
                tell(text);
            }
        }
        Answers::new(answers).map_err(|m: Malformed| Fault::new(m.to_string()))
    }

    /// Returns the answer to one prompt.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub(super) fn one(
        &mut self,
        text: &Text,
        host: BorrowedFd<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let prompt = shown(&text.words);
        let failed = |who: &str, e: &io::Error| {
            let asked = quoted(prompt.trim_end());
            Fault::new(format!("{who}, asked {asked}: {}", why(e)))
        };
        if let Source::Descriptor(file, number) = &mut self.from {
            let who = format!("descriptor {number}");
            return tty::read_line(file, REPLY).map_err(|e| failed(&who, &e));
        }
        if let Some(program) = env::var_os("COS_ASKPASS").filter(|p| !p.is_empty()) {
            // The argument begins with USER@HOST, so the program cannot take it for an option.
            let argument = format!("{}: {prompt}", self.who);
            let answer = by_program(&program, &argument);
            return answer.map_err(|e| failed(&format!("{}", program.to_string_lossy()), &e));
        }
        let mut terminal = self.terminal(&prompt)?;
        let words = prompted(&self.who, text);
        let asked = match text.style {
            Style::Shown => terminal.ask(&words, host),
            Style::Hidden | Style::Info | Style::Error => terminal.ask_hidden(&words, Some(host)),
        };
        asked.map_err(|e| failed("the terminal", &e))
    }

    fn terminal(&self, prompt: &str) -> Result<Terminal, Fault> {
        let unanswered = || {
            let words = format!(
                "it asks {}, but there is no terminal (or BatchMode=yes)",
                quoted(prompt.trim_end())
            );
            Fault::new(words).with_remedy("give --password-fd N, or a program in COS_ASKPASS")
        };
        if self.batch {
            return Err(unanswered());
        }
        Terminal::open().map_err(|_| unanswered())
    }

    /// Whether the user may be asked: not in batch mode, and no descriptor was named.
    pub const fn may_ask_a_person(&self) -> bool {
        !self.batch && matches!(self.from, Source::Anybody)
    }

    /// Opens the terminal, for questions that no descriptor or program answers. `None`: there is no
    /// terminal, or batch mode.
    pub(super) fn person(&self) -> Option<Terminal> {
        (!self.batch).then(Terminal::open).and_then(Result::ok)
    }

    /// Asks for yes or no at the terminal. Never runs a program, and never asks in batch mode.
    ///
    /// # Errors
    /// There is no terminal, or the user may not be asked.
    pub fn confirm(&self, question: &str) -> Result<bool, Fault> {
        let interactive = self.may_ask_a_person();
        let terminal = interactive.then(|| self.person()).flatten();
        let Some(mut terminal) = terminal else {
            return Err(Fault::new(if interactive {
                "there is no terminal to ask at"
            } else {
                "no question is allowed (BatchMode=yes or --password-fd)"
            }));
        };
        loop {
            let asked = terminal.tell(question).and_then(|()| terminal.line(REPLY));
            let line = asked.map_err(|e| Fault::new(e.to_string()))?;
            match line.as_slice() {
                b"yes" => return Ok(true),
                b"no" | b"" => return Ok(false),
                _ => terminal
                    .tell("Please say yes or no.\n")
                    .map_err(|e| Fault::new(e.to_string()))?,
            }
        }
    }
}

/// Runs a program that asks the user: it gets the prompt as its argument, and the first line of its
/// output is the answer (the convention of ssh's SSH_ASKPASS).
///
/// # Errors
/// The program cannot be started, failed, or gave no answer.
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place where the client starts another program"
)]
fn by_program(program: &OsStr, prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut child = Command::new(program)
        .arg(prompt)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let line = match child.stdout.take() {
        Some(mut stdout) => tty::read_line(&mut stdout, REPLY),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    };
    let status = child.wait()?;
    if status.success() {
        let none = io::ErrorKind::UnexpectedEof;
        line.map_err(|e| {
            if e.kind() == none {
                io::Error::other("it gave no answer")
            } else {
                e
            }
        })
    } else {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("it ended with {code}"),
            (None, Some(signal)) => format!("signal {signal} ended it"),
            (None, None) => status.to_string(),
        };
        Err(io::Error::other(format!("{how} and gave no answer")))
    }
}

/// Prints a host's text line by line on standard error, never on standard output.
pub(super) fn tell(text: &Text) {
    let words = text.words.strip_suffix('\n').unwrap_or(&text.words);
    for line in words.split('\n') {
        super::messages::another(line.strip_suffix('\r').unwrap_or(line));
    }
}

/// A prompt for the user, preceded by the host or login that it belongs to.
pub(super) fn prompted(who: &str, prompt: &Text) -> String {
    format!("{who}: {}", shown(&prompt.words))
}

/// Returns why there is no answer.
pub(super) fn why(e: &io::Error) -> String {
    if e.kind() == io::ErrorKind::UnexpectedEof {
        "there is no answer left".to_owned()
    } else if e.kind() == io::ErrorKind::Interrupted {
        "interrupted".to_owned()
    } else {
        e.to_string()
    }
}

/// Returns a prompt of one or more lines, without characters that could control a terminal.
fn shown(words: &str) -> String {
    let lines: Vec<String> = words.split('\n').map(words::shown).collect();
    lines.join("\n")
}
