//! PAM's own files, as far as the daemon must know of them. Apart from the calls, so
//! that no program but the login worker is linked with PAM's library.

use std::path::Path;

/// The service's name.
pub const SERVICE: &str = "cosserver";

/// Where PAM looks for a service's stack, besides the one file for all of them.
const FOLDERS: [&str; 3] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d"];

/// Whether the service has a stack of its own. Without one PAM falls through to
/// `other`, which may let people in.
pub fn has_service() -> bool {
    FOLDERS.iter().any(|f| Path::new(f).join(SERVICE).is_file())
}
