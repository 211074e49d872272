//! runit and OpenRC, really started.

use std::fs;
use std::process::Stdio;

use crate::machine::{Machine, tool, tools};

#[test]
fn runit_keeps_it_running() {
    if tool("usr/bin/runsv").is_none() {
        return;
    }
    let Some(machine) = Machine::with_cosserver("runit") else {
        return;
    };
    machine.install_tools();
    // Not set up: reported once, and not retried every second forever.
    machine.must("mv /etc/cosserver /etc/away");
    let mut runsv = machine
        .shell("cd / && exec runsv /etc/sv/cosserver")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let current = machine.path("/var/log/cosserver/current");
    let log = || fs::read_to_string(&current).unwrap_or_default();
    machine.until("it says what is missing", |_| {
        log().contains("cosadm init makes one")
    });
    machine.until("it is down", |m| {
        let state = m.must("sv status /etc/sv/cosserver || :");
        state.starts_with("down: ") && !state.contains("want up")
    });
    machine.must("mv /etc/away /etc/cosserver; sv up /etc/sv/cosserver");
    machine.until("it listens", |_| log().contains("listening on "));
    machine.serves();
    // The log has times in it, and only root can read it.
    assert!(log().lines().all(|l| l.starts_with("20")), "{}", log());
    machine.must("test \"$(stat -c %a /var/log/cosserver)\" = 700");
    machine.must("sv hup /etc/sv/cosserver");
    machine.until("it has read its files anew", |_| {
        log().contains(" reloaded")
    });
    // A daemon that dies is started again.
    let first = machine.pid();
    machine.must(&format!("kill -KILL {first}"));
    machine.until("another serves", |m| {
        m.cosrsh("true").status.success() && m.pid() != first
    });
    machine.serves();
    machine.must("sv -w 30 stop /etc/sv/cosserver");
    // Its guard ends a moment later.
    machine.until("it is gone", |m| m.running("cosserver -D").is_empty());
    machine.must("sv exit /etc/sv/cosserver");
    assert!(runsv.wait().unwrap().success());
}

#[test]
fn openrc_starts_and_stops_it() {
    // Debian 13 has no separate /sbin.
    let merged = tools().join("usr/sbin/openrc-run").exists();
    if !merged && tool("sbin/openrc-run").is_none() {
        return;
    }
    let Some(machine) = Machine::with_cosserver("openrc") else {
        return;
    };
    machine.install_tools();
    // Created as OpenRC does at boot.
    machine.must(
        "cd /etc; mkdir insserv.conf.d; touch insserv.conf
         mkdir /run/openrc; cd /run/openrc; touch softlevel
         mkdir starting started stopping stopped inactive wasinactive failed hotplugged \
             scheduled crashed daemons options exclusive tmp",
    );
    let call = |action: &str, status: i32| {
        machine.ends(
            status,
            &format!("rc-service --nodeps cosserver {action} 2>&1"),
        )
    };
    let log = machine.syslog();
    call("status", 3);
    call("start", 0);
    call("status", 0);
    machine.serves();
    let first = machine.pid();
    call("checkconfig", 0);
    call("restart", 0);
    let second = machine.pid();
    assert_ne!(first, second);
    call("reload", 0);
    log.wait(" reloaded");
    machine.serves();
    // Nor do valid settings that could not be served: there is no file for PAM.
    let toml = machine.path("/etc/cosserver/cosserver.toml");
    let right = std::fs::read_to_string(&toml).unwrap();
    let gui = "[gui.x]\ncommand = [\"/bin/true\"]\nusers = [\"root\"]\n";
    std::fs::write(&toml, format!("{right}{gui}")).unwrap();
    machine.must("rm -f /etc/pam.d/cosserver");
    assert!(call("reload", 1).contains("/etc/pam.d/cosserver"));
    let out = machine.sh("rc-service --nodeps cosserver restart 2>&1");
    let words = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(words.contains("/etc/pam.d/cosserver"), "{words}");
    assert_eq!(machine.pid(), second);
    std::fs::write(&toml, right).unwrap();
    // Invalid settings do not stop a running daemon.
    machine.must("echo 'lisen = []' >>/etc/cosserver/cosserver.toml");
    assert!(call("reload", 1).contains("lisen"));
    call("checkconfig", 1);
    // The exit status is OpenRC's: 0, even if nothing was stopped.
    let out = machine.sh("rc-service --nodeps cosserver restart 2>&1");
    assert!(
        String::from_utf8_lossy(&out.stdout).contains("lisen"),
        "{out:?}"
    );
    assert_eq!(machine.pid(), second);
    machine.serves();
    call("stop", 0);
    // Its guard ends a moment later.
    machine.until("it is gone", |m| m.running("cosserver").is_empty());
    call("start", 1);
    machine.must("rm /etc/cosserver/cosserver.toml");
    assert!(call("start", 1).contains("cosserver.toml"));
}
