//! Data that a connection's peer has not acknowledged, and when that ends the connection.
//!
//! `TCP_USER_TIMEOUT` ends a connection whose peer acknowledges nothing for that time. The kernel
//! also counts the time while the peer's window is closed, although a peer that reads nothing (its
//! program is stopped, for example) answers every probe. So the limit is lifted while the window is
//! closed; the answers to the probes then tell whether the peer is still there.
//!
//! Runs in the relay, in each session's thread, and in the client. Takes a connection that its
//! caller owns. Must not read, write or close it, and must not wait: it only queries the kernel and
//! sets options.

use std::os::fd::BorrowedFd;
use std::time::Duration;

/// The option for the longest pause between probes and between retransmissions (Linux 6.15). The C
/// library may not define it yet.
#[cfg(target_os = "linux")]
pub(super) const TCP_RTO_MAX_MS: i32 = 44;

/// Watches one connection.
#[derive(Debug, Default)]
pub struct Unsent {
    #[cfg(target_os = "linux")]
    lifted: Option<Lifted>,
}

/// The state of the bytes that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnsentState {
    /// The peer has acknowledged all of them.
    Acknowledged,
    /// Not yet acknowledged; but all were sent, and the peer's system has room for them, whether or
    /// not its program reads.
    Sent,
    /// Some could not be sent yet, or the peer has no room.
    Waiting,
    /// The peer's window is closed, and the peer no longer answers probes.
    Lost,
}

/// Returns the shortest round trip that the kernel has measured on a connection.
#[cfg(target_os = "linux")]
pub fn round_trip(socket: BorrowedFd<'_>) -> Option<Duration> {
    let least = system::state(socket)?.least_round_trip?;
    Some(Duration::from_micros(least.into()))
}

/// Returns `None`: this system does not report it.
#[cfg(not(target_os = "linux"))]
pub fn round_trip(_: BorrowedFd<'_>) -> Option<Duration> {
    None
}

/// A connection's own limit, while it is lifted.
#[cfg(target_os = "linux")]
#[derive(Debug)]
struct Lifted {
    /// Milliseconds.
    limit: u32,
    /// The longest pause between two probes, milliseconds.
    pause: u32,
    /// The longest pause before it was shortened.
    pause_before: Option<u32>,
}

#[cfg(target_os = "linux")]
impl Lifted {
    /// Returns whether a reachable peer would have answered a probe by now: the first one, sent
    /// after the pause before it, and all that were sent within the limit since.
    fn is_lost(&self, state: &system::State) -> bool {
        // With the shortened pauses the result equals the connection's own limit. If a seventh of
        // that is less than the shortest possible pause (a keep-alive interval below 4 s), it is
        // longer: two and a half intervals for an interval of 1 s.
        let answer_within = self.limit.saturating_sub(pause_of(self.limit));
        let pause = state.pause_before_first_unanswered().min(self.pause);
        state.silent_for() >= answer_within.saturating_add(pause)
    }
}

/// Returns the longest allowed pause between probes of a closed window: a seventh of the limit,
/// which is a quarter of the keep-alive interval.
#[cfg(target_os = "linux")]
const fn pause_of(limit: u32) -> u32 {
    limit / 7
}

#[cfg(target_os = "linux")]
impl Unsent {
    /// Checks the connection, and lifts its limit while the peer's window is closed. To be called
    /// from time to time until the peer has acknowledged everything.
    pub fn look(&mut self, socket: BorrowedFd<'_>) -> UnsentState {
        use nix::sys::socket::{getsockopt, setsockopt, sockopt::TcpUserTimeout};
        let Some(state) = system::state(socket) else {
            return UnsentState::Acknowledged;
        };
        match (state.is_stalled(), &self.lifted) {
            (true, None) => {
                let limit = getsockopt(&socket, TcpUserTimeout).unwrap_or(0);
                if limit > 0 && setsockopt(&socket, TcpUserTimeout, &0).is_ok() {
                    let pause_before = system::longest_pause(socket);
                    let pause = system::limit_pauses(socket, pause_of(limit));
                    self.lifted = Some(Lifted {
                        limit,
                        pause,
                        pause_before,
                    });
                }
            }
            (true, Some(lifted)) if lifted.is_lost(&state) => return UnsentState::Lost,
            (false, Some(lifted)) => {
                if setsockopt(&socket, TcpUserTimeout, &lifted.limit).is_ok() {
                    // After a close, the kernel drops a connection with its unsent data once its
                    // pauses have reached the longest pause, so restore that.
                    if let Some(pause) = lifted.pause_before {
                        system::limit_pauses(socket, pause);
                    }
                    self.lifted = None;
                }
            }
            (true, Some(_)) | (false, None) => {}
        }
        if state.is_empty() {
            UnsentState::Acknowledged
        } else if state.not_sent == 0 && !state.is_stalled() {
            UnsentState::Sent
        } else {
            UnsentState::Waiting
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Unsent {
    /// Returns [`UnsentState::Acknowledged`]: there is no such limit on this system.
    pub fn look(&mut self, _: BorrowedFd<'_>) -> UnsentState {
        UnsentState::Acknowledged
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::mem::size_of;
    use std::os::fd::{AsRawFd, BorrowedFd};

    use super::TCP_RTO_MAX_MS;

    /// The range of the option's values; the largest is the default. Milliseconds.
    const PAUSE_LEAST: u32 = 1_000;
    const PAUSE_MOST: u32 = 120_000;

    /// Words of `struct tcp_info` up to `tcpi_snd_wnd`, which the C library's structure may lack.
    const WORDS: usize = 58;
    const RETRANSMISSION_TIMEOUT: usize = 2;
    const UNACKED: usize = 6;
    const LAST_DATA_RECEIVED: usize = 13;
    const LAST_ACK_RECEIVED: usize = 14;
    const NOT_SENT: usize = 36;
    const LEAST_ROUND_TRIP: usize = 37;
    const WINDOW: usize = 57;
    /// Byte offsets in it: unanswered probes, and how often the pause was doubled.
    const PROBES: usize = 3;
    const BACKOFF: usize = 4;

    /// The sending side of a connection.
    #[derive(Debug, Default)]
    pub(super) struct State {
        pub(super) unacknowledged: u32,
        pub(super) not_sent: u32,
        /// `None`: an older kernel does not report it.
        pub(super) window: Option<u32>,
        /// Milliseconds.
        pub(super) since_ack: u32,
        pub(super) since_data: u32,
        /// The pause before the first probe, milliseconds.
        pub(super) first_pause: u32,
        pub(super) unanswered_probes: u8,
        pub(super) doubled: u8,
        /// Microseconds, once measured.
        pub(super) least_round_trip: Option<u32>,
    }

    impl State {
        pub(super) const fn is_empty(&self) -> bool {
            self.unacknowledged == 0 && self.not_sent == 0
        }

        /// Returns whether there is data for which the peer has no room.
        pub(super) fn is_stalled(&self) -> bool {
            !self.is_empty() && (self.unacknowledged == 0 || self.window == Some(0))
        }

        /// Returns how long nothing has come from the peer, milliseconds. The kernel does not
        /// always count a packet with data as an acknowledgement.
        pub(super) fn silent_for(&self) -> u32 {
            self.since_ack.min(self.since_data)
        }

        /// Returns the time from the peer's last answer to the next probe, milliseconds. Answers do
        /// not shorten the pauses again.
        pub(super) fn pause_before_first_unanswered(&self) -> u32 {
            if self.unacknowledged > 0 {
                // Retransmissions take the place of probes, and are counted elsewhere.
                return PAUSE_MOST;
            }
            let doubled = self.doubled.saturating_sub(self.unanswered_probes);
            let pause = u64::from(self.first_pause).checked_shl(doubled.into());
            let pause = pause.and_then(|pause| u32::try_from(pause).ok());
            pause.unwrap_or(PAUSE_MOST).min(PAUSE_MOST)
        }
    }

    /// Limits the pauses between probes, if the system can, to `pause` milliseconds. Returns the
    /// longest pause that is possible now.
    pub(super) fn limit_pauses(socket: BorrowedFd<'_>, pause: u32) -> u32 {
        let pause = pause.clamp(PAUSE_LEAST, PAUSE_MOST);
        let Ok(length) = libc::socklen_t::try_from(size_of::<u32>()) else {
            return PAUSE_MOST;
        };
        // SAFETY: the descriptor is open, and `pause` has the `length` bytes that are read.
        let done = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                TCP_RTO_MAX_MS,
                (&raw const pause).cast(),
                length,
            )
        };
        if done == 0 { pause } else { PAUSE_MOST }
    }

    /// Returns the longest pause that is possible now, milliseconds. `None`: the system has no such
    /// option.
    pub(super) fn longest_pause(socket: BorrowedFd<'_>) -> Option<u32> {
        let mut pause = 0_u32;
        let mut length = libc::socklen_t::try_from(size_of::<u32>()).ok()?;
        // SAFETY: the descriptor is open, and `pause` has room for the `length` bytes that are
        // written.
        let done = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                TCP_RTO_MAX_MS,
                (&raw mut pause).cast(),
                &raw mut length,
            )
        };
        (done == 0).then_some(pause)
    }

    /// Returns the state of a connection. `None`: it is not a TCP connection, or the system does
    /// not report it.
    pub(super) fn state(socket: BorrowedFd<'_>) -> Option<State> {
        let mut words = [0_u32; WORDS];
        let mut length = libc::socklen_t::try_from(size_of::<[u32; WORDS]>()).ok()?;
        // SAFETY: the descriptor is open; `words` has room for `length` bytes, of which the kernel
        // fills at most that many and says how many.
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
        let byte = |at: usize| {
            let word = words.get(at / size_of::<u32>())?;
            word.to_ne_bytes().get(at % size_of::<u32>()).copied()
        };
        Some(State {
            unacknowledged: *words.get(UNACKED)?,
            not_sent: *words.get(NOT_SENT)?,
            window: words.get(WINDOW).copied().filter(|_| told > WINDOW),
            since_ack: *words.get(LAST_ACK_RECEIVED)?,
            since_data: *words.get(LAST_DATA_RECEIVED)?,
            first_pause: words.get(RETRANSMISSION_TIMEOUT)?.div_ceil(1_000),
            unanswered_probes: byte(PROBES)?,
            doubled: byte(BACKOFF)?,
            least_round_trip: words
                .get(LEAST_ROUND_TRIP)
                .copied()
                .filter(|least| told > LEAST_ROUND_TRIP && *least != u32::MAX),
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

    /// A peer that reads nothing is not dead, but the kernel would end its connection.
    #[test]
    fn a_peer_that_reads_nothing_lifts_the_limit_until_it_reads() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut theirs = listener.accept().unwrap().0;
        setsockopt(&ours, TcpUserTimeout, &60_000).unwrap();
        ours.set_nonblocking(true).unwrap();
        let limit = |socket: &TcpStream| getsockopt(socket, TcpUserTimeout).unwrap();
        let pause = system::longest_pause(ours.as_fd());
        let mut unsent = Unsent::default();
        let until = Instant::now() + Duration::from_secs(30);
        let mut sent = 0;
        while limit(&ours) != 0 {
            assert!(Instant::now() < until);
            sent += ours.write(&[0; 65_536]).unwrap_or(0);
            unsent.look(ours.as_fd());
        }
        assert_eq!(unsent.look(ours.as_fd()), UnsentState::Waiting);
        if pause.is_some() {
            assert!(system::longest_pause(ours.as_fd()) < pause);
        }
        let mut block = vec![0; 65_536];
        while sent > 0 {
            sent -= theirs.read(&mut block).unwrap();
        }
        while unsent.look(ours.as_fd()) != UnsentState::Acknowledged {
            assert!(Instant::now() < until);
        }
        assert_eq!(limit(&ours), 60_000);
        // With short pauses the kernel drops what a closed connection has still to send.
        assert_eq!(system::longest_pause(ours.as_fd()), pause);
        // What is not a TCP connection has nothing to wait for.
        let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let outlook = Unsent::default().look(other.as_fd());
        assert_eq!(outlook, UnsentState::Acknowledged);
    }

    #[test]
    fn established_connection_has_a_round_trip_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let theirs = listener.accept().unwrap().0;
        for socket in [&ours, &theirs] {
            let least = round_trip(socket.as_fd()).unwrap();
            assert!(least < Duration::from_secs(1), "{least:?}");
        }
        let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(round_trip(other.as_fd()), None);
    }

    /// Regression: without its limit such a connection stayed open for a quarter of an hour after
    /// the network failed.
    #[test]
    fn a_peer_that_leaves_probes_unanswered_is_lost_in_time() {
        let is_lost = |pause: u32, state: system::State| {
            let limit = 105_000;
            let pause_before = None;
            let lifted = Lifted {
                limit,
                pause,
                pause_before,
            };
            lifted.is_lost(&state)
        };
        // Pauses between probes: 200 ms, doubled this often.
        let stalled = |silent: u32, doubled, unanswered_probes| system::State {
            not_sent: 1,
            since_ack: silent,
            since_data: u32::MAX,
            first_pause: 200,
            doubled,
            unanswered_probes,
            ..system::State::default()
        };
        // With short pauses it is the connection's own limit, less than two intervals of 60 s.
        assert!(!is_lost(15_000, stalled(104_999, 15, 6)));
        assert!(is_lost(15_000, stalled(105_000, 15, 6)));
        // On older kernels the last pause that the peer has answered counts.
        assert!(!is_lost(120_000, stalled(91_599, 9, 6)));
        assert!(is_lost(120_000, stalled(91_600, 9, 6)));
        assert!(!is_lost(120_000, stalled(209_999, 15, 1)));
        assert!(is_lost(120_000, stalled(210_000, 15, 1)));
        // A peer that sends data is reachable, and so is one that answers, even if rarely.
        let since_data = 10_000;
        let sends = stalled(500_000, 15, 0);
        assert!(!is_lost(
            120_000,
            system::State {
                since_data,
                ..sends
            }
        ));
        assert!(!is_lost(120_000, stalled(120_000, 15, 0)));
        // While data is unacknowledged the kernel does not count probes.
        let shrunk = |silent| system::State {
            unacknowledged: 1,
            window: Some(0),
            ..stalled(silent, 0, 0)
        };
        assert!(!is_lost(120_000, shrunk(209_999)));
        assert!(is_lost(120_000, shrunk(210_000)));
    }
}
