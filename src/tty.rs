//! The terminal, where the client and `cosadm` ask the user for input.
//!
//! Runs in both. Owns the terminal's settings while it asks. Must not leave the echo off, whatever
//! ends the question.

use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

use crate::protocol::limits::REPLY;
use crate::sys::client_signals::Caught;
use crate::sys::terminal;

/// The controlling terminal of this session, regardless of standard input and output.
pub struct Terminal(File);

/// Restores a terminal's settings when dropped.
struct Restored<'a>(&'a File, Termios);

impl Drop for Restored<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.0.as_fd(), SetArg::TCSADRAIN, &self.1);
    }
}

/// Control characters for editing a hidden line.
const INTERRUPT: u8 = 3;
const END: u8 = 4;
const BACKSPACE: u8 = 8;
const KILL: u8 = 21;
const DELETE: u8 = 127;

impl Terminal {
    /// Opens the controlling terminal.
    ///
    /// # Errors
    /// There is none.
    pub fn open() -> io::Result<Self> {
        let file = File::options().read(true).write(true).open("/dev/tty")?;
        Ok(Self(file))
    }

    /// Writes text.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn tell(&mut self, words: &str) -> io::Result<()> {
        self.0.write_all(words.as_bytes())?;
        self.0.flush()
    }

    /// Returns the number of lines that the terminal shows; `None`: unknown.
    pub fn height(&self) -> Option<u16> {
        terminal::rows(self.0.as_fd())
    }

    /// Reads a line of at most `most` bytes, with echo.
    ///
    /// # Errors
    /// The terminal is gone, or the line is too long.
    pub fn line(&mut self, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        read_line(&mut self.0, most)
    }

    /// Shows the prompt and reads a line with echo.
    ///
    /// # Errors
    /// As [`Self::line`]; or `host`, a connection, becomes readable first: the host no longer
    /// waits.
    pub fn ask(&mut self, prompt: &str, host: BorrowedFd<'_>) -> io::Result<Zeroizing<Vec<u8>>> {
        self.tell(prompt)?;
        // Unlike reading, poll(2) does not stop a process in the background.
        self.wait_for_turn()?;
        if is_typed(&self.0, &[host])? {
            return self.line(REPLY);
        }
        self.tell("\n")?;
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    /// Shows the prompt and reads a line without echo. A signal that would end or stop this program
    /// is delivered after the terminal is restored. If the program continues, it asks again.
    ///
    /// # Errors
    /// As [`Self::ask`], if a host waits; or the user interrupted it.
    pub fn ask_hidden(
        &mut self,
        prompt: &str,
        host: Option<BorrowedFd<'_>>,
    ) -> io::Result<Zeroizing<Vec<u8>>> {
        loop {
            self.wait_for_turn()?;
            let signals = Caught::all()?;
            let stops: Vec<_> = host.into_iter().chain([signals.as_fd()]).collect();
            if let Some(line) = self.hidden_line(prompt, &stops)? {
                return Ok(line);
            }
            drop(signals);
            let is_readable = |host| {
                let mut ready = [PollFd::new(host, PollFlags::POLLIN)];
                poll(&mut ready, PollTimeout::ZERO) == Ok(1)
            };
            if host.is_some_and(is_readable) {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }

    /// Returns once this program may change the terminal's settings. A process in the background is
    /// stopped until then, as it is by reading.
    fn wait_for_turn(&self) -> io::Result<()> {
        let settings = tcgetattr(self.0.as_fd())?;
        Ok(tcsetattr(self.0.as_fd(), SetArg::TCSADRAIN, &settings)?)
    }

    /// Turns the echo off, shows the prompt, and reads a line. Input typed before the prompt
    /// belongs to the line, so that a program that answers early is not left waiting. No signal can
    /// leave the terminal without echo: the terminal's own keys send none during the call, and the
    /// caller blocks the signals of other processes and learns of them by one of `stops`. Once one
    /// of `stops` is readable, returns `None`.
    fn hidden_line(
        &mut self,
        prompt: &str,
        stops: &[BorrowedFd<'_>],
    ) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        let before = tcgetattr(self.0.as_fd())?;
        let mut quiet = before.clone();
        quiet.local_flags &= !(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG);
        for (which, value) in [
            (SpecialCharacterIndices::VMIN, 1),
            (SpecialCharacterIndices::VTIME, 0),
        ] {
            if let Some(slot) = quiet.control_chars.get_mut(which as usize) {
                *slot = value;
            }
        }
        // Before the prompt, or input typed at once would be echoed; and without discarding earlier
        // input, because the user would not type it again.
        tcsetattr(self.0.as_fd(), SetArg::TCSADRAIN, &quiet)?;
        let restored = Restored(&self.0, before);
        (&*restored.0).write_all(prompt.as_bytes())?;
        // The buffer never moves while it grows, so that no copy is left behind.
        let mut line = Zeroizing::new(Vec::with_capacity(REPLY.saturating_add(1)));
        let outcome = loop {
            let mut byte = Zeroizing::new(0);
            match is_typed(restored.0, stops) {
                Ok(true) => {}
                Ok(false) => break Ok(false),
                Err(e) => break Err(e),
            }
            match (&*restored.0).read(std::slice::from_mut(&mut *byte)) {
                Ok(0) => break Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => break Err(e),
            }
            match *byte {
                b'\n' | b'\r' => break Ok(true),
                END if line.is_empty() => break Err(io::ErrorKind::UnexpectedEof.into()),
                INTERRUPT => break Err(io::ErrorKind::Interrupted.into()),
                BACKSPACE | DELETE => drop(line.pop()),
                KILL => line.clear(),
                END => {}
                byte if line.len() < REPLY => line.push(byte),
                _ => break Err(io::Error::other("the answer is too long")),
            }
        };
        let _ = (&*restored.0).write_all(b"\n");
        outcome.map(|whole| whole.then_some(line))
    }
}

/// Waits until the terminal is readable (`true`) or one of `stops` is (`false`).
fn is_typed(terminal: &File, stops: &[BorrowedFd<'_>]) -> io::Result<bool> {
    let all = stops.iter().copied().chain([terminal.as_fd()]);
    let mut all: Vec<PollFd<'_>> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    loop {
        match poll(&mut all, PollTimeout::NONE) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let mut stops = all.iter().take(stops.len());
    Ok(!stops.any(|fd| fd.any().unwrap_or(true)))
}

/// Reads one line, byte by byte, so that the next reader finds the next line.
///
/// # Errors
/// The line is too long, or there is none.
pub fn read_line(from: &mut impl Read, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::with_capacity(most.saturating_add(1)));
    loop {
        let mut byte = Zeroizing::new(0);
        match from.read(std::slice::from_mut(&mut *byte)) {
            Ok(0) if line.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(line),
            Ok(_) if *byte == b'\n' => {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(line);
            }
            Ok(_) if line.len() >= most => return Err(io::Error::other("the answer is too long")),
            Ok(_) => line.push(*byte),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// Returns whether standard input and standard output are a terminal.
pub fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}
