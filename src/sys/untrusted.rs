//! Sockets of this machine on which any user may send, and how to be rid of what was sent.
//!
//! A message may carry descriptors (SCM_RIGHTS). Whichever process drops the last copy of one
//! closes it, also by closing a socket on which it was never read, and that takes as long as
//! its owner likes: a TCP socket with SO_LINGER and unsent data holds close(2) up for hours.
//! So no descriptor is received here. Where the kernel can refuse them (SO_PASSRIGHTS, Linux
//! 6.16) the sender gets EPERM. Elsewhere each message is looked at before it is received, and
//! a socket with anything unread is closed by a child of this process: the kernel lets no
//! process linger that is ending.

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::Pid;

use super::passing::{Endpoint, Next};

/// What has still to be closed, with the users who have called there.
pub type Unclosed = Vec<(u32, OwnedFd)>;

/// A listening socket that any user may call. It is closed by the end of this process alone:
/// calls that were never taken may hold descriptors too.
pub struct Listener {
    fd: ManuallyDrop<OwnedFd>,
    /// Whether the kernel refuses descriptors there.
    refuses: bool,
    unclosed: Rc<RefCell<Unclosed>>,
}

impl Listener {
    /// Takes over a listening socket, on which [`refuse_descriptors`] has said this.
    pub(super) fn new(fd: OwnedFd, refuses: bool) -> Self {
        Self {
            fd: ManuallyDrop::new(fd),
            refuses,
            unclosed: Rc::default(),
        }
    }

    /// Takes the next call, nonblocking; `None`: there is none.
    ///
    /// # Errors
    /// No descriptor is left, or the kernel does not say who calls.
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

    /// How many sockets have still to be closed by [`close_elsewhere`].
    pub fn unclosed(&self) -> usize {
        self.unclosed.borrow().len()
    }

    /// Takes those sockets.
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
        // What is left here the kernel closes when this process ends.
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

/// The accepted end of a call, or our end of a channel to a process that runs the code of
/// others ([`pair`]). Dropping it never blocks.
pub struct Caller {
    fd: ManuallyDrop<OwnedFd>,
    user: u32,
    refuses: bool,
    unclosed: Rc<RefCell<Unclosed>>,
}

impl Caller {
    /// The user number of the process that called, by the kernel's word.
    pub const fn user(&self) -> u32 {
        self.user
    }
}

/// Makes both ends of a channel to a process that runs the code of others, as this user: it
/// may pass on what it was sent by anybody. What was left unread at ours is among `unclosed`
/// when that is dropped.
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
    /// One that has not called anywhere.
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
    // The sender's credentials tell an empty message from the end.
    #[cfg(target_os = "linux")]
    if setsockopt(&socket, sockopt::PassCred, &true).is_err() {
        return false;
    }
    // An error of the socket comes before what waits there, once.
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

/// What is seen of a message that stays where it is.
struct Peeked {
    length: usize,
    /// It carries descriptors.
    descriptors: bool,
    credentials: bool,
}

/// Looks at the next message: nothing of it is taken. Where there is no room for descriptors
/// the kernel makes none and says so.
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
    // SAFETY: a sum, nothing is read.
    let space = unsafe { libc::CMSG_SPACE(size_of::<libc::ucred>() as u32) };
    space as usize
};
#[cfg(not(target_os = "linux"))]
const CREDENTIALS: usize = 0;

/// Has the kernel refuse descriptors that are sent to this socket and to those accepted from
/// it. Returns whether it does.
pub fn refuse_descriptors(socket: impl AsFd) -> bool {
    // The number of all but SPARC and PA-RISC, which have their own.
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

/// How long the child holds its copies after this process has closed its own: longer than
/// any other child needs from its fork to its program, which would else be the last to close.
static HOLD: libc::timespec = libc::timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Closes sockets without waiting: a child has copies of them until this process has closed
/// its own, and then ends, which closes them without lingering. It runs nothing but that, all
/// signals blocked. Only for a process with one thread.
///
/// # Errors
/// No process or descriptor was to be had. Then the sockets are still open.
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

/// The child's life. `kept` is in ascending order, so that each number moves down onto none
/// that is still needed.
fn hold(kept: &[RawFd], wait: RawFd) -> ! {
    // SAFETY: takes nothing, and fails for no child that was just made.
    unsafe { libc::setsid() };
    let mut next = 3;
    let mut until = wait;
    for fd in kept {
        if *fd != next {
            // SAFETY: duplicates a descriptor of this process onto a number of its own.
            unsafe { libc::dup2(*fd, next) };
        }
        if *fd == wait {
            until = next;
        }
        next += 1;
    }
    super::job::close_from(next);
    let mut byte = [0_u8];
    // SAFETY: reads into a buffer that lives, until every copy of the other end is closed.
    unsafe { libc::read(until, byte.as_mut_ptr().cast(), 1) };
    // SAFETY: the time lives for the call, and what is left of it is not asked for.
    unsafe { libc::nanosleep(&raw const HOLD, std::ptr::null_mut()) };
    // SAFETY: ends the child without running what its parent would run at exit.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
pub(crate) mod tests;
