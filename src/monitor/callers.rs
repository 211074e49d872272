//! Those who call at a socket of this machine: so many in all and so many a user, each
//! for so long. What they want stands with whoever listens: [`super::signing`] and
//! [`super::control`].

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use zeroize::Zeroizing;

use crate::channel::{Channel, Incoming};
use crate::fault::Fault;
use crate::sys::local;

/// Calls taken in one go.
const AT_ONCE: usize = 64;

/// One who calls.
pub(super) struct Caller<T> {
    pub(super) channel: Channel,
    /// His number, by the kernel's word.
    pub(super) uid: u32,
    /// When he is dropped.
    until: Instant,
    /// Whether all has been said to him.
    answered: bool,
    /// What is known of what he wants.
    pub(super) state: T,
}

impl<T> Caller<T> {
    /// Whether all has been said to him.
    pub(super) const fn is_answered(&self) -> bool {
        self.answered
    }
}

/// What a socket takes.
pub(super) struct Terms {
    /// Calls at the same time, of all users together.
    pub(super) most: usize,
    /// Of one user.
    pub(super) each: usize,
    /// How long one may take.
    pub(super) time: Duration,
}

/// A socket and its callers.
pub(super) struct Callers<T> {
    listener: Option<(OwnedFd, PathBuf, Token)>,
    all: BTreeMap<u64, Caller<T>>,
    next: u64,
    terms: Terms,
    token: fn(u64) -> Token,
}

impl<T: Default> Callers<T> {
    /// Nobody yet, and no socket.
    pub(super) const fn new(terms: Terms, token: fn(u64) -> Token) -> Self {
        Self {
            listener: None,
            all: BTreeMap::new(),
            next: 0,
            terms,
            token,
        }
    }

    /// Listens at a path.
    ///
    /// # Errors
    /// It cannot.
    pub(super) fn open(
        &mut self,
        registry: &Registry,
        (path, mode): (&Path, u32),
        token: Token,
    ) -> Result<(), Fault> {
        let listener = local::listener(path, mode).map_err(|e| Fault::of(path, e))?;
        registry.register(
            &mut SourceFd(&listener.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        self.listener = Some((listener, path.to_owned(), token));
        Ok(())
    }

    /// Listens no more, and takes the socket's file away.
    pub(super) fn close(&mut self) {
        if let Some((_, path, _)) = self.listener.take() {
            let _ = std::fs::remove_file(path);
        }
        self.all.clear();
    }

    /// Takes those who have called and may. Who is one too many is hung up.
    pub(super) fn take(&mut self, registry: &Registry, may: impl Fn(u32) -> bool, now: Instant) {
        let Some((listener, _, own)) = &self.listener else {
            return;
        };
        for _ in 0..AT_ONCE {
            let Ok(Some(socket)) = local::accept(listener) else {
                return;
            };
            let Ok(uid) = local::user_of(&socket) else {
                continue;
            };
            let his = self.all.values().filter(|c| c.uid == uid).count();
            if !may(uid) || his >= self.terms.each || self.all.len() >= self.terms.most {
                continue;
            }
            let token = (self.token)(self.next);
            let fd = socket.as_raw_fd();
            if registry
                .register(&mut SourceFd(&fd), token, Interest::READABLE)
                .is_err()
            {
                continue;
            }
            let caller = Caller {
                channel: Channel::new(socket),
                uid,
                until: now + self.terms.time,
                answered: false,
                state: T::default(),
            };
            self.all.insert(self.next, caller);
            self.next += 1;
        }
        // They who call without end have their next turn later.
        let fd = listener.as_raw_fd();
        let _ = registry.reregister(&mut SourceFd(&fd), *own, Interest::READABLE);
    }

    /// One of them.
    pub(super) fn get(&mut self, id: u64) -> Option<&mut Caller<T>> {
        self.all.get_mut(&id)
    }

    /// All of them, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Caller<T>)> {
        self.all.iter().map(|(id, caller)| (*id, caller))
    }

    /// What one says, if he has said something. Who is gone, or says too much, is dropped.
    pub(super) fn hear(&mut self, id: u64, buffer: &mut [u8]) -> Option<Zeroizing<Vec<u8>>> {
        let caller = self.all.get(&id)?;
        match caller.channel.receive(buffer) {
            Ok(Incoming::Message(message, _)) => Some(message),
            Ok(Incoming::Nothing) => None,
            Ok(Incoming::Gone) | Err(_) => {
                self.all.remove(&id);
                None
            }
        }
    }

    /// Tells one the rest, which ends his call once he has taken it.
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

    /// Whether one has been answered, and only has still to take it: it goes on here.
    pub(super) fn settle(&mut self, registry: &Registry, id: u64) -> bool {
        let Some(caller) = self.all.get_mut(&id).filter(|c| c.answered) else {
            return false;
        };
        let fd = caller.channel.as_fd().as_raw_fd();
        let both = Interest::READABLE | Interest::WRITABLE;
        let waits = caller.channel.flush().is_ok() && caller.channel.is_waiting();
        let token = (self.token)(id);
        if !waits
            || registry
                .reregister(&mut SourceFd(&fd), token, both)
                .is_err()
        {
            self.all.remove(&id);
        }
        true
    }

    /// When the next one is dropped.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.all.values().map(|c| c.until).min()
    }

    /// Drops those whose time is over.
    pub(super) fn tend(&mut self, now: Instant) {
        self.all.retain(|_, c| c.until > now);
    }
}
