//! The programs as they are released: what the linker made of them.

use crate::daemon;

use std::path::Path;
use std::process::Command;

/// The programs define the unwinder's functions (`sys::unwind`). If they exported them, a PAM
/// module in C++ would call these instead of its own library's, and abort.
#[test]
fn released_programs_export_nothing() {
    if !daemon::long() {
        daemon::report_skipped("for make soak");
        return;
    }
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let mut build = Command::new("scripts/cargo");
    build.args(["build", "--quiet", "--release", "--bins"]);
    daemon::must(build.current_dir(top));
    for program in ["cosserver", "cosserver-login", "cos", "cosadm", "cos-sign"] {
        let path = top.join(&target).join("release").join(program);
        let mut nm = Command::new("nm");
        let listed = nm.args(["-D", "--defined-only"]).arg(&path).output();
        let listed = listed.unwrap();
        assert!(listed.status.success(), "{listed:?}");
        let exported = String::from_utf8_lossy(&listed.stdout);
        assert!(exported.is_empty(), "{program}: {exported}");
    }
}
