//! What a token is, and what its callers pass and get. Pure.

use std::fmt;
use std::net::IpAddr;

use crate::config::name::{HostName, UserName};
use crate::config::rules::{HardwareAddress, TokenKind};
use crate::fault::Fault;
use crate::secret::{PublicKey, Secret, from_hex, to_hex};

/// The index of a token, which is never used again: the number of a slot in the file, and how often
/// the slot was used. Shown as 16 hexadecimal digits. Any number may come from a client.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Index(u64);

impl Index {
    /// Returns the index with this number.
    pub const fn of(number: u64) -> Self {
        Self(number)
    }

    /// Returns its number.
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Parses 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(|bytes| Self(u64::from_be_bytes(bytes)))
    }

    pub(super) fn at(slot: u32, generation: u32) -> Self {
        Self(u64::from(slot) << 32 | u64::from(generation))
    }

    pub(super) fn slot(self) -> u32 {
        u32::try_from(self.0 >> 32).unwrap_or(u32::MAX)
    }

    /// Returns the next index of its slot; `None`: the slot's are used up.
    pub(super) fn next(self) -> Option<Self> {
        let generation = u32::try_from(self.0 & u64::from(u32::MAX)).ok()?;
        let next = generation.checked_add(1)?;
        Some(Self::at(self.slot(), next))
    }
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The name of a token's session folder: 128 random bits, shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FolderId(pub(super) [u8; 16]);

impl FolderId {
    /// Parses 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        from_hex(text).map(Self)
    }
}

impl fmt::Display for FolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&to_hex(&self.0))
    }
}

/// Who a token is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// How the caller has authenticated.
    pub kind: TokenKind,
    /// The user that the caller is here.
    pub user: Option<UserName>,
    /// The user that the caller is on its own host.
    pub calling_user: Option<UserName>,
    /// The calling host.
    pub host: Option<HostName>,
}

/// Where a token was issued to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The key of the calling machine.
    pub machine: PublicKey,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, if it is known.
    pub hardware: Option<HardwareAddress>,
}

/// What a token is issued with. Times are in seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewToken {
    /// Who it is for.
    pub identity: Identity,
    /// Where it is issued to.
    pub origin: Origin,
    /// When it expires; not after `renew_until`.
    pub expires: u64,
    /// Until when it can be renewed.
    pub renew_until: u64,
}

/// What a token is upgraded to. Times are in seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// Who it is for from now on.
    pub identity: Identity,
    /// When it expires; not after `renew_until`.
    pub expires: u64,
    /// Until when it can be renewed.
    pub renew_until: u64,
}

/// What may be shown of a token: all but its key. Times are in seconds since 1970.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenInfo {
    /// Its index.
    pub index: Index,
    /// Who it is for.
    pub identity: Identity,
    /// Where it was issued to.
    pub origin: Origin,
    /// When it was issued.
    pub created: u64,
    /// When it expires.
    pub expires: u64,
    /// Until when it can be renewed.
    pub renew_until: u64,
    /// Its session folder, if there may be one.
    pub folder: Option<FolderId>,
}

/// A token as it was when it was found. A change of it fails if another process has changed it
/// since.
pub struct Token {
    pub(super) info: TokenInfo,
    pub(super) key: Secret,
    pub(super) folder_id: FolderId,
    /// Raised by each change.
    pub(super) revision: u64,
    /// The entry of an anonymous token in their table.
    pub(super) entry: Option<u16>,
}

impl Token {
    /// Returns what may be shown of it.
    pub const fn info(&self) -> &TokenInfo {
        &self.info
    }

    /// Returns its index.
    pub const fn index(&self) -> Index {
        self.info.index
    }

    /// Returns when it expires, in seconds since 1970.
    pub const fn expires(&self) -> u64 {
        self.info.expires
    }

    /// Returns its session key.
    pub const fn key(&self) -> &Secret {
        &self.key
    }

    /// Returns the name that its session folder has, or would have.
    pub const fn folder_id(&self) -> FolderId {
        self.folder_id
    }
}

/// A token that was upgraded.
pub struct Upgraded {
    /// What it is now.
    pub token: Token,
    /// The session folder of the user that it was for, to be removed.
    pub old_folder: Option<FolderId>,
}

/// A token that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// Its index.
    pub index: Index,
    /// How its caller had authenticated.
    pub kind: TokenKind,
    /// The user that it was for.
    pub user: Option<UserName>,
    /// Its session folder, to be removed; then call [`TokenFile::release`](super::TokenFile).
    pub folder: Option<FolderId>,
}

/// Why a token was not issued or changed. Nothing was changed then, except as each says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotDone {
    /// There is no token with this index, or it has ended or expired.
    Gone,
    /// Another process has changed it since it was found.
    Changed,
    /// The source has as many anonymous tokens as one may have.
    SourceHasTooMany,
    /// There are as many tokens, or anonymous tokens, as there may be.
    TooMany,
    /// Another process holds a lock. It needs microseconds, unless it was stopped.
    Busy,
    /// The file cannot be read or written. The change may have been made.
    Fault(Fault),
}

impl From<Fault> for NotDone {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}
