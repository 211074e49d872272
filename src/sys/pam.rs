//! PAM with a safe face: one transaction, its conversation, its items.
//!
//! Over the raw functions of the crate `pam` (`pam::ffi`): its own safe layer frees
//! the user's name too early and cannot pass the flags that matter. Used by the
//! login worker alone, which has one thread; PAM must never run in another process.

mod replies;

use std::ffi::{CStr, CString, c_int, c_void};
use std::os::unix::ffi::OsStrExt;

use pam::ffi;
use zeroize::Zeroizing;

/// One message of a conversation: PAM's style, and its words.
pub struct Message {
    /// PAM_PROMPT_ECHO_OFF, PAM_PROMPT_ECHO_ON, PAM_TEXT_INFO or PAM_ERROR_MSG.
    pub style: Style,
    /// The words.
    pub words: String,
}

/// PAM's message styles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// A prompt whose answer is not to be seen.
    Hidden,
    /// A prompt whose answer may be seen.
    Shown,
    /// Something to know.
    Info,
    /// Something that went wrong.
    Error,
}

impl Style {
    const fn of(number: c_int) -> Option<Self> {
        match number {
            ffi::PAM_PROMPT_ECHO_OFF => Some(Self::Hidden),
            ffi::PAM_PROMPT_ECHO_ON => Some(Self::Shown),
            ffi::PAM_TEXT_INFO => Some(Self::Info),
            ffi::PAM_ERROR_MSG => Some(Self::Error),
            _ => None,
        }
    }
}

/// An answer to a prompt. Wiped when dropped.
pub type Reply = Zeroizing<Vec<u8>>;

/// Whoever PAM talks with.
pub trait Converse {
    /// Puts messages and gets the answers to the prompts among them, in order.
    /// `None`: nobody answers, and PAM must give up.
    fn converse(&mut self, messages: Vec<Message>) -> Option<Vec<Reply>>;
}

/// What PAM said instead of yes: its number, and its words for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// PAM's own number.
    pub code: c_int,
    /// PAM's words for it.
    pub words: String,
}

impl Failure {
    /// The same with the stage that it came from, which PAM's words do not name.
    #[must_use]
    pub fn at(self, stage: &str) -> Self {
        let words = format!("{stage}: {}", self.words);
        Self { words, ..self }
    }

    /// Whether it says nothing about who logs in: PAM, a module or what it asks has
    /// failed.
    pub const fn is_ours(&self) -> bool {
        matches!(
            self.code,
            ffi::PAM_OPEN_ERR
                | ffi::PAM_SYMBOL_ERR
                | ffi::PAM_SERVICE_ERR
                | ffi::PAM_SYSTEM_ERR
                | ffi::PAM_BUF_ERR
                | ffi::PAM_AUTHINFO_UNAVAIL
                | ffi::PAM_NO_MODULE_DATA
                | ffi::PAM_AUTHTOK_LOCK_BUSY
                | ffi::PAM_TRY_AGAIN
                | ffi::PAM_IGNORE
                | ffi::PAM_ABORT
                | ffi::PAM_MODULE_UNKNOWN
                | ffi::PAM_BAD_ITEM
        )
    }
}

/// An item that a module may ask for (pam_set_item(3)).
#[derive(Debug, Clone, Copy)]
pub enum Item {
    /// The address that the caller comes from, numeric: a name costs look-ups.
    RemoteHost,
    /// The name that the caller has there.
    RemoteUser,
    /// What stands for a terminal.
    Terminal,
}

/// What the account stage came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The account may be used.
    Good,
    /// It may, once its password has been changed.
    PasswordExpired,
}

/// A transaction, from pam_start to pam_end.
pub struct Pam {
    handle: *mut ffi::pam_handle_t,
    last: c_int,
    /// What the handle's conversation points to; it must not move.
    talker: *mut Talker,
}

struct Talker(Box<dyn Converse>);

/// Most messages that a module may put at once.
const AT_ONCE: usize = 32;

impl Pam {
    /// Begins a transaction for a user.
    ///
    /// # Errors
    /// What PAM says.
    pub fn start(
        service: &CStr,
        user: &CStr,
        converse: Box<dyn Converse>,
    ) -> Result<Self, Failure> {
        let talker = Box::into_raw(Box::new(Talker(converse)));
        let conversation = ffi::pam_conv {
            conv: Some(talk),
            appdata_ptr: talker.cast(),
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: both strings end with NUL; PAM copies them and the structure, whose
        // pointer lives until `drop`.
        let code =
            unsafe { ffi::pam_start(service.as_ptr(), user.as_ptr(), &conversation, &mut handle) };
        let mut pam = Self {
            handle,
            last: code,
            talker,
        };
        pam.check(code)?;
        pam.switch_delay_off();
        Ok(pam)
    }

    /// PAM's own delay after a failure is off: refusals have their times of their own,
    /// the same for every cause.
    fn switch_delay_off(&mut self) {
        let nothing = no_delay as *const c_void;
        // SAFETY: the item is a function's address; PAM calls it with this signature.
        unsafe { ffi::pam_set_item(self.handle, ffi::PAM_FAIL_DELAY, nothing) };
    }

    /// Sets an item.
    ///
    /// # Errors
    /// What PAM says.
    pub fn set(&mut self, item: Item, value: &CStr) -> Result<(), Failure> {
        let number = match item {
            Item::RemoteHost => ffi::PAM_RHOST,
            Item::RemoteUser => ffi::PAM_RUSER,
            Item::Terminal => ffi::PAM_TTY,
        };
        // SAFETY: the string ends with NUL, and PAM copies it.
        let code = unsafe { ffi::pam_set_item(self.handle, number, value.as_ptr().cast()) };
        self.check(code)
    }

    /// Asks whoever there is for what the stack wants. An empty password is none.
    ///
    /// # Errors
    /// He is not who he says.
    pub fn authenticate(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_authenticate(self.handle, ffi::PAM_DISALLOW_NULL_AUTHTOK) };
        self.check(code)
    }

    /// Whether the account may be used now.
    ///
    /// # Errors
    /// It may not.
    pub fn account(&mut self) -> Result<Standing, Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_acct_mgmt(self.handle, ffi::PAM_DISALLOW_NULL_AUTHTOK) };
        if code == ffi::PAM_NEW_AUTHTOK_REQD {
            self.last = code;
            return Ok(Standing::PasswordExpired);
        }
        self.check(code).map(|()| Standing::Good)
    }

    /// Has an expired password changed.
    ///
    /// # Errors
    /// It was not changed.
    pub fn change_expired(&mut self) -> Result<(), Failure> {
        let flags = ffi::PAM_CHANGE_EXPIRED_AUTHTOK;
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_chauthtok(self.handle, flags) };
        self.check(code)
    }

    /// Establishes the user's credentials.
    ///
    /// # Errors
    /// What PAM says.
    pub fn establish_credentials(&mut self) -> Result<(), Failure> {
        self.credentials(ffi::PAM_ESTABLISH_CRED)
    }

    /// Takes them away again.
    ///
    /// # Errors
    /// What PAM says.
    pub fn delete_credentials(&mut self) -> Result<(), Failure> {
        self.credentials(ffi::PAM_DELETE_CRED)
    }

    fn credentials(&mut self, flags: c_int) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_setcred(self.handle, flags) };
        self.check(code)
    }

    /// Opens the session.
    ///
    /// # Errors
    /// What PAM says.
    pub fn open_session(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_open_session(self.handle, 0) };
        self.check(code)
    }

    /// Closes it.
    ///
    /// # Errors
    /// What PAM says.
    pub fn close_session(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_close_session(self.handle, 0) };
        self.check(code)
    }

    /// The user as the modules left him: they may have given him another name.
    pub fn user(&mut self) -> Option<String> {
        let mut value: *const c_void = std::ptr::null();
        // SAFETY: the handle is open, and the pointer is ours to be set.
        let code = unsafe { ffi::pam_get_item(self.handle, ffi::PAM_USER, &mut value) };
        if code != ffi::PAM_SUCCESS || value.is_null() {
            return None;
        }
        // SAFETY: PAM's own string, which lives until the item is set anew.
        let name = unsafe { CStr::from_ptr(value.cast()) };
        name.to_str().ok().map(str::to_owned)
    }

    /// The variables that the modules have set, `NAME=value`.
    pub fn environment(&mut self) -> Vec<CString> {
        let mut all = Vec::new();
        // SAFETY: the handle is open.
        let list = unsafe { ffi::pam_getenvlist(self.handle) };
        let mut next = list;
        while !next.is_null() {
            // SAFETY: the list ends with a null pointer, which was not yet met.
            let entry = unsafe { *next };
            if entry.is_null() {
                break;
            }
            // SAFETY: each entry is a string that malloc made.
            all.push(unsafe { CStr::from_ptr(entry) }.to_owned());
            // SAFETY: the caller of pam_getenvlist frees its entries.
            unsafe { libc::free(entry.cast()) };
            // SAFETY: still within the list.
            next = unsafe { next.add(1) };
        }
        // SAFETY: and the list itself.
        unsafe { libc::free(list.cast()) };
        all
    }

    /// Sets a variable, `NAME=value`.
    ///
    /// # Errors
    /// What PAM says.
    pub fn put(&mut self, variable: &CStr) -> Result<(), Failure> {
        // SAFETY: the string ends with NUL, and PAM copies it.
        let code = unsafe { ffi::pam_putenv(self.handle, variable.as_ptr()) };
        self.check(code)
    }

    fn check(&mut self, code: c_int) -> Result<(), Failure> {
        self.last = code;
        if code == ffi::PAM_SUCCESS {
            return Ok(());
        }
        // SAFETY: a static string of PAM's, whatever the number.
        let words = unsafe { ffi::pam_strerror(self.handle, code) };
        let words = if words.is_null() {
            format!("PAM error {code}")
        } else {
            // SAFETY: not null, and it ends with NUL.
            unsafe { CStr::from_ptr(words) }
                .to_string_lossy()
                .into_owned()
        };
        Err(Failure { code, words })
    }
}

impl Drop for Pam {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: open until now; nothing uses it after this.
            unsafe { ffi::pam_end(self.handle, self.last) };
        }
        // SAFETY: made by `start`, and PAM has forgotten it.
        drop(unsafe { Box::from_raw(self.talker) });
    }
}

extern "C" fn no_delay(_: c_int, _: std::ffi::c_uint, _: *mut c_void) {}

/// PAM's callback (pam_conv(3)).
extern "C" fn talk(
    count: c_int,
    messages: *mut *const ffi::pam_message,
    replies: *mut *mut ffi::pam_response,
    data: *mut c_void,
) -> c_int {
    let count = usize::try_from(count).unwrap_or(0);
    if count == 0 || count > AT_ONCE || messages.is_null() || replies.is_null() || data.is_null() {
        return ffi::PAM_CONV_ERR;
    }
    let mut all = Vec::new();
    for i in 0..count {
        // SAFETY: an array of so many pointers (Linux-PAM and OpenPAM).
        let at = unsafe { messages.add(i) };
        // SAFETY: within it.
        let message = unsafe { *at };
        let Some(message) = read_message(message) else {
            return ffi::PAM_CONV_ERR;
        };
        all.push(message);
    }
    let prompts: Vec<bool> = all
        .iter()
        .map(|m| matches!(m.style, Style::Hidden | Style::Shown))
        .collect();
    // SAFETY: what `start` gave, which lives as long as the handle; PAM calls from
    // this one thread, and never from within this call.
    let talker = unsafe { &mut *data.cast::<Talker>() };
    let Some(answers) = talker.0.converse(all) else {
        return ffi::PAM_CONV_ERR;
    };
    match replies::make(&prompts, &answers) {
        Some(made) => {
            // SAFETY: PAM's own pointer, checked above.
            unsafe { *replies = made };
            ffi::PAM_SUCCESS
        }
        None => ffi::PAM_BUF_ERR,
    }
}

fn read_message(message: *const ffi::pam_message) -> Option<Message> {
    // SAFETY: PAM's own structure, which lives for the call, or null.
    let message = unsafe { message.as_ref() }?;
    let style = Style::of(message.msg_style)?;
    if message.msg.is_null() {
        return None;
    }
    // SAFETY: PAM's own string, which ends with NUL.
    let words = unsafe { CStr::from_ptr(message.msg) };
    Some(Message {
        style,
        words: words.to_string_lossy().into_owned(),
    })
}

/// A string for PAM. `None`: a NUL byte in it.
pub fn string(text: &str) -> Option<CString> {
    CString::new(std::ffi::OsStr::new(text).as_bytes()).ok()
}
