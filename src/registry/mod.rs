//! The doors (seed 002): which machines may connect at all, before any password is asked.
//!
//! The outer door, `sestab`, belongs to this host only. It lists machines that are always denied,
//! and machines that are allowed while it is closed. The inner door, `idfile`, lists the authorized
//! machines, and several hosts may share it. Both are text files, one machine a line. [`Doors`]
//! reads and writes both for the daemon. `cosadm` manages them through `outer` and `inner`.
//!
//! Runs in the daemon's registry worker ([`process`]), in the monitor where it does not block, and
//! in `cosadm`. It never makes the access decision: the monitor does, with [`Admitted`] and
//! [`Known`].

pub mod asked;
mod decision;
mod doors;
mod edit;
mod file;
mod id;
pub mod inner;
mod lock;
pub mod noted;
pub mod outer;
pub mod process;
mod seen;
mod text;

pub use decision::{
    AccessDecision, AdmissionPass, Admitted, Known, Machine, MachineStatus, PromptFor,
    RegistrationState, decide,
};
pub use doors::{Doors, RegistrationOutcome};
pub use edit::{Checked, Edit};
pub use id::{Id, Name, Occurred};
pub use inner::Inner;
pub use outer::{Level, List, Outer};
pub use seen::Seen;
