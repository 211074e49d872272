//! Messages with descriptors between processes of this program, over a Unix socket that keeps
//! message boundaries.

use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};

/// The most descriptors in one message: a part of the listeners, or what a session needs.
pub const DESCRIPTORS: usize = 16;

/// Creates a connected pair, nonblocking and closed on exec.
///
/// # Errors
/// No descriptors are left.
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
}

/// What is pending on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A message that may be received, or a state that receiving reports.
    Message,
    /// Nothing at the moment.
    Nothing,
    /// The end, or a message that must not be received.
    Over,
}

/// One end of a socket that keeps message boundaries.
pub trait Endpoint: AsFd {
    /// Returns what is pending. Messages from this program's own processes are trusted, so by
    /// default nothing is checked before it is received.
    fn next(&self) -> Next {
        Next::Message
    }
}

impl Endpoint for OwnedFd {}

/// How often a call is repeated at once while the system is short of memory.
const AGAIN: u32 = 8;

/// Returns whether an error says that the system is temporarily short of memory or of descriptors
/// in flight, and nothing about the peer.
pub const fn is_shortage(e: Errno) -> bool {
    matches!(e, Errno::ENOMEM | Errno::ENOBUFS | Errno::ETOOMANYREFS)
}

/// Repeats a call if a signal interrupted it or, a limited number of times, if the system is short
/// of memory.
fn persistently<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    let mut short = 0;
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            Err(e) if is_shortage(e) && short < AGAIN => short += 1,
            other => return other,
        }
    }
}

/// Sends one message as a whole, or nothing.
///
/// # Errors
/// `EAGAIN` if the peer does not read; an error for which [`is_shortage`] holds if the system
/// cannot take the message now; any other error if the peer is gone.
pub fn send(to: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(message)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    persistently(|| sendmsg::<()>(to.as_raw_fd(), &parts, control, flags, None)).map(drop)
}

/// A received message: its length in the buffer, and its descriptors, closed on exec. Zero bytes:
/// the peer is gone.
pub struct Received {
    /// Bytes in the buffer.
    pub length: usize,
    /// The descriptors, in the sender's order. Empty if not all of them could be received: there
    /// were too many, or this process has no descriptor left.
    pub fds: Vec<OwnedFd>,
    /// The message was longer than the buffer.
    pub truncated: bool,
}

/// Receives one message.
///
/// # Errors
/// `EAGAIN` if there is none and the socket does not block.
pub fn receive(from: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<Received> {
    let mut space = [0_u64; SPACE / 8];
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: a header of zeros is one that says nothing.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = space.as_mut_ptr().cast();
    header.msg_controllen = SPACE as _;
    let length = persistently(|| {
        let flags = libc::MSG_CMSG_CLOEXEC;
        // SAFETY: the header points to buffers that live, with their lengths.
        Errno::result(unsafe { libc::recvmsg(from.as_raw_fd(), &raw mut header, flags) })
    })?;
    let length = usize::try_from(length).unwrap_or(0);
    // All descriptors are taken before any check, so that none is left open.
    let mut fds = descriptors(&header);
    if header.msg_flags & libc::MSG_CTRUNC != 0 {
        fds.clear();
    }
    Ok(Received {
        length,
        fds,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
    })
}

/// Bytes of control data for [`DESCRIPTORS`].
const SPACE: usize = 16 + DESCRIPTORS * size_of::<RawFd>();

/// Takes the descriptors that the kernel has just created, even if it could not create all of them:
/// nix would leave those open.
fn descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut fds = Vec::new();
    // SAFETY: recvmsg(2) has filled the header in; also for the calls below.
    let mut at = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: null, or a whole control message in the buffer.
    while let Some(message) = unsafe { at.as_ref() } {
        // SAFETY: computes a length and reads nothing.
        let head = unsafe { libc::CMSG_LEN(0) } as usize;
        #[allow(
            clippy::unnecessary_cast,
            reason = "it has 32 bits in other C libraries"
        )]
        let bytes = (message.cmsg_len as usize).saturating_sub(head);
        if message.cmsg_level == libc::SOL_SOCKET && message.cmsg_type == libc::SCM_RIGHTS {
            // SAFETY: the address of the data of a whole control message.
            let data = unsafe { libc::CMSG_DATA(at) }.cast::<RawFd>();
            for i in 0..bytes / size_of::<RawFd>() {
                // SAFETY: inside the bytes that the message says it has.
                let place = unsafe { data.add(i) };
                // SAFETY: the kernel has written a number there, aligned or not.
                let fd = unsafe { place.read_unaligned() };
                // SAFETY: the kernel has just created this descriptor, and nothing else in this
                // process knows its number.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        // SAFETY: as above.
        at = unsafe { libc::CMSG_NXTHDR(header, at) };
    }
    fds
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    /// A message with more descriptors than allowed arrives without any, and none stays open.
    #[test]
    fn a_message_with_too_many_descriptors_leaves_none_behind() {
        let (a, b) = pair().unwrap();
        let many = vec![a.as_fd(); DESCRIPTORS + 4];
        let mut buffer = [0; 16];
        // Other tests of this program open files at the same time: the bound distinguishes them
        // from a leak of 16 each time.
        let before = open();
        for _ in 0..100 {
            send(a.as_fd(), b"x", &many).unwrap();
            let got = receive(b.as_fd(), &mut buffer).unwrap();
            assert_eq!((got.length, got.fds.len(), got.truncated), (1, 0, false));
        }
        assert!(open() < before + 200);
        send(a.as_fd(), b"x", &many[..DESCRIPTORS]).unwrap();
        assert_eq!(
            receive(b.as_fd(), &mut buffer).unwrap().fds.len(),
            DESCRIPTORS
        );
        send(a.as_fd(), &[1; 17], &[]).unwrap();
        assert!(receive(b.as_fd(), &mut buffer).unwrap().truncated);
    }
}
