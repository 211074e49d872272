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
