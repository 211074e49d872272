//! The manual pages and the programs agree: flags, commands, settings, host options, causes, events
//! and exit codes; in both directions where possible.

use crate::tree;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cosserver::config::applications;
use cosserver::config::hostinfo::{HostTable, OPTIONS};
use cosserver::config::named_services;
use cosserver::config::paths::Paths;
use cosserver::config::rules;
use cosserver::config::settings::{KEYS, Settings, TABLES};
use cosserver::config::subsystems;
use cosserver::protocol::limits;
use cosserver::refusal::Cause;
use tree::{Set, agree, files, relative, set, text, top};

const COS: &str = env!("CARGO_BIN_EXE_cos");
const COSADM: &str = env!("CARGO_BIN_EXE_cosadm");
const COSSERVER: &str = env!("CARGO_BIN_EXE_cosserver");

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env_remove("COS_CONFIG_DIR");
    command
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"))
}

/// Returns the output of `--help`, which must succeed.
fn help(program: &str, arguments: &[&str]) -> String {
    let output = run(program, arguments);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

// ---- manual pages ----

/// Returns the lines of a page below a heading (`Sh`, `Ss`), up to the next of its kind.
fn section(page: &str, heading: &str) -> String {
    let text = text(&format!("docs/man/{page}"));
    let stop = |line: &&str| {
        !(line.starts_with(".Sh ") || line.starts_with(".Ss ") && heading.starts_with(".Ss"))
    };
    let mut lines = text.lines().skip_while(|line| *line != heading);
    assert!(lines.next().is_some(), "{page} has no {heading}");
    lines.take_while(stop).collect::<Vec<_>>().join("\n")
}

/// Returns the flags in a line of mdoc after its `Fl` macros, with dashes.
fn flags_of_line(line: &str) -> Set {
    const MACROS: [&str; 8] = ["Ar", "Ns", "Op", "Oo", "Oc", "Cm", "Pq", "No"];
    let mut found = Set::new();
    let mut after_flag = false;
    for word in line.trim_start_matches('.').split_whitespace() {
        match word {
            "Fl" => after_flag = true,
            "," => {}
            word if MACROS.contains(&word) => after_flag = false,
            word if after_flag => {
                found.insert(format!("-{word}"));
            }
            _ => {}
        }
    }
    found
}

/// Returns the flags of the items of a page's lists.
fn item_flags(text: &str) -> Set {
    let items = text.lines().filter(|line| line.starts_with(".It Fl"));
    items.flat_map(flags_of_line).collect()
}

/// Returns the words after `.It Cm`, up to the next macro.
fn item_words(text: &str) -> Set {
    let items = text.lines().filter_map(|line| line.strip_prefix(".It Cm "));
    items
        .map(|item| item.split_whitespace().next().unwrap().to_owned())
        .collect()
}

/// Returns the flags of a help text: the first words of its indented lines, up to the value or the
/// meaning.
fn help_flags(help: &str) -> Set {
    let mut found = Set::new();
    for line in help.lines().filter(|line| line.starts_with(' ')) {
        for word in line.trim_start().split(", ") {
            if !word.starts_with('-') {
                break;
            }
            found.insert(word.split_whitespace().next().unwrap().to_owned());
        }
    }
    found
}

#[test]
fn manual_pages_are_clean() {
    let mut pages = 0;
    for path in files()
        .iter()
        .filter(|p| relative(p).starts_with("docs/man/"))
    {
        let output = run(
            "mandoc",
            &["-Tlint", "-W", "warning", path.to_str().unwrap()],
        );
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", relative(path));
        pages += 1;
    }
    assert_eq!(pages, 7);
}

#[test]
fn manual_pages_refer_to_pages_that_are_there() {
    let of_man = |p: &&std::path::PathBuf| relative(p).starts_with("docs/man/");
    let all = files();
    let own: Set = all
        .iter()
        .filter(of_man)
        .map(|p| p.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let makefile = text("Makefile");
    for path in all.iter().filter(of_man) {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(makefile.contains(name), "Makefile does not install {name}");
        for line in fs::read_to_string(path).unwrap().lines() {
            let Some(reference) = line.strip_prefix(".Xr ") else {
                continue;
            };
            let mut words = reference.split_whitespace();
            let (name, number) = (words.next().unwrap(), words.next().unwrap());
            if own.contains(name) {
                let page = format!("docs/man/{name}.{number}");
                assert!(
                    top().join(&page).exists(),
                    "{}: {reference}: there is no {page}",
                    relative(path)
                );
            }
        }
    }
}

// ---- flags and commands ----

#[test]
fn the_flags_of_cosserver() {
    let page = text("docs/man/cosserver.8");
    let code = help_flags(&help(COSSERVER, &["--help"]));
    agree(&code, &item_flags(&page), "cosserver(8)");

    let without_value: Set = code
        .iter()
        .filter(|f| f.len() == 2 && !matches!(&***f, "-f" | "-p"))
        .cloned()
        .collect();
    agree(
        &without_value,
        &grouped(&section("cosserver.8", ".Sh SYNOPSIS")),
        "SYNOPSIS of cosserver(8)",
    );
}

/// Returns the flags of a subcommand in the SYNOPSIS of cos(1), including those before it.
fn synopsis_of_cos(subcommand: &str) -> Set {
    let synopsis = section("cos.1", ".Sh SYNOPSIS");
    let mut blocks = synopsis.split(".Nm ");
    let has = |block: &&str| block.lines().any(|l| l == format!(".Cm {subcommand}"));
    flags_of_synopsis(blocks.find(has).unwrap())
}

/// Returns the flags of one block of a SYNOPSIS.
fn flags_of_synopsis(block: &str) -> Set {
    let options = block.lines().filter_map(|l| l.strip_prefix(".Op Fl "));
    let mut found = Set::new();
    for option in options {
        let word = option.split(' ').next().unwrap();
        if word.starts_with('-') || option.contains(' ') {
            found.insert(format!("-{word}"));
        } else {
            found.extend(word.chars().map(|c| format!("-{c}")));
        }
    }
    found
}

#[test]
fn the_flags_of_cos() {
    let page = text("docs/man/cos.1");
    let run = help_flags(&help(COS, &["run", "--help"]));
    let gui = help_flags(&help(COS, &["gui", "--help"]));
    let open = help_flags(&help(COS, &["open", "--help"]));
    let services = help_flags(&help(COS, &["services", "--help"]));
    let enrol = help_flags(&help(COS, &["enrol", "--help"]));
    let key = help_flags(&help(COS, &["key", "--help"]));
    let connect = help_flags(&help(COS, &["connect", "--help"]));
    let rsh = help_flags(&help_as("cosrsh"));
    assert_eq!(
        rsh,
        help_flags(&help_as("ssh")),
        "their values differ, not their names"
    );
    let all = [&run, &gui, &open, &services, &enrol, &key, &connect, &rsh];
    let code: Set = all.into_iter().flatten().cloned().collect();
    let over = flags_before("in the same way.");
    let over_by_rsh = flags_before("are accepted and ignored:");
    let refused = flags_before("are refused:");
    let mut page_flags = item_flags(&page);
    page_flags.extend(over.iter().chain(&over_by_rsh).chain(&refused).cloned());
    agree(&code, &page_flags, "cos(1)");
    let told = set(["-h", "--help", "-V", "--version"]);
    let subcommands = [
        ("run", &run),
        ("gui", &gui),
        ("open", &open),
        ("services", &services),
        ("enrol", &enrol),
        ("key", &key),
        ("connect", &connect),
    ];
    for (subcommand, flags) in subcommands {
        // One of those that a command ignores may have a meaning elsewhere.
        let ignores = |f: &String| subcommand == "run" && over.contains(f);
        let flags = flags.iter().filter(|f| !told.contains(*f));
        let flags: Set = flags.filter(|f| !ignores(f)).cloned().collect();
        let what = format!("SYNOPSIS of cos {subcommand} in cos(1)");
        agree(&flags, &synopsis_of_cos(subcommand), &what);
    }
    // A flag that is not for a command says what it is for.
    let mut said: Set = run.difference(&over).cloned().collect();
    let others = [
        ("gui", &gui),
        ("open", &open),
        ("enrol", &enrol),
        ("key", &key),
        ("services", &services),
    ];
    for (subcommand, flags) in others {
        for flag in flags.difference(&said) {
            let item = format!(".It Fl {}", flag.strip_prefix('-').unwrap());
            let is = |l: &&str| *l == item || l.starts_with(&format!("{item} "));
            let mut lines = page.lines().skip_while(|l| !is(l)).skip(1);
            assert_eq!(lines.next(), Some("With"), "cos(1), {flag}");
            let due = format!(".Cm {subcommand} :");
            assert_eq!(lines.next(), Some(&*due), "cos(1), {flag}");
        }
        said.extend(flags.iter().cloned());
    }

    let line = |help: &str, part: &str| -> Set {
        help_flags(help.lines().find(|line| line.contains(part)).unwrap())
    };
    let said = help(COS, &["run", "--help"]);
    let what = "the flags that cos(1) ignores";
    agree(&line(&said, "-x, "), &over, what);
    agree(&line(&help_as("ssh"), "-x, "), &over_by_rsh, what);
    let what = "the flags that cos(1) refuses";
    agree(&line(&help_as("ssh"), "-D, "), &refused, what);
    let own = rsh.iter().filter(|f| !told.contains(*f));
    let own = own.filter(|f| !over_by_rsh.contains(*f) && !refused.contains(*f));
    let synopsis = section("cos.1", ".Sh SYNOPSIS");
    let block = synopsis.split(".Nm ").find(|b| b.starts_with("cosrsh\n"));
    let what = "SYNOPSIS of cosrsh in cos(1)";
    agree(
        &own.cloned().collect(),
        &flags_of_synopsis(block.unwrap()),
        what,
    );
}

/// Returns the output of `--help` if the client is called by another name.
fn help_as(name: &str) -> String {
    use std::os::unix::process::CommandExt;
    let output = Command::new(COS).arg0(name).arg("--help").output().unwrap();
    assert!(output.status.success(), "{name}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the flags in cos(1) before this line, from "The options" or "takes" on.
fn flags_before(end: &str) -> Set {
    let section = section("cos.1", ".Sh THE COMMAND LINE OF RSH AND SSH");
    let lines: Vec<&str> = section.lines().collect();
    let at = lines.iter().position(|l| l.starts_with(end)).unwrap();
    let before = lines[..at].iter().rev();
    let before = before.take_while(|l| !matches!(**l, "The options" | "takes"));
    before.flat_map(|l| flags_of_line(l)).collect()
}

/// The page names every key of `-o` that the program reads.
#[test]
fn the_options_in_the_form_of_ssh() {
    let source = text("src/client/ssh_options.rs");
    let (_, parse) = source.split_once("fn parse(").unwrap();
    let arms = parse.split("\n}\n").next().unwrap().lines();
    // `"key" | "key" => …`, `"key" if … =>`, and no nested patterns.
    let arms = arms.filter(|line| line.starts_with("        \""));
    let patterns = arms.filter_map(|line| line.split(" if ").next()?.split("=>").next());
    let keys = patterns.flat_map(|pattern| pattern.split('"').skip(1).step_by(2));
    // Only with `ProxyCommand`, which is rejected.
    let keys = keys.filter(|key| *key != "proxyusefdpass");
    let page = text("docs/man/cos.1");
    let (_, item) = page.split_once(".It Fl o Ar key").unwrap();
    let item = item.split("\n.It ").next().unwrap();
    let named: Set = item
        .lines()
        .filter_map(|line| line.strip_prefix(".Cm "))
        .map(|line| line.split(' ').next().unwrap().to_ascii_lowercase())
        .collect();
    agree(&keys.map(str::to_owned).collect(), &named, "-o of cos(1)");
}

/// Returns the flags without a value in the groups of a SYNOPSIS: `.Op Fl abc`.
fn grouped(synopsis: &str) -> Set {
    let mut found = Set::new();
    for line in synopsis
        .lines()
        .filter_map(|line| line.strip_prefix(".Op Fl "))
    {
        if !line.contains(' ') {
            found.extend(line.chars().map(|c| format!("-{c}")));
        }
    }
    found
}

#[test]
fn the_commands_and_flags_of_cosadm() {
    let page = text("docs/man/cosadm.8");
    let overview = help(COSADM, &["--help"]);
    let global = help_flags(&overview);
    agree(&global, &item_flags(&page), "the global flags of cosadm(8)");

    // "  host invite NAME   let NAME run …": the lower case words are the command.
    let mut commands = Vec::new();
    for line in overview
        .lines()
        .filter(|l| l.starts_with("  ") && !l.trim_start().starts_with('-'))
    {
        let (name, _) = line[2..].split_once("  ").unwrap_or((&line[2..], ""));
        let name = name
            .split_whitespace()
            .take_while(|w| w.chars().all(|c| c.is_ascii_lowercase()));
        let mut words: Vec<&str> = name.collect();
        let alone = ["init", "who", "kill", "check"];
        words.truncate(if alone.contains(&words[0]) { 1 } else { 2 });
        commands.push(words.join(" "));
    }
    let items: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm "))
        .collect();
    let named = |item: &str| {
        let words = item
            .split_whitespace()
            .take_while(|w| w.chars().all(|c| c.is_ascii_lowercase()));
        words.collect::<Vec<_>>().join(" ")
    };
    let written: Set = items.iter().map(|item| named(item)).collect();
    agree(
        &commands.iter().cloned().collect(),
        &written,
        "the commands of cosadm(8)",
    );

    for command in &commands {
        let mut arguments: Vec<&str> = command.split(' ').collect();
        arguments.push("--help");
        let own: Set = help_flags(&help(COSADM, &arguments))
            .difference(&global)
            .cloned()
            .collect();
        let item = items.iter().find(|item| named(item) == *command).unwrap();
        let written = flags_of_line(item);
        assert_eq!(
            own, written,
            "cosadm(8), {command}: the flags of the program, and those of the page"
        );
    }
}

/// The page names every field of `cosadm who --json`.
#[test]
fn the_fields_of_who_is_on() {
    let source = text("src/admin/who.rs");
    let (_, json) = source.split_once("fn json(").unwrap();
    let json = json.split("\n}\n").next().unwrap();
    // `("field", …` in one line or over several.
    let names = json.split('(').filter_map(|part| {
        let (name, rest) = part.trim_start().strip_prefix('"')?.split_once('"')?;
        rest.starts_with(',').then_some(name)
    });
    let page = text("docs/man/cosadm.8");
    let (_, item) = page.split_once("\n.It Cm who ").unwrap();
    let (_, item) = item.split_once(".Ql sessions ,").unwrap();
    let item = item.split("It is asked").next().unwrap();
    let named = item.lines().filter_map(|line| line.strip_prefix(".Ql "));
    let named = named.map(|line| line.split(' ').next().unwrap());
    agree(&set(names), &set(named), "cosadm who --json");
}

// ---- files of the administrator ----

#[test]
fn the_settings() {
    for table in TABLES {
        let heading = match table.name {
            "" => ".Ss Keys before the first table".to_owned(),
            name => format!(".Ss [{name}]"),
        };
        let page = section("cosserver.toml.5", &heading);
        let keys = KEYS.iter().filter(|key| key.table == table.name);
        agree(
            &set(keys.clone().map(|key| key.name)),
            &item_words(&page),
            &heading,
        );
        for key in keys {
            let item = page.split("\n.It Cm ").find(|i| {
                i.lines().next() == Some(key.name) || i.ends_with(&format!(".It Cm {}", key.name))
            });
            let item = item.unwrap_or_else(|| {
                page.split(".It Cm ")
                    .find(|i| i.lines().next() == Some(key.name))
                    .unwrap()
            });
            if key.depends.is_none() {
                let default = match key.default.trim_matches('"') {
                    "[]" => "none",
                    other => other,
                };
                let words = item.replace("\n.Pa ", " ").replace("\n.Ql ", " ");
                let wanted = format!("Default: {default}");
                let there = words
                    .lines()
                    .any(|l| l.trim_end_matches([' ', '.']) == wanted);
                assert!(
                    there,
                    "cosserver.toml(5), {}: it must say {wanted:?}",
                    key.name
                );
            }
            let seconds = item.contains("econds");
            assert_eq!(
                seconds,
                key.unit() == "seconds",
                "cosserver.toml(5), {}: its unit",
                key.name
            );
            assert_eq!(
                item.contains("takes a restart"),
                key.at_start,
                "cosserver.toml(5), {}: does it count at SIGHUP?",
                key.name
            );
        }
    }
    let headings = text("docs/man/cosserver.toml.5")
        .lines()
        .filter(|l| l.starts_with(".Ss "))
        .count();
    assert_eq!(
        headings,
        TABLES.len() + 3,
        "cosserver.toml(5) has a table that is none"
    );
}

/// The table `[subsystem]`: the default programs for `sftp`, in their order.
#[test]
fn the_settings_of_subsystems() {
    let page = section("cosserver.toml.5", ".Ss [subsystem]");
    let paths = page.lines().filter_map(|line| line.strip_prefix(".Pa "));
    let paths: Vec<&str> = paths.map(|p| p.trim_end_matches([' ', ',', '.'])).collect();
    assert_eq!(paths, subsystems::USUAL);
    let most = format!("of at most {} letters", limits::SERVICE_NAME);
    assert!(page.contains(&most), "it must say {most:?}");
}

/// The tables `[gui.NAME]`, each key with its default.
#[test]
fn the_settings_of_an_application() {
    let page = section("cosserver.toml.5", ".Ss [gui.NAME]");
    let keys = applications::KEYS;
    agree(
        &set(keys.iter().map(|key| key.name)),
        &item_words(&page),
        "[gui.NAME] of cosserver.toml(5)",
    );
    for key in keys {
        states_default(item(&page, key.name), key.name, key.bounds);
    }
}

/// Returns the item of a key.
fn item<'p>(page: &'p str, key: &str) -> &'p str {
    let mut items = page.split(".It Cm ");
    items.find(|i| i.lines().next() == Some(key)).unwrap()
}

/// Checks that the item of a key says its default, or that it must be given.
fn states_default(item: &str, key: &str, bounds: &str) {
    let wanted = match bounds.split_once("default ") {
        Some((_, default)) => format!("Default: {}.", default.replace(": ", ", ")),
        None => "must be given.".to_owned(),
    };
    let there = item.lines().any(|line| line.ends_with(&wanted));
    assert!(there, "cosserver.toml(5), {key}: it must say {wanted:?}");
}

/// Checks that an item has each of these words as a literal.
fn has_literals<'a>(item: &str, key: &str, words: impl IntoIterator<Item = &'a str>) {
    let has = |word: &str| {
        let literal = |line: &str| {
            line.strip_prefix(".Ql ")
                .map(|l| l.trim_end_matches([' ', ',', '.', ':']).to_owned())
        };
        item.lines().filter_map(literal).any(|l| l == word)
    };
    for word in words {
        assert!(has(word), "cosserver.toml(5), {key}: it must have {word}");
    }
}

/// The tables `[service.NAME]`: each key with its kinds and its default, and each condition of a
/// rule with its values.
#[test]
fn the_settings_of_a_named_service() {
    let page = section("cosserver.toml.5", ".Ss [service.NAME]");
    let most = format!("at most {} letters", limits::SERVICE_NAME);
    assert!(page.contains(&most), "it must say {most:?}");
    let (page, conditions) = page.split_once("\n.El\n").unwrap();
    let keys = named_services::KEYS;
    agree(
        &set(keys.iter().map(|key| key.name)),
        &item_words(page),
        "[service.NAME] of cosserver.toml(5)",
    );
    let kind = keys.iter().find(|key| key.name == "kind").unwrap();
    for key in keys {
        let item = item(page, key.name);
        states_default(item, key.name, key.bounds);
        if key.name == "kind" || key.kinds.len() < kind.kinds.len() {
            has_literals(item, key.name, key.kinds.iter().map(|kind| kind.name()));
        }
    }
    let keys = rules::KEYS;
    agree(
        &set(keys.iter().map(|key| key.name)),
        &item_words(conditions),
        "the conditions in cosserver.toml(5)",
    );
    for key in keys {
        // The values in quotes, and the example.
        let quoted = key.bounds.split('"').skip(1).step_by(2);
        let example = key.bounds.split_once("as in ").map(|(_, example)| example);
        has_literals(item(conditions, key.name), key.name, quoted.chain(example));
    }
}

/// The range of a number of `[limits]` and `[login]`, if the page states it.
#[test]
fn the_bounds_of_the_settings_for_logins() {
    let page = section("cosserver.toml.5", ".Ss [login]");
    for key in KEYS.iter().filter(|key| key.table == "login") {
        let mut items = page.split(".It Cm ");
        let item = items.find(|i| i.lines().next() == Some(key.name)).unwrap();
        let bounds = key.bounds();
        let (_, bounds) = bounds.split_once(" from ").unwrap();
        // A day is not a limit that matters in practice.
        let there = bounds.ends_with("86400") || item.contains(bounds);
        assert!(there, "cosserver.toml(5), {}: {bounds}", key.name);
    }
}

#[test]
fn the_examples_of_the_settings_are_right() {
    let page = section("cosserver.toml.5", ".Sh EXAMPLES");
    let mut examples = 0;
    for part in page.split(".Bd -literal -offset indent\n").skip(1) {
        let example = part.split(".Ed").next().unwrap();
        let paths = Paths::of_dir(Path::new("/nonexistent"));
        let settings = Settings::parse(example, &paths);
        assert!(settings.is_ok(), "{}: {example}", settings.unwrap_err());
        examples += 1;
    }
    assert_eq!(examples, 4);
}

#[test]
fn the_options_of_hostinfo() {
    let page = section("hostinfo.5", ".Ss Options");
    agree(
        &set(OPTIONS.iter().map(|o| o.name)),
        &item_words(&page),
        "the options of hostinfo(5)",
    );
    for option in OPTIONS {
        let item = page
            .split(".It Cm ")
            .find(|i| i.starts_with(option.name))
            .unwrap();
        assert_eq!(
            option.repeats,
            item.contains("more than once"),
            "hostinfo(5), {}: may it repeat?",
            option.name
        );
    }
}

#[test]
fn the_examples_of_hostinfo_are_right() {
    let page = section("hostinfo.5", ".Sh EXAMPLES");
    let example: Vec<&str> = page.lines().filter(|line| !line.starts_with('.')).collect();
    for (name, text, lines) in [
        ("hostinfo(5)", example.join("\n"), 4),
        ("etc/hostinfo", text("etc/hostinfo"), 5),
    ] {
        let table = HostTable::parse(text.as_bytes(), Path::new(name));
        assert!(table.faults().is_empty(), "{}", table.faults()[0]);
        assert_eq!(table.entries().len(), lines, "{name}");
    }
}

// ---- messages to users: causes, events, exit codes ----

#[test]
fn the_causes_of_refusals() {
    let page = section("cosserver.8", ".Ss Causes of a refusal");
    agree(
        &set(Cause::ALL.map(Cause::name)),
        &item_words(&page),
        "the causes in cosserver(8)",
    );
    let page = section("cosserver.8", ".Sh LOG");
    let gate = stable_names("src/ipc/gate.rs", "impl Complaint");
    let relay = stable_names("src/ipc/relay.rs", "impl Closing");
    for name in gate.union(&relay) {
        assert!(
            page.contains(&format!(".Ql {name} ")) || page.contains(&format!(".Ql {name}\n")),
            "cosserver(8), LOG, does not have {name}"
        );
    }
}

/// Returns the names that a type's `fn name` has for the log.
fn stable_names(source: &str, of: &str) -> Set {
    let text = text(source);
    let (_, rest) = text.split_once(of).unwrap();
    let block = rest.split("\n}\n").next().unwrap();
    let names = block
        .lines()
        .filter_map(|line| line.split_once("=> \"")?.1.split('"').next());
    let names = set(names);
    assert!(names.len() > 2, "{source}: {of}");
    names
}

/// Returns the event of each `log!`, `log_ratelimited!`, `log_by_user!` and `say` with a level in a
/// source, without those for `-d`.
fn events(code: &str) -> Set {
    let mut found = Set::new();
    for call in ["log!(", "log_ratelimited!(", "log_by_user!(", ".say("] {
        for part in code.split(call).skip(1) {
            let Some((before, rest)) = part.split_once('"') else {
                continue;
            };
            let words: Vec<&str> = before.trim().split(',').map(str::trim).collect();
            // The level is the first argument of `say`, and the last before the event.
            let is_call = match words.as_slice() {
                [level, ""] => level.starts_with("Level::") || *level == "level",
                [_, level, ""] | [_, _, level, ""] => !level.contains(['(', '$']),
                _ => false,
            };
            if is_call && !before.contains("Debug,") {
                found.extend(rest.split('"').next().map(str::to_owned));
            }
        }
    }
    found
}

#[test]
fn the_events_of_the_log() {
    let mut code = Set::new();
    for path in files()
        .iter()
        .filter(|p| relative(p).starts_with("src/") && relative(p).ends_with(".rs"))
    {
        code.extend(events(&fs::read_to_string(path).unwrap()));
    }
    code.insert("listening".to_owned());
    let page = section("cosserver.8", ".Sh LOG");
    let events = page.split(".Ss ").next().unwrap();
    let items = events.lines().filter_map(|line| line.strip_prefix(".It "));
    let names = items.flat_map(|item| {
        item.split(" , ")
            .map(|w| w.split(' ').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    });
    agree(&code, &names.collect(), "the events in cosserver(8)");
}

#[test]
fn exit_codes_are_as_the_pages_say() {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("documents-{}", std::process::id()));
    let folder = folder.to_str().unwrap();
    let missing = format!("{folder}/missing.toml");
    let ends: [(&str, &[&str], i32, &str); 9] = [
        (COS, &["-C", folder, "run", "hostb", "true"], 255, "cos: "),
        (COS, &["walk"], 255, "cos: "),
        (COS, &["--version"], 0, ""),
        (COSADM, &["-C", folder, "check"], 1, ""),
        (COSADM, &["chekc"], 2, "cosadm: "),
        (COSADM, &["--help"], 0, ""),
        (COSSERVER, &["-t", "-f", &missing], 1, "cosserver: "),
        (COSSERVER, &["-D", "-f", &missing], 1, "cosserver: "),
        (COSSERVER, &["-z"], 2, "cosserver: "),
    ];
    for (program, arguments, code, start) in ends {
        let output = run(program, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{program} {arguments:?}: {said}"
        );
        assert!(said.starts_with(start), "{program} {arguments:?}: {said}");
    }
    for (page, codes) in [
        ("cos.1", &["255", "128 + n"][..]),
        ("cosadm.8", &["0 ", "1 ", "2 "]),
        ("cosserver.8", &["0 ", "1 ", "2 "]),
    ] {
        let section = section(page, ".Sh EXIT STATUS");
        for code in codes {
            assert!(
                section.contains(code),
                "{page} does not have the exit status {code}"
            );
        }
    }
}
