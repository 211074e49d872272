//! ssh's command line against the real daemon: the flags that act, those that are ignored with or
//! without a message, those that are rejected, and what replaces a missing command.

use crate::daemon;
use crate::program;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use daemon::session::{Fifo, Gate, Session};
use daemon::{COS, Daemon, must, run, until};

/// Starts a daemon that `bin/ssh` reaches, by the environment and the host table.
fn start(options: &str) -> Daemon {
    let d = Daemon::start_with("", options);
    d.install_cosrsh();
    symlink(COS, d.folder.path("bin/ssh")).unwrap();
    d
}

/// Creates `ssh WORDS…`, which is this program.
fn ssh(d: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(d.folder.path("bin/ssh"));
    command.env("COS_CONFIG_DIR", d.client()).args(words);
    command
}

/// Returns status, output and errors of a command.
fn told(command: &mut Command) -> (Option<i32>, String, String) {
    let out = run(command);
    (
        out.status.code(),
        String::from_utf8(out.stdout).unwrap(),
        String::from_utf8(out.stderr).unwrap(),
    )
}

/// The same for a command with this input.
fn with_input(command: &mut Command, input: &str) -> (Option<i32>, String, String) {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    (
        out.status.code(),
        String::from_utf8(out.stdout).unwrap(),
        String::from_utf8(out.stderr).unwrap(),
    )
}

#[test]
fn flags_of_ssh_change_nothing_for_a_command() {
    let d = start("");
    let flags = [
        "-C",
        "-i",
        "/nowhere",
        "-F",
        "/nowhere",
        "-c",
        "aes128-ctr",
        "-m",
        "hmac-sha2-256",
        "-S",
        "none",
        "-k",
        "-K",
        "-y",
        "-Y",
        "-M",
        "-g",
        "-q",
        "-T",
        "-e",
        "none",
    ];
    for mut command in [d.cosrsh(&flags), ssh(&d, &flags)] {
        command.args(["hostb", "-C", "printf '%s\\n' \"$@\"", "x", "-C", "-t"]);
        assert_eq!(
            told(&mut command),
            (Some(0), "x\n-C\n-t\n".into(), String::new())
        );
    }
}

/// Regression: HostName and StdinNull were ignored: the command ran on another host, and a loop
/// lost its input.
#[test]
fn options_that_say_where_or_what_to_run_act_as_their_flags() {
    let d = start("accept-env=FOO,BAR");
    let option = |option: &str, words: &[&str]| {
        let mut command = ssh(&d, &["-o", option, "hostb"]);
        command.args(words);
        command
    };
    let runs = |setting: &str, words: &[&str]| {
        let (status, out, err) = told(&mut option(setting, words));
        assert_eq!((status, &*err), (Some(0), ""), "{setting}");
        out
    };
    runs("HostName=127.0.0.1", &["true"]);
    runs("HostName\t'[127.0.0.1]'", &["true"]);
    // No process listens there.
    let (status, out, err) = told(&mut option("hostname=127.0.0.77", &["echo ran"]));
    assert_eq!((status, &*out), (Some(255), ""), "{err}");
    assert!(err.contains("127.0.0.77"), "{err}");
    // Of two the first counts, for options and flags alike.
    let shown = |words: &[&str]| told(ssh(&d, words).args(["-G", "x@hostb"])).1;
    for (words, line) in [
        (&["-oHostName=%h.invalid"][..], "hostname hostb.invalid"),
        (&["-oHostName=a", "-oHostName=b"], "hostname a"),
        (&["-oUser=a", "-l", "b"], "user a"),
        (&["-l", "b", "-oUser=a"], "user b"),
        (&["-oUser=a"], "user a"),
        (&[], "user x"),
        (&["-oPort=1", "-p", "2"], "port 1"),
        (&["-p", "2", "-oPort=1"], "port 2"),
    ] {
        let shown = shown(words);
        assert!(shown.lines().any(|l| l == line), "{words:?}: {shown}");
    }
    let mut two = option("SetEnv=FOO=1", &["echo $FOO$BAR"]);
    assert_eq!(told(&mut two).1, "1\n");
    let mut two = ssh(&d, &["-oSetEnv=FOO=1", "-oSetEnv=BAR=2", "hostb"]);
    assert_eq!(told(two.arg("echo $FOO$BAR")).1, "1\n");
    let mut two = ssh(&d, &["-oStdinNull=no", "-oStdinNull=yes", "hostb", "cat"]);
    assert_eq!(with_input(&mut two, "kept\n").1, "kept\n");

    let mut reads = option("StdinNull=yes", &["cat; echo end"]);
    assert_eq!(with_input(&mut reads, "lost\n").1, "end\n");
    let mut reads = option("StdinNull=no", &["cat"]);
    assert_eq!(with_input(&mut reads, "kept\n").1, "kept\n");
    assert_eq!(
        runs(
            "SetEnv=FOO=\"a  b\" BAR=c",
            &["printf '%s,%s' \"$FOO\" $BAR"]
        ),
        "a  b,c"
    );
    let (_, out, _) = told(option("SendEnv=FOO", &["echo $FOO"]).env("FOO", "sent"));
    assert_eq!(out, "sent\n");
    runs("AddressFamily=inet", &["true"]);
    runs("ProxyCommand=none", &["true"]);
    runs("SessionType=default", &["true"]);
    runs("StrictHostKeyChecking=no", &["true"]);
    // As ssh's own tools send them.
    let mut cleared = ssh(
        &d,
        &["-oClearAllForwardings=yes", "-L", "1:x:1", "hostb", "true"],
    );
    assert_eq!(told(&mut cleared).0, Some(0));

    let (_, out, err) = told(&mut option("RequestTTY=force", &["echo x"]));
    assert_eq!(out, "x\n");
    assert!(err.starts_with("cos: hostb: -t: "), "{err}");
    let (_, out, err) = told(&mut option("ConectTimeout=3", &["echo x"]));
    assert_eq!(out, "x\n");
    let meant = "-o ConectTimeout is not known; did you mean \"ConnectTimeout\"?";
    assert_eq!(err, format!("cos: hostb: ignored: {meant}\n"));
    let known = [
        "-oIgnoreUnknown=Con*,x",
        "-oConectTimeout=3",
        "hostb",
        "true",
    ];
    assert_eq!(
        told(&mut ssh(&d, &known)),
        (Some(0), String::new(), String::new())
    );
    let (_, _, err) = told(option("LogLevel=QUIET", &["true"]).args(["-oBogus=1", "-t"]));
    assert_eq!(err, "", "after the command they are its own");
    let mut quiet = ssh(
        &d,
        &["-oLogLevel=QUIET", "-oBogus=1", "-t", "hostb", "true"],
    );
    assert_eq!(told(&mut quiet), (Some(0), String::new(), String::new()));

    runs("SessionType=default", &["echo before"]);
    for (setting, words, why) in [
        ("SessionType=none", &[][..], "-N: "),
        ("LocalForward=1 localhost:1", &["true"], "-o LocalForward: "),
        (
            "RemoteForward=1 localhost:1",
            &["true"],
            "-o RemoteForward: ",
        ),
        ("DynamicForward=1", &["true"], "-o DynamicForward: "),
        ("ProxyCommand=false", &["true"], "-o ProxyCommand: "),
        ("SessionType=subsystem", &["none-such"], "access denied"),
        ("HostName=%x", &["true"], "-o HostName=%x: "),
        ("HostName=x;id", &["true"], "-o HostName=x;id: "),
        ("StdinNull=perhaps", &["true"], "-o StdinNull=perhaps: "),
    ] {
        let (status, out, err) = told(&mut option(setting, words));
        assert_eq!((status, &*out), (Some(255), ""), "{setting} {err}");
        assert!(err.contains(why), "{setting}: {err}");
    }
    for face in ["gui", "enrol"] {
        let mut own = Command::new(COS);
        own.arg("-C")
            .arg(d.client())
            .args([face, "-oBogus=1", "hostb"]);
        let (status, _, err) = told(own.args((face == "gui").then_some("x")));
        assert_eq!(status, Some(255));
        assert_eq!(err, "cos: -o Bogus is not known\n");
    }
    // None of them has started anything.
    let (status, ..) = told(&mut ssh(&d, &["hostb", "echo after"]));
    assert_eq!(status, Some(0));
    d.log.wait("echo after");
    let all = d.log.all();
    let mut started = all.iter().filter(|l| l.contains("exec session="));
    let before = started.find(|l| l.contains("echo before"));
    assert!(before.is_some() && started.next().unwrap().contains("echo after"));
}

#[test]
fn a_terminal_and_forwardings_are_missed_with_one_line() {
    let d = start("");
    let line = |flag: &str, what: &str| format!("cos: hostb: {flag}: there is no {what}\n");
    for (flag, note) in [
        ("-t", line("-t", "terminal; the command runs without one")),
        ("-tt", line("-t", "terminal; the command runs without one")),
        ("-N", line("-N", "forwarding; the command runs")),
    ] {
        let out = told(&mut ssh(&d, &[flag, "hostb", "echo x"]));
        assert_eq!(out, (Some(0), "x\n".into(), note));
        let out = told(&mut d.cosrsh(&["-q", flag, "hostb", "echo x"]));
        assert_eq!(out, (Some(0), "x\n".into(), String::new()));
    }
    for words in [
        &["-L", "1:x:1", "hostb", "true"][..],
        &["-D", "1", "hostb", "true"],
        &["-R", "1:x:1", "hostb", "true"],
        &["-w", "any", "hostb", "true"],
        &["-O", "check", "hostb"],
        &["-N", "hostb"],
        &["-Q", "cipher"],
        &["-f", "hostb"],
        &["-W", "x:1", "hostb", "true"],
    ] {
        let (status, out, err) = told(&mut ssh(&d, words));
        assert_eq!((status, &*out), (Some(255), ""), "{words:?}");
        assert_eq!(err.lines().count(), 1, "{words:?} {err}");
        assert!(
            err.contains(&format!("{}: ", words[0])) || words[0] == "-Q",
            "{err}"
        );
        assert!(err.starts_with("cos: "), "{err}");
    }
    d.log.said_times("exec session=", 6);
}

#[test]
fn a_folder_behind_c_is_pointed_out() {
    let d = start("");
    let (status, _, err) = told(&mut d.cosrsh(&["-C", "/etc/cosserver", "hostb", "true"]));
    assert_eq!(status, Some(255));
    let remedy = err.lines().last().unwrap();
    assert!(remedy.contains("-C is compression here") && remedy.contains("COS_CONFIG_DIR"));
    assert_eq!(err.lines().count(), 2, "{err}");
    let mut command = Command::new(COS);
    let (_, _, err) = told(command.args(["run", "-C", "DIR", "hostb", "true"]));
    assert!(
        err.starts_with("cos: -C DIR goes before the subcommand"),
        "{err}"
    );
}

#[test]
fn the_version_and_where_a_host_is() {
    let d = start("");
    let version = concat!("cos ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(
        told(&mut ssh(&d, &["-V"])),
        (Some(0), String::new(), version.into())
    );
    assert_eq!(
        told(&mut d.cosrsh(&["-V"])),
        (Some(0), version.into(), String::new())
    );
    let port = d.port;
    let (status, out, _) = told(&mut ssh(&d, &["-G", "-l", "jo", "hostb"]));
    let due = format!("host hostb\nuser jo\nhostname 127.0.0.1\nport {port}\n");
    assert_eq!((status, out), (Some(0), due));
    let (status, out, _) = told(&mut ssh(&d, &["-G", "-p", "7", "nowhere.invalid"]));
    assert_eq!(status, Some(0));
    assert!(
        out.contains("\nhostname nowhere.invalid\nport 7\n"),
        "{out}"
    );
    assert_eq!(d.log.count("exec session="), 0);
}

#[test]
fn into_the_background_once_the_host_has_accepted() {
    let d = start("");
    for face in ["cos", "cosrsh", "ssh"] {
        let mut gate = Gate::new(d.folder.path(&format!("gate-{face}")));
        let mut fifo = Fifo::new(d.folder.path(&format!("fifo-{face}")));
        let script = format!(
            "cat; echo running; read x < {}; echo late; echo done > {}",
            gate.name(),
            fifo.name()
        );
        let mut command = match face {
            "cos" => {
                let mut command = d.cos(&[]);
                command.args(["-f", "--", &script]);
                command
            }
            "cosrsh" => d.cosrsh(&["-f", "hostb", &script]),
            _ => ssh(&d, &["-f", "hostb", &script]),
        };
        let mut session = Session::spawn(&mut command);
        session.out.wait("running");
        // The command waits at the pipe, and the called program has exited. The command does not
        // get the program's input.
        let status = daemon::session::wait(&mut session.child);
        assert_eq!(status.code(), Some(0), "{face}");
        gate.open();
        assert_eq!(fifo.receive(), "done\n");
        session.out.wait("late");
        assert_eq!(session.out.all(), ["running", "late"]);
    }
    // A program that is denied stays in the foreground.
    let nobody = ["-f", "-l", "no-such-user", "hostb", "true"];
    let (status, _, err) = told(&mut ssh(&d, &nobody));
    assert_eq!(status, Some(255));
    assert!(err.contains("access denied"), "{err}");
}

#[test]
fn own_lines_go_to_the_log() {
    let d = start("");
    let log = d.folder.path("log");
    let flag = format!("-E{}", log.display());
    let out = told(&mut ssh(
        &d,
        &[&flag, "-t", "hostb", "echo out; echo err >&2"],
    ));
    assert_eq!(out, (Some(0), "out\n".into(), "err\n".into()));
    let (status, _, err) = told(&mut d.cosrsh(&["-v", &flag, "nowhere", "true"]));
    assert_eq!((status, &*err), (Some(255), ""));
    let out = told(d.cos(&["-v", &flag]).arg("exit 3"));
    assert_eq!(out, (Some(3), String::new(), String::new()));
    let said = fs::read_to_string(&log).unwrap();
    let mut lines = said.lines();
    assert!(
        lines.next().unwrap().starts_with("cos: hostb: -t: "),
        "{said}"
    );
    assert!(
        lines.next().unwrap().starts_with("cos: nowhere: "),
        "{said}"
    );
    assert!(lines.last().unwrap().ends_with("exit status 3"), "{said}");
    // A log that cannot be written is an error before anything is done.
    let sessions = d.log.count("exec session=");
    let (status, _, err) = told(&mut ssh(&d, &["-E/nowhere/log", "hostb", "true"]));
    assert_eq!(status, Some(255));
    assert!(err.starts_with("cos: hostb: -E: /nowhere/log: "), "{err}");
    d.log.said_times("exec session=", sessions);
}

#[test]
fn a_connection_comes_from_the_address_that_was_said() {
    let d = start("");
    let from = |words: &[&str]| told(ssh(&d, words).args(["hostb", "echo x"]));
    for good in [
        &["-b", "127.0.0.1"][..],
        &["-B", "lo"],
        &["-oBindAddress=127.0.0.1"],
    ] {
        assert_eq!(
            from(good),
            (Some(0), "x\n".into(), String::new()),
            "{good:?}"
        );
    }
    // The host's line has other addresses.
    let (status, _, err) = from(&["-b", "127.0.0.9"]);
    assert_eq!(status, Some(255));
    assert!(err.contains("access denied"), "{err}");
    let denied = d.log.wait("peer=127.0.0.9");
    assert!(denied.contains("denied"), "{denied}");
    for (bad, why) in [
        (["-b", "192.0.2.1"], "from 192.0.2.1: "),
        (["-b", "no.invalid"], "-b no.invalid: "),
        (["-B", "no-such"], "-B no-such: no such interface"),
    ] {
        let (status, _, err) = from(&bad);
        assert_eq!((status, err.lines().count()), (Some(255), 1), "{err}");
        assert!(err.contains(why), "{err}");
    }
}

#[test]
fn without_a_command_the_login_shell_reads_commands() {
    let d = start("");
    let input = "echo $((6*7))\necho x\necho y\n";
    let out = with_input(&mut ssh(&d, &["hostb"]), input);
    assert_eq!(out, (Some(0), "42\nx\ny\n".into(), String::new()));
    let out = with_input(&mut d.cosrsh(&["-T", "hostb"]), "exit 3\n");
    assert_eq!(out, (Some(3), String::new(), String::new()));
    // It is a login shell.
    let (_, out, _) = with_input(&mut ssh(&d, &["hostb"]), "cat /proc/$$/cmdline\n");
    assert!(out.contains("\0-l\0"), "{out:?}");
    let remote = ["-oRemoteCommand=echo \"a  b\"; cat", "hostb"];
    let out = with_input(&mut ssh(&d, &remote), "x\n");
    assert_eq!(out.1, "a  b\nx\n", "{out:?}");
}

/// At a terminal there would be no prompt, so it says what is missing.
#[test]
fn no_command_at_a_terminal_is_reported() {
    let d = start("");
    let at_terminal = |words: &[&str], input: &str| {
        let ends = nix::pty::openpty(None, None).unwrap();
        let mut command = ssh(&d, words);
        let piped = command.stdin(ends.slave).stdout(Stdio::piped());
        let child = piped.stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        let mut master = fs::File::from(ends.master);
        master.write_all(input.as_bytes()).unwrap();
        let out = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (out.status.code(), text(out.stdout), text(out.stderr))
    };
    let missing = "cos: hostb: no command given, and there is no terminal here; give a command\n";
    // So do Emacs' TRAMP, by its method ssh, and pxssh.
    for words in [
        &["hostb"][..],
        &["-q", "-l", "jo", "hostb"],
        &["-e", "none", "-t", "-t", "hostb"],
    ] {
        let out = at_terminal(words, "");
        assert_eq!(out, (Some(255), String::new(), missing.into()), "{words:?}");
    }
    let out = at_terminal(&["-T", "hostb"], "echo x; exit 4\n");
    assert_eq!(out, (Some(4), "x\n".into(), String::new()));
    let out = at_terminal(&["hostb", "read x; echo $x"], "y\n");
    assert_eq!(out, (Some(0), "y\n".into(), String::new()));
}

#[test]
fn a_list_of_commands_holds_for_the_login_shell() {
    let d = start("commands=\"/bin/echo *\"");
    let out = told(&mut ssh(&d, &["hostb", "/bin/echo", "x"]));
    assert_eq!(out, (Some(0), "x\n".into(), String::new()));
    let (status, out, err) = with_input(&mut ssh(&d, &["hostb"]), "echo x\n");
    assert_eq!((status, &*out), (Some(255), ""));
    assert!(err.contains("access denied"), "{err}");
}

/// A program that prints its name and its arguments, each in brackets.
const ECHOING: &str =
    "#!/bin/sh\nprintf '%s' \"${0##*/}\"\nfor a; do printf '[%s]' \"$a\"; done\necho\n";

#[test]
fn ssh_itself_is_the_next_on_the_path_that_is_not_this_program() {
    let d = start("");
    let real = d.folder.path("real");
    fs::create_dir(&real).unwrap();
    for name in ["ssh", "rsh"] {
        program::script(&real.join(name), ECHOING);
    }
    symlink(COS, d.folder.path("bin/rsh")).unwrap();
    let table = "bysecure ssh addr=192.0.2.1\nbyold rsh\n";
    daemon::append(&d.client().join("hostinfo"), table);
    let bin = d.folder.path("bin");
    let by = |path: &[&std::path::Path], words: &[&str]| {
        let path = std::env::join_paths(path).unwrap();
        told(ssh(&d, words).env("PATH", path))
    };
    let flags = [
        "-C",
        "-i",
        "/key",
        "-L",
        "1:x:1",
        "-tt",
        "-N",
        "-J",
        "a,b",
        "-E",
        "/dev/null",
        "-vv",
        "-f",
        "-oProxyJump=c",
        "-oJumpProgram=/cos",
        "bysecure",
        "-W",
        "x:1",
    ];
    let passed = "ssh[-C][-i/key][-L1:x:1][-t][-t][-N][-Ja,b][-E/dev/null][-v][-v][-f]\
                  [-oProxyJump=c][-Wx:1][-oHostName=192.0.2.1][-oHostKeyAlias=bysecure][--][bysecure]\n";
    for path in [&[&*bin, &*real][..], &[&*real, &*bin]] {
        let (status, out, err) = by(path, &flags);
        assert_eq!((status, &*out, &*err), (Some(0), passed, ""));
        // An interactive login is left to ssh itself.
        let (_, out, _) = by(path, &["-G", "bysecure"]);
        assert_eq!(
            out,
            "ssh[-G][-oHostName=192.0.2.1][-oHostKeyAlias=bysecure][--][bysecure]\n"
        );
        let (status, out, _) = by(path, &["byold"]);
        assert_eq!((status, &*out), (Some(0), "rsh[byold]\n"));
    }
    let (status, _, err) = by(&[&*bin], &["bysecure", "x"]);
    assert_eq!(status, Some(255));
    assert!(
        err.contains("the only one on PATH is this program itself"),
        "{err}"
    );
    // Flags that rsh lacks are not dropped.
    for flag in [&["-J", "a"][..], &["-f"], &["-b", "127.0.0.1"]] {
        let (status, _, err) = by(&[&*real], &[flag, &["byold", "x"]].concat());
        assert_eq!(status, Some(255));
        assert!(err.contains(&format!("rsh has no {}", flag[0])), "{err}");
    }
    // Two copies of this program would execute each other forever.
    for copy in ["one", "two"] {
        fs::create_dir(d.folder.path(copy)).unwrap();
        program::copy(COS, &d.folder.path(copy).join("ssh"));
    }
    let copies = ["one", "two"].map(|c| d.folder.path(c));
    let (status, _, err) = by(&[&*copies[0], &*copies[1]], &["bysecure", "x"]);
    assert_eq!(status, Some(255));
    assert!(err.contains("copies of this program"), "{err}");
}

#[test]
fn standard_input_and_output_to_a_port() {
    let d = start("");
    let cos = COS.to_owned();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        stream.write_all(&got).unwrap();
        got.len()
    });
    let input = "a line\n".repeat(100_000);
    let program = format!("-oJumpProgram={cos}");
    let target = format!("127.0.0.1:{port}");
    let mut command = ssh(&d, &[&program, "-W", &target, "hostb"]);
    let (status, out, err) = with_two_way(&mut command, &input);
    assert_eq!((status, &*err), (Some(0), ""));
    assert!(out == input);
    assert_eq!(server.join().unwrap(), input.len());
    // No process listens there any more.
    let mut connect = Command::new(COS);
    let (status, out, err) = told(connect.args(["connect", "127.0.0.1", &port.to_string()]));
    assert_eq!((status, &*out), (Some(255), ""));
    // Any process may have that port.
    let due = format!("cos: 127.0.0.1: 127.0.0.1:{port}: connection refused\n");
    assert_eq!(err, due);
    let (status, _, err) = told(&mut ssh(&d, &[&program, "-W", &target, "hostb"]));
    assert_eq!((status, err), (Some(255), due));
    let mut connect = Command::new(COS);
    let (_, _, err) = told(connect.args(["connect", "-6", "127.0.0.1", "1"]));
    assert!(err.contains("no address of the requested family"), "{err}");
    until("the sessions have ended", || {
        d.log.count("end session=") == 2
    });
    must(&mut ssh(&d, &["hostb", "true"]));
}

/// The same as [`with_input`] for more than pipes hold.
fn with_two_way(command: &mut Command, input: &str) -> (Option<i32>, String, String) {
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (out.status.code(), text(out.stdout), text(out.stderr))
}

/// Regression: a link called ssh made all unlisted hosts unreachable, and did not say how to reach
/// them by ssh(1).
#[test]
fn called_as_ssh_a_host_that_is_not_listed_has_a_remedy() {
    let d = start("");
    let table = d.client().join("hostinfo");
    let remedy = format!(
        "cos: to reach it by ssh(1), add the line \"other ssh\" to {}",
        table.display()
    );
    let (status, _, err) = told(&mut ssh(&d, &["other", "true"]));
    assert_eq!((status, err.lines().nth(1)), (Some(255), Some(&*remedy)));
    let (_, _, err) = told(&mut d.cosrsh(&["other", "true"]));
    assert!(!err.contains("ssh(1)"), "{err}");
    // With that line the next ssh on the path is used.
    let text = fs::read_to_string(&table).unwrap();
    fs::write(&table, format!("{text}other ssh\n")).unwrap();
    let bin = d.folder.path("real");
    fs::create_dir(&bin).unwrap();
    program::script(&bin.join("ssh"), "#!/bin/sh\necho real \"$@\"\n");
    let mut command = ssh(&d, &["other", "true"]);
    let out = told(command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())));
    assert_eq!(out, (Some(0), "real -- other true\n".into(), String::new()));
    fs::remove_file(&table).unwrap();
    let (_, _, err) = told(&mut ssh(&d, &["other", "true"]));
    assert_eq!(err.lines().nth(1), Some(&*remedy));
}
