//! What gate and monitor share of an event loop: a channel in it, and its events.
//!
//! A channel is always watched for messages, and for room only while messages wait. An edge for
//! room would otherwise wake its process each time that the other side has read.

use std::os::fd::{AsFd, AsRawFd};

use std::time::{Duration, Instant};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};

use super::Channel;
use crate::fault::Fault;

/// How a channel is watched.
#[derive(Debug)]
pub struct Watch {
    token: Token,
    for_room: bool,
}

impl Watch {
    /// Watches a channel for messages.
    ///
    /// # Errors
    /// The loop takes no more.
    pub fn new(registry: &Registry, channel: &Channel, token: Token) -> Result<Self, Fault> {
        let fd = channel.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(Self {
            token,
            for_room: false,
        })
    }

    /// Watches it for room too, or no more, as messages wait or not.
    ///
    /// # Errors
    /// None that a channel in the loop has.
    pub fn update(&mut self, registry: &Registry, channel: &Channel) -> Result<(), Fault> {
        if channel.is_waiting() == self.for_room {
            return Ok(());
        }
        self.for_room = channel.is_waiting();
        self.renew(registry, channel)
    }

    /// Watches it anew: what is there now is reported again.
    ///
    /// # Errors
    /// None that a channel in the loop has.
    pub fn renew(&mut self, registry: &Registry, channel: &Channel) -> Result<(), Fault> {
        let interest = if self.for_room {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        let fd = channel.as_fd().as_raw_fd();
        registry.reregister(&mut SourceFd(&fd), self.token, interest)?;
        Ok(())
    }
}

/// Most events that are looked at before a deadline is: those of four times the connections
/// that there are by default. A crowd that keeps sending puts no deadline off for ever.
const BEFORE_DEADLINES: usize = 65_536;

/// A loop's events, which come in batches.
///
/// After a stop more may have come than one batch holds, or something that no batch has yet, and
/// a deadline may have passed meanwhile: it must not be looked at before all that has come was.
pub struct Batches {
    events: Events,
    size: usize,
    /// Events of full batches, one after the other.
    taken: usize,
    /// When the last wait began: what had come by then is in its batch.
    waited: Instant,
}

impl Batches {
    /// Batches of at most so many events.
    pub fn of(size: usize) -> Self {
        Self {
            events: Events::with_capacity(size),
            size,
            taken: 0,
            waited: Instant::now(),
        }
    }

    /// Waits for the next batch, for at most so long.
    ///
    /// # Errors
    /// As epoll_wait(2). It was interrupted: nothing has changed.
    pub fn wait(&mut self, poll: &mut Poll, limit: Option<Duration>) -> std::io::Result<()> {
        self.waited = Instant::now();
        poll.poll(&mut self.events, limit)?;
        let is_full = self.events.iter().count() >= self.size;
        let taken = self.taken.saturating_add(self.size);
        self.taken = if is_full && taken < BEFORE_DEADLINES {
            taken
        } else {
            0
        };
        Ok(())
    }

    /// The batch that has come last.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// The time up to which all that has come was in a batch: deadlines until then have passed.
    /// `None`: there may be more than this batch, and they have to wait.
    pub fn heard(&self) -> Option<Instant> {
        (self.taken == 0).then_some(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Only the first batch was looked at before the deadlines were.
    #[test]
    fn all_that_has_come_is_looked_at_before_a_deadline_is() {
        let mut poll = Poll::new().unwrap();
        let pairs: Vec<_> = (0..10).map(|_| UnixStream::pair().unwrap()).collect();
        for (n, (ours, _)) in pairs.iter().enumerate() {
            let fd = ours.as_raw_fd();
            let registry = poll.registry();
            registry
                .register(&mut SourceFd(&fd), Token(n), Interest::WRITABLE)
                .unwrap();
        }
        let mut batches = Batches::of(4);
        let mut seen = Vec::new();
        let mut rounds = 0;
        loop {
            batches.wait(&mut poll, Some(Duration::ZERO)).unwrap();
            seen.extend(batches.iter().map(|e| e.token().0));
            rounds += 1;
            if batches.heard().is_some() {
                break;
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(rounds, 3);
        // Whoever is stopped from here on looks at no deadline by the time after it.
        let before = Instant::now();
        assert!(batches.heard().unwrap() <= before);
        std::thread::yield_now();
        batches
            .wait(&mut poll, Some(Duration::from_millis(1)))
            .unwrap();
        let heard = batches.heard().unwrap();
        assert!(before <= heard && Duration::from_millis(1) <= heard.elapsed());
        // Not for ever: what is always ready has a limit.
        let mut batches = Batches::of(4);
        let mut most = 0;
        loop {
            for (n, (ours, _)) in pairs.iter().enumerate() {
                let fd = ours.as_raw_fd();
                let registry = poll.registry();
                registry
                    .reregister(&mut SourceFd(&fd), Token(n), Interest::WRITABLE)
                    .unwrap();
            }
            batches.wait(&mut poll, Some(Duration::ZERO)).unwrap();
            most += batches.iter().count();
            if batches.heard().is_some() {
                break;
            }
        }
        assert_eq!(most, BEFORE_DEADLINES);
    }
}
