//! The structure of the sources: which part may use which, and where unsafe code may be.

use crate::tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use tree::{files, relative};

/// What each part may import besides itself. A part is a directory or file of `src/`, or of
/// `src/daemon/`. `main.rs` and `bin/` pick a role and call it.
const ARROWS: &[(&str, &str)] = &[
    ("fault", ""),
    ("refusal", ""),
    ("curve", ""),
    ("source", ""),
    ("secret", "curve fault sys"),
    ("sys", "fault secret log"),
    ("log", "fault sys"),
    ("protocol", "curve secret fault"),
    ("ipc", "protocol sys log secret fault"),
    ("cli", "protocol"),
    ("tty", "protocol sys"),
    ("config", "protocol sys log secret fault"),
    (
        "registry",
        "config ipc protocol sys log secret refusal fault",
    ),
    (
        "auth",
        "registry config protocol sys log secret refusal fault",
    ),
    (
        "services",
        "auth registry config protocol sys log secret refusal fault",
    ),
    ("signer", "config curve protocol sys log secret fault"),
    ("tokens", "config sys source secret fault"),
    ("daemon::sources", "source ipc"),
    ("daemon::gate", "daemon::sources ipc protocol sys log fault"),
    ("daemon::relay", "ipc protocol sys log fault"),
    ("daemon::login", "ipc protocol sys fault"),
    ("daemon::lookup", "ipc sys fault"),
    (
        "daemon::monitor",
        "services auth registry tokens signer config cli daemon::sources ipc protocol sys log secret refusal fault",
    ),
    (
        "client",
        "signer config cli tty protocol sys log secret fault",
    ),
    (
        "admin",
        "auth registry tokens config cli tty ipc protocol sys log secret fault",
    ),
];

fn sources() -> Vec<PathBuf> {
    files()
        .into_iter()
        .filter(|p| relative(p).starts_with("src/") && p.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// Returns a source without its comments and its tests, which come last.
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

/// Returns the parts of all paths that begin with `root::`, also in braces.
fn named(code: &str, root: &str) -> BTreeSet<String> {
    let mut found = first_parts(code, root);
    if found.remove("daemon") {
        let of_daemon = first_parts(code, &format!("{root}::daemon"));
        found.extend(of_daemon.into_iter().map(|part| format!("daemon::{part}")));
    }
    found
}

/// Returns the first parts of all paths that begin with `root::`, also in braces.
fn first_parts(code: &str, root: &str) -> BTreeSet<String> {
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

/// Returns the part to which a source belongs.
fn part(path: &Path) -> String {
    let name = relative(path).strip_prefix("src/").unwrap();
    let mut names = name.split('/').map(|name| name.trim_end_matches(".rs"));
    let first = names.next().unwrap();
    match (first, names.next()) {
        ("daemon", Some(second)) if second != "mod" => format!("daemon::{second}"),
        _ => first.to_owned(),
    }
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
    let found = named("use crate::daemon::a::b; crate::daemon::{c, d}", "crate");
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        ["daemon::a", "daemon::c", "daemon::d"]
    );
}

#[test]
fn imports_point_down() {
    let mut wrong = Vec::new();
    let mut parts = BTreeSet::new();
    for path in sources() {
        let part = part(&path);
        if matches!(&*part, "main" | "bin" | "lib" | "daemon") {
            continue;
        }
        parts.insert(part.clone());
        let Some((_, may)) = ARROWS.iter().find(|(name, _)| *name == part) else {
            wrong.push(format!("{}: {part} has no arrows here", relative(&path)));
            continue;
        };
        let code = code(&path);
        for seen in named(&code, "crate") {
            if seen != part && !may.split(' ').any(|name| name == seen) {
                wrong.push(format!(
                    "{}: {part} must not import {seen}",
                    relative(&path)
                ));
            }
        }
        // No part reaches outside itself by `super`.
        let depth = relative(&path).split('/').count()
            - 1
            - usize::from(path.ends_with("mod.rs"))
            - usize::from(part.starts_with("daemon::"));
        if depth > 0 && code.contains(&"super::".repeat(depth)) {
            wrong.push(format!("{}: leaves {part} by super", relative(&path)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let gone: Vec<_> = ARROWS
        .iter()
        .filter(|(name, _)| !parts.contains(*name))
        .collect();
    assert!(gone.is_empty(), "these parts are gone: {gone:?}");
}

/// All paths of one tree of a `use`: `a::{b, c::{d, self}}`.
fn paths_of_use(tree: &str) -> Vec<String> {
    let Some((head, inner)) = tree.trim().split_once('{') else {
        return vec![tree.trim().to_owned()];
    };
    let inner = inner.rsplit_once('}').unwrap().0;
    let (mut paths, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let all = paths_of_use(&inner[start..at]);
                paths.extend(all.iter().map(|rest| format!("{head}{rest}")));
                start = at + 1;
            }
            _ => {}
        }
    }
    paths
}

/// The module that a source is, as the names of its path.
fn module(path: &Path) -> Vec<String> {
    let name = relative(path).strip_prefix("src/").unwrap();
    let name = name.trim_end_matches(".rs").trim_end_matches("/mod");
    name.split('/').map(str::to_owned).collect()
}

/// The modules that a source imports, each by the longest part of a path that is a file.
fn imports(path: &Path, all: &BTreeSet<Vec<String>>) -> BTreeSet<Vec<String>> {
    let own = module(path);
    let code = code(path);
    let uses = code.match_indices("use ").filter(|(at, _)| {
        let before = code[..*at].rsplit('\n').next().unwrap().trim();
        before.is_empty() || before.starts_with("pub")
    });
    let trees = uses.map(|(at, word)| code[at + word.len()..].split(';').next().unwrap());
    let paths = trees.flat_map(paths_of_use);
    let imported = paths.filter_map(|path| {
        let mut names: Vec<&str> = path.split("::").map(str::trim).collect();
        let mut from: Vec<String> = match names[0] {
            "crate" => {
                names.remove(0);
                Vec::new()
            }
            "super" | "self" => own.clone(),
            _ => return None,
        };
        while matches!(names.first(), Some(&("super" | "self"))) {
            if names.remove(0) == "super" {
                from.pop();
            }
        }
        from.extend(names.into_iter().map(str::to_owned));
        while !from.is_empty() && !all.contains(&from) {
            from.pop();
        }
        (!from.is_empty() && from != own).then_some(from)
    });
    imported.collect()
}

#[test]
fn every_path_of_a_use_is_seen() {
    let all = paths_of_use("a::{b, c::{d, self}, e as f}");
    assert_eq!(all, ["a::b", "a::c::d", "a::c::self", "a::e as f"]);
}

/// Of three files that import each other none can be read first.
#[test]
fn no_import_cycle_has_more_than_two_files() {
    let sources: Vec<PathBuf> = sources()
        .into_iter()
        .filter(|path| !relative(path).ends_with("tests.rs"))
        .collect();
    let all: BTreeSet<_> = sources.iter().map(|path| module(path)).collect();
    let edges: BTreeMap<_, _> = sources
        .iter()
        .map(|path| (module(path), imports(path, &all)))
        .collect();
    assert!(edges.values().map(BTreeSet::len).sum::<usize>() > sources.len());
    let mut reached = BTreeMap::new();
    for from in edges.keys() {
        let (mut all, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(next) = open.pop() {
            open.extend(edges[next].iter().filter(|to| all.insert(*to)));
        }
        reached.insert(from, all);
    }
    let mut wrong = BTreeSet::new();
    for (from, all) in &reached {
        let cycle: Vec<String> = all
            .iter()
            .filter(|to| reached[**to].contains(from))
            .map(|to| to.join("/"))
            .collect();
        if cycle.len() > 2 {
            wrong.insert(cycle.join(" "));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Checks which modules of the monitor may import the upper ones. A component that knew the parts
/// or the pipeline could change the state of another, or decide what comes next.
#[test]
fn components_of_the_monitor_do_not_reach_up() {
    const UP: &[(&str, &[&str])] = &[
        ("start", &["mod"]),
        ("event_loop", &["start"]),
        ("pipeline", &["event_loop"]),
        ("sockets", &["event_loop", "start"]),
        ("parts", &["event_loop", "pipeline", "start"]),
    ];
    let sources = sources();
    let all: BTreeSet<_> = sources.iter().map(|path| module(path)).collect();
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for path in &sources {
        let Some(name) = relative(path).strip_prefix("src/daemon/monitor/") else {
            continue;
        };
        let own = name.split(['/', '.']).next().unwrap();
        for imported in imports(path, &all) {
            let Some(to) = imported.get(2).filter(|_| imported[1] == "monitor") else {
                continue;
            };
            let Some((to, may)) = UP.iter().find(|(up, _)| up == to) else {
                continue;
            };
            seen.insert(*to);
            if own != *to && !may.contains(&own) {
                wrong.push(format!("{name} must not import {to}"));
            }
        }
        let is_monitor = own == "event_loop";
        if code(path).contains("impl Monitor") != is_monitor {
            wrong.push(format!(
                "{name}: the monitor's methods are in event_loop.rs"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // `mod.rs` names `start` by its path.
    assert_eq!(seen.len(), UP.len() - 1, "{seen:?} are imported by `use`");
}

#[test]
fn policy_asks_the_system_nothing() {
    let code = code(&tree::top().join("src/auth/policy.rs"));
    let of_sys: Vec<&str> = code.split("sys::").skip(1).collect();
    assert_eq!(of_sys.len(), 1, "policy sees more of sys than an account");
    assert!(of_sys.iter().all(|s| s.starts_with("account::Account;")));
    for word in [
        "std::fs",
        "std::process",
        "std::env",
        "nix::",
        "Instant",
        "SystemTime",
    ] {
        assert!(!code.contains(word), "policy sees {word}");
    }
}

#[test]
fn only_main_names_process_modules() {
    for path in sources() {
        let seen = named(&code(&path), "cosserver");
        if matches!(
            relative(&path),
            "src/main.rs" | "src/bin/cosserver-login.rs"
        ) {
            continue;
        }
        // Part of cosserver-login itself: see the next test.
        if relative(&path).starts_with("src/sys/pam") {
            continue;
        }
        for process in ["gate", "login", "lookup", "monitor", "relay"] {
            assert!(
                !seen.contains(&format!("daemon::{process}")),
                "{} sees {process}",
                relative(&path)
            );
        }
    }
}

/// The library uses no function of libpam, so that no linker has a reason to link it to another
/// program than `cosserver-login`.
#[test]
fn pam_is_linked_only_into_the_login_worker() {
    let ours = |path: &Path| {
        relative(path).starts_with("src/sys/pam.rs") || relative(path).starts_with("src/sys/pam/")
    };
    for path in sources() {
        let code = code(&path);
        let text = relative(&path);
        if ours(&path) {
            assert!(
                named(&code, "crate").is_empty(),
                "{text} names the library by crate::"
            );
            let seen = code.matches("cosserver::").count();
            let allowed = code.matches("cosserver::daemon::login::pam::").count();
            assert_eq!(seen, allowed, "{text} sees more than login::pam");
            continue;
        }
        let includes = code.contains("sys/pam.rs");
        assert_eq!(
            includes,
            text == "src/bin/cosserver-login.rs",
            "{text}: sys/pam.rs"
        );
        assert!(
            !code.contains("pam::ffi") && !code.contains("extern crate pam"),
            "{text}: libpam"
        );
    }
}

#[test]
fn unsafe_code_is_only_in_sys() {
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
fn sources_have_no_todo_and_no_machine_name() {
    // Assembled here, so that this file does not contain them.
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

/// A struct or enum of the project.
struct Type {
    path: PathBuf,
    name: String,
    /// The attributes before it.
    attributes: String,
    /// The types of its fields.
    fields: String,
}

/// Returns every struct and enum of a source.
fn types(path: &Path) -> Vec<Type> {
    let code = code(path);
    let mut found = Vec::new();
    for (at, _) in code
        .match_indices("struct ")
        .chain(code.match_indices("enum "))
    {
        let (before, rest) = code.split_at(at);
        let line = before.rsplit('\n').next().unwrap();
        if !line.is_empty() && !line.starts_with("pub") {
            continue;
        }
        let (_, rest) = rest.split_once(' ').unwrap();
        // Up to the `;` of a tuple struct, or to the brace that closes the first.
        let (mut depth, mut end) = (0, rest.len());
        for (i, c) in rest.char_indices() {
            depth += i32::from("{([".contains(c)) - i32::from("})]".contains(c));
            if depth == 0 && (c == ';' || c == '}') {
                end = i;
                break;
            }
        }
        let name = first_word(rest);
        let body = &rest[name.len()..end];
        // Names of variants are not types.
        let fields = if code[at..].starts_with("enum") {
            body.split(['(', '{'])
                .skip(2)
                .map(|held| held.split([')', '}']).next().unwrap())
                .collect::<Vec<_>>()
                .join(" ")
        } else {
            body.to_owned()
        };
        found.push(Type {
            path: path.to_owned(),
            name,
            attributes: before.rsplit("\n\n").next().unwrap().to_owned(),
            fields,
        });
    }
    found
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_')
}

/// A type that holds a secret, directly or in a field, can be neither printed nor compared except
/// as the secret's own type allows.
#[test]
fn types_that_hold_secrets_have_no_debug_or_eq() {
    // The project's types, and those of the libraries.
    let by_itself = ["Secret", "Zeroizing", "LessSafeKey", "HandshakeState"];
    let all: Vec<Type> = sources().iter().flat_map(|p| types(p)).collect();
    let mut secret: Vec<bool> = all.iter().map(|t| t.name == "Secret").collect();
    // Of several types with one name the nearest is meant, of those that the part may import: mio
    // has a type of the same name as one of ours.
    let holds = |word: &str, path: &Path, secret: &[bool]| {
        let from = part(path);
        let may = ARROWS.iter().find(|(name, _)| *name == from);
        let is_near = |i: &usize| {
            let of = part(&all[*i].path);
            of == from || may.is_none_or(|(_, may)| may.split(' ').any(|name| name == of))
        };
        let named = || (0..all.len()).filter(|i| all[*i].name == word && is_near(i));
        let in_file = named().find(|i| all[*i].path == path);
        let in_part = named().find(|i| part(&all[*i].path) == from);
        let nearest = in_file.or(in_part).or(named().next());
        by_itself.contains(&word) || nearest.is_some_and(|i| secret[i])
    };
    loop {
        let found = |t: &Type| words(&t.fields).any(|w| holds(w, &t.path, &secret));
        let next: Vec<bool> = (0..all.len())
            .map(|i| secret[i] || found(&all[i]))
            .collect();
        if next == secret {
            break;
        }
        secret = next;
    }
    for (source, name) in [
        ("src/secret.rs", "KeyPair"),
        ("src/protocol/noise.rs", "Keys"),
        ("src/protocol/noise.rs", "Direction"),
        ("src/protocol/noise.rs", "Opened"),
        ("src/protocol/key_agreement.rs", "Prepared"),
        ("src/protocol/seal.rs", "Sealer"),
        ("src/protocol/seal.rs", "Opener"),
        ("src/config/card.rs", "Card"),
        ("src/auth/mod.rs", "Opened"),
        ("src/ipc/relay.rs", "Session"),
        ("src/tokens/token.rs", "Token"),
        ("src/tokens/record.rs", "Record"),
    ] {
        let there = |i: &usize| relative(&all[*i].path) == source && all[*i].name == name;
        let at = (0..all.len()).find(there).unwrap();
        assert!(
            secret[at],
            "{source}: {name} was not found to hold a secret"
        );
    }
    let mut wrong = Vec::new();
    let bad = ["Debug", "PartialEq", "Display", "Hash"];
    for t in (0..all.len()).filter(|i| secret[*i]).map(|i| &all[i]) {
        let derived = t.attributes.split("#[derive(").skip(1);
        let derived: Vec<&str> = derived
            .flat_map(|d| words(d.split(")]").next().unwrap()))
            .collect();
        for bad in bad.iter().filter(|bad| derived.contains(bad)) {
            wrong.push(format!("{}: {} derives {bad}", relative(&t.path), t.name));
        }
    }
    for path in sources() {
        let code = code(&path);
        for line in code.lines().filter(|line| line.starts_with("impl")) {
            let Some((of, whom)) = line.split_once(" for ") else {
                continue;
            };
            let of = words(of).filter(|w| !w.is_empty()).last().unwrap();
            let whom = words(whom).next().unwrap();
            if bad.contains(&of) && holds(whom, &path, &secret) {
                wrong.push(format!("{}: {line}", relative(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn walk_types_are_documented_and_cannot_be_constructed_elsewhere() {
    let named = |page: &str| {
        let text = tree::text(page);
        let walks = text
            .lines()
            .filter(|l| l.starts_with('`') && l.contains(" → `"));
        let names = |walk: &str| {
            let names = walk.split('`').skip(1).step_by(2);
            names.map(str::to_owned).collect::<Vec<_>>()
        };
        let walks: Vec<Vec<String>> = walks.map(names).collect();
        assert_eq!(walks.len(), 2, "{page}: a command's walk, and a login's");
        walks.concat()
    };
    let walk = named("CONTRIBUTING.md");
    assert_eq!(walk, named("docs/DESIGN.md"), "the walk in DESIGN.md");
    assert!(walk.len() > 3, "{walk:?}");
    let parts = ["registry", "auth", "services"];
    let all: Vec<Type> = sources()
        .iter()
        .filter(|p| parts.contains(&&*part(p)))
        .flat_map(|p| types(p))
        .collect();
    for name in walk {
        let of_it = all.iter().filter(|t| t.name == name);
        let bodies: Vec<&str> = of_it.map(|t| &*t.fields).collect();
        assert_eq!(bodies.len(), 1, "{name}");
        assert!(
            !words(bodies[0]).any(|w| w == "pub"),
            "a field of {name} is not private"
        );
    }
}

#[test]
fn secrets_are_compared_in_constant_time() {
    let proof = fs::read_to_string(tree::top().join("src/protocol/proof.rs")).unwrap();
    let (_, verify) = proof.split_once("pub fn verify(").unwrap();
    let body = verify.split("\n}").next().unwrap();
    assert!(
        body.contains("same_bytes(") && !body.contains("=="),
        "{body}"
    );
}

/// Cargo finds no test by itself (`autotests = false`): a file that is in no group would never run,
/// nor would a group that is not in `scripts/test`.
#[test]
fn every_test_belongs_to_a_group_that_runs() {
    let cargo = tree::text("Cargo.toml");
    let groups: BTreeSet<&str> = cargo
        .split("[[test]]\n")
        .skip(1)
        .map(|part| part.split('"').nth(1).unwrap())
        .collect();
    assert!(groups.len() >= 4);
    // `most)` and `soak)` are all there are, and `all)` is both.
    let runner = tree::text("scripts/test");
    let arm = |name: &str| -> BTreeSet<String> {
        let line = runner.lines().find(|l| l.starts_with(&format!("{name})")));
        let words = line.unwrap().split([' ', '\'']).collect::<Vec<_>>();
        let named = words.windows(2).filter(|w| w[0] == "--test");
        named.map(|w| w[1].to_owned()).collect()
    };
    let (most, soak, all) = (arm("most"), arm("soak"), arm("all"));
    assert!(most.is_disjoint(&soak));
    let both: BTreeSet<String> = most.union(&soak).cloned().collect();
    assert_eq!(both, all, "scripts/test all");
    let every: BTreeSet<String> = groups.iter().map(|g| (*g).to_owned()).collect();
    assert_eq!(both, every, "the groups that scripts/test runs");

    // Each file is a module of exactly one other: by its name, or by its path.
    let tests = files().into_iter().map(|f| relative(&f).to_owned());
    let tests: Vec<String> = tests
        .filter(|f| f.starts_with("tests/") && f.ends_with(".rs"))
        .collect();
    let mut named: Vec<String> = Vec::new();
    for file in &tests {
        let text = tree::text(file);
        let folder = Path::new(file).parent().unwrap().to_owned();
        let stem = Path::new(file).file_stem().unwrap().to_str().unwrap();
        let is_root = stem == "mod" || groups.contains(stem);
        let below = if is_root {
            folder.clone()
        } else {
            folder.join(stem)
        };
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let Some(module) = line.strip_prefix("mod ").and_then(|l| l.strip_suffix(';')) else {
                continue;
            };
            let before = at.checked_sub(1).map_or("", |at| lines[at]);
            let path = before
                .strip_prefix("#[path = \"")
                .and_then(|l| l.strip_suffix("\"]"));
            named.extend(
                match path {
                    Some(path) => vec![folder.join(path)],
                    None => vec![
                        below.join(format!("{module}.rs")),
                        below.join(format!("{module}/mod.rs")),
                    ],
                }
                .into_iter()
                .map(|p| p.to_str().unwrap().to_owned()),
            );
        }
    }
    for file in tests {
        let stem = Path::new(&file).file_stem().unwrap().to_str().unwrap();
        let is_group = file.matches('/').count() == 1 && groups.contains(stem);
        assert!(is_group || named.contains(&file), "{file} is no module");
    }
}
