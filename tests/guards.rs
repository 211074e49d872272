//! What `docs/THREATS.md` says that nobody can do, tried on the real daemon:
//! wrong files, wrong addresses, commands that are not allowed, the walls
//! around gate and relay, and strangers who say nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test panics where something is not as it should be, and starts programs"
)]

mod daemon;

use std::fs;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use daemon::{Daemon, append, is_root, me};
use nix::sys::signal::Signal;

/// Makes something of a daemon's files wrong.
type Spoil = fn(&Daemon);

/// Runs a command, which must be refused for this cause; what the client said
/// without the reference, and how long it took.
fn refused(d: &Daemon, cause: &str, words: &[&str]) -> (String, Duration) {
    let begin = Instant::now();
    let out = daemon::run(&mut d.cos(words));
    let took = begin.elapsed();
    let said = String::from_utf8(out.stderr).unwrap();
    assert_eq!(
        (out.status.code(), out.stdout.len()),
        (Some(255), 0),
        "{said}{}",
        d.log_text()
    );
    let (before, rest) = said
        .split_once("(reference ")
        .unwrap_or_else(|| panic!("{said}{}", d.log_text()));
    let (reference, after) = rest.split_once(')').unwrap();
    assert_eq!(reference.len(), 16, "{said}");
    let line = d.log.wait(&format!("denied ref={reference} "));
    assert!(line.contains(&format!(" cause={cause} ")), "{line}");
    assert_eq!(d.log.count(reference), 1, "one line for a refusal");
    (format!("{before}{after}"), took)
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
fn every_cause_looks_the_same_and_takes_its_time() {
    let spoil: [(&str, Spoil, &[&str]); 5] = [
        (
            "address",
            |d| edit_hosta(d, "addr=127.0.0.1,::1", "addr=192.0.2.1"),
            &["true"],
        ),
        (
            "unknown-host",
            |d| edit_hosta(d, "hosta ", "hostx "),
            &["true"],
        ),
        ("user", |_| {}, &["-l", "nosuchuser", "true"]),
        (
            "command",
            |d| edit_hosta(d, "hosta cos", "hosta cos commands=/bin/false"),
            &["true"],
        ),
        (
            "proof",
            |d| {
                let file = d.client().join("cookies/hostb.out");
                let cookie = fs::read_to_string(&file).unwrap();
                let turned: String = cookie
                    .chars()
                    .map(|c| if c == '0' { '1' } else { c })
                    .map(|c| if c == 'a' { 'b' } else { c })
                    .collect();
                assert_ne!(cookie, turned, "a cookie without 0 and a");
                fs::write(&file, turned).unwrap();
            },
            &["true"],
        ),
    ];
    let said: Vec<(&str, (String, Duration))> = std::thread::scope(|scope| {
        let runs: Vec<_> = spoil
            .iter()
            .map(|(cause, spoil, words)| {
                scope.spawn(move || {
                    let d = Daemon::start();
                    spoil(&d);
                    (*cause, refused(&d, cause, words))
                })
            })
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (cause, (words, took)) in &said {
        assert_eq!(*words, said[0].1.0, "{cause}");
        assert!(
            *took >= Duration::from_secs(2),
            "{cause}: after {took:?} already"
        );
    }
}

#[test]
fn a_missing_broken_or_unsafe_file_denies() {
    let spoil: [(&str, Spoil); 8] = [
        ("no-hostinfo", |d| {
            fs::remove_file(d.server().join("hostinfo")).unwrap()
        }),
        ("no-hostinfo", |d| mode(&d.server().join("hostinfo"), 0o666)),
        ("no-hostinfo", |d| mode(&d.server(), 0o777)),
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
        ("machine-key", |d| {
            fs::write(d.server().join("state/machines/hosta"), "rubbish\n").unwrap()
        }),
    ];
    std::thread::scope(|scope| {
        for (cause, spoil) in spoil {
            scope.spawn(move || {
                let d = Daemon::start();
                d.says(0, &["true"]);
                spoil(&d);
                refused(&d, cause, &["true"]);
            });
        }
    });
}

#[test]
fn a_wrong_line_and_a_name_that_does_not_resolve_cost_their_hosts_alone() {
    let d = Daemon::start();
    let more = format!(
        "nowhere.invalid cos run-as={}\nhostz cos run-ass=root\n",
        me()
    );
    append(&d.server().join("hostinfo"), &more);
    d.says(0, &["true"]);
    d.log.wait("hostz is denied");
}

#[test]
fn an_allow_list_knows_no_shell() {
    let d = Daemon::start_with("", "\"commands=/bin/echo *\"");
    for word in [
        "a; id", "$(id)", "`id`", "a\nid", "a && id", "a | id", ">x", "'", "*",
    ] {
        assert_eq!(
            d.says(0, &["/bin/echo", word]),
            format!("{word}\n").into_bytes(),
            "{word:?}"
        );
    }
    let denied: [&[&str]; 6] = [
        &["/bin/echo"],
        &["/bin/echo", "a", "b"],
        &["/bin/echo a"],
        &["/bin/sh", "-c", "/bin/echo a"],
        &["/bin/echo", "-n"],
        &["/bin/echo", "../x"],
    ];
    std::thread::scope(|scope| {
        for words in denied {
            let d = &d;
            scope.spawn(move || refused(d, "command", words));
        }
    });
}

#[test]
fn a_broken_configuration_keeps_the_old_one() {
    let d = Daemon::start();
    let file = d.server().join("cosserver.toml");
    let right = fs::read_to_string(&file).unwrap();
    append(&file, "\nlissten = 1\n");
    d.signal(Signal::SIGHUP);
    let line = d.log.wait("not-reloaded ");
    assert!(line.contains("lissten"), "{line}");
    d.says(0, &["true"]);
    fs::write(&file, right).unwrap();
    d.signal(Signal::SIGHUP);
    d.log.wait_from(0, |l| l == "reloaded");
    d.says(0, &["true"]);
}

/// A field of /proc/PID/status.
fn status(pid: i32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field}"))
        .trim()
        .to_owned()
}

#[test]
fn gate_and_relay_stand_behind_walls() {
    let d = Daemon::start();
    d.says(0, &["true"]);
    for role in ["gate", "relay"] {
        let pid = d.process(role);
        assert_eq!(status(pid, "NoNewPrivs"), "1", "{role}");
        assert_eq!(status(pid, "Seccomp"), "2", "{role}");
        assert_eq!(
            status(pid, "CapEff").trim_start_matches('0'),
            "",
            "{role} has capabilities"
        );
        d.log.wait(&format!(
            "started process={role} chroot={} landlock=",
            is_root()
        ));
        if is_root() {
            let uids = status(pid, "Uid");
            assert!(
                !uids.split_whitespace().any(|uid| uid == "0"),
                "{role}: {uids}"
            );
            assert!(
                !status(pid, "Groups")
                    .split_whitespace()
                    .any(|gid| gid == "0"),
                "{role}"
            );
            let root = fs::read_link(format!("/proc/{pid}/root")).unwrap();
            assert_eq!(root, d.server().join("run/empty"), "{role}");
            assert_eq!(
                fs::read_dir(&root).unwrap().count(),
                0,
                "{role}: its root is not empty"
            );
            assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o022, 0);
            for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
                let to = fs::read_link(fd.unwrap().path()).unwrap();
                let name = to.to_string_lossy().into_owned();
                let plain = name.starts_with('/') && name != "/dev/null";
                assert!(!plain, "{role} holds {name}");
            }
        }
    }
}

/// Whether some bytes are in a process's memory.
fn remembers(pid: i32, wanted: &[u8]) -> bool {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().unwrap(), words.next().unwrap());
        if !rights.starts_with("rw") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (
            u64::from_str_radix(from, 16).unwrap(),
            u64::from_str_radix(to, 16).unwrap(),
        );
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        memory.seek(SeekFrom::Start(from)).unwrap();
        // What cannot be read (a guard page) has nothing in it.
        let read = memory.read(&mut bytes).unwrap_or(0);
        if bytes[..read].windows(wanted.len()).any(|w| w == wanted) {
            return true;
        }
    }
    false
}

/// The first 64 hexadecimal digits of a file, as bytes.
fn secret(file: &Path) -> Vec<u8> {
    let text = fs::read_to_string(file).unwrap();
    let digits = text
        .split(|c: char| !c.is_ascii_hexdigit())
        .find(|word| word.len() == 64)
        .unwrap();
    (0..32)
        .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).unwrap())
        .collect()
}

/// As root, since nobody else may look into another process here.
#[test]
fn gate_and_relay_know_no_secret() {
    if !is_root() {
        return;
    }
    let d = Daemon::start();
    d.says(0, &["true"]);
    let host = secret(&d.server().join("host.key"));
    let cookie = secret(&d.server().join("cookies/hosta.in"));
    assert!(
        remembers(d.pid(), &host),
        "the monitor has the host key: else this test could not fail"
    );
    for role in ["gate", "relay"] {
        let pid = d.process(role);
        assert!(!remembers(pid, &host), "{role} has the host key");
        assert!(!remembers(pid, &cookie), "{role} has a cookie");
    }
}

/// A daemon whose settings have other values than the template's, which has
/// each as `#key = default`.
fn with_settings(changes: &[(&str, &str)]) -> Daemon {
    let folder = daemon::prepare("", "");
    let file = folder.path("S/cosserver.toml");
    let mut text = fs::read_to_string(&file).unwrap();
    for (default, value) in changes {
        assert!(text.contains(default), "the template has no {default}");
        text = text.replace(default, value);
    }
    fs::write(&file, text).unwrap();
    Daemon::start_in(folder, &[])
}

#[test]
fn strangers_who_say_nothing_cost_no_thread_and_go() {
    let d = with_settings(&[("#hello = 10", "hello = 2")]);
    d.says(0, &["true"]);
    let processes = daemon::children(d.pid());
    let mut strangers: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(("127.0.0.1", d.port)).unwrap())
        .collect();
    // The gate takes them in their order: whoever is served came after them.
    d.says(0, &["true"]);
    assert_eq!(status(d.process("gate"), "Threads"), "1");
    assert_eq!(processes, daemon::children(d.pid()));
    for stranger in &mut strangers {
        stranger.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
        // Closed at the deadline, and without a word.
        assert!(matches!(stranger.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
    d.log.wait("turned-away peer=127.0.0.1 cause=no-hello");
}

#[test]
fn a_neighbour_cannot_lock_a_listed_host_out() {
    let d = with_settings(&[
        ("#min = 15", "min = 1"),
        ("#noauth = 1\n", "noauth = 600\n"),
    ]);
    for _ in 0..20 {
        let mut neighbour = TcpStream::connect(("127.0.0.1", d.port)).unwrap();
        neighbour.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        neighbour.set_read_timeout(Some(daemon::PATIENCE)).unwrap();
        assert!(
            matches!(neighbour.read(&mut [0; 16]), Ok(0) | Err(_)),
            "garbage got an answer"
        );
    }
    d.log.wait("turned-away peer=127.0.0.1 cause=malformed");
    // A crowd of silent ones more, which stay.
    let crowd: Vec<TcpStream> = (0..50)
        .filter_map(|_| TcpStream::connect(("127.0.0.1", d.port)).ok())
        .collect();
    d.says(0, &["true"]);
    drop(crowd);
}

#[test]
fn a_gate_that_dies_is_replaced_and_jobs_do_not_notice() {
    let d = Daemon::start();
    let mut job = d.cos(&["echo up; read line; echo $line"]);
    let mut job = job
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(job.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");

    kill(d.process("gate"));
    d.log.wait("lost process=gate");
    d.says(0, &["true"]);
    job.stdin
        .take()
        .unwrap()
        .write_all(b"still here\n")
        .unwrap();
    line.clear();
    output.read_line(&mut line).unwrap();
    assert_eq!(line, "still here\n");
    assert!(job.wait().unwrap().success());
}

#[test]
fn a_relay_that_dies_is_replaced_and_its_jobs_are_hung_up() {
    let d = Daemon::start();
    let mut job = d.cos(&["echo up; exec sleep 1000"]);
    let mut job = job
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(job.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");

    kill(d.process("relay"));
    d.log.wait("lost process=relay");
    let end = d.log.wait("end session=0 ");
    assert!(end.contains("how=cut"), "{end}");
    assert_eq!(job.wait().unwrap().code(), Some(255));
    d.says(0, &["true"]);
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}
