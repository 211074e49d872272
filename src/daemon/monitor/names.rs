//! Hosts and users: HOSTINFO and the addresses of its names, the accounts, and the look-up
//! processes that find both.
//!
//! Runs in the monitor. Owns [`Hosts`], [`Accounts`] and [`LookUps`], and gives each answer of a
//! look-up process to the one that asked. Must not wait for an answer, and logs no text of a
//! process but as a value.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::accounts::Accounts;
pub(super) use super::accounts::FoundUser;
use super::ground::Ground;
use super::hosts::{Hosts, Refreshed, Resolution};
use super::look_ups::{Found, LookUp, LookUpEvent, LookUps};
use crate::auth::policy::AccountUse;
use crate::config::hostinfo::HostTable;
use crate::config::name::HostName;
use crate::daemon::sources::Networks;
use crate::fault::Fault;
use crate::ipc::lookup::Question;
use crate::log::{Level, log, log_ratelimited};
use crate::sys::account::{Account, UserRecord};
use crate::sys::confine::Confined;

/// Most look-ups of backends' hosts at the same time, fewer than one process looks up.
const BACKENDS: usize = 8;

/// Hosts and users.
pub(super) struct Names {
    hosts: Hosts,
    accounts: Accounts,
    look_ups: LookUps,
    /// The addresses that HOSTINFO lists.
    listed: Networks,
    /// The look-ups of backends' hosts that are under way.
    backends: BTreeSet<LookUp>,
    /// Whether these have changed since the last [`Self::new_networks`].
    has_new_networks: bool,
}

/// What a look-up process has found.
pub(super) enum NameEvent {
    /// A user, or that there is none, or why that is not known.
    User(LookUp, Result<Option<Box<UserRecord>>, String>),
    /// The addresses of a backend's host, or why they are not known.
    Backend(LookUp, Result<Vec<IpAddr>, String>),
    /// The look-up of this host's name has ended. `true`: those who wait for any name may go on.
    Host(Option<HostName>, bool),
}

impl Names {
    /// Returns them with the hosts loaded. `own`: the only account that can be served.
    pub(super) fn new(hosts: Hosts, own: Option<Account>, look_ups: LookUps) -> Self {
        Self {
            hosts,
            accounts: Accounts::new(own),
            look_ups,
            listed: Networks::default(),
            backends: BTreeSet::new(),
            has_new_networks: true,
        }
    }

    // ---- hosts ----

    /// Returns HOSTINFO, or why there is none.
    pub(super) const fn table(&self) -> Result<&HostTable, &Fault> {
        self.hosts.table()
    }

    /// Returns the hosts and what their names resolve to.
    pub(super) const fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Loads HOSTINFO again if it has changed.
    pub(super) fn refresh(&mut self, ground: &mut Ground, now: Instant) {
        if matches!(self.hosts.refresh(&ground.paths), Refreshed::New) {
            self.announce_hosts(ground, now);
        }
    }

    /// Loads HOSTINFO again.
    pub(super) fn reload(&mut self, ground: &mut Ground, now: Instant) {
        self.hosts.reload(&ground.paths);
        self.announce_hosts(ground, now);
    }

    /// Logs a HOSTINFO that is new, and has its names looked up.
    pub(super) fn announce_hosts(&mut self, ground: &mut Ground, now: Instant) {
        match self.hosts.table() {
            Ok(table) => {
                let hosts = table.entries().len();
                log!(ground.log, Info, "hostinfo", hosts = hosts);
                for fault in table.faults() {
                    log!(ground.log, Warning, "hostinfo", fault);
                }
            }
            Err(e) => log!(ground.log, Error, "hostinfo", fault = e),
        }
        self.resolve(ground, now);
        self.has_new_networks = true;
    }

    fn resolve(&mut self, ground: &mut Ground, now: Instant) {
        let registry = ground.poll.registry();
        if let Err(e) = self.hosts.resolve(&mut self.look_ups, registry, now) {
            let why = format!("names are not resolved, and keep the addresses that they had: {e}");
            log!(ground.log, Warning, "hostinfo", fault = why);
        }
    }

    /// Has a name looked up because a connection needs it. Returns whether to wait for that.
    pub(super) fn want(&mut self, ground: &mut Ground, name: &HostName, now: Instant) -> bool {
        let is_wanted = self.hosts.want(name, now);
        if is_wanted {
            self.resolve(ground, now);
        }
        is_wanted
    }

    /// Looks up the host of a backend.
    ///
    /// # Errors
    /// Too many look-ups are under way, or no process is available.
    pub(super) fn find_backend(
        &mut self,
        ground: &Ground,
        host: &str,
        now: Instant,
    ) -> Result<LookUp, String> {
        if self.backends.len() >= BACKENDS {
            return Err("too many look-ups of backends' hosts".into());
        }
        let question = Question::Host(host.to_owned());
        let asked = self.look_ups.ask(ground.registry(), question, now);
        let which = asked.map_err(|e| e.to_string())?;
        self.backends.insert(which);
        Ok(which)
    }

    /// Returns the networks that HOSTINFO lists.
    pub(super) fn networks(&self) -> Vec<(IpAddr, u8)> {
        self.hosts.networks()
    }

    /// Returns the same if they have changed since the last call.
    pub(super) fn new_networks(&mut self) -> Option<Vec<(IpAddr, u8)>> {
        if !std::mem::take(&mut self.has_new_networks) {
            return None;
        }
        let networks = self.hosts.networks();
        self.listed = networks.iter().copied().collect();
        Some(networks)
    }

    /// Whether HOSTINFO lists an address.
    pub(super) fn lists(&self, from: IpAddr) -> bool {
        let listed: Networks = self.hosts.networks().into_iter().collect();
        listed.has(from)
    }

    fn host_found(
        &mut self,
        ground: &mut Ground,
        which: LookUp,
        found: Result<Vec<IpAddr>, String>,
        now: Instant,
    ) -> NameEvent {
        let name = self.hosts.looked_up(which).cloned();
        let (resolution, unresolved) = self.hosts.look_up_ended(which, found, now);
        self.resolve(ground, now);
        if let Some((name, why)) = unresolved {
            let why = format!("its name does not resolve ({why}); it will be looked up again");
            log_ratelimited!(ground.log, Warning, "hostinfo", host = name, fault = why);
        }
        let is_all = resolution == Resolution::All;
        if is_all {
            let left = self.hosts.unresolved();
            let names = if left == 0 { "resolved" } else { "unresolved" };
            log_ratelimited!(ground.log, Info, "hostinfo", names = names, left = left);
        }
        if resolution != Resolution::Same {
            self.has_new_networks = true;
        }
        NameEvent::Host(name, is_all || !self.hosts.is_resolving())
    }

    // ---- users ----

    /// Returns the name of the only user that can be served, if this is not root.
    pub(super) fn serves(&self) -> Option<&str> {
        self.accounts.serves()
    }

    /// Returns the only user besides root that this daemon obeys, if it does not run as root.
    pub(super) fn own_uid(&self) -> Option<u32> {
        let own = self.accounts.serves();
        own.map(|_| nix::unistd::geteuid().as_raw())
    }

    /// Finds a user: in the cache, or by a look-up process.
    pub(super) fn find_user(&mut self, ground: &Ground, name: &str, now: Instant) -> FoundUser {
        let registry = ground.registry();
        self.accounts.name_groups(ground.settings.service.groups());
        self.accounts.find(&mut self.look_ups, registry, name, now)
    }

    /// Finds the user of a user ID. `None`: not now, but the end of another look-up makes room.
    pub(super) fn find_uid(
        &mut self,
        ground: &Ground,
        uid: u32,
        now: Instant,
    ) -> Option<FoundUser> {
        let registry = ground.registry();
        self.accounts.name_groups(ground.settings.service.groups());
        let look_ups = &mut self.look_ups;
        let found = self.accounts.find_number(look_ups, registry, uid, now);
        let waits = matches!(found, FoundUser::Busy(_)) && self.accounts.numbers() > 0;
        (!waits).then_some(found)
    }

    /// Whether a user ID is a user's.
    pub(super) fn user_exists(&mut self, uid: u32) -> bool {
        self.accounts.user_exists(&mut self.look_ups, uid)
    }

    /// Checks whether an account may be used in this way: it has not expired and, if a user is to log
    /// in by it, is not locked.
    ///
    /// # Errors
    /// Returns why it may not.
    pub(super) fn check(&mut self, record: &UserRecord, usage: AccountUse) -> Result<(), String> {
        self.accounts.check(record, usage)
    }

    // ---- look-up processes ----

    /// Prepares a look-up process for the user of a request that is coming. Not for an address that
    /// HOSTINFO does not list; not while an account is known, which the request probably needs; and
    /// only as root, since others serve one user only.
    pub(super) fn prepare(&mut self, ground: &Ground, from: IpAddr) {
        let now = Instant::now();
        let serves_others = self.accounts.serves().is_none();
        if serves_others && !self.accounts.knows_any(now) && self.listed.has(from) {
            self.look_ups.prepare(ground.registry(), now);
        }
    }

    /// Handles the messages of a look-up process, whose answers are the next events.
    pub(super) fn handle_messages(
        &mut self,
        ground: &Ground,
        id: u64,
        buffer: &mut [u8],
        now: Instant,
    ) {
        let registry = ground.registry();
        self.look_ups.handle_messages(registry, id, buffer, now);
    }

    /// Returns what was found since the last call.
    pub(super) fn events(&mut self, ground: &mut Ground, now: Instant) -> Vec<NameEvent> {
        let mut events = Vec::new();
        for event in self.look_ups.event() {
            match event {
                LookUpEvent::Ready(confined, is_first) => log_look_up(ground, confined, is_first),
                LookUpEvent::Lost(why) => {
                    log!(ground.log, Error, "lost", process = "lookup", why);
                }
                LookUpEvent::Found(which, Found::User(found)) => {
                    let record = found.as_ref().ok().and_then(Option::as_deref);
                    self.accounts.look_up_ended(which, record, now);
                    self.accounts.look_again(&mut self.look_ups);
                    events.push(NameEvent::User(which, found));
                }
                LookUpEvent::Found(which, Found::Host(found)) if self.backends.remove(&which) => {
                    events.push(NameEvent::Backend(which, found));
                }
                LookUpEvent::Found(which, Found::Host(found)) => {
                    events.push(self.host_found(ground, which, found, now));
                }
            }
        }
        events
    }

    /// Closes what look-up processes sent without being asked, and passes on those that ended.
    pub(super) fn tidy(&mut self, ground: &mut Ground) {
        self.look_ups.close_unread();
        ground.unreaped.extend(self.look_ups.unreaped());
    }

    /// Asks no more questions, and ends each look-up process once it has been idle for this time.
    pub(super) fn retire(&mut self, after: Duration, now: Instant) {
        self.look_ups.retire(after, now);
    }

    /// Returns when something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let hosts = self.hosts.deadline().into_iter();
        hosts.chain(self.look_ups.deadline()).min()
    }

    /// Handles what is due.
    pub(super) fn expire(&mut self, ground: &mut Ground, now: Instant) {
        if self.hosts.deadline().is_some_and(|at| at <= now) {
            self.hosts.queue_due_names(now);
            self.resolve(ground, now);
        }
        if self.look_ups.deadline().is_some_and(|at| at <= now) {
            self.look_ups.expire(ground.registry(), now);
        }
    }

    /// Kills the look-up processes: one that hangs may end later.
    pub(super) fn finish(&mut self, ground: &mut Ground) {
        ground.unreaped.extend(self.look_ups.finish());
    }
}

fn log_look_up(ground: &mut Ground, confined: Confined, is_first: bool) {
    let level = match is_first && !ground.is_inetd {
        true => Level::Info,
        false => Level::Debug,
    };
    ground.log.say(
        level,
        "started",
        &[
            ("process", &"lookup"),
            ("user", &confined.user),
            ("landlock", &confined.landlock),
            ("seccomp", &confined.seccomp),
        ],
    );
    for (protection, why) in confined.missing().filter(|_| is_first) {
        ground.warn_of_missing("lookup", protection, &why);
    }
}
