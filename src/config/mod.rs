//! The administrator's files: where they are, how they are opened with care,
//! and what they say.
//!
//! The monitor reads all of them, the client its own half, and `cosadm` reads
//! and writes them. The gate and the relay never come here. Nothing in this
//! room listens, connects, starts a process or asks a name service (but that `-t` and
//! `-T` want to know whether the daemon's own user is there), and whatever is missing, unreadable or writable by others is a
//! [`Fault`](crate::fault::Fault), never a permission.
//!
//! From the ground up: `paths` says where the files are, `secure` opens them,
//! `name` and `address` are the words in them; `settings` is
//! `cosserver.toml`, `hostinfo` and `command` are the host table, `cookie`,
//! `keys`, `known_hosts` and `machines` are the secrets and pins, and `card`
//! is the invitation that carries them from one host to another.

pub mod address;
pub mod applications;
pub mod card;
pub mod command;
pub mod cookie;
pub mod hostinfo;
pub mod keys;
pub mod known_hosts;
pub mod linger;
pub mod machines;
pub mod name;
pub mod paths;
pub mod secure;
pub mod settings;
pub mod subsystems;
pub mod words;

#[cfg(test)]
pub(crate) mod scratch;
