//! The settings of the inner door ("Admin Settings", seed 002).

use rusqlite::{Connection, OptionalExtension, params};

use super::Inner;
use crate::config::words;
use crate::fault::Fault;
use crate::registry::file;

/// Longest welcome message, bytes: it is sent with the acceptance.
pub const WELCOME: usize = 512;

/// The administrator's settings. By default none is set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    /// While the outer door is open, a user who types a name registers the machine.
    pub build_mode: bool,
    /// Machines that connect from this host itself are not checked.
    pub remote_only: bool,
    /// There is a backdoor password: it registers a machine and is not erased.
    pub backdoor: bool,
    /// The message for an allowed machine; empty: none.
    pub welcome: String,
}

/// One setting and its new value. The backdoor password has its own function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Setting {
    /// See [`Settings::build_mode`].
    BuildMode(bool),
    /// See [`Settings::remote_only`].
    RemoteOnly(bool),
    /// See [`Settings::welcome`].
    Welcome(String),
}

impl Inner {
    /// Returns the settings.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn settings(&self) -> Result<Settings, Fault> {
        read(&self.0.db).map_err(|e| self.tell(&e))
    }

    /// Changes settings, all or none.
    ///
    /// # Errors
    /// A welcome message is too long or cannot be shown, or the file cannot be written.
    pub fn set(&mut self, settings: &[Setting]) -> Result<(), Fault> {
        for setting in settings {
            if let Setting::Welcome(text) = setting {
                check_welcome(text)?;
            }
        }
        self.change(|t| {
            for setting in settings {
                match setting {
                    Setting::BuildMode(on) => write(t, "build-mode", &[u8::from(*on)])?,
                    Setting::RemoteOnly(on) => write(t, "remote-only", &[u8::from(*on)])?,
                    Setting::Welcome(text) => write(t, "welcome", text.as_bytes())?,
                }
            }
            Ok(())
        })
    }
}

fn check_welcome(text: &str) -> Result<(), Fault> {
    if text.len() > WELCOME {
        return Err(Fault::new(format!(
            "a welcome message has at most {WELCOME} bytes, and this one {}",
            text.len()
        )));
    }
    if !text.chars().all(words::is_shown) {
        return Err(Fault::new(
            "a welcome message is one line of characters that can be shown",
        ));
    }
    Ok(())
}

pub(super) fn read(db: &Connection) -> rusqlite::Result<Settings> {
    let mut all = Settings::default();
    file::settings(db, |name, value| match name {
        "build-mode" => all.build_mode = value == [1],
        "remote-only" => all.remote_only = value == [1],
        "backdoor" => all.backdoor = true,
        "welcome" => {
            let text = std::str::from_utf8(value).unwrap_or_default();
            // Another host wrote it, so check it.
            all.welcome = check_welcome(text).map_or_else(|_| String::new(), |()| text.into());
        }
        _ => {}
    })?;
    Ok(all)
}

pub(super) fn get(db: &Connection, name: &str) -> rusqlite::Result<Option<Vec<u8>>> {
    db.prepare_cached("SELECT value FROM setting WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

pub(super) fn write(db: &Connection, name: &str, value: &[u8]) -> rusqlite::Result<()> {
    let query = "INSERT OR REPLACE INTO setting (name, value) VALUES (?1, ?2)";
    db.execute(query, params![name, value]).map(|_| ())
}
