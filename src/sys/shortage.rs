//! Detects whether memory is short: on the system, or in the control group of this process (Linux).
//!
//! Checked before each job's start, so it must cost almost nothing while there is enough.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// With less than this left, memory is short, bytes: a burst of jobs takes some MiB each before the
/// daemon checks again.
const ENOUGH: u64 = 64 << 20;

/// A limit above this means no limit, bytes.
const UNLIMITED: u64 = 1 << 60;

/// The kernel's sources for the remaining memory.
#[derive(Default)]
pub struct Gauge {
    groups: Vec<Group>,
}

/// A control group with a memory limit.
struct Group {
    limit: File,
    usage: File,
    stat: PathBuf,
}

impl Gauge {
    /// Finds the control groups of this process that have a limit now. A group that gets a limit
    /// later is not checked.
    pub fn new() -> Self {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self {
            groups: folders(&own)
                .iter()
                .filter_map(|f| Group::open(f))
                .collect(),
        }
    }

    /// Returns whether memory is short. A source that cannot be read counts as enough.
    pub fn is_short(&self) -> bool {
        self.groups.iter().any(Group::is_short) || system_is_short()
    }
}

impl Group {
    fn open(folder: &Path) -> Option<Self> {
        let of = |limit: &str, usage: &str| {
            let open = |name| File::open(folder.join(name)).ok();
            Some((open(limit)?, open(usage)?))
        };
        let (limit, usage) = of("memory.max", "memory.current")
            .or_else(|| of("memory.limit_in_bytes", "memory.usage_in_bytes"))?;
        let stat = folder.join("memory.stat");
        number(&limit)?;
        Some(Self { limit, usage, stat })
    }

    fn is_short(&self) -> bool {
        let Some(limit) = number(&self.limit) else {
            return false;
        };
        let left = |usage: u64| limit.saturating_sub(usage);
        let Some(usage) = number(&self.usage).filter(|_| limit > ENOUGH) else {
            return limit <= ENOUGH;
        };
        if left(usage) >= ENOUGH {
            return false;
        }
        // What the kernel can reclaim at once counts as free.
        let stat = std::fs::read_to_string(&self.stat).unwrap_or_default();
        let cached = ["total_inactive_file ", "inactive_file "]
            .iter()
            .find_map(|key| value(&stat, key));
        left(usage.saturating_sub(cached.unwrap_or(0))) < ENOUGH
    }
}

/// Returns the directories of a process's groups that may limit memory, from the process's `/proc`
/// file `cgroup`.
fn folders(cgroup: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let root = match controllers {
            "" => Path::new("/sys/fs/cgroup"),
            some if some.split(',').any(|c| c == "memory") => Path::new("/sys/fs/cgroup/memory"),
            _ => continue,
        };
        let own = root.join(path.trim_start_matches('/'));
        // In a container the mount may be the group itself, whatever the path says.
        let above = own.ancestors().take_while(|f| f.starts_with(root));
        folders.extend(above.map(Path::to_path_buf));
    }
    folders
}

/// Returns the number in a file; `None`: there is none, or it means no limit.
fn number(file: &File) -> Option<u64> {
    let mut bytes = [0; 32];
    let n = file.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..n)?).ok()?;
    text.trim().parse().ok().filter(|n| *n < UNLIMITED)
}

/// Returns the number after a key at the beginning of a line.
fn value(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(key))?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(target_os = "linux")]
fn system_is_short() -> bool {
    let mut info = std::mem::MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: the structure is large enough and lives for the call.
    if unsafe { libc::sysinfo(info.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call has filled it in, and every bit pattern is valid.
    let info = unsafe { info.assume_init() };
    #[allow(
        clippy::useless_conversion,
        reason = "32 bits on 32-bit machines, 64 on others"
    )]
    let free = u64::from(info.freeram).saturating_mul(u64::from(info.mem_unit));
    if free >= ENOUGH {
        return false;
    }
    // Memory that is not free may be reclaimable; that takes longer to ask.
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = value(&text, "MemAvailable:");
    kib.is_some_and(|kib| kib.saturating_mul(1024) < ENOUGH)
}

#[cfg(not(target_os = "linux"))]
fn system_is_short() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_both_kinds_of_control_groups() {
        let two = "9:name=systemd:/x\n4:cpu,memory:/a/b\n0::/c\n";
        let root = Path::new("/sys/fs/cgroup");
        let all = ["memory/a/b", "memory/a", "memory", "c", ""];
        let all: Vec<PathBuf> = all.iter().map(|f| root.join(f)).collect();
        assert_eq!(folders(two), all);
        assert_eq!(folders("nonsense"), Vec::<PathBuf>::new());
    }

    #[test]
    fn values_of_keys() {
        let text = "cache 1\ntotal_inactive_file 7\nMemAvailable:    12 kB\n";
        assert_eq!(value(text, "total_inactive_file "), Some(7));
        assert_eq!(value(text, "MemAvailable:"), Some(12));
        assert_eq!(value(text, "inactive_file "), None);
    }

    #[test]
    fn a_group_is_short_when_little_is_left_that_cannot_be_given_back() {
        let folder = std::env::temp_dir().join(format!("cos-gauge-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
        for (limit, usage, inactive, short) in [
            (ENOUGH, 0, 0, true),
            (4 * ENOUGH, ENOUGH, 0, false),
            (4 * ENOUGH, 4 * ENOUGH - 1, 0, true),
            (4 * ENOUGH, 4 * ENOUGH - 1, 2 * ENOUGH, false),
        ] {
            write("memory.max", &format!("{limit}\n"));
            write("memory.current", &format!("{usage}\n"));
            write(
                "memory.stat",
                &format!("anon 0\ninactive_file {inactive}\n"),
            );
            assert_eq!(Group::open(&folder).unwrap().is_short(), short);
        }
        write("memory.max", "max\n");
        assert!(Group::open(&folder).is_none());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
