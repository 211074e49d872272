//! A record of the file: its form, and its checksum. Pure.
//!
//! Numbers are little-endian. The checksum is over everything behind it, so a record of which only
//! a part was written is none. So is a record that was copied to another slot, since a record has
//! its index.

use std::net::IpAddr;
use std::str::FromStr;

use zeroize::Zeroizing;

use super::layout::{RECORD, checksum, get, number, put, short};
use super::token::{Ended, FolderId, Identity, Index, Origin, Token, TokenInfo};
use crate::config::name::{HostName, UserName};
use crate::config::rules::TokenKind;
use crate::secret::{PublicKey, Secret};

/// The bytes of a record, wiped when dropped: there may be a key in them. They never move, so that
/// no copy is left behind.
pub(super) type Bytes = Zeroizing<Vec<u8>>;

// The places of the fields. ENTRY is one more than the number of the entry.
const CHECKSUM: usize = 0;
const STATE: usize = 8;
const KIND: usize = 9;
const FLAGS: usize = 10;
const FAMILY: usize = 11;
const ENTRY: usize = 12;
const INDEX: usize = 16;
const REVISION: usize = 24;
const CREATED: usize = 32;
const EXPIRES: usize = 40;
const RENEW_UNTIL: usize = 48;
const FOLDER: usize = 56;
const ADDRESS: usize = 72;
const HARDWARE: usize = 88;
const NEXT: usize = 96;
const AFTER: usize = 100;
const EPOCH: usize = 104;
const KEY: usize = 112;
const MACHINE: usize = 144;
/// Three names, each with its length before it and 255 bytes at most.
const NAMES: [usize; 3] = [176, 176 + 256, 176 + 512];

const FREE: u8 = 1;
const LIVE: u8 = 2;
const ENDED: u8 = 3;
const RETIRED: u8 = 4;

/// The session folder may have been made.
const HAS_FOLDER: u8 = 1;
/// The hardware address is known.
const HAS_HARDWARE: u8 = 2;

const IPV4: u8 = 4;
const IPV6: u8 = 6;

/// What a slot has.
pub(super) enum Record {
    /// Nothing was ever written.
    Blank,
    /// No token.
    Free(Free),
    /// A token, which may have expired.
    Live(Box<Token>),
    /// A token that has ended. The slot is not free yet.
    Ended(EndedRecord),
    /// The slot is not used any more: its generations are used up.
    Retired,
    /// The checksum is wrong, or a field is.
    Damaged,
}

/// A free slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Free {
    /// The last index that was used.
    pub(super) index: Index,
    /// The next free slot, and the one after it.
    pub(super) next: u32,
    pub(super) after: u32,
    /// Which list it is in.
    pub(super) epoch: u64,
}

/// A token that has ended.
pub(super) struct EndedRecord {
    pub(super) ended: Ended,
    pub(super) entry: Option<u16>,
}

impl Record {
    /// Returns the token with this index, if it is live.
    pub(super) fn live(self, index: Index) -> Option<Token> {
        match self {
            Self::Live(token) if token.info.index == index => Some(*token),
            Self::Blank
            | Self::Free(_)
            | Self::Live(_)
            | Self::Ended(_)
            | Self::Retired
            | Self::Damaged => None,
        }
    }
}

/// What [`glance`] returns of a record.
pub(super) enum Glance {
    /// A token, and when it expires.
    Live(Index, u64),
    /// One that has ended.
    Ended(Index),
    /// A free slot of this list.
    Free(u64),
    /// Something else.
    Other,
}

/// Looks at a record without verifying it.
pub(super) fn glance(bytes: &[u8]) -> Glance {
    let index = Index::of(number(bytes, INDEX));
    match byte(bytes, STATE) {
        LIVE => Glance::Live(index, number(bytes, EXPIRES)),
        ENDED => Glance::Ended(index),
        FREE => Glance::Free(number(bytes, EPOCH)),
        _ => Glance::Other,
    }
}

/// Returns an empty record.
pub(super) fn blank() -> Bytes {
    Zeroizing::new(vec![0; RECORD])
}

/// Returns the record of a token.
pub(super) fn live(token: &Token) -> Bytes {
    let (mut bytes, info) = (common(LIVE, token.info.index), &token.info);
    let folder = u8::from(info.folder.is_some()) * HAS_FOLDER;
    let hardware = u8::from(info.origin.hardware.is_some()) * HAS_HARDWARE;
    let (family, address) = match info.origin.address {
        IpAddr::V4(a) => (IPV4, a.to_ipv6_mapped()),
        IpAddr::V6(a) => (IPV6, a),
    };
    for (at, value) in [
        (KIND, kind_number(info.identity.kind)),
        (FLAGS, folder | hardware),
        (FAMILY, family),
    ] {
        put(&mut bytes, at, &[value]);
    }
    for (at, value) in [
        (REVISION, token.revision),
        (CREATED, info.created),
        (EXPIRES, info.expires),
        (RENEW_UNTIL, info.renew_until),
    ] {
        put(&mut bytes, at, &value.to_le_bytes());
    }
    put_entry(&mut bytes, token.entry);
    put(&mut bytes, FOLDER, &token.folder_id.0);
    put(&mut bytes, ADDRESS, &address.octets());
    put(
        &mut bytes,
        HARDWARE,
        &info.origin.hardware.unwrap_or_default(),
    );
    put(&mut bytes, KEY, token.key.expose());
    put(&mut bytes, MACHINE, &info.origin.machine.0);
    let user = info.identity.user.as_ref().map(UserName::as_str);
    let calling_user = info.identity.calling_user.as_ref().map(UserName::as_str);
    let host = info.identity.host.as_ref().map(HostName::as_str);
    for (at, name) in NAMES.into_iter().zip([user, calling_user, host]) {
        put_name(&mut bytes, at, name);
    }
    seal(bytes)
}

/// Returns the record of a token that has ended. It has no key.
pub(super) fn ended(ended: &Ended, entry: Option<u16>) -> Bytes {
    let mut bytes = common(ENDED, ended.index);
    put(&mut bytes, KIND, &[kind_number(ended.kind)]);
    if let Some(folder) = &ended.folder {
        put(&mut bytes, FLAGS, &[HAS_FOLDER]);
        put(&mut bytes, FOLDER, &folder.0);
    }
    put_entry(&mut bytes, entry);
    put_name(
        &mut bytes,
        NAMES[0],
        ended.user.as_ref().map(UserName::as_str),
    );
    seal(bytes)
}

/// Returns the record of a free slot.
pub(super) fn free(free: &Free) -> Bytes {
    let mut bytes = common(FREE, free.index);
    put(&mut bytes, NEXT, &free.next.to_le_bytes());
    put(&mut bytes, AFTER, &free.after.to_le_bytes());
    put(&mut bytes, EPOCH, &free.epoch.to_le_bytes());
    seal(bytes)
}

/// Returns the record of a slot that is not used any more.
pub(super) fn retired(index: Index) -> Bytes {
    seal(common(RETIRED, index))
}

/// Returns what a record says. `slot`: where it was read.
pub(super) fn decode(slot: u32, bytes: &[u8]) -> Record {
    if bytes.iter().all(|byte| *byte == 0) {
        return Record::Blank;
    }
    let index = Index::of(number(bytes, INDEX));
    if get(bytes, CHECKSUM) != checksum_of(bytes) || index.slot() != slot {
        return Record::Damaged;
    }
    let record = match byte(bytes, STATE) {
        FREE => Some(Record::Free(Free {
            index,
            next: short(bytes, NEXT),
            after: short(bytes, AFTER),
            epoch: number(bytes, EPOCH),
        })),
        LIVE => decode_live(index, bytes).map(|token| Record::Live(Box::new(token))),
        ENDED => decode_ended(index, bytes).map(Record::Ended),
        RETIRED => Some(Record::Retired),
        _ => None,
    };
    record.unwrap_or(Record::Damaged)
}

fn decode_live(index: Index, bytes: &[u8]) -> Option<Token> {
    let flags = byte(bytes, FLAGS);
    let address = get::<16>(bytes, ADDRESS).into();
    let address = match byte(bytes, FAMILY) {
        IPV4 => IpAddr::V6(address).to_canonical(),
        IPV6 => IpAddr::V6(address),
        _ => return None,
    };
    let folder_id = FolderId(get(bytes, FOLDER));
    let key = Zeroizing::new(get(bytes, KEY));
    Some(Token {
        info: TokenInfo {
            index,
            identity: Identity {
                kind: kind(bytes)?,
                user: name(bytes, NAMES[0])?,
                calling_user: name(bytes, NAMES[1])?,
                host: name(bytes, NAMES[2])?,
            },
            origin: Origin {
                machine: PublicKey(get(bytes, MACHINE)),
                address,
                hardware: (flags & HAS_HARDWARE != 0).then(|| get(bytes, HARDWARE)),
            },
            created: number(bytes, CREATED),
            expires: number(bytes, EXPIRES),
            renew_until: number(bytes, RENEW_UNTIL),
            folder: (flags & HAS_FOLDER != 0).then_some(folder_id),
        },
        key: Secret::new(*key),
        folder_id,
        revision: number(bytes, REVISION),
        entry: entry(bytes),
    })
}

fn decode_ended(index: Index, bytes: &[u8]) -> Option<EndedRecord> {
    let has_folder = byte(bytes, FLAGS) & HAS_FOLDER != 0;
    Some(EndedRecord {
        ended: Ended {
            index,
            kind: kind(bytes)?,
            user: name(bytes, NAMES[0])?,
            folder: has_folder.then(|| FolderId(get(bytes, FOLDER))),
        },
        entry: entry(bytes),
    })
}

/// Returns a record with the fields that each has, but the checksum.
fn common(state: u8, index: Index) -> Bytes {
    let mut bytes = blank();
    put(&mut bytes, STATE, &[state]);
    put(&mut bytes, INDEX, &index.number().to_le_bytes());
    bytes
}

fn seal(mut bytes: Bytes) -> Bytes {
    let sum = checksum_of(&bytes);
    put(&mut bytes, CHECKSUM, &sum);
    bytes
}

fn checksum_of(bytes: &[u8]) -> [u8; 8] {
    checksum(bytes.get(STATE..).unwrap_or_default())
}

fn byte(bytes: &[u8], at: usize) -> u8 {
    let [byte] = get(bytes, at);
    byte
}

fn kind_number(kind: TokenKind) -> u8 {
    match kind {
        TokenKind::Anonymous => 1,
        TokenKind::User => 2,
        TokenKind::Host => 3,
    }
}

fn kind(bytes: &[u8]) -> Option<TokenKind> {
    let all = [TokenKind::Anonymous, TokenKind::User, TokenKind::Host];
    let number = byte(bytes, KIND);
    all.into_iter().find(|kind| kind_number(*kind) == number)
}

fn put_entry(bytes: &mut Bytes, entry: Option<u16>) {
    let number = entry.map_or(0, |entry| entry.saturating_add(1));
    put(bytes, ENTRY, &number.to_le_bytes());
}

fn entry(bytes: &[u8]) -> Option<u16> {
    u16::from_le_bytes(get(bytes, ENTRY)).checked_sub(1)
}

fn put_name(bytes: &mut Bytes, at: usize, name: Option<&str>) {
    let name = name.unwrap_or_default();
    // A name has 255 bytes at most.
    put(bytes, at, &[u8::try_from(name.len()).unwrap_or(0)]);
    put(bytes, at + 1, name.as_bytes());
}

/// Returns a name if the field has one; `None`: what it has is none.
fn name<T: FromStr>(bytes: &[u8], at: usize) -> Option<Option<T>> {
    let length = usize::from(byte(bytes, at));
    let text = bytes.get(at + 1..)?.get(..length)?;
    if text.is_empty() {
        return Some(None);
    }
    let name = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(Some(name))
}
