//! What stands around the programs: scripts, installation, linking, the demo.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test panics where something is not as it should be, and starts programs"
)]

mod tree;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tree::{files, relative, top};

fn run(command: &mut Command) -> Output {
    command
        .current_dir(top())
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

fn well(command: &mut Command) -> String {
    let output = run(command);
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{said}",
        output.status
    );
    said
}

#[test]
fn shell_scripts_are_clean() {
    let mut seen = 0;
    for path in files() {
        let text = fs::read_to_string(&path).unwrap_or_default();
        if text.starts_with("#!/bin/sh") {
            well(Command::new("shellcheck").args(["-s", "sh"]).arg(&path));
            well(Command::new("checkbashisms").arg(&path));
        } else if text.starts_with("#!/usr/bin/env bash") {
            well(Command::new("shellcheck").arg(&path));
        } else {
            continue;
        }
        seen += 1;
        assert!(
            fs::metadata(&path).unwrap().mode() & 0o111 == 0o111,
            "{}: not executable",
            relative(&path)
        );
    }
    assert!(seen >= 6, "only {seen} scripts were found");
}

/// The folder of the programs that these tests were built with.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_cos"))
        .parent()
        .unwrap()
        .to_owned()
}

/// A folder of one's own for a test, empty.
fn folder(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("house-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn install_puts_everything_in_its_place_and_uninstall_takes_it_away() {
    let dest = folder("install");
    let make = |what: &str| {
        let mut command = Command::new("make");
        command
            .args(["-s", what])
            .arg(format!("DESTDIR={}", dest.display()))
            .arg("PREFIX=/opt/cos");
        command.arg(format!("PROGRAMS={}", programs().display()));
        // Flags of a make around these tests are not for this one.
        command
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .env_remove("MFLAGS");
        well(&mut command);
    };
    for _ in 0..2 {
        make("install");
        let at = |path: &str| dest.join("opt/cos").join(path);
        for program in ["bin/cos", "sbin/cosserver", "sbin/cosadm"] {
            assert_eq!(
                fs::metadata(at(program)).unwrap().permissions().mode() & 0o7777,
                0o755,
                "{program}"
            );
        }
        assert_eq!(fs::read_link(at("bin/cosrsh")).unwrap(), Path::new("cos"));
        for page in [
            "man1/cos.1",
            "man1/cosrsh.1",
            "man5/hostinfo.5",
            "man5/cosserver.toml.5",
            "man8/cosserver.8",
            "man8/cosadm.8",
        ] {
            assert!(
                fs::metadata(at("share/man").join(page)).unwrap().len() > 100,
                "{page}"
            );
        }
        assert!(at("share/doc/cosserver/PROTOCOL.md").exists());
        // What may be copied from there names the programs where they are.
        for (text, program) in [
            ("doc/cosserver/examples/inetd.conf", "sbin/cosserver"),
            ("doc/cosserver/examples/xinetd", "sbin/cosserver"),
            ("man/man8/cosserver.8", "sbin/cosserver"),
            ("man/man1/cos.1", "bin/cosrsh"),
        ] {
            let file = at("share").join(text);
            assert_eq!(
                fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
                0o644,
                "{text}"
            );
            let words = fs::read_to_string(file).unwrap();
            assert!(words.contains(&format!("/opt/cos/{program}")), "{text}");
            assert!(!words.contains("/usr/local/"), "{text}");
        }
        // The default PATH of the commands is the same wherever this is installed.
        let page = fs::read_to_string(at("share/man/man5/cosserver.toml.5")).unwrap();
        assert_eq!(page, tree::text("docs/man/cosserver.toml.5"));
        assert!(
            !dest.join("etc").exists(),
            "the administrator's folder is not touched"
        );
    }
    make("uninstall");
    fn left(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                left(&path, found)
            } else {
                found.push(path)
            }
        }
    }
    let mut found = Vec::new();
    left(&dest, &mut found);
    assert!(found.is_empty(), "left behind: {found:?}");
    fs::remove_dir_all(dest).unwrap();
}

#[test]
fn the_programs_need_no_library_but_libc() {
    for program in ["cos", "cosadm", "cosserver"] {
        let said = well(Command::new("ldd").arg(programs().join(program)));
        for line in said.lines() {
            let library = line.split_whitespace().next().unwrap_or_default();
            let name = library.rsplit('/').next().unwrap();
            let known = ["linux-vdso.so", "linux-gate.so", "libc.so", "ld-linux"]
                .iter()
                .any(|k| name.starts_with(k));
            assert!(known, "{program} needs {name}");
        }
    }
}

#[test]
fn the_demo_says_who_cannot_run_it() {
    use std::os::unix::process::CommandExt;
    let user = |field: usize, of: &str| {
        let said = run(Command::new("getent").args(["passwd", of]));
        let line = String::from_utf8(said.stdout).unwrap();
        line.trim_end().split(':').nth(field).map(str::to_owned)
    };
    // Where every user may read it, whoever has the project.
    let dir = std::env::temp_dir().join(format!("cosserver-demo-{}", std::process::id()));
    fs::create_dir_all(dir.join("demo")).unwrap();
    for folder in [&dir, &dir.join("demo")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let demo = dir.join("demo/demo.sh");
    fs::copy(top().join("demo/demo.sh"), &demo).unwrap();
    let (nameless, nobody) = (3_999_999_999_u32, 65_534_u32);
    let cases = [
        (nameless, "user number 3999999999 has no name here", true),
        (
            nobody,
            "which runs no commands",
            user(6, "65534").is_some_and(|s| s.ends_with("nologin") || s.ends_with("false")),
        ),
    ];
    for (uid, words, is_so) in cases {
        if !nix::unistd::geteuid().is_root() || !is_so {
            continue;
        }
        // As `make demo` asks before it builds.
        let output = run(Command::new(&demo).arg("--check").uid(uid).gid(uid));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(
            said.lines().all(|line| line.starts_with("demo: ")),
            "{said}"
        );
    }
    fs::remove_dir_all(dir).unwrap();
}

#[test]
fn the_demo_is_as_it_should_be() {
    let dir = folder("demo");
    let said = well(
        Command::new("demo/demo.sh")
            .env("COS_BIN_DIR", programs())
            .env("COS_DEMO_DIR", dir.join("demo"))
            .env("LC_ALL", "C"),
    );
    assert!(said.contains("demo: all as it should be"), "{said}");
    assert!(!said.contains('\x1b'), "colours without a terminal");
    for step in 1..=12 {
        assert!(
            said.contains(&format!("\n{step}. ")),
            "step {step} is missing:\n{said}"
        );
    }
    fs::remove_dir_all(dir).unwrap();
}
