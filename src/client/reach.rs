//! How a host is reached: by an address of its own, or through other hosts. Runs in the client for
//! a command.

use std::net::SocketAddr;

use super::call::Call;
use super::dial::{Dialed, Dialing, Times};
use super::jump::Jumping;
use super::messages::Reporter;
use super::route::Route;
use super::source;
use crate::fault::Fault;

/// What is needed to connect, once or several times.
pub(super) struct Reach<'a> {
    call: &'a Call,
    route: &'a Route,
    addresses: Vec<SocketAddr>,
    sources: Vec<SocketAddr>,
}

/// A connection that is being made.
pub(super) enum Reaching<'a> {
    /// To the host itself.
    Directly(Dialing<'a>),
    /// Through other hosts.
    Through(Box<Jumping>),
}

impl<'a> Reach<'a> {
    /// Returns how a call reaches its host.
    ///
    /// # Errors
    /// The host's name does not resolve, or there is no such source address.
    pub(super) fn of(call: &'a Call, route: &'a Route) -> Result<Self, Fault> {
        let (mut addresses, mut sources) = (Vec::new(), Vec::new());
        // With `-J` the last host in between resolves the name: perhaps only it can.
        if call.jumps.is_empty() {
            sources = source::addresses(&call.source)?;
            addresses = route.addresses(call)?;
        }
        Ok(Self {
            call,
            route,
            addresses,
            sources,
        })
    }

    /// Starts to connect.
    ///
    /// # Errors
    /// The program for the hosts in between cannot be started.
    pub(super) fn begin(&self, reporter: &Reporter) -> Result<Reaching<'_>, Fault> {
        let times = Times::of(self.call);
        if self.call.jumps.is_empty() {
            let dialing = Dialing::begin_from(&self.addresses, &self.sources, times);
            reporter.step(|| format!("connecting to {:?}", self.addresses));
            return Ok(Reaching::Directly(dialing));
        }
        let jumping = Jumping::begin(self.call, self.route)?;
        reporter.step(|| format!("connecting to {}", jumping.peer()));
        Ok(Reaching::Through(Box::new(jumping)))
    }
}

impl Reaching<'_> {
    /// Sends the Hello if the connection is already established.
    pub(super) fn greet(&mut self, hello: &[u8]) {
        if let Self::Directly(dialing) = self {
            dialing.greet(hello);
        }
    }

    /// Waits until the connection is established, and sends the Hello.
    ///
    /// # Errors
    /// The connection fails.
    pub(super) fn finish(self, hello: &[u8]) -> Result<Dialed, Fault> {
        match self {
            Self::Directly(dialing) => dialing.finish(hello),
            Self::Through(jumping) => jumping.finish(hello),
        }
    }
}
