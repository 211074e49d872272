//! The daemon's configuration: tested, printed, reloaded; the host table, cookies and machine keys
//! while it runs.

use crate::daemon;

use std::fs;
use std::process::{Command, Output};

use cosserver::config::paths::Paths;
use cosserver::config::settings::Settings;
use cosserver::protocol::stream::End;
use cosserver::secret::KeyPair;
use daemon::hostile::{Caller, RawConnection, timed};
use daemon::{COSADM, COSSERVER, Daemon, Folder, append, me, nss, prepare};
use nix::sys::signal::Signal;

fn flag(flag: &str, folder: &Folder) -> Output {
    let mut command = daemon::cosserver();
    // With -e it does not matter whether there is a syslog here.
    daemon::run(
        command
            .args([flag, "-e", "-f"])
            .arg(folder.path("S/cosserver.toml")),
    )
}

fn adm(d: &Daemon, words: &[&str]) -> Vec<u8> {
    daemon::must(Command::new(COSADM).arg("-C").arg(d.server()).args(words))
}

#[test]
fn t_finds_every_mistake_and_names_file_line_and_what_was_meant() {
    // An existing account, so that there is no warning.
    let folder = daemon::configured("limits.hello = 7\ndaemon.user = \"nobody\"\n", "");
    let good = flag("-t", &folder);
    assert!(good.status.success() && good.stderr.is_empty(), "{good:?}");
    let toml = folder.path("S/cosserver.toml");
    let hostinfo = folder.path("S/hostinfo");
    let table = fs::read_to_string(&hostinfo).unwrap();
    let lines = table.lines().count();
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "limits.helo = 7\n",
            "",
            &["cosserver.toml:1: ", "helo", "hello"],
        ),
        (
            "\nlimits.hello = \"7\"\n",
            "",
            &["cosserver.toml:2: ", "hello"],
        ),
        (
            "limits.hello = 0\n",
            "",
            &["cosserver.toml:1: ", "hello", "1"],
        ),
        ("port = 70000\n", "", &["cosserver.toml:1: ", "port"]),
        ("[limits\n", "", &["cosserver.toml:1: "]),
        (
            "",
            "hostz cos run-ass=root\n",
            &["hostinfo:", "hostz", "run-ass", "run-as"],
        ),
    ];
    for (settings, line, words) in cases {
        fs::write(&toml, settings).unwrap();
        fs::write(&hostinfo, format!("{table}{line}")).unwrap();
        let out = flag("-t", &folder);
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{settings}{line}: {said}");
        for word in words {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
        if !line.is_empty() {
            assert!(
                said.contains(&format!("hostinfo:{}: ", lines + 1)),
                "{said}"
            );
        }
        // A daemon does not start with invalid settings, and says why.
        if line.is_empty() {
            let mut command = daemon::cosserver();
            let out = daemon::run(command.args(["-D", "-e", "-p", "0", "-f"]).arg(&toml));
            assert_eq!(out.status.code(), Some(1));
            assert!(String::from_utf8(out.stderr).unwrap().contains(words[0]));
        }
    }
    for missing in ["S/host.key", "S/cosserver.toml"] {
        fs::write(&toml, "").unwrap();
        fs::write(&hostinfo, &table).unwrap();
        let aside = folder.path("aside");
        fs::rename(folder.path(missing), &aside).unwrap();
        let out = flag("-t", &folder);
        assert_eq!(out.status.code(), Some(1), "{missing}: {out:?}");
        fs::rename(&aside, folder.path(missing)).unwrap();
    }
    // An error in the command line has another status.
    let out = daemon::run(daemon::cosserver().arg("--nonsense"));
    assert_eq!(out.status.code(), Some(2));
}

/// A daemon started by root serves without the account, so this is not an error.
#[test]
fn t_warns_of_a_missing_account_and_does_not_fail() {
    let folder = daemon::configured("daemon.user = \"no-such-user-here\"\n", "");
    for which in ["-t", "-T"] {
        let out = flag(which, &folder);
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.success(), "{which}: {said}");
        if !daemon::is_root() {
            assert_eq!(said, "", "only root's daemon becomes another user");
            continue;
        }
        assert!(
            said.starts_with("cosserver: warning: user no-such-user-here: ")
                && said.ends_with("/usr/sbin/nologin no-such-user-here\n")
                && said.contains("useradd --system ")
                && said.lines().count() == 1,
            "{which}: {said}"
        );
    }
}

#[test]
fn f_with_a_folder_says_which_file_was_meant() {
    let folder = daemon::configured("", "");
    let server = folder.path("S");
    let says = |words: &[&str]| {
        let mut command = daemon::cosserver();
        let out = daemon::run(command.args(words).arg("-f").arg(&server));
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains("this is a folder"), "{said}");
        said
    };
    let meant = format!(
        "; -f {}/cosserver.toml was probably meant",
        server.display()
    );
    for words in [["-t"].as_slice(), &["-T"], &["-D", "-e", "-p", "0"]] {
        let said = says(words);
        assert!(said.contains(&meant), "{said}");
    }
    fs::remove_file(server.join("cosserver.toml")).unwrap();
    let said = says(&["-t"]);
    assert!(said.contains("there is no cosserver.toml in it"), "{said}");
}

#[test]
fn what_t_prints_is_a_configuration_that_says_the_same() {
    let given = "name = \"here\"\nlimits.hello = 7\npenalties.exempt = [\"10.0.0.0/8\"]\n";
    let folder = daemon::configured(given, "");
    let printed = flag("-T", &folder);
    assert!(printed.status.success());
    let text = String::from_utf8(printed.stdout).unwrap();
    for line in [
        "name = \"here\"",
        "hello = 7",
        "handshake = 20",
        "exempt = [\"10.0.0.0/8\"]",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
    }
    fs::write(folder.path("S/cosserver.toml"), &text).unwrap();
    let again = flag("-T", &folder);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text);
    let paths = Paths::of_dir(&folder.path("S"));
    assert_eq!(Settings::parse(&text, &paths).unwrap().print(), text);
    assert!(flag("-t", &folder).status.success());
}

#[test]
fn sighup_applies_new_limits_and_a_broken_file_keeps_the_old_ones() {
    let d = Daemon::start_as("limits.hello = 20\n", "");
    let toml = d.server().join("cosserver.toml");
    let mut session = Caller::of(&d).accepted(d.port, "echo here; cat");
    session.until(b"here\n");
    fs::write(&toml, "limits.hello = 1\n").unwrap();
    d.signal(Signal::SIGHUP);
    d.log.wait_from(0, |l| l == "reloaded");
    d.says(0, &["true"]);
    let ((), took) = timed(|| RawConnection::connect(d.port).closed());
    assert!(took.as_secs() < 10, "{took:?}");
    fs::write(&toml, "limits.hello = 20\nlimits.handshaek = 1\n").unwrap();
    let lines = d.log.all().len();
    d.signal(Signal::SIGHUP);
    let (_, line) = d.log.wait_from(lines, |l| l.starts_with("not-reloaded "));
    for word in ["cosserver.toml:2", "handshaek", "handshake"] {
        assert!(line.contains(word), "{line}");
    }
    let ((), took) = timed(|| RawConnection::connect(d.port).closed());
    assert!(took.as_secs() < 10, "{took:?}: the old limit is not kept");
    session.send(&cosserver::protocol::stream::Message::Eof(
        cosserver::protocol::stream::Stream::Main,
    ));
    assert_eq!(session.finish().1, Some(End::Exited(0)));
}

/// Keys that take effect only at the start are not applied, and the log says so.
#[test]
fn sighup_names_the_keys_that_take_a_restart() {
    let d = Daemon::start_as("port = 7\nlisten = [\"127.0.0.1\"]\n", "");
    let toml = d.server().join("cosserver.toml");
    // The port was given on the command line, so the file's port is not used.
    fs::write(
        &toml,
        "port = 8\nlisten = [\"127.0.0.2\"]\ndaemon.user = \"daemon\"\n",
    )
    .unwrap();
    // The second time too: the value in force still differs.
    for _ in 0..2 {
        let lines = d.log.all().len();
        d.signal(Signal::SIGHUP);
        let needs = |part: &str| {
            let wanted = |l: &str| l.starts_with("needs-restart ") && l.contains(part);
            d.log.wait_from(lines, wanted).1
        };
        let listen = needs("key=listen");
        assert!(
            listen.contains("127.0.0.1") && listen.contains("restart"),
            "{listen}"
        );
        assert!(needs("key=user").contains("_cosserver"));
        d.says(0, &["true"]);
    }
    assert_eq!(d.log.count("key=port"), 0);
    // With the value in force again there is nothing to report.
    fs::write(&toml, "listen = [\"127.0.0.1\"]\n").unwrap();
    let lines = d.log.all().len();
    d.signal(Signal::SIGHUP);
    d.log.wait_from(lines, |l| l == "reloaded");
    d.says(0, &["true"]);
    d.log.said_times("needs-restart", 4);
}

/// An administrator's change takes effect with the next connection.
#[test]
fn host_table_is_reloaded_when_it_changes() {
    let d = Daemon::start_as("daemon.refusal-interval = 1\n", "");
    let caller = Caller::of(&d);
    let hostinfo = d.server().join("hostinfo");
    let text = fs::read_to_string(&hostinfo).unwrap();
    let is_denied = |cause: &str| {
        let reference = caller.ask(d.port, "true").denied();
        let line = d.log.wait(&reference);
        assert!(line.contains(&format!("cause={cause}")), "{line}");
    };
    let is_served = || {
        let end = caller.accepted(d.port, "true").finish().1;
        assert_eq!(end, Some(End::Exited(0)));
    };
    is_served();
    fs::write(&hostinfo, text.replace("hosta ", "hostx ")).unwrap();
    is_denied("unknown-host");
    // Replaced as a whole, as editors do.
    let draft = d.server().join("draft");
    fs::write(&draft, &text).unwrap();
    fs::rename(&draft, &hostinfo).unwrap();
    is_served();
    adm(&d, &["host", "remove", "hosta"]);
    is_denied("unknown-host");
    fs::write(&hostinfo, &text).unwrap();
    is_denied("no-cookie");
}

/// Two cookies are valid during a rotation; the recorded machine is forgotten.
#[test]
fn a_rotated_cookie_lives_beside_the_old_one_until_finish() {
    let d = Daemon::start_as("daemon.refusal-interval = 1\n", "");
    let old = Caller::of(&d);
    let served = |c: &Caller| {
        let end = c.accepted(d.port, "true").finish().1;
        assert_eq!(end, Some(End::Exited(0)));
    };
    let denied = |c: &Caller, cause: &str| {
        let line = d.log.wait(&c.ask(d.port, "true").denied());
        assert!(line.contains(&format!("cause={cause}")), "{line}");
    };
    served(&old);
    d.log.said_times("machine-recorded", 1);
    // The same cookie on a second machine.
    let mut other = old.clone();
    other.machine = KeyPair::random().unwrap();
    denied(&other, "machine-key");
    let card = String::from_utf8(adm(&d, &["host", "rotate", "hosta"])).unwrap();
    let cookie = card
        .lines()
        .find_map(|l| l.strip_prefix("cookie: "))
        .unwrap();
    let mut new = old.clone();
    new.cookie = cosserver::secret::Secret::from_hex(cookie.trim()).unwrap();
    assert!(!new.cookie.same(&old.cookie));
    // The rotation forgot the machine: the first one that proves the cookie is recorded.
    new.machine = other.machine.clone();
    served(&new);
    denied(&old, "machine-key");
    let mut both = old.clone();
    both.machine = other.machine.clone();
    served(&both);
    adm(&d, &["host", "rotate", "hosta", "--finish"]);
    // Finishing may forget the machine again; the old cookie is no longer valid.
    served(&new);
    denied(&both, "proof");
}

/// A state directory that cannot be written: the first proof is rejected, with the reason; a
/// machine that is recorded already is served.
#[test]
fn a_machine_that_cannot_be_recorded_is_refused() {
    let d = Daemon::start_as("daemon.refusal-interval = 1\n", "");
    let caller = Caller::of(&d);
    // Root can write despite the mode; a file in place of the directory prevents it.
    let machines = d.server().join("state/machines");
    fs::remove_dir(&machines).unwrap();
    fs::write(&machines, "").unwrap();
    let line = d.log.wait(&caller.ask(d.port, "true").denied());
    assert!(
        line.contains("cause=system") && line.contains("machines"),
        "{line}"
    );
    assert_eq!(d.log.count("exec session="), 0);
    fs::remove_file(&machines).unwrap();
    assert_eq!(
        caller.accepted(d.port, "true").finish().1,
        Some(End::Exited(0))
    );
}

/// A name for which no name server answers affects only its own host, and delays no other.
#[test]
fn unresolvable_name_delays_no_other_host() {
    let folder = daemon::configured("daemon.refusal-interval = 1\n", "");
    let more: String = (0..40)
        .map(|n| format!("h{n}.invalid cos run-as={}\n", me()))
        .collect();
    append(&folder.path("S/hostinfo"), &more);
    let d = Daemon::start_in(folder, &[]);
    let ((), took) = timed(|| drop(d.says(0, &["true"])));
    assert!(took.as_secs() < 5, "{took:?}");
    let mut other = Caller::of(&d);
    other.name = "h7.invalid".into();
    let line = d.log.wait(&other.ask(d.port, "true").denied());
    assert!(
        line.contains("cause=address") && line.contains("resolve"),
        "{line}"
    );
}

/// A host without `addr=` connects from an address of its name.
#[test]
fn a_name_that_resolves_is_its_hosts_address() {
    let d = Daemon::start_as("daemon.refusal-interval = 1\n", "");
    let mut caller = Caller::of(&d);
    let table = d.server().join("hostinfo");
    append(&table, &format!("localhost cos run-as={}\n", me()));
    let from = d.server().join("cookies/hosta.in");
    fs::copy(&from, d.server().join("cookies/localhost.in")).unwrap();
    d.signal(Signal::SIGHUP);
    d.log.wait("names=resolved");
    caller.name = "localhost".into();
    assert_eq!(
        caller.accepted(d.port, "true").finish().1,
        Some(End::Exited(0))
    );
    let mut elsewhere = RawConnection::from_address("127.9.9.9".parse().unwrap(), d.port);
    let greeting = elsewhere.greet();
    elsewhere.send(&caller.client_hello(&greeting, &caller.request("true")).0);
    assert!(d.log.wait(&elsewhere.denied()).contains("cause=address"));
}

/// It was invited without an address, and its name has not been looked up yet, or there was no
/// answer when the daemon started.
#[test]
fn a_hosts_first_command_waits_for_its_name() {
    if !daemon::needs_root() {
        return;
    }
    let folder = prepare("", "");
    let etc = nss::etc(&folder, &[]);
    fs::write(etc.join("hosts"), "127.0.0.1 newhost\n").unwrap();
    let add = |folder: &std::path::Path, name: &str| {
        append(
            &folder.join("hostinfo"),
            &format!("{name} cos run-as={}\n", me()),
        );
        let cookies = folder.join("cookies");
        fs::copy(cookies.join("hosta.in"), cookies.join(format!("{name}.in"))).unwrap();
    };
    add(&folder.path("S"), "latehost");
    let d = Daemon::start_by(nss::with_etc(&etc, COSSERVER), folder, &[]);
    let told = d.log.wait("host=latehost");
    assert!(told.contains("does not resolve"), "{told}");
    let mut caller = Caller::of(&d);
    let runs = |caller: &Caller| caller.accepted(d.port, "true").finish().1;
    add(&d.server(), "newhost");
    caller.name = "newhost".into();
    assert_eq!(runs(&caller), Some(End::Exited(0)));
    // The other name is looked up again, without a request.
    let from = d.log.all().len();
    fs::write(etc.join("hosts"), "127.0.0.1 newhost latehost\n").unwrap();
    d.log.wait_from(from, |l| l.contains("names=resolved"));
    caller.name = "latehost".into();
    assert_eq!(runs(&caller), Some(End::Exited(0)));
    // A connection from elsewhere waits no longer than a denial takes.
    let mut elsewhere = RawConnection::from_address("127.9.9.9".parse().unwrap(), d.port);
    let greeting = elsewhere.greet();
    elsewhere.send(&caller.client_hello(&greeting, &caller.request("true")).0);
    assert!(d.log.wait(&elsewhere.denied()).contains("cause=address"));
}
