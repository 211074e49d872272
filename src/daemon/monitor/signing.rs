//! The signer's socket, `run/sign`: ordinary users ask the monitor to vouch for them to another
//! host (mechanism `vouch`).
//!
//! connected → (the request, in fields) → (the user name, which a child looks up) → signed. Runs in
//! the monitor. The kernel reports the user; [`crate::signer`] builds what is signed.

use std::time::{Duration, Instant};

use super::accounts::Known;
use super::callers::{Callers, Terms};
use super::look_ups::LookUp;
use super::{Monitor, event_source};
use crate::config::name::{HostName, UserName};
use crate::fault::Fault;
use crate::log::log_by_user;
use crate::signer::fields::{Ask, MESSAGE, Reply, Signed};
use crate::signer::{self, check_number};
use crate::sys::account::Account;

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
pub(super) type SignSocket = Callers<Wanted>;

/// Returns a signer without a socket.
pub(super) const fn sign_socket() -> SignSocket {
    Callers::new(TERMS, event_source::wants_signature)
}

impl Monitor {
    /// Opens the socket: to every user if this is root, else only to the daemon's own user.
    pub(super) fn open_sign_socket(&mut self) -> Result<(), Fault> {
        let mode = if self.accounts.serves().is_none() {
            0o666
        } else {
            0o600
        };
        let path = self.paths.signer();
        self.sign_socket
            .open(self.poll.registry(), (&path, mode), event_source::SIGN)
    }

    /// Accepts new clients.
    pub(super) fn take_calls_to_sign(&mut self, now: Instant) {
        let own = self.own_number();
        let may = |uid| own.is_none_or(|own| uid == own || uid == 0);
        let (accounts, look_ups) = (&mut self.accounts, &mut self.look_ups);
        let user_exists = |uid| accounts.user_exists(look_ups, uid);
        self.sign_socket
            .take(self.poll.registry(), may, user_exists, now);
    }

    /// Closes the sockets with data that is never read: descriptors, or more than was asked for.
    pub(super) fn close_unread(&mut self, now: Instant) {
        let registry = self.poll.registry();
        let mut users = self
            .sign_socket
            .close_unread(registry, &mut self.unreaped, now);
        let unreaped = &mut self.unreaped;
        users.extend(self.control.close_unread(registry, unreaped, now));
        for uid in users {
            log_by_user!(self.log, uid, Warning, "unread", uid);
        }
    }

    /// Handles a client's request.
    pub(super) fn handle_caller(&mut self, id: u64, now: Instant) {
        if self.sign_socket.settle(self.poll.registry(), id) {
            return;
        }
        let mut buffer = [0; MESSAGE];
        let Some(message) = self.sign_socket.handle_messages(id, &mut buffer) else {
            return;
        };
        let Some(caller) = self.sign_socket.get(id).filter(|c| c.state.ask.is_none()) else {
            return;
        };
        let uid = caller.uid;
        let asked = Ask::decode(&message).map_err(|m| Fault::new(m.to_string()));
        let is_ours = self
            .sandbox_config
            .as_ref()
            .is_some_and(|sandbox_config| sandbox_config.uid == uid);
        let checked = check_number(uid).and_then(|()| match is_ours {
            // A compromised look-up process could otherwise request a signature and act on other
            // hosts.
            true => Err(Fault::new(format!("user {uid} is the daemon's own"))),
            false => Ok(()),
        });
        let asked = asked.and_then(|ask| checked.map(|()| ask));
        match asked {
            Ok(ask) => caller.state.ask = Some(Box::new(ask)),
            Err(why) => return self.answer_caller(id, None, Err(why)),
        }
        self.find_caller(id, uid, now);
    }

    /// Looks up a client's user, or leaves that until another look-up ends.
    fn find_caller(&mut self, id: u64, uid: u32, now: Instant) {
        let registry = self.poll.registry();
        let found = self
            .accounts
            .find_number(&mut self.look_ups, registry, uid, now);
        match found {
            Known::User(record) => self.sign(id, Some(&record.account)),
            Known::Looking(which) => {
                if let Some(caller) = self.sign_socket.get(id) {
                    caller.state.look_up = Some(which);
                }
            }
            Known::Busy(_) if self.accounts.numbers() > 0 => {}
            Known::Busy(why) => {
                let why = Fault::new(why).while_doing("looking the user up");
                self.answer_caller(id, None, Err(why));
            }
        }
    }

    /// Handles the end of a look-up: continues the requests that wait for it, and tries the
    /// look-ups that could not begin.
    pub(super) fn caller_found(&mut self, which: LookUp, account: Option<&Account>) {
        let waiting = self
            .sign_socket
            .iter()
            .filter(|(_, c)| c.state.look_up == Some(which));
        let waiting: Vec<u64> = waiting.map(|(id, _)| id).collect();
        for id in waiting {
            self.sign(id, account);
        }
        let left = self
            .sign_socket
            .iter()
            .filter(|(_, c)| c.state.ask.is_some() && c.state.look_up.is_none());
        let left: Vec<(u64, u32)> = left.map(|(id, c)| (id, c.uid)).collect();
        for (id, uid) in left {
            self.find_caller(id, uid, Instant::now());
        }
    }

    fn sign(&mut self, id: u64, account: Option<&Account>) {
        let Some(caller) = self.sign_socket.get(id) else {
            return;
        };
        let (uid, ask) = (caller.uid, caller.state.ask.take());
        let Some(ask) = ask else {
            return;
        };
        let account = account.filter(|a| a.uid == uid);
        let no_name = || {
            Fault::new(format!(
                "user {uid} has no name, or it was not found in time"
            ))
        };
        let signed = account
            .ok_or_else(no_name)
            .and_then(|account| UserName::parse(&account.name))
            .and_then(|user| self.signed(&user, &ask));
        let name = account.map(|a| a.name.clone());
        self.answer_caller(id, Some((name, ask)), signed);
    }

    fn signed(&mut self, user: &UserName, ask: &Ask) -> Result<Signed, Fault> {
        self.refresh_hosts();
        let table = self.hosts.table().map_err(Clone::clone)?;
        let host = HostName::parse(&ask.host)?;
        let entry = table.get(&host).ok_or_else(|| {
            let words = format!("{host} has no valid entry in it");
            Fault::of(&self.paths.hostinfo(), words)
        })?;
        signer::sign(&self.paths.clone().once(), entry, user, ask)
    }

    /// Answers a client, and logs for which user something was signed.
    fn answer_caller(
        &mut self,
        id: u64,
        asked: Option<(Option<String>, Box<Ask>)>,
        signed: Result<Signed, Fault>,
    ) {
        let Some(uid) = self.sign_socket.get(id).map(|c| c.uid) else {
            return;
        };
        let (name, ask) = asked.unzip();
        let user = name.flatten().unwrap_or_else(|| format!("#{uid}"));
        let host = ask.as_ref().map_or("?", |a| a.host.as_str());
        let reply = match signed {
            Ok(signed) => {
                let service = ask.as_ref().map_or("?", |a| a.service.name());
                log_by_user!(self.log, uid, Info, "signed", user, host, service);
                Reply::Signed(signed)
            }
            Err(why) => {
                log_by_user!(self.log, uid, Warning, "not-signed", user, host, why);
                Reply::Refused(why.to_string())
            }
        };
        let message = reply.encode().unwrap_or_default();
        self.sign_socket
            .answer(self.poll.registry(), id, vec![message]);
    }
}
