//! The daemon. The process's name (`argv[0]`) selects its role.
#![cfg_attr(all(target_os = "linux", target_env = "gnu", not(test)), no_main)]

use cosserver::sys::process::ChildMains;

cosserver::entry!(run);

/// The roles that the monitor forks to serve inetd's single connection.
const CHILD_MAINS: ChildMains = ChildMains {
    gate: cosserver::daemon::gate::main,
    relay: cosserver::daemon::relay::main_for_one,
    lookup: cosserver::daemon::lookup::main,
};

fn run() -> u8 {
    match std::env::args_os().next().as_ref().and_then(|a| a.to_str()) {
        Some("cosserver: gate") => cosserver::daemon::gate::main(),
        Some("cosserver: relay") => cosserver::daemon::relay::main(),
        Some("cosserver: lookup") => cosserver::daemon::lookup::main(),
        Some("cosserver: guard") => cosserver::daemon::monitor::standby_guard(),
        Some("cosserver: registry") => cosserver::registry::process::main(),
        _ => cosserver::daemon::monitor::main(&CHILD_MAINS),
    }
}
