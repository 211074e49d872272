//! Subsystems: the table `[subsystem]` of `cosserver.toml`, the programs that a host may request by
//! name, as sftp(1) requests `sftp` from ssh.
//!
//! Read by the monitor and by `cosadm`. [`Subsystems::find`] checks the usual paths of sftp-server;
//! nothing else here accesses a file.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use toml::de::DeTable;

use super::hostinfo::words;
use super::tables::{self, Mistake};
use super::words::quoted;
use crate::fault::Fault;

/// The subsystem that exists without an entry.
pub const SFTP: &str = "sftp";

/// The usual paths of OpenSSH's sftp-server(8), in the order in which they are tried.
pub const USUAL: [&str; 6] = [
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/libexec/ssh/sftp-server",
    "/usr/lib/sftp-server",
];

/// All subsystems of the settings, by name: the program and its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subsystems(BTreeMap<String, Entry>);

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The value as it was written.
    pub text: String,
    /// The program and its arguments; empty if the subsystem is turned off.
    pub words: Vec<String>,
}

impl Subsystems {
    /// Returns all of them, by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Returns the program of a subsystem and its arguments. Without an entry for `sftp` the usual
    /// paths are tried now, so that a program that is installed later is found at once.
    ///
    /// # Errors
    /// There is none; the words are for the log and name the remedy.
    pub fn find(&self, name: &str) -> Result<Vec<String>, Fault> {
        self.find_among(name, &USUAL)
    }

    fn find_among(&self, name: &str, usual: &[&str]) -> Result<Vec<String>, Fault> {
        match self.0.get(name) {
            Some(entry) if entry.words.is_empty() => Err(Fault::new(format!(
                "{name} = \"\" in [subsystem] turns it off"
            ))),
            Some(entry) => Ok(entry.words.clone()),
            None if name == SFTP => {
                let found = usual.iter().find(|path| is_program(Path::new(path)));
                let found = found.map(|path| vec![(*path).to_owned()]);
                found.ok_or_else(|| {
                    Fault::new(
                        "no sftp-server is at its usual paths: install one (Debian: \
                         openssh-sftp-server), or set sftp = \"/path\" in [subsystem]",
                    )
                })
            }
            None => Err(Fault::new(format!("[subsystem] has no {name} = \"/path\""))),
        }
    }

    /// Parses the table `subsystem`.
    pub(super) fn read(table: &DeTable<'_>, mistakes: &mut Vec<Mistake>) -> Self {
        let mut all = BTreeMap::new();
        for (key, value) in table {
            let name: &str = key.get_ref();
            if let Err(why) = check_name(name) {
                mistakes.push((key.span().start, why.to_string()));
                continue;
            }
            let text = value.get_ref().as_str();
            let read = text
                .ok_or_else(|| {
                    Fault::new("it must be a text: a program's absolute path and its arguments")
                })
                .and_then(|text| split(text).map(|words| (text.to_owned(), words)));
            match read {
                Ok((text, words)) => drop(all.insert(name.to_owned(), Entry { text, words })),
                Err(why) => mistakes.push((value.span().start, format!("{name}: {why}"))),
            }
        }
        Self(all)
    }
}

/// Checks the name of a subsystem.
///
/// # Errors
/// Returns what is wrong with it.
pub fn check_name(name: &str) -> Result<(), Fault> {
    tables::check_name(name, "subsystem")
}

/// Splits a value into words like a line of `hostinfo`. A blank one has none.
fn split(text: &str) -> Result<Vec<String>, Fault> {
    let words = words(text.as_bytes())?;
    let end = words.last().map_or(0, |word| word.span.end);
    // In `hostinfo` a comment ends the line; here it would drop arguments silently.
    if end < text.trim_end_matches([' ', '\t']).len() {
        return Err(Fault::new("a word that begins with # must be in quotes"));
    }
    let words: Vec<String> = words.into_iter().map(|word| word.text).collect();
    match words.first() {
        Some(path) if !path.starts_with('/') => Err(Fault::new(format!(
            "{} is no absolute path of a program",
            quoted(path)
        ))),
        _ => Ok(words),
    }
}

/// Returns whether the path is a file with an execute permission for any user.
fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::{Scratch, chmod};

    fn read(text: &str) -> Result<Subsystems, String> {
        let table = DeTable::parse(text).unwrap();
        let mut mistakes = Vec::new();
        let all = Subsystems::read(table.get_ref(), &mut mistakes);
        match mistakes.into_iter().next() {
            Some((_, why)) => Err(why),
            None => Ok(all),
        }
    }

    fn words(value: &str) -> Result<Vec<String>, String> {
        let text = format!("x = '''{value}'''");
        read(&text).map(|all| all.0.get("x").unwrap().words.clone())
    }

    #[test]
    fn a_value_is_split_into_words_with_quotes() {
        assert_eq!(words("/bin/x").unwrap(), ["/bin/x"]);
        assert_eq!(
            words("  \"/opt/my server\" -d 'a \"b\"' '' x#y '#z' ").unwrap(),
            ["/opt/my server", "-d", "a \"b\"", "", "x#y", "#z"]
        );
        assert_eq!(words("").unwrap(), Vec::<String>::new());
        assert_eq!(words(" ").unwrap(), Vec::<String>::new());
        for wrong in [
            "internal-sftp",
            "./x",
            "''",
            "/bin/x \"a",
            "/bin/x # a",
            "# /bin/x",
            "/bin/x\n-a",
        ] {
            assert!(words(wrong).is_err(), "{wrong:?}");
        }
        for wrong in [
            "'-s' = \"/x\"",
            "'a b' = \"/x\"",
            "a = 1",
            "a = [\"/x\"]",
            "a.b = \"/x\"",
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn without_an_entry_the_usual_paths_of_sftp_are_tried_when_it_is_asked_for() {
        let scratch = Scratch::new();
        let [first, second] = ["first", "second"].map(|n| scratch.path().join(n));
        let usual = [first.to_str().unwrap(), second.to_str().unwrap()];
        let none = Subsystems::default();
        let found = |all: &Subsystems| all.find_among(SFTP, &usual).map_err(|e| e.to_string());
        assert!(found(&none).unwrap_err().contains("openssh-sftp-server"));
        std::fs::create_dir(&first).unwrap();
        scratch.file("second", "", 0o644);
        assert!(found(&none).is_err(), "neither is a program");
        chmod(&second, 0o755);
        assert_eq!(found(&none).unwrap(), [usual[1]]);
        std::fs::remove_dir(&first).unwrap();
        scratch.file("first", "", 0o755);
        assert_eq!(found(&none).unwrap(), [usual[0]]);

        let off = read("sftp = \"\"").unwrap();
        assert!(found(&off).unwrap_err().contains("turns it off"));
        let own = read("sftp = \"/bin/x -R\"").unwrap();
        assert_eq!(found(&own).unwrap(), ["/bin/x", "-R"]);
        let unknown = own.find("netconf").unwrap_err().to_string();
        assert!(unknown.contains("no netconf"), "{unknown}");
    }
}
