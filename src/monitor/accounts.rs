//! Accounts as the monitor knows them: asked of NSS in a child, kept for a
//! moment, and forgotten at once when a local account file changes.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::sys::account::{self, Account, Helper};

/// How long an account from a directory server may be stale.
const FRESH: Duration = Duration::from_secs(30);
/// How long a look-up may take.
const LOOKING: Duration = Duration::from_secs(10);
/// Look-ups at the same time.
const AT_ONCE: usize = 8;
/// Accounts kept.
const KEPT: usize = 1024;

/// A look-up under way, by number.
pub(super) type LookUp = u64;

/// Accounts, and look-ups under way.
pub(super) struct Accounts {
    /// The only account there is, when this is not root.
    own: Option<Account>,
    known: HashMap<String, (Account, Instant)>,
    files: [Option<(i64, i64, u64, u64)>; 3],
    helpers: HashMap<LookUp, (Helper, Vec<u8>, Instant)>,
    next: LookUp,
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
    pub(super) fn new(own: Option<Account>) -> Self {
        Self {
            own,
            known: HashMap::new(),
            files: stamps(),
            helpers: HashMap::new(),
            next: 0,
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
        let files = stamps();
        if files != self.files {
            self.files = files;
            self.known.clear();
        }
        match self.known.get(name) {
            Some((account, until)) if *until > now => return Found::Account(account.clone()),
            _ => {}
        }
        if self.helpers.len() >= AT_ONCE {
            return Found::Busy;
        }
        let work = || {
            account::look_up(name)
                .map(|a| a.to_bytes())
                .unwrap_or_default()
        };
        let Ok(helper) = account::in_child(work) else {
            return Found::Busy;
        };
        self.next += 1;
        self.helpers
            .insert(self.next, (helper, Vec::new(), now + LOOKING));
        Found::Looking(self.next)
    }

    /// The helper of a look-up, to wait for.
    pub(super) fn helper(&self, which: LookUp) -> Option<&Helper> {
        self.helpers.get(&which).map(|(h, ..)| h)
    }

    /// When the next look-up must be done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.helpers.values().map(|(.., until)| *until).min()
    }

    /// Look-ups that are late.
    pub(super) fn late(&self, now: Instant) -> Vec<LookUp> {
        let late = self.helpers.iter().filter(|(_, (.., until))| *until <= now);
        late.map(|(which, _)| *which).collect()
    }

    /// Reads on what a helper says. `None`: not yet; then the account, if there
    /// is one.
    pub(super) fn hear(&mut self, which: LookUp, now: Instant) -> Option<Option<Account>> {
        let (helper, answer, until) = self.helpers.get_mut(&which)?;
        let account = match account::read_answer(&helper.answer, answer) {
            Ok(false) if now < *until => return None,
            Ok(true) => Account::from_bytes(answer),
            Ok(false) | Err(_) => None,
        };
        if let Some((helper, ..)) = self.helpers.remove(&which) {
            helper.end();
        }
        if self.known.len() >= KEPT {
            self.known.clear();
        }
        if let Some(account) = &account {
            self.known
                .insert(account.name.clone(), (account.clone(), now + FRESH));
        }
        Some(account)
    }
}

/// What tells one state of the local account files from another.
fn stamps() -> [Option<(i64, i64, u64, u64)>; 3] {
    ["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"].map(|file| {
        let m = std::fs::metadata(file).ok()?;
        Some((m.mtime(), m.mtime_nsec(), m.ino(), m.size()))
    })
}
