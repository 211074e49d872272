//! No standalone daemon: each inetd, really started with its lines from `etc/`, and systemd's
//! sockets.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;

use crate::machine::{Machine, of_systemd, tool};

/// The project's example lines, as installed.
const EXAMPLES: &str = "/usr/local/share/doc/cosserver/examples";

/// Starts a machine with this inetd's files; `None` if it was not unpacked.
fn with(program: &str) -> Option<Machine> {
    tool(program)?;
    let machine = Machine::with_cosserver("none")?;
    machine.install_tools();
    Some(machine)
}

/// The same with the project's line in `/etc/services`, which names the port.
fn with_service(program: &str) -> Option<Machine> {
    let machine = with(program)?;
    machine.must(&format!("cat {EXAMPLES}/services >>/etc/services"));
    Some(machine)
}

#[test]
fn openbsd_inetd_serves() {
    let Some(machine) = with_service("usr/sbin/inetd") else {
        return;
    };
    machine.must(&format!(
        "sed 's/^#cos/cos/' {EXAMPLES}/inetd.conf >/etc/inetd.conf"
    ));
    machine.must("/usr/sbin/inetd");
    both_families(&machine);
    superserver(&machine);
}

#[test]
fn inetutils_inetd_serves() {
    let Some(machine) = with_service("usr/sbin/inetutils-inetd") else {
        return;
    };
    machine.must(&format!("cat {EXAMPLES}/inetd.conf >/etc/inetd.conf"));
    machine.must("/usr/sbin/inetutils-inetd");
    superserver(&machine);
}

/// Its one line for both families.
#[test]
fn inetutils_inetd_serves_both_families_by_one_line() {
    let Some(machine) = with_service("usr/sbin/inetutils-inetd") else {
        return;
    };
    machine.must(&format!(
        "sed -n 's/^#cos/cos/p' {EXAMPLES}/inetd.conf >/etc/inetd.conf"
    ));
    machine.must("/usr/sbin/inetutils-inetd");
    both_families(&machine);
}

#[test]
fn xinetd_serves() {
    let Some(machine) = with("usr/sbin/xinetd") else {
        return;
    };
    // Its example names the port itself.
    assert!(
        !machine
            .sh("grep -q ^cosserver /etc/services")
            .status
            .success()
    );
    machine.must(&format!(
        "rm -f /etc/xinetd.d/*; cat {EXAMPLES}/xinetd >/etc/xinetd.d/cosserver"
    ));
    machine.must("/usr/sbin/xinetd -f /etc/xinetd.conf");
    both_families(&machine);
    superserver(&machine);
}

fn both_families(machine: &Machine) {
    for flag in ["-4", "-6"] {
        let command = format!("COS_CONFIG_DIR=/root/A cosrsh {flag} hostb true");
        machine.until(flag, |m| m.sh(&command).status.success());
    }
}

/// Checks that apply to every one of them.
fn superserver(machine: &Machine) {
    let log = machine.syslog();
    machine.until("it listens", |m| m.cosrsh("true").status.success());
    machine.serves();
    log.wait("end session=0 ");
    nothing_is_left(machine);
    // Concurrently.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert!(machine.cosrsh("true").status.success()));
        }
    });
    // A client that vanishes ends all its processes.
    let mut client = machine
        .shell("echo $$; COS_CONFIG_DIR=/root/A exec cosrsh hostb 'echo on; exec sleep 1000'")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(client.stdout.take().unwrap()).lines();
    let pid = said.next().unwrap().unwrap();
    assert_eq!(said.next().unwrap().unwrap(), "on");
    machine.must(&format!("kill -KILL {pid}"));
    client.wait().unwrap();
    log.wait("how=client-gone");
    machine.until("its command is gone", |m| {
        m.running("sleep 1000").is_empty()
    });
    nothing_is_left(machine);
    // So does an unauthenticated peer, which gets no answer.
    let script = "import socket
s = socket.create_connection((\"127.0.0.1\", 9002))
s.sendall(b\"GET / HTTP/1.0\\r\\n\\r\\n\")
try: print(len(s.recv(100)))
except ConnectionResetError: print(0)";
    assert_eq!(machine.must(&format!("python3 -c '{script}'")), "0\n");
    log.wait("closed peer=127.0.0.1 cause=malformed");
    nothing_is_left(machine);
}

fn nothing_is_left(machine: &Machine) {
    machine.until("every daemon has ended", |m| {
        m.running("cosserver").is_empty()
    });
}

// ---- systemd ----

/// Starts a machine with systemd's own test program for its sockets.
fn with_systemd() -> Option<Machine> {
    of_systemd("systemd-socket-activate")?;
    let machine = Machine::with_cosserver("systemd")?;
    if !machine.path("/usr/bin/systemd-socket-activate").exists() {
        machine.install_tools();
    }
    Some(machine)
}

/// Returns the command that the unit starts, without optional flags.
fn exec_start(unit: &str) -> String {
    let text = std::fs::read_to_string(crate::machine::top().join("init/systemd").join(unit));
    let text = text.unwrap();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("ExecStart="))
        .unwrap();
    line.trim_start_matches('-').replace(" $COSSERVER_OPTS", "")
}

#[test]
fn systemds_socket_starts_the_daemon_with_the_first_caller() {
    let Some(machine) = with_systemd() else {
        return;
    };
    let log = machine.syslog();
    let line = exec_start("cosserver.service");
    let mut manager = machine
        .shell(&format!("exec systemd-socket-activate -l 9002 {line}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    machine.until("it listens", |m| m.cosrsh("true").status.success());
    both_families(&machine);
    machine.serves();
    log.wait("listening on [::]:9002");
    machine.must("kill $(cat /run/cosserver/cosserver.pid)");
    assert!(manager.wait().unwrap().success());
}

#[test]
fn systemds_socket_starts_a_daemon_for_each_caller() {
    let Some(machine) = with_systemd() else {
        return;
    };
    let line = exec_start("cosserver@.service");
    let mut manager = machine
        .shell(&format!(
            "exec systemd-socket-activate --accept --inetd -l 9002 {line}"
        ))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    machine.until("it listens", |m| m.cosrsh("true").status.success());
    both_families(&machine);
    machine.serves();
    machine.until("every daemon has ended", |m| {
        let all = m.running("cosserver");
        all.iter().all(|line| line.contains("socket-activate"))
    });
    manager.kill().unwrap();
    manager.wait().unwrap();
}

/// systemd gives such a service the connection as descriptor 3 as well: client and daemon see the
/// end of the connection all the same.
#[test]
fn a_second_descriptor_of_the_connection_holds_nothing_open() {
    let Some(machine) = Machine::with_cosserver("none") else {
        return;
    };
    let line = exec_start("cosserver@.service");
    let accept = format!(
        "import os, socket
s = socket.create_server((\"127.0.0.1\", 9002))
print(1, flush=True)
c, _ = s.accept()
os.dup2(c.fileno(), 0)
os.dup2(c.fileno(), 3)
os.environ.update(LISTEN_FDS=\"1\", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=\"connection\")
line = \"{line}\".split()
os.execv(line[0], line)"
    );
    let mut daemon = machine
        .shell(&format!("exec python3 -c '{accept}'"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    daemon
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0])
        .unwrap();
    let mut client = machine
        .shell("COS_CONFIG_DIR=/root/A exec cosrsh -4 hostb cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    client.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let out = client.wait_with_output().unwrap();
    assert_eq!((&*out.stdout, out.status.code()), (&b"in\n"[..], Some(0)));
    assert!(daemon.wait().unwrap().success());
}
