//! What a connection's peer has not acknowledged, and when that ends the connection.
//!
//! `TCP_USER_TIMEOUT` ends a connection whose peer acknowledges nothing for so long. The
//! system counts the time of a closed window in, in which a peer that reads nothing (its
//! program is stopped, say) answers every probe: while it is closed, the limit must not
//! hold. Run by the relay and by the client.

use std::os::fd::BorrowedFd;

/// Watches one connection.
#[derive(Debug, Default)]
pub struct Unsent {
    /// The connection's own limit, while it is lifted.
    #[cfg(target_os = "linux")]
    lifted: Option<u32>,
}

#[cfg(target_os = "linux")]
impl Unsent {
    /// Looks at the connection, and lifts its limit while the peer's window is closed. To
    /// be called now and then until the peer has acknowledged everything: whether it has.
    pub fn look(&mut self, socket: BorrowedFd<'_>) -> bool {
        use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpUserTimeout};
        let Some(state) = system::state(socket) else {
            return true;
        };
        match (state.is_stalled(), self.lifted) {
            (true, None) => {
                let limit = getsockopt(&socket, TcpUserTimeout).unwrap_or(0);
                if limit > 0 && setsockopt(&socket, TcpUserTimeout, &0).is_ok() {
                    self.lifted = Some(limit);
                }
            }
            (false, Some(limit)) => {
                if setsockopt(&socket, TcpUserTimeout, &limit).is_ok() {
                    self.lifted = None;
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
        state.is_empty()
    }
}

#[cfg(not(target_os = "linux"))]
impl Unsent {
    /// There is no such limit here.
    pub fn look(&mut self, _: BorrowedFd<'_>) -> bool {
        true
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::mem::size_of;
    use std::os::fd::{AsRawFd, BorrowedFd};

    /// Words of `struct tcp_info` up to `tcpi_snd_wnd`, which the C library's may lack.
    const WORDS: usize = 58;
    const UNACKED: usize = 6;
    const NOT_SENT: usize = 36;
    const WINDOW: usize = 57;

    /// A connection's sending side.
    pub(super) struct State {
        unacknowledged: u32,
        not_sent: u32,
        /// Older systems do not tell it.
        window: Option<u32>,
    }

    impl State {
        pub(super) const fn is_empty(&self) -> bool {
            self.unacknowledged == 0 && self.not_sent == 0
        }

        /// Data waits that the peer has no room for.
        pub(super) fn is_stalled(&self) -> bool {
            !self.is_empty() && (self.unacknowledged == 0 || self.window == Some(0))
        }
    }

    /// `None`: it is no TCP connection, or the system does not tell.
    pub(super) fn state(socket: BorrowedFd<'_>) -> Option<State> {
        let mut words = [0_u32; WORDS];
        let mut length = libc::socklen_t::try_from(size_of::<[u32; WORDS]>()).ok()?;
        // SAFETY: the descriptor is open; `words` has room for `length` bytes, of which the
        // kernel fills at most so many and says how many.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                words.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let told = usize::try_from(length).ok()? / size_of::<u32>();
        if done != 0 || told <= NOT_SENT {
            return None;
        }
        Some(State {
            unacknowledged: *words.get(UNACKED)?,
            not_sent: *words.get(NOT_SENT)?,
            window: words.get(WINDOW).copied().filter(|_| told > WINDOW),
        })
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::{Duration, Instant};

    use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpUserTimeout};

    use super::*;

    /// A peer that reads nothing is no dead one: the system would end its connection.
    #[test]
    fn a_peer_that_reads_nothing_lifts_the_limit_until_it_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut theirs = listener.accept().unwrap().0;
        setsockopt(&ours, TcpUserTimeout, &60_000).unwrap();
        ours.set_nonblocking(true).unwrap();
        let limit = |socket: &TcpStream| getsockopt(socket, TcpUserTimeout).unwrap();
        let mut unsent = Unsent::default();
        let until = Instant::now() + Duration::from_secs(30);
        let mut sent = 0;
        while limit(&ours) != 0 {
            assert!(Instant::now() < until);
            sent += ours.write(&[0; 65_536]).unwrap_or(0);
            unsent.look(ours.as_fd());
        }
        assert!(!unsent.look(ours.as_fd()));
        let mut block = vec![0; 65_536];
        while sent > 0 {
            sent -= theirs.read(&mut block).unwrap();
        }
        while !unsent.look(ours.as_fd()) {
            assert!(Instant::now() < until);
        }
        assert_eq!(limit(&ours), 60_000);
        // What is no TCP connection has nothing to wait for.
        let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Unsent::default().look(other.as_fd()));
    }
}
