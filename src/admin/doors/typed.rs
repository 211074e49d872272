//! Input of passwords: from a descriptor, from standard input, or from the terminal without echo.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use zeroize::Zeroizing;

use super::super::out::Failure;
use crate::fault::Fault;
use crate::protocol::limits::REPLY;
use crate::secret::same_bytes;
use crate::sys::client_signals::is_ignored;
use crate::sys::client_terminal::{self, Terminal};

/// A password, wiped when dropped.
pub(super) type Password = Zeroizing<Vec<u8>>;

/// Reads a password, one line, from a descriptor.
pub(super) fn of_descriptor(number: &str) -> Result<Password, Failure> {
    let wrong = || Failure::Usage(format!("--password-fd: {number:?} is not a number"));
    let fd: i32 = number.parse().map_err(|_| wrong())?;
    let of = |e: &io::Error| Fault::new(format!("--password-fd {fd}: {}", said(e)));
    let mut file = client_terminal::answers(fd).map_err(|_| {
        let words = format!("--password-fd {fd}: it is not open");
        Fault::new(words)
    })?;
    let line = client_terminal::read_line(&mut file, REPLY).map_err(|e| of(&e))?;
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
        return client_terminal::read_line(&mut stdin.lock(), REPLY).map_err(|e| told(&e));
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
    let first = read_hidden(terminal, prompt)?;
    if none.contains(&first.as_slice()) {
        return Ok(Some(first));
    }
    let second = read_hidden(terminal, "The same again: ")?;
    Ok(same_bytes(&first, &second).then_some(first))
}

/// Reads a line without echo. A signal that ends or stops this program takes effect only after the
/// terminal is restored. If the program continues, it asks again.
pub(super) fn read_hidden(terminal: &mut Terminal, prompt: &str) -> io::Result<Password> {
    loop {
        terminal.wait_for_turn()?;
        let held = Held::new()?;
        if let Some(line) = terminal.hidden_line(prompt, REPLY, held.as_fd())? {
            return Ok(line);
        }
    }
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

/// Signals that are blocked until the terminal is restored.
struct Held {
    descriptor: SignalFd,
    before: SigSet,
}

/// The signals from outside that end or stop a program.
const HELD: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGALRM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

impl Held {
    fn new() -> io::Result<Self> {
        let before = SigSet::thread_get_mask()?;
        let mut held = SigSet::empty();
        for signal in HELD.into_iter().filter(|s| !is_ignored(*s)) {
            if !before.contains(signal) {
                held.add(signal);
            }
        }
        held.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            descriptor: SignalFd::with_flags(&held, flags)?,
            before,
        })
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.before.thread_set_mask();
    }
}
