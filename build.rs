//! Tells the crate how jobs are started on the target, and links libgcc statically, so that the
//! programs need no library beyond libc.
//!
//! Rust's standard library asks the linker for `libgcc_s`, the shared half of the compiler's own
//! library. This script puts a linker script of that name first in the search path; it names the
//! static halves. If the compiler has no static `libgcc_eh`, or the target is not Linux with glibc,
//! nothing is done, and the programs need `libgcc_s.so.1` as any Rust program does. That costs only
//! megabytes and a slower start, so a failure here never fails the build.
#![allow(
    clippy::disallowed_methods,
    reason = "a build script asks the compiler where its library is; it is no part of the programs"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

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
    // In a cross build the compiler's paths are unknown.
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

/// Returns whether a job's child makes its system calls directly (`src/sys/job/calls.rs`): on the
/// Linux architectures for which `Cargo.toml` uses `syscalls`, whose calls take the same arguments.
fn has_direct_calls() -> bool {
    let arch = variable("CARGO_CFG_TARGET_ARCH");
    let same = ["x86_64", "aarch64", "riscv64"].contains(&arch.as_str());
    same && variable("CARGO_CFG_TARGET_POINTER_WIDTH") == "64"
}

/// Returns the path of one of the compiler's libraries, if it has it. The compiler prints the bare
/// name if it does not.
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

/// Prints an instruction for cargo.
#[allow(
    clippy::print_stdout,
    reason = "cargo reads a build script's standard output"
)]
fn say(line: &str) {
    println!("{line}");
}
