//! `cosadm check`: reports every file with its owner and mode, every key and every host, their
//! meaning, and every problem. It changes nothing.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Uid, User};

use super::call::Call;
use super::hosts::{Known, contradiction, denied, meaning};
use super::invite::joined;
use super::out::{Failure, Out};
use super::reach::{BY_LINE, resolve};
use crate::cli::json::Json;
use crate::config::hostinfo::{Addresses, Entry, HostTable, Method};
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::config::secure::{self, DRAFT};
use crate::config::settings::Settings;
use crate::config::{keys, known_hosts};
use crate::fault::Fault;
use crate::secret::KeyPair;

mod daemon;
mod doors;
mod logins;
mod services;
mod subsystems;
mod users;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// Correct.
    Right,
    /// Information; harmless.
    Note,
    /// It works, but not as well as it should.
    Warning,
    /// Something does not work, or is unsafe.
    Problem,
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Right => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One line of the report.
struct Finding {
    level: Level,
    about: String,
    words: String,
}

struct Report<'a> {
    paths: &'a Paths,
    findings: Vec<Finding>,
}

/// Checks a configuration folder and prints the report.
pub(super) fn check(call: &Call, out: &Out) -> Result<(), Failure> {
    let paths = call.paths()?;
    let mut report = Report {
        paths: &paths,
        findings: Vec::new(),
    };
    report.folders();
    report.settings();
    report.keys();
    report.hosts();
    report.pins();
    report.doors();
    report.daemon();
    let problems = report
        .findings
        .iter()
        .filter(|f| f.level == Level::Problem)
        .count();
    out.say(&if call.given("json") {
        report.json(problems)
    } else {
        report.text(problems)
    })?;
    if problems == 0 {
        Ok(())
    } else {
        Err(Failure::Found)
    }
}

impl Report<'_> {
    fn add(&mut self, level: Level, about: impl ToString, words: impl ToString) {
        self.findings.push(Finding {
            level,
            about: about.to_string(),
            words: words.to_string(),
        });
    }

    /// Adds a correct file or folder: its mode, owner and meaning.
    fn right(&mut self, path: &Path, words: impl std::fmt::Display) {
        self.add(
            Level::Right,
            path.display(),
            format!("{}{words}", mode_and_owner(path)),
        );
    }

    /// Adds a fault about a file. If the fault's text begins with the path, it is not repeated.
    fn wrong(&mut self, path: &Path, fault: &Fault) {
        let told = fault.to_string();
        let (about, words) = match told.strip_prefix(&path.display().to_string()) {
            // Keep the line number, if the fault has one.
            Some(rest) => match rest.split_once(": ") {
                Some((line, words)) if line.is_empty() || line.starts_with(':') => {
                    (format!("{}{line}", path.display()), words)
                }
                _ => (path.display().to_string(), told.as_str()),
            },
            None => (path.display().to_string(), told.as_str()),
        };
        self.add(Level::Problem, &about, words);
        if let Some(remedy) = fault.remedy() {
            self.add(Level::Note, about, remedy);
        }
    }

    fn folders(&mut self) {
        let paths = self.paths;
        let private = [
            (paths.cookies(), "cookies"),
            (paths.machines(), "machine keys recorded at the first proof"),
        ];
        for (path, words) in [
            (paths.dir.clone(), "the configuration folder"),
            (paths.state.clone(), "state"),
        ] {
            match secure::check_folder(&path) {
                Ok(_) => self.right(&path, words),
                Err(fault) => self.wrong(&path, &fault),
            }
        }
        for (path, words) in private {
            match secure::check_folder(&path) {
                Ok(_) if mode(&path).is_some_and(|mode| mode & 0o077 != 0) => {
                    self.add(
                        Level::Problem,
                        path.display(),
                        "others can access it; chmod 700 makes it safe",
                    );
                }
                Ok(_) => self.right(&path, words),
                Err(fault) => self.wrong(&path, &fault),
            }
        }
        for folder in [paths.dir.clone(), paths.cookies(), paths.machines()] {
            self.left_over(&folder);
        }
    }

    /// Reports the files that an interrupted write or edit has left in a folder.
    fn left_over(&mut self, folder: &Path) {
        for name in names(folder) {
            let words = if name.starts_with(DRAFT.0) && name.ends_with(DRAFT.1) {
                "left over from an interrupted write; it can be removed"
            } else if name.starts_with("edit-") {
                "a copy that cosadm edit has kept; it can be removed if no editor has it open"
            } else {
                continue;
            };
            self.add(Level::Note, folder.join(name).display(), words);
        }
    }

    fn settings(&mut self) {
        let file = self.paths.settings();
        match Settings::load(&file) {
            Ok(s) => {
                let listen = joined(&s.listen).replace(',', ", ");
                self.right(
                    &file,
                    format!(
                        "this host is {}, listening on {listen}, port {}",
                        s.name, s.port
                    ),
                );
                if let Some(words) = s.daemon.lacks_its_user() {
                    self.add(Level::Warning, format!("user {}", s.daemon.user), words);
                }
                self.subsystems(&s);
                self.services(&s);
                self.logins(&s);
            }
            Err(fault) => self.wrong(&file, &fault),
        }
    }

    fn keys(&mut self) {
        let host = self.key(
            &self.paths.host_key(),
            "by which clients know this host",
            keys::load_host_key,
        );
        let machine = self.key(
            &self.paths.machine_key(),
            "by which servers know this machine",
            keys::load_machine_key,
        );
        if host.is_some() && host == machine {
            let words = format!(
                "the same key as host.key; remove it, and {} makes another",
                self.paths.cosadm("init")
            );
            self.add(Level::Problem, self.paths.machine_key().display(), words);
        }
    }

    fn key(
        &mut self,
        file: &Path,
        what: &str,
        load: fn(&Paths) -> Result<KeyPair, Fault>,
    ) -> Option<String> {
        match load(self.paths) {
            Ok(pair) => {
                let (key, print) = (pair.public.to_hex(), keys::fingerprint(&pair.public));
                self.right(
                    file,
                    format!("the key {what}: public {key}, fingerprint {print}"),
                );
                Some(key)
            }
            Err(fault) => {
                self.wrong(file, &fault);
                None
            }
        }
    }

    fn hosts(&mut self) {
        let file = self.paths.hostinfo();
        let table = match HostTable::load(self.paths) {
            Ok(table) => table,
            Err(fault) => {
                self.wrong(&file, &fault);
                return;
            }
        };
        let (right, wrong) = (table.entries().len(), table.faults().len());
        self.right(
            &file,
            format!("the host table: {right} valid, {wrong} invalid"),
        );
        for fault in table.faults() {
            self.wrong(&file, fault);
        }
        for entry in table.entries() {
            self.host(entry);
        }
        self.report_unused_files(&table);
    }

    /// Adds one host: what its line means, and any contradictions.
    fn host(&mut self, entry: &Entry) {
        let known = Known::of(self.paths, &entry.name);
        let about = format!("host {}", entry.name);
        let mut problems: Vec<String> = known.faults().iter().map(ToString::to_string).collect();
        problems.extend(contradiction(self.paths, entry, &known));
        let name = &entry.name;
        let live = |cookies: &Result<usize, Fault>| matches!(cookies, Ok(count) if *count > 0);
        if entry.may_ask() {
            problems.extend(users::wrong(entry));
            if entry.addresses == Addresses::ByName {
                problems.extend(resolve(name, BY_LINE).err().map(|fault| fault.to_string()));
            }
        }
        if entry.method == Method::Cos {
            let pinned = known.pins.as_ref().is_ok_and(|pins| !pins.is_empty());
            match (live(&known.cookies_out), pinned) {
                (true, false) => problems
                    .push("there is a cookie to ask it with, and no key is pinned for it".into()),
                (false, true) => problems
                    .push("a key is pinned for it, and there is no cookie to ask it with".into()),
                (true, true) if entry.as_name.is_none() => {
                    problems.push("as= is missing: by which name does it know this host?".into());
                }
                (true, true) | (false, false) => {}
            }
        }
        if !entry.may_ask() && live(&known.cookies_in) {
            let words = "it has a cookie to ask this host with, and neither run-as= nor users=, so it may ask nothing";
            self.add(Level::Note, &about, words);
        }
        if matches!(known.cookies_in, Ok(2)) {
            let words = format!(
                "two cookies are live; once it has joined with the last card, {} drops the older one",
                self.paths
                    .cosadm(format_args!("host rotate {name} --finish"))
            );
            self.add(Level::Note, &about, words);
        }
        for command in entry.commands.iter().flatten() {
            let text = command.to_string();
            let program = text.split_ascii_whitespace().next().unwrap_or("");
            if !program.contains('\\') && matches!(Path::new(program).try_exists(), Ok(false)) {
                self.add(
                    Level::Note,
                    &about,
                    format!("it may run {program}, which is not on this machine"),
                );
            }
        }
        if problems.is_empty() {
            let level = match denied(self.paths, entry, &known) {
                Some(_) => Level::Note,
                None => Level::Right,
            };
            self.add(level, about, meaning(self.paths, entry, &known));
            return;
        }
        for problem in problems {
            self.add(Level::Problem, &about, problem);
        }
    }

    /// Adds the cookies and recorded keys of hosts that are not in the table.
    fn report_unused_files(&mut self, table: &HostTable) {
        let has = |name: &str| HostName::parse(name).is_ok_and(|host| table.get(&host).is_some());
        let mut report_unused_files = Vec::new();
        for folder in [self.paths.cookies(), self.paths.machines()] {
            let cookies = folder == self.paths.cookies();
            for name in names(&folder).filter(|name| !name.starts_with('.')) {
                let host = name
                    .strip_suffix(".in")
                    .or_else(|| name.strip_suffix(".out"));
                let host = if cookies { host } else { Some(name.as_str()) };
                if !host.is_some_and(has) {
                    report_unused_files.push(folder.join(name));
                }
            }
        }
        for path in report_unused_files {
            self.add(
                Level::Note,
                path.display(),
                "it belongs to no valid line of the host table",
            );
        }
    }

    fn pins(&mut self) {
        let file = self.paths.known_hosts();
        // A file that cannot be examined is not missing. Reading it returns the reason.
        if matches!(file.try_exists(), Ok(false)) {
            self.add(Level::Right, file.display(), "not there: no host is joined");
            return;
        }
        match known_hosts::load(self.paths) {
            Ok((pins, faults)) => {
                self.right(
                    &file,
                    format!("keys pinned for other hosts: {}", pins.len()),
                );
                for fault in &faults {
                    self.wrong(&file, fault);
                }
            }
            Err(fault) => self.wrong(&file, &fault),
        }
    }

    fn text(&self, problems: usize) -> String {
        let mut text = String::new();
        for finding in &self.findings {
            let _ = writeln!(
                text,
                "{:<8} {}: {}",
                finding.level.word(),
                finding.about,
                finding.words
            );
        }
        let warning = |f: &&Finding| matches!(f.level, Level::Warning);
        let warnings = self.findings.iter().filter(warning).count();
        let many = |n, what| match n {
            0 => format!("no {what}"),
            1 => format!("1 {what}"),
            n => format!("{n} {what}s"),
        };
        if warnings > 0 {
            let _ = write!(text, "{}, ", many(warnings, "warning"));
        }
        let _ = writeln!(text, "{}", many(problems, "problem"));
        text
    }

    fn json(&self, problems: usize) -> String {
        let findings = self.findings.iter().map(|finding| {
            Json::Object(vec![
                ("level", Json::text(finding.level.word())),
                ("about", Json::text(&finding.about)),
                ("words", Json::text(&finding.words)),
            ])
        });
        let value = Json::Object(vec![
            ("ok", Json::Bool(problems == 0)),
            ("problems", Json::count(problems)),
            ("findings", Json::List(findings.collect())),
        ]);
        format!("{value}\n")
    }
}

fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|about| about.mode() & 0o7777)
}

/// Formats mode and owner as `0600 root, `; empty if the file does not exist.
fn mode_and_owner(path: &Path) -> String {
    let Ok(about) = fs::metadata(path) else {
        return String::new();
    };
    let owner = User::from_uid(Uid::from_raw(about.uid())).ok().flatten();
    let owner = owner.map_or_else(|| about.uid().to_string(), |user| user.name);
    format!("{:04o} {owner}, ", about.mode() & 0o7777)
}

/// Returns the names in a folder, sorted; none if it cannot be read.
fn names(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.into_iter()
}
