//! The real tools that call `cosrsh`: whether they are installed, how they are started, and trees
//! of files to transfer, compared byte for byte.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::session::on_path;
use crate::daemon::{self, Daemon};

/// Returns whether the tools are installed. If not, CI fails.
pub fn have(tools: &[&str]) -> bool {
    for tool in tools {
        if on_path(tool).is_none() {
            let why = format!("{tool} is missing: scripts/need test installs it");
            assert!(!daemon::in_ci(), "{why}");
            daemon::report_skipped(&why);
            return false;
        }
    }
    true
}

/// Starts a daemon that is reached by `cosrsh` on the path.
pub fn start() -> Daemon {
    let d = Daemon::start();
    d.install_cosrsh();
    d
}

/// Returns a tool with `cosrsh` on its path, which finds its directory by the environment.
pub fn tool(d: &Daemon, program: &str) -> Command {
    let mut command = Command::new(on_path(program).unwrap());
    let path = format!(
        "{}:{}",
        d.folder.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    command
        .env("PATH", path)
        .env("COS_CONFIG_DIR", d.client())
        .env("LC_ALL", "C");
    command.current_dir(&d.folder.0);
    command
}

/// Returns a tool of `make soak`: installed, or unpacked by `scripts/need test` with its libraries.
/// If this is not a soak run, its test has nothing to do; if it is missing, CI fails.
pub fn soak_tool(d: &Daemon, name: &str) -> Option<Command> {
    if !daemon::long() {
        daemon::report_skipped("for make soak");
        return None;
    }
    if on_path(name).is_some() {
        return Some(tool(d, name));
    }
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools/root");
    let program = root.join("usr/bin").join(name);
    if !program.exists() {
        let why = format!("no {name}: COS_LONG=1 scripts/need test unpacks it");
        assert!(!daemon::in_ci(), "{why}");
        daemon::report_skipped(&why);
        return None;
    }
    let libraries = ["lib", "usr/lib"].iter().flat_map(|folder| {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path())
    });
    let mut command = tool(d, "env");
    let libraries = std::env::join_paths(libraries).unwrap();
    command.arg(format!("LD_LIBRARY_PATH={}", libraries.to_str().unwrap()));
    command.arg(program);
    Some(command)
}

/// Returns everything below a directory: kind, mode, time, and content or target.
pub fn everything(top: &Path) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
    fn walk(top: &Path, folder: &Path, all: &mut BTreeMap<PathBuf, (u32, i64, Vec<u8>)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            let content = if about.is_symlink() {
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if about.is_dir() {
                walk(top, &path, all);
                Vec::new()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(top).unwrap().to_owned();
            all.insert(name, (about.mode(), about.mtime(), content));
        }
    }
    let mut all = BTreeMap::new();
    walk(top, top, &mut all);
    all
}

/// Creates a tree with this many files of all kinds, the first of them large.
pub fn grow(top: &Path, files: usize) {
    for n in 0..files {
        let folder = top.join(format!("d{}", n % 100));
        if n < 100 {
            fs::create_dir_all(&folder).unwrap();
        }
        let text = format!("{n}\n").repeat(n % 17);
        fs::write(folder.join(format!("f {n}")), text).unwrap();
    }
    let large: Vec<u8> = (0..1_500_000_u32).flat_map(u32::to_le_bytes).collect();
    fs::write(top.join("large"), large).unwrap();
    fs::write(top.join("it's \"named\" $so; \\n"), "x").unwrap();
    fs::set_permissions(top.join("large"), fs::Permissions::from_mode(0o751)).unwrap();
    symlink("large", top.join("link")).unwrap();
    fs::create_dir(top.join("empty")).unwrap();
}
