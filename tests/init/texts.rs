//! Files that cannot be started here: units, scripts of other systems; and the examples.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::daemon::{self, COSADM, COSSERVER, Folder, must, run};
use crate::machine::{Machine, of_systemd, tool, top};

fn text(path: &str) -> String {
    fs::read_to_string(top().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn said(out: &std::process::Output) -> String {
    String::from_utf8_lossy(&[&*out.stdout, &*out.stderr].concat()).into_owned()
}

// ---- systemd ----

/// The units as they are, and with every line that is offered in a comment.
#[test]
fn systemd_understands_the_units() {
    if of_systemd("systemd-analyze").is_none() {
        return;
    }
    for offered in [false, true] {
        let folder = Folder::new();
        for unit in [
            "cosserver.service",
            "cosserver.socket",
            "cosserver@.service",
        ] {
            let mut words = text(&format!("init/systemd/{unit}"))
                .replace("/usr/local/sbin/cosserver", COSSERVER);
            if offered {
                let lines = words.lines().map(|line| match line.strip_prefix('#') {
                    Some(rest) if is_setting(rest) => rest,
                    _ => line,
                });
                words = lines.map(|l| format!("{l}\n")).collect();
            }
            fs::write(folder.path(unit), words).unwrap();
        }
        let verify = |unit: &str| {
            let mut command = of_systemd("systemd-analyze").unwrap();
            command.args(["verify", "--man=no", "--recursive-errors=yes"]);
            let out = run(command.arg(folder.path(unit)));
            assert!(out.status.success(), "{}", said(&out));
            // It warns about unknown settings, and succeeds.
            let about_ours = said(&out).lines().any(|l| l.contains("cosserver"));
            assert!(!about_ours, "{}", said(&out));
        };
        verify("cosserver.service");
        verify("cosserver.socket");
        verify("cosserver@.service");
        // With a daemon for each connection the socket needs the template.
        fs::create_dir(folder.path("cosserver.socket.d")).unwrap();
        let each = text("init/systemd/cosserver.socket.d/each.conf");
        fs::write(folder.path("cosserver.socket.d/each.conf"), each).unwrap();
        fs::remove_file(folder.path("cosserver.service")).unwrap();
        verify("cosserver.socket");
    }
}

/// Returns whether a line has the form `Key=value` of a unit.
fn is_setting(line: &str) -> bool {
    line.split_once('=')
        .is_some_and(|(key, _)| !key.is_empty() && key.chars().all(char::is_alphanumeric))
}

#[test]
fn the_daemons_times_fit_into_systemds() {
    let seconds = |name: &str| -> u64 {
        let keys = cosserver::config::settings::KEYS.iter();
        let key = keys.clone().find(|k| k.name == name).unwrap();
        key.default.parse().unwrap()
    };
    let needed = seconds("grace") + seconds("hup-to-kill");
    for unit in ["cosserver.service", "cosserver@.service"] {
        let text = text(&format!("init/systemd/{unit}"));
        let line = text.lines().find_map(|l| l.strip_prefix("TimeoutStopSec="));
        let given: u64 = line.unwrap().parse().unwrap();
        assert!(
            given > needed + 10,
            "{unit}: {given} s, and {needed} s are needed"
        );
        assert!(text.contains("\nKillMode=process\n"), "{unit}");
    }
    // The scripts contain them as well, where they cannot ask the daemon.
    let script = text("init/sysv/cosserver");
    for name in ["grace", "hup-to-kill"] {
        assert!(
            script.contains(&format!("setting {name} {}", seconds(name))),
            "{name}"
        );
    }
}

// ---- the BSDs ----

/// A replacement for FreeBSD's rc.subr: prints what the script has set, and calls what the original
/// would call.
const RC_SUBR: &str = r#"
load_rc_config() { eval "${1}_enable=\${ENABLE}"; }
run_rc_command() {
	echo "name=$name rcvar=$rcvar command=$command pidfile=$pidfile extra=$extra_commands"
	eval "action=\${${1}_precmd:-}"
	[ -z "$action" ] || "$action" || exit 1
	eval "action=\${${1}_cmd:-}"
	[ -z "$action" ] || "$action"
}
"#;

#[test]
fn the_script_for_the_bsds_says_what_rc_subr_wants() {
    let folder = daemon::configured("", "");
    let toml = folder.path("S/cosserver.toml");
    fs::write(folder.path("rc.subr"), RC_SUBR).unwrap();
    let script = text("init/bsd/cosserver")
        .replace("/etc/rc.subr", folder.path("rc.subr").to_str().unwrap())
        .replace("/usr/local/sbin/cosserver", COSSERVER)
        .replace("/etc/cosserver", folder.path("S").to_str().unwrap());
    fs::write(folder.path("cosserver"), script).unwrap();
    let call = |action: &str| {
        let mut command = Command::new("sh");
        command.arg(folder.path("cosserver")).arg(action);
        command.env("cosserver_flags", format!("-f {}", toml.display()));
        run(&mut command)
    };
    for action in ["start", "reload", "restart", "configtest"] {
        let out = call(action);
        assert!(out.status.success(), "{action}: {}", said(&out));
        let wanted = format!(
            "name=cosserver rcvar=cosserver_enable command={COSSERVER} \
             pidfile=/run/cosserver/cosserver.pid extra=reload configtest"
        );
        assert!(said(&out).starts_with(&wanted), "{}", said(&out));
    }
    // A daemon that would not start again is not stopped; one host's line does not prevent a start.
    let hosts = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hosts).unwrap();
    fs::write(&hosts, format!("{table}? ?\n")).unwrap();
    assert!(call("start").status.success());
    for action in ["reload", "restart", "configtest"] {
        let out = call(action);
        assert!(
            !out.status.success() && said(&out).contains("hostinfo"),
            "{action}"
        );
    }
    fs::write(&hosts, table).unwrap();
    fs::write(&toml, "lisen = []\n").unwrap();
    for action in ["start", "reload", "restart", "configtest"] {
        let out = call(action);
        assert!(
            !out.status.success() && said(&out).contains("listen"),
            "{action}"
        );
    }
    let head = text("init/bsd/cosserver");
    for line in [
        "# PROVIDE: cosserver\n",
        "# REQUIRE: ",
        "# KEYWORD: shutdown\n",
    ] {
        assert!(head.contains(line), "{line}");
    }
}

/// The other scripts are checked with all of the project's scripts; these have their own
/// interpreter.
#[test]
fn the_script_for_openrc_is_clean() {
    let path = top().join("init/openrc/cosserver");
    must(Command::new("shellcheck").args(["-s", "sh"]).arg(&path));
    must(Command::new("checkbashisms").arg("-f").arg(&path));
}

// ---- examples ----

/// The example is the output of `cosadm init`, which is generated from the table of settings.
#[test]
fn the_example_of_the_settings_is_what_the_table_says() {
    let folder = Folder::new();
    let paths = folder.path("S");
    must(Command::new(COSADM).arg("-C").arg(&paths).arg("init"));
    let written = fs::read_to_string(paths.join("cosserver.toml")).unwrap();
    assert!(
        text("etc/cosserver.toml") == written,
        "etc/cosserver.toml is not what `cosadm init` writes: put that there \
         (cosadm -C DIR init && cp DIR/cosserver.toml etc/)"
    );
    must(
        Command::new(COSSERVER)
            .arg("-t")
            .arg("-f")
            .arg(paths.join("cosserver.toml")),
    );
    // Each key, uncommented, is valid as well.
    let mut keys = 0;
    for line in written.lines() {
        let Some(line) = line.strip_prefix('#').filter(|l| !l.starts_with(' ')) else {
            continue;
        };
        assert!(line.contains(" = "), "{line}");
        keys += 1;
    }
    assert_eq!(keys, cosserver::config::settings::KEYS.len());
}

/// Every kind of line of each PAM file, with PAM itself: pamtester uses them as cosserver does.
#[test]
fn pam_takes_the_files_for_it() {
    if tool("usr/bin/pamtester").is_none() {
        return;
    }
    let Some(machine) = Machine::start() else {
        return;
    };
    machine.install_tools();
    // An account with the password "secret", and PAM's own files of each family.
    machine.must(
        "useradd -m jo; echo jo:secret | chpasswd
         cd /etc/pam.d; sed -n '/^auth/p' common-auth >system-auth
         for kind in account password session; do sed -n \"/^$kind/p\" common-$kind >>system-auth; done",
    );
    for kind in ["debian", "redhat", "plain"] {
        let file = top().join(format!("etc/pam.d/cosserver.{kind}"));
        machine.must(&format!("cat '{}' >/etc/pam.d/cosserver", file.display()));
        let log = |password: &str, actions: &str| {
            machine.sh(&format!(
                "echo {password} | pamtester cosserver jo {actions} 2>&1"
            ))
        };
        let out = log(
            "secret",
            "authenticate acct_mgmt open_session close_session",
        );
        assert!(out.status.success(), "{kind}: {}", said(&out));
        let out = log("wrong", "authenticate");
        assert!(!out.status.success(), "{kind}: {}", said(&out));
        // While the host shuts down, only root may log in.
        machine.must("touch /etc/nologin");
        let out = log("secret", "acct_mgmt");
        assert!(!out.status.success(), "{kind}: {}", said(&out));
        machine.must("rm /etc/nologin");
        let out = machine.sh("printf 'secret\\nanother1X\\nanother1X\\n' | setpriv --reuid=jo --regid=jo --clear-groups true; \
             printf 'another1X\\nanother1X\\n' | pamtester cosserver jo chauthtok 2>&1");
        assert!(out.status.success(), "{kind}: {}", said(&out));
        let out = log("another1X", "authenticate");
        assert!(out.status.success(), "{kind}: {}", said(&out));
        machine.must("echo jo:secret | chpasswd");
    }
}

/// Each PAM file has all four kinds of line, and allows no login without authentication.
#[test]
fn the_files_for_pam_are_whole() {
    for kind in ["debian", "redhat", "plain"] {
        let text = text(&format!("etc/pam.d/cosserver.{kind}"));
        let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
        for line in text
            .lines()
            .filter(|l| !l.starts_with('#') && !l.is_empty())
        {
            let mut words = line.trim_start_matches('-').split_whitespace();
            *kinds.entry(words.next().unwrap()).or_default() += 1;
            for open in ["pam_permit", "nullok", "pam_rhosts"] {
                assert!(!line.contains(open), "{kind}: {line}");
            }
        }
        let all: Vec<&str> = kinds.keys().copied().collect();
        assert_eq!(all, ["account", "auth", "password", "session"], "{kind}");
        // It says which of them to use.
        for other in ["debian", "redhat", "plain"].iter().filter(|o| **o != kind) {
            assert!(
                text.contains(&format!("cosserver.{other}")),
                "{kind}: {other}"
            );
        }
    }
}

/// The line for services names the daemon's own default port.
#[test]
fn the_examples_name_one_port() {
    let keys = cosserver::config::settings::KEYS.iter();
    let port = keys.clone().find(|k| k.name == "port").unwrap().default;
    for (file, line) in [
        ("etc/services", format!("cosserver\t{port}/tcp")),
        ("etc/xinetd", format!("port\t\t= {port}")),
        (
            "init/systemd/cosserver.socket",
            format!("ListenStream={port}"),
        ),
        (
            "etc/fail2ban/jail.d/cosserver.conf",
            format!("port     = {port}"),
        ),
    ] {
        assert!(text(file).contains(&line), "{file} does not say {line:?}");
    }
    assert!(Path::new(COSSERVER).exists());
}
