//! A configuration directory, and `cosadm` on it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cosserver::config::paths::Paths;
use cosserver::registry::{Inner, Outer};

use crate::daemon::{COSADM, Folder};

/// A configuration directory that `cosadm init` has created, or a daemon's.
pub struct Host {
    pub dir: PathBuf,
    folder: Option<Folder>,
}

impl Host {
    pub fn new() -> Self {
        let folder = Folder::new();
        let host = Self {
            dir: folder.path("S"),
            folder: Some(folder),
        };
        host.good(&["init"]);
        host
    }

    pub fn of(dir: PathBuf) -> Self {
        Self { dir, folder: None }
    }

    pub fn paths(&self) -> Paths {
        Paths::of_dir(&self.dir)
    }

    pub fn outer(&self) -> Outer {
        Outer::open(&self.paths()).unwrap()
    }

    pub fn inner(&self) -> Inner {
        Inner::open(&Inner::path(&self.paths(), None)).unwrap()
    }

    /// Creates another directory, beside the configuration directory.
    pub fn folder(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.folder.as_ref().unwrap().path(name);
        fs::create_dir(&path).unwrap();
        chmod(&path, mode);
        path
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(COSADM);
        command.arg("-C").arg(&self.dir).args(words);
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// Runs a shell with the program as `$0` and the directory as `$1`.
    pub fn shell(&self, script: &str) -> Output {
        let mut command = Command::new("sh");
        command.args(["-c", script, COSADM]).arg(&self.dir);
        command.stdin(Stdio::null()).output().unwrap()
    }

    /// Returns the output of a command that succeeds.
    pub fn good(&self, words: &[&str]) -> String {
        let out = self.run(words);
        assert!(out.status.success(), "{words:?}: {}", text(&out.stderr));
        text(&out.stdout)
    }

    /// Returns the messages of a command that succeeds and has no output for scripts.
    pub fn tells(&self, words: &[&str]) -> String {
        let out = self.run(words);
        let told = text(&out.stderr);
        assert!(
            out.status.success() && out.stdout.is_empty(),
            "{words:?}: {told}"
        );
        told
    }

    /// Returns its output for scripts.
    pub fn json(&self, words: &[&str]) -> serde_json::Value {
        let words = [words, &["--json"]].concat();
        let written = self.good(&words);
        assert!(written.ends_with('\n'), "{written}");
        serde_json::from_str(&written).unwrap()
    }

    /// Returns the message of a command that fails with this exit code.
    pub fn bad(&self, code: i32, words: &[&str]) -> String {
        let out = self.run(words);
        let told = text(&out.stderr);
        assert_eq!(out.status.code(), Some(code), "{words:?}: {told}");
        assert!(told.lines().all(|l| l.starts_with("cosadm: ")), "{told}");
        assert!(!told.contains("panicked"), "{told}");
        told
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
