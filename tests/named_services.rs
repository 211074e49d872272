//! Named services: `cos open` and `cos services` against the real daemon. Who may use them, what
//! runs, what a backend sees, and that an absent service looks like a forbidden one.

use crate::daemon;
use crate::program;
use crate::tool;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use daemon::session::on_path;
use daemon::{COS, Daemon, Folder, Lines, append, me, must, prepare, run};
use tool::{have, tool};

/// A program that tells what it was started with, then copies its input.
const TELLING: &str = "#!/bin/sh\nfor a; do printf '[%s]' \"$a\"; done\n\
    echo; pwd; id -un; env | grep ^COS_ | sort\necho complaint >&2\ncat\nexit 42\n";

/// Returns the folders of a daemon with these services. In their text, `@P` is the telling program, `@D` the
/// folder, `@me` the user that runs the tests.
fn folder_with(services: &str) -> Folder {
    // No test waits for the grace of processes.
    let exec = "[exec]\nssh-client = false\nhup-to-kill = 3600\n";
    let folder = prepare(&format!("[daemon]\nrefusal-interval = 1\n{exec}"), "");
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o755)).unwrap();
    let path = folder.path("telling");
    program::script(&path, TELLING);
    let services = services
        .replace("@P", path.to_str().unwrap())
        .replace("@D", folder.0.to_str().unwrap())
        .replace("@me", &me());
    append(&folder.path("S/cosserver.toml"), &services);
    folder
}

fn start(services: &str) -> Daemon {
    Daemon::start_in(folder_with(services), &[])
}

/// `cos -C A WORD -p PORT …`
fn cos(d: &Daemon, subcommand: &str, words: &[&str]) -> Command {
    let mut command = Command::new(COS);
    command.arg("-C").arg(d.client()).arg(subcommand);
    command.args(["-p", &d.port.to_string()]).args(words);
    command
}

fn open(d: &Daemon, words: &[&str]) -> Output {
    run(&mut cos(d, "open", words))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks that the service is unavailable, and returns the log's reason.
fn unavailable(d: &Daemon, words: &[&str]) -> String {
    let out = open(d, words);
    let said = text(&out.stderr);
    assert_eq!(
        (out.status.code(), out.stdout.len()),
        (Some(255), 0),
        "{out:?}"
    );
    let reference = said.strip_prefix("cos: hostb: service unavailable (reference ");
    let reference = reference
        .unwrap_or_else(|| panic!("{said}"))
        .get(..16)
        .unwrap();
    d.log.wait(reference)
}

const UPTIME: &str = "[service.Report]\nkind = \"command\"\ncommand = [\"@P\", \"own\"]\n\
    args = [\"daily month=*\", \"-v\"]\nas = \"@me\"\nallow = [ { host = \"hosta\" } ]\n";

#[test]
fn a_command_gets_its_own_words_and_those_that_args_allows() {
    let d = start(UPTIME);
    let out = open(&d, &["REPORT://hostb/daily?month=11"]);
    let said = text(&out.stdout);
    assert_eq!(out.status.code(), Some(42), "{out:?}\n{}", d.log_text());
    assert_eq!(text(&out.stderr), "complaint\n");
    let mut lines = said.lines();
    assert_eq!(lines.next(), Some("[own][daily][month=11]"));
    assert_eq!(lines.next(), Some("/"));
    assert_eq!(lines.next(), Some(me().as_str()));
    let variables: Vec<&str> = lines.collect();
    let user = format!("COS_USER={}", me());
    for expected in [
        "COS_ARGS=daily&month=11",
        "COS_HOST=hosta",
        "COS_SERVICE=report",
        &user,
    ] {
        assert!(variables.contains(&expected), "{expected}: {said}");
    }
    assert!(
        said.contains("\nCOS_RIGHTS=host\n") && said.contains("\nCOS_MACHINE="),
        "{said}"
    );
    assert_eq!(open(&d, &["report://hostb"]).status.code(), Some(42));
    assert_eq!(
        open(&d, &["report://hostb", "--", "-v"]).status.code(),
        Some(42)
    );
    for wrong in [
        "report://hostb/daily",
        "report://hostb/-x",
        "report://hostb/daily?month=..%2fx",
    ] {
        let why = unavailable(&d, &[wrong]);
        assert!(why.contains("args does not allow"), "{why}");
    }
    d.log.wait("service=service command=\"report -v\"");
}

#[test]
fn the_result_has_the_first_format_that_the_caller_takes() {
    let d = start(&UPTIME.replace("as = ", "formats = [\"text\", \"json\"]\nas = "));
    let format = |words: &[&str]| {
        let said = text(&open(&d, words).stdout);
        said.lines()
            .find_map(|l| Some(l.strip_prefix("COS_FORMAT=")?.to_owned()))
    };
    assert_eq!(format(&["report://hostb"]).as_deref(), Some("text"));
    let json = format(&["--format", "xml,json,text", "report://hostb"]);
    assert_eq!(json.as_deref(), Some("json"));
    let why = unavailable(&d, &["--format", "xml", "report://hostb"]);
    assert!(why.contains("formats has none of xml"), "{why}");
}

#[test]
fn absent_forbidden_and_misspelt_services_are_unavailable_alike() {
    let d = start(&format!(
        "{UPTIME}[service.hidden]\nkind = \"command\"\ncommand = [\"@P\"]\nas = \"@me\"\n\
         allow = [ {{ host = \"hosta\" }} ]\ndeny = [ {{ address = \"127.0.0.0/8\" }} ]\n\
         [service.others]\nkind = \"command\"\ncommand = [\"@P\"]\nas = \"@me\"\n\
         allow = [ {{ host = \"hostc\" }} ]\n[service.nobodys]\nkind = \"command\"\n\
         command = [\"@P\"]\nas = \"@me\"\n"
    ));
    for (name, why) in [
        ("hidden", "denies it: { address = "),
        ("others", "allow does not list"),
        ("nobodys", "allow does not list"),
        ("reports", "there is no [service.reports]"),
    ] {
        let said = unavailable(&d, &[&format!("{name}://hostb")]);
        assert!(
            said.contains(why) && said.contains("cause=service"),
            "{said}"
        );
    }
    // Nobody learns what else there is.
    assert_eq!(must(&mut cos(&d, "services", &["hostb"])), b"report\n");
    assert_eq!(
        must(&mut cos(&d, "services", &["--json", "hostb"])),
        b"[\"report\"]\n"
    );
}

#[test]
fn explain_names_the_rule_that_decides() {
    let d = start(
        "[service.pg]\nkind = \"forward\"\nto = \"unix:/run/pg\"\nallow = [\n\
         { group = \"dba\" },\n{ host = \"hosta\", time = \"Mon-Fri 07:00-19:00\" } ]\n\
         deny = [ { address = \"192.0.2.0/24\" } ]\n\
         [service.up]\nkind = \"forward\"\nto = \"unix:/run/up\"\nas = \"nobody\"\n\
         allow = [ { host = \"hosta\" } ]\ndeny = [ { address = \"127.0.0.0/8\" } ] # 192.0.2.7\n\
         [service.me]\nkind = \"command\"\ncommand = [\"/bin/true\"]\n\
         allow = [ { host = \"hosta\" } ]\n",
    );
    let explain = |words: &[&str]| {
        let mut command = Command::new(daemon::COSADM);
        let out = run(command.arg("-C").arg(d.server()).arg("explain").args(words));
        (out.status.code(), text(&out.stdout), text(&out.stderr))
    };
    let toml = fs::read_to_string(d.server().join("cosserver.toml")).unwrap();
    let line = |part: &str| 1 + toml.lines().position(|l| l.contains(part)).unwrap();
    let (host, dba, denied) = (line("Mon-Fri"), line("dba"), line("192.0.2.0/24"));
    let said = explain(&[
        "service=PG",
        "user=nobody",
        "host=hosta",
        "time=Fri 18:59",
        "address=127.0.0.1",
    ]);
    let rule = "{ host = \"hosta\", time = \"Mon-Fri 07:00-19:00\" }";
    let words = format!("allowed by line {host}: {rule}\nas nobody\n");
    assert_eq!(said, (Some(0), words, String::new()));
    let said = explain(&[
        "service=pg",
        "host=hosta",
        "time=Fri 19:00",
        "address=127.0.0.1",
    ]);
    let words = format!(
        "denied: no rule of allow applies\n  line {dba}: group = \"dba\" does not hold, or is not known\n  \
         line {host}: time = \"Mon-Fri 07:00-19:00\" does not hold, or is not known\n"
    );
    assert_eq!(said, (Some(1), words, String::new()));
    let said = explain(&["service=pg", "group=dba", "address=192.0.2.7", "--json"]);
    let words = format!(
        "{{\"allowed\":false,\"line\":{denied},\"rule\":\"{{ address = \\\"192.0.2.0/24\\\" }}\"}}\n"
    );
    assert_eq!(said, (Some(1), words, String::new()));
    let (status, _, told) = explain(&["service=pgg", "host=hosta"]);
    assert_eq!(
        (status, told.as_str()),
        (
            Some(1),
            "cosadm: there is no [service.pgg]; did you mean \"pg\"?\n"
        )
    );
    let (status, _, told) = explain(&["service=pg", "hots=hosta"]);
    assert_eq!(status, Some(2));
    assert!(
        told.contains("unknown key \"hots\"; did you mean \"host\"?"),
        "{told}"
    );
    // It decides as the daemon does.
    let (why, said) = (
        unavailable(&d, &["up://hostb"]),
        explain(&["service=up", "host=hosta"]),
    );
    let line = line("192.0.2.7");
    assert!(why.contains(&format!("line {line} denies it")), "{why}");
    let words = format!("denied by line {line}: {{ address = \"127.0.0.0/8\" }}");
    assert_eq!(
        (said.0, said.1.lines().next()),
        (Some(1), Some(words.as_str()))
    );
    let (status, said, _) = explain(&["service=me", "user=root", "host=hosta"]);
    assert_eq!(status, Some(1));
    let words = "but denied: as = \"@caller\" does not make the caller root";
    assert!(said.contains(words), "{said}");
}

/// A `hostinfo` line is no service, and neither are a subsystem and a command.
#[test]
fn nothing_becomes_a_service_by_its_name() {
    let d = start("");
    for name in ["hosta", "sftp", "exec", "true"] {
        unavailable(&d, &[&format!("{name}://hostb")]);
    }
    assert_eq!(must(&mut cos(&d, "services", &["hostb"])), b"");
}

#[test]
fn a_subsystem_is_the_service_of_its_name() {
    let d = start(&UPTIME.replace("args = [\"daily month=*\", \"-v\"]\n", ""));
    d.install_cosrsh();
    let out = run(&mut d.cosrsh(&["-s", "hostb", "report"]));
    assert_eq!(out.status.code(), Some(42), "{out:?}");
    assert!(text(&out.stdout).starts_with("[own]\n"), "{out:?}");
}

#[test]
fn inetd_gives_the_connection_as_both_descriptors() {
    let d = start(
        "[service.echo]\nkind = \"inetd\"\ncommand = [\"/bin/sh\", \"-c\", \"x=$(readlink /proc/$$/fd/0 \
         /proc/$$/fd/1); echo \\\"$x\\\" >&2; exec cat\"]\nas = \"@me\"\nallow = [ { host = \"hosta\" } ]\n",
    );
    let mut child = cos(&d, "open", &["echo://hostb"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = vec![b'x'; 3_000_000];
    let copy = sent.clone();
    let writer = thread::spawn(move || stdin.write_all(&copy).unwrap());
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(
        out.status.success() && out.stdout == sent,
        "{:?}",
        text(&out.stderr)
    );
    let ends: Vec<String> = text(&out.stderr).lines().map(str::to_owned).collect();
    assert!(
        ends[0].starts_with("socket:") && ends[0] == ends[1],
        "{ends:?}"
    );
}

#[test]
fn inetd_tells_who_calls() {
    let d = start(
        "[service.who]\nkind = \"inetd\"\ncommand = [\"/usr/bin/env\"]\nas = \"@me\"\n\
         allow = [ { host = \"hosta\" } ]\n",
    );
    let said = text(&must(&mut cos(&d, "open", &["-n", "who://hostb"])));
    let value = |name: &str| {
        let line = said
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name}: {said}")).to_owned()
    };
    assert_eq!(value("REMOTE_ADDR"), "127.0.0.1");
    assert_eq!(value("TCPREMOTEIP"), "127.0.0.1");
    assert_ne!(value("REMOTE_PORT").parse::<u16>().unwrap(), 0);
    assert_eq!(
        (value("COS_HOST").as_str(), value("COS_SERVICE").as_str()),
        ("hosta", "who")
    );
}

/// A server that accepts from its descriptor 0 and answers with its process ID and what it got.
const ACCEPTING: &str = "import os, socket
s = socket.socket(fileno=0)
while True:
    c, _ = s.accept()
    got = b''
    while more := c.recv(4096):
        got += more
    c.sendall(b'%d %s' % (os.getpid(), got))
    c.close()
    if got == b'end':
        break
";

#[test]
fn inetd_with_wait_hands_all_connections_to_one_process() {
    let d = start("");
    fs::write(d.folder.path("server.py"), ACCEPTING).unwrap();
    let service = format!(
        "[service.one]\nkind = \"inetd\"\nwait = true\ncommand = [\"/usr/bin/python3\", \"{}\"]\n\
         as = \"{}\"\nallow = [ {{ host = \"hosta\" }} ]\n",
        d.folder.path("server.py").display(),
        me()
    );
    append(&d.server().join("cosserver.toml"), &service);
    d.signal(nix::sys::signal::Signal::SIGHUP);
    d.log.wait("reloaded");
    let talk = |input: &str| {
        let out = with_input(cos(&d, "open", &["one://hostb"]), input.as_bytes());
        assert!(out.status.success(), "{out:?}\n{}", d.log_text());
        let said = text(&out.stdout);
        let (pid, rest) = said.split_once(' ').unwrap();
        assert_eq!(rest, input);
        pid.to_owned()
    };
    let first = talk("a");
    assert_eq!(talk("b"), first, "one process serves both");
    assert_eq!(talk("end"), first);
    d.log.wait("ended service=one status=0");
    // It has ended: the next connection starts it again.
    let second = talk("c");
    assert_ne!(second, first);
    // A change of its settings starts another program, and its removal ends it.
    let file = d.server().join("cosserver.toml");
    let settings = fs::read_to_string(&file).unwrap();
    let reload = |text: &str| {
        let from = d.log.all().len();
        fs::write(&file, text).unwrap();
        d.signal(nix::sys::signal::Signal::SIGHUP);
        d.log.wait_from(from, |l| l == "reloaded");
        from
    };
    reload(&settings.replace("server.py\"]", "server.py\", \"x\"]"));
    let third = talk("d");
    assert_ne!(third, second);
    let from = reload(settings.split("[service.one]").next().unwrap());
    d.log.wait_from(from, |l| {
        l.starts_with("ended service=one status=signal-15")
    });
}

/// A backend that answers each connection with what it got, at its end, in upper case.
fn upper(listener: UnixListener) {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut got = Vec::new();
                stream.read_to_end(&mut got).unwrap();
                stream.write_all(&got.to_ascii_uppercase()).unwrap();
            });
        }
    });
}

fn forward(name: &str, to: &str) -> String {
    format!(
        "[service.{name}]\nkind = \"forward\"\nto = \"{to}\"\nas = \"@me\"\n\
         allow = [ {{ host = \"hosta\" }} ]\n"
    )
}

fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    out
}

#[test]
fn forward_joins_the_streams_to_a_unix_socket() {
    let d = start(&forward("up", "unix:@D/up"));
    // It is not there yet: the service is unavailable, and the log says why.
    let why = unavailable(&d, &["up://hostb"]);
    assert!(why.contains("/up: No such file or directory"), "{why}");
    upper(UnixListener::bind(d.folder.path("up")).unwrap());
    let large = vec![b'a'; 5_000_000];
    for input in [&b""[..], b"hello", &large] {
        let out = with_input(cos(&d, "open", &["up://hostb"]), input);
        assert!(out.status.success(), "{out:?}\n{}", d.log_text());
        assert_eq!(out.stdout, input.to_ascii_uppercase());
    }
    d.log.wait("service=service command=up");
    // What has no listener any more is refused in the same way.
    fs::remove_file(d.folder.path("up")).unwrap();
    drop(UnixListener::bind(d.folder.path("up")).unwrap());
    let why = unavailable(&d, &["up://hostb"]);
    assert!(why.contains("/up: Connection refused"), "{why}");
}

#[test]
fn forward_joins_the_streams_to_a_tcp_port() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let d = start(&forward("tcp", &format!("tcp:127.0.0.1:{port}")));
    let backend = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        stream.write_all(b"answer").unwrap();
        got
    });
    let out = with_input(cos(&d, "open", &["tcp://hostb"]), b"question");
    assert_eq!(text(&out.stdout), "answer", "{out:?}");
    assert_eq!(backend.join().unwrap(), "question");
    let why = unavailable(&d, &["tcp://hostb"]);
    assert!(why.contains("Connection refused"), "{why}");
}

#[test]
fn the_host_of_a_backend_is_looked_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let d = start(
        &[
            forward("named", &format!("tcp:localhost:{port}")),
            forward("none", &format!("tcp:no-such-host.invalid:{port}")),
        ]
        .concat(),
    );
    let backend = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"answer").unwrap();
    });
    // If localhost is ::1 first, the next address is tried.
    let out = with_input(cos(&d, "open", &["named://hostb"]), b"");
    assert_eq!(text(&out.stdout), "answer", "{out:?}\n{}", d.log_text());
    backend.join().unwrap();
    let why = unavailable(&d, &["none://hostb"]);
    assert!(why.contains("no-such-host.invalid: "), "{why}");
}

/// Regression: clients that hung up held all attempts of a service until these had failed.
#[test]
fn an_attempt_ends_with_the_peer_that_waits_for_it() {
    let folder = daemon::Folder::new();
    let path = folder.path("full");
    let listener = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let d = start(&forward("full", &format!("unix:{}", path.display())));
    let mut child = cos(&d, "open", &["-n", "full://hostb"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The process that connects has only the socket.
    let monitor = d.pid();
    let connects = || {
        daemon::children(monitor).into_iter().any(|pid| {
            let open = fs::read_dir(format!("/proc/{pid}/fd"));
            open.is_ok_and(|open| open.count() == 1)
        })
    };
    daemon::look::until("it connects", connects);
    child.kill().unwrap();
    child.wait().unwrap();
    daemon::look::until("the attempt has ended", || !connects());
}

#[test]
fn a_backend_that_does_not_answer_is_unavailable() {
    // A queue of one connection, which is never accepted: a further one waits.
    let folder = daemon::Folder::new();
    let path = folder.path("full");
    let listener = UnixListener::bind(&path).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let d = start(&forward("full", &format!("unix:{}", path.display())));
    let why = unavailable(&d, &["full://hostb"]);
    assert!(why.contains("did not answer in time"), "{why}");
}

/// git's own daemon behind a service, and git before it.
#[test]
fn git_daemon_serves_what_is_cloned_through_a_listening_client() {
    if !have(&["git"]) {
        return;
    }
    let d = start("");
    let source = d.folder.path("source");
    let git = |words: &[&str]| {
        let mut command = tool(&d, "git");
        command
            .args(["-c", "user.name=x", "-c", "user.email=x@y"])
            .args(words);
        command.env("HOME", &d.folder.0);
        must(&mut command)
    };
    let path = source.to_str().unwrap();
    git(&["init", "-q", path]);
    fs::write(source.join("file"), "x".repeat(1_000_000)).unwrap();
    git(&["-C", path, "add", "."]);
    git(&["-C", path, "commit", "-q", "-m", "one"]);
    let program = on_path("git").unwrap();
    let service = format!(
        "[service.git]\nkind = \"inetd\"\nas = \"{}\"\nallow = [ {{ host = \"hosta\" }} ]\n\
         command = [\"{}\", \"-c\", \"safe.directory=*\", \"daemon\", \"--inetd\", \
         \"--export-all\", \"--base-path={}\"]\n",
        me(),
        program.display(),
        d.folder.0.display()
    );
    append(&d.server().join("cosserver.toml"), &service);
    d.signal(nix::sys::signal::Signal::SIGHUP);
    d.log.wait("reloaded");
    let listening = Listening::start(&d, "127.0.0.1:0", "git://hostb");
    let url = format!("git://{}/source", listening.at);
    let copy = d.folder.path("copy");
    git(&["clone", "-q", &url, copy.to_str().unwrap()]);
    let same = fs::read(copy.join("file")).unwrap() == fs::read(source.join("file")).unwrap();
    assert!(same, "what was cloned differs");
    d.log.wait("service=service command=git");
}

/// sftp asks for its subsystem, which is a service that runs the real sftp-server.
#[test]
fn sftp_uses_the_service_of_its_subsystems_name() {
    let server = cosserver::config::subsystems::USUAL;
    let server = server.iter().find(|path| Path::new(path).exists());
    let Some(server) = server.filter(|_| have(&["sftp"])) else {
        return;
    };
    let d = start(&format!(
        "[service.SFTP]\nkind = \"command\"\ncommand = [\"{server}\", \"-R\"]\nas = \"@me\"\n\
         allow = [ {{ host = \"hosta\" }} ]\n"
    ));
    d.install_cosrsh();
    let (batch, file) = (d.folder.path("batch"), d.folder.path("file"));
    fs::write(&file, "content").unwrap();
    let sftp = |line: String| {
        fs::write(&batch, line).unwrap();
        let mut command = tool(&d, "sftp");
        command
            .args(["-q", "-S", "cosrsh", "-b"])
            .arg(&batch)
            .arg("hostb");
        run(&mut command)
    };
    let copy = d.folder.path("copy");
    let got = sftp(format!("get {} {}\n", file.display(), copy.display()));
    assert!(got.status.success(), "{got:?}\n{}", d.log_text());
    assert_eq!(fs::read(&copy).unwrap(), b"content");
    // The service's own words count: it is read-only.
    let put = sftp(format!(
        "put {} {}\n",
        copy.display(),
        d.folder.path("new").display()
    ));
    assert!(
        !put.status.success() && !d.folder.path("new").exists(),
        "{put:?}"
    );
}

/// redis-server at a Unix socket behind a service, and its own clients before it.
#[test]
fn redis_answers_through_a_listening_client() {
    if !daemon::long() {
        return daemon::report_skipped("for make soak");
    }
    if on_path("redis-server").is_none() || on_path("redis-benchmark").is_none() {
        return daemon::report_skipped("no redis-server: apt-get install redis installs it");
    }
    let d = start(&forward("redis", "unix:@D/redis"));
    let socket = d.folder.path("redis");
    let mut server = Command::new("redis-server");
    server
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket);
    server.current_dir(&d.folder.0).stdout(Stdio::null());
    let mut server = server.spawn().unwrap();
    daemon::look::until("redis answers", || UnixStream::connect(&socket).is_ok());
    let listening = Listening::start(&d, "127.0.0.1:0", "redis://hostb");
    let (host, port) = listening.at.rsplit_once(':').unwrap();
    let to = ["-h", host, "-p", port];
    must(Command::new("redis-cli").args(to).args(["set", "a", "1"]));
    let got = must(Command::new("redis-cli").args(to).args(["get", "a"]));
    assert_eq!(got, b"1\n");
    let words = ["-n", "20000", "-c", "8", "-P", "16", "-q", "-t", "set,get"];
    let said = text(&must(Command::new("redis-benchmark").args(to).args(words)));
    assert!(said.contains("GET: "), "{said}");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(server.id() as i32),
        nix::sys::signal::Signal::SIGTERM,
    )
    .unwrap();
    server.wait().unwrap();
}

/// Its session was over only when the grace for processes had passed, and counted until then.
#[test]
fn a_backends_session_that_is_hung_up_ends_at_once() {
    let d = start(&forward("up", "unix:@D/up"));
    upper(UnixListener::bind(d.folder.path("up")).unwrap());
    for kills in [true, false] {
        let from = d.log.all().len();
        let mut child = cos(&d, "open", &["up://hostb"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let line = d.log.wait_from(from, |l| l.starts_with("exec session=")).1;
        let id = line.split(['=', ' ']).nth(2).unwrap().to_owned();
        if kills {
            must(
                Command::new(daemon::COSADM)
                    .arg("-C")
                    .arg(d.server())
                    .args(["kill", &id]),
            );
        } else {
            child.kill().unwrap();
        }
        let ended = format!("end session={id} ");
        d.log.wait_from(from, |l| l.starts_with(&ended));
        child.wait().unwrap();
    }
}

/// Each connection has its own monitor, which connects to the backend, and ends with the session.
#[test]
fn under_inetd_each_kind_is_served() {
    let services = [
        forward("up", "unix:@D/up"),
        UPTIME.to_owned(),
        "[service.one]\nkind = \"inetd\"\nwait = true\ncommand = [\"/bin/cat\"]\nas = \"@me\"\n\
         allow = [ { host = \"hosta\" } ]\n"
            .to_owned(),
    ];
    let d = Daemon::inetd_in(folder_with(&services.concat()), &[]);
    upper(UnixListener::bind(d.folder.path("up")).unwrap());
    let out = with_input(cos(&d, "open", &["up://hostb"]), b"hello");
    assert_eq!(
        (out.status.code(), &out.stdout[..]),
        (Some(0), &b"HELLO"[..]),
        "{out:?}"
    );
    assert_eq!(open(&d, &["report://hostb"]).status.code(), Some(42));
    unavailable(&d, &["absent://hostb"]);
    let why = unavailable(&d, &["one://hostb"]);
    assert!(
        why.contains("wait = true needs a daemon that stands by itself"),
        "{why}"
    );
}

/// A client that listens, until it is dropped.
struct Listening {
    child: Child,
    at: String,
    lines: Lines,
}

impl Listening {
    fn start(d: &Daemon, at: &str, url: &str) -> Self {
        let mut child = cos(d, "open", &["-L", at, url])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Lines::collect(child.stderr.take().unwrap());
        let line = lines.wait("cos: listening on ");
        let at = line.rsplit(' ').next().unwrap().to_owned();
        Self { child, at, lines }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(128 + 15));
    }
}

#[test]
fn each_accepted_connection_opens_the_service() {
    let d = start(&forward("up", "unix:@D/up"));
    upper(UnixListener::bind(d.folder.path("up")).unwrap());
    let listening = Listening::start(&d, "127.0.0.1:0", "up://hostb");
    let talk = |input: &str| {
        let mut stream = TcpStream::connect(&listening.at).unwrap();
        stream.write_all(input.as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = String::new();
        stream.read_to_string(&mut got).unwrap();
        got
    };
    thread::scope(|scope| {
        for n in 0..8 {
            scope.spawn(move || {
                let sent = format!("connection {n}").repeat(10_000);
                assert_eq!(talk(&sent), sent.to_uppercase());
            });
        }
    });
    d.log.said_times("exec session=", 8);
    let path = d.folder.path("here");
    let unix = Listening::start(&d, &format!("unix:{}", path.display()), "up://hostb");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"by a file").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut got = String::new();
    stream.read_to_string(&mut got).unwrap();
    assert_eq!(got, "BY A FILE");
    drop(unix);
    assert!(!path.exists());
}

/// Regression: the process in the background took its socket for another process's, and left it.
#[test]
fn a_client_that_listens_in_the_background_removes_its_socket() {
    let d = start(&forward("up", "unix:@D/up"));
    let path = d.folder.path("here");
    let at = format!("unix:{}", path.display());
    // Its outputs end, although it goes on.
    must(&mut cos(&d, "open", &["-f", "-L", &at, "up://hostb"]));
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        text(&line).contains(&at)
    };
    let all = fs::read_dir("/proc").unwrap();
    let mut pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let pid = nix::unistd::Pid::from_raw(pids.find(is_it).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    daemon::look::until("the socket is removed", || !path.exists());
}

/// Another user of this machine must not use a caller's connection.
#[test]
fn another_users_connection_is_not_accepted() {
    if !daemon::needs_root() {
        return;
    }
    let d = start(&forward("up", "unix:@D/up"));
    upper(UnixListener::bind(d.folder.path("up")).unwrap());
    let listening = Listening::start(&d, "127.0.0.1:0", "up://hostb");
    let port = listening.at.rsplit(':').next().unwrap();
    let talk = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; echo x >&3; timeout 5 cat <&3");
    let said = |user: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(user).args(["bash", "-c", &talk]);
        text(&run(&mut command).stdout)
    };
    assert_eq!(
        said(&["--reuid=65534", "--regid=65534", "--clear-groups"]),
        ""
    );
    listening
        .lines
        .wait("a connection of user 65534 from 127.0.0.1 is not accepted");
    assert_eq!(d.log.count("exec session="), 0);
}
