//! The relay's threads: those that wait for a session, and those that serve one.
//!
//! Leaders and followers: each waiting thread reads the relay's channel itself, so
//! that a session is served by the thread that the kernel wakes for it, and no
//! other has to hand it on. One at least always waits. A thread that has served
//! waits for the next; one that has waited in vain for a while goes.

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
use crate::sys::memory::Crowd;

/// Stack of a session's thread, bytes: four times what a debug build was seen
/// to use.
const STACK: usize = 256 * 1024;

/// Most threads that wait besides the one that must: what a burst leaves.
const WAITING: usize = 16;

/// How long a thread waits for a session before it goes.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// What the threads share.
pub(super) struct Pool {
    /// Receives block for at most [`PATIENCE`].
    channel: Channel,
    /// Threads that wait, or are about to.
    waiting: AtomicUsize,
    serving: Crowd,
    /// Threads whose session is over but for the client, who is to hang up.
    parting: AtomicUsize,
    /// What the windows of all sessions may promise.
    budget: Arc<Budget>,
    /// The monitor is gone, and the main thread is told so.
    orphaned: AtomicBool,
    main: Thread,
}

impl Pool {
    /// Serves what comes on this channel, until the monitor is gone.
    ///
    /// # Errors
    /// No thread was to be had.
    pub(super) fn run(channel: Channel) -> std::io::Result<()> {
        let pool = Arc::new(Self::new(channel));
        pool.follow()?;
        while !pool.orphaned.load(Ordering::Acquire) {
            std::thread::park();
        }
        Ok(())
    }

    /// The same without threads, for a monitor that has one session: what ends that
    /// session ends the relay.
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
            serving: Crowd::new(),
            parting: AtomicUsize::new(0),
            budget: Arc::default(),
            orphaned: AtomicBool::new(false),
            main: std::thread::current(),
        }
    }

    /// One more thread that waits.
    fn follow(self: &Arc<Self>) -> std::io::Result<()> {
        let pool = Arc::clone(self);
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let begun = Builder::new()
            .stack_size(STACK)
            .spawn(move || pool.attend());
        if begun.is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        begun.map(drop)
    }

    /// A thread's life.
    fn attend(self: Arc<Self>) {
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

    /// Before a thread turns to a session another must wait. `false`: there is
    /// none to be had. Then this one goes on waiting, the session's descriptors go,
    /// and the monitor sees its end.
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

    /// This thread waits no more, if more than so many others do.
    fn leave(&self, others: usize) -> bool {
        let less = |waiting: usize| (waiting > others.saturating_add(1)).then(|| waiting - 1);
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Serves a session. A message that is none drops the descriptors, and the
    /// monitor sees the session's end.
    fn serve(&self, message: Zeroizing<Vec<u8>>, fds: Vec<OwnedFd>) {
        let serving = prepare(message, fds, &self.budget);
        // What it left of the keys on this stack lives as long as the session.
        wipe_stack();
        if let Some(serving) = serving {
            self.serving.enter();
            serving.run(&self.parting);
            self.serving.leave();
        }
    }
}

/// A session from its message, which is gone then, as all is that was read from it but
/// the ciphers: they alone keep the keys while the session lives.
#[inline(never)]
fn prepare(
    message: Zeroizing<Vec<u8>>,
    fds: Vec<OwnedFd>,
    budget: &Arc<Budget>,
) -> Option<Serving> {
    let session = Session::decode(&message)?;
    let fds = <[OwnedFd; SESSION_DESCRIPTORS]>::try_from(fds).ok()?;
    // As the settings have it now.
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
