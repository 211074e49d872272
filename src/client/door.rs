//! Answers the inner door (seed 002), which asks an unknown machine for a name or an activation
//! password. The answer comes from the command line of `cos enrol`, else from the user at the
//! terminal.
//!
//! Runs in the client. Must not use an answer that was meant for a login: a script's password must
//! not become a guess at an activation password.

use std::io;
use std::os::fd::BorrowedFd;

use zeroize::Zeroizing;

use super::asker::{self, Asker, prompted};
use super::{messages, values};
use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::prompt::{Answers, Asks, Text};
use crate::tty::Terminal;

/// The manager gave the name with the password (seed 002, steps 18 and 24).
const NAME_UNUSED: &str =
    "--name is not used: the host asks for an activation password, which determines the name";

/// Answers the inner door of a host.
pub struct Door<'a> {
    host: &'a str,
    /// The command that registers this machine, in backquotes.
    enrolment: String,
    by: By<'a>,
}

enum By<'a> {
    /// The user at the terminal, if the user may be asked.
    Person(bool),
    /// A registration: the given name, and the source of the password.
    Enrolment(Option<&'a str>, &'a mut Asker),
}

impl<'a> Door<'a> {
    /// Returns the answers for a host that is called for another purpose. The user at the terminal
    /// answers if `may_ask`. Otherwise the error names the `enrolment` command.
    pub const fn during_request(host: &'a str, enrolment: String, may_ask: bool) -> Self {
        let by = By::Person(may_ask);
        Self {
            host,
            enrolment,
            by,
        }
    }

    /// Returns the answers for a host at which this machine is to be registered, with this name if
    /// the host asks for one.
    pub const fn to_enrol(host: &'a str, name: Option<&'a str>, asker: &'a mut Asker) -> Self {
        Self {
            host,
            enrolment: String::new(),
            by: By::Enrolment(name, asker),
        }
    }

    /// Returns the answer to the prompt, which is the last of these texts. `vouched`: this host's
    /// signer signed the request, and the host does not know this host's machine key. `line`: the
    /// connection.
    ///
    /// # Errors
    /// There is no answer, or the host does not wait for the user at the terminal.
    pub(super) fn answer(
        &mut self,
        by: Asks,
        texts: &[Text],
        vouched: bool,
        line: BorrowedFd<'_>,
    ) -> Result<Answers, Fault> {
        let (prompt, before) = texts
            .split_last()
            .ok_or_else(|| Fault::new("it sent a prompt without a question"))?;
        let (host, enrolment) = (self.host, &self.enrolment);
        let reply = match (&mut self.by, by) {
            (By::Person(may_ask), by) => {
                let terminal = may_ask.then(Terminal::open).and_then(Result::ok);
                let mut terminal = terminal.ok_or_else(|| unknown(host, enrolment, vouched))?;
                before.iter().for_each(asker::tell);
                let words = prompted(host, prompt);
                match by {
                    Asks::Name => type_name(&mut terminal, &words, line),
                    Asks::Activation | Asks::Login => terminal.ask_hidden(&words, Some(line)),
                }
                .map_err(|e| Fault::new(format!("the terminal: {}", asker::why(&e))))?
            }
            (By::Enrolment(Some(name), _), Asks::Name) => Zeroizing::new(name.as_bytes().to_vec()),
            (By::Enrolment(None, asker), Asks::Name) => {
                before.iter().for_each(asker::tell);
                let mut terminal = asker.person().ok_or_else(|| {
                    Fault::new(
                        "it asks for a name, but there is no terminal (or BatchMode=yes); give --name NAME",
                    )
                })?;
                type_name(&mut terminal, &prompted(host, prompt), line)
                    .map_err(|e| Fault::new(format!("the terminal: {}", asker::why(&e))))?
            }
            (By::Enrolment(name, asker), Asks::Activation | Asks::Login) => {
                if name.is_some() {
                    messages::print_error(Some(host), NAME_UNUSED);
                }
                before.iter().for_each(asker::tell);
                asker.one(prompt, line)?
            }
        };
        // Do not send an empty password: each wrong guess delays the next one.
        if reply.is_empty() {
            return Err(Fault::new(
                "the activation password is empty; nothing was sent",
            ));
        }
        Answers::new(vec![reply]).map_err(|m: Malformed| Fault::new(m.to_string()))
    }
}

/// Returns the error for an unknown machine whose user may not be asked, with the command that
/// registers it.
fn unknown(host: &str, enrolment: &str, vouched: bool) -> Fault {
    Fault::new(if vouched {
        format!(
            "this machine is not known to {host}; root registers it there first: \
             `cos -C {} enrol {host}`",
            crate::config::paths::SYSTEM
        )
    } else {
        format!("this machine is not known to {host}; {enrolment} first")
    })
}

/// Reads a valid name that the user has confirmed.
fn type_name(
    terminal: &mut Terminal,
    prompt: &str,
    line: BorrowedFd<'_>,
) -> io::Result<Zeroizing<Vec<u8>>> {
    loop {
        let typed = terminal.ask(prompt, line)?;
        match values::machine_name(&String::from_utf8_lossy(&typed), "That name") {
            Err(wrong) => terminal.tell(&format!("{wrong}\n"))?,
            Ok(name) if is_correct(terminal, line)? => {
                return Ok(Zeroizing::new(name.into_bytes()));
            }
            Ok(_) => {}
        }
    }
}

/// Asks for confirmation, in the seed's words.
fn is_correct(terminal: &mut Terminal, line: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        match terminal.ask("Correct? (Y/N) ", line)?.as_slice() {
            b"Y" | b"y" | b"yes" => return Ok(true),
            b"N" | b"n" | b"no" => return Ok(false),
            _ => {}
        }
    }
}
