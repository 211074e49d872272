//! Random walks through all operations, against a simple model of the tokens; also with a process
//! that is killed at any of its writes.

use std::collections::{BTreeMap, BTreeSet};

use super::tests::{
    NOW, anonymous_of, check, find, identity, of_user, open, scratch, sweep, upgrade_to,
};
use super::*;
use crate::config::scratch::{Numbers, Scratch};

const LIMITS: Limits = Limits {
    all: 30,
    anonymous: 10,
    anonymous_per_source: 3,
};
const SLOTS: usize = 40;

/// What a walk does besides the operations.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// Nothing: each outcome is known.
    Calm,
    /// It sets the clock back as well.
    ClockMoves,
    /// It is killed before a write.
    Killed,
    /// It is killed within a write.
    Torn,
}

/// A token of the model.
#[derive(Clone, PartialEq, Debug)]
struct Known {
    info: TokenInfo,
    key: String,
}

impl Known {
    fn of(token: &Token) -> Self {
        Self {
            info: token.info().clone(),
            key: token.key().to_hex().to_string(),
        }
    }

    fn is_anonymous(&self) -> bool {
        self.info.identity.kind == TokenKind::Anonymous
    }
}

/// The model: the tokens that have not been ended, and all indexes that were ever used.
struct Model {
    walk: Walk,
    numbers: Numbers,
    scratch: Scratch,
    file: TokenFile,
    now: u64,
    tokens: BTreeMap<Index, Known>,
    /// Ended, with a folder that is not removed yet.
    folders: BTreeMap<Index, Ended>,
    seen: BTreeSet<Index>,
    kills: usize,
}

impl Model {
    fn new(walk: Walk, seed: u64) -> Self {
        let scratch = scratch();
        Self {
            walk,
            numbers: Numbers(seed),
            file: open(&scratch),
            scratch,
            now: NOW,
            tokens: BTreeMap::new(),
            folders: BTreeMap::new(),
            seen: BTreeSet::new(),
            kills: 0,
        }
    }

    fn is_exact(&self) -> bool {
        self.walk == Walk::Calm
    }

    /// Returns one of the indexes that were ever used, mostly that of a token.
    fn any(&mut self) -> Option<Index> {
        let pick = self.numbers.below(8);
        let all: Vec<Index> = if pick > 0 {
            self.tokens.keys().copied().collect()
        } else {
            self.seen.iter().copied().collect()
        };
        (!all.is_empty()).then(|| all[self.numbers.below(all.len())])
    }

    /// Returns the token, if the model has it and it has not expired.
    fn valid(&self, index: Index) -> Option<&Known> {
        let known = self.tokens.get(&index);
        known.filter(|known| known.info.expires > self.now)
    }

    fn step(&mut self) {
        let by = u64::try_from(self.numbers.below(4)).unwrap();
        self.now = match (self.walk, self.numbers.below(30)) {
            (Walk::ClockMoves, 0) => self.now - 60,
            (Walk::ClockMoves, 1) => self.now + 60,
            _ => self.now + by,
        };
        let may_be_killed = matches!(self.walk, Walk::Killed | Walk::Torn);
        if may_be_killed && self.numbers.below(3) == 0 {
            let meter = &self.file.storage.meter;
            meter.left.set(Some(self.numbers.below(6)));
            if self.walk == Walk::Torn {
                meter.eighths.set(self.numbers.below(8));
            }
        }
        match self.numbers.below(16) {
            0..4 => self.issue(of_user("jo")),
            4..7 => {
                let from = format!("192.0.2.{}", self.numbers.below(5));
                self.issue(anonymous_of(&from));
            }
            7..9 => self.renew(),
            9..11 => self.upgrade(),
            11 => self.note_folder(),
            12..14 => self.end(),
            14 => self.release(),
            _ => self.sweep(),
        }
        if let Some(index) = self.any() {
            self.compare(index);
        }
    }

    fn issue(&mut self, mut new: NewToken) {
        let life = u64::try_from(self.numbers.below(60)).unwrap();
        new.expires = self.now + 1 + life;
        new.renew_until = new.expires + 40;
        let is_anonymous = new.identity.kind == TokenKind::Anonymous;
        let source = Source::of(new.origin.address);
        let valid = || self.tokens.keys().filter_map(|index| self.valid(*index));
        let anonymous = || valid().filter(|known| known.is_anonymous());
        let of_source = anonymous()
            .filter(|known| Source::of(known.info.origin.address) == source)
            .count();
        let total = anonymous().count();
        let held = self.tokens.len() + self.folders.len();
        let wanted = if is_anonymous && of_source >= 3 {
            Some(NotDone::SourceHasTooMany)
        } else if is_anonymous && total >= 10 || held >= SLOTS {
            Some(NotDone::TooMany)
        } else {
            None
        };
        match self.file.issue(new.clone(), self.now, &LIMITS) {
            Ok(token) => {
                assert_eq!(token.info().identity, new.identity);
                self.learn(&token);
                assert!(!self.is_exact() || wanted.is_none());
            }
            Err(NotDone::Fault(_)) => self.recover(|_, _| false, |_, _| false),
            Err(why) => assert!(!self.is_exact() || wanted == Some(why.clone()), "{why:?}"),
        }
    }

    /// Adds a token to the model.
    fn learn(&mut self, token: &Token) {
        let index = token.index();
        assert!(self.seen.insert(index), "{index} was used before");
        self.tokens.insert(index, Known::of(token));
    }

    fn renew(&mut self) {
        let Some(token) = self.pick() else { return };
        let expires = self.now + u64::try_from(self.numbers.below(80)).unwrap();
        let mut new = self.tokens[&token.index()].clone();
        let most = expires.min(new.info.renew_until);
        new.info.expires = new.info.expires.max(most);
        let done = self.file.renew(&token, expires, self.now);
        self.changed(done, |known| *known == new);
    }

    fn upgrade(&mut self) {
        let Some(token) = self.pick() else { return };
        let mut upgrade = upgrade_to(["al", "jo"][self.numbers.below(2)]);
        if self.numbers.below(6) == 0 {
            upgrade.identity = identity(TokenKind::Anonymous, None);
        }
        upgrade.expires = self.now + 30;
        upgrade.renew_until = self.now + 60;
        let old = self.tokens[&token.index()].clone();
        let mut new = old.info.clone();
        new.identity = upgrade.identity.clone();
        (new.expires, new.renew_until) = (upgrade.expires, upgrade.renew_until);
        if old.info.identity.user != upgrade.identity.user {
            new.folder = None;
        }
        match self.file.upgrade(&token, upgrade, self.now, &LIMITS) {
            Err(NotDone::SourceHasTooMany | NotDone::TooMany) => self.compare(token.index()),
            done => {
                let done = done.map(|done| done.token);
                self.changed(done, |known| known.info == new && known.key != old.key);
            }
        }
    }

    fn note_folder(&mut self) {
        let Some(token) = self.pick() else { return };
        let mut new = self.tokens[&token.index()].clone();
        new.info.folder = Some(token.folder_id());
        let done = self.file.note_folder(&token, self.now);
        self.changed(done, |known| *known == new);
    }

    /// Returns a token as it is now, having tried to change it with an older one.
    fn pick(&mut self) -> Option<Token> {
        let index = self.any()?;
        let token = find(&self.file, index, self.now);
        assert_eq!(token.is_some(), self.valid(index).is_some());
        let mut token = token?;
        if self.numbers.below(4) == 0 {
            token.revision -= 1;
            let late = self.file.renew(&token, self.now + 90, self.now).err();
            assert_eq!(late, Some(NotDone::Changed));
            token.revision += 1;
        }
        Some(token)
    }

    /// Takes note of a change, after which a token is as `wanted`, or of a kill, after which it
    /// may be as it was.
    fn changed(&mut self, done: Result<Token, NotDone>, wanted: impl Fn(&Known) -> bool) {
        match done {
            Ok(token) => {
                let known = Known::of(&token);
                assert!(wanted(&known), "{known:?}");
                self.tokens.insert(token.index(), known);
            }
            Err(NotDone::Fault(_)) => self.recover(|_, known| wanted(known), |_, _| false),
            Err(why) => panic!("{why:?}"),
        }
    }

    fn end(&mut self) {
        let Some(index) = self.any() else { return };
        let known = self.tokens.get(&index).cloned();
        match self.file.end(index) {
            Ok(ended) => {
                let folder = known.as_ref().map(|known| known.info.folder);
                assert_eq!(ended.as_ref().map(|ended| ended.folder), folder);
                self.tokens.remove(&index);
                if let Some(ended) = ended.filter(|ended| ended.folder.is_some()) {
                    self.folders.insert(index, ended);
                }
                if self.file.storage.meter.left.get() == Some(0) {
                    self.recover(|_, _| false, |_, _| false);
                }
            }
            Err(NotDone::Fault(_)) => self.recover(|_, _| false, |its, _| its == index),
            Err(why) => panic!("{why:?}"),
        }
    }

    fn release(&mut self) {
        let Some(ended) = self.folders.values().next().cloned() else {
            return;
        };
        match self.file.release(&ended) {
            Ok(()) => drop(self.folders.remove(&ended.index)),
            Err(NotDone::Fault(_)) => self.recover(|_, _| false, |_, _| false),
            Err(why) => panic!("{why:?}"),
        }
    }

    fn sweep(&mut self) {
        let budget = u32::try_from(1 + self.numbers.below(SLOTS)).unwrap();
        match self.file.sweep(self.now, budget) {
            Ok(all) => {
                for ended in all {
                    if let Some(known) = self.tokens.remove(&ended.index) {
                        assert!(known.info.expires <= self.now);
                        assert_eq!(known.info.folder, ended.folder);
                    } else if !matches!(self.walk, Walk::Killed | Walk::Torn) {
                        assert_eq!(self.folders.get(&ended.index), Some(&ended));
                    }
                    if ended.folder.is_some() {
                        self.folders.insert(ended.index, ended);
                    }
                }
                if self.file.storage.meter.left.get() == Some(0) {
                    self.recover(|_, _| false, |_, _| false);
                }
            }
            Err(_) => {
                let now = self.now;
                self.recover(|_, _| false, |_, known| known.info.expires <= now);
            }
        }
    }

    /// Goes on as another process after a kill. Of the tokens, one may be as `may_be` says, or have
    /// ended if `may_end` says so; and there may be a new one, which no process has returned.
    fn recover(
        &mut self,
        may_be: impl Fn(Index, &Known) -> bool,
        may_end: impl Fn(Index, &Known) -> bool,
    ) {
        assert!(matches!(self.walk, Walk::Killed | Walk::Torn));
        self.kills += 1;
        self.file = open(&self.scratch);
        let live: BTreeMap<Index, Known> = self
            .file
            .all(0)
            .unwrap()
            .into_iter()
            .map(|info| find(&self.file, info.index, 0).unwrap())
            .map(|token| (token.index(), Known::of(&token)))
            .collect();
        let mut other = 0;
        for (index, known) in std::mem::take(&mut self.tokens) {
            match live.get(&index) {
                Some(now) if *now == known => {}
                Some(now) => {
                    assert!(may_be(index, now), "{now:?}, and was {known:?}");
                    other += 1;
                }
                None if may_end(index, &known) => {}
                // The record itself was torn.
                None => {
                    assert!(self.walk == Walk::Torn, "{index} was lost");
                    let there = self.file.storage.record(index.slot()).unwrap();
                    assert!(matches!(there, Record::Damaged));
                    other += 1;
                }
            }
        }
        for index in live.keys().filter(|index| !self.seen.contains(index)) {
            let known = &live[index];
            assert!(known.info.created == self.now, "{known:?}");
            other += 1;
        }
        assert!(other <= 1);
        self.seen.extend(live.keys());
        self.tokens = live;
        if self.walk == Walk::Killed {
            check(&self.file);
        }
    }

    /// Compares a token with what the file says.
    fn compare(&self, index: Index) {
        let there = find(&self.file, index, self.now);
        let there = there.map(|token| Known::of(&token));
        assert_eq!(there.as_ref(), self.valid(index));
    }

    /// Ends the walk: everything that is due is done, and each slot is accounted for.
    fn finish(mut self) -> usize {
        self.file = open(&self.scratch);
        for index in &self.seen {
            self.compare(*index);
        }
        for ended in sweep(&self.file, self.now) {
            self.file.release(&ended).unwrap();
        }
        let mut left = check(&self.file);
        left.sort_unstable();
        let wanted: Vec<Index> = self.tokens.values().map(|known| known.info.index).collect();
        let wanted: Vec<Index> = wanted
            .into_iter()
            .filter(|index| self.valid(*index).is_some())
            .collect();
        assert_eq!(left, wanted);
        // Each slot is a token's, or free; of those that were torn nothing is known.
        let limits = Limits { all: 30, ..LIMITS };
        let slots = self.file.storage.slots().unwrap();
        let damaged = (0..slots)
            .filter(|slot| matches!(self.file.storage.record(*slot).unwrap(), Record::Damaged))
            .count();
        assert!(damaged == 0 || self.walk == Walk::Torn);
        let mut more = 0;
        while self.file.issue(of_user("jo"), self.now, &limits).is_ok() {
            more += 1;
        }
        assert_eq!(more + left.len() + damaged, SLOTS);
        self.kills
    }
}

fn walk(walk: Walk, steps: usize) -> usize {
    let walks = (1..=8).map(|seed| {
        let mut model = Model::new(walk, seed * 0x9e37_79b9);
        (0..steps).for_each(|_| model.step());
        model.finish()
    });
    walks.sum()
}

#[test]
fn random_walk_agrees_with_the_model() {
    walk(Walk::Calm, 2000);
}

#[test]
fn random_walk_with_a_clock_that_is_set_back_agrees_with_the_model() {
    walk(Walk::ClockMoves, 2000);
}

#[test]
fn kill_at_any_write_loses_no_token_and_no_slot() {
    assert!(walk(Walk::Killed, 1000) > 500);
}

#[test]
fn write_that_is_torn_costs_one_token_at_most() {
    assert!(walk(Walk::Torn, 300) > 100);
}
