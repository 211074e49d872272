//! Where an application displays, and remote GUI login from inside one.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, TcpListener};
use std::process::Command;

use crate::daemon::session::{Session, later};
use crate::daemon::{COS, needs_root};
use crate::login::{Logins, Plan};

const APPLICATIONS: &str = "
[gui.display]
command = [\"/bin/sh\", \"-c\", \"echo $GUI_HOST $GUI_PORT\"]
users = [\"*\", \"root\"]
remote = true
[gui.calls]
command = [\"/bin/bash\", \"-c\", \"exec 5<>/dev/tcp/$GUI_HOST/$GUI_PORT; echo a window >&5; read x <&5; echo $x\"]
users = [\"*\", \"root\"]
[gui.who]
command = [\"/bin/sh\", \"-c\", \"id -un; echo $COS_HOST $COS_USER $GUI_HOST $GUI_PORT\"]
users = [\"root\", \"alice\"]
remote = true
[gui.here]
command = [\"/bin/echo\", \"hello\"]
users = [\"*\", \"root\"]
";

fn start() -> Logins {
    let plan = Plan {
        applications: APPLICATIONS,
        ..Plan::default()
    };
    plan.start()
}

#[test]
fn the_application_calls_the_pc_back() {
    if !needs_root() {
        return;
    }
    let l = start();
    for (flag, here) in [("-4", "127.0.0.1"), ("-6", "::1")] {
        // The display of the PC.
        let here: IpAddr = here.parse().unwrap();
        let listener = TcpListener::bind((here, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = later(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&socket).read_line(&mut line).unwrap();
            socket.write_all(b"a click\n").unwrap();
            line
        });
        let display = format!(":{port}");
        let flags = [flag, "--display", &display];
        let ended = l.ended(&mut l.gui("alice", "secret\n", &flags, &["calls"]));
        assert_eq!(ended.out, ["a click"], "{ended:?}\n{}", l.log_text());
        assert_eq!(seen.get(), "a window\n");
    }
}

#[test]
fn gui_host_and_gui_port_are_the_pcs_or_what_display_says() {
    if !needs_root() {
        return;
    }
    let l = start();
    for (flags, shown) in [
        (&[][..], "127.0.0.1 9003"),
        (&["-6"], "::1 9003"),
        (&["--display", ":9103"], "127.0.0.1 9103"),
        (&["--display", "192.0.2.7:9103"], "192.0.2.7 9103"),
        (&["--display", "[2001:db8::7]:9103"], "2001:db8::7 9103"),
        (&["--display", "pc.example:9003"], "pc.example 9003"),
    ] {
        let ended = l.ended(&mut l.gui("alice", "secret\n", flags, &["display"]));
        assert_eq!(ended.out, [shown], "{flags:?}: {ended:?}");
    }
    for display in ["9103", ":0", ":99999", "pc:x", "2001:db8::7:"] {
        let ended = l.ended(&mut l.gui("alice", "secret\n", &["--display", display], &["display"]));
        assert_eq!(
            (ended.status, ended.out.len()),
            (Some(255), 0),
            "{display}: {ended:?}"
        );
    }
}

/// Creates an application by the mechanism `hash`, as root of the host.
pub(crate) fn by_hash(l: &Logins, words: &[&str]) -> Command {
    inside(l, &[], words)
}

/// Creates `cos gui` as an application inside runs it: GUI_HOST and GUI_PORT are set.
fn inside(l: &Logins, flags: &[&str], words: &[&str]) -> Command {
    let mut command = Command::new(COS);
    command
        .arg("-C")
        .arg(l.d.client())
        .args(["gui", "-p", &l.d.port.to_string()]);
    command
        .args(["-o", "BatchMode=yes"])
        .args(flags)
        .arg("hostb")
        .args(words);
    command.env("GUI_HOST", "192.0.2.9").env("GUI_PORT", "9444");
    command.env_remove("COS_ASKPASS");
    command
}

#[test]
fn inside_an_application_a_host_is_asked_by_hash_and_displays_on_the_same_pc() {
    if !needs_root() {
        return;
    }
    let l = start();
    let hostinfo = l.d.server().join("hostinfo");
    let text = fs::read_to_string(&hostinfo).unwrap();
    fs::write(
        &hostinfo,
        text.replace("run-as=root", "run-as=root,alice,bob,expired"),
    )
    .unwrap();
    l.d.signal(nix::sys::signal::Signal::SIGHUP);
    l.d.log.wait("reloaded");

    let run = |flags: &[&str], words: &[&str]| l.ended(&mut inside(&l, flags, words));
    let ended = run(&[], &["who"]);
    assert_eq!(
        ended.out,
        ["root", "hosta root 192.0.2.9 9444"],
        "{ended:?}\n{}",
        l.log_text()
    );
    let ended = run(&["-l", "alice"], &["who"]);
    assert_eq!(
        ended.out,
        ["alice", "hosta root 192.0.2.9 9444"],
        "{ended:?}\n{}",
        l.log_text()
    );
    // PAM opened a session for each, without a prompt, and knows which user requested it.
    l.all_closed(2);
    assert!(
        l.notes().iter().all(|n| n.contains(" ruser=root ")),
        "{:?}",
        l.notes()
    );

    let refused = |flags: &[&str], words: &[&str], why: &str| {
        let ended = run(flags, words);
        assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
        let reference = crate::login::reference(&ended.err[0]);
        let line = l.d.log.wait(&format!("ref={reference}"));
        assert!(line.contains(why), "{why}: {line}");
        // There was no prompt for a password, and the message says how to give one.
        let way = "env -u GUI_HOST -u GUI_PORT cos gui --display 192.0.2.9:9444 ";
        assert!(ended.err.concat().contains(way), "{ended:?}");
    };
    // Only applications that are marked for it, for users that the table and the host's line name.
    refused(&["-l", "alice"], &["here"], "has no remote = true");
    refused(&["-l", "bob"], &["who"], "does not name bob");
    refused(
        &["-l", "locked"],
        &["who"],
        "run-as= of hosta does not name locked",
    );
    refused(&["-l", "alice"], &["/bin/sh"], "there is no [gui./bin/sh]");
    refused(
        &["-l", "alice"],
        &["who", "more"],
        "has no arguments = true",
    );
    // A host vouches for a user's identity, not for the user's account.
    refused(&["-l", "expired"], &["display"], "User account has expired");
    l.all_closed(2);
    // With a password, that way allows what the host's word does not.
    let display = ["--display", "192.0.2.9:9444"];
    let ended = l.ended(&mut l.gui("alice", "secret\n", &display, &["here"]));
    assert_eq!(ended.out, ["hello"], "{ended:?}");
}

#[test]
fn module_cannot_change_the_user_of_a_hash_login() {
    if !needs_root() {
        return;
    }
    let stack = crate::login::STACK.replace(
        "account required",
        "account required BARE rename=bob\naccount required",
    );
    let l = Plan {
        applications: APPLICATIONS,
        ..Plan::stack(&stack)
    }
    .start();
    let ended = l.ended(&mut inside(&l, &[], &["display"]));
    assert_eq!((ended.status, ended.out.len()), (Some(255), 0), "{ended:?}");
    let line = l.d.log.wait("denied");
    assert!(
        line.contains("PAM changed the user to bob from root"),
        "{line}"
    );
    assert_eq!(l.notes(), Vec::<String>::new());
}

#[test]
fn a_host_without_a_cookie_asks_for_the_password_and_the_display_is_inherited() {
    if !needs_root() {
        return;
    }
    let l = start();
    fs::remove_dir_all(l.d.client().join("cookies")).unwrap();
    let mut command = l.gui("alice", "secret\n", &[], &["display"]);
    command.env("GUI_HOST", "192.0.2.9").env("GUI_PORT", "9444");
    let ended = l.ended(&mut command);
    assert_eq!(ended.out, ["192.0.2.9 9444"], "{ended:?}");
    // Explicit values go before inherited ones.
    let mut command = l.gui(
        "alice",
        "secret\n",
        &["--display", "192.0.2.7:9103"],
        &["display"],
    );
    command.env("GUI_HOST", "192.0.2.9").env("GUI_PORT", "9444");
    assert_eq!(l.ended(&mut command).out, ["192.0.2.7 9103"]);
    let mut command = l.gui("alice", "secret\n", &[], &["display"]);
    let ended = l.ended(command.env("GUI_HOST", "192.0.2.9").env("GUI_PORT", "x"));
    assert!(
        ended.err.concat().contains("GUI_PORT=\"x\" is not a port"),
        "{ended:?}"
    );
}

#[test]
fn application_of_a_hash_login_ends_when_its_client_is_killed() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        applications: "
[gui.stay]
command = [\"/bin/sh\", \"-c\", \"echo $$; exec sleep 600\"]
users = [\"*\", \"root\"]
remote = true
",
        ..Plan::default()
    }
    .start();
    let session = Session::spawn(&mut inside(&l, &[], &["stay"]));
    let pid = session.out.wait_from(0, |_| true).1.parse().unwrap();
    session.signal(nix::sys::signal::Signal::SIGKILL);
    assert!(crate::daemon::session::ends(pid), "it was not hung up");
    l.all_closed(1);
}

/// Regression: a login at a prompt that a host had requested locked out all other hosts.
#[test]
fn idle_prompt_of_a_host_does_not_block_other_hosts() {
    if !needs_root() {
        return;
    }
    let l = Plan {
        settings: "[login]\nwaiting = 2\n[daemon]\nrefusal-interval = 1\n",
        applications: APPLICATIONS,
        ..Plan::default()
    }
    .start();
    let hostinfo = l.d.server().join("hostinfo");
    let text = fs::read_to_string(&hostinfo).unwrap();
    fs::write(&hostinfo, text.replace("run-as=root", "run-as=stale,alice")).unwrap();
    // The password has expired, and no user is present to give a new one.
    let sits = ["-4", "-v", "-l", "stale", "--password-fd", "0"];
    let sitters = [0, 1].map(|_| {
        let sitter = Session::spawn(&mut inside(&l, &sits, &["display"]));
        sitter.err.wait("it asks");
        sitter
    });
    let ended = l.ended(&mut inside(&l, &["-6", "-l", "alice"], &["display"]));
    assert_eq!(ended.out, ["192.0.2.9 9444"], "{ended:?}\n{}", l.log_text());
    let line = l.d.log.wait("its login was the oldest");
    assert!(line.contains("peer=127.0.0.1 cause=busy"), "{line}");
    // Clients from the same address get no more room than before.
    let ended = l.ended(&mut inside(&l, &["-4", "-l", "alice"], &["display"]));
    assert_eq!(ended.out, ["192.0.2.9 9444"], "{ended:?}\n{}", l.log_text());
    drop(sitters);
}
