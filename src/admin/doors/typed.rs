//! Input of passwords: from a descriptor, from standard input, or from the terminal without echo.

use std::io::{self, IsTerminal};

use zeroize::Zeroizing;

use super::super::out::Failure;
use crate::fault::Fault;
use crate::protocol::limits::REPLY;
use crate::secret::same_bytes;
use crate::sys::inherited;
use crate::tty::{self, Terminal};

/// A password, wiped when dropped.
pub(super) type Password = Zeroizing<Vec<u8>>;

/// Reads a password, one line, from a descriptor.
pub(super) fn of_descriptor(number: &str) -> Result<Password, Failure> {
    let wrong = || Failure::Usage(format!("--password-fd: {number:?} is not a number"));
    let fd: i32 = number.parse().map_err(|_| wrong())?;
    let of = |e: &io::Error| Fault::new(format!("--password-fd {fd}: {}", said(e)));
    let mut file = inherited::descriptor(fd).map_err(|_| {
        let words = format!("--password-fd {fd}: it is not open");
        Fault::new(words)
    })?;
    let line = tty::read_line(&mut file, REPLY).map_err(|e| of(&e))?;
    if line.is_empty() {
        return Err(Fault::new(format!("--password-fd {fd}: its line is empty")).into());
    }
    Ok(line)
}

/// Reads a password from standard input: one line, or at a terminal typed twice and not shown. An
/// empty one means "no password".
pub(super) fn of_input(prompt: &str) -> Result<Password, Fault> {
    let told = |e: &io::Error| Fault::new(format!("standard input: {}", said(e)));
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return tty::read_line(&mut stdin.lock(), REPLY).map_err(|e| told(&e));
    }
    let told = |e: &io::Error| Fault::new(format!("the terminal: {}", said(e)));
    let mut terminal = Terminal::open().map_err(|e| told(&e))?;
    loop {
        if let Some(password) = twice(&mut terminal, prompt, &[b""]).map_err(|e| told(&e))? {
            return Ok(password);
        }
        let again = terminal.tell("The passwords do not match. Try again:\n");
        again.map_err(|e| told(&e))?;
    }
}

/// Asks for a password twice, unless the first input is one of `none`, which mean "no password".
/// Returns `None` if the two differ.
pub(super) fn twice(
    terminal: &mut Terminal,
    prompt: &str,
    none: &[&[u8]],
) -> io::Result<Option<Password>> {
    let first = terminal.ask_hidden(prompt, None)?;
    if none.contains(&first.as_slice()) {
        return Ok(Some(first));
    }
    let second = terminal.ask_hidden("The same again: ", None)?;
    Ok(same_bytes(&first, &second).then_some(first))
}

fn said(e: &io::Error) -> String {
    let is = |kind| e.kind() == kind;
    if is(io::ErrorKind::UnexpectedEof) {
        "there is no password in it".to_owned()
    } else if is(io::ErrorKind::Interrupted) {
        "interrupted; nothing was changed".to_owned()
    } else {
        e.to_string()
    }
}
