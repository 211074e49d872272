//! Messages of `cosadm` for administrators who have not read the manual: what a line means, what
//! was kept, what to do next. A suggested command works.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use cosserver::config::card::Card;
use nix::unistd::geteuid;

use super::{COSADM, Folder, Scratch, chmod, content, me, mode, text};

/// Invites or rotates with a file as standard output, and returns the messages.
fn into(folder: &Folder, file: &Path, arguments: &[&str]) -> String {
    let stdout = File::options().write(true).open(file).unwrap();
    stdout.set_len(0).unwrap();
    let mut command = folder.command(arguments);
    let child = command
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(Card::parse(&fs::read(file).unwrap()).is_ok());
    told
}

#[test]
fn card_file_is_private_to_its_owner() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let file = scratch.0.join("card");
    fs::write(&file, "").unwrap();
    // Each card but the first replaces the one before.
    let rotate = ["host", "rotate", "hosta", "--again"];
    for (arguments, before) in [
        (
            ["host", "invite", "hosta", "--addr=::1", "--run-as", &me()].as_slice(),
            0o644,
        ),
        (&rotate, 0o604),
        (&rotate, 0o660),
    ] {
        chmod(&file, before);
        let told = into(&s, &file, arguments);
        assert_eq!(mode(&file), 0o600);
        let words = format!("(mode {before:04o}); it is mode 0600 now");
        assert!(told.contains(&words), "{told}");
    }
    // A file that is already private stays as it is.
    let told = into(&s, &file, &rotate);
    assert_eq!(mode(&file), 0o600);
    assert!(!told.contains("standard output"), "{told}");
    // What is not a regular file keeps its mode. The test uses a pipe: with a bug here, root would
    // make a device such as /dev/null inaccessible to all users.
    let told = text(&s.run(&rotate).stderr);
    assert!(!told.contains("standard output"), "{told}");
    let pipe = scratch.0.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::empty()).unwrap();
    chmod(&pipe, 0o644);
    let both = File::options().read(true).write(true).open(&pipe).unwrap();
    let mut command = s.command(&rotate);
    let child = command.stdout(both).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(!told.contains("standard output"), "{told}");
    assert_eq!(mode(&pipe), 0o644);
    if geteuid().is_root() {
        // Another user's file: that user can read it whatever its mode.
        chown(&file, Some(65534), None).unwrap();
        for private in [0o600, 0o644] {
            chmod(&file, private);
            let told = into(&s, &file, &rotate);
            assert_eq!(mode(&file), private);
            let words = "that cannot be changed (it belongs to user 65534)";
            assert!(told.contains(words) && told.contains("umask 077"), "{told}");
        }
    }
}

/// Runs a suggested command line, as a shell would.
fn suggested(told: &str, before: &str, scratch: &Scratch) -> Output {
    let (_, line) = told
        .split_once(before)
        .unwrap_or_else(|| panic!("no {before:?} in {told}"));
    let line = line.lines().next().unwrap().trim_end_matches(')');
    assert!(line.starts_with("cosadm "), "{line}");
    let path = Path::new(COSADM).parent().unwrap();
    Command::new("/bin/sh")
        .args(["-c", line])
        .env("PATH", path)
        .current_dir(&scratch.0)
        .output()
        .unwrap()
}

#[test]
fn a_new_card_with_another_port_or_address_says_what_is_kept() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("it's A"));
    let to_b = ["--name", "hostb"];
    let joined = a.join(&s.invite("hosta"), &to_b);
    let told = text(&joined.stderr);
    assert!(told.contains(" run hostb true   (and remove"), "{told}");

    fs::write(s.paths().settings(), "listen = [\"127.0.0.2\"]\n").unwrap();
    let card = s.good(&["host", "rotate", "hosta", "--port", "9102"]);
    let file = scratch.0.join("a card");
    fs::write(&file, &card).unwrap();
    let arguments = ["host", "join", file.to_str().unwrap(), "--name", "hostb"];
    let told = text(&a.run(&arguments).stderr);
    for words in [
        "hostb: port=9002 stays, though the card says 9102\n",
        "hostb: addr=127.0.0.1 stays, though the card says 127.0.0.2\n",
        "if it cannot connect",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let line = |port: u16, address: &str| {
        let entry = a.entry("hostb");
        assert_eq!(entry.port, Some(port), "{:?}", a.lines());
        assert_eq!(entry.addresses.plain()[0].to_string(), address);
        assert_eq!(a.lines().len(), 1);
    };
    line(9002, "127.0.0.1");
    let done = suggested(&told, "what the card says: ", &scratch);
    assert!(done.status.success(), "{}", text(&done.stderr));
    line(9102, "127.0.0.2");
    assert!(!text(&done.stderr).contains("stays"));
    assert!(text(&done.stderr).contains(" run hostb true   (and remove"));

    // The server's own suggestion also finds its directory.
    let told = text(&s.run(&["host", "rotate", "hosta", "--again"]).stderr);
    let done = suggested(&told, "once hosta has joined: ", &scratch);
    assert!(done.status.success(), "{}", text(&done.stderr));
}

#[test]
fn the_port_of_another_program_is_not_ours() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    a.append("hostb ssh addr=127.0.0.1 port=22 user=jo\n");
    let joined = a.join(&s.invite("hosta"), &["--name", "hostb"]);
    let told = text(&joined.stderr);
    let words = "hostb: its method was ssh, and is cos now, at port 9002";
    assert!(joined.status.success() && told.contains(words), "{told}");
    let entry = a.entry("hostb");
    assert_eq!(entry.port, Some(9002));
    assert_eq!(entry.user.unwrap().as_str(), "jo");
}

#[test]
fn a_folder_does_not_join_itself() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    let card = s.invite("hosta");
    let before = content(&s.0);
    for arguments in [&["--name", "hostb"], ["--replace-key"].as_slice()] {
        let refused = s.join(&card, arguments);
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{told}");
        assert!(told.contains("made here") && told.contains("for hosta to join"));
        assert_eq!(content(&s.0), before);
    }
    // A directory without a host key has made no card.
    fs::remove_file(a.paths().host_key()).unwrap();
    assert!(a.join(&card, &[]).status.success());
}

#[test]
fn host_list_shows_denied_hosts_and_an_empty_list_suggests_commands() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let empty = s.run(&["host", "list"]);
    let told = text(&empty.stderr);
    assert!(empty.status.success() && empty.stdout.is_empty());
    for words in ["no host is in ", "host invite NAME"] {
        assert!(told.contains(words), "{told}");
    }
    let json = s.run(&["host", "list", "--json"]);
    assert_eq!(text(&json.stdout), "{\"hosts\":[],\"faults\":[]}\n");
    assert!(json.stderr.is_empty(), "{}", text(&json.stderr));

    s.invite("hosta");
    s.append("hostb ssh\n");
    assert!(!s.good(&["host", "list"]).contains("denied"));
    let json = || s.good(&["host", "list", "--json"]);
    assert_eq!(json().matches("\"denied\":null").count(), 2);
    let cookie = s.paths().cookie_in(&super::host("hosta"));
    let spoils: [(&str, &dyn Fn()); 2] = [
        ("it is denied: ", &|| chmod(&cookie, 0o644)),
        ("no cookie, so it is denied; `cosadm -C ", &|| {
            fs::remove_file(&cookie).unwrap()
        }),
    ];
    for (words, spoil) in spoils {
        spoil();
        let listed = s.good(&["host", "list"]);
        assert!(
            listed.contains(words) && !listed.contains("any command"),
            "{listed}"
        );
        let json = json();
        assert!(
            json.contains(&format!("\"denied\":\"{words}"))
                || json.contains(&format!("\"denied\":\"it has run-as= and {words}")),
            "{json}"
        );
        let checked = text(&s.run(&["check"]).stdout);
        assert!(checked.contains("problem  host hosta: "), "{checked}");
    }
}

#[test]
fn a_name_that_does_not_resolve_says_how_addresses_are_given() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let before = s.table();
    let name = "nowhere.invalid";
    let told = s.bad(1, &["host", "invite", name, "--run-as", &me()]);
    assert!(
        told.contains("does not resolve") && told.contains("with --addr "),
        "{told}"
    );
    assert_eq!(s.table(), before);
    // Later the line says so.
    s.invite(name);
    fs::write(
        s.paths().hostinfo(),
        s.table().replace(" addr=127.0.0.1", ""),
    )
    .unwrap();
    let told = s.bad(1, &["host", "rotate", name]);
    assert!(told.contains("with addr= on its line"), "{told}");
}

#[test]
fn check_warns_of_an_account_that_is_missing() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let says = |user: &str| {
        let settings = format!("daemon.user = \"{user}\"\n");
        fs::write(s.paths().settings(), settings).unwrap();
        let told = s.good(&["check"]);
        assert!(told.ends_with("no problem\n"), "{told}");
        told
    };
    let told = says("no-such-user-here");
    let warned = told.lines().find(|line| line.starts_with("warning "));
    if geteuid().is_root() {
        let warned = warned.unwrap();
        assert!(
            warned.starts_with("warning  user no-such-user-here: there is no such user")
                && warned.contains("useradd --system ")
                && warned.ends_with(" no-such-user-here"),
            "{warned}"
        );
        assert!(s.good(&["check", "--json"]).contains("\"warning\""));
    } else {
        assert_eq!(warned, None, "only root's daemon becomes another user");
    }
    assert!(!says("nobody").contains("warning "));
}

/// Settings that would prevent users from starting applications are reported.
#[test]
fn check_looks_at_applications_and_what_logins_need() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    assert!(!s.good(&["check"]).contains("gui"));
    let plain = scratch.0.join("plain");
    fs::write(&plain, "").unwrap();
    let plain = plain.display().to_string();
    let tables = [
        ("right", "/bin/sh", format!("[\"{}\"]", me())),
        ("all", "/bin/sh", "\"*\"".to_owned()),
        ("gone", "/nowhere/xterm", "\"*\"".to_owned()),
        ("plain", &plain, "\"*\"".to_owned()),
        ("folder", "/bin", "\"*\"".to_owned()),
        (
            "ghosts",
            "/bin/sh",
            "[\"no-such-user\", \"@no-such-group\"]".to_owned(),
        ),
        ("nobody", "/bin/sh", "[]".to_owned()),
    ]
    .map(|(name, program, users)| {
        format!("[gui.{name}]\ncommand = [\"{program}\"]\nusers = {users}\n")
    });
    fs::write(s.paths().settings(), tables.concat()).unwrap();
    let out = s.run(&["check"]);
    let told = text(&out.stdout);
    for line in [
        format!("ok       [gui.right]: {} may start /bin/sh", me()),
        "ok       [gui.all]: all users but root may start /bin/sh".to_owned(),
        "warning  [gui.gone]: command: /nowhere/xterm: No such file".to_owned(),
        format!("warning  [gui.plain]: command: {plain} is 0"),
        "warning  [gui.folder]: command: /bin is not a file".to_owned(),
        "warning  [gui.ghosts]: users: there is no user no-such-user on".to_owned(),
        "warning  [gui.ghosts]: users: there is no group no-such-group on".to_owned(),
        "warning  [gui.nobody]: users is empty, so no user".to_owned(),
    ] {
        assert!(told.lines().any(|l| l.starts_with(&line)), "{line}: {told}");
    }
    // PAM's file and the program that runs PAM, whatever the messages say about them.
    assert!(told.contains(" /etc/pam.d/cosserver: "), "{told}");
    assert!(told.contains("/cosserver-login: "), "{told}");
    let count = told.lines().filter(|l| l.starts_with("warning ")).count();
    let last = told.lines().last().unwrap();
    assert!(last.starts_with(&format!("{count} warnings, ")), "{told}");
    // Warnings without problems are not a failure.
    let problems = told.lines().filter(|l| l.starts_with("problem")).count();
    assert_eq!(out.status.success(), problems == 0, "{told}");
    assert!(
        told.lines()
            .filter(|l| l.starts_with("problem"))
            .all(|l| l.contains("/etc/pam.d/cosserver")),
        "{told}"
    );
}

/// Settings that would deny a host its subsystems, and what its line says of them.
#[test]
fn check_and_list_report_subsystems() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.invite("hosta");
    s.append("hostb cos run-as=nobody commands=/bin/true subsystems=right,off,none addr=::1\n");
    s.append("hostc cos run-as=nobody subsystems=- addr=::1\n");
    let table = "[subsystem]\nright = \"/bin/sh -c 'a b'\"\noff = \"\"\ngone = \"/nowhere/x\"\n\
                 sftp = \"/bin/sh\"\n";
    fs::write(s.paths().settings(), table).unwrap();
    let told = text(&s.run(&["check"]).stdout);
    for line in [
        "ok       subsystem right: /bin/sh -c a b",
        "ok       subsystem sftp: /bin/sh",
        "note     subsystem off: off = \"\" in [subsystem] turns it off",
        "warning  subsystem gone: /nowhere/x: No such file",
        "note     host hostb: it may ask for the subsystem none: [subsystem] has no none",
        "note     host hostb: it may ask for the subsystem off: off = \"\"",
    ] {
        assert!(told.lines().any(|l| l.starts_with(line)), "{line}: {told}");
    }
    assert!(!told.contains("subsystem right: [subsystem]"), "{told}");
    let shown = s.good(&["host", "show", "hostb"]);
    for line in ["right", "off", "none"] {
        let line = format!("  it may ask for           the subsystem {line}\n");
        assert!(shown.contains(&line), "{line}: {shown}");
    }
    let json = s.good(&["host", "list", "--json"]);
    for part in [
        "\"subsystems\":null",
        "\"subsystems\":[\"right\",\"off\",\"none\"]",
        "\"subsystems\":[]",
    ] {
        assert!(json.contains(part), "{part}: {json}");
    }
}

/// Services that do not work, or that nobody may use.
#[test]
fn check_reports_named_services() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let socket = scratch.0.join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (socket, file) = (socket.display(), s.paths().settings());
    let file = file.display();
    let me = me();
    let allow = "allow = [{ host = \"hosta\" }]";
    let table = format!(
        "[service.right]\nkind = \"command\"\ncommand = [\"/bin/sh\", \"-c\", \"x\"]\nas = \"{me}\"\n{allow}\n\
         [service.gone]\nkind = \"inetd\"\ncommand = [\"/nowhere/x\"]\nas = \"no-such-user\"\n{allow}\n\
         [service.socket]\nkind = \"forward\"\nto = \"unix:{socket}\"\n{allow}\n\
         [service.closed]\nkind = \"forward\"\nto = \"tcp:192.0.2.1:1\"\n\
         [service.nosocket]\nkind = \"forward\"\nto = \"unix:/nowhere/x\"\n{allow}\n\
         [service.file]\nkind = \"forward\"\nto = \"unix:{file}\"\n{allow}\n"
    );
    fs::write(s.paths().settings(), table).unwrap();
    let told = s.good(&["check"]);
    let found: Vec<&str> = told.lines().filter(|l| l.contains("[service.")).collect();
    let wanted = [
        "note     [service.closed]: nobody may use it: it has no rule in allow".to_owned(),
        "ok       [service.closed]: connects to tcp:192.0.2.1:1 as @caller".to_owned(),
        format!("ok       [service.right]: runs /bin/sh -c x as {me}"),
        format!("ok       [service.socket]: connects to unix:{socket} as @caller"),
        format!("warning  [service.file]: to: {file} is not a socket"),
        "warning  [service.gone]: as: there is no user no-such-user on this machine".to_owned(),
        "warning  [service.gone]: command: /nowhere/x: No such file or directory (os error 2)"
            .to_owned(),
        "warning  [service.nosocket]: to: /nowhere/x: No such file or directory (os error 2)"
            .to_owned(),
    ];
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, wanted, "{told}");
}

#[test]
fn who_tells_an_ordinary_user_which_daemon_was_queried() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let told = s.bad(1, &["who"]);
    assert!(told.contains("no cosserver(8) runs"), "{told}");
    assert_eq!(
        told.contains("; root sees the system's"),
        !geteuid().is_root(),
        "{told}"
    );
}

#[test]
fn the_version() {
    let scratch = Scratch::new();
    for flag in ["-V", "--version"] {
        let none = Folder(scratch.0.join("none"));
        let version = concat!("cosadm ", env!("CARGO_PKG_VERSION"), "\n");
        assert_eq!(none.good(&[flag]), version);
        assert_eq!(none.good(&["host", "list", flag]), version);
    }
}

#[test]
fn invite_reports_which_users_of_a_host_are_allowed() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let run_as = me();
    let invite = |name: &str, users: &[&str]| {
        let first = ["host", "invite", name, "--addr", "::1", "--run-as", &run_as];
        let out = s.run(&[&first[..], users].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
        text(&out.stderr)
    };
    let told = invite("hosta", &[]);
    let own = "its users each as the user of the same name here, never root";
    assert!(told.contains(own), "{told}");
    let told = invite("hostb", &["--users", "-"]);
    assert!(told.contains("none of its users"), "{told}");
    let pairs = "alice,bob:operator";
    let told = invite("hostc", &["--users", pairs]);
    assert!(
        told.contains("of its users alice as alice, bob as operator"),
        "{told}"
    );
    let told = invite("hostf", &["--users", "bob:no-such-user,eve:no-such-user"]);
    let missing = "there is no user no-such-user on this machine (yet)";
    assert_eq!(told.matches(missing).count(), 1, "{told}");
    let lines = s.lines();
    for (name, option) in [
        ("hostb", "users=-".to_owned()),
        ("hostc", format!("users={pairs}")),
    ] {
        let line = lines.iter().find(|l| l.starts_with(name)).unwrap();
        assert!(line.ends_with(&option), "{line}");
    }
    assert!(
        !lines
            .iter()
            .any(|l| l.starts_with("hosta") && l.contains("users="))
    );
    let list = s.good(&["host", "list"]);
    assert!(
        list.contains(own) && list.contains("bob as operator"),
        "{list}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&s.good(&["host", "show", "--json", "hostc"])).unwrap();
    assert_eq!(json["users"], serde_json::json!(["alice", "bob:operator"]));
    // An invalid list changes nothing.
    let before = content(&s.0);
    let out = s.run(&[
        "host", "invite", "hostd", "--addr", "::1", "--users", "a:b:c",
    ]);
    assert!(
        !out.status.success() && text(&out.stderr).contains("--users"),
        "{out:?}"
    );
    assert!(content(&s.0) == before);
    if geteuid().is_root() {
        // A host that makes no requests itself.
        let out = s.run(&[
            "host", "invite", "hoste", "--addr", "::1", "--users", "alice",
        ]);
        assert!(
            text(&out.stderr).contains("hoste asks nothing for itself"),
            "{out:?}"
        );
        assert!(
            !s.lines()
                .iter()
                .any(|l| l.starts_with("hoste") && l.contains("run-as"))
        );
        let list = s.good(&["host", "list"]);
        assert!(
            list.contains("of its users alice as alice may run any command here"),
            "{list}"
        );
    }
}
