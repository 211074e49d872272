//! Local sockets on which any user may send, and safe disposal of what was sent.
//!
//! A message may carry descriptors (SCM_RIGHTS). The process that drops the last copy of a
//! descriptor closes it, also when it closes a socket on which the message was never read. That
//! takes as long as the descriptor's owner likes: a TCP socket with SO_LINGER and unsent data
//! blocks close(2) for hours. So no descriptor is received here. If the kernel can refuse them
//! (SO_PASSRIGHTS, Linux 6.16), the sender gets EPERM. Otherwise each message is checked before it
//! is received, and a socket with unread data is closed by a child of this process: the kernel does
//! not let an exiting process linger.

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;

use super::passing::{Endpoint, Next};

/// Sockets that are still to be closed, each with the user that connected.
pub type Unclosed = Vec<(u32, OwnedFd)>;

/// A listening socket that any user may connect to. Unless the kernel refuses descriptors, only the
/// end of this process closes it: connections that were never accepted may hold descriptors too.
pub struct Listener {
    fd: ManuallyDrop<OwnedFd>,
    /// Whether the kernel refuses descriptors on it.
    refuses: bool,
    unclosed: Rc<RefCell<Unclosed>>,
}

impl Listener {
    /// Takes over a listening socket. `refuses`: the result of [`refuse_descriptors`].
    pub(super) fn new(fd: OwnedFd, refuses: bool) -> Self {
        Self {
            fd: ManuallyDrop::new(fd),
            refuses,
            unclosed: Rc::default(),
        }
    }

    /// Accepts the next connection, nonblocking; `None`: there is none.
    ///
    /// # Errors
    /// No descriptor is left, or the kernel does not report the user.
    pub fn accept(&self) -> io::Result<Option<Caller>> {
        let Some(fd) = super::local::accept(&self.fd)? else {
            return Ok(None);
        };
        let user = super::local::user_of(&fd);
        let caller = Caller {
            fd: ManuallyDrop::new(fd),
            user: *user.as_ref().unwrap_or(&u32::MAX),
            refuses: self.refuses,
            unclosed: Rc::clone(&self.unclosed),
        };
        user.map(|_| Some(caller))
    }

    /// Returns how many sockets are still to be closed by [`close_elsewhere`].
    pub fn unclosed(&self) -> usize {
        self.unclosed.borrow().len()
    }

    /// Takes these sockets.
    pub fn take_unclosed(&self) -> Unclosed {
        std::mem::take(&mut *self.unclosed.borrow_mut())
    }

    /// Keeps sockets that could not be closed yet.
    pub fn keep_unclosed(&self, sockets: Unclosed) {
        self.unclosed.borrow_mut().extend(sockets);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // The kernel closes the remaining ones when this process ends.
        leave_open(self.take_unclosed());
        if self.refuses {
            // SAFETY: taken once, in drop.
            drop(unsafe { ManuallyDrop::take(&mut self.fd) });
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The accepted end of a connection, or this process's end of a channel to a process that runs
/// third-party code ([`pair`]). Dropping it never blocks.
pub struct Caller {
    fd: ManuallyDrop<OwnedFd>,
    user: u32,
    refuses: bool,
    unclosed: Rc<RefCell<Unclosed>>,
}

impl Caller {
    /// Returns the user ID of the process that connected, as reported by the kernel.
    pub const fn user(&self) -> u32 {
        self.user
    }
}

/// Creates both ends of a channel to a process that runs third-party code as this user: such a
/// process may forward what any other process sent it. If data is left unread when this end is
/// dropped, the socket is added to `unclosed`.
///
/// # Errors
/// No descriptors are left.
pub fn pair(user: u32, unclosed: &Rc<RefCell<Unclosed>>) -> nix::Result<(Caller, OwnedFd)> {
    let (ours, theirs) = super::passing::pair()?;
    let refuses = refuse_descriptors(&ours);
    let caller = Caller {
        fd: ManuallyDrop::new(ours),
        user,
        refuses,
        unclosed: Rc::clone(unclosed),
    };
    Ok((caller, theirs))
}

/// Leaves sockets open until this process ends, which closes them without lingering.
pub fn leave_open(sockets: Unclosed) {
    for (_, fd) in sockets {
        let _ = fd.into_raw_fd();
    }
}

#[cfg(test)]
impl Caller {
    /// Creates one without a connection.
    pub(crate) fn of(user: u32) -> Self {
        Self {
            fd: ManuallyDrop::new(std::fs::File::open("/dev/null").unwrap().into()),
            user,
            refuses: true,
            unclosed: Rc::default(),
        }
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Endpoint for Caller {
    fn next(&self) -> Next {
        if self.refuses {
            return Next::Message;
        }
        match peek(self.as_fd(), false) {
            Ok(Peeked { descriptors, .. }) if descriptors => Next::Over,
            Ok(Peeked { length, .. }) if length > 0 => Next::Message,
            Err(Errno::EAGAIN) => Next::Nothing,
            Ok(_) | Err(_) => Next::Over,
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        // SAFETY: taken once, in drop.
        let fd = unsafe { ManuallyDrop::take(&mut self.fd) };
        if self.refuses || is_drained(fd.as_fd()) {
            return;
        }
        self.unclosed.borrow_mut().push((self.user, fd));
    }
}

/// Shuts a socket down and returns whether nothing is left on it to be read.
fn is_drained(socket: BorrowedFd<'_>) -> bool {
    use nix::sys::socket::{setsockopt, sockopt};
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
    // The sender's credentials distinguish an empty message from the end.
    #[cfg(target_os = "linux")]
    if setsockopt(&socket, sockopt::PassCred, &true).is_err() {
        return false;
    }
    // A pending error of the socket is returned once, before the data.
    let peeked = peek(socket, true).or_else(|_| peek(socket, true));
    matches!(
        peeked,
        Ok(Peeked {
            length: 0,
            descriptors: false,
            credentials: false
        })
    )
}

/// What a peek shows of a message, which stays in the queue.
struct Peeked {
    length: usize,
    /// Whether it carries descriptors.
    descriptors: bool,
    credentials: bool,
}

/// Peeks at the next message without consuming it. Without room for descriptors, the kernel creates
/// none and reports that.
fn peek(socket: BorrowedFd<'_>, with_credentials: bool) -> nix::Result<Peeked> {
    let mut byte = [0_u8; 1];
    let mut space = [0_u64; CREDENTIALS.div_ceil(8)];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    // SAFETY: a header of zeros is one that says nothing.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    if with_credentials {
        header.msg_control = space.as_mut_ptr().cast();
        header.msg_controllen = CREDENTIALS as _;
    }
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the header points to buffers that live, with their lengths.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) };
    Ok(Peeked {
        length: usize::try_from(Errno::result(got)?).unwrap_or(0),
        descriptors: header.msg_flags & libc::MSG_CTRUNC != 0,
        credentials: header.msg_controllen != 0,
    })
}

/// Bytes of control data for the sender's credentials and nothing else.
#[cfg(target_os = "linux")]
#[allow(clippy::cast_possible_truncation, reason = "the size of three numbers")]
const CREDENTIALS: usize = {
    // SAFETY: computes a length and reads nothing.
    let space = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) };
    space as usize
};
#[cfg(not(target_os = "linux"))]
const CREDENTIALS: usize = 0;

/// Makes the kernel refuse descriptors that are sent to this socket and to those accepted from it.
/// Returns whether it does.
pub fn refuse_descriptors(socket: impl AsFd) -> bool {
    // The value on all architectures but SPARC and PA-RISC, which have their own.
    #[cfg(all(
        target_os = "linux",
        not(any(target_arch = "sparc", target_arch = "sparc64"))
    ))]
    {
        const SO_PASSRIGHTS: libc::c_int = 83;
        let no: libc::c_int = 0;
        let length = libc::socklen_t::try_from(size_of_val(&no)).unwrap_or_default();
        // SAFETY: the value lives for the call and has this length.
        let set = unsafe {
            libc::setsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PASSRIGHTS,
                (&raw const no).cast(),
                length,
            )
        };
        set == 0
    }
    #[cfg(not(all(
        target_os = "linux",
        not(any(target_arch = "sparc", target_arch = "sparc64"))
    )))]
    {
        let _ = socket;
        false
    }
}

/// How long the child holds its copies after this process has closed its own: longer than any other
/// child needs from its fork to exec, which would otherwise be the last to close them.
static HOLD: libc::timespec = libc::timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Closes sockets without waiting. A child holds copies of them until this process has closed its
/// own, and then exits, which closes them without lingering. It does nothing else, with all signals
/// blocked. Only for a process with one thread.
///
/// # Errors
/// The process or a descriptor could not be created. The sockets are then still open.
pub fn close_elsewhere(sockets: Unclosed) -> Result<Pid, (Errno, Unclosed)> {
    let (wait, go) = match nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC) {
        Ok(pipe) => pipe,
        Err(e) => return Err((e, sockets)),
    };
    let mut kept: Vec<RawFd> = sockets.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    kept.push(wait.as_raw_fd());
    kept.sort_unstable();
    match super::job::fork_quietly() {
        Ok(Some(pid)) => {
            drop(sockets);
            drop(go);
            Ok(pid)
        }
        Ok(None) => hold(&kept, wait.as_raw_fd()),
        Err(e) => Err((e, sockets)),
    }
}

/// Runs the child. `kept` is in ascending order, so that moving a number down never overwrites one
/// that is still needed.
fn hold(kept: &[RawFd], wait: RawFd) -> ! {
    // SAFETY: takes no arguments, and does not fail in a new child.
    unsafe { libc::setsid() };
    let mut next = 3;
    let mut until = wait;
    for fd in kept {
        if *fd != next {
            // SAFETY: duplicates a descriptor of this process onto one of its own numbers.
            unsafe { libc::dup2(*fd, next) };
        }
        if *fd == wait {
            until = next;
        }
        next += 1;
    }
    super::job::close_from(next);
    let mut byte = [0_u8];
    // SAFETY: reads into a valid buffer, until every copy of the other end is closed.
    unsafe { libc::read(until, byte.as_mut_ptr().cast(), 1) };
    // SAFETY: the time lives for the call, and the remaining time is not requested.
    unsafe { libc::nanosleep(&raw const HOLD, std::ptr::null_mut()) };
    // SAFETY: ends the child without running what its parent would run at exit.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
pub(crate) mod tests;
