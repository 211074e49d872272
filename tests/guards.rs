//! An unusable policy denies, on the real daemon: wrong files, wrong lines, wrong addresses,
//! arguments that try to get past an allow list.

use crate::daemon;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use cosserver::secret::KeyPair;
use daemon::hostile::Caller;
use daemon::{Daemon, append, me};

/// Makes some of a daemon's files invalid.
type Spoil = fn(&Daemon);

/// Runs a command, which must be denied for this cause.
fn refused(d: &Daemon, cause: &str, words: &[&str]) {
    let out = daemon::run(&mut d.cos(words));
    let said = String::from_utf8(out.stderr).unwrap();
    let told = || format!("{said}{}", d.log_text());
    assert_eq!(out.status.code(), Some(255), "{}", told());
    let (_, rest) = said
        .split_once("(reference ")
        .unwrap_or_else(|| panic!("{}", told()));
    let (reference, _) = rest.split_once(')').unwrap();
    let line = d.log.wait(&format!("denied ref={reference} "));
    assert!(line.contains(&format!(" cause={cause} ")), "{line}");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Changes `hosta`'s line in the host table.
fn edit_hosta(d: &Daemon, from: &str, to: &str) {
    let file = d.server().join("hostinfo");
    let text = fs::read_to_string(&file).unwrap();
    let line = text.lines().find(|l| l.starts_with("hosta ")).unwrap();
    assert!(line.contains(from), "{line}");
    fs::write(&file, text.replace(line, &line.replace(from, to))).unwrap();
}

#[test]
fn an_address_that_is_not_listed_is_refused() {
    let d = Daemon::start();
    d.says(0, &["true"]);
    edit_hosta(&d, "addr=127.0.0.1,::1", "addr=192.0.2.1,2001:db8::/32");
    refused(&d, "address", &["true"]);
    edit_hosta(&d, "addr=192.0.2.1,2001:db8::/32", "addr=127.0.0.0/8");
    d.says(0, &["true"]);
}

/// The administrator has pinned the machine's key: another one is denied even with the right
/// cookie, although no key was recorded yet, and leaves no trace.
#[test]
fn pinned_machine_key_overrides_the_first_recorded_one() {
    let d = Daemon::start_with("[daemon]\nrefusal-interval = 1\n", "");
    let ours = Caller::of(&d).machine.public.to_hex();
    let other = KeyPair::random().unwrap().public.to_hex();
    let (run_as, pin) = (" run-as=", format!(" machine-key={other} run-as="));
    edit_hosta(&d, run_as, &pin);
    refused(&d, "machine-key", &["true"]);
    let recorded = d.server().join("state/machines/hosta");
    assert!(!recorded.exists(), "the refused machine was recorded");
    assert_eq!(d.log.count("machine-recorded"), 0);
    // Only the pin prevented it; and it still does once a key is recorded.
    edit_hosta(&d, &other, &ours);
    d.says(0, &["true"]);
    assert!(fs::read_to_string(&recorded).unwrap().contains(&ours));
    edit_hosta(&d, &ours, &other);
    refused(&d, "machine-key", &["true"]);
}

#[test]
fn newline_or_parent_path_does_not_bypass_the_allow_list() {
    let d = Daemon::start_with("", "\"commands=/bin/echo *\"");
    let line = "a\nid";
    assert_eq!(d.says(0, &["/bin/echo", line]), b"a\nid\n");
    std::thread::scope(|scope| {
        for words in [["/bin/echo", "../x"], ["/bin/echo\nid", "a"]] {
            let d = &d;
            scope.spawn(move || refused(d, "command", &words));
        }
    });
}

#[test]
fn a_missing_broken_or_unsafe_file_denies() {
    let spoil: [(&str, Spoil); 8] = [
        ("no-hostinfo", |d| {
            fs::remove_file(d.server().join("hostinfo")).unwrap()
        }),
        ("no-hostinfo", |d| mode(&d.server().join("hostinfo"), 0o666)),
        // The registry is below it, and is checked first.
        ("registry", |d| mode(&d.server(), 0o777)),
        ("unknown-host", |d| edit_hosta(d, "run-as=", "run-ass=")),
        ("no-cookie", |d| {
            fs::remove_file(d.server().join("cookies/hosta.in")).unwrap()
        }),
        ("no-cookie", |d| {
            mode(&d.server().join("cookies/hosta.in"), 0o644)
        }),
        ("no-cookie", |d| {
            fs::write(d.server().join("cookies/hosta.in"), "rubbish\n").unwrap()
        }),
        ("system", |d| {
            fs::write(d.server().join("state/machines/hosta"), "rubbish\n").unwrap()
        }),
    ];
    std::thread::scope(|scope| {
        for (cause, spoil) in spoil {
            scope.spawn(move || {
                let d = Daemon::start();
                d.says(0, &["true"]);
                // What has changed is opened again.
                d.log.wait("auto-registered ");
                spoil(&d);
                refused(&d, cause, &["true"]);
            });
        }
    });
}

#[test]
fn wrong_line_or_unresolvable_name_disables_only_its_host() {
    let d = Daemon::start();
    let more = format!(
        "nowhere.invalid cos run-as={}\nhostz cos run-ass=root\n",
        me()
    );
    append(&d.server().join("hostinfo"), &more);
    d.says(0, &["true"]);
    d.log.wait("hostz is denied");
}
