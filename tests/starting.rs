//! How the daemon starts, and what it reports if it cannot.
#![allow(
    unsafe_code,
    clippy::undocumented_unsafe_blocks,
    reason = "a test panics where something is not as it should be, and starts programs"
)]

use crate::daemon;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use daemon::{COSADM, Daemon, run};
use nix::sys::signal::Signal;

/// Returns what the daemon sends to a peer whose connection inetd made its standard input, output
/// and error.
fn by_inetd(settings: &std::path::Path, flags: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut raw_connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let connection = OwnedFd::from(listener.accept().unwrap().0);
    let copy = || Stdio::from(connection.try_clone().unwrap());
    let mut daemon = daemon::cosserver();
    daemon.args([flags, "-f"]).arg(settings);
    daemon.stdin(copy()).stdout(copy()).stderr(copy());
    let mut child = daemon.spawn().unwrap();
    drop((daemon, connection));
    let ended = child.wait().unwrap();
    assert!(!ended.success());
    let mut heard = String::new();
    raw_connection.read_to_string(&mut heard).unwrap();
    heard
}

/// Regression: a missing file or a readable key was reported to the connected peer.
#[test]
fn fault_under_inetd_is_not_sent_to_the_peer() {
    let folder = daemon::configured("", "");
    let toml = folder.path("S/cosserver.toml");
    for flags in ["-i", "-ie"] {
        assert_eq!(by_inetd(&folder.path("S/missing.toml"), flags), "");
    }
    let key = folder.path("S/host.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(by_inetd(&toml, "-i"), "");
    assert_eq!(by_inetd(&toml, "-iz"), "");
}

fn said(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Regression: a file name without a directory after -f was "an empty path".
#[test]
fn settings_file_name_is_relative_to_the_working_directory() {
    let folder = daemon::configured("daemon.user = \"nobody\"\n", "");
    let mut command = daemon::cosserver();
    command.current_dir(folder.path("S"));
    let out = run(command.args(["-t", "-e", "-f", "cosserver.toml"]));
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
}

#[test]
fn without_a_home_f_is_named() {
    if daemon::is_root() {
        return; // root's settings are the system's
    }
    for home in ["", "relative"] {
        let mut command = daemon::cosserver();
        command.env_remove("XDG_CONFIG_HOME").env("HOME", home);
        let out = run(command.arg("-t"));
        assert!(said(&out).contains("with -f FILE"), "{out:?}");
    }
}

/// Regression: -t reported no error, and the start said that root does not exist.
#[test]
fn root_is_no_account_for_gate_and_relay() {
    if !daemon::needs_root() {
        return;
    }
    let folder = daemon::configured("daemon.user = \"root\"\n", "");
    for flags in [["-t", "-e"], ["-D", "-e"]] {
        let mut command = daemon::cosserver();
        command.args(flags).arg("-f");
        let out = run(command.arg(folder.path("S/cosserver.toml")));
        assert_eq!(out.status.code(), Some(1));
        assert!(said(&out).contains("that is root"), "{out:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_named() {
    let folder = daemon::configured("", "");
    for flag in ["-T", "--help", "-V"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut command = daemon::cosserver();
        command
            .arg(flag)
            .arg("-f")
            .arg(folder.path("S/cosserver.toml"));
        let out = command.stdout(full).output().unwrap();
        assert_eq!(out.status.code(), Some(1), "{flag}");
        assert!(
            said(&out).contains("cosserver: standard output: "),
            "{flag}"
        );
    }
}

/// Regression: a second daemon took over the first one's pid file, and removed it.
#[test]
fn second_daemon_does_not_change_the_pid_file() {
    let first = Daemon::start();
    let file = first.server().join("run/cosserver.pid");
    let pid = fs::read_to_string(&file).unwrap();
    assert_eq!(pid, format!("{}\n", first.pid()));
    let mut command = daemon::cosserver();
    command.args(["-D", "-e", "-p", "0", "-f"]);
    command.arg(first.server().join("cosserver.toml"));
    command.stderr(Stdio::piped());
    let mut second = command.spawn().unwrap();
    let log = daemon::Lines::collect(second.stderr.take().unwrap());
    log.wait("no-pid-file file=");
    log.wait("listening on ");
    assert_eq!(fs::read_to_string(&file).unwrap(), pid);
    let number = i32::try_from(second.id()).unwrap();
    cosserver::sys::process::signal(nix::unistd::Pid::from_raw(number), Signal::SIGTERM);
    assert!(second.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&file).unwrap(), pid);
    first.signal(Signal::SIGTERM);
    first.log.wait("stopped");
    daemon::until("the pid file is gone", || !file.exists());
}

/// Regression: a daemon that started while another was still ending never got the pid file and the
/// sockets.
#[test]
fn second_daemon_acquires_control_socket_after_first_exits() {
    let mut first = Daemon::start();
    let (folder, toml) = (
        first.server().join("run"),
        first.server().join("cosserver.toml"),
    );
    let mut command = daemon::cosserver();
    command.args(["-D", "-e", "-p", "0", "-f"]).arg(toml);
    command.stderr(Stdio::piped());
    let mut second = command.spawn().unwrap();
    let log = daemon::Lines::collect(second.stderr.take().unwrap());
    log.wait("no-pid-file file=");
    log.wait("listening on ");
    let number = i32::try_from(second.id()).unwrap();
    // The sockets are the first one's until it ends.
    let server = first.server();
    let who = || {
        let mut command = Command::new(COSADM);
        run(command.arg("-C").arg(&server).args(["who", "--json"]))
    };
    assert!(who().status.success());
    first.signal(Signal::SIGTERM);
    first.child.wait().unwrap();
    log.wait("claimed file=");
    let pid = fs::read_to_string(folder.join("cosserver.pid")).unwrap();
    assert_eq!(pid, format!("{number}\n"));
    assert!(folder.join("control").exists() && folder.join("sign").exists());
    assert!(who().status.success(), "{:?}", who());
    // It is logged once, however often it was tried.
    log.said_times("no-pid-file", 1);
    cosserver::sys::process::signal(nix::unistd::Pid::from_raw(number), Signal::SIGTERM);
    assert!(second.wait().unwrap().success());
    assert!(!folder.join("cosserver.pid").exists());
}

/// Adds the descriptor of a lock or a pipe of the daemon's starter, with a high number.
fn with_number_9(mut command: Command, write: &OwnedFd) -> Command {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    let write = write.as_raw_fd();
    let inherit = move || match unsafe { libc::dup2(write, 9) } {
        9 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    unsafe { command.pre_exec(inherit) };
    command
}

/// Waits for the end of a pipe whose only other writers are processes of a daemon.
fn is_at_its_end(read: OwnedFd) {
    use std::os::fd::AsFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let patience = PollTimeout::try_from(daemon::PATIENCE).unwrap();
    let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, patience), Ok(1), "somebody has it open");
    assert_eq!(fs::File::from(read).read(&mut [0]).unwrap(), 0);
}

/// Regression: the monitor kept its starter's descriptors open as long as it ran: a lock (`flock -n
/// 9 cosserver 9>lock`) stayed locked, and a pipe's reader waited forever.
#[test]
fn monitor_closes_inherited_descriptors_at_start() {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let command = with_number_9(daemon::cosserver(), &write);
    let d = Daemon::start_by(command, daemon::configured("", ""), &[]);
    drop(write);
    is_at_its_end(read);
    d.says(0, &["true"]);
    // Also in the background: the open port shows that it serves.
    let folder = daemon::configured("", "");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut command = with_number_9(daemon::cosserver(), &write);
    command
        .args(["-p", "0", "-f"])
        .arg(folder.path("S/cosserver.toml"));
    assert!(run(&mut command).status.success());
    drop((command, write));
    is_at_its_end(read);
    let pid = fs::read_to_string(folder.path("S/run/cosserver.pid")).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    cosserver::sys::process::signal(pid, Signal::SIGTERM);
    daemon::until("it has ended", || {
        !folder.path("S/run/cosserver.pid").exists()
    });
}

/// The same if inetd starts a daemon for a connection, which stays.
#[test]
fn under_inetd_inherited_descriptors_are_closed() {
    let folder = daemon::configured("", "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let connection = OwnedFd::from(listener.accept().unwrap().0);
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    let mut command = with_number_9(daemon::cosserver(), &write);
    command
        .args(["-i", "-f"])
        .arg(folder.path("S/cosserver.toml"));
    command.stdin(Stdio::from(connection)).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop((command, write));
    is_at_its_end(read);
    // It is still running, and answers.

    peer.write_all(&daemon::hostile::hello()).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap(), 1);
    drop(peer);
    child.wait().unwrap();
}

/// Another program has the port: the daemon reports that and ends, and no client mistakes that
/// program for the host.
#[test]
fn foreign_listener_on_the_port_stops_the_daemon_and_is_not_the_host() {
    let d = Daemon::start();
    let squatter = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = squatter.local_addr().unwrap().port();
    let mut command = daemon::cosserver();
    command.args(["-D", "-e", "-p", &port.to_string(), "-f"]);
    let out = run(command.arg(d.server().join("cosserver.toml")));
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    let port = port.to_string();
    let words = ["listening on 127.0.0.1", &port, "Address already in use"];
    assert!(
        words.iter().all(|word| said(&out).contains(word)),
        "{out:?}"
    );
    drop(squatter);
    // Another user's cosserver on that port has another key.
    let other = Daemon::start();
    let mut cos = Command::new(daemon::COS);
    cos.arg("-C").arg(d.client());
    let out = run(cos.args(["run", "-p", &other.port.to_string(), "hostb", "true"]));
    assert_eq!(out.status.code(), Some(255), "{out:?}");
    assert_eq!(other.log.count("exec session="), 0);
}

/// Regression: a new host key had no effect, without a message.
#[test]
fn another_host_key_at_a_sighup_takes_a_restart_and_the_log_says_so() {
    let d = Daemon::start();
    d.signal(Signal::SIGHUP);
    d.log.wait("reloaded");
    assert_eq!(d.log.count("key=host.key"), 0);
    fs::remove_file(d.server().join("host.key")).unwrap();
    daemon::must(Command::new(COSADM).arg("-C").arg(d.server()).arg("init"));
    d.signal(Signal::SIGHUP);
    d.log.wait("needs-restart key=host.key");
    assert_eq!(d.says(0, &["echo on"]), b"on\n");
}

/// Regression: -d logged nothing that -e does not.
#[test]
fn d_logs_every_step_of_a_request() {
    let d = Daemon::start_in(daemon::configured("", ""), &["-d"]);
    d.says(0, &["true"]);
    for step in ["hello", "opened", "proven", "granted"] {
        d.log.wait(&format!("{step} connection="));
    }
    let plain = Daemon::start();
    plain.says(0, &["true"]);
    plain.log.wait("end session=");
    assert_eq!(plain.log.count("proven connection="), 0);
}
