//! The clients of a local Unix socket. Limits how many are connected at the same time, in all and
//! for each user, and for how long. A bounded queue holds further clients until a slot is free.
//!
//! Runs in the monitor. The owners of the sockets handle the requests: [`super::signing`] and
//! [`super::control`].

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::unistd::Pid;
use zeroize::Zeroizing;

use crate::daemon::monitor::own_file::OwnFile;
use crate::fault::Fault;
use crate::ipc::{Channel, Incoming};
use crate::sys::local;
use crate::sys::untrusted::{self, Listener};

/// A client is expected to send its request at once. When others wait for a slot, a client that has
/// sent nothing after this time is dropped first.
const SILENT: Duration = Duration::from_millis(250);

/// Most connections accepted in one pass.
const AT_ONCE: usize = 64;

/// Most sockets that a child has still to close: beyond it no connection is accepted.
const UNCLOSED: usize = 64;

/// Most children that close sockets at the same time.
const CLOSERS: usize = 8;

/// Delay before a child that could not be started is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// A client of the socket.
pub(super) struct Caller<T> {
    pub(super) channel: Channel<untrusted::Caller>,
    /// Its user ID, from the kernel.
    pub(super) uid: u32,
    /// When it got its slot.
    since: Instant,
    /// Whether it has sent something.
    spoke: bool,
    /// When it is dropped.
    until: Instant,
    /// Whether the whole answer has been queued for it.
    answered: bool,
    /// What is known of its request.
    pub(super) state: T,
}

impl<T> Caller<T> {
    /// Whether the whole answer has been queued for it.
    pub(super) const fn is_answered(&self) -> bool {
        self.answered
    }
}

/// The limits of a socket.
pub(super) struct Terms {
    /// Most clients at the same time, of all users.
    pub(super) most: usize,
    /// The same for one user.
    pub(super) each: usize,
    /// Most further clients in the queue, of all users.
    pub(super) line: usize,
    /// The same for one user.
    pub(super) line_each: usize,
    /// How long a client may wait for a slot, and how long it may then hold it.
    pub(super) time: Duration,
}

/// A client that waits for a slot. Its request is read once it has one.
struct Waiting {
    socket: untrusted::Caller,
    uid: u32,
    until: Instant,
}

/// A socket and its clients.
pub(super) struct Callers<T> {
    all: BTreeMap<u64, Caller<T>>,
    /// In order of arrival.
    line: VecDeque<Waiting>,
    next: u64,
    /// No connection is accepted until sockets have been closed.
    paused: bool,
    /// The children that close sockets.
    closers: Vec<Pid>,
    /// When to try again to start a child.
    retry: Option<Instant>,
    terms: Terms,
    event_source: fn(u64) -> Token,
    /// Dropped after its clients: it takes over their sockets that have unread data.
    listener: Option<(Listener, OwnFile, Token)>,
}

impl<T: Default> Callers<T> {
    /// No client and no socket.
    pub(super) const fn new(terms: Terms, event_source: fn(u64) -> Token) -> Self {
        Self {
            listener: None,
            all: BTreeMap::new(),
            line: VecDeque::new(),
            next: 0,
            paused: false,
            closers: Vec::new(),
            retry: None,
            terms,
            event_source,
        }
    }

    /// Whether it listens.
    pub(super) const fn is_open(&self) -> bool {
        self.listener.is_some()
    }

    /// Listens at a path.
    ///
    /// # Errors
    /// Fails if it cannot.
    pub(super) fn open(
        &mut self,
        registry: &Registry,
        (path, mode): (&Path, u32),
        event_source: Token,
    ) -> Result<(), Fault> {
        let listener = local::listener(path, mode).map_err(|e| Fault::of(path, e))?;
        registry.register(
            &mut SourceFd(&listener.as_raw_fd()),
            event_source,
            Interest::READABLE,
        )?;
        self.listener = Some((listener, OwnFile::of(path), event_source));
        Ok(())
    }

    /// Stops listening and removes the socket's file, unless it is another daemon's by now.
    pub(super) fn close(&mut self) {
        // Drop the listener last. The clients hand it the sockets that cannot be closed here, and
        // it leaves them open until the process ends.
        self.all.clear();
        self.line.clear();
        if let Some((_, file, _)) = self.listener.take() {
            file.remove();
        }
    }

    /// Accepts new clients that are permitted. A client for which there is no slot is queued. If
    /// the queue is full too, it is closed, unless its user exists and a queued client's user does
    /// not.
    pub(super) fn take(
        &mut self,
        registry: &Registry,
        may: impl Fn(u32) -> bool,
        mut user_exists: impl FnMut(u32) -> bool,
        now: Instant,
    ) {
        for _ in 0..AT_ONCE {
            let Some((listener, ..)) = &self.listener else {
                return;
            };
            if listener.unclosed() >= UNCLOSED {
                self.paused = true;
                return;
            }
            let socket = match listener.accept() {
                Ok(Some(socket)) if may(socket.user()) => socket,
                Ok(Some(_)) => continue,
                Ok(None) | Err(_) => return,
            };
            let uid = socket.user();
            let own_count = self.line.iter().filter(|w| w.uid == uid).count();
            if own_count == 0 && self.has_slot(uid) {
                self.accept_caller(registry, socket, uid, now);
            } else if own_count < self.terms.line_each
                && (self.has_room_in_queue(own_count)
                    || self.displace_unknown_user(uid, &mut user_exists))
            {
                let until = now + self.terms.time;
                self.line.push_back(Waiting { socket, uid, until });
            }
        }
        // A client that connects without pause does not starve others: the rest is accepted later.
        if let Some((listener, _, own)) = &self.listener {
            let fd = listener.as_raw_fd();
            let _ = registry.reregister(&mut SourceFd(&fd), *own, Interest::READABLE);
        }
    }

    /// Whether the queue takes one more of a user who has `own_count` entries in it. If it is full,
    /// the last entry of the user with the most entries is removed to make room.
    fn has_room_in_queue(&mut self, own_count: usize) -> bool {
        if self.line.len() < self.terms.line {
            return true;
        }
        let mut held: BTreeMap<u32, usize> = BTreeMap::new();
        for waiting in &self.line {
            *held.entry(waiting.uid).or_default() += 1;
        }
        let Some((uid, most)) = held.into_iter().max_by_key(|(_, held)| *held) else {
            return false;
        };
        let last = self.line.iter().rposition(|w| w.uid == uid);
        last.filter(|_| most > own_count + 1)
            .and_then(|at| self.line.remove(at))
            .is_some()
    }

    /// Whether the last queued client whose user does not exist was removed for one whose user
    /// does. One user may own thousands of user IDs; without a name each counts as a user of its
    /// own.
    fn displace_unknown_user(
        &mut self,
        uid: u32,
        user_exists: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        if !user_exists(uid) {
            return false;
        }
        let last = self.line.iter().rposition(|w| !user_exists(w.uid));
        last.and_then(|at| self.line.remove(at)).is_some()
    }

    /// Starts a child that closes the sockets with unread data, which may be descriptors: close(2)
    /// could block this process. Returns the users of these sockets.
    pub(super) fn close_unread(
        &mut self,
        registry: &Registry,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<u32> {
        let Some((listener, _, own)) = &self.listener else {
            return Vec::new();
        };
        self.closers.retain(|pid| unreaped.contains(pid));
        self.retry = self.retry.filter(|at| *at > now);
        let waits = self.retry.is_some();
        if listener.unclosed() == 0 || self.closers.len() >= CLOSERS || waits {
            return Vec::new();
        }
        let sockets = listener.take_unclosed();
        let users = sockets.iter().map(|(uid, _)| *uid).collect();
        match untrusted::close_elsewhere(sockets) {
            Ok(pid) => {
                self.closers.push(pid);
                unreaped.push(pid);
            }
            Err((_, sockets)) => {
                listener.keep_unclosed(sockets);
                self.retry = Some(now + AGAIN);
                return Vec::new();
            }
        }
        if std::mem::take(&mut self.paused) {
            let fd = listener.as_raw_fd();
            let _ = registry.reregister(&mut SourceFd(&fd), *own, Interest::READABLE);
        }
        users
    }

    /// Gives free slots to queued clients.
    pub(super) fn admit(&mut self, registry: &Registry, now: Instant) {
        if !self.line.is_empty() {
            self.all.retain(|_, c| c.spoke || c.since + SILENT > now);
        }
        let mut next = 0;
        while let Some(uid) = self.line.get(next).map(|w| w.uid) {
            if !self.has_slot(uid) {
                next += 1;
            } else if let Some(waiting) = self.line.remove(next) {
                self.accept_caller(registry, waiting.socket, uid, now);
            }
        }
    }

    fn has_slot(&self, uid: u32) -> bool {
        let own_count = self.all.values().filter(|c| c.uid == uid).count();
        own_count < self.terms.each && self.all.len() < self.terms.most
    }

    fn accept_caller(
        &mut self,
        registry: &Registry,
        socket: untrusted::Caller,
        uid: u32,
        now: Instant,
    ) {
        let event_source = (self.event_source)(self.next);
        let fd = socket.as_fd().as_raw_fd();
        let registered = registry.register(&mut SourceFd(&fd), event_source, Interest::READABLE);
        if registered.is_err() {
            return;
        }
        let caller = Caller {
            channel: Channel::new(socket),
            uid,
            since: now,
            spoke: false,
            until: now + self.terms.time,
            answered: false,
            state: T::default(),
        };
        self.all.insert(self.next, caller);
        self.next += 1;
    }

    /// Returns a client.
    pub(super) fn get(&mut self, id: u64) -> Option<&mut Caller<T>> {
        self.all.get_mut(&id)
    }

    /// Returns all clients, with their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Caller<T>)> {
        self.all.iter().map(|(id, caller)| (*id, caller))
    }

    /// Returns a client's message, if there is one. Drops a client that is gone or sends too much.
    pub(super) fn handle_messages(
        &mut self,
        id: u64,
        buffer: &mut [u8],
    ) -> Option<Zeroizing<Vec<u8>>> {
        let caller = self.all.get_mut(&id)?;
        match caller.channel.receive(buffer) {
            Ok(Incoming::Message(message, _)) => {
                caller.spoke = true;
                Some(message)
            }
            Ok(Incoming::Nothing) => None,
            Ok(Incoming::Gone) | Err(_) => {
                self.all.remove(&id);
                None
            }
        }
    }

    /// Sends a client the last messages. Its connection ends once it has read them.
    pub(super) fn answer(&mut self, registry: &Registry, id: u64, messages: Vec<Vec<u8>>) {
        let Some(caller) = self.all.get_mut(&id) else {
            return;
        };
        caller.answered = true;
        for message in messages {
            if caller.channel.send(message, Vec::new()).is_err() {
                self.all.remove(&id);
                return;
            }
        }
        self.settle(registry, id);
    }

    /// Whether a client has been answered and only has still to read the answer; continues sending
    /// it.
    pub(super) fn settle(&mut self, registry: &Registry, id: u64) -> bool {
        let Some(caller) = self.all.get_mut(&id).filter(|c| c.answered) else {
            return false;
        };
        let fd = caller.channel.as_fd().as_raw_fd();
        let both = Interest::READABLE | Interest::WRITABLE;
        let waits = caller.channel.flush().is_ok() && caller.channel.is_waiting();
        let event_source = (self.event_source)(id);
        if !waits
            || registry
                .reregister(&mut SourceFd(&fd), event_source, both)
                .is_err()
        {
            self.all.remove(&id);
        }
        true
    }

    /// Returns when the next client is due to be dropped.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waiting = self.line.iter().map(|w| w.until);
        let silent = self
            .all
            .values()
            .filter(|c| !c.spoke && !self.line.is_empty());
        let silent = silent.map(|c| c.since + SILENT);
        let all = self.all.values().map(|c| c.until);
        all.chain(waiting).chain(silent).chain(self.retry).min()
    }

    /// Drops clients whose time is over.
    pub(super) fn expire(&mut self, now: Instant) {
        self.all.retain(|_, c| c.until > now);
        self.line.retain(|w| w.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::monitor::event_source;

    #[test]
    fn callers_without_an_account_yield_the_queue_to_a_user() {
        let terms = Terms {
            most: 1,
            each: 1,
            line: 3,
            line_each: 2,
            time: Duration::from_secs(1),
        };
        let mut callers: Callers<()> = Callers::new(terms, event_source::wants_signature);
        let stand = |callers: &mut Callers<()>, uid| {
            callers.line.push_back(Waiting {
                socket: untrusted::Caller::of(uid),
                uid,
                until: Instant::now(),
            });
        };
        for uid in [100_001, 7, 100_002] {
            stand(&mut callers, uid);
        }
        let mut user_exists = |uid| uid < 100;
        assert!(!callers.has_room_in_queue(0), "each has one");
        assert!(!callers.displace_unknown_user(100_003, &mut user_exists));
        for left in [vec![100_001, 7, 8], vec![7, 8, 8]] {
            assert!(callers.displace_unknown_user(8, &mut user_exists));
            stand(&mut callers, 8);
            let uids: Vec<u32> = callers.line.iter().map(|w| w.uid).collect();
            assert_eq!(uids, left);
        }
        assert!(!callers.displace_unknown_user(9, &mut user_exists));
    }
}
