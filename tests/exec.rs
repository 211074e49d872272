//! The main job against the real daemon: streams, statuses, signals.
#![allow(
    clippy::unwrap_used,
    reason = "a test panics where something is not as it should be"
)]

mod daemon;

use daemon::Daemon;

#[test]
fn output_errors_and_status_arrive_apart() {
    let d = Daemon::start();
    let out = daemon::run(&mut d.cos(&["echo out; echo err >&2; exit 42"]));
    assert_eq!(out.stdout, b"out\n");
    assert_eq!(out.stderr, b"err\n");
    assert_eq!(out.status.code(), Some(42));
    let line = d.log.wait("end session=0");
    assert!(
        line.contains("status=42") && line.contains("how=done"),
        "{line}"
    );
}
