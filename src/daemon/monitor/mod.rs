//! The monitor: owns the secrets, HOSTINFO, the decisions, the jobs, and the log. One thread, one
//! event loop; runs as root if the daemon does.
//!
//! It decides on what it decoded itself from the bytes that the proof covers. It trusts the gate
//! only to have received these bytes. Must not block: other processes, with a time limit, do what
//! may take long (names, accounts, PAM, a registry that may hang). A standalone daemon that serves
//! waits for three things only: its files on the local disk; the fsyncs with the first proof of a
//! host; and the start of a new gate or relay, for 3 s at most. Under inetd, where no other
//! connection would wait, it also does the registry's work.
//!
//! [`pipeline`] is a connection's path. The components in [`parts`] own the state that its steps
//! use. [`event_loop`] gives each event to its component, and routes what comes of it.

mod accounts;
mod backends;
mod children;
mod configuration;
mod conversation;
mod descriptor_limit;
mod event_loop;
mod event_source;
mod first_accounts;
mod ground;
mod guard;
mod hosts;
mod inetd;
mod inetd_table;
mod jobs;
mod key_cache;
mod listen;
mod logins;
mod look_ups;
mod names;
mod notify;
pub mod options;
mod own_file;
mod parts;
mod pipeline;
mod preauth;
mod processes;
mod protect;
mod registry_client;
mod reject;
mod run_claim;
mod run_folder;
mod sessions;
mod shared_programs;
mod sockets;
mod start;
mod startup_error;

use crate::sys::process;

pub use guard::standby_main as standby_guard;

/// Runs the daemon as its first process, and returns its exit status.
pub fn main(child_mains: &process::ChildMains) -> u8 {
    match start::start(child_mains) {
        start::Started::Serving(mut monitor) => monitor.serve(),
        start::Started::Done(code) => code,
    }
}
