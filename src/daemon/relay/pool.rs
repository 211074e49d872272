//! The relay's threads: those that wait for a session, and those that serve one.
//!
//! Runs in the relay. Owns the channel to the monitor and the threads. Leaders and followers: each
//! waiting thread reads the relay's channel itself. So the thread that the kernel wakes for a
//! session also serves it, without a hand-over. A thread must not serve a session unless another
//! one waits (a relay that has only one session needs no other). A thread that has served a session
//! waits for the next one; a thread that gets none for a while ends.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{Builder, Thread};
use std::time::Duration;

use zeroize::{Zeroize, Zeroizing};

use super::session::Serving;
use crate::ipc::relay::{SESSION_DESCRIPTORS, SESSION_MESSAGE, Session};
use crate::ipc::{Channel, Incoming};
use crate::protocol::budget::Budget;
use crate::sys::memory::PeakCounter;

/// Stack of a session's thread, bytes: four times what a debug build was seen to use.
const STACK: usize = 256 * 1024;

/// Most threads that wait besides the one that must. A burst leaves them.
const WAITING: usize = 16;

/// How long a thread waits for a session before it ends.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The state that the threads share.
pub(super) struct Pool {
    /// Receives on it block for at most [`PATIENCE`].
    channel: Channel,
    /// Threads that wait, or are about to.
    waiting: AtomicUsize,
    serving: PeakCounter,
    /// Threads whose session is over, and that only wait for the client to hang up.
    lingering_count: AtomicUsize,
    /// What the windows of all sessions may promise.
    budget: Arc<Budget>,
    /// The monitor is gone, which the main thread has to notice.
    orphaned: AtomicBool,
    main: Thread,
}

impl Pool {
    /// Serves the sessions that come on this channel, until the monitor is gone.
    ///
    /// # Errors
    /// No thread could be started.
    pub(super) fn run(channel: Channel) -> std::io::Result<()> {
        let pool = Arc::new(Self::new(channel));
        pool.follow()?;
        while !pool.orphaned.load(Ordering::Acquire) {
            std::thread::park();
        }
        Ok(())
    }

    /// Serves sessions in this thread, for a monitor that has only one: what ends that session ends
    /// the relay.
    pub(super) fn run_alone(channel: Channel) {
        let pool = Self::new(channel);
        loop {
            match pool.receive() {
                Some(Incoming::Message(message, fds)) => pool.serve(message, fds),
                Some(Incoming::Nothing) => pool.channel.wait(),
                Some(Incoming::Gone) | None => return,
            }
        }
    }

    fn new(channel: Channel) -> Self {
        Self {
            channel,
            waiting: AtomicUsize::new(0),
            serving: PeakCounter::new(),
            lingering_count: AtomicUsize::new(0),
            budget: Arc::default(),
            orphaned: AtomicBool::new(false),
            main: std::thread::current(),
        }
    }

    /// Starts one more waiting thread.
    fn follow(self: &Arc<Self>) -> std::io::Result<()> {
        let pool = Arc::clone(self);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let begun = Builder::new()
            .stack_size(STACK)
            .spawn(move || pool.serve_sessions());
        if begun.is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        begun.map(drop)
    }

    /// Runs a thread: waits for sessions and serves them.
    fn serve_sessions(self: Arc<Self>) {
        loop {
            match self.receive() {
                Some(Incoming::Message(message, fds)) => {
                    if !self.hand_over_waiting() {
                        continue;
                    }
                    self.serve(message, fds);
                    self.waiting.fetch_add(1, Ordering::Relaxed);
                    if self.leave(WAITING) {
                        return;
                    }
                }
                Some(Incoming::Nothing) => {
                    let goes = self.leave(0);
                    if self.waiting.load(Ordering::Relaxed) == 1 {
                        self.serving.tidy();
                    }
                    if goes {
                        return;
                    }
                    self.channel.wait();
                }
                Some(Incoming::Gone) | None => {
                    self.orphaned.store(true, Ordering::Release);
                    return self.main.unpark();
                }
            }
        }
    }

    /// Ensures that another thread waits before this one serves a session. Returns `false` if no
    /// thread can be started. This thread then goes on waiting; the session's descriptors are
    /// closed, and the monitor sees its end.
    fn hand_over_waiting(self: &Arc<Self>) -> bool {
        while !self.leave(0) {
            if self.follow().is_err() {
                return false;
            }
        }
        true
    }

    /// Waits for a session. A thread that serves does not keep the buffer.
    fn receive(&self) -> Option<Incoming> {
        self.channel.receive(&mut vec![0; SESSION_MESSAGE]).ok()
    }

    /// Stops counting this thread as waiting, if more than `others` other threads wait.
    fn leave(&self, others: usize) -> bool {
        let less = |waiting: usize| (waiting > others.saturating_add(1)).then(|| waiting - 1);
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Serves a session. A malformed message drops the descriptors, and the monitor sees the
    /// session's end.
    fn serve(&self, message: Zeroizing<Vec<u8>>, fds: Vec<OwnedFd>) {
        let serving = prepare(message, fds, &self.budget);
        // What this leaves of the keys on the stack would live as long as the session.
        wipe_stack();
        if let Some(serving) = serving {
            self.serving.enter();
            serving.run(&self.lingering_count);
            self.serving.leave();
        }
    }
}

/// Makes a session from its message. Drops the message and all that was read from it except the
/// ciphers: only they keep the keys while the session lives.
#[inline(never)]
fn prepare(
    message: Zeroizing<Vec<u8>>,
    fds: Vec<OwnedFd>,
    budget: &Arc<Budget>,
) -> Option<Serving> {
    let session = Session::decode(&message)?;
    let fds = <[OwnedFd; SESSION_DESCRIPTORS]>::try_from(fds).ok()?;
    // The limit as configured now.
    budget.set_limit(session.windows);
    Serving::new(&session, fds, budget).ok()
}

/// Overwrites the part of the stack that [`prepare`] has used.
#[inline(never)]
fn wipe_stack() {
    /// Bytes: a debug build was seen to use six thousand.
    const USED: usize = 8 * 1024;
    [0_u8; USED].zeroize();
}
