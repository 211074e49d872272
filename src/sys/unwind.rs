//! The unwinder of programs that abort on a panic: it finds no frame and never unwinds.
//!
//! The standard library prints a backtrace of a panic if `RUST_BACKTRACE` is set. For that it links
//! libgcc's unwinder and a reader of debug information, 230 KB in each program. The stripped
//! programs have no names to print, and a set-uid one should not look for debug files. Here the
//! walk ends at once, so link-time optimization removes both. The message of a panic and its place
//! in the source are printed as before.
//!
//! All functions that the standard library declares are here: a missing one would link libgcc's
//! file, which defines the others a second time.

use std::ffi::{c_int, c_void};

/// `_URC_END_OF_STACK`.
const END_OF_STACK: c_int = 5;

/// Visits no frame.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Backtrace(
    _visit: Option<extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    _argument: *mut c_void,
) -> c_int {
    END_OF_STACK
}

/// Defines functions that only an unwinding program calls.
macro_rules! unreached {
    ($($name:ident($($type:ty),*) $(-> $result:ty)?;)*) => {$(
        #[unsafe(no_mangle)]
        extern "C" fn $name($(_: $type),*) $(-> $result)? {
            std::process::abort()
        }
    )*};
}

unreached! {
    _Unwind_RaiseException(*mut c_void) -> c_int;
    _Unwind_Resume(*mut c_void);
    _Unwind_DeleteException(*mut c_void);
    _Unwind_GetLanguageSpecificData(*mut c_void) -> *mut c_void;
    _Unwind_GetRegionStart(*mut c_void) -> usize;
    _Unwind_GetTextRelBase(*mut c_void) -> usize;
    _Unwind_GetDataRelBase(*mut c_void) -> usize;
    _Unwind_GetGR(*mut c_void, c_int) -> usize;
    _Unwind_SetGR(*mut c_void, c_int, usize);
    _Unwind_GetIP(*mut c_void) -> usize;
    _Unwind_SetIP(*mut c_void, usize);
    _Unwind_GetIPInfo(*mut c_void, *mut c_int) -> usize;
    _Unwind_GetCFA(*mut c_void) -> usize;
    _Unwind_FindEnclosingFunction(*mut c_void) -> *mut c_void;
}
