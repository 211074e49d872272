//! The programs' surroundings: scripts, installation, linking, the demo.

use crate::program;
use crate::tree;

/// Has its own test.
#[path = "../time/src/lib.rs"]
#[allow(dead_code, unreachable_pub, reason = "the crate syslog calls it")]
mod time;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

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

/// A machine for `scripts/need`: a directory that is its whole PATH, except for the two system
/// directories that the script adds.
struct Machine(PathBuf);

impl Machine {
    /// Creates one with a Rust that is new enough and with apt-get, but whose compiler does not
    /// link. The arguments of apt-get are recorded in `told`; installing repairs the compiler, if
    /// it can.
    fn new(name: &str, user: u32, installs: bool) -> Self {
        let machine = Self(folder(name));
        let here = machine.0.display();
        for tool in [
            "sh", "sed", "sort", "dirname", "chmod", "rm", "cp", "find", "grep",
        ] {
            let real = std::env::split_paths("/usr/bin:/bin").map(|d| d.join(tool));
            let real = real.into_iter().find(|p| p.exists()).unwrap();
            std::os::unix::fs::symlink(real, machine.0.join(tool)).unwrap();
        }
        machine.has("id", &format!("echo {user}"));
        machine.has("make", "");
        machine.has("cc", &format!("[ -e {here}/mended ]"));
        machine.has("cargo", "echo cargo 1.999.0");
        machine.has("rustc", "echo rustc 1.999.0");
        machine.has("dpkg", "");
        machine.has("apt-cache", OLD_RUST);
        let install = if installs {
            format!(": >{here}/mended")
        } else {
            "exit 100".to_owned()
        };
        machine.has(
            "apt-get",
            &format!(
                "echo \"$*\" >>{here}/told\n[ \"$1\" = update ] && exit\n\
                 cp {here}/policy-rc.d {here}/policy-seen\n{install}"
            ),
        );
        machine
    }

    fn has(&self, program: &str, script: &str) {
        let path = self.0.join(program);
        program::script(&path, &format!("#!/bin/sh\n{script}\n"));
    }

    /// Runs the script; returns its exit status, its output, and the arguments of apt-get.
    fn needs(&self) -> (Option<i32>, String, String) {
        let output = run(Command::new("scripts/need")
            .arg("build")
            .env("PATH", &self.0)
            .env("HOME", &self.0)
            .env("NEED_POLICY", self.0.join("policy-rc.d")));
        let said = String::from_utf8(output.stdout).unwrap();
        let told = fs::read_to_string(self.0.join("told")).unwrap_or_default();
        (output.status.code(), said, told)
    }
}

/// An apt-cache that offers everything but a Rust that is new enough.
const OLD_RUST: &str = "case $* in *cargo*|*rustc*) ;; *) echo '  Candidate: 4.3' ;; esac";

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn ordinary_user_gets_the_exact_install_command() {
    let machine = Machine::new("need-user", 1000, true);
    let (status, said, told) = machine.needs();
    assert_eq!(status, Some(3), "{said}");
    let command = "\n  sudo sh -c 'apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev";
    assert!(said.contains("missing: a C compiler"), "{said}");
    assert!(said.contains(command), "{said}");
    assert_eq!(told, "", "it was not root and called apt-get");

    // An old Rust, and a package with a newer one: the same command installs it.
    machine.has("rustc", "echo rustc 1.50.0");
    machine.has("apt-cache", "echo '  Candidate: 1.999.0'");
    let (status, said, _) = machine.needs();
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains(" cargo rustc'\n"), "{said}");
    // And no package that does.
    machine.has("apt-cache", OLD_RUST);
    let (status, said, _) = machine.needs();
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("https://rustup.rs"), "{said}");

    // On other systems there is no such command.
    fs::remove_file(machine.0.join("apt-get")).unwrap();
    let (status, said, _) = machine.needs();
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("your own package manager"), "{said}");
}

#[test]
fn ordinary_user_with_empty_package_lists_gets_the_update_command_first() {
    let machine = Machine::new("need-lists", 1000, true);
    machine.has("rustc", "echo rustc 1.50.0");
    machine.has("apt-cache", "");
    let (status, said, told) = machine.needs();
    assert_eq!(status, Some(3), "{said}");
    assert!(said.contains("\n  sudo apt-get update\n"), "{said}");
    // Unknown facts are not claimed.
    assert!(
        !said.contains("rustup") && !said.contains("no package"),
        "{said}"
    );
    assert_eq!(told, "", "it was not root and called apt-get");
}

/// Regression: an LLVM without libclang's development link must not matter, and nothing requires
/// libclang: no part of the build reads headers (`make demo` failed there in clang-sys).
#[test]
fn the_build_needs_no_libclang() {
    for file in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let lock = tree::text(file);
        for package in ["bindgen", "clang-sys"] {
            assert!(
                !lock.contains(&format!("name = \"{package}\"")),
                "{file}: {package}"
            );
        }
    }
    assert!(!tree::text("scripts/need").contains("clang"));
}

#[test]
fn root_gets_installed_what_is_missing_and_no_service_is_started() {
    let machine = Machine::new("need-root", 0, true);
    let (status, said, told) = machine.needs();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.ends_with("need: build: all there now\n"), "{said}");
    let told: Vec<&str> = told.lines().collect();
    assert!(
        told.len() == 2 && told[0].starts_with("update "),
        "{told:?}"
    );
    assert!(
        told[1].starts_with("install -y --no-install-recommends --no-remove "),
        "{told:?}"
    );
    assert!(told[1].contains(" gcc libc6-dev"), "{told:?}");
    let policy = fs::read_to_string(machine.0.join("policy-seen")).unwrap();
    assert_eq!(policy, "#!/bin/sh\nexit 101\n");
    assert!(!machine.0.join("policy-rc.d").exists(), "left behind");
    // Everything is installed: nothing is done.
    assert_eq!(machine.needs().1, "need: build: all there\n");

    let machine = Machine::new("need-fails", 0, false);
    let (status, said, _) = machine.needs();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("could not install: "), "{said}");
    assert!(!machine.0.join("policy-rc.d").exists(), "left behind");
}

#[test]
fn ci_runs_linters_and_tests_and_fails_on_a_missing_tool() {
    let script = tree::text(".ci/run");
    let lines: Vec<&str> = script.lines().filter(|l| !l.starts_with('#')).collect();
    let at = |line: &str| lines.iter().position(|l| *l == line);
    let steps = [
        "export CI=true",
        "scripts/need ci",
        "scripts/check-32bit &",
        "make lint",
        "wait \"$check\"",
        "make test",
        "scripts/test soak",
    ]
    .map(at);
    assert!(
        steps.is_sorted() && steps.iter().all(Option::is_some),
        "{script}"
    );
}

/// RUSTSEC-2026-0009 was in the tree for months. The real tool is not installed everywhere, nor is
/// its database: a program of that name replaces it, and records its arguments.
#[test]
fn a_known_vulnerability_fails_the_linters() {
    let folder = folder("audit");
    let fake = folder.join("cargo");
    let audit = |does: &str, database: Option<&str>| {
        let text = format!(
            "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo cargo 1.99.0; exit; }}\n\
             [ \"$2\" = --version ] || echo \"$*\" >>{}/asked\n{does}\n",
            folder.display()
        );
        fs::write(&fake, text).unwrap();
        fs::write(folder.join("rustc"), "#!/bin/sh\necho rustc 1.99.0\n").unwrap();
        for program in ["cargo", "rustc"] {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(folder.join(program), mode).unwrap();
        }
        let _ = fs::remove_file(folder.join("asked"));
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(top().join("scripts/audit"));
        command.env("PATH", path).env_remove("ADVISORY_DB");
        command.envs(database.map(|database| ("ADVISORY_DB", database)));
        let output = run(&mut command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let asked = fs::read_to_string(folder.join("asked")).unwrap_or_default();
        (output.status.code(), said, asked)
    };
    let is_asked_for_its_version = "[ \"$2\" = --version ] && exit 0";
    let (code, _, asked) = audit("exit 0", None);
    assert_eq!(code, Some(0));
    assert!(asked.contains("audit --quiet --file Cargo.lock"), "{asked}");
    assert!(asked.contains("--file fuzz/Cargo.lock"), "{asked}");
    let found = format!("{is_asked_for_its_version}; echo ID: RUSTSEC-2026-0009; exit 1");
    let (code, said, _) = audit(&found, None);
    assert_eq!(code, Some(1));
    assert!(said.contains("RUSTSEC-2026-0009"), "{said}");
    let (code, _, asked) = audit(&found, Some("/a/copy"));
    assert_eq!(code, Some(1));
    assert!(asked.contains("--no-fetch --stale --db /a/copy"), "{asked}");
    let unreachable = "echo \"error: couldn't fetch advisory database\"; exit 1";
    let (code, said, _) = audit(&format!("{is_asked_for_its_version}; {unreachable}"), None);
    assert_eq!(code, Some(0));
    assert!(said.contains("database is not to be had here"), "{said}");
    let (code, said, _) = audit("exit 101", None);
    assert_eq!(code, Some(0));
    assert!(said.contains("no cargo audit here"), "{said}");
    let lint = fs::read_to_string(top().join("scripts/lint")).unwrap();
    assert!(lint.contains("scripts/audit || found"));
}

#[test]
fn programs_in_python_are_python() {
    let scripts: Vec<PathBuf> = files()
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "py"))
        .collect();
    assert!(scripts.len() > 6, "only {} were found", scripts.len());
    // Compiled in memory: nothing is written beside them.
    let code = "import sys\nfor p in sys.argv[1:]: compile(open(p, 'rb').read(), p, 'exec')";
    well(
        Command::new("python3")
            .args(["-W", "error", "-c", code])
            .args(scripts),
    );
}

/// One benchmark at a time: some create an account for the peers, others copy `/etc`.
static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Returns whether Python is new enough for the benchmarks; reports it if not.
fn has_tomllib() -> bool {
    let there = run(Command::new("python3").args(["-c", "import tomllib"]))
        .status
        .success();
    if !there {
        eprintln!("skipped: the benchmarks need python3.11");
    }
    there
}

#[test]
fn the_bench_says_what_it_can_and_prints_what_was_measured() {
    let _alone = ALONE.lock();
    if !has_tomllib() {
        return;
    }
    let bench = || Command::new("benches/bench.py");
    let said = well(bench().arg("--help"));
    assert!(said.contains("connections of the flood (10000)"), "{said}");
    let dir = folder("bench");
    let kept = dir.join("figures.json");
    let figures = r#"{"machine": "a machine", "silent": 10000, "peers": {
        "cosserver": {"exec_p50": 3.0, "idle_pss": 2000, "flood_kept": 10000, "flood_p99": 5.0, "flood_quiet_p99": 4.0},
        "ref-auth": {"exec_p50": 2.0, "idle_pss": 1000}}}"#;
    fs::write(&kept, figures).unwrap();
    let said = well(bench().args(["--report", "--json"]).arg(&kept));
    for line in [
        "|  | cosserver | ref-auth |",
        "| exec latency p50, ms | 3.00 (1.50) | 2.00 |",
        "| server idle PSS, KiB | 2000 (2.00) | 1000 |",
        "| 10000 silent connections: held once all are open | 10000 | - |",
        "| &nbsp;&nbsp;p99 of 100 more, ms | 5.00 | - |",
        "| &nbsp;&nbsp;p99 of 100 before the flood, ms | 4.00 | - |",
    ] {
        assert!(said.lines().any(|l| l == line), "{line}\n{said}");
    }
    fs::remove_dir_all(dir).unwrap();
}

/// From the recorded results of `make bench` and `make distance`.
#[test]
fn charts_are_drawn_of_what_was_measured() {
    let has = |python: &str| {
        let mut python = Command::new(python);
        let output = python.args(["-c", "import matplotlib"]).output();
        output.is_ok_and(|o| o.status.success())
    };
    if !has("python3") && !has("/usr/bin/python3") {
        let is_ci = std::env::var("CI").is_ok_and(|v| v == "true");
        assert!(!is_ci, "no matplotlib");
        eprintln!("skipped: the charts want matplotlib: scripts/need bench installs it");
        return;
    }
    let dir = folder("charts");
    let bench = r#"{"machine": "a machine, 2 processors", "peers": {
        "cosserver": {"exec_p50": 3.25, "rate": 400, "stdout_mbs": 1000},
        "openssh": {"exec_p50": 150.5, "rate": 12, "stdout_mbs": null},
        "ref-auth": {"exec_p50": 2.0}}}"#;
    let line = |ms: u32, rate: u32| {
        format!(
            r#"{{"round_trip": {ms}, "figures": [
                {{"peer": "cosserver", "way": "down", "rates": [{rate}, 90]}},
                {{"peer": "TCP", "way": "up", "rates": [50]}}]}}"#
        )
    };
    let lines = [line(5, 100), line(80, 60)].join(",");
    let distance = format!(
        r#"{{"machine": "another", "rate": 1000, "bytes": 200000000, "lines": [{lines}]}}"#
    );
    for (name, text, words) in [
        (
            "bench.svg",
            bench,
            [
                "cosserver",
                "150.5",
                "400",
                "1000",
                "a machine, 2 processors",
            ],
        ),
        (
            "distance.svg",
            &distance,
            [
                "cosserver",
                "plain TCP",
                "output, 200 MB at 1000 Mbit/s",
                "round trip, ms",
                "another",
            ],
        ),
    ] {
        let kept = dir.join("kept.json");
        fs::write(&kept, text).unwrap();
        well(Command::new("benches/figures.py").arg(&kept).arg(&dir));
        let drawn = fs::read_to_string(dir.join(name)).unwrap();
        for word in words {
            assert!(drawn.contains(&format!(">{word}<")), "{name}: no {word}");
        }
        assert!(
            !drawn.contains("ref-auth"),
            "a floor is no program that people run"
        );
    }
    fs::remove_dir_all(dir).unwrap();
}

/// Regression: logins were denied since unknown machines are, and this benchmark had not been run
/// since.
#[test]
fn the_benchmarks_of_logins_and_doors_run() {
    let _alone = ALONE.lock();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root");
        return;
    }
    let bench = |words: &[&str]| {
        let mut command = Command::new("python3");
        command.env("COS_BIN", programs()).args(words);
        well(&mut command)
    };
    let said = bench(&["benches/login.py", "2"]);
    assert!(said.contains("2 logins by turns, medians: "), "{said}");
    let said = bench(&["benches/doors.py", "--runs", "2", "--machines", "10"]);
    assert!(said.contains("2 commands by each host by turns"), "{said}");
}

#[test]
fn the_benchmark_of_real_programs_runs() {
    let _alone = ALONE.lock();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: it needs root");
        return;
    }
    if !has_tomllib() {
        return;
    }
    let work = format!("/var/tmp/cosserver-test-{}", std::process::id());
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let mut command = Command::new("python3");
    command.args(["benches/programs.py", "--only", "rsync,git"]);
    command.args(["--rounds", "1", "--scale", "0.001"]);
    let out = run(command.env("COS_BIN", programs()).env("BENCH_DIR", &work));
    // Removes what it created, and the user too if the machine had none.
    if accounts.lines().any(|line| line.starts_with("rbench:")) {
        fs::remove_dir_all(&work).unwrap();
    } else {
        let mut remove = Command::new("benches/peers.sh");
        well(remove.arg("--remove").env("BENCH_DIR", &work));
    }
    assert!(out.status.success(), "{out:?}");
    let said = String::from_utf8_lossy(&out.stdout);
    for figure in ["rsync 10 files", "rsync 0.2 MB", "git clone", "git push"] {
        assert!(said.contains(figure), "{said}");
    }
}

/// Returns the directory of the programs that these tests were built with.
fn programs() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_cos"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Creates an empty directory for a test.
fn folder(name: &str) -> PathBuf {
    let path =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("house-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

#[test]
fn install_installs_every_file_and_uninstall_removes_it() {
    let dest = folder("install");
    let make = |what: &[&str]| {
        let mut command = Command::new("make");
        command
            .arg("-s")
            .args(what)
            .arg(format!("DESTDIR={}", dest.display()))
            .arg("PREFIX=/opt/cos");
        command.arg(format!("PROGRAMS={}", programs().display()));
        // Flags of a surrounding make do not apply to this one.
        command
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .env_remove("MFLAGS");
        well(&mut command);
    };
    // The second time for a host without a daemon, whose users make requests all the same.
    for (asked, signer) in [
        (&["install"][..], false),
        (&["install", "SIGNER=setuid"], true),
    ] {
        make(asked);
        let at = |path: &str| dest.join("opt/cos").join(path);
        let mode = fs::metadata(at("bin/cos-sign")).map(|m| m.permissions().mode() & 0o7777);
        assert_eq!(mode.ok(), signer.then_some(0o4755));
        assert_eq!(at("share/man/man1/cos-sign.1").exists(), signer);
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
            "man7/cosserver-protocol.7",
            "man8/cosserver.8",
            "man8/cosadm.8",
        ] {
            assert!(
                fs::metadata(at("share/man").join(page)).unwrap().len() > 100,
                "{page}"
            );
        }
        assert!(at("share/doc/cosserver/PROTOCOL.md").exists());
        // Examples to copy from there name the programs' actual paths.
        for (text, program) in [
            ("doc/cosserver/examples/inetd.conf", "sbin/cosserver"),
            ("doc/cosserver/examples/xinetd", "sbin/cosserver"),
            ("man/man8/cosserver.8", "sbin/cosserver-login"),
            (
                "man/man7/cosserver-protocol.7",
                "share/doc/cosserver/PROTOCOL.md",
            ),
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
            !dest.join("etc/cosserver").exists(),
            "the administrator's folder is not touched"
        );
    }
    make(&["uninstall"]);
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
fn demo_reports_an_account_that_cannot_run_it() {
    use std::os::unix::process::CommandExt;
    let user = |field: usize, of: &str| {
        let said = run(Command::new("getent").args(["passwd", of]));
        let line = String::from_utf8(said.stdout).unwrap();
        line.trim_end().split(':').nth(field).map(str::to_owned)
    };
    // In a place where every user may read it, independent of the project's owner.
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
        // As `make demo` runs it before it builds.
        let mut command = Command::new(&demo);
        command.arg("--check").uid(uid).gid(uid).current_dir(&dir);
        let output = command.stdin(Stdio::null()).output().unwrap();
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
fn demo_prints_the_expected_output() {
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
