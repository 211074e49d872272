//! Standard input, output and error, used so that none of them can block the others. Runs in the
//! client's pump.
//!
//! Other programs (a shell, a pipeline) share these three descriptors, so they must never be made
//! nonblocking. A pipe or a terminal is opened again through `/proc/self/fd`, which gives us an
//! open file description of our own that may be nonblocking. A socket has calls that do not block,
//! and a file never blocks for long. A pipe that cannot be opened again is polled first and gets so
//! little at a time that it does not block.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, Shutdown, recvmsg, sendmsg, shutdown};
use nix::sys::stat::{Mode, SFlag, fstat, stat};
use nix::sys::uio::{readv, writev};
use nix::unistd::{dup2_stdin, dup2_stdout, isatty};

use crate::protocol::backlog::Backlog;

/// What a pipe that reports room takes without blocking (POSIX's PIPE_BUF on Linux, bytes).
const SURE: usize = 4096;

/// Parts that one call may gather (POSIX's IOV_MAX on Linux).
const PARTS: usize = 1024;

/// How a descriptor is used without blocking.
enum StdioMode {
    /// A file, or a device that is no terminal: it does not block for long.
    Plain,
    /// An open file description of our own for the same pipe or terminal, nonblocking.
    Own(OwnedFd),
    /// A socket: each call says that it must not block.
    Socket,
    /// Poll first, then a little at a time.
    Shared,
}

impl StdioMode {
    fn of(fd: BorrowedFd<'_>, access: OFlag) -> Self {
        let Ok(stat) = fstat(fd) else {
            return Self::Shared;
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
        if !is_open_for(fd, access) {
            // Opening it again would give access that we were not given. Each use must fail
            // instead.
            return Self::Plain;
        }
        if kind == SFlag::S_IFSOCK {
            return Self::Socket;
        }
        let terminal = kind == SFlag::S_IFCHR && isatty(fd) == Ok(true);
        if kind != SFlag::S_IFIFO && !terminal {
            return Self::Plain;
        }
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = access | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        open(path.as_str(), flags, Mode::empty()).map_or(Self::Shared, Self::Own)
    }
}

/// Whether a descriptor was opened for this access, reading or writing.
fn is_open_for(fd: BorrowedFd<'_>, access: OFlag) -> bool {
    let Ok(flags) = fcntl(fd, FcntlArg::F_GETFL) else {
        return false;
    };
    let mode = OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE;
    mode == OFlag::O_RDWR || mode == access
}

/// Whether an error shows that a descriptor cannot be read or written at all: it is not open for
/// this access, is a folder, or is a terminal that is gone. Any other error, such as a disk error,
/// or the same error on another kind of descriptor, is a failure: part of the data would be lost.
pub fn is_of_the_stream(fd: BorrowedFd<'_>, access: OFlag, e: &io::Error) -> bool {
    match e.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EBADF) => !is_open_for(fd, access),
        Some(Errno::EISDIR) => is_a(fd, SFlag::S_IFDIR),
        Some(Errno::EIO) => is_a(fd, SFlag::S_IFCHR),
        _ => false,
    }
}

fn is_a(fd: BorrowedFd<'_>, kind: SFlag) -> bool {
    fstat(fd).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == kind)
}

/// Standard input.
pub struct Input {
    stdin: io::Stdin,
    mode: Option<StdioMode>,
}

impl Default for Input {
    /// Standard input, not used yet.
    fn default() -> Self {
        Self {
            stdin: io::stdin(),
            mode: None,
        }
    }
}

impl Input {
    /// Reads once into these parts, without blocking; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` if no data is there, or the system's error.
    pub fn read(&mut self, parts: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let fd = self.stdin.as_fd();
        let mode = self
            .mode
            .get_or_insert_with(|| StdioMode::of(fd, OFlag::O_RDONLY));
        let read = match mode {
            StdioMode::Plain => readv(fd, parts),
            StdioMode::Own(own) => readv(own, parts),
            StdioMode::Socket => {
                recvmsg::<()>(fd.as_raw_fd(), parts, None, MsgFlags::MSG_DONTWAIT).map(|m| m.bytes)
            }
            StdioMode::Shared if !is_ready(fd, PollFlags::POLLIN) => Err(Errno::EAGAIN),
            StdioMode::Shared => readv(fd, parts),
        };
        match read {
            // A terminal that this process may not read now counts as ended.
            Err(Errno::EIO) if isatty(fd) == Ok(true) => Ok(0),
            // As nohup leaves it: there never was an input.
            Err(Errno::EBADF) if is_null(fd) => Ok(0),
            other => other.map_err(io::Error::from),
        }
    }

    /// Whether it was opened for reading. If not, a poll of a pipe reports nothing.
    pub fn is_readable(&self) -> bool {
        is_open_for(self.stdin.as_fd(), OFlag::O_RDONLY)
    }

    /// Closes standard input, so that its writer learns that it is no longer read.
    pub fn release(self) {
        if let Ok(null) = open(
            "/dev/null",
            OFlag::O_RDONLY | OFlag::O_CLOEXEC,
            Mode::empty(),
        ) {
            let _ = dup2_stdin(null);
        }
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stdin.as_fd()
    }
}

/// Selects an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Standard output or standard error, with the bytes that wait for its reader.
pub struct Output {
    which: Which,
    stdout: io::Stdout,
    stderr: io::Stderr,
    mode: Option<StdioMode>,
    is_connection: bool,
    backlog: Backlog,
}

impl Output {
    /// Returns an output that is not used yet.
    pub fn new(which: Which) -> Self {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        Self {
            which,
            stdout,
            stderr,
            mode: None,
            is_connection: false,
            backlog: Backlog::new(),
        }
    }

    /// Notes that standard output is a connection that only this process has.
    pub const fn own_connection(&mut self) {
        self.is_connection = true;
    }

    /// Whether bytes wait for the reader.
    pub const fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// The number of bytes that wait for the reader.
    pub const fn backlog(&self) -> usize {
        self.backlog.len()
    }

    /// Drops the waiting bytes: the reader is gone.
    pub fn forget(&mut self) {
        self.backlog = Backlog::new();
    }

    /// Writes these parts as far as the reader takes them now. The rest waits, after the bytes that
    /// already wait. Returns the number of bytes written.
    ///
    /// # Errors
    /// The output failed; `BrokenPipe` if its reader is gone.
    pub fn put(&mut self, parts: &mut [IoSlice<'_>]) -> io::Result<usize> {
        let mut rest = parts;
        let mut written = 0_usize;
        if self.backlog.is_empty() {
            written = self.write_all(&mut rest)?;
        }
        for part in rest.iter() {
            self.backlog.push(part);
        }
        Ok(written)
    }

    /// Writes the waiting bytes as far as the reader takes them now. Returns the number of bytes
    /// written.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub fn drain(&mut self) -> io::Result<usize> {
        let backlog = std::mem::take(&mut self.backlog);
        let mut parts = backlog.parts();
        let written = self.write_all(&mut parts.as_mut_slice());
        drop(parts);
        self.backlog = backlog;
        let written = written?;
        self.backlog.take(written);
        if self.backlog.is_empty() {
            self.backlog.free_unused();
        }
        Ok(written)
    }

    /// Writes until the reader takes no more; `parts` are what is left.
    fn write_all(&mut self, parts: &mut &mut [IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0_usize;
        IoSlice::advance_slices(parts, 0);
        while !parts.is_empty() {
            let batch = parts.get(..PARTS.min(parts.len())).unwrap_or_default();
            let asked: usize = batch.iter().map(|p| p.len()).sum();
            match self.write_once(batch) {
                Ok(n) => {
                    IoSlice::advance_slices(parts, n);
                    written = written.saturating_add(n);
                    if n < asked && !matches!(self.mode, Some(StdioMode::Plain)) {
                        break;
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(written)
    }

    fn write_once(&mut self, parts: &[IoSlice<'_>]) -> nix::Result<usize> {
        let fd = match self.which {
            Which::Out => self.stdout.as_fd(),
            Which::Err => self.stderr.as_fd(),
        };
        let mode = self
            .mode
            .get_or_insert_with(|| StdioMode::of(fd, OFlag::O_WRONLY));
        match mode {
            StdioMode::Plain => writev(fd, parts),
            StdioMode::Own(own) => writev(own, parts),
            StdioMode::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                sendmsg::<()>(fd.as_raw_fd(), parts, &[], flags, None)
            }
            StdioMode::Shared if !is_ready(fd, PollFlags::POLLOUT) => Err(Errno::EAGAIN),
            StdioMode::Shared => {
                let first = parts.iter().find(|p| !p.is_empty()).map_or(&[][..], |p| p);
                nix::unistd::write(fd, first.get(..SURE).unwrap_or(first))
            }
        }
    }

    /// Closes standard output, so that its reader sees the end while the command continues.
    /// Standard error stays open for our own messages.
    pub fn release(&mut self) {
        self.mode = Some(StdioMode::Plain);
        if self.which == Which::Err {
            return;
        }
        if self.is_connection {
            // Standard input still holds it open. This fails if the peer has closed it already.
            let _ = shutdown(self.stdout.as_fd().as_raw_fd(), Shutdown::Write);
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        if let Ok(null) = open("/dev/null", flags, Mode::empty()) {
            let _ = dup2_stdout(null);
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.which {
            Which::Out => self.stdout.as_fd(),
            Which::Err => self.stderr.as_fd(),
        }
    }
}

/// Whether it is `/dev/null`.
fn is_null(fd: BorrowedFd<'_>) -> bool {
    match (fstat(fd), stat("/dev/null")) {
        (Ok(ours), Ok(null)) => ours.st_rdev == null.st_rdev && ours.st_mode == null.st_mode,
        _ => false,
    }
}

fn is_ready(fd: BorrowedFd<'_>, events: PollFlags) -> bool {
    poll(&mut [PollFd::new(fd, events)], PollTimeout::ZERO).is_ok_and(|n| n > 0)
}
