//! What the monitor reads at its start and at each reload.
//!
//! Runs in the monitor. Must not change what is in force: the caller does.

use std::path::Path;

use crate::config::settings::Settings;
use crate::fault::Fault;
use crate::sys::process::LoginProgram;

/// Loads the settings of a file, and applies the command line's port, if given.
pub(super) fn settings(file: &Path, port: Option<u16>) -> Result<Settings, Fault> {
    let mut settings = Settings::load(file)?;
    if let Some(port) = port {
        settings.port = port;
    }
    Ok(settings)
}

/// Returns the program of the login workers, if an application is configured to log in for.
pub(super) fn can_log_in(settings: &Settings) -> Result<Option<LoginProgram>, Fault> {
    if settings.gui.all().next().is_none() {
        return Ok(None);
    }
    match settings.gui.lacks_service() {
        Some(fault) => Err(fault),
        None => LoginProgram::open().map(Some),
    }
}
