//! The limits of this process, which a job gets back as they were.

use nix::sys::resource::Resource;

use super::rlimits;

/// The limits that this program changes for itself, with the values that it was started with (soft
/// and hard). A job gets them back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open files.
    pub files: Option<(u64, u64)>,
    /// The size of a core file.
    pub core: Option<(u64, u64)>,
}

impl Limits {
    /// Returns the current limits.
    pub fn now() -> Self {
        Self {
            files: rlimits::get(Resource::RLIMIT_NOFILE).ok(),
            core: rlimits::get(Resource::RLIMIT_CORE).ok(),
        }
    }
}

/// Restores limits.
pub fn restore(limits: &Limits) {
    for (which, limit) in [
        (Resource::RLIMIT_NOFILE, limits.files),
        (Resource::RLIMIT_CORE, limits.core),
    ] {
        if let Some((soft, hard)) = limit {
            let _ = rlimits::set(which, soft, hard);
        }
    }
}

/// Raises the limit of open files to at least `wanted`, or to about a million if that is less:
/// without close_range(2) each is closed by its number. Raises a lower hard limit if this process
/// may (CAP_SYS_RESOURCE); otherwise the hard limit applies.
pub fn raise_descriptors(wanted: u64) {
    if let Ok((_, hard)) = rlimits::get(Resource::RLIMIT_NOFILE) {
        let most = u64::try_from(super::job::DESCRIPTORS).unwrap_or(hard);
        let wanted = wanted.min(most);
        if hard < wanted && rlimits::set(Resource::RLIMIT_NOFILE, wanted, wanted).is_ok() {
            return;
        }
        let _ = rlimits::set(Resource::RLIMIT_NOFILE, hard.min(most), hard);
    }
}

/// Returns how many descriptors this process may have.
pub fn descriptors() -> u64 {
    rlimits::get(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}
