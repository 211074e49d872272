//! The signer's socket, `run/sign`: ordinary users ask the monitor to vouch for them to another
//! host (mechanism `vouch`).
//!
//! connected → (the request, in fields) → (the user name, which a child looks up) → signed. Runs in
//! the monitor. The kernel reports the user; [`crate::signer`] builds what is signed. Must sign for
//! no user but the one that asks.

use std::time::{Duration, Instant};

use super::super::event_source;
use super::super::ground::Ground;
use super::super::look_ups::LookUp;
use super::super::names::{FoundUser, Names};
use super::callers::{Callers, Terms};
use crate::config::name::{HostName, UserName};
use crate::fault::Fault;
use crate::log::log_by_user;
use crate::signer::fields::{Ask, MESSAGE, Reply, Signed};
use crate::signer::{self, check_number};
use crate::sys::account::{Account, UserRecord};
use crate::sys::id_number::IdNumber;

/// The limits of the socket. A client may stay a little longer than the look-up of a name may take.
///
/// A user's script may start any number of programs side by side: they wait in the queue. A program
/// that finds the queue full tries again.
const TERMS: Terms = Terms {
    most: 64,
    each: 8,
    line: 256,
    line_each: 64,
    time: Duration::from_secs(12),
};

/// A client's request. Without `ask`, it has not come yet. Without `look_up`, its look-up cannot
/// begin before another has ended.
#[derive(Default)]
pub(super) struct Wanted {
    ask: Option<Box<Ask>>,
    look_up: Option<LookUp>,
}

/// The signer's socket and its clients.
pub(in super::super) struct Signer {
    pub(super) callers: Callers<Wanted>,
    /// The user of gate, relay and look-up processes.
    confined: Option<IdNumber>,
}

impl Signer {
    /// Returns it without a socket. `confined`: the user of the daemon's own confined processes.
    pub(super) const fn new(confined: Option<IdNumber>) -> Self {
        Self {
            callers: Callers::new(TERMS, event_source::wants_signature),
            confined,
        }
    }

    /// Opens the socket: to every user if this is root, else only to the daemon's own user.
    pub(super) fn open(&mut self, ground: &Ground, names: &Names) -> Result<(), Fault> {
        let mode = match names.serves() {
            None => 0o666,
            Some(_) => 0o600,
        };
        let path = ground.paths.signer();
        let registry = ground.registry();
        self.callers
            .open(registry, (&path, mode), event_source::SIGN)
    }

    /// Accepts new clients.
    pub(in super::super) fn take(&mut self, ground: &Ground, names: &mut Names, now: Instant) {
        let own = names.own_uid();
        let may = |uid| own.is_none_or(|own| uid == own || uid == 0);
        let user_exists = |uid| names.user_exists(uid);
        self.callers.take(ground.registry(), may, user_exists, now);
    }

    /// Handles a client's request.
    pub(in super::super) fn handle_caller(
        &mut self,
        ground: &mut Ground,
        names: &mut Names,
        id: u64,
        now: Instant,
    ) {
        if self.callers.settle(ground.registry(), id) {
            return;
        }
        let mut buffer = [0; MESSAGE];
        let Some(message) = self.callers.handle_messages(id, &mut buffer) else {
            return;
        };
        let Some(caller) = self.callers.get(id).filter(|c| c.state.ask.is_none()) else {
            return;
        };
        let uid = caller.uid;
        let asked = Ask::decode(&message).map_err(|m| Fault::new(m.to_string()));
        let checked =
            check_number(uid).and_then(|()| match self.confined.is_some_and(|own| own == uid) {
                // A compromised look-up process could otherwise request a signature and act on
                // other hosts.
                true => Err(Fault::new(format!("user {uid} is the daemon's own"))),
                false => Ok(()),
            });
        match asked.and_then(|ask| checked.map(|()| ask)) {
            Ok(ask) => caller.state.ask = Some(Box::new(ask)),
            Err(why) => return self.answer(ground, id, None, Err(why)),
        }
        self.find_user(ground, names, id, uid, now);
    }

    /// Looks up a client's user, or leaves that until another look-up ends.
    fn find_user(
        &mut self,
        ground: &mut Ground,
        names: &mut Names,
        id: u64,
        uid: u32,
        now: Instant,
    ) {
        match names.find_uid(ground, uid, now) {
            Some(FoundUser::User(record)) => {
                self.sign(ground, names, id, Some(&record.account), now)
            }
            Some(FoundUser::Looking(which)) => {
                if let Some(caller) = self.callers.get(id) {
                    caller.state.look_up = Some(which);
                }
            }
            Some(FoundUser::Busy(why)) => {
                let why = Fault::new(why).while_doing("looking the user up");
                self.answer(ground, id, None, Err(why));
            }
            None => {}
        }
    }

    /// Handles the end of a look-up: continues the requests that wait for it, and tries the
    /// look-ups that could not begin.
    pub(in super::super) fn user_found(
        &mut self,
        ground: &mut Ground,
        names: &mut Names,
        which: LookUp,
        record: Option<&UserRecord>,
        now: Instant,
    ) {
        let all = self.callers.iter();
        let waiting = all.filter(|(_, c)| c.state.look_up == Some(which));
        let waiting: Vec<u64> = waiting.map(|(id, _)| id).collect();
        for id in waiting {
            self.sign(ground, names, id, record.map(|r| &r.account), now);
        }
        let all = self.callers.iter();
        let left = all.filter(|(_, c)| c.state.ask.is_some() && c.state.look_up.is_none());
        let left: Vec<(u64, u32)> = left.map(|(id, c)| (id, c.uid)).collect();
        for (id, uid) in left {
            self.find_user(ground, names, id, uid, now);
        }
    }

    fn sign(
        &mut self,
        ground: &mut Ground,
        names: &mut Names,
        id: u64,
        account: Option<&Account>,
        now: Instant,
    ) {
        let Some(caller) = self.callers.get(id) else {
            return;
        };
        let (uid, ask) = (caller.uid, caller.state.ask.take());
        let Some(ask) = ask else {
            return;
        };
        let account = account.filter(|a| a.uid == uid);
        let no_name = || {
            let words = format!("user {uid} has no name, or it was not found in time");
            Fault::new(words)
        };
        let signed = account
            .ok_or_else(no_name)
            .and_then(|account| UserName::parse(&account.name))
            .and_then(|user| {
                names.refresh(ground, now);
                signed(ground, names, &user, &ask)
            });
        let name = account.map(|a| a.name.clone());
        self.answer(ground, id, Some((name, ask)), signed);
    }

    /// Answers a client, and logs for which user something was signed.
    fn answer(
        &mut self,
        ground: &mut Ground,
        id: u64,
        asked: Option<(Option<String>, Box<Ask>)>,
        signed: Result<Signed, Fault>,
    ) {
        let Some(uid) = self.callers.get(id).map(|c| c.uid) else {
            return;
        };
        let (name, ask) = asked.unzip();
        let user = name.flatten().unwrap_or_else(|| format!("#{uid}"));
        let host = ask.as_ref().map_or("?", |a| a.host.as_str());
        let reply = match signed {
            Ok(signed) => {
                let service = ask.as_ref().map_or("?", |a| a.service.name());
                log_by_user!(ground.log, uid, Info, "signed", user, host, service);
                Reply::Signed(signed)
            }
            Err(why) => {
                log_by_user!(ground.log, uid, Warning, "not-signed", user, host, why);
                Reply::Refused(why.to_string())
            }
        };
        let message = reply.encode().unwrap_or_default();
        self.callers.answer(ground.registry(), id, vec![message]);
    }
}

fn signed(ground: &Ground, names: &Names, user: &UserName, ask: &Ask) -> Result<Signed, Fault> {
    let table = names.table().map_err(Clone::clone)?;
    let host = HostName::parse(&ask.host)?;
    let entry = table.get(&host).ok_or_else(|| {
        let words = format!("{host} has no valid entry in it");
        Fault::of(&ground.paths.hostinfo(), words)
    })?;
    signer::sign(&ground.paths.clone().once(), entry, user, ask)
}
