//! Replies in the memory that PAM expects: allocated by malloc, wiped and freed by the module. Used
//! only in the login worker.

use std::ffi::c_char;

use pam::ffi;

use cosserver::daemon::login::pam::Reply;

/// Builds the replies for PAM: an array and strings allocated by calloc, which the module wipes and
/// frees. Returns `None` if memory or an answer is missing, or an answer contains NUL.
pub(super) fn make(prompts: &[bool], answers: &[Reply]) -> Option<*mut ffi::pam_response> {
    let size = std::mem::size_of::<ffi::pam_response>();
    // SAFETY: zeroed memory for `prompts.len()` replies.
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
        // SAFETY: zeroed memory is a valid reply, and there is no other pointer to it yet.
        let reply = unsafe { &mut *at };
        reply.resp = copy;
    }
    Some(made)
}

fn copy_of(answer: &[u8]) -> Option<*mut c_char> {
    // SAFETY: zeroed memory, one byte longer than the answer, so it ends with NUL.
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
        // SAFETY: zeroed memory is a valid reply, and there is no other pointer to it yet.
        let reply = unsafe { &mut *at };
        if !reply.resp.is_null() {
            // SAFETY: a string made by `copy_of`, which ends with NUL.
            let length = unsafe { libc::strlen(reply.resp) };
            // SAFETY: the string's bytes; wiped, because it may be a password.
            let bytes = unsafe { std::slice::from_raw_parts_mut(reply.resp.cast::<u8>(), length) };
            zeroize::Zeroize::zeroize(bytes);
            // SAFETY: made by calloc.
            unsafe { libc::free(reply.resp.cast()) };
        }
    }
    // SAFETY: made by calloc.
    unsafe { libc::free(made.cast()) };
}
