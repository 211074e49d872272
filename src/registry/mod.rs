//! The doors (seed 002): which machines may call at all, before any password is asked.
//!
//! The outer door, `sestab.db`, is this host's own: machines that are kept out, always,
//! and machines that are let in while it is closed. The inner door, `idfile.db`, is the
//! list of authorized machines, which several hosts may share. [`Doors`] is both as the
//! daemon looks at them, and [`NonblockingReader`] as it does in passing; `outer` and `inner` are also
//! what `cosadm` keeps.
//!
//! Run by the daemon's door process ([`process`]), by the monitor itself where that keeps
//! nobody waiting, and by `cosadm`. It never decides whether somebody is let in: that is
//! the monitor's, by [`Admitted`] and [`Known`].

pub mod asked;
mod decision;
mod doors;
mod file;
mod id;
pub mod inner;
pub mod noted;
pub mod outer;
pub mod process;

pub use decision::{
    AccessDecision, AdmissionPass, Admitted, Known, Machine, MachineStatus, PromptFor,
    RegistrationState, decide,
};
pub use doors::{Doors, NonblockingReader, RegistrationOutcome};
pub use id::{Id, Name, Occurred};
pub use inner::Inner;
pub use outer::{Level, List, Outer};
