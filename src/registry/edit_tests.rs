//! Tests of the edits of a registry file.

use super::*;
use crate::config::scratch::Scratch;
use crate::registry::{Id, Inner, Name};

const A: &str = "00112233445566778899aabbccddeeff remote 2026-11-30T19:00:00Z";
const B: &str = "ffeeddccbbaa99887766554433221100 remote 2026-11-30T19:00:00Z";

fn inner(scratch: &Scratch, text: &str) -> Inner {
    scratch.file("idfile", text, 0o600);
    Inner::open(&scratch.path().join("idfile")).unwrap()
}

fn told(checked: &Checked) -> Vec<String> {
    let words = |fault: &Fault| fault.to_string().replace("/copy", "copy");
    checked.faults().iter().map(words).collect()
}

fn written(scratch: &Scratch) -> Vec<String> {
    let text = std::fs::read_to_string(scratch.path().join("idfile")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with("sorted "));
    lines.map(str::to_owned).collect()
}

#[test]
fn comments_stay_where_they_were_and_machines_are_sorted() {
    let scratch = Scratch::new();
    let edit = inner(&scratch, "cosserver idfile 1\nchanges 7\n")
        .edit()
        .unwrap();
    let text = format!(
        "cosserver idfile 1\n# old\nchanges 3\n# b\nremote-only yes\n# a\nbuild-mode no\n\n\
         # of B\n{B} bee\n# of A\n\n{A} ay\n# last"
    );
    let checked = edit.check(Path::new("/copy"), text.as_bytes());
    assert_eq!(told(&checked), Vec::<String>::new());
    assert_eq!(edit.install(checked), Ok(Vec::new()));
    let lines = [
        "cosserver idfile 1",
        "changes 8",
        "# a",
        "build-mode no",
        "# b",
        "remote-only yes",
        "# old",
        "# of A",
        "",
        &format!("{A} ay"),
        "",
        "# of B",
        &format!("{B} bee"),
        "# last",
    ];
    assert_eq!(written(&scratch), lines);
    // The next change keeps them as well.
    let mut again = Inner::open(&scratch.path().join("idfile")).unwrap();
    again
        .rename(&Id::parse(&A[..32]).unwrap(), &Name::parse("x").unwrap())
        .unwrap();
    let renamed = lines.map(|line| line.replace(" ay", " x").replace("changes 8", "changes 9"));
    assert_eq!(written(&scratch), renamed);
}

#[test]
fn only_new_wrong_lines_are_faults() {
    let scratch = Scratch::new();
    let before = format!("cosserver idfile 1\nbuild-mod no\n{A} ay\n{A} again\n");
    let edit = inner(&scratch, &before).edit().unwrap();
    let check = |text: &str| told(&edit.check(Path::new("/copy"), text.as_bytes()));
    assert_eq!(check(&before), Vec::<String>::new());
    let moved = format!("cosserver idfile 1\n\n{A} ay\n{A} again\nbuild-mod no\n");
    assert_eq!(check(&moved), Vec::<String>::new());
    // A second one of the same is new.
    let twice = format!("{before}build-mod no\n");
    assert_eq!(
        check(&twice),
        ["copy:5: it is no setting, password or machine"]
    );
    // Also if the two lines of a machine are apart.
    let apart = format!("{before}{B} bee\n{A} once more\n{B} bea\n");
    let double = "the machine has such a line already";
    assert_eq!(
        check(&apart),
        [format!("copy:6: {double}"), format!("copy:7: {double}")]
    );
    for foreign in ["", "\n", "cosserver sestab 1\n", "cosserver idfile 2\n"] {
        let first = "copy:1: the first line must stay as it was: cosserver idfile 1";
        assert_eq!(check(foreign), [first], "{foreign:?}");
        let checked = edit.check(Path::new("/copy"), foreign.as_bytes());
        assert!(checked.document.is_none());
    }
    let checked = edit.check(Path::new("/copy"), moved.as_bytes());
    let left = edit.install(checked).unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_change_without_the_lock_is_not_lost() {
    let scratch = Scratch::new();
    let edit = inner(&scratch, "cosserver idfile 1\n").edit().unwrap();
    let text = format!("cosserver idfile 1\n{A} ay\n");
    let checked = edit.check(Path::new("/copy"), text.as_bytes());
    scratch.file("idfile", "cosserver idfile 1\n# mine\n", 0o600);
    let fault = edit.install(checked).unwrap_err().to_string();
    assert!(
        fault.contains("without its lock; nothing was changed"),
        "{fault}"
    );
    assert_eq!(written(&scratch), ["cosserver idfile 1", "# mine"]);
}

/// Regression: only the first thousand were compared, so one that moved among them seemed new.
#[test]
fn of_many_wrong_lines_one_can_be_mended_and_none_replaced() {
    let scratch = Scratch::new();
    let wrong: Vec<String> = (0..1_500).map(|n| format!("wrong{n}\n")).collect();
    let old = format!("cosserver idfile 1\n{}", wrong.concat());
    let edit = inner(&scratch, &old).edit().unwrap();
    let other = old.replace("wrong1400\n", "other\n");
    let checked = edit.check(Path::new("/copy"), other.as_bytes());
    assert_eq!(checked.faults().len(), 1);
    let mended = old.replace("wrong3\n", "# mended\n");
    let checked = edit.check(Path::new("/copy"), mended.as_bytes());
    assert_eq!(told(&checked), Vec::<String>::new());
    edit.install(checked).unwrap();
    assert!(written(&scratch).contains(&"# mended".to_owned()));
}
