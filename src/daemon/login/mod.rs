//! The login worker: one PAM transaction, from pam_start to pam_end, and the application that it
//! starts.
//!
//! Runs as root, as a program of its own with one thread, one process for each login. Owns the PAM
//! handle and is the application's parent. Outlives the application, to close the session. Must
//! never decide which user may start which application, or communicate with anything but the
//! monitor.
//!
//! In the order of a login: `conversation` carries PAM's questions to the monitor, `transaction`
//! takes PAM through its stages, `application` starts what the monitor has granted and waits for
//! its end.
#![forbid(unsafe_code)]

mod application;
mod conversation;
pub mod pam;
mod transaction;

use std::cell::{Cell, RefCell};
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::fault::Fault;
use crate::ipc::login::{Order, WorkerToMonitor};
use crate::ipc::{self, Channel, Incoming};
use crate::sys::deadline::Deadline;
use crate::sys::process::CHANNEL;
use crate::sys::{process, signals, socket};

/// How long a busy monitor may take to receive a message.
const SEND_TIME: Duration = Duration::from_secs(60);

/// Runs the worker. `start` begins PAM's transaction: the program that is linked with libpam passes
/// it in.
pub fn main(start: pam::Start) -> ExitCode {
    let Ok(channel) = socket::inherited(CHANNEL) else {
        let _ = io::stderr().write_all(b"cosserver-login: only cosserver(8) may start it\n");
        return ExitCode::FAILURE;
    };
    process::set_name("cos: login");
    process::keep_private();
    // A module that hangs would outlive the monitor. Once a session is open, this process must
    // close it even if the monitor is gone.
    process::ends_with_parent(true);
    // Keep what modules write there out of the log.
    process::quiet();
    signals::all_default();
    // The monitor may have ended before the request to end with it.
    let mut fds = [PollFd::new(channel.as_fd(), PollFlags::empty())];
    let gone = poll(&mut fds, PollTimeout::ZERO) != Ok(0);
    if gone {
        return ExitCode::FAILURE;
    }
    let line = Line::new(Channel::new(channel));
    if signals::ignore_sigpipe().is_err() {
        return ExitCode::FAILURE;
    }
    match transaction::run(&line, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The channel to the monitor, shared with PAM's conversation.
#[derive(Clone)]
struct Line {
    channel: Rc<RefCell<Channel>>,
    /// Whether the user is authenticated: then no further question is asked.
    known: Rc<Cell<bool>>,
    /// When PAM must be done, because the monitor may be gone and cannot enforce a limit.
    deadline: Rc<RefCell<Option<Deadline>>>,
}

/// How long PAM may take if the monitor is gone: as long as `[login] check` can be.
const ALONE: Duration = Duration::from_secs(100);

impl Line {
    fn new(channel: Channel) -> Self {
        Self {
            channel: Rc::new(RefCell::new(channel)),
            known: Rc::default(),
            deadline: Rc::default(),
        }
    }

    /// Lets PAM go on to its end even if the monitor dies, but not for ever. Called once PAM has an
    /// answer or opens a session: a wrong guess must be counted in any case.
    fn outlive_monitor(&self) {
        let deadline = Deadline::after(ALONE);
        process::ends_with_parent(deadline.is_err());
        self.deadline.replace(deadline.ok());
    }

    /// Clears the deadline: PAM does nothing now that needs one.
    fn lift_deadline(&self) {
        self.deadline.replace(None);
    }

    fn say(&self, word: &WorkerToMonitor) -> Result<(), Fault> {
        match word {
            WorkerToMonitor::Authenticated(_) => {
                self.known.set(true);
                self.lift_deadline();
            }
            // The user takes time to answer, which the monitor limits.
            WorkerToMonitor::Ask(_) => self.lift_deadline(),
            WorkerToMonitor::Running(_)
            | WorkerToMonitor::Exited(_)
            | WorkerToMonitor::Killed(_)
            | WorkerToMonitor::Refused(..)
            | WorkerToMonitor::Failed(_) => {}
        }
        self.channel.borrow_mut().deliver(word.encode(), SEND_TIME)
    }

    /// Waits for the next order, and returns it with its descriptors.
    ///
    /// # Errors
    /// The monitor is gone, or dismisses this worker.
    fn next(&self) -> Result<(Order, Vec<std::os::fd::OwnedFd>), Fault> {
        loop {
            if let Some(order) = self.try_next()? {
                return Ok(order);
            }
            self.channel.borrow().wait();
        }
    }

    /// Returns the next order, if one has arrived.
    fn try_next(&self) -> Result<Option<(Order, Vec<std::os::fd::OwnedFd>)>, Fault> {
        let mut buffer = vec![0; ipc::MESSAGE];
        match self.channel.borrow().receive(&mut buffer)? {
            Incoming::Message(message, fds) => Order::decode(&message)
                .map(|order| Some((order, fds)))
                .ok_or_else(|| Fault::new("an invalid order")),
            Incoming::Nothing => Ok(None),
            Incoming::Gone => Err(Fault::new("the monitor has closed the connection")),
        }
    }
}
