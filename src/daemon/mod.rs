//! The daemon's own processes, and what several of them share.
//!
//! `monitor` is the privileged process: it decides, and starts everything. `gate`, `relay` and
//! `lookup` are unprivileged and sandboxed, and `login` runs PAM. None of them calls another:
//! they exchange the messages of [`crate::ipc`].

pub mod gate;
pub mod login;
pub mod lookup;
pub mod monitor;
pub mod relay;
pub mod sources;
