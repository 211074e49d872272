//! PAM as the login worker sees it: one transaction, its conversation, its items.
//!
//! Runs in `cosserver-login`. Owns no handle and calls no library: the implementation over libpam
//! is `src/sys/pam.rs`, which only `cosserver-login` compiles. So no other program is linked with
//! libpam, whatever the linker keeps.

use std::ffi::{CStr, CString, c_int};
use std::os::unix::ffi::OsStrExt;

use zeroize::Zeroizing;

/// One message of a conversation: its PAM style and its text.
pub struct Message {
    /// How it is shown, and whether it needs an answer.
    pub style: Style,
    /// The text.
    pub words: String,
}

/// PAM's message styles (pam_conv(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A prompt whose answer is not shown: PAM_PROMPT_ECHO_OFF.
    Hidden,
    /// A prompt whose answer is shown: PAM_PROMPT_ECHO_ON.
    Shown,
    /// Information: PAM_TEXT_INFO.
    Info,
    /// An error: PAM_ERROR_MSG.
    Error,
}

impl Style {
    /// Whether it is a prompt.
    #[must_use]
    pub const fn is_prompt(self) -> bool {
        matches!(self, Self::Hidden | Self::Shown)
    }
}

/// An answer to a prompt. Wiped when dropped.
pub type Reply = Zeroizing<Vec<u8>>;

/// The application's side of the conversation.
pub trait Converse {
    /// Shows messages and returns the answers to the prompts among them, in order. Returns `None`
    /// if there is no answer and PAM must give up.
    fn converse(&mut self, messages: Vec<Message>) -> Option<Vec<Reply>>;
}

/// An error that PAM returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// PAM's error number.
    pub code: c_int,
    /// PAM's text for it, for the log.
    pub words: String,
    /// Whether it says nothing about the user: PAM, a module or a service that it asks has failed.
    pub is_ours: bool,
}

impl Failure {
    /// Returns the same failure with the name of its stage, which PAM's text lacks.
    #[must_use]
    pub fn at(self, stage: &str) -> Self {
        let words = format!("{stage}: {}", self.words);
        Self { words, ..self }
    }
}

/// An item that a module may ask for (pam_set_item(3)).
#[derive(Debug, Clone, Copy)]
pub enum Item {
    /// The caller's address, numeric, because a name would cost look-ups.
    RemoteHost,
    /// The caller's name on that host.
    RemoteUser,
    /// The name given in place of a terminal.
    Terminal,
}

/// The result of the account stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountStatus {
    /// The account may be used.
    Good,
    /// The account may be used once its password has been changed.
    PasswordExpired,
}

/// A transaction, from pam_start to pam_end. A method that fails returns PAM's error.
pub trait Transaction {
    /// Sets an item.
    ///
    /// # Errors
    /// What PAM returned.
    fn set(&mut self, item: Item, value: &CStr) -> Result<(), Failure>;

    /// Authenticates the user. An empty password never authenticates.
    ///
    /// # Errors
    /// The user is not authenticated.
    fn authenticate(&mut self) -> Result<(), Failure>;

    /// Checks whether the account may be used now.
    ///
    /// # Errors
    /// The account may not be used.
    fn account(&mut self) -> Result<AccountStatus, Failure>;

    /// Has the user change an expired password.
    ///
    /// # Errors
    /// The password was not changed.
    fn change_expired(&mut self) -> Result<(), Failure>;

    /// Establishes the user's credentials.
    ///
    /// # Errors
    /// What PAM returned.
    fn establish_credentials(&mut self) -> Result<(), Failure>;

    /// Deletes the credentials.
    ///
    /// # Errors
    /// What PAM returned.
    fn delete_credentials(&mut self) -> Result<(), Failure>;

    /// Opens the session.
    ///
    /// # Errors
    /// What PAM returned.
    fn open_session(&mut self) -> Result<(), Failure>;

    /// Closes the session.
    ///
    /// # Errors
    /// What PAM returned.
    fn close_session(&mut self) -> Result<(), Failure>;

    /// Returns the user name as the modules left it: they may have changed it.
    fn user(&mut self) -> Option<String>;

    /// Returns the variables that the modules have set, as `NAME=value`.
    fn environment(&mut self) -> Vec<CString>;

    /// Sets a variable, `NAME=value`.
    ///
    /// # Errors
    /// What PAM returned.
    fn put(&mut self, variable: &CStr) -> Result<(), Failure>;
}

/// Begins a transaction: service, user, conversation.
pub type Start = fn(&CStr, &CStr, Box<dyn Converse>) -> Result<Box<dyn Transaction>, Failure>;

/// Makes a string for PAM. Returns `None` if it contains a NUL byte.
#[must_use]
pub fn string(text: &str) -> Option<CString> {
    CString::new(std::ffi::OsStr::new(text).as_bytes()).ok()
}
