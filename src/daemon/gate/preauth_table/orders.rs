//! Carries out the monitor's orders: listens, sends answers, parks refusals, forgets connections.
//!
//! Runs in the gate. Owns nothing: the state is the table's. Must not send a refusal: it only sets
//! when the refusal is due.

use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Token};

use super::PreauthTable;
use crate::daemon::gate::connection::Stage;
use crate::daemon::sources::{self, Networks};
use crate::fault::Fault;
use crate::ipc::gate::{Complaint, Connection, List, Order, Question};
use crate::protocol::answer::{self, Reference};
use crate::sys::socket;

impl PreauthTable {
    /// Carries out one order of the monitor.
    pub(in crate::daemon::gate) fn execute_order(
        &mut self,
        order: Order<'_>,
        fds: Vec<OwnedFd>,
        now: Instant,
    ) -> Result<(), Fault> {
        match order {
            Order::Limits(limits) => self.limits = Some(limits),
            Order::Networks(list, first, networks) => {
                let list = match list {
                    List::Listed => &mut self.sources.listed,
                    List::Exempt => &mut self.sources.exempt,
                };
                if first {
                    *list = Networks::default();
                }
                for (ip, prefix) in networks {
                    list.add(ip, prefix);
                }
            }
            Order::Listen => self.listen(fds)?,
            Order::StopListening => self.listeners.clear(),
            Order::Adopt => self.adopt(fds, now)?,
            Order::ServerHello(c, record) => {
                self.send_and_expect(c, record, Stage::Greeted, None, now)?
            }
            Order::Continue(c, length, record) => {
                if let Some(s) = self.unauthenticated.get_mut(&c) {
                    s.expect_command(length);
                }
                self.send_and_expect(c, record, Stage::AwaitsCommand, None, now)?;
            }
            Order::Prompt(c, seconds, record) => {
                let within = Duration::from_secs(seconds.into());
                self.send_and_expect(c, record, Stage::Prompted, Some(within), now)?;
            }
            Order::MayGo(c, may) => {
                let (from, to) = match may {
                    true => (Stage::AwaitsDecision, Stage::AwaitsName),
                    false => (Stage::AwaitsName, Stage::AwaitsDecision),
                };
                if let Some(s) = self.unauthenticated.get_mut(&c).filter(|s| s.stage == from) {
                    s.stage = to;
                }
            }
            Order::Forget(c) => self.dismiss(c)?,
            Order::Close(c) => {
                self.penalise(c, Complaint::Malformed, now);
                self.dismiss(c)?;
            }
            Order::Deny(c, reference, penalty, ago) => {
                let begun = now.checked_sub(Duration::from_millis(ago.into()));
                let begun = begun.filter(|_| ago > 0);
                self.park(c, reference, penalty, begun, now)?;
            }
        }
        Ok(())
    }

    /// Forgets a connection that the monitor has finished with.
    fn dismiss(&mut self, connection: Connection) -> Result<(), Fault> {
        if let Some(s) = self.unauthenticated.get_mut(&connection) {
            s.known = false;
        }
        self.forget(connection)
    }

    fn listen(&mut self, fds: Vec<OwnedFd>) -> Result<(), Fault> {
        for fd in fds {
            let listener = TcpListener::from(fd);
            let token = Token(self.listeners.len() + 1);
            let fd = listener.as_raw_fd();
            self.registry
                .register(&mut SourceFd(&fd), token, Interest::READABLE)?;
            self.listeners.push(listener);
        }
        Ok(())
    }

    fn adopt(&mut self, fds: Vec<OwnedFd>, now: Instant) -> Result<(), Fault> {
        let Some(limits) = self.limits else {
            return Ok(());
        };
        for socket in fds {
            // A connection that its peer has reset by now has no address any more: drop it.
            if let Ok(from) = socket::peer(socket.as_fd()) {
                self.take_in(socket, from.ip(), &limits, now)?;
            }
        }
        // Under inetd no other connection can come: the monitor ends.
        if self.unauthenticated.is_empty() && self.listeners.is_empty() {
            self.ask(&Question::Empty, Vec::new())?;
        }
        Ok(())
    }

    fn send_and_expect(
        &mut self,
        connection: Connection,
        record: &[u8],
        stage: Stage,
        within: Option<Duration>,
        now: Instant,
    ) -> Result<(), Fault> {
        let found = self.limits.zip(self.unauthenticated.get_mut(&connection));
        let Some((limits, preauth)) = found else {
            return Ok(());
        };
        if stage != Stage::AwaitsCommand && preauth.sent_early() {
            return self.close_with_penalty(connection, Complaint::Malformed, now);
        }
        preauth.stage = stage;
        preauth.unsent = record.to_vec();
        let within = within.unwrap_or(Duration::from_secs(limits.handshake.into()));
        self.postpone(connection, now + within);
        self.connection_is_ready(connection, now)
    }

    /// Parks a refusal until the next multiple of the interval after the request.
    fn park(
        &mut self,
        connection: Connection,
        reference: Reference,
        penalty: u32,
        begun: Option<Instant>,
        now: Instant,
    ) -> Result<(), Fault> {
        let found = self.limits.zip(self.unauthenticated.get_mut(&connection));
        let Some((limits, preauth)) = found else {
            return Ok(());
        };
        preauth.known = false;
        self.sources.penalise(preauth.from, penalty, &limits, now);
        // Beyond the limit of parked refusals, close without an answer.
        let most = usize::try_from(limits.refusals).unwrap_or(usize::MAX);
        let record = answer::compose_denied(reference);
        let Some(record) = record.ok().filter(|_| self.parked < most) else {
            return self.forget(connection);
        };
        preauth.stage = Stage::Parked;
        preauth.unsent = Vec::new();
        self.parked += 1;
        let interval = Duration::from_secs(limits.refusal.into());
        let leaves = sources::refusal_leaves_at(preauth.requested_at, begun, now, interval);
        preauth.set_refusal(record);
        self.postpone(connection, leaves);
        // The peer may have hung up, or sent more, while the monitor decided.
        self.connection_is_ready(connection, now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;
    use crate::ipc::gate::Limits;
    use crate::ipc::{Channel, Incoming};

    /// Regression test: this ended the gate.
    #[test]
    fn a_connection_that_was_reset_before_it_is_adopted_is_dropped() {
        let (ours, theirs) = Channel::pair().unwrap();
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry().try_clone().unwrap();
        let mut preauth_table = PreauthTable::new(Channel::new(theirs), registry);
        let now = Instant::now();
        preauth_table
            .execute_order(Order::Limits(Limits::FEW), Vec::new(), now)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connect = || {
            let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            (theirs, OwnedFd::from(listener.accept().unwrap().0))
        };
        let (peer, reset) = connect();
        let linger = nix::libc::linger {
            l_onoff: 1,
            l_linger: 0,
        };
        setsockopt(&peer, sockopt::Linger, &linger).unwrap();
        drop(peer);
        assert!(socket::was_reset(reset.as_fd()));
        preauth_table
            .execute_order(Order::Adopt, vec![reset], now)
            .unwrap();
        assert!(preauth_table.unauthenticated.is_empty());
        // Where it was the only connection, the gate reports that it is empty.
        let Incoming::Message(message, _) = ours.receive(&mut [0; 512]).unwrap() else {
            panic!("not a word");
        };
        assert_eq!(Question::decode(&message), Some(Question::Empty));
        // The next connection is served.
        let (_peer, good) = connect();
        assert!(!socket::was_reset(good.as_fd()));
        socket::set_nonblocking(&good).unwrap();
        preauth_table
            .execute_order(Order::Adopt, vec![good], now)
            .unwrap();
        assert_eq!(preauth_table.unauthenticated.len(), 1);
    }
}
