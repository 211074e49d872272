//! Answers in the memory that PAM wants: what malloc made, and a module wipes and
//! frees. Used in the login worker alone.

use std::ffi::c_char;

use pam::ffi;

use cosserver::daemon::login::pam::Reply;

/// The answers as PAM takes them: an array and strings that malloc made, and that the
/// module wipes and frees.
pub(super) fn make(prompts: &[bool], answers: &[Reply]) -> Option<*mut ffi::pam_response> {
    let size = std::mem::size_of::<ffi::pam_response>();
    // SAFETY: zeroed memory for so many of them.
    let made: *mut ffi::pam_response = unsafe { libc::calloc(prompts.len(), size) }.cast();
    if made.is_null() {
        return None;
    }
    let mut answers = answers.iter();
    for (i, is_prompt) in prompts.iter().enumerate() {
        if !is_prompt {
            continue;
        }
        let copy = answers.next().and_then(|a| copy_of(a));
        let Some(copy) = copy else {
            free(made, prompts.len());
            return None;
        };
        // SAFETY: within the array.
        let at = unsafe { made.add(i) };
        // SAFETY: zeroed memory is a reply, and nobody else's yet.
        let reply = unsafe { &mut *at };
        reply.resp = copy;
    }
    Some(made)
}

fn copy_of(answer: &[u8]) -> Option<*mut c_char> {
    // SAFETY: zeroed memory, one byte more than the answer: it ends with NUL.
    let copy: *mut u8 = unsafe { libc::calloc(answer.len() + 1, 1) }.cast();
    if copy.is_null() || answer.contains(&0) {
        // SAFETY: made above, or null.
        unsafe { libc::free(copy.cast()) };
        return None;
    }
    // SAFETY: both are that long, and do not overlap.
    unsafe { std::ptr::copy_nonoverlapping(answer.as_ptr(), copy, answer.len()) };
    Some(copy.cast())
}

pub(super) fn free(made: *mut ffi::pam_response, count: usize) {
    for i in 0..count {
        // SAFETY: within the array.
        let at = unsafe { made.add(i) };
        // SAFETY: zeroed memory is a reply, and nobody else's yet.
        let reply = unsafe { &mut *at };
        if !reply.resp.is_null() {
            // SAFETY: a string of ours, which ends with NUL.
            let length = unsafe { libc::strlen(reply.resp) };
            // SAFETY: so many bytes of it; wiped, because it may be a password.
            let bytes = unsafe { std::slice::from_raw_parts_mut(reply.resp.cast::<u8>(), length) };
            zeroize::Zeroize::zeroize(bytes);
            // SAFETY: made by calloc.
            unsafe { libc::free(reply.resp.cast()) };
        }
    }
    // SAFETY: made by calloc.
    unsafe { libc::free(made.cast()) };
}
