//! Operating system services behind safe interfaces.
//!
//! All `unsafe` code of the project is here, in small files, with a reason for each block. Nothing
//! here makes a decision about a peer. `pam.rs` is not part of the library: only `cosserver-login`
//! includes it.
#![allow(unsafe_code, reason = "this is the one room where it is allowed")]

pub mod account;
pub mod acl;
pub mod boot;
pub mod client_exec;
pub mod client_fork;
pub mod client_signals;
pub mod confine;
pub mod deadline;
mod decimal;
pub mod editor;
pub mod entry;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(test)]
pub(crate) mod forked;
pub mod guard;
pub mod id_number;
pub mod inherited;
pub mod job;
pub mod kernel;
pub mod limits;
pub mod local;
pub mod local_time;
pub mod locks;
pub mod memory;
pub mod neighbours;
pub mod oom;
pub mod pam_files;
pub mod passing;
pub mod pidfd;
pub mod process;
mod rlimits;
pub mod sandbox;
pub mod session;
pub mod set_uid;
pub mod shadow;
pub mod shortage;
pub mod signals;
pub mod socket;
pub mod socket_owner;
pub mod standby;
pub mod terminal;
pub mod unsent;
pub mod untrusted;
// Where libgcc has these functions: not on ARM's 32 bits, whose ABI has its own.
#[cfg(all(
    target_os = "linux",
    target_env = "gnu",
    panic = "abort",
    not(target_arch = "arm"),
    not(test)
))]
mod unwind;
