//! PAM as the login worker sees it: one transaction, its conversation, its items.
//!
//! Runs in `cosserver-login`. Owns no handle and calls no library: the implementation over libpam
//! is `src/sys/pam.rs`, which `cosserver-login` alone compiles, so that no other program is linked
//! with libpam, whatever the linker keeps.

use std::ffi::{CStr, CString, c_int};
use std::os::unix::ffi::OsStrExt;

use zeroize::Zeroizing;

/// One message of a conversation: PAM's style, and its words.
pub struct Message {
    /// How it is shown, and whether it wants an answer.
    pub style: Style,
    /// The words.
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

/// PAM's partner in the conversation.
pub trait Converse {
    /// Puts messages and gets the answers to the prompts among them, in order.
    /// `None`: there is no answer, and PAM must give up.
    fn converse(&mut self, messages: Vec<Message>) -> Option<Vec<Reply>>;
}

/// What PAM returned instead of success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// PAM's own number.
    pub code: c_int,
    /// PAM's words for it, for the log.
    pub words: String,
    /// Whether it says nothing about the user: PAM, a module or what it asks has failed.
    pub is_ours: bool,
}

impl Failure {
    /// Returns the same with the stage that it came from, which PAM's words do not name.
    #[must_use]
    pub fn at(self, stage: &str) -> Self {
        let words = format!("{stage}: {}", self.words);
        Self { words, ..self }
    }
}

/// An item that a module may ask for (pam_set_item(3)).
#[derive(Debug, Clone, Copy)]
pub enum Item {
    /// The address of the caller, numeric: a name costs look-ups.
    RemoteHost,
    /// The name that the caller has there.
    RemoteUser,
    /// What stands for a terminal.
    Terminal,
}

/// What the account stage returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountStatus {
    /// The account may be used.
    Good,
    /// The account may be used once its password has been changed.
    PasswordExpired,
}

/// A transaction, from pam_start to pam_end. Each method fails with what PAM returned.
pub trait Transaction {
    /// Sets an item.
    ///
    /// # Errors
    /// What PAM returned.
    fn set(&mut self, item: Item, value: &CStr) -> Result<(), Failure>;

    /// Authenticates the user. An empty password is none.
    ///
    /// # Errors
    /// The user is not authenticated.
    fn authenticate(&mut self) -> Result<(), Failure>;

    /// Checks whether the account may be used now.
    ///
    /// # Errors
    /// It may not.
    fn account(&mut self) -> Result<AccountStatus, Failure>;

    /// Has an expired password changed.
    ///
    /// # Errors
    /// It was not changed.
    fn change_expired(&mut self) -> Result<(), Failure>;

    /// Establishes the user's credentials.
    ///
    /// # Errors
    /// What PAM returned.
    fn establish_credentials(&mut self) -> Result<(), Failure>;

    /// Deletes them again.
    ///
    /// # Errors
    /// What PAM returned.
    fn delete_credentials(&mut self) -> Result<(), Failure>;

    /// Opens the session.
    ///
    /// # Errors
    /// What PAM returned.
    fn open_session(&mut self) -> Result<(), Failure>;

    /// Closes it.
    ///
    /// # Errors
    /// What PAM returned.
    fn close_session(&mut self) -> Result<(), Failure>;

    /// Returns the user as the modules left it: they may have given it another name.
    fn user(&mut self) -> Option<String>;

    /// Returns the variables that the modules have set, `NAME=value`.
    fn environment(&mut self) -> Vec<CString>;

    /// Sets a variable, `NAME=value`.
    ///
    /// # Errors
    /// What PAM returned.
    fn put(&mut self, variable: &CStr) -> Result<(), Failure>;
}

/// Begins a transaction: service, user, conversation.
pub type Start = fn(&CStr, &CStr, Box<dyn Converse>) -> Result<Box<dyn Transaction>, Failure>;

/// Makes a string for PAM. `None`: there is a NUL byte in it.
#[must_use]
pub fn string(text: &str) -> Option<CString> {
    CString::new(std::ffi::OsStr::new(text).as_bytes()).ok()
}
