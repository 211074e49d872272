//! The settings of the inner door ("Admin Settings", seed 002).

use super::Inner;
use crate::config::words;
use crate::fault::Fault;
use crate::registry::text;

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
        Ok(of(&self.0.settings()?))
    }

    /// Changes settings, all or none.
    ///
    /// # Errors
    /// A welcome message is too long or cannot be shown, or the file cannot be written.
    pub fn set(&mut self, settings: &[Setting]) -> Result<(), Fault> {
        self.0.change_always(|all| {
            for setting in settings {
                match setting {
                    Setting::BuildMode(on) => all.set("build-mode", Some(word(*on)))?,
                    Setting::RemoteOnly(on) => all.set("remote-only", Some(word(*on)))?,
                    Setting::Welcome(text) => {
                        check_welcome(text)?;
                        let text = Some(text.as_bytes()).filter(|text| !text.is_empty());
                        all.set("welcome", text)?;
                    }
                }
            }
            Ok(())
        })
    }
}

const fn word(on: bool) -> &'static [u8] {
    if on { b"yes" } else { b"no" }
}

/// Whether this is the value of a setting that is on or off.
pub(super) fn is_word(value: &[u8]) -> bool {
    value == word(true) || value == word(false)
}

/// Whether this is a welcome message.
pub(super) fn is_welcome(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|text| check_welcome(text).is_ok())
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

/// Returns the settings that a file holds.
pub(super) fn of(all: &text::Settings) -> Settings {
    let is_on = |name| all.get(name).is_some_and(|value| value == word(true));
    let welcome = all.get("welcome").map(|text| String::from_utf8_lossy(text));
    Settings {
        build_mode: is_on("build-mode"),
        remote_only: is_on("remote-only"),
        backdoor: all.contains_key("backdoor"),
        welcome: welcome.unwrap_or_default().into_owned(),
    }
}
