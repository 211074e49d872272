//! The pump's wait: which descriptors it watches, for how long, and what happens if nothing comes.
//!
//! Runs in the client, in its one thread. Takes the pump's descriptors as they are. Must not read
//! or write any of them, and must not wait for anything but the poll.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Pump, connection};
use crate::client::signals::SILENT;
use crate::fault::Fault;
use crate::sys::unsent::UnsentState;

/// How often the socket is checked while the server has not acknowledged everything.
const LOOK: Duration = Duration::from_millis(500);

/// How long after a deadline the data that came before it is still read.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// What a poll found.
pub(super) struct Ready {
    pub(super) signal: bool,
    pub(super) socket: bool,
    pub(super) input: bool,
    pub(super) outputs: [PollFlags; 2],
}

impl Pump<'_> {
    /// Waits until something can be done.
    ///
    /// # Errors
    /// A deadline has passed, or the server is gone.
    pub(super) fn wait(&mut self) -> Result<Ready, Fault> {
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(5);
        fds.push(PollFd::new(self.signals.as_fd(), PollFlags::POLLIN));
        let socket = self.end.is_none().then(|| {
            let out = !self.sending_ended && !self.outbox.is_empty();
            let out = if out {
                PollFlags::POLLOUT
            } else {
                PollFlags::empty()
            };
            add(&mut fds, self.socket.as_fd(), PollFlags::POLLIN | out)
        });
        let input = self.input.as_ref().filter(|_| self.may_read_input());
        let input = input.map(|i| add(&mut fds, i.as_fd(), PollFlags::POLLIN));
        let outputs = self
            .sinks
            .each_ref()
            .map(|s| s.interest().map(|events| add(&mut fds, s.as_fd(), events)));
        let is_watched = self.is_watched && self.end.is_none();
        let mut left = is_watched.then_some(LOOK);
        let mut over = None;
        if let Some((at, why)) = self.deadline() {
            let mut until = at.saturating_duration_since(Instant::now());
            if until.is_zero() {
                over = Some(why);
            } else {
                // At least a whole millisecond, so that no wait becomes a busy loop.
                until = until.saturating_add(Duration::from_millis(1));
            }
            left = Some(left.map_or(until, |left| left.min(until)));
        }
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Fault::from(e).while_doing("poll")),
        }
        let found = |at: Option<usize>| {
            let revents = at.and_then(|at| fds.get(at)).and_then(PollFd::revents);
            revents.unwrap_or(PollFlags::empty())
        };
        let ready = Ready {
            signal: !found(Some(0)).is_empty(),
            socket: !found(socket).is_empty(),
            input: !found(input).is_empty(),
            outputs: outputs.map(found),
        };
        let is_readable = found(socket).intersects(!PollFlags::POLLOUT);
        let goes_on = is_readable || ready.outputs.iter().any(|o| !o.is_empty());
        self.give_up(over, goes_on)?;
        // Check also while input comes: input can continue while the server accepts nothing.
        if is_watched && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            match self.unsent.look(self.socket.as_fd()) {
                UnsentState::Acknowledged => self.is_watched = false,
                UnsentState::Sent | UnsentState::Waiting => {}
                // Read first what the server has sent before.
                UnsentState::Lost if is_readable => {}
                UnsentState::Lost => return Err(connection(&Errno::ETIMEDOUT.into())),
            }
        }
        Ok(ready)
    }

    /// Gives up if a deadline is `over`, but not while something that came before it is still
    /// unread: the deadline may have passed while this program was stopped.
    fn give_up(&mut self, over: Option<&'static str>, goes_on: bool) -> Result<(), Fault> {
        let Some(why) = over else {
            self.overdue = None;
            return Ok(());
        };
        let since = *self.overdue.get_or_insert_with(Instant::now);
        if goes_on && since.elapsed() < LAST_LOOK {
            return Ok(());
        }
        let fault = Fault::new(why);
        // A command that has ended or is hung up leaves nothing to check.
        if why != SILENT {
            return Err(fault);
        }
        let host = self.host;
        Err(fault.with_remedy(format!(
            "to see whether the command still runs, run on {host}: cosadm who"
        )))
    }

    fn may_read_input(&self) -> bool {
        self.end.is_none() && self.outbox.is_empty() && self.allowance.left() > 0
    }
}

fn add<'a>(fds: &mut Vec<PollFd<'a>>, fd: BorrowedFd<'a>, events: PollFlags) -> usize {
    fds.push(PollFd::new(fd, events));
    fds.len().saturating_sub(1)
}
