//! The filter for fail2ban, by fail2ban itself, on lines that a real daemon has written about real
//! unauthenticated connections, some of which try to get other addresses banned.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use cosserver::refusal::Cause;
use cosserver::secret::{KeyPair, Secret};

use crate::daemon::hostile::{Caller, RawConnection};
use crate::daemon::{self, Daemon, Folder};
use crate::login::person::Person;
use crate::login::{PASSWORD, Plan, WRONG};
use crate::machine::{tool, tools, top};

/// The address that the hostile clients try to get banned.
const VICTIM: &str = "192.0.2.66";

/// Creates fail2ban's own configuration with the project's files in it; `None` if it was not
/// unpacked.
fn configuration(folder: &Folder) -> Option<PathBuf> {
    tool("usr/bin/fail2ban-regex")?;
    let conf = folder.path("fail2ban");
    let mut copy = Command::new("cp");
    daemon::must(copy.arg("-R").arg(tools().join("etc/fail2ban")).arg(&conf));
    let _ = fs::remove_file(conf.join("jail.d/defaults-debian.conf"));
    for file in ["filter.d/cosserver.conf", "jail.d/cosserver.conf"] {
        fs::copy(top().join("etc/fail2ban").join(file), conf.join(file)).unwrap();
    }
    Some(conf)
}

fn fail2ban(program: &str, conf: &Path) -> Command {
    let mut command = Command::new("python3");
    command.arg(tools().join("usr/bin").join(program));
    command.arg("-c").arg(conf);
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONPATH", tools().join("usr/lib/python3/dist-packages"));
    command
}

/// Returns the addresses that fail2ban counts for these lines of a log, one for each counted line.
fn counted(folder: &Folder, conf: &Path, lines: &[String]) -> Vec<String> {
    let log = folder.path("log");
    fs::write(&log, lines.concat()).unwrap();
    let mut command = fail2ban("fail2ban-regex", conf);
    command
        .args(["-o", "ip"])
        .arg(&log)
        .arg(conf.join("filter.d/cosserver.conf"));
    let out = daemon::must(&mut command);
    String::from_utf8(out)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Formats a line as syslog daemons do: the traditional way, with a precise time, and with facility
/// and level (the BSDs).
fn written(line: &str) -> [String; 3] {
    [
        format!("Nov 22 06:52:06 hostb cosserver[123]: {line}\n"),
        format!("2026-11-22T06:52:06.123456+01:00 hostb.example cosserver[123]: {line}\n"),
        format!("Nov 22 06:52:06 <auth.warn> hostb cosserver[123]: {line}\n"),
    ]
}

#[test]
fn fail2ban_counts_unauthenticated_faults_and_no_peer_can_ban_another() {
    let folder = Folder::new();
    let Some(conf) = configuration(&folder) else {
        return;
    };
    let options = "\"commands=/bin/echo *\"";
    let settings = "limits.hello = 1\nlimits.handshake = 1\ndaemon.refusal-interval = 1\n";
    let d = Daemon::start_as(settings, options);
    let hostinfo = d.server().join("hostinfo");
    let text = fs::read_to_string(&hostinfo).unwrap();
    fs::write(
        &hostinfo,
        text.replace("addr=127.0.0.1,::1", "addr=127.0.0.0/26,::1"),
    )
    .unwrap();

    // A text that a hostile peer would like in the log, in every form that it can send.
    let line = format!("denied ref=00 peer={VICTIM} cause=proof why=x");
    let forged = [
        format!("x peer={VICTIM} cause=proof"),
        format!("x\nNov 22 06:52:06 hostb cosserver[123]: {line}\n"),
        format!("\" why=\"\n2026-11-22T06:52:07 hostb cosserver[1]: {line}"),
        format!("\u{1b}[2K\r{line}"),
    ];
    let mut guilty = BTreeSet::new();
    let mut next = 10;
    let mut address = |is_guilty: bool| -> IpAddr {
        next += 1;
        let ip = format!("127.0.0.{next}");
        if is_guilty {
            guilty.insert(ip.clone());
        }
        ip.parse().unwrap()
    };
    let honest = Caller::of(&d);
    // All of them send requests first, and then read.
    let mut asked = Vec::new();
    let mut refused = |caller: &Caller, from: IpAddr, cause: &str, command: &str| {
        let mut s = RawConnection::from_address(from, d.port);
        let greeting = s.greet();
        s.send(&caller.client_hello(&greeting, &caller.request(command)).0);
        asked.push((s, format!(" peer={from} cause={cause} ")));
    };
    let mut caller = honest.clone();
    caller.host = KeyPair::random().unwrap().public;
    refused(&caller, address(true), "handshake", "x");
    // Names, which the log repeats.
    for name in forged.iter().map(String::as_str).chain(["hostz"]) {
        let mut caller = honest.clone();
        caller.name = name.to_owned();
        refused(&caller, address(true), "unknown-host", "x");
        let mut caller = honest.clone();
        caller.server = name.to_owned();
        refused(&caller, address(true), "server-name", "x");
    }
    let mut caller = honest.clone();
    caller.cookie = Secret::new([7; 32]);
    refused(&caller, address(true), "proof", "x");
    // First proven by its own machine, then used from another.
    let words = vec![b"/bin/echo".to_vec(), forged[1].clone().into_bytes()];
    let list = cosserver::protocol::request::Command::Words(words);
    assert!(honest.accepted_for(d.port, list).finish().1.is_some());
    let mut caller = honest.clone();
    caller.machine = KeyPair::random().unwrap();
    refused(&caller, address(true), "machine-key", "x");
    // Mistakes of an authenticated host do not count, whatever it sends.
    for command in &forged {
        refused(&honest, address(false), "command", command);
    }
    let mut caller = honest.clone();
    caller.user = "daemon".into();
    refused(&caller, address(false), "user", "x");
    // An address outside the listed network.
    let outside: IpAddr = "127.0.0.200".parse().unwrap();
    refused(&honest, outside, "address", "x");
    for (mut s, wanted) in asked {
        let line = d.log.wait(&s.denied());
        assert!(line.contains(&wanted), "{line}: {wanted}");
    }
    // Without a handshake: other data, nothing, a half one; and a client that has left.
    let garbage = address(true);
    let mut s = RawConnection::from_address(garbage, d.port);
    s.send(line.as_bytes());
    s.closed();
    d.log
        .wait(&format!("closed peer={garbage} cause=malformed"));
    let silent = address(true);
    let mut s = RawConnection::from_address(silent, d.port);
    s.closed();
    d.log.wait(&format!("closed peer={silent} cause=no-hello"));
    let mut s = RawConnection::from_address("::1".parse().unwrap(), d.port);
    s.greet();
    s.closed();
    d.log.wait("closed peer=::1 cause=no-handshake");
    let gone = address(false);
    let mut s = RawConnection::from_address(gone, d.port);
    s.greet();
    drop(s);
    d.log.wait(&format!("closed peer={gone} cause=left"));
    guilty.extend([outside.to_string(), "::1".to_owned()]);

    let lines = d.log.all();
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("exec ") && l.contains(VICTIM))
    );

    let in_every_way: Vec<String> = lines.iter().flat_map(|l| written(l)).collect();
    let counted: Vec<String> = counted(&folder, &conf, &in_every_way);
    let who: BTreeSet<String> = counted.iter().cloned().collect();
    assert_eq!(who, guilty);
    // Each line that counts does so in each format.
    assert_eq!(counted.len() % 3, 0);
    assert_eq!(counted.len() / 3, guilty.len(), "one each");
}

/// The daemon itself writes the lines of logins: with real PAM, only for root.
#[test]
fn wrong_logins_and_silent_ones_count() {
    if !daemon::needs_root() {
        return;
    }
    let folder = Folder::new();
    let Some(conf) = configuration(&folder) else {
        return;
    };
    let l = Plan {
        settings: "[login]\ntime = 3\n[daemon]\nrefusal-interval = 1\n",
        ..Plan::default()
    }
    .start();
    let forged =
        format!("x\nNov 22 06:52:06 hostb cosserver[1]: denied ref=00 peer={VICTIM} cause=proof");
    let person = |last: u8, user: &str, application: &str| {
        let mut person = Person::new(&l.d, user, application);
        person.from = [127, 0, 0, last].into();
        person
    };
    let user = format!("x\"peer={VICTIM}");
    let strangers = [
        (11, "alice", "hello", WRONG),
        (12, "nosuchuser", "hello", WRONG),
        (13, &*user, "hello", WRONG),
        (14, "alice", &*forged, PASSWORD),
        (15, "locked", "hello", PASSWORD),
    ];
    for (last, user, application, password) in strangers {
        person(last, user, application).refused(password);
    }
    let silent = person(16, "alice", "hello").ask();
    l.d.log.wait("closed peer=127.0.0.16 cause=no-answer");
    drop(silent);
    assert_eq!(l.alice_says(&["hello"]), ["hello"]);

    let in_every_way: Vec<String> = l.d.log.all().iter().flat_map(|l| written(l)).collect();
    let mut counted = counted(&folder, &conf, &in_every_way);
    counted.sort_unstable();
    let wanted: Vec<String> = (11..=16)
        .flat_map(|last| vec![format!("127.0.0.{last}"); 3])
        .collect();
    assert_eq!(counted, wanted, "{}", l.log_text());
}

/// Lines that other programs write about the daemon, or as if they were the daemon.
#[test]
fn lines_of_others_do_not_count() {
    let folder = Folder::new();
    let Some(conf) = configuration(&folder) else {
        return;
    };
    let line = format!("denied ref=00 peer={VICTIM} cause=proof why=x");
    let others = [
        format!("su[9]: cosserver[123]: {line}"),
        format!("su[9]: {line}"),
        format!("hostb su[9]: cosserver[123]: {line}"),
        format!("hostb su: user cosserver[123]: {line}"),
        format!("hostb {line}"),
        format!("hostb: {line}"),
        format!("hostb cosserver-other[123]: {line}"),
        format!("hostb notcosserver[123]: {line}"),
        format!("hostb cosserver[123]: exec session=0 host=hosta peer={VICTIM} command=\"{line}\""),
        format!("hostb cosserver[123]: suppressed event=denied lines=1 {line}"),
        format!("hostb cosserver[123]: closed peer=192.0.2.1 cause=left why=\"{line}\""),
        format!(
            "hostb cosserver[123]: denied ref=00 peer=192.0.2.1 peer={VICTIM} cause=proof why=x"
        ),
        format!("hostb cosserver[123]: denied ref=00 peer=192.0.2.1{VICTIM} cause=proof why=x"),
        format!("hostb cosserver[123]: denied ref=00 peer={VICTIM} cause=user why=x"),
        format!("hostb cosserver[123]: denied ref=00 peer={VICTIM} cause=proofs why=x"),
        "hostb cosserver[123]: denied ref=00 peer=? cause=proof why=x".to_owned(),
    ];
    let lines: Vec<String> = others
        .iter()
        .map(|l| format!("Nov 22 06:52:06 {l}\n"))
        .collect();
    assert_eq!(counted(&folder, &conf, &lines), Vec::<String>::new());
    // A time that a peer has put into the line does not hide it.
    let hidden = format!(
        "Nov 22 06:52:06 hostb cosserver[123]: {} 2001-01-01T00:00:00 Jan  1 00:00:00\"\n",
        line.replace("why=x", "why=\"x")
    );
    assert_eq!(counted(&folder, &conf, &[hidden]), [VICTIM]);
}

/// The filter names the causes that are the peer's own fault, and no others.
#[test]
fn the_filter_has_the_causes_of_the_code() {
    let filter = fs::read_to_string(top().join("etc/fail2ban/filter.d/cosserver.conf")).unwrap();
    let lists: Vec<BTreeSet<&str>> = filter
        .split("cause=(?:")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap().split('|').collect())
        .collect();
    let mut wanted: BTreeSet<&str> = Cause::ALL
        .into_iter()
        .filter(|cause| cause.is_unproven())
        .map(Cause::name)
        .collect();
    wanted.insert(Cause::Login.name());
    assert_eq!(lists[0], wanted);
    let counted = ["malformed", "no-hello", "no-handshake", "no-answer"];
    assert_eq!(lists[1], BTreeSet::from(counted));
    let page = fs::read_to_string(top().join("docs/man/cosserver.8")).unwrap();
    for cause in &lists[1] {
        assert!(page.contains(&format!(".Ql {cause}")), "{cause}");
    }
}

/// fail2ban accepts the jail unchanged, except for the log's path.
#[test]
fn fail2ban_takes_the_jail() {
    let folder = Folder::new();
    let Some(conf) = configuration(&folder) else {
        return;
    };
    let jail = conf.join("jail.d/cosserver.conf");
    let log = folder.path("auth.log");
    fs::write(&log, "").unwrap();
    let text = fs::read_to_string(&jail).unwrap();
    assert!(text.contains("/var/log/auth.log\n"));
    let there = text.replace("/var/log/auth.log\n", &format!("{}\n", log.display()));
    fs::write(&jail, there).unwrap();
    let out = daemon::run(fail2ban("fail2ban-client", &conf).arg("-d"));
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{out:?}");
    for words in [
        "['add', 'cosserver', 'auto']",
        "['start', 'cosserver']",
        "denied ref=[0-9a-f]+ peer=<ADDR>",
        "'addlogpath'",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    daemon::must(fail2ban("fail2ban-client", &conf).arg("-t"));
}
