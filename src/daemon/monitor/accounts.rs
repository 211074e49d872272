//! The monitor's cache of accounts, filled by a look-up process and dropped when a local account
//! file changes; and whether an account may be used.
//!
//! Runs in the monitor. Owns the cached accounts and the look-ups of users under way. Must never
//! call NSS itself, whose modules may block and are third-party code. It reads local files only.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use mio::Registry;

use super::look_ups::{LookUp, LookUps, USERS_AT_ONCE};
use crate::auth::policy::AccountUse;
use crate::config::name::UserName;
use crate::ipc::lookup::Question;
use crate::sys::account::{Account, UserRecord};
use crate::sys::shadow::{self, Validity};

/// How long an account from a directory server may be stale.
const FRESH: Duration = Duration::from_secs(30);
/// Most look-ups of user IDs at the same time, besides those of names: local users cause them.
const NUMBERS: usize = USERS_AT_ONCE / 2;
/// Most accounts kept.
const KEPT: usize = 1024;

/// The files that define which accounts there are, and which may be used.
const FILES: [&str; 4] = [
    NSSWITCH,
    "/etc/passwd",
    "/etc/group",
    crate::sys::shadow::SHADOW,
];
/// The configuration file of NSS.
const NSSWITCH: &str = "/etc/nsswitch.conf";

/// The version of a file.
type Stamp = Option<[i64; 4]>;

/// The cached accounts, and the look-ups under way.
pub(super) struct Accounts {
    /// The only account, if this is not root.
    own: Option<Account>,
    known: HashMap<String, (UserRecord, Instant)>,
    /// The names of user IDs.
    names: HashMap<u32, (String, Instant)>,
    /// What `/etc/shadow` says of accounts.
    validity: HashMap<String, Option<Validity>>,
    /// The user IDs in `/etc/passwd`, once read.
    local: Option<BTreeSet<u32>>,
    files: [Stamp; FILES.len()],
    /// The groups that access rules name.
    groups: Vec<String>,
    /// How often the files have changed.
    changes: u64,
    looking: HashMap<LookUp, Looking>,
}

/// A look-up under way: the user, and how often the files had changed when it began.
struct Looking {
    whom: Whom,
    changes: u64,
}

/// The user that is looked up.
#[derive(PartialEq, Eq)]
enum Whom {
    Name(String),
    Number(u32),
}

/// The result of a request for a user.
pub(super) enum FoundUser {
    /// The account.
    User(Box<UserRecord>),
    /// It is being looked up.
    Looking(LookUp),
    /// It cannot be looked up, and why: too many look-ups, or no process available.
    Busy(String),
}

impl Accounts {
    /// Serves all accounts as root, or only the one user of this process.
    pub(super) fn new(own: Option<Account>) -> Self {
        Self {
            own,
            known: HashMap::new(),
            names: HashMap::new(),
            validity: HashMap::new(),
            local: None,
            files: stamps(),
            groups: Vec::new(),
            changes: 0,
            looking: HashMap::new(),
        }
    }

    /// Returns the name of the only user that can be served, if this is not root.
    pub(super) fn serves(&self) -> Option<&str> {
        self.own.as_ref().map(|a| a.name.as_str())
    }

    /// Sets the groups that access rules name, which a look-up of a user finds, too.
    pub(super) fn name_groups(&mut self, groups: &[String]) {
        if self.groups != groups {
            self.groups = groups.to_vec();
            self.forget();
        }
    }

    fn own(&self, is: impl Fn(&Account) -> bool) -> Option<FoundUser> {
        // The groups' names are not known at the start.
        let is_needed = |a: &&Account| self.groups.is_empty() && is(a);
        let own = self.own.as_ref().filter(is_needed)?;
        Some(FoundUser::User(Box::new(UserRecord {
            account: own.clone(),
            validity: None,
            named_groups: Some(Vec::new()),
        })))
    }

    /// Finds a user: in the cache, or by a look-up process.
    pub(super) fn find(
        &mut self,
        look_ups: &mut LookUps,
        registry: &Registry,
        name: &str,
        now: Instant,
    ) -> FoundUser {
        if let Some(own) = self.own(|a| a.name == name) {
            return own;
        }
        self.forget_changed(look_ups);
        match self.known.get(name) {
            Some((record, until)) if *until > now => {
                return FoundUser::User(Box::new(record.clone()));
            }
            _ => {}
        }
        self.look_up(look_ups, registry, Whom::Name(name.to_owned()), now)
    }

    /// Finds the user of a user ID. These look-ups share no slots with those of names, which remote
    /// peers cause.
    pub(super) fn find_number(
        &mut self,
        look_ups: &mut LookUps,
        registry: &Registry,
        uid: u32,
        now: Instant,
    ) -> FoundUser {
        if let Some(own) = self.own(|a| a.uid == uid) {
            return own;
        }
        self.forget_changed(look_ups);
        let name = self.names.get(&uid).filter(|(_, until)| *until > now);
        match name.and_then(|(name, _)| self.known.get(name)) {
            Some((record, until)) if *until > now && record.account.uid == uid => {
                return FoundUser::User(Box::new(record.clone()));
            }
            _ => {}
        }
        self.look_up(look_ups, registry, Whom::Number(uid), now)
    }

    /// Returns how many user IDs are being looked up.
    pub(super) fn numbers(&self) -> usize {
        let all = self.looking.values();
        all.filter(|l| matches!(l.whom, Whom::Number(_))).count()
    }

    /// Whether an account is known that need not be looked up now.
    pub(super) fn knows_any(&self, now: Instant) -> bool {
        self.known.values().any(|(_, until)| *until > now)
    }

    fn forget_changed(&mut self, look_ups: &mut LookUps) {
        let files = stamps();
        if files == self.files {
            return;
        }
        if files.first() != self.files.first() {
            // A C library may have read it once and for all.
            look_ups.renew();
        }
        self.files = files;
        self.forget();
    }

    /// Forgets what was found, and what is found by the look-ups under way.
    fn forget(&mut self) {
        self.changes += 1;
        self.known.clear();
        self.names.clear();
        self.validity.clear();
        self.local = None;
    }

    /// Whether this user ID is in `/etc/passwd`, or was found lately: it is a user's, and not one
    /// of a user's many subordinate IDs (subuid(5)).
    pub(super) fn user_exists(&mut self, look_ups: &mut LookUps, uid: u32) -> bool {
        self.forget_changed(look_ups);
        let local = self.local.get_or_insert_with(local_numbers);
        local.contains(&uid) || self.names.contains_key(&uid)
    }

    fn look_up(
        &mut self,
        look_ups: &mut LookUps,
        registry: &Registry,
        whom: Whom,
        now: Instant,
    ) -> FoundUser {
        // One look-up serves all concurrent requests for the same user.
        let same = |l: &Looking| l.whom == whom && l.changes == self.changes;
        if let Some((which, _)) = self.looking.iter().find(|(_, l)| same(l)) {
            return FoundUser::Looking(*which);
        }
        let (question, has_room) = match &whom {
            Whom::Name(name) => (
                Question::User(name.clone(), self.groups.clone()),
                self.looking.len() - self.numbers() < USERS_AT_ONCE,
            ),
            Whom::Number(uid) => (
                Question::Number(*uid, self.groups.clone()),
                self.numbers() < NUMBERS,
            ),
        };
        if !has_room {
            return FoundUser::Busy("too many account look-ups".to_owned());
        }
        match look_ups.ask(registry, question, now) {
            Ok(which) => {
                // Read it now, while the look-up process works. A fault is found and reported again
                // when the account is checked.
                if let Whom::Name(name) = &whom {
                    let _ = self.validity(name);
                }
                let changes = self.changes;
                self.looking.insert(which, Looking { whom, changes });
                FoundUser::Looking(which)
            }
            Err(e) => FoundUser::Busy(e.to_string()),
        }
    }

    /// Handles the end of a look-up.
    pub(super) fn look_up_ended(
        &mut self,
        which: LookUp,
        found: Option<&UserRecord>,
        now: Instant,
    ) {
        let Some(looking) = self.looking.remove(&which) else {
            return;
        };
        // An answer to a question from before a change may be out of date.
        let Some(record) = found.filter(|_| looking.changes == self.changes) else {
            return;
        };
        if self.known.len() >= KEPT || self.names.len() >= KEPT {
            self.known.clear();
            self.names.clear();
        }
        // Cached by the requested name: a module of NSS provides the one in the record.
        let name = match looking.whom {
            Whom::Name(name) => name,
            Whom::Number(uid) => {
                let name = record.account.name.clone();
                self.names.insert(uid, (name.clone(), now + FRESH));
                name
            }
        };
        self.known.insert(name, (record.clone(), now + FRESH));
    }

    /// Returns what `/etc/shadow` says of an account.
    fn validity(&mut self, name: &str) -> Result<Option<Validity>, String> {
        if let Some(known) = self.validity.get(name) {
            return Ok(*known);
        }
        if self.validity.len() >= KEPT {
            self.validity.clear();
        }
        let read = shadow::local(name).map_err(|e| format!("{}: {e}", shadow::SHADOW))?;
        self.validity.insert(name.to_owned(), read);
        Ok(read)
    }

    /// Checks whether an account may be used in this way: it has not expired and, if a user is to log
    /// in by it, is not locked.
    ///
    /// # Errors
    /// Returns why it may not.
    pub(super) fn check(&mut self, record: &UserRecord, usage: AccountUse) -> Result<(), String> {
        let Account { name, uid, .. } = &record.account;
        let is_root = *uid == 0;
        if let Some(file) = shadow::nologin().filter(|_| !is_root) {
            return Err(format!("{file} exists, so only root may log in"));
        }
        if self.own.is_some() {
            // Only root can read the shadow file, and the process runs as that user already.
            return Ok(());
        }
        let Some(validity) = self.validity(name)?.or(record.validity) else {
            return Ok(());
        };
        if validity.expires.is_some_and(|day| shadow::today() >= day) {
            return Err(format!("the account {name} has expired"));
        }
        // For root, it only means that root's password does not log in.
        if validity.locked && usage == AccountUse::LogIn && !is_root {
            return Err(format!("the password of {name} is locked"));
        }
        Ok(())
    }

    /// Drops what a change of a file has made out of date.
    pub(super) fn look_again(&mut self, look_ups: &mut LookUps) {
        self.forget_changed(look_ups);
    }
}

/// Whether an account's name is valid. An NSS module may return anything, and the name reaches a
/// job's environment and the log.
pub(super) fn has_a_name(account: &Account) -> bool {
    UserName::parse(&account.name).is_ok()
}

/// Returns the user IDs in `/etc/passwd`, up to a size that no real file has.
fn local_numbers() -> BTreeSet<u32> {
    const LONGEST: u64 = 16 << 20;
    let mut bytes = Vec::new();
    if let Ok(file) = File::open("/etc/passwd") {
        // A file that cannot be read lists no user.
        let _ = file.take(LONGEST).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let numbers = text.lines().filter_map(|l| l.split(':').nth(2));
    numbers.filter_map(|n| n.parse().ok()).collect()
}

/// Returns the versions of the local account files.
fn stamps() -> [Stamp; FILES.len()] {
    FILES.map(|file| {
        let m = std::fs::metadata(file).ok()?;
        let number = i64::from_ne_bytes(m.ino().to_ne_bytes());
        let size = i64::from_ne_bytes(m.size().to_ne_bytes());
        // A change of owner or mode counts, too.
        Some([m.ctime(), m.ctime_nsec(), number, size])
    })
}

#[cfg(test)]
mod tests {
    use super::super::look_ups::tests::{one_unresponsive, reap};
    use super::*;
    use crate::sys::id_number::IdNumber;

    fn root() -> UserRecord {
        UserRecord::look_up("root").unwrap().unwrap()
    }

    fn looking(accounts: &mut Accounts, whom: Whom) {
        let changes = accounts.changes;
        accounts.looking.insert(1, Looking { whom, changes });
    }

    fn knows(accounts: &mut Accounts, name: &str, now: Instant) -> bool {
        let mut look_ups = LookUps::new(None);
        let poll = mio::Poll::new().unwrap();
        let found = accounts.find(&mut look_ups, poll.registry(), name, now);
        let knows = matches!(found, FoundUser::User(record) if *record == root());
        for pid in look_ups.finish() {
            let _ = nix::sys::wait::waitpid(pid, None);
        }
        knows
    }

    /// Look-ups that local users cause once took slots of those that the network causes.
    #[test]
    fn look_ups_of_numbers_and_of_names_take_no_slots_of_each_other() {
        let looking = |names: usize, numbers: usize| {
            let names = (0..names).map(|n| Whom::Name(n.to_string()));
            let numbers = (0..numbers).map(|n| Whom::Number(u32::try_from(n).unwrap()));
            let mut accounts = Accounts::new(None);
            for (which, whom) in (100..).zip(names.chain(numbers)) {
                accounts.looking.insert(which, Looking { whom, changes: 0 });
            }
            accounts
        };
        for (names, numbers, name_may, number_may) in [
            (USERS_AT_ONCE - 1, NUMBERS, true, false),
            (USERS_AT_ONCE, NUMBERS - 1, false, true),
        ] {
            let is_asked = |known| matches!(known, FoundUser::Looking(_));
            let (mut all, poll) = one_unresponsive();
            let now = Instant::now();
            let found =
                looking(names, numbers).find(&mut all, poll.registry(), "no-such-user", now);
            assert_eq!(is_asked(found), name_may);
            reap(all);
            let (mut all, poll) = one_unresponsive();
            let found =
                looking(names, numbers).find_number(&mut all, poll.registry(), 4_000_000_001, now);
            assert_eq!(is_asked(found), number_may);
            reap(all);
        }
    }

    #[test]
    fn account_with_an_invalid_name_is_rejected() {
        let mut root = root().account;
        assert!(has_a_name(&root));
        root.name = "ro\u{1b}ot".into();
        assert!(!has_a_name(&root));
    }

    #[test]
    fn existing_user_id_is_known() {
        let mut accounts = Accounts::new(None);
        let mut look_ups = LookUps::new(None);
        assert!(accounts.user_exists(&mut look_ups, 0));
        assert!(!accounts.user_exists(&mut look_ups, 4_000_000_001));
    }

    /// The name in the record comes from an NSS module.
    #[test]
    fn an_account_is_kept_under_the_name_that_was_asked_for() {
        let mut accounts = Accounts::new(None);
        let now = Instant::now();
        looking(&mut accounts, Whom::Name("alias".into()));
        accounts.look_up_ended(1, Some(&root()), now);
        assert!(knows(&mut accounts, "alias", now));
        assert!(accounts.knows_any(now) && !accounts.knows_any(now + FRESH));
    }

    /// An answer to a question from before a file's change was once cached.
    #[test]
    fn what_was_asked_before_a_change_is_not_kept() {
        let mut accounts = Accounts::new(None);
        let now = Instant::now();
        looking(&mut accounts, Whom::Name("alias".into()));
        accounts.changes += 1;
        accounts.look_up_ended(1, Some(&root()), now);
        assert!(!accounts.knows_any(now));
    }

    #[test]
    fn an_expired_account_is_refused_and_only_roots_lock_is_not_looked_at() {
        let mut accounts = Accounts::new(None);
        let mut record = root();
        record.account.name = "no-such-user-here".into();
        let today = shadow::today();
        for (uid, locked, expires, may) in [
            (7, false, None, true),
            (7, false, Some(today + 1), true),
            (7, false, Some(today), false),
            (7, false, Some(0), false),
            (7, true, None, false),
            (0, true, None, true),
            (0, false, Some(1), false),
        ] {
            record.account.uid = IdNumber::new(uid).unwrap();
            record.validity = Some(Validity { locked, expires });
            let said = accounts.check(&record, AccountUse::LogIn);
            assert_eq!(said.is_ok(), may, "{uid} {locked} {expires:?}: {said:?}");
            let said = accounts.check(&record, AccountUse::Service);
            let is_expired = expires.is_some_and(|day| day <= today);
            assert_eq!(said.is_ok(), !is_expired, "a service's own user: {said:?}");
        }
    }
}
