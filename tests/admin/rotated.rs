//! Rotation and joining when something is lost on the way: a host is never locked out as a side
//! effect, and the messages are correct.

use std::fs::{self, File};
use std::process::{Output, Stdio};

use cosserver::config::card::Card;
use cosserver::config::cookie;
use cosserver::config::machines;
use cosserver::secret::{PublicKey, Secret};

use super::{COSADM, Folder, Scratch, content, host, me, text};

const ROTATE: &[&str] = &["host", "rotate", "hosta"];

fn live(folder: &Folder) -> Vec<Secret> {
    cookie::load_in(&folder.paths(), &host("hosta"))
        .ok()
        .unwrap()
}

/// Runs a command with a full device as standard output.
fn full(folder: &Folder, arguments: &[&str]) -> Output {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = folder.command(arguments);
    let child = command.stdout(full).stderr(Stdio::piped()).spawn();
    child.unwrap().wait_with_output().unwrap()
}

/// Returns a command of `cosadm` as it is suggested for a directory.
fn said(folder: &Folder, words: &str) -> String {
    format!("`cosadm -C {} {words}`", folder.0.display())
}

#[test]
fn a_card_that_was_not_written_takes_its_cookie_back() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    // At an invitation: the line stays, and a rotation creates the cookie.
    let invite = ["host", "invite", "hosta", "--addr=::1", "--run-as", &me()];
    let output = full(&s, &invite);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("its cookie is withdrawn"), "{told}");
    let rotate = said(&s, "host rotate hosta");
    assert!(told.contains(&format!("{rotate} prints another")), "{told}");
    assert!(!s.paths().cookie_in(&host("hosta")).exists());
    s.good(ROTATE);
    let first = live(&s).remove(0);
    // At a rotation: everything is unchanged, including the recorded machine key.
    machines::record(&s.paths(), &host("hosta"), PublicKey([7; 32])).unwrap();
    let before = content(&s.0);
    let output = full(&s, ROTATE);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let words = "its cookie is withdrawn: hosta asks with the one it had";
    assert!(told.contains(words), "{told}");
    assert_eq!(content(&s.0), before);
    // So the next one does not drop the cookie in use.
    s.good(ROTATE);
    assert!(live(&s)[1].same(&first));
    let before = content(&s.0);
    let told = text(&full(&s, &["host", "rotate", "hosta", "--again"]).stderr);
    assert!(told.contains("hosta has the two it had"), "{told}");
    assert_eq!(content(&s.0), before);
}

#[test]
fn live_cookie_is_not_dropped_by_default() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.invite("hosta");
    let first = live(&s).remove(0);
    s.good(ROTATE);
    let second = live(&s).remove(0);
    let before = content(&s.0);
    let told = s.bad(1, ROTATE);
    assert!(
        told.contains(&said(&s, "host rotate hosta --finish")),
        "{told}"
    );
    assert_eq!(content(&s.0), before);
    // --again replaces the newer cookie, because its card is lost.
    let output = s.run(&["host", "rotate", "hosta", "--again"]);
    assert!(text(&output.stderr).contains("the newer of its two cookies"));
    let card = Card::parse(&output.stdout).ok().unwrap();
    let now = live(&s);
    assert!(now.len() == 2 && now[0].same(&card.cookie) && now[1].same(&first));
    assert!(!now.iter().any(|cookie| cookie.same(&second)));
    for flag in [["--again"].as_slice(), &["--port", "7"]] {
        let arguments = [ROTATE, &["--finish"], flag].concat();
        assert!(s.bad(2, &arguments).contains("has no meaning"));
    }
    assert_eq!(live(&s).len(), 2);
}

#[test]
fn finishing_says_what_it_drops() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.invite("hosta");
    let finish = || text(&s.run(&["host", "rotate", "hosta", "--finish"]).stderr);
    let unseen = "has not asked this host since";
    for asked in [false, true] {
        s.good(ROTATE);
        if asked {
            machines::record(&s.paths(), &host("hosta"), PublicKey([7; 32])).unwrap();
        }
        let told = finish();
        assert!(told.contains("its older cookie is dropped"), "{told}");
        assert!(told.contains("it is denied now"), "{told}");
        assert!(told.contains(&said(&s, "host rotate hosta")), "{told}");
        assert_eq!(told.contains(unseen), !asked, "{told}");
        assert_eq!(live(&s).len(), 1);
    }
    assert!(finish().contains("nothing was changed"));
}

#[test]
fn a_line_without_a_cookie_gets_one() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.invite("hosta");
    let lines = s.lines();
    fs::remove_file(s.paths().cookie_in(&host("hosta"))).unwrap();
    // Every message has the same advice, and it works.
    let rotate = said(&s, "host rotate hosta");
    let fault = cookie::load_in(&s.paths(), &host("hosta")).err().unwrap();
    for told in [
        fault.to_string(),
        text(&s.run(&["check"]).stdout),
        s.good(&["host", "list"]),
    ] {
        assert!(told.contains(&rotate), "{told}");
    }
    let output = s.run(ROTATE);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("its only one") && !told.contains("--finish"));
    let card = Card::parse(&output.stdout).ok().unwrap();
    assert!(live(&s).len() == 1 && live(&s)[0].same(&card.cookie));
    assert_eq!(s.lines(), lines);
    assert!(s.good(&["check"]).ends_with("no problem\n"));
    // A host that has no rights yet needs an invitation.
    s.append("hostb cos addr=::1\n");
    let told = s.bad(1, &["host", "rotate", "hostb"]);
    assert!(told.contains(&said(&s, "host invite hostb")), "{told}");
}

fn mode(file: &std::path::Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(file).unwrap().mode() & 0o7777
}

#[test]
fn no_card_is_made_where_it_would_be_lost() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    s.invite("hosta");
    let before = content(&s.0);
    let me = me();
    let invite = ["host", "invite", "hostb", "--addr=::1", "--run-as", &me];
    for arguments in [ROTATE, &invite] {
        for sink in [">&-", ">/dev/null", "1<hostinfo"] {
            let script = format!("exec \"$0\" \"$@\" {sink}");
            let mut command = std::process::Command::new("/bin/sh");
            command.args(["-c", &script, COSADM, "-C"]).arg(&s.0);
            let output = command.current_dir(&s.0).args(arguments).output().unwrap();
            let told = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{sink}: {told}");
            assert!(told.contains("nothing was changed"), "{told}");
            assert_eq!(content(&s.0), before);
        }
        // The mode of a program, for example, which a careless 1< would have changed.
        assert_eq!(mode(&s.0.join("hostinfo")), 0o644);
    }
}

#[test]
fn joining_says_whether_anything_changed() {
    let scratch = Scratch::new();
    let (s, a) = (scratch.init("S"), scratch.init("A"));
    let to_b = ["--name", "hostb"];
    let old = s.invite("hosta");
    let told = |card: &str| text(&a.join(card, &to_b).stderr);
    let same = "this card was joined already; nothing was changed";
    let other = "replaces another";
    let first = told(&old);
    assert!(!first.contains(same) && !first.contains(other), "{first}");
    assert!(told(&old).contains(same));
    let new = s.good(ROTATE);
    let replaced = told(&new);
    assert!(
        replaced.contains(other) && !replaced.contains(same),
        "{replaced}"
    );
    assert!(told(&new).contains(same) && told(&old).contains(other));
}
