//! Each function of the file of tokens by itself.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;
use crate::config::name::{HostName, UserName};
use crate::config::scratch::{Scratch, chmod};
use crate::secret::PublicKey;

pub(super) const NOW: u64 = 1_800_000_000;
const BOOT: [u8; 16] = [7; 16];

pub(super) const LIMITS: Limits = Limits {
    all: 1000,
    anonymous: 20,
    anonymous_per_source: 4,
};

/// Returns a folder with a run folder in it.
pub(super) fn scratch() -> Scratch {
    let scratch = Scratch::new();
    scratch.folder("run", 0o755);
    scratch
}

/// Opens the file of a folder as another process would.
pub(super) fn open(scratch: &Scratch) -> TokenFile {
    let storage = making::open(&scratch.paths(), &BOOT).unwrap();
    TokenFile { storage }
}

pub(super) fn host() -> (Scratch, TokenFile) {
    let scratch = scratch();
    let file = open(&scratch);
    (scratch, file)
}

pub(super) fn identity(kind: TokenKind, user: Option<&str>) -> Identity {
    Identity {
        kind,
        user: user.map(|user| UserName::parse(user).unwrap()),
        calling_user: None,
        host: None,
    }
}

pub(super) fn origin(address: &str) -> Origin {
    Origin {
        machine: PublicKey([9; 32]),
        address: address.parse().unwrap(),
        hardware: None,
    }
}

pub(super) fn of_user(user: &str) -> NewToken {
    NewToken {
        identity: identity(TokenKind::User, Some(user)),
        origin: origin("192.0.2.1"),
        expires: NOW + 100,
        renew_until: NOW + 1000,
    }
}

pub(super) fn anonymous_of(address: &str) -> NewToken {
    NewToken {
        identity: identity(TokenKind::Anonymous, None),
        origin: origin(address),
        expires: NOW + 50,
        renew_until: NOW + 200,
    }
}

pub(super) fn upgrade_to(user: &str) -> Upgrade {
    Upgrade {
        identity: identity(TokenKind::User, Some(user)),
        expires: NOW + 300,
        renew_until: NOW + 3000,
    }
}

fn issue(file: &TokenFile, new: NewToken) -> Token {
    file.issue(new, NOW, &LIMITS).ok().unwrap()
}

pub(super) fn find(file: &TokenFile, index: Index, now: u64) -> Option<Token> {
    file.find(index, now).unwrap()
}

/// Sweeps all of the file.
pub(super) fn sweep(file: &TokenFile, now: u64) -> Vec<Ended> {
    let parts = usize::try_from(ANONYMOUS_MOST / 16).unwrap();
    let swept = (0..parts).flat_map(|_| file.sweep(now, 1_000_000).unwrap());
    swept.collect()
}

/// Checks that each slot that is free is in the list, and no other; returns the live tokens.
pub(super) fn check(file: &TokenFile) -> Vec<Index> {
    let storage = &file.storage;
    let lock = storage.lock_lists().ok().unwrap();
    let mut listed = Slots::of(&lock).unwrap().all();
    let (mut free, mut live) = (Vec::new(), Vec::new());
    for slot in 0..storage.slots().unwrap() {
        match storage.record(slot).unwrap() {
            Record::Free(_) => free.push(slot),
            Record::Live(token) => live.push(token.index()),
            Record::Ended(_) | Record::Retired | Record::Damaged => {}
            Record::Blank => panic!("slot {slot} is blank"),
        }
    }
    listed.sort_unstable();
    assert_eq!(listed, free);
    live
}

/// Writes something into the file.
fn damage(scratch: &Scratch, at: u64, bytes: &[u8]) {
    let file = fs::File::options()
        .write(true)
        .open(scratch.paths().tokens())
        .unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn token_is_found_as_it_was_issued_until_it_expires() {
    let (_scratch, file) = host();
    let long = NewToken {
        identity: Identity {
            kind: TokenKind::Host,
            user: Some(UserName::parse(&"u".repeat(255)).unwrap()),
            calling_user: Some(UserName::parse(&"ü".repeat(127)).unwrap()),
            host: Some(HostName::parse(&"h".repeat(251)).unwrap()),
        },
        origin: Origin {
            machine: PublicKey([5; 32]),
            address: "2001:db8::7".parse().unwrap(),
            hardware: Some([2, 0, 0x5e, 0x10, 0, 1]),
        },
        expires: NOW + 10,
        renew_until: NOW + 20,
    };
    for new in [of_user("jo"), anonymous_of("::ffff:192.0.2.1"), long] {
        let token = issue(&file, new.clone());
        let found = find(&file, token.index(), NOW).unwrap();
        assert_eq!(found.info(), token.info());
        assert!(found.key().same(token.key()));
        assert_eq!(found.folder_id(), token.folder_id());
        let info = found.info();
        assert_eq!(info.identity, new.identity);
        assert_eq!(info.origin.machine, new.origin.machine);
        assert_eq!(info.origin.hardware, new.origin.hardware);
        let address: IpAddr = new.origin.address.to_canonical();
        assert_eq!(info.origin.address, address);
        assert_eq!(
            (info.created, info.expires, info.renew_until, info.folder),
            (NOW, new.expires, new.renew_until, None)
        );
        assert!(find(&file, token.index(), new.expires - 1).is_some());
        assert!(find(&file, token.index(), new.expires).is_none());
        // The clock was set back, also to a time before it was issued.
        assert!(find(&file, token.index(), NOW - 86_400).is_some());
    }
}

#[test]
fn no_other_index_is_found() {
    let (_scratch, file) = host();
    let token = issue(&file, of_user("jo"));
    let own = token.index().number();
    for other in [
        0,
        u64::MAX,
        own + 1,
        own - 1,
        own + (1 << 32),
        own & !(u64::from(u32::MAX)),
    ] {
        assert!(find(&file, Index::of(other), NOW).is_none(), "{other:x}");
        assert_eq!(file.end(Index::of(other)), Ok(None));
    }
    assert!(find(&file, token.index(), NOW).is_some());
}

#[test]
fn index_is_shown_and_parsed() {
    let index = Index::of(0x0000_0012_89ab_cdef);
    assert_eq!(index.to_string(), "0000001289abcdef");
    assert_eq!(Index::parse("0000001289abcdef"), Some(index));
    assert_eq!(Index::parse("0000001289ABCDEF"), Some(index));
    for wrong in ["", "1289abcdef", "0000001289abcdeg", "+000001289abcdef"] {
        assert_eq!(Index::parse(wrong), None, "{wrong}");
    }
    let folder = FolderId([0xab; 16]);
    assert_eq!(FolderId::parse(&folder.to_string()), Some(folder));
}

#[test]
fn each_token_has_its_own_index_and_key() {
    let (_scratch, file) = host();
    let mut seen = std::collections::HashSet::new();
    for n in 0..200 {
        let token = issue(&file, of_user("jo"));
        assert!(seen.insert(token.index().number().to_string()));
        assert!(seen.insert(token.key().to_hex().to_string()));
        if n % 3 > 0 {
            assert!(file.end(token.index()).unwrap().is_some());
        }
    }
    // Slots that are free are used again.
    assert!(file.storage.slots().unwrap() < 80);
    check(&file);
}

#[test]
fn token_expires_no_later_than_it_can_be_renewed() {
    let (_scratch, file) = host();
    let token = issue(
        &file,
        NewToken {
            expires: NOW + 9000,
            ..of_user("jo")
        },
    );
    assert_eq!(token.expires(), NOW + 1000);
    let upgrade = Upgrade {
        expires: NOW + 9000,
        ..upgrade_to("jo")
    };
    let upgraded = file.upgrade(&token, upgrade, NOW, &LIMITS).ok().unwrap();
    assert_eq!(upgraded.token.expires(), NOW + 3000);
}

#[test]
fn renewal_prolongs_up_to_its_limit_and_never_shortens() {
    let (_scratch, file) = host();
    let token = issue(&file, of_user("jo"));
    let token = file.renew(&token, NOW + 500, NOW).ok().unwrap();
    assert_eq!(token.expires(), NOW + 500);
    let token = file.renew(&token, NOW + 400, NOW + 150).ok().unwrap();
    assert_eq!(token.expires(), NOW + 500);
    let token = file.renew(&token, NOW + 5000, NOW + 499).ok().unwrap();
    assert_eq!(token.expires(), NOW + 1000);
    let found = find(&file, token.index(), NOW + 999).unwrap();
    assert_eq!(found.info(), token.info());
    assert!(found.key().same(token.key()));
    let late = file.renew(&token, NOW + 5000, NOW + 1000);
    assert_eq!(late.err(), Some(NotDone::Gone));
}

#[test]
fn change_of_a_token_that_was_changed_or_has_ended_fails() {
    let (_scratch, file) = host();
    let old = issue(&file, of_user("jo"));
    let new = file.renew(&old, NOW + 200, NOW).ok().unwrap();
    let fails = |token: &Token, why: &NotDone| {
        let upgrade = file.upgrade(token, upgrade_to("al"), NOW, &LIMITS);
        assert_eq!(file.renew(token, NOW + 900, NOW).err().as_ref(), Some(why));
        assert_eq!(upgrade.err().as_ref(), Some(why));
        assert_eq!(file.note_folder(token, NOW).err().as_ref(), Some(why));
    };
    fails(&old, &NotDone::Changed);
    let found = find(&file, old.index(), NOW).unwrap();
    assert_eq!(found.info(), new.info());
    assert!(file.end(new.index()).unwrap().is_some());
    fails(&old, &NotDone::Gone);
    fails(&new, &NotDone::Gone);
    // Also when another token has the slot.
    let next = issue(&file, of_user("al"));
    assert_eq!(next.index().slot(), old.index().slot());
    fails(&new, &NotDone::Gone);
    assert!(find(&file, old.index(), NOW).is_none());
    assert_eq!(find(&file, next.index(), NOW).unwrap().info(), next.info());
}

#[test]
fn upgrade_keeps_the_index_and_changes_user_key_and_expiration() {
    let (_scratch, file) = host();
    let old = issue(&file, anonymous_of("192.0.2.1"));
    let new = file.upgrade(&old, upgrade_to("jo"), NOW + 1, &LIMITS);
    let new = new.ok().unwrap().token;
    let found = find(&file, old.index(), NOW + 299).unwrap();
    assert_eq!(found.info(), new.info());
    assert!(found.key().same(new.key()) && !found.key().same(old.key()));
    assert_ne!(found.folder_id(), old.folder_id());
    let info = found.info();
    assert_eq!(info.identity, identity(TokenKind::User, Some("jo")));
    assert_eq!(info.origin, old.info().origin);
    assert_eq!(
        (info.created, info.expires, info.renew_until),
        (NOW, NOW + 300, NOW + 3000)
    );
}

#[test]
fn session_folder_belongs_to_one_user() {
    let (_scratch, file) = host();
    let token = issue(&file, of_user("jo"));
    let token = file.note_folder(&token, NOW).ok().unwrap();
    let own = Some(token.folder_id());
    assert_eq!(find(&file, token.index(), NOW).unwrap().info().folder, own);
    // The same user logs in once more.
    let same = file.upgrade(&token, upgrade_to("jo"), NOW, &LIMITS);
    let same = same.ok().unwrap();
    assert_eq!((same.old_folder, same.token.info().folder), (None, own));
    let other = file.upgrade(&same.token, upgrade_to("al"), NOW, &LIMITS);
    let other = other.ok().unwrap();
    assert_eq!((other.old_folder, other.token.info().folder), (own, None));
    assert_ne!(Some(other.token.folder_id()), own);
}

#[test]
fn token_with_a_folder_keeps_its_slot_until_that_is_removed() {
    let (_scratch, file) = host();
    let token = issue(&file, of_user("jo"));
    let token = file.note_folder(&token, NOW).ok().unwrap();
    let ended = file.end(token.index()).unwrap().unwrap();
    assert_eq!(ended.folder, Some(token.folder_id()));
    assert_eq!(ended.user, token.info().identity.user);
    assert!(find(&file, token.index(), NOW).is_none());
    assert_eq!(file.end(token.index()), Ok(None), "it ends once");
    let next = issue(&file, of_user("jo"));
    assert_ne!(next.index().slot(), token.index().slot());
    assert_eq!(sweep(&file, NOW).first(), Some(&ended));
    file.release(&ended).unwrap();
    assert_eq!(sweep(&file, NOW), []);
    file.release(&ended).unwrap();
    let next = issue(&file, of_user("jo"));
    assert_eq!(next.index().slot(), token.index().slot());
    // That of a token that is live releases nothing.
    let ended = Ended {
        index: next.index(),
        ..ended
    };
    file.release(&ended).unwrap();
    assert!(find(&file, next.index(), NOW).is_some());
}

#[test]
fn record_of_an_ended_token_has_no_key() {
    let (scratch, file) = host();
    let tokens = [issue(&file, of_user("jo")), issue(&file, of_user("jo"))];
    let token = file.note_folder(&tokens[1], NOW).ok().unwrap();
    let there = |token: &Token| {
        let bytes = fs::read(scratch.paths().tokens()).unwrap();
        let key = token.key().expose();
        bytes.windows(32).any(|window| window == key)
    };
    assert!(there(&tokens[0]) && there(&token));
    for token in &tokens {
        file.end(token.index()).unwrap();
    }
    assert!(!there(&tokens[0]) && !there(&token));
}

#[test]
fn anonymous_tokens_are_capped_for_each_source_and_in_all() {
    let (_scratch, file) = host();
    let issue = |from: &str, now| {
        let new = NewToken {
            expires: now + 50,
            ..anonymous_of(from)
        };
        file.issue(new, now, &LIMITS)
    };
    let mut first = Vec::new();
    for host in 0..4 {
        // An IPv6 /64 is one source.
        first.push(issue(&format!("2001:db8::{host}"), NOW).ok().unwrap());
    }
    let more = issue("2001:db8::ffff", NOW);
    assert_eq!(more.err(), Some(NotDone::SourceHasTooMany));
    for host in 0..16 {
        assert!(issue(&format!("192.0.2.{host}"), NOW).is_ok());
    }
    let more = issue("192.0.2.200", NOW);
    assert_eq!(more.err(), Some(NotDone::TooMany));
    // A user is not refused.
    assert!(file.issue(of_user("jo"), NOW, &LIMITS).is_ok());
    // One that ends, is upgraded or expires makes room for another.
    assert!(file.end(first[0].index()).unwrap().is_some());
    assert!(issue("192.0.2.201", NOW).is_ok());
    assert!(issue("192.0.2.202", NOW).is_err());
    let upgraded = file.upgrade(&first[1], upgrade_to("jo"), NOW, &LIMITS);
    assert!(upgraded.is_ok());
    assert!(issue("192.0.2.203", NOW).is_ok());
    assert!(issue("192.0.2.204", NOW).is_err());
    assert!(issue("192.0.2.205", NOW + 50).is_ok(), "not swept yet");
    // A renewal counts as long as the token.
    let renewed = file.renew(&first[2], NOW + 150, NOW + 10).ok().unwrap();
    assert_eq!(renewed.expires(), NOW + 150);
    for host in 0..3 {
        assert!(issue(&format!("2001:db8::1:{host}"), NOW + 100).is_ok());
    }
    let more = issue("2001:db8::2", NOW + 100);
    assert_eq!(more.err(), Some(NotDone::SourceHasTooMany));
    assert!(issue("2001:db8::2", NOW + 150).is_ok());
}

#[test]
fn upgraded_tokens_do_not_use_up_the_anonymous_ones() {
    let (_scratch, file) = host();
    for _ in 0..100 {
        let token = issue(&file, anonymous_of("192.0.2.1"));
        let done = file.upgrade(&token, upgrade_to("jo"), NOW, &LIMITS);
        assert!(done.is_ok());
    }
    assert_eq!(file.all(NOW).unwrap().len(), 100);
    // And back: then it counts.
    let all = file.all(NOW).unwrap();
    let anonymous = || Upgrade {
        identity: identity(TokenKind::Anonymous, None),
        ..upgrade_to("jo")
    };
    let back = |info: &TokenInfo| {
        let token = find(&file, info.index, NOW).unwrap();
        let done = file.upgrade(&token, anonymous(), NOW, &LIMITS);
        done.map(|done| done.token)
    };
    let tokens: Vec<Token> = all[..4]
        .iter()
        .map(|info| back(info).ok().unwrap())
        .collect();
    assert_eq!(back(&all[4]).err(), Some(NotDone::SourceHasTooMany));
    let kept = find(&file, all[4].index, NOW).unwrap();
    assert_eq!(kept.info(), &all[4], "a failed upgrade changes nothing");
    // One that is anonymous already counts once.
    let again = file.upgrade(&tokens[0], anonymous(), NOW, &LIMITS);
    assert!(again.is_ok());
    file.end(tokens[0].index()).unwrap();
    assert!(back(&all[4]).is_ok());
    assert_eq!(back(&all[5]).err(), Some(NotDone::SourceHasTooMany));
}

#[test]
fn tokens_of_users_are_capped_and_keep_their_slots_from_anonymous_ones() {
    let (_scratch, file) = host();
    let limits = Limits {
        all: 10,
        anonymous: 5,
        anonymous_per_source: 50,
    };
    for _ in 0..5 {
        let new = anonymous_of("192.0.2.1");
        assert!(file.issue(new, NOW, &limits).is_ok());
    }
    for _ in 0..10 {
        assert!(file.issue(of_user("jo"), NOW, &limits).is_ok());
    }
    let more = file.issue(of_user("jo"), NOW, &limits);
    assert_eq!(more.err(), Some(NotDone::TooMany));
    assert_eq!(file.all(NOW).unwrap().len(), 15, "no token is pushed out");
}

#[test]
fn sweep_ends_expired_tokens_and_goes_on_where_it_stopped() {
    let (scratch, file) = host();
    let mut tokens: Vec<Token> = (0..30)
        .map(|n| {
            let new = NewToken {
                expires: NOW + 10 + n % 2 * 50,
                ..of_user("jo")
            };
            issue(&file, new)
        })
        .collect();
    tokens[2] = file.note_folder(&tokens[2], NOW).ok().unwrap();
    assert_eq!(file.sweep(NOW + 9, 30).unwrap(), []);
    let mut swept = Vec::new();
    for _ in 0..6 {
        // Another process, each time.
        let part = open(&scratch).sweep(NOW + 10, 5).unwrap();
        assert!(part.len() <= 3);
        swept.extend(part);
    }
    let even = tokens.iter().step_by(2);
    let wanted: Vec<Index> = even.map(Token::index).collect();
    let indexes: Vec<Index> = swept.iter().map(|ended| ended.index).collect();
    assert_eq!(indexes, wanted);
    let with_folder: Vec<&Ended> = swept.iter().filter(|e| e.folder.is_some()).collect();
    assert_eq!(with_folder.len(), 1);
    assert_eq!(with_folder[0].index, tokens[2].index());
    // The clock is set back: what was swept stays ended.
    assert!(find(&file, tokens[0].index(), NOW).is_none());
    assert_eq!(file.all(NOW).unwrap().len(), 15);
    assert_eq!(file.all(NOW + 59).unwrap().len(), 15);
    assert_eq!(file.all(NOW + 60).unwrap().len(), 0);
    file.release(with_folder[0]).unwrap();
    check(&file);
    // Their slots are used again.
    for _ in 0..15 {
        issue(&file, of_user("jo"));
    }
    assert_eq!(file.storage.slots().unwrap(), 30);
}

#[test]
fn list_shows_all_tokens() {
    let (scratch, file) = host();
    assert_eq!(file.all(NOW).unwrap(), []);
    let issued: Vec<TokenInfo> = (0..40)
        .map(|n| issue(&file, of_user(&format!("user{n}"))).info().clone())
        .collect();
    let paths = scratch.paths();
    let other = making::open_existing(&paths, &BOOT).unwrap().unwrap();
    let other = TokenFile { storage: other };
    assert_eq!(other.all(NOW).unwrap(), issued);
}

#[test]
fn reopened_file_has_its_tokens_and_one_of_another_boot_has_none() {
    let (scratch, file) = host();
    let token = issue(&file, of_user("jo"));
    let anonymous = issue(&file, anonymous_of("192.0.2.1"));
    drop(file);
    let file = open(&scratch);
    assert!(
        find(&file, token.index(), NOW)
            .unwrap()
            .key()
            .same(token.key())
    );
    assert!(find(&file, anonymous.index(), NOW).is_some());
    assert!(file.is_in_place());
    let paths = scratch.paths();
    assert!(making::open_existing(&paths, &[8; 16]).unwrap().is_none());
    assert!(file.is_in_place(), "only a daemon replaces it");
    let storage = making::open(&paths, &[8; 16]).unwrap();
    let rebooted = TokenFile { storage };
    assert_eq!(rebooted.all(NOW).unwrap(), []);
    assert!(!file.is_in_place() && rebooted.is_in_place());
    let next = issue(&rebooted, of_user("jo"));
    assert_ne!(next.index(), token.index());
}

#[test]
fn file_is_private_and_takes_no_room_before_it_is_used() {
    let scratch = scratch();
    let paths = scratch.paths();
    assert!(TokenFile::open_existing(&paths).unwrap().is_none());
    assert!(!paths.tokens().exists());
    let file = TokenFile::open(&paths).unwrap();
    let about = fs::metadata(paths.tokens()).unwrap();
    assert_eq!(about.permissions().mode() & 0o7777, 0o600);
    assert!(about.len() < 64 * 1024);
    assert!(TokenFile::open_existing(&paths).unwrap().is_some());
    let left: Vec<PathBuf> = fs::read_dir(&paths.run)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(left, [paths.tokens()]);
    issue(&file, of_user("jo"));
    let grown = fs::metadata(paths.tokens()).unwrap();
    assert_eq!(grown.len(), about.len() + 1024);
    assert_eq!(grown.ino(), about.ino());
}

#[test]
fn anything_else_at_its_path_is_refused_and_left_as_it_is() {
    let scratch = scratch();
    let paths = scratch.paths();
    let path = paths.tokens();
    let refused = || {
        let both = [
            TokenFile::open(&paths).err().unwrap(),
            TokenFile::open_existing(&paths).err().unwrap(),
        ];
        assert_eq!(both[0], both[1]);
        both[0].to_string()
    };
    for content in ["", "something else", &"x".repeat(100_000)] {
        let file = scratch.file("run/tokens", content, 0o600);
        assert!(refused().contains("not a file of tokens"), "{content}");
        assert_eq!(fs::read(file).unwrap(), content.as_bytes());
    }
    fs::remove_file(&path).unwrap();
    // One of another version.
    drop(TokenFile::open(&paths).unwrap());
    damage(&scratch, 16, &[2]);
    assert!(refused().contains("not a file of tokens"));
    damage(&scratch, 16, &[1]);
    assert!(TokenFile::open(&paths).is_ok());
    // Readable by others.
    for mode in [0o640, 0o604, 0o620, 0o666] {
        chmod(&path, mode);
        assert!(refused().contains(&format!("{mode:04o}")), "{mode:o}");
    }
    chmod(&path, 0o600);
    // Another user's.
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(12_345), None).unwrap();
        assert!(refused().contains("owned by user 12345"));
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
    // A link, even to a good file.
    let moved = scratch.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    symlink(&moved, &path).unwrap();
    assert!(refused().contains("symbolic link"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused();
    fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(refused().contains("no regular file"));
    fs::remove_file(&path).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    refused();
    drop(socket);
    fs::remove_file(&path).unwrap();
    // In a folder that others can write.
    scratch.folder("run", 0o777);
    assert!(refused().contains("can be written by all users"));
    assert!(!path.exists());
}

#[test]
fn damaged_record_is_no_token_and_harms_no_other() {
    let (scratch, file) = host();
    let tokens: Vec<Token> = (0..5).map(|_| issue(&file, of_user("jo"))).collect();
    let place = |n: usize| layout::record(tokens[n].index().slot());
    for (at, byte) in [(0, 1), (9, 1), (40, 0xff), (112, 0xee), (1023, 1)] {
        let whole = fs::read(scratch.paths().tokens()).unwrap();
        damage(&scratch, place(2) + at, &[byte]);
        assert!(find(&file, tokens[2].index(), NOW).is_none(), "{at}");
        assert_eq!(file.end(tokens[2].index()), Ok(None));
        let renewed = file.renew(&tokens[2], NOW + 200, NOW);
        assert_eq!(renewed.err(), Some(NotDone::Gone));
        assert_eq!(file.all(NOW).unwrap().len(), 4);
        for other in [0, 1, 3, 4] {
            assert!(find(&file, tokens[other].index(), NOW).is_some());
        }
        sweep(&file, NOW + 10);
        damage(&scratch, 0, &whole);
    }
    // Its slot is not used again: its generation is not known.
    damage(&scratch, place(2), &[0; 16]);
    let more: Vec<Token> = (0..5).map(|_| issue(&file, of_user("jo"))).collect();
    let slot = tokens[2].index().slot();
    assert!(more.iter().all(|token| token.index().slot() != slot));
    // A record that was copied to another slot is none there.
    let bytes = fs::read(scratch.paths().tokens()).unwrap();
    let from = usize::try_from(place(0)).unwrap();
    damage(&scratch, place(1), &bytes[from..from + 1024]);
    assert!(find(&file, tokens[1].index(), NOW).is_none());
    assert!(find(&file, tokens[0].index(), NOW).is_some());
    check(&file);
}

#[test]
fn damaged_list_is_given_up_and_found_again_by_the_sweep() {
    let (scratch, file) = host();
    let tokens: Vec<Token> = (0..20).map(|_| issue(&file, of_user("jo"))).collect();
    for token in &tokens[..10] {
        file.end(token.index()).unwrap();
    }
    let whole = fs::read(scratch.paths().tokens()).unwrap();
    let place = |token: &Token| layout::record(token.index().slot());
    let zeros = vec![0; 1024];
    let damages: [&dyn Fn(); 4] = [
        // The head; the first free slot; the first two; one in the middle.
        &|| damage(&scratch, layout::LISTS_AT + 4, &[3]),
        &|| damage(&scratch, place(&tokens[9]), &zeros[..8]),
        &|| {
            damage(&scratch, place(&tokens[9]), &zeros[..8]);
            damage(&scratch, place(&tokens[8]), &zeros[..8]);
        },
        &|| damage(&scratch, place(&tokens[5]), &zeros[..8]),
    ];
    for (n, make) in damages.iter().enumerate() {
        damage(&scratch, 0, &whole);
        make();
        let more: Vec<Token> = (0..20).map(|_| issue(&file, of_user("al"))).collect();
        for token in tokens[10..].iter().chain(&more) {
            let found = find(&file, token.index(), NOW).unwrap();
            assert_eq!(found.info(), token.info(), "{n}");
        }
        assert_eq!(file.all(NOW).unwrap().len(), 30, "{n}");
        sweep(&file, NOW);
        check(&file);
        fs::File::options()
            .write(true)
            .open(scratch.paths().tokens())
            .unwrap()
            .set_len(u64::try_from(whole.len()).unwrap())
            .unwrap();
    }
}

/// The list names a slot that is in use, with checksums that are right.
#[test]
fn slot_in_use_is_never_handed_out() {
    let (_scratch, file) = host();
    let tokens: Vec<Token> = (0..4).map(|_| issue(&file, of_user("jo"))).collect();
    for token in &tokens[..3] {
        file.end(token.index()).unwrap();
    }
    // The second free slot leads to the last token.
    let second = tokens[1].index().slot();
    let Record::Free(mut free) = file.storage.record(second).unwrap() else {
        panic!("it is not free");
    };
    free.next = tokens[3].index().slot();
    let bytes = record::free(&free);
    file.storage.write_record(second, &bytes).unwrap();
    for _ in 0..6 {
        let token = issue(&file, of_user("al"));
        assert_ne!(token.index().slot(), tokens[3].index().slot());
    }
    let kept = find(&file, tokens[3].index(), NOW).unwrap();
    assert_eq!(kept.info(), tokens[3].info());
}

#[test]
fn slot_with_no_generation_left_is_retired() {
    let (_scratch, file) = host();
    let token = issue(&file, of_user("jo"));
    let slot = token.index().slot();
    let last = Index::at(slot, u32::MAX);
    let mut record = file.storage.record(slot).unwrap();
    if let Record::Live(token) = &mut record {
        token.info.index = last;
        let bytes = record::live(token);
        file.storage.write_record(slot, &bytes).unwrap();
    }
    assert!(find(&file, last, NOW).is_some());
    assert!(file.end(last).unwrap().is_some());
    for _ in 0..3 {
        let next = issue(&file, of_user("jo"));
        assert_ne!(next.index().slot(), slot);
    }
    sweep(&file, NOW + 5);
    check(&file);
    assert!(matches!(
        file.storage.record(slot).unwrap(),
        Record::Retired
    ));
}

#[test]
fn entry_without_a_token_is_removed_by_the_sweep() {
    let (_scratch, file) = host();
    for _ in 0..4 {
        file.storage.meter.left.set(Some(1));
        let killed = file.issue(anonymous_of("192.0.2.1"), NOW, &LIMITS);
        assert!(matches!(killed.err(), Some(NotDone::Fault(_))));
        file.storage.meter.left.set(None);
    }
    let more = file.issue(anonymous_of("192.0.2.1"), NOW, &LIMITS);
    assert_eq!(more.err(), Some(NotDone::SourceHasTooMany));
    sweep(&file, NOW);
    for _ in 0..4 {
        issue(&file, anonymous_of("192.0.2.1"));
    }
    let more = file.issue(anonymous_of("192.0.2.1"), NOW, &LIMITS);
    assert_eq!(more.err(), Some(NotDone::SourceHasTooMany));
    sweep(&file, NOW);
    let more = file.issue(anonymous_of("192.0.2.1"), NOW, &LIMITS);
    assert_eq!(more.err(), Some(NotDone::SourceHasTooMany));
}

#[test]
fn clock_that_moves_a_day_ends_tokens_only_when_they_are_swept() {
    const DAY: u64 = 86_400;
    let (_scratch, file) = host();
    let token = issue(&file, of_user("jo"));
    let anonymous = issue(&file, anonymous_of("192.0.2.1"));
    assert!(find(&file, token.index(), NOW + DAY).is_none());
    let late = file.issue(anonymous_of("192.0.2.1"), NOW + DAY, &LIMITS);
    assert!(late.is_ok());
    assert!(find(&file, token.index(), NOW).is_some());
    assert!(find(&file, anonymous.index(), NOW).is_some());
    assert_eq!(sweep(&file, NOW - DAY), []);
    let renewed = file.renew(&token, NOW + 200, NOW - DAY).ok().unwrap();
    assert_eq!(renewed.expires(), NOW + 200);
    assert_eq!(sweep(&file, NOW + DAY).len(), 3);
    assert!(find(&file, token.index(), NOW).is_none());
    check(&file);
}

/// What one operation of each kind reads and writes.
fn costs(file: &TokenFile) -> Vec<(usize, usize, usize)> {
    let limits = Limits {
        all: MOST,
        ..LIMITS
    };
    let mut all = Vec::new();
    let mut measure = |work: &mut dyn FnMut()| {
        let meter = &file.storage.meter;
        meter.reads.set((0, 0));
        meter.writes.set(0);
        work();
        let (reads, bytes) = meter.reads.get();
        all.push((reads, bytes, meter.writes.get()));
    };
    let (mut token, mut anonymous) = (None, None);
    // Into a new slot, and into one that is free.
    for _ in 0..2 {
        measure(&mut || token = file.issue(of_user("jo"), NOW, &limits).ok());
        measure(&mut || drop(find(file, token.as_ref().unwrap().index(), NOW)));
        measure(&mut || token = file.renew(token.as_ref().unwrap(), NOW + 200, NOW).ok());
        measure(&mut || drop(file.end(token.as_ref().unwrap().index()).unwrap()));
        measure(&mut || drop(find(file, token.as_ref().unwrap().index(), NOW)));
        measure(&mut || {
            let new = anonymous_of("192.0.2.1");
            anonymous = file.issue(new, NOW, &limits).ok();
        });
        measure(&mut || {
            let token = anonymous.take().unwrap();
            let done = file.upgrade(&token, upgrade_to("jo"), NOW, &limits);
            anonymous = done.ok().map(|done| done.token);
        });
        measure(&mut || drop(file.end(anonymous.as_ref().unwrap().index()).unwrap()));
    }
    measure(&mut || drop(file.sweep(NOW, 8).unwrap()));
    all
}

#[test]
fn operation_costs_the_same_with_100000_tokens() {
    let (_scratch, file) = host();
    let limits = Limits {
        all: MOST,
        ..LIMITS
    };
    let issue = |count: usize| {
        for _ in 0..count {
            assert!(file.issue(of_user("jo"), NOW, &limits).is_ok());
        }
    };
    issue(10);
    let few = costs(&file);
    issue(100_000);
    assert_eq!(costs(&file), few);
    // No operation reads more than the table of anonymous tokens and some records.
    let table = 32 * 1024;
    assert!(
        few.iter()
            .all(|(reads, bytes, _)| *reads < 30 && *bytes < table + 30 * 1024)
    );
    assert_eq!(few[1], (1, 1024, 0), "a token is found by one read");
}
