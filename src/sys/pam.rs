//! PAM over libpam: the implementation of [`cosserver::daemon::login::pam`].
//!
//! Compiled only into `cosserver-login` (`src/bin/cosserver-login.rs` includes this file), which
//! has one thread. Uses the raw functions of the crate `pam` (`pam::ffi`): its safe layer frees the
//! user's name too early and cannot pass the flags that matter. PAM must never run in another
//! process.
#![allow(unsafe_code, reason = "it is of src/sys: it calls libpam")]

#[path = "pam/replies.rs"]
mod replies;

use std::ffi::{CStr, CString, c_int, c_void};

use cosserver::daemon::login::pam::{
    AccountStatus, Converse, Failure, Item, Message, Style, Transaction,
};
use pam::ffi;

/// Returns the style for PAM's number.
const fn style_of(number: c_int) -> Option<Style> {
    match number {
        ffi::PAM_PROMPT_ECHO_OFF => Some(Style::Hidden),
        ffi::PAM_PROMPT_ECHO_ON => Some(Style::Shown),
        ffi::PAM_TEXT_INFO => Some(Style::Info),
        ffi::PAM_ERROR_MSG => Some(Style::Error),
        _ => None,
    }
}

/// Returns whether a PAM return code says nothing about the user: see [`Failure::is_ours`].
const fn is_ours(code: c_int) -> bool {
    matches!(
        code,
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

/// Begins a transaction for a user.
///
/// # Errors
/// PAM's return code.
pub(crate) fn start(
    service: &CStr,
    user: &CStr,
    converse: Box<dyn Converse>,
) -> Result<Box<dyn Transaction>, Failure> {
    Ok(Box::new(Pam::start(service, user, converse)?))
}

/// A transaction over libpam's handle.
struct Pam {
    handle: *mut ffi::pam_handle_t,
    last: c_int,
    /// The target of the conversation's pointer; it must not move.
    talker: *mut ConversationData,
}

struct ConversationData(Box<dyn Converse>);

/// The most messages that a module may send at once.
const AT_ONCE: usize = 32;

impl Pam {
    fn start(service: &CStr, user: &CStr, converse: Box<dyn Converse>) -> Result<Self, Failure> {
        let talker = Box::into_raw(Box::new(ConversationData(converse)));
        let conversation = ffi::pam_conv {
            conv: Some(talk),
            appdata_ptr: talker.cast(),
        };
        let mut handle = std::ptr::null_mut();
        // SAFETY: both strings end with NUL; PAM copies them and the structure. The structure's
        // pointer is valid until `drop`.
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

    /// Switches off PAM's own delay after a failure: rejected logins have their own delay, the same
    /// for every cause.
    fn switch_delay_off(&mut self) {
        let nothing = no_delay as *const c_void;
        // SAFETY: the item is a function's address; PAM calls it with this signature.
        unsafe { ffi::pam_set_item(self.handle, ffi::PAM_FAIL_DELAY, nothing) };
    }

    fn credentials(&mut self, flags: c_int) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_setcred(self.handle, flags) };
        self.check(code)
    }

    fn check(&mut self, code: c_int) -> Result<(), Failure> {
        self.last = code;
        if code == ffi::PAM_SUCCESS {
            return Ok(());
        }
        // SAFETY: PAM returns a static string for every number.
        let words = unsafe { ffi::pam_strerror(self.handle, code) };
        let words = if words.is_null() {
            format!("PAM error {code}")
        } else {
            // SAFETY: not null, and it ends with NUL.
            unsafe { CStr::from_ptr(words) }
                .to_string_lossy()
                .into_owned()
        };
        Err(Failure {
            code,
            words,
            is_ours: is_ours(code),
        })
    }
}

impl Transaction for Pam {
    fn set(&mut self, item: Item, value: &CStr) -> Result<(), Failure> {
        let number = match item {
            Item::RemoteHost => ffi::PAM_RHOST,
            Item::RemoteUser => ffi::PAM_RUSER,
            Item::Terminal => ffi::PAM_TTY,
        };
        // SAFETY: the string ends with NUL, and PAM copies it.
        let code = unsafe { ffi::pam_set_item(self.handle, number, value.as_ptr().cast()) };
        self.check(code)
    }

    fn authenticate(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_authenticate(self.handle, ffi::PAM_DISALLOW_NULL_AUTHTOK) };
        self.check(code)
    }

    fn account(&mut self) -> Result<AccountStatus, Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_acct_mgmt(self.handle, ffi::PAM_DISALLOW_NULL_AUTHTOK) };
        if code == ffi::PAM_NEW_AUTHTOK_REQD {
            self.last = code;
            return Ok(AccountStatus::PasswordExpired);
        }
        self.check(code).map(|()| AccountStatus::Good)
    }

    fn change_expired(&mut self) -> Result<(), Failure> {
        let flags = ffi::PAM_CHANGE_EXPIRED_AUTHTOK;
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_chauthtok(self.handle, flags) };
        self.check(code)
    }

    fn establish_credentials(&mut self) -> Result<(), Failure> {
        self.credentials(ffi::PAM_ESTABLISH_CRED)
    }

    fn delete_credentials(&mut self) -> Result<(), Failure> {
        self.credentials(ffi::PAM_DELETE_CRED)
    }

    fn open_session(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_open_session(self.handle, 0) };
        self.check(code)
    }

    fn close_session(&mut self) -> Result<(), Failure> {
        // SAFETY: the handle is open.
        let code = unsafe { ffi::pam_close_session(self.handle, 0) };
        self.check(code)
    }

    fn user(&mut self) -> Option<String> {
        let mut value: *const c_void = std::ptr::null();
        // SAFETY: the handle is open, and PAM may set the pointer.
        let code = unsafe { ffi::pam_get_item(self.handle, ffi::PAM_USER, &mut value) };
        if code != ffi::PAM_SUCCESS || value.is_null() {
            return None;
        }
        // SAFETY: PAM's own string, which is valid until the item is set again.
        let name = unsafe { CStr::from_ptr(value.cast()) };
        name.to_str().ok().map(str::to_owned)
    }

    fn environment(&mut self) -> Vec<CString> {
        let mut all = Vec::new();
        // SAFETY: the handle is open.
        let list = unsafe { ffi::pam_getenvlist(self.handle) };
        let mut next = list;
        while !next.is_null() {
            // SAFETY: the list ends with a null pointer, which has not been reached.
            let entry = unsafe { *next };
            if entry.is_null() {
                break;
            }
            // SAFETY: each entry is a string allocated by malloc.
            all.push(unsafe { CStr::from_ptr(entry) }.to_owned());
            // SAFETY: the caller of pam_getenvlist frees its entries.
            unsafe { libc::free(entry.cast()) };
            // SAFETY: still within the list.
            next = unsafe { next.add(1) };
        }
        // SAFETY: as for its entries.
        unsafe { libc::free(list.cast()) };
        all
    }

    fn put(&mut self, variable: &CStr) -> Result<(), Failure> {
        // SAFETY: the string ends with NUL, and PAM copies it.
        let code = unsafe { ffi::pam_putenv(self.handle, variable.as_ptr()) };
        self.check(code)
    }
}

impl Drop for Pam {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: open until now; nothing uses it after this.
            unsafe { ffi::pam_end(self.handle, self.last) };
        }
        // SAFETY: made by `start`, and PAM no longer has the pointer.
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
        // SAFETY: an array of `count` pointers (Linux-PAM and OpenPAM).
        let at = unsafe { messages.add(i) };
        // SAFETY: within it.
        let message = unsafe { *at };
        let Some(message) = read_message(message) else {
            return ffi::PAM_CONV_ERR;
        };
        all.push(message);
    }
    let prompts: Vec<bool> = all.iter().map(|m| m.style.is_prompt()).collect();
    // SAFETY: the pointer that `start` passed, valid as long as the handle; PAM calls from this one
    // thread, and never from within this call.
    let talker = unsafe { &mut *data.cast::<ConversationData>() };
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
    // SAFETY: PAM's own structure, which is valid for the call, or null.
    let message = unsafe { message.as_ref() }?;
    let style = style_of(message.msg_style)?;
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
