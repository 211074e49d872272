//! Accounts as the monitor knows them: asked of NSS in a child, kept for a
//! moment, and forgotten at once when a local account file changes.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::config::name::UserName;
use crate::sys::account::{self, Account, Helper};

/// How long an account from a directory server may be stale.
const FRESH: Duration = Duration::from_secs(30);
/// How long a look-up may take.
const LOOKING: Duration = Duration::from_secs(10);
/// Look-ups at the same time beyond which no name that comes from outside is looked up.
const AT_ONCE: usize = 8;
/// Look-ups of numbers at the same time: half as many, whatever comes from outside.
const NUMBERS: usize = 4;
/// Accounts kept.
const KEPT: usize = 1024;

/// A look-up under way, by number.
pub(super) type LookUp = u64;

/// Accounts, and look-ups under way.
pub(super) struct Accounts {
    /// The only account there is, when this is not root.
    own: Option<Account>,
    known: HashMap<String, (Account, Instant)>,
    /// The names behind numbers.
    names: HashMap<u32, (String, Instant)>,
    /// The numbers that `/etc/passwd` has, once that was asked.
    local: Option<BTreeSet<u32>>,
    files: [Option<(i64, i64, u64, u64)>; 3],
    helpers: HashMap<LookUp, Looking>,
    next: LookUp,
    /// A child that waits to be told a name.
    stock: Option<Helper>,
}

/// A look-up under way: whose, by which child, what it has said, its limit.
struct Looking {
    whom: Whom,
    helper: Helper,
    answer: Vec<u8>,
    until: Instant,
}

/// Who is looked up.
#[derive(PartialEq, Eq)]
enum Whom {
    Name(String),
    Number(u32),
}

/// What is known of a user.
pub(super) enum Found {
    /// The account.
    Account(Account),
    /// It is being looked up.
    Looking(LookUp),
    /// It cannot be: too many look-ups, or no process to be had.
    Busy,
}

impl Accounts {
    /// For root, or for the one user that this process is.
    pub(super) fn new(own: Option<Account>, stock: Option<Helper>) -> Self {
        Self {
            own,
            known: HashMap::new(),
            names: HashMap::new(),
            local: None,
            files: stamps(),
            helpers: HashMap::new(),
            next: 0,
            stock,
        }
    }

    /// The name of the only user that can be served, when this is not root.
    pub(super) fn serves(&self) -> Option<&str> {
        self.own.as_ref().map(|a| a.name.as_str())
    }

    /// Looks a user up: at once, or by a child.
    pub(super) fn find(&mut self, name: &str, now: Instant) -> Found {
        if let Some(own) = self.own.as_ref().filter(|a| a.name == name) {
            return Found::Account(own.clone());
        }
        self.forget_changed();
        match self.known.get(name) {
            Some((account, until)) if *until > now => return Found::Account(account.clone()),
            _ => {}
        }
        let whom = Whom::Name(name.to_owned());
        let room = self.helpers.len() < AT_ONCE;
        self.look_up(whom, room, now, || account::look_up(name))
    }

    /// Looks up whose number that is. These look-ups leave half of the helpers to those
    /// who come from outside, who in turn take none of these.
    pub(super) fn find_number(&mut self, uid: u32, now: Instant) -> Found {
        if let Some(own) = self.own.as_ref().filter(|a| a.uid == uid) {
            return Found::Account(own.clone());
        }
        self.forget_changed();
        let name = self.names.get(&uid).filter(|(_, until)| *until > now);
        match name.and_then(|(name, _)| self.known.get(name)) {
            Some((account, until)) if *until > now && account.uid == uid => {
                return Found::Account(account.clone());
            }
            _ => {}
        }
        let room = self.numbers() < NUMBERS;
        self.look_up(Whom::Number(uid), room, now, || account::of_number(uid))
    }

    /// How many numbers are being looked up.
    pub(super) fn numbers(&self) -> usize {
        let all = self.helpers.values();
        all.filter(|l| matches!(l.whom, Whom::Number(_))).count()
    }

    fn forget_changed(&mut self) {
        let files = stamps();
        if files != self.files {
            self.files = files;
            self.known.clear();
            self.names.clear();
            self.local = None;
        }
    }

    /// Whether `/etc/passwd` has this number, or somebody of it was found lately: a user,
    /// and not one of the many numbers that a user may have besides (subuid(5)).
    pub(super) fn is_somebody(&mut self, uid: u32) -> bool {
        self.forget_changed();
        let local = self.local.get_or_insert_with(local_numbers);
        local.contains(&uid) || self.names.contains_key(&uid)
    }

    fn look_up(
        &mut self,
        whom: Whom,
        room: bool,
        now: Instant,
        look: impl FnOnce() -> Option<Account>,
    ) -> Found {
        // One look-up serves all who ask for the same user meanwhile.
        if let Some((which, _)) = self.helpers.iter().find(|(_, l)| l.whom == whom) {
            return Found::Looking(*which);
        }
        if !room {
            return Found::Busy;
        }
        let ready = match (&whom, self.stock.take()) {
            (Whom::Name(name), Some(helper)) if helper.tell(name) => Some(helper),
            (_, unused) => {
                self.stock = unused;
                None
            }
        };
        let work = || look().map(|a| a.to_bytes()).unwrap_or_default();
        let Some(helper) = ready.or_else(|| account::in_child(work).ok()) else {
            return Found::Busy;
        };
        self.next += 1;
        let looking = Looking {
            whom,
            helper,
            answer: Vec::new(),
            until: now + LOOKING,
        };
        self.helpers.insert(self.next, looking);
        Found::Looking(self.next)
    }

    /// The helper of a look-up, to wait for.
    pub(super) fn helper(&self, which: LookUp) -> Option<&Helper> {
        self.helpers.get(&which).map(|l| &l.helper)
    }

    /// When the next look-up must be done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.helpers.values().map(|l| l.until).min()
    }

    /// Look-ups that are late.
    pub(super) fn late(&self, now: Instant) -> Vec<LookUp> {
        let late = self.helpers.iter().filter(|(_, l)| l.until <= now);
        late.map(|(which, _)| *which).collect()
    }

    /// Reads on what a helper says. `None`: not yet; then the account, if there
    /// is one. A helper that is still to be reaped joins `corpses`.
    pub(super) fn hear(
        &mut self,
        which: LookUp,
        now: Instant,
        corpses: &mut Vec<Pid>,
    ) -> Option<Option<Account>> {
        let looking = self.helpers.get_mut(&which)?;
        let answer = &mut looking.answer;
        let account = match account::read_answer(&looking.helper.answer, answer) {
            Ok(false) if now < looking.until => return None,
            Ok(true) => Account::from_bytes(answer).filter(has_a_name),
            Ok(false) | Err(_) => None,
        };
        let looking = self.helpers.remove(&which)?;
        corpses.extend(looking.helper.end());
        if self.known.len() >= KEPT || self.names.len() >= KEPT {
            self.known.clear();
            self.names.clear();
        }
        if let Some(account) = &account {
            // By the name that was asked for: a directory may know it by another.
            let name = match looking.whom {
                Whom::Name(name) => name,
                Whom::Number(uid) => {
                    self.names.insert(uid, (account.name.clone(), now + FRESH));
                    account.name.clone()
                }
            };
            self.known.insert(name, (account.clone(), now + FRESH));
        }
        Some(account)
    }
}

/// Whether an account's name is one: a module of NSS may make it of what it likes, and it
/// reaches a job's environment, and the log.
fn has_a_name(account: &Account) -> bool {
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
fn stamps() -> [Option<(i64, i64, u64, u64)>; 3] {
    ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"].map(|file| {
        let m = std::fs::metadata(file).ok()?;
        Some((m.mtime(), m.mtime_nsec(), m.ino(), m.size()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that answers `DOMAIN\\jo` with `jo` is asked once, not each time.
    #[test]
    fn somebody_has_a_line_of_his_own() {
        let mut accounts = Accounts::new(None, None);
        assert!(accounts.is_somebody(0));
        assert!(!accounts.is_somebody(4_000_000_001));
    }

    #[test]
    fn an_account_whose_name_no_user_can_have_is_none() {
        let mut root = account::look_up("root").unwrap();
        assert!(has_a_name(&root));
        root.name = "ro\u{1b}ot".into();
        assert!(!has_a_name(&root));
    }

    #[test]
    fn an_account_is_kept_under_the_name_that_was_asked_for() {
        let root = account::look_up("root").unwrap();
        let helper = account::in_child(|| root.to_bytes()).unwrap();
        let mut accounts = Accounts::new(None, None);
        let now = Instant::now();
        let looking = Looking {
            whom: Whom::Name("alias".into()),
            helper,
            answer: Vec::new(),
            until: now + LOOKING,
        };
        accounts.helpers.insert(1, looking);
        let mut corpses = Vec::new();
        let found = loop {
            match accounts.hear(1, now, &mut corpses) {
                Some(found) => break found,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(found.as_ref(), Some(&root));
        assert!(matches!(accounts.find("alias", now), Found::Account(a) if a == root));
        for pid in corpses {
            let _ = nix::sys::wait::waitpid(pid, None);
        }
    }
}
