//! The doors (seed 002): which machines may connect at all, before any password is asked.
//!
//! The outer door, `sestab.db`, belongs to this host only. It lists machines that are always
//! denied, and machines that are allowed while it is closed. The inner door, `idfile.db`, lists the
//! authorized machines, and several hosts may share it. [`Doors`] reads and writes both for the
//! daemon, and [`NonblockingReader`] reads them without waiting. `cosadm` manages them through
//! `outer` and `inner`.
//!
//! Runs in the daemon's registry worker ([`process`]), in the monitor where it does not block, and
//! in `cosadm`. It never makes the access decision: the monitor does, with [`Admitted`] and
//! [`Known`].

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
