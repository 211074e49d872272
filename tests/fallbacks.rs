//! Protections and system calls that a kernel, or a container's filter, does not provide: the
//! daemon starts, runs commands, and its log names what is missing.
#![cfg(target_os = "linux")]

use crate::daemon;

use std::process::Command;

use daemon::missing::{ALLOW, FIRST_ARGUMENT, answer, errno, load, under, unless, without};
use daemon::{COSSERVER, Daemon};

/// Starts the daemon, runs a command to its end, and ends both; returns what the log says of
/// missing protections.
fn serves(command: Command, settings: &str) -> Vec<String> {
    let d = Daemon::start_by(command, daemon::configured(settings, ""), &[]);
    let echoed = d.with_input(b"in\n", &["cat; echo out; exit 7"]);
    assert_eq!(
        echoed.status.code(),
        Some(7),
        "{echoed:?}\n{}",
        d.log_text()
    );
    assert_eq!(echoed.stdout, b"in\nout\n");
    d.log.wait("end session=0");
    let all = d.log.all().into_iter();
    all.filter(|line| line.starts_with("no-protection "))
        .collect()
}

const ERRORS: [i32; 3] = [libc::ENOSYS, libc::EINVAL, libc::EPERM];

/// Denies a system call in every way in which it can be missing, and looks for the message for each
/// of these processes.
fn is_named(call: libc::c_long, processes: &[&str], protection: &str) {
    for error in ERRORS {
        let said = serves(without(call, error), "");
        let why = std::io::Error::from_raw_os_error(error).to_string();
        for process in processes {
            let wanted = format!("no-protection process={process} protection={protection} why=");
            assert!(
                said.iter()
                    .any(|l| l.starts_with(&wanted) && l.contains(&why)),
                "{process}, {protection}, {why}: {said:?}"
            );
        }
    }
}

/// The processes that have these protections. Regression: of the look-up process the log said only
/// `false`.
const CONFINED: &[&str] = &["gate", "relay", "lookup"];

/// Regression: seccompiler reports seccomp(2) by another error than the one that the code matched,
/// and the daemon did not start.
#[test]
fn without_seccomp_the_daemon_starts_and_says_so() {
    is_named(libc::SYS_seccomp, CONFINED, "seccomp");
}

#[test]
fn without_landlock_the_daemon_starts_and_says_so() {
    is_named(libc::SYS_landlock_create_ruleset, CONFINED, "landlock");
}

/// Regression: if a filter allows landlock's first system call but not the others, the daemon did
/// not start.
#[test]
fn without_a_part_of_landlock_the_daemon_starts_and_says_so() {
    is_named(
        libc::SYS_landlock_restrict_self,
        &["gate", "lookup"],
        "landlock",
    );
    // Gate and relay, which have no files, add no rule.
    is_named(libc::SYS_landlock_add_rule, &["lookup"], "landlock");
}

#[test]
fn without_pidfd_open_jobs_are_watched_by_number() {
    is_named(libc::SYS_pidfd_open, &["monitor"], "pidfd_open");
}

#[test]
fn without_pidfd_send_signal_jobs_are_signalled_by_number() {
    is_named(
        libc::SYS_pidfd_send_signal,
        &["monitor"],
        "pidfd_send_signal",
    );
}

#[test]
fn without_close_range_descriptors_are_closed_all_the_same() {
    is_named(libc::SYS_close_range, &["monitor"], "close_range");
}

/// Nothing depends on these.
#[test]
fn without_clone3_or_memfd_create_nothing_is_missing() {
    for call in [libc::SYS_clone3, libc::SYS_memfd_create] {
        for error in ERRORS {
            assert_eq!(serves(without(call, error), ""), Vec::<String>::new());
        }
    }
}

/// On a kernel without IPv6, the daemon listens on the other address.
#[test]
fn without_ipv6_the_other_address_is_served() {
    let socket = u32::try_from(libc::SYS_socket).unwrap();
    let v6 = u32::try_from(libc::AF_INET6).unwrap();
    let filter = vec![
        load(0),
        unless(socket, 3),
        load(FIRST_ARGUMENT),
        unless(v6, 1),
        answer(errno(libc::EAFNOSUPPORT)),
        answer(ALLOW),
    ];
    let settings = "listen = [\"127.0.0.1\", \"::1\"]\n";
    assert_eq!(serves(under(filter), settings), Vec::<String>::new());
}

/// A root directory without `/proc`, such as a bare chroot.
#[test]
fn without_proc_the_daemon_starts_and_says_so() {
    if !daemon::needs_root() {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.args(["mount -t tmpfs none /proc && exec \"$@\"", "sh", COSSERVER]);
    let said = serves(command, "");
    let wanted = "no-protection process=monitor protection=/proc why=";
    assert!(said.iter().any(|l| l.starts_with(wanted)), "{said:?}");
}

/// Regression: a missing capability was reported in the same words as a missing protection. If root
/// lacks one, the message names it, and the daemon does not start.
#[test]
fn a_missing_capability_is_named() {
    if !daemon::needs_root() {
        return;
    }
    for (capability, step) in [
        ("sys_chroot", "chroot"),
        ("setgid", "setgroups"),
        ("setuid", "setresuid"),
    ] {
        let folder = daemon::configured("", "");
        let mut command = Command::new("setpriv");
        command.arg(format!("--bounding-set=-{capability}"));
        command.arg(format!("--inh-caps=-{capability}"));
        command.args([COSSERVER, "-D", "-e", "-p", "0", "-f"]);
        let out = daemon::run(command.arg(folder.path("S/cosserver.toml")));
        assert_eq!(out.status.code(), Some(1), "{capability}: {out:?}");
        let said = String::from_utf8_lossy(&out.stderr);
        let needed = format!("CAP_{}", capability.to_uppercase());
        let line = said.lines().find(|l| l.contains(&needed));
        let line = line.unwrap_or_else(|| panic!("{capability}: {said}"));
        assert!(
            line.contains(&format!("{step}: Operation not permitted")),
            "{line}"
        );
        assert!(line.starts_with("cosserver: "), "{line}");
    }
}
