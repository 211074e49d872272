//! The system's text for an error, as the client prints it. Pure: runs in the client.

use std::io;

use nix::errno::Errno;

/// Returns the system's text for an error, without its number.
pub(super) fn text_without_number(e: &io::Error) -> String {
    let number = e.raw_os_error().map(Errno::from_raw);
    number.map_or_else(|| e.to_string(), |n| n.desc().to_owned())
}
