//! The house itself: what may see what, and where unsafe code and long files
//! may be.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test panics where something is not as it should be, and starts programs"
)]

mod tree;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tree::{files, relative};

/// The longest file of source, in lines.
const LINES: usize = 450;

/// What each room may name besides itself; the room itself is the first part
/// of a path under `src/`. `main.rs` and `bin/` pick a role and call it.
const ARROWS: &[(&str, &str)] = &[
    ("fault", ""),
    ("refusal", ""),
    ("curve", ""),
    ("secret", "curve fault sys"),
    ("sys", "fault secret log"),
    ("log", "fault sys"),
    ("wire", "curve secret fault"),
    ("channel", "wire sys log secret fault"),
    ("config", "wire sys log secret fault"),
    ("gate", "channel wire sys log fault"),
    ("relay", "channel wire sys log fault"),
    ("credential", "config wire sys log secret refusal fault"),
    ("policy", "credential config wire secret refusal fault"),
    (
        "service",
        "policy credential config wire sys log secret refusal fault",
    ),
    (
        "monitor",
        "service policy credential config channel wire sys log secret refusal fault",
    ),
    ("client", "config wire sys log secret fault"),
    ("admin", "config wire sys log secret fault"),
];

fn sources() -> Vec<PathBuf> {
    files()
        .into_iter()
        .filter(|p| relative(p).starts_with("src/") && p.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// A source without its comments, and without its tests, which stand last.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    if relative(path).ends_with("tests.rs") {
        return String::new();
    }
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("#[cfg(test)]") {
            break;
        }
        out.push_str(line.split("//").next().unwrap());
        out.push('\n');
    }
    out
}

/// The first parts of all paths that begin with `root::`, also in braces.
fn named(code: &str, root: &str) -> BTreeSet<String> {
    let start = format!("{root}::");
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(&start) {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + start.len()..];
        if rest.starts_with('{') {
            let mut depth = 0;
            let mut item = String::new();
            for c in rest.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 || (depth == 1 && c == ',') {
                    found.insert(first_word(&item));
                    item.clear();
                    if depth == 0 {
                        break;
                    }
                } else if !(depth == 1 && c == '{') {
                    item.push(c);
                }
            }
        } else {
            found.insert(first_word(rest));
        }
    }
    found.remove("");
    found
}

fn first_word(text: &str) -> String {
    text.trim_start()
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn room(path: &Path) -> String {
    let name = relative(path).strip_prefix("src/").unwrap();
    name.split('/')
        .next()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}

#[test]
fn names_are_found_in_paths_and_in_braces() {
    let found = named(
        "use crate::{a::b, c::{d, e}, f};\nuse crate::g::h; mycrate::no; crate::i()",
        "crate",
    );
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["a", "c", "f", "g", "i"]
    );
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    let mut rooms = BTreeSet::new();
    for path in sources() {
        let room = room(&path);
        if matches!(&*room, "main" | "bin" | "lib") {
            continue;
        }
        rooms.insert(room.clone());
        let Some((_, may)) = ARROWS.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!(
                "{}: the room {room} has no arrows here",
                relative(&path)
            ));
            continue;
        };
        let code = code(&path);
        for seen in named(&code, "crate") {
            if seen != room && !may.split(' ').any(|name| name == seen) {
                wrong.push(format!("{}: {room} must not see {seen}", relative(&path)));
            }
        }
        // Nobody climbs out of a room by way of `super`.
        let depth = relative(&path).split('/').count() - 1 - usize::from(path.ends_with("mod.rs"));
        if code.contains(&"super::".repeat(depth)) {
            wrong.push(format!("{}: climbs out of {room}", relative(&path)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let gone: Vec<_> = ARROWS
        .iter()
        .filter(|(name, _)| !rooms.contains(*name))
        .collect();
    assert!(gone.is_empty(), "these rooms are gone: {gone:?}");
}

#[test]
fn only_main_sees_a_process() {
    for path in sources() {
        let seen = named(&code(&path), "cosserver");
        if relative(&path) == "src/main.rs" {
            continue;
        }
        for process in ["gate", "monitor", "relay"] {
            assert!(
                !seen.contains(process),
                "{} sees {process}",
                relative(&path)
            );
        }
    }
}

#[test]
fn unsafe_code_is_in_sys_alone() {
    for path in sources() {
        if relative(&path).starts_with("src/sys/") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split("//").next().unwrap();
            let word = line
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|w| w == "unsafe");
            assert!(
                !word,
                "{}:{number}: unsafe belongs into src/sys/",
                relative(&path)
            );
        }
    }
}

#[test]
fn no_file_is_too_long() {
    for path in sources() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(
            lines <= LINES,
            "{}: {lines} lines, {LINES} are the most: probably two rooms",
            relative(&path)
        );
    }
}

#[test]
fn nothing_is_left_undone_and_nothing_names_a_machine() {
    // Put together here, so that this file does not have them.
    let words = [
        ["TO", "DO"].concat(),
        ["FIX", "ME"].concat(),
        ["todo", "!("].concat(),
        ["unimple", "mented!("].concat(),
        ["/wo", "rk/"].concat(),
    ];
    for path in files() {
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in (1..).zip(text.lines()) {
            for word in &words {
                assert!(
                    !line.contains(&**word),
                    "{}:{number}: {word}",
                    relative(&path)
                );
            }
        }
    }
}

#[test]
fn secrets_are_compared_in_constant_time() {
    let text = fs::read_to_string(tree::top().join("src/secret.rs")).unwrap();
    for name in ["Secret", "KeyPair"] {
        let (before, _) = text.split_once(&format!("pub struct {name}")).unwrap();
        let derived = before.rsplit("\n\n").next().unwrap().lines();
        let derived: String = derived
            .filter(|line| line.starts_with("#[derive"))
            .collect();
        for bad in ["Debug", "PartialEq", "Display", "Hash", "Copy"] {
            assert!(!derived.contains(bad), "{name} derives {bad}");
            let by_hand = format!("{bad} for {name} ");
            for path in sources() {
                assert!(
                    !code(&path).contains(&by_hand),
                    "{}: {by_hand}",
                    relative(&path)
                );
            }
        }
    }
    let proof = fs::read_to_string(tree::top().join("src/wire/proof.rs")).unwrap();
    let (_, verify) = proof.split_once("pub fn verify(").unwrap();
    let body = verify.split("\n}").next().unwrap();
    assert!(
        body.contains("same_bytes(") && !body.contains("=="),
        "{body}"
    );
}
