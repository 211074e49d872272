//! Tests with lingering sockets, sent to a socket that receives none.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::wait::{WaitStatus, waitpid};

use super::*;
use crate::sys::{local, passing};

/// Longer than any test waits for an operation that must not block.
pub(crate) const LINGER: Duration = Duration::from_secs(20);

/// Returns a connection whose close would take [`LINGER`], and its other end.
pub(crate) fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    setsockopt(&listener, sockopt::RcvBuf, &2048).unwrap();
    let mut socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (other, _) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    while socket.write(&[0; 65_536]).is_ok() {}
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: i32::try_from(LINGER.as_secs()).unwrap(),
    };
    setsockopt(&socket, sockopt::Linger, &linger).unwrap();
    (socket, other)
}

/// Makes a socket accept descriptors, as on a kernel without SO_PASSRIGHTS.
fn accept_descriptors(socket: &impl AsRawFd) {
    let yes: libc::c_int = 1;
    // SAFETY: sets an integer of this length.
    unsafe {
        let fd = socket.as_raw_fd();
        libc::setsockopt(fd, libc::SOL_SOCKET, 83, (&raw const yes).cast(), 4);
    }
}

/// Returns a channel's ends as on a kernel without SO_PASSRIGHTS.
pub(crate) fn accepting_pair(unclosed: &Rc<RefCell<Unclosed>>) -> (Caller, OwnedFd) {
    let (mut ours, theirs) = pair(7, unclosed).unwrap();
    accept_descriptors(&*ours.fd);
    ours.refuses = false;
    (ours, theirs)
}

/// Returns a listening socket as on a kernel without SO_PASSRIGHTS.
fn listener(name: &str) -> (Listener, PathBuf) {
    let name = format!("cos-untrusted-{name}-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut listener = local::listener(&path, 0o600).unwrap();
    accept_descriptors(&listener);
    listener.refuses = false;
    (listener, path)
}

/// Connects to it, and returns both ends.
fn call((listener, path): &(Listener, PathBuf)) -> (OwnedFd, Caller) {
    let call = local::call(path, LINGER).unwrap();
    (call, listener.accept().unwrap().unwrap())
}

#[test]
fn what_carries_descriptors_is_not_received_and_closed_by_a_child() {
    let at = listener("carries");
    let begun = Instant::now();
    // Unread; found by the check; after one that was read; empty.
    for words in [&[&b"x"[..]][..], &[b"x"], &[b"first", b"x"], &[b""]] {
        let (socket, mut other) = lingering();
        let (call, caller) = call(&at);
        let (last, before) = words.split_last().unwrap();
        for words in before {
            passing::send(call.as_fd(), words, &[]).unwrap();
        }
        passing::send(call.as_fd(), last, &[socket.as_fd()]).unwrap();
        drop((socket, call));
        for _ in before {
            assert_eq!(caller.next(), Next::Message);
            passing::receive(caller.as_fd(), &mut [0; 16]).unwrap();
        }
        assert_eq!(caller.next(), Next::Over);
        drop(caller);
        assert_eq!(at.0.unclosed(), 1);
        let pid = close_elsewhere(at.0.take_unclosed()).unwrap();
        assert_eq!(waitpid(pid, None), Ok(WaitStatus::Exited(pid, 0)));
        // The socket is closed, and the data sent on it arrives.
        let mut bytes = Vec::new();
        other.read_to_end(&mut bytes).unwrap();
        assert!(!bytes.is_empty());
    }
    assert!(begun.elapsed() < LINGER);
    std::fs::remove_file(&at.1).unwrap();
}

#[test]
fn an_honest_call_costs_no_child() {
    let at = listener("honest");
    let (call_, caller) = call(&at);
    assert_eq!(caller.next(), Next::Nothing);
    passing::send(call_.as_fd(), b"question", &[]).unwrap();
    assert_eq!(caller.next(), Next::Message);
    passing::receive(caller.as_fd(), &mut [0; 16]).unwrap();
    passing::send(caller.as_fd(), b"answer", &[]).unwrap();
    drop(caller);
    let (call_, caller) = call(&at);
    drop(call_);
    assert_eq!(caller.next(), Next::Over);
    drop(caller);
    assert_eq!(at.0.unclosed(), 0);
    std::fs::remove_file(&at.1).unwrap();
}

#[test]
fn a_kernel_that_can_refuses_descriptors() {
    let path = std::env::temp_dir().join(format!("cos-refuses-{}", std::process::id()));
    let listener = local::listener(&path, 0o600).unwrap();
    let call = local::call(&path, LINGER).unwrap();
    let (any, _) = UnixStream::pair().unwrap();
    let sent = passing::send(call.as_fd(), b"x", &[any.as_fd()]);
    if listener.refuses {
        assert_eq!(sent, Err(Errno::EPERM));
    } else {
        assert_eq!(sent, Ok(()));
        let caller = listener.accept().unwrap().unwrap();
        assert_eq!(caller.next(), Next::Over);
    }
    std::fs::remove_file(&path).unwrap();
}
