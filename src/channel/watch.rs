//! A channel in an event loop: always watched for messages, and for room only
//! while messages wait. An edge for room would otherwise wake its process each
//! time that the other side has read.

use std::os::fd::{AsFd, AsRawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

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
