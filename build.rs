//! Says how jobs are started here and how SQLite is built, and links libgcc into the programs,
//! so that they need no library beyond libc.
//!
//! Rust's standard library asks the linker for `libgcc_s`, the shared half of
//! the compiler's own library. We put a linker script of that name first in the
//! search path, and it names the static halves. Where the compiler has no
//! static `libgcc_eh`, or the target is another than Linux with glibc, nothing
//! is done and the programs need `libgcc_s.so.1`, as any Rust program does.
//! A library lost that way costs megabytes of nothing but a slower start, so
//! failing here never fails the build.
#![allow(
    clippy::disallowed_methods,
    reason = "a build script asks the compiler where its library is; it is no part of the programs"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Defaults of SQLite that take the place of the statements in `src/registry/file.rs`.
const SQLITE: [&str; 5] = [
    "-DSQLITE_MAX_MMAP_SIZE=0",
    "-DSQLITE_DEFAULT_CACHE_SIZE=-256",
    "-DSQLITE_TEMP_STORE=2",
    "-DSQLITE_DEFAULT_SYNCHRONOUS=3",
    "-DSQLITE_ENABLE_OVERSIZE_CELL_CHECK",
];

fn main() {
    say("cargo:rerun-if-changed=build.rs");
    say("cargo:rerun-if-env-changed=CC");
    let (os, abi) = (
        variable("CARGO_CFG_TARGET_OS"),
        variable("CARGO_CFG_TARGET_ENV"),
    );
    say("cargo:rustc-check-cfg=cfg(direct_calls)");
    if os == "linux" && has_direct_calls() {
        say("cargo:rustc-cfg=direct_calls");
    }
    // As `.cargo/config.toml` has it, unless the builder sets other flags, or takes the
    // system's library.
    say("cargo:rerun-if-env-changed=LIBSQLITE3_FLAGS");
    say("cargo:rerun-if-env-changed=LIBSQLITE3_SYS_USE_PKG_CONFIG");
    say("cargo:rustc-check-cfg=cfg(sqlite_defaults)");
    let is_systems = !["", "0"].contains(&variable("LIBSQLITE3_SYS_USE_PKG_CONFIG").as_str());
    let flags = match is_systems {
        true => String::new(),
        false => variable("LIBSQLITE3_FLAGS"),
    };
    if SQLITE
        .iter()
        .all(|wanted| flags.split_whitespace().any(|f| f == *wanted))
    {
        say("cargo:rustc-cfg=sqlite_defaults");
    }
    // A cross build's compiler is not ours to guess.
    let native = variable("HOST") == variable("TARGET");
    if os != "linux" || abi != "gnu" || !native {
        return;
    }
    let Some(out) = env::var_os("OUT_DIR").map(PathBuf::from) else {
        return;
    };
    if let (Some(eh), Some(gcc)) = (library("libgcc_eh.a"), library("libgcc.a")) {
        let script = format!("GROUP ( \"{}\" \"{}\" )\n", eh.display(), gcc.display());
        if fs::write(out.join("libgcc_s.so"), script).is_ok() {
            say(&format!("cargo:rustc-link-search=native={}", out.display()));
        }
    }
}

/// Where a job's child makes its system calls itself (`src/sys/job/calls.rs`): the
/// architectures of Linux that `Cargo.toml` takes `syscalls` for, whose calls
/// have the same arguments.
fn has_direct_calls() -> bool {
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let same = ["x86_64", "aarch64", "riscv64"].contains(&arch.as_str());
    same && variable("CARGO_CFG_TARGET_POINTER_WIDTH") == "64"
}

/// Where the compiler has one of its libraries, if it has it at all: it prints
/// the bare name where it has not.
fn library(name: &str) -> Option<PathBuf> {
    let cc = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let output = Command::new(cc)
        .arg(format!("-print-file-name={name}"))
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = Path::new(path.trim());
    let plain = !path.to_str()?.contains(['"', '\n']);
    (path.is_absolute() && path.is_file() && plain).then(|| path.to_owned())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_default()
}

/// How a build script talks to cargo.
#[allow(
    clippy::print_stdout,
    reason = "cargo reads a build script's standard output"
)]
fn say(line: &str) {
    println!("{line}");
}
