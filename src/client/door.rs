//! Who answers the inner door (seed 002), which asks an unknown machine for a name or for
//! an activation password: what the command line of `cos enrol` says, else the person at
//! the terminal. Run by the client.
//!
//! It never takes an answer that was meant for a login: a script's password must not
//! become a guess at an activation password.

use std::io;
use std::os::fd::BorrowedFd;

use zeroize::Zeroizing;

use super::asker::{self, Asker, hidden_line, prompted, shown_line};
use super::{messages, values};
use crate::fault::Fault;
use crate::protocol::Malformed;
use crate::protocol::prompt::{Answers, Asks, Text};
use crate::sys::client_terminal::Terminal;

/// The manager has given the name with the password (seed 002, steps 18 and 24).
const NAME_UNUSED: &str = "--name is not used: it asks for an activation password, and the name is the one \
    that its administrator gave with it, or USER@ADDRESS with the backdoor password";

/// Who answers the inner door of a host.
pub struct Door<'a> {
    host: &'a str,
    /// The command that has this machine registered, in backquotes.
    enrolment: String,
    by: By<'a>,
}

enum By<'a> {
    /// The person at the terminal, where one may be asked.
    Person(bool),
    /// A registration: a name that was given, and whoever has the password.
    Enrolment(Option<&'a str>, &'a mut Asker),
}

impl<'a> Door<'a> {
    /// That of a host that is called for something else: the person at the terminal
    /// answers it, unless nobody `may_ask` one, who is told of that `enrolment`.
    pub const fn by_the_way(host: &'a str, enrolment: String, may_ask: bool) -> Self {
        let by = By::Person(may_ask);
        Self {
            host,
            enrolment,
            by,
        }
    }

    /// That of a host at which this machine is to be registered, by this name if it asks
    /// for one.
    pub const fn to_enrol(host: &'a str, name: Option<&'a str>, asker: &'a mut Asker) -> Self {
        Self {
            host,
            enrolment: String::new(),
            by: By::Enrolment(name, asker),
        }
    }

    /// The answer to its prompt, the last of these texts. `vouched`: it is the machine of
    /// this host that it does not know, by whose signer we ask. `line`: the connection.
    ///
    /// # Errors
    /// Nobody answers, or the host does not wait for the person at the terminal.
    pub(super) fn answer(
        &mut self,
        by: Asks,
        texts: &[Text],
        vouched: bool,
        line: BorrowedFd<'_>,
    ) -> Result<Answers, Fault> {
        let (prompt, before) = texts
            .split_last()
            .ok_or_else(|| Fault::new("it asks nothing"))?;
        let (host, enrolment) = (self.host, &self.enrolment);
        let reply = match (&mut self.by, by) {
            (By::Person(may_ask), by) => {
                let terminal = may_ask.then(Terminal::open).and_then(Result::ok);
                let mut terminal = terminal.ok_or_else(|| unknown(host, enrolment, vouched))?;
                before.iter().for_each(asker::tell);
                let words = prompted(host, prompt);
                match by {
                    Asks::Name => type_name(&mut terminal, &words, line),
                    Asks::Activation | Asks::Login => hidden_line(&mut terminal, &words, line),
                }
                .map_err(|e| Fault::new(format!("the terminal: {}", asker::why(&e))))?
            }
            (By::Enrolment(Some(name), _), Asks::Name) => Zeroizing::new(name.as_bytes().to_vec()),
            (By::Enrolment(None, asker), Asks::Name) => {
                before.iter().for_each(asker::tell);
                let mut terminal = asker.person().ok_or_else(|| {
                    Fault::new(
                        "it asks for a name, and there is nobody to type one; give --name NAME",
                    )
                })?;
                type_name(&mut terminal, &prompted(host, prompt), line)
                    .map_err(|e| Fault::new(format!("the terminal: {}", asker::why(&e))))?
            }
            (By::Enrolment(name, asker), Asks::Activation | Asks::Login) => {
                if name.is_some() {
                    messages::complain(Some(host), NAME_UNUSED);
                }
                before.iter().for_each(asker::tell);
                asker.one(prompt, line)?
            }
        };
        // A guess that cannot be right costs the next one time.
        if reply.is_empty() {
            return Err(Fault::new(
                "the activation password is empty; nothing was sent",
            ));
        }
        Answers::new(vec![reply]).map_err(|m: Malformed| Fault::new(m.to_string()))
    }
}

/// What somebody can do who is not asked.
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

/// A name that can be one, and that whoever has typed it finds correct.
fn type_name(
    terminal: &mut Terminal,
    prompt: &str,
    line: BorrowedFd<'_>,
) -> io::Result<Zeroizing<Vec<u8>>> {
    loop {
        let typed = shown_line(terminal, prompt, line)?;
        match values::machine_name(&String::from_utf8_lossy(&typed), "That name") {
            Err(wrong) => terminal.tell(&format!("{wrong}\n"))?,
            Ok(name) if is_correct(terminal, line)? => {
                return Ok(Zeroizing::new(name.into_bytes()));
            }
            Ok(_) => {}
        }
    }
}

/// The question of the seed.
fn is_correct(terminal: &mut Terminal, line: BorrowedFd<'_>) -> io::Result<bool> {
    loop {
        match shown_line(terminal, "Correct? (Y/N) ", line)?.as_slice() {
            b"Y" | b"y" | b"yes" => return Ok(true),
            b"N" | b"n" | b"no" => return Ok(false),
            _ => {}
        }
    }
}
