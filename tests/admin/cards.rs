//! Where a card is written, and setup in two commands: `-o`, repeated invitations, and the
//! configuration directory that `host invite` and `host join` create if it is missing.

use std::fs;
use std::path::Path;

use cosserver::config::card::Card;
use cosserver::config::machines;
use cosserver::secret::PublicKey;
use nix::unistd::geteuid;

use super::{Folder, Scratch, chmod, content, host, me, mode, text};

/// Returns the arguments of an invitation of hosta from loopback.
fn inviting<'a>(me: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let terms = ["host", "invite", "hosta", "--addr", "127.0.0.1", "--run-as"];
    [&terms[..], &[me], more].concat()
}

fn is_card(path: &Path) -> bool {
    Card::parse(&fs::read(path).unwrap()).is_ok()
}

#[test]
fn two_commands_set_up_trust_on_new_hosts() {
    let scratch = Scratch::new();
    let [s, a] = ["S", "A"].map(|name| Folder(scratch.0.join(name)));
    let card = scratch.0.join("card");
    let card = card.to_str().unwrap();
    s.good(&inviting(&me(), &["-o", card]));
    assert_eq!(mode(Path::new(card)), 0o600);
    // An invalid card creates no directory.
    assert!(!a.join("no card", &[]).status.success());
    assert!(!a.0.exists());
    a.good(&["host", "join", card, "--name", "hostb"]);
    for folder in [&s, &a] {
        assert!(folder.good(&["check"]).ends_with("no problem\n"));
    }
    // A complete directory is left as it is.
    fs::remove_file(a.paths().host_key()).unwrap();
    a.good(&["host", "join", card, "--name", "hostc"]);
    assert!(!a.paths().host_key().exists());
}

#[test]
fn a_card_file_is_new_and_private_or_nothing_is_changed() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let file = scratch.0.join("card");
    let name = file.to_str().unwrap();
    fs::write(&file, "mine").unwrap();
    let before = content(&s.0);
    let told = s.bad(1, &inviting(&me(), &["-o", name]));
    assert!(told.contains("card: the file exists already"), "{told}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    // A symbolic link is not followed.
    let link = scratch.0.join("link");
    std::os::unix::fs::symlink(scratch.0.join("elsewhere"), &link).unwrap();
    s.bad(1, &inviting(&me(), &["-o", link.to_str().unwrap()]));
    let nowhere = scratch.0.join("none/card");
    let told = s.bad(1, &inviting(&me(), &["-o", nowhere.to_str().unwrap()]));
    assert!(told.contains("not written: "), "{told}");
    assert_eq!(content(&s.0), before);
    assert!(!scratch.0.join("elsewhere").exists());

    // A command that fails after writing the card leaves none.
    let fresh = scratch.0.join("fresh");
    let fresh_name = fresh.to_str().unwrap();
    if !geteuid().is_root() {
        chmod(&s.paths().cookies(), 0o500);
        s.bad(1, &inviting(&me(), &["-o", fresh_name]));
        assert!(!fresh.exists());
        chmod(&s.paths().cookies(), 0o700);
    }
    s.good(&inviting(&me(), &["-o", fresh_name]));
    assert!(is_card(&fresh) && mode(&fresh) == 0o600);
    // The same for rotate, and - is standard output.
    s.bad(1, &["host", "rotate", "hosta", "-o", fresh_name]);
    let second = scratch.0.join("second");
    let second = second.to_str().unwrap();
    s.good(&["host", "rotate", "hosta", "--output", second]);
    assert!(is_card(Path::new(second)) && mode(Path::new(second)) == 0o600);
    let printed = s.good(&["host", "rotate", "hosta", "--again", "-o", "-"]);
    assert!(Card::parse(printed.as_bytes()).is_ok());
    let told = s.bad(2, &["host", "rotate", "hosta", "--finish", "-o", "x"]);
    assert!(told.contains("--output has no meaning"), "{told}");
}

#[test]
fn a_repeated_invitation_leaves_no_empty_card() {
    let scratch = Scratch::new();
    let s = scratch.init("S");
    let card = s.invite("hosta");
    let before = content(&s.0);
    // A file that the shell has truncated gets the same card.
    let again = s.run(&inviting(&me(), &[]));
    assert!(again.status.success());
    assert_eq!(text(&again.stdout), card);
    let told = text(&again.stderr);
    assert!(
        told.contains("hosta was invited already: nothing is changed"),
        "{told}"
    );
    assert_eq!(content(&s.0), before);
    // Without terms the line's terms stay; also as root, who must give some at first.
    assert_eq!(s.good(&["host", "invite", "HostA"]), card);
    assert_eq!(content(&s.0), before);
    // With -o an existing card stays.
    let file = scratch.0.join("card");
    fs::write(&file, &card).unwrap();
    s.bad(1, &inviting(&me(), &["-o", file.to_str().unwrap()]));
    assert_eq!(fs::read(&file).unwrap(), card.as_bytes());
    assert_eq!(content(&s.0), before);

    // The command line's terms apply afterwards, and the rest of the line stays.
    let table = s
        .table()
        .replace("hosta cos", "hosta ssh commands=\"/bin/df\"");
    fs::write(s.paths().hostinfo(), table).unwrap();
    let again = s.run(&["host", "invite", "hosta", "--addr=127.0.0.0/8"]);
    assert_eq!(text(&again.stdout), card);
    let told = text(&again.stderr);
    assert!(told.contains("its line is changed"), "{told}");
    let line = format!(
        "hosta ssh commands=/bin/df addr=127.0.0.0/8 run-as={}",
        me()
    );
    assert_eq!(s.lines(), [line.replace("/bin/df ", "\"/bin/df\" ")]);

    // The old card cannot replace a recorded machine, and the message says so.
    machines::record(&s.paths(), &host("hosta"), PublicKey([7; 32])).unwrap();
    let told = text(&s.run(&["host", "invite", "hosta"]).stderr);
    assert!(told.contains(" host rotate hosta` prints a card"), "{told}");
    // The newest card, while a rotation is not finished.
    let newest = s.good(&["host", "rotate", "hosta"]);
    assert_eq!(s.good(&["host", "invite", "hosta"]), newest);
    // A lost cookie is created again.
    fs::remove_file(s.paths().cookie_in(&host("hosta"))).unwrap();
    let other = s.good(&["host", "invite", "hosta"]);
    assert!(Card::parse(other.as_bytes()).is_ok() && other != newest);
}
