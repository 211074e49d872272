//! Accounts as the monitor knows them: asked of a look-up process, kept for a moment, and
//! forgotten at once when a local account file changes. And whether one may be used.
//!
//! Runs in the monitor. Owns the accounts that are known and the look-ups of users under way.
//! Must never call NSS itself, whose modules may block and are the code of others; it reads
//! local files alone.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use mio::Registry;

use super::look_ups::{LookUp, LookUps, USERS_AT_ONCE};
use crate::config::name::UserName;
use crate::ipc::lookup::Question;
use crate::sys::account::{Account, UserRecord};
use crate::sys::shadow::{self, Validity};

/// How long an account from a directory server may be stale.
const FRESH: Duration = Duration::from_secs(30);
/// Look-ups of numbers at the same time, beside those of names: local users cause them.
const NUMBERS: usize = USERS_AT_ONCE / 2;
/// Accounts kept.
const KEPT: usize = 1024;

/// The files that say who there is, and which accounts may be used.
const FILES: [&str; 4] = [
    NSSWITCH,
    "/etc/passwd",
    "/etc/group",
    crate::sys::shadow::SHADOW,
];
/// The file that says whom NSS asks.
const NSSWITCH: &str = "/etc/nsswitch.conf";

/// What tells one state of a file from another.
type Stamp = Option<[i64; 4]>;

/// Accounts, and look-ups under way.
pub(super) struct Accounts {
    /// The only account there is, when this is not root.
    own: Option<Account>,
    known: HashMap<String, (UserRecord, Instant)>,
    /// The names behind numbers.
    names: HashMap<u32, (String, Instant)>,
    /// What `/etc/shadow` says of accounts.
    validity: HashMap<String, Option<Validity>>,
    /// The numbers that `/etc/passwd` has, once that was asked.
    local: Option<BTreeSet<u32>>,
    files: [Stamp; FILES.len()],
    /// How often the files have changed.
    changes: u64,
    looking: HashMap<LookUp, Looking>,
}

/// A look-up under way: of whom, and how often the files had changed when it began.
struct Looking {
    whom: Whom,
    changes: u64,
}

/// Who is looked up.
#[derive(PartialEq, Eq)]
enum Whom {
    Name(String),
    Number(u32),
}

/// What is known of a user.
pub(super) enum Known {
    /// The account.
    User(Box<UserRecord>),
    /// It is being looked up.
    Looking(LookUp),
    /// It cannot be, and why: too many look-ups, or no process to be had.
    Busy(String),
}

impl Accounts {
    /// For root, or for the one user that this process is.
    pub(super) fn new(own: Option<Account>) -> Self {
        Self {
            own,
            known: HashMap::new(),
            names: HashMap::new(),
            validity: HashMap::new(),
            local: None,
            files: stamps(),
            changes: 0,
            looking: HashMap::new(),
        }
    }

    /// The name of the only user that can be served, when this is not root.
    pub(super) fn serves(&self) -> Option<&str> {
        self.own.as_ref().map(|a| a.name.as_str())
    }

    fn own(&self, is: impl Fn(&Account) -> bool) -> Option<Known> {
        let own = self.own.as_ref().filter(|a| is(a))?;
        Some(Known::User(Box::new(UserRecord {
            account: own.clone(),
            validity: None,
        })))
    }

    /// Looks a user up: at once, or by a look-up process.
    pub(super) fn find(
        &mut self,
        look_ups: &mut LookUps,
        registry: &Registry,
        name: &str,
        now: Instant,
    ) -> Known {
        if let Some(own) = self.own(|a| a.name == name) {
            return own;
        }
        self.forget_changed(look_ups);
        match self.known.get(name) {
            Some((record, until)) if *until > now => {
                return Known::User(Box::new(record.clone()));
            }
            _ => {}
        }
        self.look_up(look_ups, registry, Whom::Name(name.to_owned()), now)
    }

    /// Looks up whose number that is. These look-ups take no slot of those of names, which
    /// others cause from outside, and those none of these.
    pub(super) fn find_number(
        &mut self,
        look_ups: &mut LookUps,
        registry: &Registry,
        uid: u32,
        now: Instant,
    ) -> Known {
        if let Some(own) = self.own(|a| a.uid == uid) {
            return own;
        }
        self.forget_changed(look_ups);
        let name = self.names.get(&uid).filter(|(_, until)| *until > now);
        match name.and_then(|(name, _)| self.known.get(name)) {
            Some((record, until)) if *until > now && record.account.uid == uid => {
                return Known::User(Box::new(record.clone()));
            }
            _ => {}
        }
        self.look_up(look_ups, registry, Whom::Number(uid), now)
    }

    /// How many numbers are being looked up.
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
        self.changes += 1;
        self.known.clear();
        self.names.clear();
        self.validity.clear();
        self.local = None;
    }

    /// Whether `/etc/passwd` has this number, or somebody of it was found lately: a user,
    /// and not one of the many numbers that a user may have besides (subuid(5)).
    pub(super) fn is_somebody(&mut self, look_ups: &mut LookUps, uid: u32) -> bool {
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
    ) -> Known {
        // One look-up serves all who ask for the same user meanwhile.
        let same = |l: &Looking| l.whom == whom && l.changes == self.changes;
        if let Some((which, _)) = self.looking.iter().find(|(_, l)| same(l)) {
            return Known::Looking(*which);
        }
        let (question, has_room) = match &whom {
            Whom::Name(name) => (
                Question::User(name.clone()),
                self.looking.len() - self.numbers() < USERS_AT_ONCE,
            ),
            Whom::Number(uid) => (Question::Number(*uid), self.numbers() < NUMBERS),
        };
        if !has_room {
            return Known::Busy("too many account look-ups".to_owned());
        }
        match look_ups.ask(registry, question, now) {
            Ok(which) => {
                // Read now, while the look-up process works. What went wrong is met again, and
                // told, when the account is checked.
                if let Whom::Name(name) = &whom {
                    let _ = self.validity(name);
                }
                let changes = self.changes;
                self.looking.insert(which, Looking { whom, changes });
                Known::Looking(which)
            }
            Err(e) => Known::Busy(e.to_string()),
        }
    }

    /// A look-up has ended.
    pub(super) fn heard(&mut self, which: LookUp, found: Option<&UserRecord>, now: Instant) {
        let Some(looking) = self.looking.remove(&which) else {
            return;
        };
        // What was asked before a change may be out of date.
        let Some(record) = found.filter(|_| looking.changes == self.changes) else {
            return;
        };
        if self.known.len() >= KEPT || self.names.len() >= KEPT {
            self.known.clear();
            self.names.clear();
        }
        // By the name that was asked for: that in the record is a module's word.
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

    /// What `/etc/shadow` says of an account.
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

    /// Whether an account may be used for a command.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&mut self, record: &UserRecord) -> Result<(), String> {
        let Account { name, uid, .. } = &record.account;
        let is_root = *uid == 0;
        if let Some(file) = shadow::nologin().filter(|_| !is_root) {
            return Err(format!("{file} is there, so nobody but root may log in"));
        }
        if self.own.is_some() {
            // Shadow is root's alone to read, and this is that user already.
            return Ok(());
        }
        let Some(validity) = self.validity(name)?.or(record.validity) else {
            return Ok(());
        };
        if validity.expires.is_some_and(|day| shadow::today() >= day) {
            return Err(format!("the account {name} has expired"));
        }
        // Root's says that nobody logs in by root's password, and no more.
        if validity.locked && !is_root {
            return Err(format!("the password of {name} is locked"));
        }
        Ok(())
    }

    /// Looks whether a file has changed since an account was asked for.
    pub(super) fn look_again(&mut self, look_ups: &mut LookUps) {
        self.forget_changed(look_ups);
    }
}

/// Whether an account's name is one: a module of NSS may make it of what it likes, and it
/// reaches a job's environment, and the log.
pub(super) fn has_a_name(account: &Account) -> bool {
    UserName::parse(&account.name).is_ok()
}

/// The numbers in `/etc/passwd`, as far as that is not longer than any should be.
fn local_numbers() -> BTreeSet<u32> {
    const LONGEST: u64 = 16 << 20;
    let mut bytes = Vec::new();
    if let Ok(file) = File::open("/etc/passwd") {
        // What cannot be read names nobody.
        let _ = file.take(LONGEST).read_to_end(&mut bytes);
    }
    let text = String::from_utf8_lossy(&bytes);
    let numbers = text.lines().filter_map(|l| l.split(':').nth(2));
    numbers.filter_map(|n| n.parse().ok()).collect()
}

/// What tells one state of the local account files from another.
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
    use super::super::look_ups::tests::{one_deaf, reap};
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
        let knows = matches!(found, Known::User(record) if *record == root());
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
            let is_asked = |known| matches!(known, Known::Looking(_));
            let (mut all, poll) = one_deaf();
            let now = Instant::now();
            let found =
                looking(names, numbers).find(&mut all, poll.registry(), "no-such-user", now);
            assert_eq!(is_asked(found), name_may);
            reap(all);
            let (mut all, poll) = one_deaf();
            let found =
                looking(names, numbers).find_number(&mut all, poll.registry(), 4_000_000_001, now);
            assert_eq!(is_asked(found), number_may);
            reap(all);
        }
    }

    #[test]
    fn an_account_whose_name_no_user_can_have_is_none() {
        let mut root = root().account;
        assert!(has_a_name(&root));
        root.name = "ro\u{1b}ot".into();
        assert!(!has_a_name(&root));
    }

    #[test]
    fn somebody_has_a_line_of_his_own() {
        let mut accounts = Accounts::new(None);
        let mut look_ups = LookUps::new(None);
        assert!(accounts.is_somebody(&mut look_ups, 0));
        assert!(!accounts.is_somebody(&mut look_ups, 4_000_000_001));
    }

    /// What stands in the record is the word of a module.
    #[test]
    fn an_account_is_kept_under_the_name_that_was_asked_for() {
        let mut accounts = Accounts::new(None);
        let now = Instant::now();
        looking(&mut accounts, Whom::Name("alias".into()));
        accounts.heard(1, Some(&root()), now);
        assert!(knows(&mut accounts, "alias", now));
        assert!(accounts.knows_any(now) && !accounts.knows_any(now + FRESH));
    }

    /// The answer to a question that was asked before a file changed was once kept.
    #[test]
    fn what_was_asked_before_a_change_is_not_kept() {
        let mut accounts = Accounts::new(None);
        let now = Instant::now();
        looking(&mut accounts, Whom::Name("alias".into()));
        accounts.changes += 1;
        accounts.heard(1, Some(&root()), now);
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
            let said = accounts.check(&record);
            assert_eq!(said.is_ok(), may, "{uid} {locked} {expires:?}: {said:?}");
        }
    }
}
