//! The size of a terminal, for which there is no safe call. Runs in `cosadm`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns the number of lines that a terminal shows; `None`: unknown.
pub fn rows(terminal: BorrowedFd<'_>) -> Option<u16> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open, and `size` is what this request fills.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    (done == 0 && size.ws_row > 0).then_some(size.ws_row)
}
