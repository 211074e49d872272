//! Asks for the disposition of a signal, for which there is no safe call. Runs in the client and in
//! `cosadm`.

use std::mem::MaybeUninit;

use nix::sys::signal::Signal;

/// Returns whether a signal is ignored now, as `nohup` leaves SIGHUP for the programs that it
/// starts.
pub fn is_ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null new action changes nothing; `action` is large enough for the old one.
    let done =
        unsafe { libc::sigaction(signal as libc::c_int, std::ptr::null(), action.as_mut_ptr()) };
    if done != 0 {
        return false;
    }
    // SAFETY: sigaction succeeded and has filled it.
    let action = unsafe { action.assume_init() };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_ignores_sigpipe_and_no_other() {
        assert!(is_ignored(Signal::SIGPIPE));
        assert!(!is_ignored(Signal::SIGHUP));
    }
}
