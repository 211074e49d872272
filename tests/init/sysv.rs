//! The SysV script: what it does, and the exit statuses of the Linux Standard Base.

use std::fs;

use crate::machine::Machine;

const SCRIPT: &str = "/etc/init.d/cosserver";

fn script(machine: &Machine, action: &str, status: i32) -> String {
    machine.ends(status, &format!("{SCRIPT} {action}"))
}

/// Starts a machine with the script, and, if not `whole`, without the distributions' additions.
fn booted(whole: bool) -> Option<Machine> {
    let machine = Machine::with_cosserver("sysv")?;
    if !whole {
        machine.must("rm -rf /lib/lsb; rm -f $(command -v start-stop-daemon setsid ps)");
    }
    Some(machine)
}

#[test]
fn it_starts_and_stops_with_the_statuses_of_the_standard() {
    std::thread::scope(|scope| {
        for whole in [true, false] {
            scope.spawn(move || starts_and_stops(whole));
        }
    });
}

fn starts_and_stops(whole: bool) {
    let Some(machine) = booted(whole) else { return };
    let call = |action: &str, status: i32| script(&machine, action, status);
    let log = machine.syslog();
    // Nothing runs.
    call("status", 3);
    call("stop", 0);
    call("reload", 7);
    call("force-reload", 7);
    call("try-restart", 0);
    call("status", 3);
    // It starts, once.
    call("start", 0);
    call("status", 0);
    machine.serves();
    let first = machine.pid();
    assert!(call("start", 0).contains("runs already"));
    assert_eq!(machine.pid(), first);
    // Reloaded, by the same process.
    let mut lines = 0;
    for action in ["reload", "force-reload"] {
        call(action, 0);
        let wanted = format!("cosserver[{first}]: reloaded");
        lines = log.wait_from(lines, |l| l.ends_with(&wanted)).0 + 1;
    }
    assert_eq!(machine.pid(), first);
    // Another process.
    call("restart", 0);
    let second = machine.pid();
    assert_ne!(first, second);
    call("try-restart", 0);
    assert_ne!(machine.pid(), second);
    machine.serves();
    // Stopped, with all processes.
    call("stop", 0);
    call("status", 3);
    // Its guard ends a moment later.
    machine.until("it is gone", |m| m.running("cosserver").is_empty());
    call("restart", 0);
    machine.serves();
    call("stop", 0);
}

/// Regression: without a syslog all log lines were lost without a message.
#[test]
fn missing_log_is_reported() {
    let Some(machine) = Machine::with_cosserver("none") else {
        return;
    };
    let why = "no /dev/log: the log goes nowhere; start syslog, or use -e";
    let warned = format!("cosserver: warning: {why}\n");
    assert!(machine.must("cosserver -t").contains(&warned));
    assert!(!machine.must("cosserver -t -e").contains("/dev/log"));
    let note = "no /dev/log: without -e the daemon's log goes nowhere; start syslog\n";
    let checks = || {
        let told = machine.must("cosadm check");
        assert!(told.contains(&format!("note     log: {note}")), "{told}");
    };
    checks();
    assert!(machine.must("cosserver").contains(&warned));
    checks();
    // A syslog that starts later gets the log from then on.
    machine.serves();
    let log = machine.syslog();
    machine.until("the log is written", |m| {
        m.serves();
        log.count("exec session=") > 0
    });
    log.wait("cosserver: dropped lines=");
    assert!(
        !machine
            .must("cosadm check; cosserver -t")
            .contains("/dev/log")
    );
}

#[test]
fn stale_pid_file_is_detected() {
    let Some(machine) = booted(true) else { return };
    let call = |action: &str, status: i32| script(&machine, action, status);
    let file = machine.path("/run/cosserver/cosserver.pid");
    call("start", 0);
    let pid = machine.pid();
    machine.must(&format!("kill -KILL {pid}"));
    machine.until("it is dead", |m| m.running("cosserver").is_empty());
    // The daemon is dead, and the file exists.
    assert!(file.exists());
    assert!(call("status", 1).contains("pid file"));
    call("try-restart", 0);
    call("reload", 7);
    call("stop", 0);
    assert!(!file.exists());
    call("status", 3);
    // The process ID of another program, which is not touched.
    let mut other = machine.shell("exec sleep 1000").spawn().unwrap();
    machine.until("it runs", |m| !m.running("sleep 1000").is_empty());
    let line = &machine.running("sleep 1000")[0];
    let number = line.split(' ').next().unwrap();
    fs::write(&file, format!("{number}\n")).unwrap();
    call("status", 1);
    call("reload", 7);
    call("stop", 0);
    assert!(
        other.try_wait().unwrap().is_none(),
        "another's process was stopped"
    );
    fs::write(&file, format!("{number}\n")).unwrap();
    call("start", 0);
    assert_ne!(machine.pid().to_string(), number);
    call("stop", 0);
    // A process that has ended but was not reaped: in a container, forever.
    let dead = "cp /bin/true /run/cosserver/cosserver
        /run/cosserver/cosserver & echo $! >/run/cosserver/cosserver.pid; exec sleep 2000";
    let mut parent = machine.shell(dead).spawn().unwrap();
    machine.until("it has ended", |m| {
        let number = fs::read_to_string(&file).unwrap_or_default();
        let state = format!("grep -q '^State:.Z' /proc/{}/status", number.trim());
        !m.running("sleep 2000").is_empty() && m.shell(&state).status().unwrap().success()
    });
    call("status", 1);
    call("start", 0);
    call("status", 0);
    call("stop", 0);
    parent.kill().unwrap();
    parent.wait().unwrap();
    // No number at all: the status is unknown.
    for text in ["", "x\n", "-1\n", "12 34\n"] {
        fs::write(&file, text).unwrap();
        call("status", 4);
    }
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn what_cannot_be_done_has_a_status_of_its_own() {
    let Some(machine) = booted(true) else { return };
    let call = |action: &str, status: i32| script(&machine, action, status);
    for wrong in ["", "walk"] {
        assert!(call(wrong, 2).contains("usage: "));
    }
    call("start", 0);
    let pid = machine.pid();
    // Another user may query the status, and nothing else.
    for (action, status) in [("status", 0), ("start", 4), ("stop", 4), ("reload", 4)] {
        let command = "setpriv --reuid=65534 --regid=65534 --clear-groups";
        machine.ends(status, &format!("{command} {SCRIPT} {action}"));
    }
    // Invalid settings do not stop a running daemon.
    let toml = machine.path("/etc/cosserver/cosserver.toml");
    let right = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, format!("lisen = []\n{right}")).unwrap();
    for action in ["reload", "restart", "try-restart"] {
        assert!(call(action, 6).contains("listen"), "{action}");
    }
    assert_eq!(machine.pid(), pid);
    machine.serves();
    // Nor do valid settings that could not be served: there is no file for PAM.
    machine.must("rm -f /etc/pam.d/cosserver");
    let gui = "[gui.x]\ncommand = [\"/bin/true\"]\nusers = [\"root\"]\n";
    fs::write(&toml, format!("{right}{gui}")).unwrap();
    for action in ["reload", "restart", "try-restart"] {
        assert!(call(action, 6).contains("/etc/pam.d/cosserver"), "{action}");
    }
    assert_eq!(machine.pid(), pid);
    machine.serves();
    fs::write(&toml, format!("lisen = []\n{right}")).unwrap();
    call("stop", 0);
    call("start", 6);
    // No settings, or no program.
    fs::remove_file(&toml).unwrap();
    assert!(call("start", 6).contains("cosadm init"));
    fs::write(&toml, right).unwrap();
    // An invalid line of the host table does not prevent a start.
    let hosts = machine.path("/etc/cosserver/hostinfo");
    let table = fs::read_to_string(&hosts).unwrap();
    fs::write(&hosts, format!("{table}? ?\n")).unwrap();
    call("start", 0);
    assert!(call("restart", 6).contains("hostinfo"));
    machine.serves();
    fs::write(&hosts, table).unwrap();
    call("stop", 0);
    // Another program has the port.
    let other = "import socket as s, signal; p = s.socket(); \
                 p.setsockopt(1, 2, 1); p.bind((\"127.0.0.1\", 9002)); \
                 p.listen(); print(1, flush=True); signal.pause()";
    let mut other = machine
        .shell(&format!("exec python3 -c '{other}'"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    assert!(call("start", 1).contains("in use"));
    other.kill().unwrap();
    other.wait().unwrap();
    machine.must("mv /usr/local/sbin/cosserver /usr/local/sbin/away");
    call("start", 5);
    call("restart", 5);
    call("status", 3);
}

/// A command may still run for a while; it must not wait for itself.
#[test]
fn a_command_of_the_daemons_can_restart_it() {
    let Some(machine) = booted(true) else { return };
    script(&machine, "start", 0);
    let file = machine.path("/run/cosserver/cosserver.pid");
    // Nothing in the environment identifies the command: service(8) empties it.
    for start in ["", "env -i "] {
        let first = machine.pid();
        let out = machine.cosrsh(&format!("{start}{SCRIPT} restart"));
        assert_eq!(out.status.code(), Some(0), "{out:?}");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(said.contains("when this command has ended"), "{said}");
        machine.until("another has started", |_| {
            fs::read_to_string(&file).is_ok_and(|t| t.trim().parse().is_ok_and(|p: i32| p != first))
        });
        machine.serves();
    }
    // A running command has its grace period.
    let mut waiting = machine
        .shell("COS_CONFIG_DIR=/root/A exec cosrsh hostb 'echo on; read x; echo $x'")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = std::io::BufReader::new(waiting.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    let mut stop = machine.shell(&format!("{SCRIPT} stop")).spawn().unwrap();
    machine.until("the port is closed", |m| {
        m.cosrsh("true").status.code() == Some(255)
    });
    assert!(stop.try_wait().unwrap().is_none(), "it does not wait");
    use std::io::Write;
    waiting.stdin.take().unwrap().write_all(b"late\n").unwrap();
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "on\nlate\n");
    assert!(waiting.wait().unwrap().success());
    assert!(stop.wait().unwrap().success());
}
