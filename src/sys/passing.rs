//! Messages with descriptors between our own processes, over a Unix socket
//! that keeps the borders of messages.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

/// Most descriptors in one message: a listener for each address, or what a
/// session needs.
pub const DESCRIPTORS: usize = 16;

/// A connected pair, nonblocking and closed on exec.
///
/// # Errors
/// No descriptors are left.
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)
}

/// Sends one message whole, or nothing.
///
/// # Errors
/// `EAGAIN` when the other side does not read; anything else when it is gone.
pub fn send(to: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control = if raw.is_empty() { &[][..] } else { &rights[..] };
    let parts = [IoSlice::new(message)];
    loop {
        match sendmsg::<()>(
            to.as_raw_fd(),
            &parts,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// A message that came: how many bytes of the buffer it fills, and its
/// descriptors, closed on exec. Zero bytes: the other side is gone.
pub struct Received {
    /// Bytes in the buffer.
    pub length: usize,
    /// The descriptors, in the sender's order.
    pub fds: Vec<OwnedFd>,
    /// The message was longer than the buffer, or had too many descriptors.
    pub truncated: bool,
}

/// Receives one message.
///
/// # Errors
/// `EAGAIN` when there is none and the socket does not block.
pub fn receive(from: BorrowedFd<'_>, buffer: &mut [u8]) -> nix::Result<Received> {
    let mut space = cmsg_space!([RawFd; DESCRIPTORS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = loop {
        match recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            for fd in raw {
                // SAFETY: the kernel has just made this descriptor for us, and
                // nothing else in this process knows its number.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
    }
    let truncated = message
        .flags
        .intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    Ok(Received {
        length: message.bytes,
        fds,
        truncated,
    })
}
