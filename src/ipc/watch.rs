//! What the event loops of gate and monitor share: a watched channel, and batches of events.
//!
//! A channel is always watched for messages, but for room only while messages are queued. Otherwise
//! an edge for room would wake the process each time that the other side has read.

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
    /// The event loop takes no more descriptors.
    pub fn new(registry: &Registry, channel: &Channel, token: Token) -> Result<Self, Fault> {
        let fd = channel.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        Ok(Self {
            token,
            for_room: false,
        })
    }

    /// Starts or stops watching the channel for room, depending on whether messages are queued.
    ///
    /// # Errors
    /// None for a channel that the event loop watches already.
    pub fn update(&mut self, registry: &Registry, channel: &Channel) -> Result<(), Fault> {
        if channel.is_waiting() == self.for_room {
            return Ok(());
        }
        self.for_room = channel.is_waiting();
        self.renew(registry, channel)
    }

    /// Registers the channel again, so that what is there now is reported again.
    ///
    /// # Errors
    /// None for a channel that the event loop watches already.
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

/// Most events that are handled before deadlines are: those of four times the default number of
/// connections. Connections that keep sending must not postpone deadlines for ever.
const BEFORE_DEADLINES: usize = 65_536;

/// The events of an event loop, in batches.
///
/// After the process was stopped, more events may have arrived than one batch holds, or events that
/// no batch has yet, and a deadline may have passed. All events that have arrived must be handled
/// before a deadline is.
pub struct Batches {
    events: Events,
    size: usize,
    /// Capacity of the full batches taken in a row.
    taken: usize,
    /// When the last wait began: events from before are in its batch.
    waited: Instant,
}

impl Batches {
    /// Returns batches of at most this many events.
    pub fn of(size: usize) -> Self {
        Self {
            events: Events::with_capacity(size),
            size,
            taken: 0,
            waited: Instant::now(),
        }
    }

    /// Waits for the next batch, for at most this long.
    ///
    /// # Errors
    /// As epoll_wait(2). After an interrupted wait nothing has changed.
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

    /// Returns the events of the last batch.
    pub fn iter(&self) -> impl Iterator<Item = &Event> {
        self.events.iter()
    }

    /// Returns the time up to which all events were in a batch: earlier deadlines have passed.
    /// Returns `None` if more events may follow this batch: deadlines have to wait.
    pub fn heard(&self) -> Option<Instant> {
        (self.taken == 0).then_some(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Regression test: only the first batch was handled before the deadlines.
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
        // If the process is stopped from here on, it does not use the time after that for
        // deadlines.
        let before = Instant::now();
        assert!(batches.heard().unwrap() <= before);
        std::thread::yield_now();
        batches
            .wait(&mut poll, Some(Duration::from_millis(1)))
            .unwrap();
        let heard = batches.heard().unwrap();
        assert!(before <= heard && Duration::from_millis(1) <= heard.elapsed());
        // The postponement is bounded, even if descriptors are always ready.
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
