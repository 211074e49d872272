//! The daemon. Which process this is, its name says.

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().next().as_ref().and_then(|a| a.to_str()) {
        Some("cosserver: gate") => cosserver::gate::main(),
        Some("cosserver: relay") => cosserver::relay::main(),
        _ => cosserver::monitor::main(),
    }
}
