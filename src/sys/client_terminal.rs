//! Asks the user for input: on the terminal without echo, or by a program that asks. Runs in the
//! client, and on the terminal in `cosadm`.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{
    LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use zeroize::Zeroizing;

/// The controlling terminal of this session, regardless of standard input and output.
pub struct Terminal(std::fs::File);

/// Restores a terminal's settings when dropped.
struct Restored<'a>(&'a std::fs::File, Termios);

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
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")?;
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
        let mut size = libc::winsize {
            ws_row: 0,
            ws_col: 0,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open, and `size` is what this request fills.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
        (done == 0 && size.ws_row > 0).then_some(size.ws_row)
    }

    /// Reads a line of at most `most` bytes, with echo.
    ///
    /// # Errors
    /// The terminal is gone, or the line is too long.
    pub fn line(&mut self, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
        read_line(&mut self.0, most)
    }

    /// Reads a line like [`Self::line`], unless `stop` becomes readable first: then returns `None`.
    ///
    /// # Errors
    /// As [`Self::line`].
    pub fn line_unless(
        &mut self,
        most: usize,
        stop: BorrowedFd<'_>,
    ) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        // Unlike reading, poll(2) does not stop a process in the background.
        self.wait_for_turn()?;
        if is_typed(&self.0, &[stop])? {
            return self.line(most).map(Some);
        }
        self.tell("\n")?;
        Ok(None)
    }

    /// Returns once this program may change the terminal's settings. A process in the background is
    /// stopped until then, as it is by reading.
    ///
    /// # Errors
    /// The terminal is gone, or no process can bring this one to the foreground.
    pub fn wait_for_turn(&self) -> io::Result<()> {
        let settings = tcgetattr(self.0.as_fd())?;
        Ok(tcsetattr(self.0.as_fd(), SetArg::TCSADRAIN, &settings)?)
    }

    /// Calls [`Self::hidden_line_unless`] with one descriptor to stop by.
    ///
    /// # Errors
    /// As [`Self::hidden_line_unless`].
    pub fn hidden_line(
        &mut self,
        prompt: &str,
        most: usize,
        stop: BorrowedFd<'_>,
    ) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
        self.hidden_line_unless(prompt, most, &[stop])
    }

    /// Turns the echo off, shows the prompt, and reads a line. Input typed before the prompt
    /// belongs to the line, so that a program that answers early is not left waiting. No signal can
    /// leave the terminal without echo: the terminal's own keys send none during the call, and the
    /// caller blocks the signals of other processes and learns of them by one of `stops`. Once one
    /// of `stops` is readable, returns `None`.
    ///
    /// # Errors
    /// The terminal is gone, the line is too long, or the user interrupted it.
    pub fn hidden_line_unless(
        &mut self,
        prompt: &str,
        most: usize,
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
        let mut line = Zeroizing::new(Vec::with_capacity(most.saturating_add(1)));
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
                byte if line.len() < most => line.push(byte),
                _ => break Err(io::Error::other("the answer is too long")),
            }
        };
        let _ = (&*restored.0).write_all(b"\n");
        outcome.map(|whole| whole.then_some(line))
    }
}

/// Waits until the terminal is readable (`true`) or one of `stops` is (`false`).
fn is_typed(terminal: &std::fs::File, stops: &[BorrowedFd<'_>]) -> io::Result<bool> {
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

/// Returns a descriptor that this program was started with, to read answers from.
///
/// # Errors
/// There is no descriptor with that number.
pub fn answers(number: i32) -> io::Result<std::fs::File> {
    // SAFETY: asks the kernel whether the number is an open descriptor.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller got the number on its command line, and owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) }.into())
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
            Ok(_) if *byte == b'\n' => return Ok(line),
            Ok(_) if line.len() >= most => return Err(io::Error::other("the answer is too long")),
            Ok(_) => line.push(*byte),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
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
pub fn by_program(program: &OsStr, prompt: &str, most: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut child = Command::new(program)
        .arg(prompt)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let line = match child.stdout.take() {
        Some(mut stdout) => read_line(&mut stdout, most),
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
