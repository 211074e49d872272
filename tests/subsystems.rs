//! Subsystems: programs that a host requests by a name of `[subsystem]`. Which hosts and users may,
//! what runs, and how a denial is reported.

use crate::daemon;
use crate::program;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use cosserver::config::subsystems::USUAL;
use daemon::session::Session;
use daemon::{COS, COSADM, COSSERVER, Daemon, Folder, me, needs_root, prepare, run};
use nix::sys::signal::Signal;

/// A program that prints its name and its arguments, each in brackets, then its directory and its
/// user, writes an error, copies its input and fails.
const ECHOING: &str = "#!/bin/sh\nprintf '%s' \"${0##*/}\"\nfor a; do printf '[%s]' \"$a\"; done\n\
    echo; pwd; id -un; echo \"$COS_HOST $LC_TIME,$OTHER\"\necho complaint >&2\ncat\nexit 42\n";

/// Creates the program under a name with a space, in a directory that is removed with the value.
fn echoing() -> Folder {
    let folder = Folder::new();
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
    program::script(&folder.path("my echo"), ECHOING);
    folder
}

/// Returns settings with early denials, and these lines of `[subsystem]`.
fn settings(lines: &str) -> String {
    format!("[daemon]\nrefusal-interval = 1\n[subsystem]\n{lines}\n")
}

/// Returns a line of `[subsystem]` that runs the echoing program of a directory.
fn echo(folder: &Folder) -> String {
    let path = folder.path("my echo");
    format!(
        "echo = '''\"{}\" -x \"a  b\" \"\" $HOME;id 'it\"s' ''' ",
        path.display()
    )
}

/// The first line of the echoing program's output.
const SAID: &str = "my echo[-x][a  b][][$HOME;id][it\"s]\n";

fn start(lines: &str, options: &str) -> Daemon {
    let d = Daemon::start_with(&settings(lines), options);
    d.install_cosrsh();
    d
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs `cosrsh hostb -s NAME`, with an empty input.
fn ask(d: &Daemon, name: &str) -> Output {
    run(&mut d.cosrsh(&["hostb", "-s", name]))
}

/// Checks the beginning of the output, and that the status is 42.
fn is_echo(d: &Daemon, out: &Output) {
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(42), "{out:?}\n{}", d.log_text());
    assert!(said.starts_with(SAID), "{said}");
    assert_eq!(text(&out.stderr), "complaint\n");
}

/// Checks that the client is told that access is denied; returns the log line, whose cause must be
/// this.
fn denied(d: &Daemon, out: &Output, cause: &str) -> String {
    let said = text(&out.stderr);
    assert_eq!(
        (out.status.code(), &*out.stdout),
        (Some(255), &b""[..]),
        "{said}"
    );
    assert!(
        said.starts_with("cos: hostb: access denied (reference "),
        "{said}"
    );
    let reference = said.split(['(', ')', ' ']).find(|w| w.len() == 16).unwrap();
    let line = d.log.wait(&format!("ref={reference}"));
    assert!(line.contains(&format!("cause={cause} ")), "{line}");
    line
}

/// Replaces the options after `run-as=` of the caller's line.
fn options(d: &Daemon, options: &str) {
    let hostinfo = d.server().join("hostinfo");
    let text = fs::read_to_string(&hostinfo).unwrap();
    let line = text.lines().find(|l| l.starts_with("hosta ")).unwrap();
    let run_as = format!(" run-as={}", me());
    let (before, _) = line.split_once(&run_as).unwrap();
    let line_now = format!("{before}{run_as} {options}");
    fs::write(&hostinfo, text.replace(line, &line_now)).unwrap();
}

#[test]
fn subsystem_runs_its_configured_command_with_streams_and_status() {
    // By the user's shell, and without one.
    for of_line in ["", "subsystems=sftp,echo"] {
        is_its_words(of_line);
    }
}

fn is_its_words(of_line: &str) {
    let tools = echoing();
    let d = start(&echo(&tools), of_line);
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    let home = fs::canonicalize(user.unwrap().unwrap().dir).unwrap();
    let rest = format!("{}\n{}\nhosta C,\n", home.display(), me());
    for words in [
        &["-s", "hostb", "echo"][..],
        &["hostb", "-s", "echo"],
        &["-s", "--", "hostb", "echo"],
        &["-l", &me(), "-s", "hostb", "--", "echo"],
    ] {
        let mut command = d.cosrsh(words);
        command
            .env("LC_TIME", "C")
            .env("OTHER", "x")
            .env_remove("LC_ALL");
        let out = run(&mut command);
        is_echo(&d, &out);
        assert_eq!(text(&out.stdout), format!("{SAID}{rest}"));
    }
    let line = d.log.wait("exec session=");
    assert!(line.ends_with(" service=subsystem command=echo"), "{line}");
    // The same by `cos run`, with an input; and it is listed while it runs.
    let port = d.port.to_string();
    let mut command = Command::new(COS);
    command.arg("-C").arg(d.client());
    let mut session = Session::spawn(command.args(["run", "-s", "-p", &port, "hostb", "echo"]));
    session.say("input");
    session.out.wait("input");
    let out = run(Command::new(COSADM)
        .arg("-C")
        .arg(d.server())
        .args(["who", "--json"]));
    let who: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let on = &who["sessions"][0];
    assert_eq!(
        (on["service"].as_str(), on["command"].as_str()),
        (Some("subsystem"), Some("echo")),
        "{on}"
    );
    drop(session.stdin.take());
    assert_eq!(session.finish().status, Some(42));
    // The log line of a command has no service.
    d.says(0, &["true"]);
    d.log.said_times(" command=true", 1);
    d.log.said_times("service=", 5);
}

#[test]
fn subsystems_are_allowed_per_host() {
    let tools = echoing();
    let d = start(&echo(&tools), "");
    // With only commands= no other program is allowed, by whatever name.
    options(&d, "commands=\"/usr/bin/id -u\"");
    let told = denied(&d, &ask(&d, "echo"), "subsystem");
    assert!(told.contains("commands= allows no other program"), "{told}");
    d.says(0, &["/usr/bin/id", "-u"]);
    // With both, each applies to its own kind; a command is not a subsystem, nor a subsystem a
    // command.
    options(&d, "commands=\"/usr/bin/id -u\" subsystems=sftp,echo");
    is_echo(&d, &ask(&d, "echo"));
    d.says(0, &["/usr/bin/id", "-u"]);
    denied(&d, &run(&mut d.cosrsh(&["hostb", "echo"])), "command");
    let told = denied(&d, &ask(&d, "id"), "subsystem");
    assert!(
        told.contains("subsystems= of hosta does not name it"),
        "{told}"
    );
    for none in ["subsystems=sftp", "subsystems=-"] {
        options(&d, none);
        denied(&d, &ask(&d, "echo"), "subsystem");
        d.says(0, &["true"]);
    }
    options(&d, "");
    is_echo(&d, &ask(&d, "echo"));
    // The user is a separate matter: it is checked for a subsystem too.
    let other = if me() == "daemon" { "bin" } else { "daemon" };
    let out = run(&mut d.cosrsh(&["-l", other, "-s", "hostb", "echo"]));
    denied(&d, &out, "user");
}

/// An account whose shell refuses every command can use only the subsystems that are named for the
/// host.
#[test]
fn an_account_without_a_shell_has_the_subsystems_that_the_line_names() {
    if !needs_root() {
        return;
    }
    let user = nix::unistd::User::from_name("daemon").unwrap().unwrap();
    if !user.shell.ends_with("nologin") {
        daemon::report_skipped("the shell of daemon is not nologin");
        return;
    }
    let tools = echoing();
    let d = start(&echo(&tools), "");
    let hostinfo = d.server().join("hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    let write = |more: &str| {
        let run_as = format!("run-as=daemon {more}");
        fs::write(&hostinfo, table.replace("run-as=root", &run_as)).unwrap();
        run(&mut d.cosrsh(&["-l", "daemon", "-s", "hostb", "echo"]))
    };
    let out = write("");
    let said = text(&out.stdout);
    assert!(
        out.status.code() == Some(1) && !said.contains("my echo"),
        "{out:?}"
    );
    assert!(said.contains("not available"), "{said}");
    let out = write("subsystems=echo");
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(42), "{out:?}\n{}", d.log_text());
    assert!(
        said.starts_with(SAID) && said.contains("\ndaemon\n"),
        "{said}"
    );
}

#[test]
fn what_the_settings_do_not_have_is_refused_with_the_remedy() {
    let tools = echoing();
    let lines = format!(
        "{}\nsftp = \"\"\ngone = \"/nonexistent/x -a\"\nplain = \"/etc/passwd\"",
        echo(&tools)
    );
    let d = start(&lines, "subsystems=netconf,sftp,gone,plain");
    let told = denied(&d, &ask(&d, "netconf"), "subsystem");
    assert!(told.contains("[subsystem] has no netconf = "), "{told}");
    let told = denied(&d, &ask(&d, "sftp"), "subsystem");
    assert!(told.contains("in [subsystem] turns it off"), "{told}");
    // A program that cannot be executed reports it as a command's does.
    for (name, status, why) in [
        ("gone", 127, "/nonexistent/x: no such file"),
        ("plain", 126, "/etc/passwd: permission denied"),
    ] {
        let out = ask(&d, name);
        let said = (out.status.code(), text(&out.stderr));
        assert_eq!(said, (Some(status), format!("cosserver: {why}\n")));
    }
    // SIGHUP reloads the settings.
    let file = d.server().join("cosserver.toml");
    let now = fs::read_to_string(&file).unwrap();
    let path = tools.path("my echo");
    let sftp = format!("sftp = '''\"{}\"'''\n", path.display());
    fs::write(&file, now.replace("sftp = \"\"\n", &sftp)).unwrap();
    d.signal(Signal::SIGHUP);
    d.log.wait("reloaded");
    let out = ask(&d, "sftp");
    assert_eq!(out.status.code(), Some(42), "{out:?}");
    assert!(text(&out.stdout).starts_with("my echo\n"), "{out:?}");
}

#[test]
fn invalid_subsystem_name_is_reported_before_connecting() {
    let d = start("", "");
    for words in [
        &["-s", "hostb", "/usr/lib/sftp-server"][..],
        &["-s", "hostb", "sftp", "-R"],
        &["hostb", "-s", ""],
    ] {
        let out = run(&mut d.cosrsh(words));
        let said = text(&out.stderr);
        assert_eq!(out.status.code(), Some(255), "{words:?}");
        assert!(
            said.starts_with("cos: hostb: -s: ") && said.lines().count() == 1,
            "{said}"
        );
    }
    assert_eq!(d.log.count("denied"), 0);
}

/// Starts a daemon in a mount namespace where the usual paths of sftp-server are the test's.
#[test]
fn the_usual_paths_of_sftp_are_tried_when_it_is_asked_for() {
    if !needs_root() {
        return;
    }
    let tools = echoing();
    let (here, empty) = (tools.path("here"), tools.path("empty"));
    fs::create_dir(&here).unwrap();
    fs::create_dir(&empty).unwrap();
    // A directory that can contain two of the paths: the others' are empty there.
    let ours = Path::new("/usr/libexec");
    let mut script = format!(
        "set -e\nmount --bind '{}' {}\n",
        here.display(),
        ours.display()
    );
    for path in USUAL {
        let folder = Path::new(path).parent().unwrap();
        if !folder.starts_with(ours) && folder != Path::new("/usr/lib") && folder.is_dir() {
            script += &format!("mount --bind '{}' {}\n", empty.display(), folder.display());
        }
    }
    // Debian's is a symbolic link into one of these directories.
    let last = fs::canonicalize("/usr/lib/sftp-server");
    let is_in_the_way = last.is_ok_and(|file| file.parent() == Some(Path::new("/usr/lib")));
    if !ours.is_dir() || is_in_the_way {
        daemon::report_skipped("no /usr/libexec, or a file /usr/lib/sftp-server");
        return;
    }
    let folder = prepare(&settings(""), "");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command
        .arg(format!("{script}exec \"$@\""))
        .args(["sh", COSSERVER]);
    let d = Daemon::start_by(command, folder, &[]);
    d.install_cosrsh();
    let told = denied(&d, &ask(&d, "sftp"), "subsystem");
    assert!(
        told.contains("no sftp-server is at its usual paths") && told.contains("[subsystem]"),
        "{told}"
    );
    // When installed now, it is found at once; and so is one at a path that is tried before.
    let is = |name: &str| {
        let out = ask(&d, "sftp");
        let said = text(&out.stdout);
        assert!(said.starts_with(&format!("{name}\n")), "{out:?}");
    };
    let own = |name: &str| {
        let text = format!("#!/bin/sh\necho {name}\n");
        program::script(&here.join(name), &text);
    };
    own("sftp-server");
    is("sftp-server");
    fs::create_dir(here.join("openssh")).unwrap();
    own("openssh/sftp-server");
    is("openssh/sftp-server");
}

#[test]
fn a_daemon_of_inetd_has_them_too() {
    let tools = echoing();
    let folder = prepare(
        &settings(&echo(&tools)),
        "commands=/bin/true subsystems=echo",
    );
    let d = Daemon::inetd_in(folder, &[]);
    d.install_cosrsh();
    is_echo(&d, &ask(&d, "echo"));
    d.log.wait(" service=subsystem command=echo");
    denied(&d, &ask(&d, "sftp"), "subsystem");
}

#[test]
fn the_daemon_of_an_ordinary_user_has_them_too() {
    if !needs_root() {
        return;
    }
    let tools = echoing();
    // The user's shell may be nologin.
    let folder = prepare(&settings(&echo(&tools)), "subsystems=echo");
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    fs::write(&hostinfo, table.replace("run-as=root", "run-as=nobody")).unwrap();
    daemon::must(
        Command::new("chown")
            .args(["-R", "65534:65534"])
            .arg(folder.path("S")),
    );
    let copy = folder.path("cosserver");
    program::copy(COSSERVER, &copy);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(copy);
    let d = Daemon::start_by(command, folder, &[]);
    d.install_cosrsh();
    let out = run(&mut d.cosrsh(&["-l", "nobody", "-s", "hostb", "echo"]));
    assert_eq!(out.status.code(), Some(42), "{out:?}\n{}", d.log_text());
    let said = text(&out.stdout);
    assert!(
        said.starts_with(SAID) && said.contains("\nnobody\n"),
        "{said}"
    );
    denied(&d, &ask(&d, "echo"), "user");
}
