//! The administrator's files: their paths, how they are opened with care, and their contents.
//!
//! The monitor reads all of them, the client only its own part, and `cosadm` reads and writes them.
//! The gate and the relay do not use this module. Nothing here listens, connects, starts a process
//! or asks a name service, except that `-t` and `-T` check whether the daemon's own user exists. A
//! file that is missing, unreadable or writable by others is a [`Fault`](crate::fault::Fault),
//! never a permission.
//!
//! From the bottom up: `paths` has the files' paths, and `secure` opens the files. `utc` has times.
//! `name` and `address` are the words in them. `settings` is `cosserver.toml`; `hostinfo` and
//! `command` are the host table. `cookie`, `keys`, `known_hosts` and `machines` are the secrets and
//! pins, and `card` is the invitation that carries them from one host to another.

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
pub mod named_services;
pub mod paths;
pub mod rules;
pub mod secure;
pub mod settings;
pub mod subsystems;
mod tables;
pub mod times;
pub mod utc;
pub mod words;

#[cfg(test)]
pub(crate) mod scratch;
