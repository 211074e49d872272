//! Lines that a person wrote: duplicates, what is too long, and what is wrong many times.

use super::*;
use crate::registry::{inner, outer};

const ID: &str = "00112233445566778899aabbccddeeff";

fn inner(lines: &str) -> Document {
    let text = format!("cosserver idfile 1\n{lines}");
    Document::parse(text.as_bytes(), &inner::FORMAT, DESCRIBED).unwrap()
}

fn written(document: &Document) -> String {
    String::from_utf8(document.text(0)).unwrap()
}

/// Regression: it registered two machines, and one that was deleted was still valid.
#[test]
fn a_duplicate_password_is_removed_with_the_first() {
    let hash = "5a".repeat(32);
    let line = format!("password {hash} chosen 2026-12-01T00:00:00Z PC 1\n");
    let mut document = inner(&[&*line, &line].concat());
    let wrong: &[_] = &[(3, "duplicate password")];
    assert_eq!(document.wrong().first(), wrong);
    let taken = document.take_passwords(|p| p.hash == [0x5a; 32]).unwrap();
    assert_eq!(taken.name.as_str(), "PC 1");
    assert!(document.is_changed() && document.passwords().is_empty());
    assert!(!written(&document).contains(&hash));
}

/// Regression: the second line counted after the first was removed.
#[test]
fn a_duplicate_setting_is_removed_with_the_first() {
    let [one, two] = ["5a", "5b"].map(|digits| digits.repeat(32));
    let lines = format!("backdoor {one}\n# a comment\nbackdoor {two}\n");
    let mut document = inner(&lines);
    let wrong: &[_] = &[(4, "duplicate setting")];
    assert_eq!(document.wrong().first(), wrong);
    // As long as nothing is set, both stay.
    assert!(!document.is_changed());
    let text = written(&document);
    let kept = format!("backdoor {one}\n# a comment\nbackdoor {two}\n");
    assert!(text.ends_with(&kept), "{text}");
    document.set("backdoor", None).unwrap();
    assert!(document.is_changed());
    let text = written(&document);
    assert!(!text.contains("backdoor") && text.contains("# a comment"));

    let mut document = inner(&lines);
    document.set("backdoor", Some(one.as_bytes())).unwrap();
    assert!(document.is_changed() && !written(&document).contains(&two));
}

#[test]
fn a_value_that_another_system_would_end_is_rejected() {
    let mut document = inner("");
    for value in ["/a\r", "/a\nb"] {
        assert!(document.set("welcome", Some(value.as_bytes())).is_err());
    }
    assert!(!document.is_changed());
}

/// Regression: an exclusion behind many blanks was on the list, and the daemon did not see it.
#[test]
fn a_long_line_means_the_same_to_all_readers() {
    let exclude = format!("{ID} exclude 2026-12-01T00:00:00Z x");
    let include = format!("{ID} include 2026-12-01T00:00:00Z x");
    let mut lines = Vec::new();
    for line in [
        exclude,
        include,
        "level 1".into(),
        "#".into(),
        "password x".into(),
    ] {
        for blanks in [0, 2, 33, LINE - 32, LINE - 31, LINE, LINE + 8] {
            for length in [LINE - 1, LINE, LINE + 1, LINE + 2, LINE + 3, 3 * LINE] {
                for end in ["", "\r"] {
                    let line = format!("{}{line} ", " ".repeat(blanks));
                    lines.push(format!("{line:x<length$}{end}"));
                }
            }
        }
    }
    for line in lines {
        let mut kept = Vec::new();
        let file = format!("{line}\nnext\n");
        let length = next_line(&mut file.as_bytes(), &mut kept).unwrap();
        assert_eq!(length, u64::try_from(line.len()).unwrap() + 1);
        let whole = outer::FORMAT.line(line.as_bytes());
        let start: String = line.trim_start().chars().take(40).collect();
        let about = format!("{} bytes, {start:?}", line.len());
        assert_eq!(place(&kept), place(line.as_bytes()), "{about}");
        assert_eq!(outer::FORMAT.line(&kept), whole, "{about}");
        if line.trim_end().len() > LINE && !line.trim_start().starts_with('#') {
            assert!(matches!(whole, Line::Wrong(..)), "{about}: {whole:?}");
        }
    }
}

/// Regression: each took 24 bytes, which was 14 times the file. A host that shares the folder can
/// write such a file.
#[test]
fn many_wrong_lines_are_counted() {
    let document = inner(&"x\n".repeat(100_000));
    assert_eq!(document.wrong().count(), 100_000);
    let first = document.wrong().first();
    assert_eq!((first.len(), first[0].0), (DESCRIBED, 2));
    assert_eq!(first[DESCRIBED - 1].0, DESCRIBED + 1);
    // Those that are found last are in the order of the file as well.
    let deleted = format!("{ID} deleted 2026-12-01T00:00:00Z\n").repeat(3);
    let document = inner(&format!("{deleted}{}", "x\n".repeat(2 * DESCRIBED)));
    let numbers = document.wrong().first().iter().map(|(number, _)| *number);
    assert!(numbers.eq((3..).take(DESCRIBED)));
    assert_eq!(document.wrong().count(), 2 * DESCRIBED + 2);
}
