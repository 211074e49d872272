//! Messages to the user or the program that started the daemon: errors and warnings, on standard
//! error. Run by the monitor while it starts. Must not write to standard error if that is a peer's
//! connection, nor decide whether the daemon starts.

use std::io::Write;
use std::os::fd::AsFd;

use nix::unistd::geteuid;

use super::first_accounts::account_of;
use super::options::Asked;
use crate::config::settings::Settings;
use crate::fault::Fault;
use crate::log::{self, Level, Log};
use crate::sys::socket;

/// Reports a fault, and its remedy on a line of its own.
pub(super) fn print_startup_fault(fault: &Fault) {
    print_error(fault);
    if let Some(remedy) = fault.remedy() {
        print_error(&remedy);
    }
}

/// Writes a message for the user or the program that started the daemon: to standard error, or to
/// the log if that is a peer's connection. A standard error that cannot be written to (a full disk)
/// does not prevent the start.
pub(super) fn print_error(what: &dyn std::fmt::Display) {
    if stderr_is_the_peers() {
        Log::syslog(Level::Error).line(Level::Error, what);
    } else {
        let _ = writeln!(std::io::stderr(), "cosserver: {what}");
    }
}

/// Whether standard error is the connection, as under inetd: the peer must not read our faults.
pub(super) fn stderr_is_the_peers() -> bool {
    socket::peer(std::io::stderr().as_fd()).is_ok()
}

/// Warns that the daemon's account is missing. That is no fault: it serves without. Only root needs
/// it.
pub(super) fn warn_of_user(settings: &Settings) {
    let daemon = &settings.daemon;
    if geteuid().is_root() && matches!(account_of(daemon.user.as_str(), None), Ok(None)) {
        let words = daemon.without_its_user();
        print_error(&format_args!("warning: user {}: {words}", daemon.user));
    }
}

/// Warns of a wrong line in a file of the registry.
pub(super) fn warn_of_line(fault: &Fault) {
    print_error(&format_args!("warning: {fault}"));
}

/// Warns that the log goes nowhere. That is no fault either: syslog may be started later, and has
/// the log from then on. Not under inetd, where it would be repeated at each connection.
pub(super) fn warn_of_log(asked: &Asked) {
    if asked.stderr || asked.inetd {
        return;
    }
    if let Some(why) = log::syslog_fault() {
        print_error(&format_args!(
            "warning: {why}: the log goes nowhere; start syslog, or use -e"
        ));
    }
}
