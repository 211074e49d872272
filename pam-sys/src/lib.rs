//! Declares the functions, structures and constants of Linux-PAM that cosserver and the crate `pam`
//! use (`<security/pam_appl.h>`, `<security/_pam_types.h>`; pam(3)).
//!
//! Replaces the published `pam-sys` (`[patch.crates-io]` in Cargo.toml), which runs bindgen at
//! every build and therefore needs libclang and LLVM. `tests/pam_headers.rs` compares everything
//! here with the installed headers. Only `src/sys/pam.rs` calls these functions, in
//! `cosserver-login`.
#![allow(non_camel_case_types)]

use std::ffi::{c_char, c_int, c_void};

#[cfg(not(target_os = "linux"))]
compile_error!("pam-sys has the numbers of Linux-PAM: another PAM needs its own");

/// A transaction, opaque to the application.
#[repr(C)]
pub struct pam_handle_t {
    _private: [u8; 0],
}

/// A message of a module to the user.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pam_message {
    /// One of `PAM_PROMPT_ECHO_OFF`, `PAM_PROMPT_ECHO_ON`, `PAM_ERROR_MSG`, `PAM_TEXT_INFO`.
    pub msg_style: c_int,
    /// The text, ending with NUL.
    pub msg: *const c_char,
}

/// The answer to a message.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pam_response {
    /// A string allocated by malloc, which the module frees, or null.
    pub resp: *mut c_char,
    /// Unused; zero.
    pub resp_retcode: c_int,
}

/// The application's side of a conversation (pam_conv(3)).
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct pam_conv {
    /// Shows the messages to the user and returns the answers.
    pub conv: Option<
        unsafe extern "C" fn(
            num_msg: c_int,
            msg: *mut *const pam_message,
            resp: *mut *mut pam_response,
            appdata_ptr: *mut c_void,
        ) -> c_int,
    >,
    /// The last argument of `conv`.
    pub appdata_ptr: *mut c_void,
}

unsafe extern "C" {
    /// pam_start(3).
    pub fn pam_start(
        service_name: *const c_char,
        user: *const c_char,
        pam_conversation: *const pam_conv,
        pamh: *mut *mut pam_handle_t,
    ) -> c_int;
    /// pam_end(3).
    pub fn pam_end(pamh: *mut pam_handle_t, pam_status: c_int) -> c_int;
    /// pam_authenticate(3).
    pub fn pam_authenticate(pamh: *mut pam_handle_t, flags: c_int) -> c_int;
    /// pam_acct_mgmt(3).
    pub fn pam_acct_mgmt(pamh: *mut pam_handle_t, flags: c_int) -> c_int;
    /// pam_chauthtok(3).
    pub fn pam_chauthtok(pamh: *mut pam_handle_t, flags: c_int) -> c_int;
    /// pam_setcred(3).
    pub fn pam_setcred(pamh: *mut pam_handle_t, flags: c_int) -> c_int;
    /// pam_open_session(3).
    pub fn pam_open_session(pamh: *mut pam_handle_t, flags: c_int) -> c_int;
    /// pam_close_session(3).
    pub fn pam_close_session(pamh: *mut pam_handle_t, flags: c_int) -> c_int;
    /// pam_set_item(3).
    pub fn pam_set_item(pamh: *mut pam_handle_t, item_type: c_int, item: *const c_void) -> c_int;
    /// pam_get_item(3).
    pub fn pam_get_item(
        pamh: *const pam_handle_t,
        item_type: c_int,
        item: *mut *const c_void,
    ) -> c_int;
    /// pam_putenv(3).
    pub fn pam_putenv(pamh: *mut pam_handle_t, name_value: *const c_char) -> c_int;
    /// pam_getenv(3).
    pub fn pam_getenv(pamh: *mut pam_handle_t, name: *const c_char) -> *const c_char;
    /// pam_getenvlist(3).
    pub fn pam_getenvlist(pamh: *mut pam_handle_t) -> *mut *mut c_char;
    /// pam_strerror(3).
    pub fn pam_strerror(pamh: *mut pam_handle_t, errnum: c_int) -> *const c_char;
}

// The crate `pam` refers to these three functions of libpam_misc, but cosserver does not call them.
// So they are defined here, not declared, and libpam_misc is not linked.

/// Fails: libpam_misc is not linked.
///
/// # Safety
/// Uses none of its arguments.
pub unsafe fn pam_misc_paste_env(_: *mut pam_handle_t, _: *const *const c_char) -> c_int {
    PAM_SYSTEM_ERR
}

/// Fails, and frees nothing: libpam_misc is not linked.
///
/// # Safety
/// Uses none of its arguments.
pub unsafe fn pam_misc_drop_env(_: *mut *mut c_char) -> *mut *mut c_char {
    std::ptr::null_mut()
}

/// Fails: libpam_misc is not linked.
///
/// # Safety
/// Uses none of its arguments.
pub unsafe fn pam_misc_setenv(
    _: *mut pam_handle_t,
    _: *const c_char,
    _: *const c_char,
    _: c_int,
) -> c_int {
    PAM_SYSTEM_ERR
}

macro_rules! constants {
    ($($name:ident = $value:expr;)*) => {
        $(
            #[doc = concat!("`", stringify!($name), "` of `<security/_pam_types.h>`.")]
            pub const $name: c_int = $value;
        )*
        /// All constants by name, for the test that compares them with the headers.
        pub const CONSTANTS: &[(&str, c_int)] = &[$((stringify!($name), $name)),*];
    };
}

constants! {
    // Return codes.
    PAM_SUCCESS = 0;
    PAM_OPEN_ERR = 1;
    PAM_SYMBOL_ERR = 2;
    PAM_SERVICE_ERR = 3;
    PAM_SYSTEM_ERR = 4;
    PAM_BUF_ERR = 5;
    PAM_PERM_DENIED = 6;
    PAM_AUTH_ERR = 7;
    PAM_CRED_INSUFFICIENT = 8;
    PAM_AUTHINFO_UNAVAIL = 9;
    PAM_USER_UNKNOWN = 10;
    PAM_MAXTRIES = 11;
    PAM_NEW_AUTHTOK_REQD = 12;
    PAM_ACCT_EXPIRED = 13;
    PAM_SESSION_ERR = 14;
    PAM_CRED_UNAVAIL = 15;
    PAM_CRED_EXPIRED = 16;
    PAM_CRED_ERR = 17;
    PAM_NO_MODULE_DATA = 18;
    PAM_CONV_ERR = 19;
    PAM_AUTHTOK_ERR = 20;
    PAM_AUTHTOK_RECOVERY_ERR = 21;
    PAM_AUTHTOK_LOCK_BUSY = 22;
    PAM_AUTHTOK_DISABLE_AGING = 23;
    PAM_TRY_AGAIN = 24;
    PAM_IGNORE = 25;
    PAM_ABORT = 26;
    PAM_AUTHTOK_EXPIRED = 27;
    PAM_MODULE_UNKNOWN = 28;
    PAM_BAD_ITEM = 29;
    PAM_CONV_AGAIN = 30;
    PAM_INCOMPLETE = 31;

    // Flags.
    PAM_SILENT = 0x8000;
    PAM_DISALLOW_NULL_AUTHTOK = 0x0001;
    PAM_ESTABLISH_CRED = 0x0002;
    PAM_DELETE_CRED = 0x0004;
    PAM_REINITIALIZE_CRED = 0x0008;
    PAM_REFRESH_CRED = 0x0010;
    PAM_CHANGE_EXPIRED_AUTHTOK = 0x0020;
    PAM_PRELIM_CHECK = 0x4000;
    PAM_UPDATE_AUTHTOK = 0x2000;

    // Items.
    PAM_SERVICE = 1;
    PAM_USER = 2;
    PAM_TTY = 3;
    PAM_RHOST = 4;
    PAM_CONV = 5;
    PAM_AUTHTOK = 6;
    PAM_OLDAUTHTOK = 7;
    PAM_RUSER = 8;
    PAM_USER_PROMPT = 9;
    PAM_FAIL_DELAY = 10;
    PAM_XDISPLAY = 11;
    PAM_XAUTHDATA = 12;
    PAM_AUTHTOK_TYPE = 13;

    // Message styles.
    PAM_PROMPT_ECHO_OFF = 1;
    PAM_PROMPT_ECHO_ON = 2;
    PAM_ERROR_MSG = 3;
    PAM_TEXT_INFO = 4;
}
