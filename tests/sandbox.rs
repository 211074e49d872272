//! The sandbox of gate and relay: no privilege, no secret, no file, and the end of a process that
//! violates it.
//!
//! Needs root, for another process's memory and for the sandbox; for an ordinary user most of these
//! tests report that and pass.
#![allow(
    clippy::undocumented_unsafe_blocks,
    clippy::multiple_unsafe_ops_per_block,
    unsafe_code,
    reason = "a test panics where something is not as it should be, and does what an attacker would"
)]

use crate::daemon;

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use cosserver::config::keys;
use cosserver::config::paths::Paths;
use cosserver::config::settings::Settings;
use daemon::hostile::{Caller, RawConnection};
use daemon::{Daemon, children, needs_root};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, User, fork};

/// Returns whether a process's memory or environment contains these bytes.
fn has(pid: i32, wanted: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
    if environment.windows(wanted.len()).any(|w| w == wanted) {
        return true;
    }
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (range, mode) = (fields.next().unwrap(), fields.next().unwrap());
        let (from, to) = range.split_once('-').unwrap();
        let from = u64::from_str_radix(from, 16).unwrap();
        let length = u64::from_str_radix(to, 16).unwrap() - from;
        if !mode.starts_with('r') || line.ends_with("[vvar]") || line.ends_with("[vsyscall]") {
            continue;
        }
        let mut bytes = vec![0; length as usize];
        if memory.seek(SeekFrom::Start(from)).is_ok() && memory.read_exact(&mut bytes).is_ok() {
            let mut rest = &bytes[..];
            while let Some(at) = rest.iter().position(|b| *b == wanted[0]) {
                rest = &rest[at..];
                if rest.starts_with(wanted) {
                    return true;
                }
                rest = &rest[1..];
            }
        }
    }
    false
}

/// The monitor, the gate and the relay of a running session.
struct Processes {
    monitor: i32,
    gate: i32,
    relay: i32,
    /// Not checked under inetd: it ends 10 ms after the session has begun.
    lookup: Option<i32>,
    /// Under inetd the monitor reads the registry itself.
    registry: Option<i32>,
}

impl Processes {
    /// Returns those of a standalone daemon.
    fn of(d: &Daemon) -> Self {
        Self {
            monitor: d.pid(),
            gate: d.process("gate"),
            relay: d.process("relay"),
            lookup: Some(d.process("lookup")),
            registry: Some(d.process("registry")),
        }
    }

    /// Returns those of the only daemon that a superserver has started.
    fn of_inetd(d: &Daemon) -> Self {
        let [monitor] = children(d.pid())[..] else {
            panic!("not one daemon: {}", d.log_text());
        };
        let named = |name: &str| {
            let is_it = |pid: &i32| daemon::status(*pid, "Name") == name;
            children(monitor).into_iter().find(is_it).unwrap()
        };
        Self {
            monitor,
            gate: named("cos: gate"),
            relay: named("cos: relay"),
            lookup: None,
            registry: None,
        }
    }
}

#[test]
fn gate_and_relay_hold_no_secret() {
    if needs_root() {
        hold_no_secret(&Daemon::start(), Processes::of);
    }
}

/// There they do not execute the program again.
#[test]
fn under_inetd_gate_and_relay_hold_no_secret() {
    if needs_root() {
        let d = Daemon::inetd_in(daemon::prepare("", ""), &[]);
        hold_no_secret(&d, Processes::of_inetd);
    }
}

fn hold_no_secret(d: &Daemon, processes: fn(&Daemon) -> Processes) {
    let caller = Caller::of(d);
    let secret = ["said", "in", "the", "request"].join("-");
    let mut session = caller.accepted(d.port, &format!("echo ok; cat; : {secret}"));
    session.until(b"ok\n");
    let p = processes(d);
    caller.ask(d.port, "true").rest();
    let host = keys::load_host_key(&Paths::of_dir(&d.server())).unwrap();
    assert!(
        has(p.monitor, host.private.expose()),
        "the search finds nothing"
    );
    let registry = p.registry.map(|pid| ("registry worker", pid));
    let lookup = p.lookup.map(|pid| ("lookup", pid));
    let both = [("gate", p.gate), ("relay", p.relay)];
    for (name, pid) in both.into_iter().chain(registry).chain(lookup) {
        assert!(!has(pid, host.private.expose()), "{name} has the host key");
        assert!(!has(pid, caller.cookie.expose()), "{name} has a cookie");
        assert!(
            !has(pid, caller.cookie.to_hex().as_bytes()),
            "{name} has a cookie"
        );
        assert!(!has(pid, secret.as_bytes()), "{name} has the request");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        // glibc may have replaced the colon by a NUL byte.
        let words = environment.split(|b| matches!(b, 0 | b':'));
        let words = words.filter(|w| !w.is_empty());
        // The allocator's settings, and nothing else.
        let told: [&[u8]; 2] = [
            b"GLIBC_TUNABLES=glibc.pthread.stack_cache_size=2097152",
            b"glibc.malloc.tcache_count=0",
        ];
        let is_told: &[&[u8]] = if p.monitor == d.pid() { &told } else { &[] };
        let words: Vec<&[u8]> = words.collect();
        assert_eq!(words, is_told, "{name} has another environment");
    }
    assert!(
        !has(p.monitor, caller.cookie.expose()),
        "the monitor keeps a cookie"
    );
}

#[test]
fn gate_and_relay_have_no_privileges_and_cannot_escape() {
    if needs_root() {
        have_no_privilege(&Daemon::start(), Processes::of);
    }
}

#[test]
fn under_inetd_gate_and_relay_have_no_privileges_and_cannot_escape() {
    if needs_root() {
        let d = Daemon::inetd_in(daemon::prepare("", ""), &[]);
        have_no_privilege(&d, Processes::of_inetd);
    }
}

fn have_no_privilege(d: &Daemon, processes: fn(&Daemon) -> Processes) {
    let mut session = Caller::of(d).accepted(d.port, "echo ok; cat");
    session.until(b"ok\n");
    let p = processes(d);
    let empty = fs::canonicalize(d.server().join("run/empty")).unwrap();
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
    for (name, pid) in [("gate", p.gate), ("relay", p.relay)] {
        let says = |key: &str| daemon::status(pid, key);
        assert_eq!(says("Seccomp"), "2", "{name}");
        assert_eq!(says("NoNewPrivs"), "1", "{name}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(says(set), "0000000000000000", "{name} {set}");
        }
        for ids in ["Uid", "Gid"] {
            let of: Vec<String> = says(ids).split_whitespace().map(str::to_owned).collect();
            assert!(
                of.len() == 4 && of.iter().all(|n| *n == of[0] && n != "0"),
                "{name}: {of:?}"
            );
        }
        assert!(
            !says("Groups").split_whitespace().any(|g| g == "0"),
            "{name}"
        );
        assert_eq!(
            fs::read_link(format!("/proc/{pid}/root")).unwrap(),
            empty,
            "{name}"
        );
        assert_eq!(says("TracerPid"), "0");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|l| l.starts_with("Max core")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        // Sockets, the poll and its waker, /dev/null: no file, no directory, not the log.
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let entry = entry.unwrap();
            let Ok(to) = fs::read_link(entry.path()) else {
                // It was open only for a moment.
                continue;
            };
            let to = to.to_str().unwrap();
            let number = entry.file_name();
            let mut plain = vec!["socket:", "anon_inode:[eventpoll]", "/dev/null"];
            // The session's own pipes, between which it moves bytes.
            if name == "relay" {
                plain.push("pipe:");
            }
            assert!(
                plain.iter().any(|p| to.starts_with(p)),
                "{name} has {to} as {number:?}"
            );
        }
        let line = d.log.wait(&format!("started process={name}"));
        assert!(
            line.contains("chroot=true") && line.contains("seccomp=true"),
            "{line}"
        );
        assert!(
            line.contains(&format!("landlock={}", has_landlock())),
            "{line}"
        );
    }
}

/// Returns whether this kernel has landlock, and it is enabled: by asking for its version as in the
/// manual page.
fn has_landlock() -> bool {
    const VERSION: libc::c_uint = 1;
    let none = std::ptr::null::<libc::c_void>();
    let call = libc::SYS_landlock_create_ruleset;
    unsafe { libc::syscall(call, none, 0_usize, VERSION) > 0 }
}

/// The user of gate and relay: the account of the settings; without it nobody, and the log says so.
#[test]
fn gate_and_relay_are_the_account_of_the_settings_or_nobody() {
    if !needs_root() {
        return;
    }
    let ids = |name: &str| User::from_name(name).unwrap().map(|u| (u.uid, u.gid));
    let nobody = ids("nobody").unwrap();
    let defaults = Settings::parse("", &Paths::of_dir(std::path::Path::new("/")));
    let own = defaults.unwrap().daemon.user.to_string();
    assert_eq!(own, "_cosserver");
    let cases = [
        ("daemon.user = \"daemon\"\n", "daemon"),
        ("daemon.user = \"nobody\"\n", "nobody"),
        ("daemon.user = \"no-such-user-here\"\n", "no-such-user-here"),
        ("", &own),
    ];
    for (settings, user) in cases {
        let d = Daemon::start_as(settings, "");
        let (uid, gid) = ids(user).unwrap_or(nobody);
        for name in ["gate", "relay"] {
            let pid = d.process(name);
            for (key, id) in [("Uid", uid.as_raw()), ("Gid", gid.as_raw())] {
                let all = [id; 4].map(|n| n.to_string()).join("\t");
                assert_eq!(daemon::status(pid, key), all, "{name} for {user}");
            }
            let groups = daemon::status(pid, "Groups");
            assert_eq!(groups, gid.to_string(), "{name} for {user}");
        }
        if ids(user).is_some() {
            assert_eq!(d.log.count("account "), 0, "{user}: {}", d.log_text());
        } else {
            let line = d.log.wait("account ");
            assert!(line.contains(user) && line.contains("nobody"), "{line}");
        }
    }
}

/// No process with threads forks, and PAM runs in no such process: monitor and gate have one
/// thread, whatever they do.
#[test]
fn monitor_and_gate_have_one_thread() {
    let d = Daemon::start();
    let caller = Caller::of(&d);
    let mut sessions: Vec<_> = (0..3)
        .map(|_| caller.accepted(d.port, "echo ok; cat"))
        .collect();
    sessions.iter_mut().for_each(|s| s.until(b"ok\n"));
    let mut held: Vec<_> = (0..3).map(|_| RawConnection::connect(d.port)).collect();
    held.iter_mut().for_each(|s| drop(s.greet()));
    for pid in [d.pid(), d.process("gate")] {
        assert_eq!(daemon::status(pid, "Threads"), "1");
    }
    // The check can fail: the relay has several threads.
    assert_ne!(daemon::status(d.process("relay"), "Threads"), "1");
}

/// The sandbox itself: each of these system calls kills the process that makes it.
#[test]
fn sandbox_kills_a_process_that_makes_a_forbidden_call() {
    use cosserver::sys::sandbox::{Role, enter};
    type Call = fn() -> libc::c_long;
    let calls: [(&str, Call); 13] = [
        ("open", || unsafe {
            libc::c_long::from(libc::open(c"/etc/passwd".as_ptr(), libc::O_RDONLY))
        }),
        ("socket", || unsafe {
            libc::c_long::from(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0))
        }),
        ("fork", || unsafe {
            libc::syscall(libc::SYS_clone, 17, 0, 0, 0, 0)
        }),
        ("execve", || unsafe {
            let argv = [c"/bin/true".as_ptr(), std::ptr::null()];
            libc::c_long::from(libc::execve(argv[0], argv.as_ptr(), argv.as_ptr()))
        }),
        ("kill", || unsafe { libc::c_long::from(libc::kill(1, 0)) }),
        ("ptrace", || unsafe {
            libc::syscall(libc::SYS_ptrace, 0, 0, 0, 0)
        }),
        ("setuid", || unsafe { libc::c_long::from(libc::setuid(0)) }),
        ("chroot", || unsafe {
            libc::c_long::from(libc::chroot(c"/".as_ptr()))
        }),
        ("unlink", || unsafe {
            libc::c_long::from(libc::unlink(c"/nothing".as_ptr()))
        }),
        // Each would make a descriptor signal another process.
        ("setown", || unsafe {
            libc::c_long::from(libc::fcntl(0, libc::F_SETOWN, 1))
        }),
        ("setown_ex", || unsafe {
            libc::c_long::from(libc::fcntl(0, 15, [0, 1].as_ptr()))
        }),
        ("setsig", || unsafe {
            libc::c_long::from(libc::fcntl(0, 10, 9))
        }),
        // The monitor, which has a copy of each connection, would block in close(2).
        ("linger", || unsafe {
            let on = libc::linger {
                l_onoff: 1,
                l_linger: 1000,
            };
            let (at, size) = ((&raw const on).cast(), size_of_val(&on).try_into().unwrap());
            let set = libc::setsockopt(0, libc::SOL_SOCKET, libc::SO_LINGER, at, size);
            libc::c_long::from(set)
        }),
    ];
    for role in [Role::Gate, Role::Relay] {
        for (name, call) in calls {
            let child = match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    let sandbox_status = enter(role, None);
                    let code = match sandbox_status {
                        Ok(w) if w.seccomp => {
                            call();
                            1
                        }
                        Ok(_) => 2,
                        Err(_) => 3,
                    };
                    unsafe { libc::_exit(code) }
                }
                ForkResult::Parent { child } => child,
            };
            match waitpid(child, None).unwrap() {
                WaitStatus::Signaled(_, Signal::SIGSYS, _) => {}
                WaitStatus::Exited(_, 2) => eprintln!("no seccomp here"),
                other => panic!("{role:?}: {name}: {other:?}"),
            }
        }
    }
}

/// Returns the permissions of a process's shared mappings, such as `rw-s`.
fn shared_memory(pid: i32) -> Vec<String> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let shared = maps.lines().filter(|l| l.contains("/dev/zero"));
    let modes = shared.filter_map(|l| l.split(' ').nth(1));
    modes.map(str::to_owned).collect()
}

/// Regression: under inetd gate, relay and look-up process are forks of the monitor and had write
/// access to the guard's table: a compromised one could make the guard kill any process as root.
#[test]
fn guards_table_is_mapped_only_in_monitor_and_guard() {
    if !needs_root() {
        return;
    }
    let by_inetd = Daemon::inetd_in(daemon::prepare("", ""), &[]);
    let by_itself = Daemon::start();
    for (d, monitor) in [(&by_itself, Some(by_itself.pid())), (&by_inetd, None)] {
        let mut raw_connection = RawConnection::connect(d.port);
        raw_connection.greet();
        let monitor = monitor.unwrap_or_else(|| children(d.pid())[0]);
        assert_eq!(shared_memory(monitor), ["rw-s"]);
        let named = |name: &str| {
            let all = children(monitor).into_iter();
            let is_it = |pid: &i32| daemon::status(*pid, "Name") == name;
            all.clone().find(is_it)
        };
        for name in ["cos: gate", "cos: relay", "cos: lookup"] {
            daemon::until(name, || named(name).is_some());
            assert_eq!(shared_memory(named(name).unwrap()), [""; 0], "{name}");
        }
        for pid in children(monitor) {
            assert_eq!(
                shared_memory(pid),
                [""; 0],
                "{}",
                daemon::status(pid, "Name")
            );
        }
    }
}

/// Regression: a module could leave any number of children, which outlived the daemon and prevented
/// the relay from starting threads; could make the kernel kill gate and relay by a socket's owner;
/// and could use memory that RLIMIT_DATA does not count.
#[test]
fn a_look_up_process_starts_none_owns_no_signal_and_has_bounded_memory() {
    // By itself: the limit of addresses counts the threads of the other tests too.
    const ALONE: &str = "COS_TEST_ALONE";
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let name = "a_look_up_process_starts_none_owns_no_signal_and_has_bounded_memory";
        alone.args(["--exact", &format!("sandbox::{name}"), "--test-threads=1"]);
        let done = alone.env(ALONE, "1").output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        eprint!("{}", String::from_utf8_lossy(&done.stderr));
        assert!(text.contains("1 passed"), "{text}");
        return;
    }
    use cosserver::sys::confine::confine;
    type Call = fn() -> libc::c_long;
    const SHARED: i32 = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
    let denied: [(&str, i32, Call); 13] = [
        ("clone", libc::EPERM, || unsafe {
            libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0)
        }),
        ("clone3", libc::ENOSYS, || unsafe {
            libc::syscall(libc::SYS_clone3, 0, 0)
        }),
        ("fork", libc::EPERM, || unsafe { libc::fork().into() }),
        #[cfg(target_arch = "x86_64")]
        ("vfork", libc::EPERM, || unsafe {
            libc::syscall(libc::SYS_vfork)
        }),
        #[cfg(not(target_arch = "x86_64"))]
        ("vfork", libc::EPERM, || unsafe { libc::fork().into() }),
        ("setown", libc::EPERM, || unsafe {
            libc::fcntl(0, libc::F_SETOWN, 1).into()
        }),
        ("setown_ex", libc::EPERM, || unsafe {
            libc::fcntl(0, 15, [0, 1].as_ptr()).into()
        }),
        ("setsig", libc::EPERM, || unsafe {
            libc::fcntl(0, 10, 9).into()
        }),
        ("FIOSETOWN", libc::EPERM, || unsafe {
            libc::ioctl(0, 0x8901, [1].as_ptr()).into()
        }),
        ("SIOCSPGRP", libc::EPERM, || unsafe {
            libc::ioctl(0, 0x8902, [1].as_ptr()).into()
        }),
        ("shared memory", libc::EPERM, || unsafe {
            let (none, use_of_it) = (std::ptr::null_mut(), libc::PROT_READ | libc::PROT_WRITE);
            libc::mmap(none, 4096, use_of_it, SHARED, -1, 0) as libc::c_long
        }),
        ("memfd_create", libc::EPERM, || unsafe {
            libc::syscall(libc::SYS_memfd_create, c"m".as_ptr(), 0)
        }),
        ("shmget", libc::EPERM, || unsafe {
            libc::shmget(0, 4096, 0o1600).into()
        }),
        ("addresses", libc::ENOMEM, || unsafe {
            let (none, kind) = (
                std::ptr::null_mut(),
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            libc::mmap(none, 2 << 30, libc::PROT_NONE, kind, -1, 0) as libc::c_long
        }),
    ];
    let ended = |name: &str, run: &dyn Fn() -> i32| {
        let child = match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let code = match confine(None) {
                    Ok(c) if c.seccomp => run(),
                    Ok(_) => 253,
                    Err(_) => 254,
                };
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => child,
        };
        match waitpid(child, None).unwrap() {
            WaitStatus::Exited(_, 253) => eprintln!("no seccomp here"),
            WaitStatus::Exited(_, 0) => {}
            other => panic!("{name}: {other:?}"),
        }
    };
    for (name, errno, call) in denied {
        ended(name, &|| match call() {
            -1 => i32::from(nix::errno::Errno::last_raw() != errno),
            0 if name.contains("fork") || name == "clone" => unsafe { libc::_exit(9) },
            _ => 2,
        });
    }
    // What modules need: threads, and flags of descriptors.
    ended("a thread", &|| {
        let thread = std::thread::Builder::new().spawn(|| 7);
        let did = thread.is_ok_and(|thread| thread.join().is_ok_and(|n| n == 7));
        i32::from(!did || unsafe { libc::fcntl(1, libc::F_GETFD) } < 0)
    });
}

/// The limit counts a user's threads, and gate and relay run as the same user.
#[test]
fn a_look_up_process_may_have_half_of_the_relays_threads() {
    if !needs_root() {
        return;
    }
    // Less than the look-up process's usual limit.
    let mut program = std::process::Command::new("prlimit");
    program.args(["--nproc=300", daemon::COSSERVER]);
    let d = Daemon::start_by(program, daemon::prepare("", ""), &[]);
    d.says(0, &["true"]);
    let most = |role: &str| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", d.process(role))).unwrap();
        let line = limits.lines().find(|l| l.starts_with("Max processes"));
        let hard = line.unwrap().split_whitespace().nth(3).unwrap().to_owned();
        hard.parse().unwrap_or(u64::MAX)
    };
    assert_eq!((most("lookup"), most("relay")), (150, 300));
}

/// Makes a call in a child in this sandbox, and returns how the child ended.
#[cfg(target_arch = "x86_64")]
fn ended_in(enter: fn() -> bool, call: fn() -> i32) -> WaitStatus {
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let code = if enter() { call() } else { 254 };
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => waitpid(child, None).unwrap(),
    }
}

/// Regression: x32 calls have their own numbers and the architecture of x86-64, so a deny list
/// allowed them. The calls of the i386 have another architecture.
#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_other_abis_pass_no_filter() {
    use cosserver::sys::confine::confine;
    use cosserver::sys::sandbox::{Role, enter};
    /// Makes ptrace(2) of x32, and returns the error; the kernel itself returns ENOSYS if it has no
    /// x32.
    fn x32() -> i32 {
        match unsafe { libc::syscall(0x4000_0000 + 521, 0, 0, 0, 0) } {
            -1 => nix::errno::Errno::last_raw(),
            _ => 0,
        }
    }
    /// Makes getpid(2) of the i386.
    fn i386() -> i32 {
        unsafe { std::arch::asm!("int 0x80", inout("eax") 20 => _, options(nostack)) };
        0
    }
    let lookup = || confine(None).is_ok_and(|c| c.seccomp);
    let gate = || enter(Role::Gate, None).is_ok_and(|w| w.seccomp);
    let relay = || enter(Role::Relay, None).is_ok_and(|w| w.seccomp);
    if matches!(ended_in(lookup, || 0), WaitStatus::Exited(_, 254)) {
        return eprintln!("no seccomp here");
    }
    let ended = ended_in(lookup, x32);
    assert!(
        matches!(ended, WaitStatus::Exited(_, libc::EPERM)),
        "{ended:?}"
    );
    for (role, call) in [
        (gate as fn() -> bool, x32 as fn() -> i32),
        (relay, x32),
        (gate, i386),
        (relay, i386),
        (lookup, i386),
    ] {
        let ended = ended_in(role, call);
        assert!(
            matches!(ended, WaitStatus::Signaled(_, Signal::SIGSYS, _)),
            "{ended:?}"
        );
    }
}
