//! The limits of this process, which a job gets back as they were.

use nix::sys::resource::Resource;

use super::rlimits;

/// The limits that this program changes for itself, as it was started with
/// them: soft and hard. A job gets them back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open files.
    pub files: Option<(u64, u64)>,
    /// The size of a core file.
    pub core: Option<(u64, u64)>,
}

impl Limits {
    /// Those in force now.
    pub fn now() -> Self {
        Self {
            files: rlimits::get(Resource::RLIMIT_NOFILE).ok(),
            core: rlimits::get(Resource::RLIMIT_CORE).ok(),
        }
    }
}

/// Puts limits back as they were.
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

/// Raises the limit of open files for at least so many, a million at most: where there is
/// no close_range(2) each is closed by its number. The hard limit is raised where it is
/// lower and this process may (CAP_SYS_RESOURCE); else the limit is that.
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

/// How many descriptors this process may have.
pub fn descriptors() -> u64 {
    rlimits::get(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}
