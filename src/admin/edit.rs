//! Edits the text of the host table: adds a line, changes an option of a line, or removes the lines
//! of one host. The rest of the text stays as it is. Works under a lock, so that two concurrent
//! `cosadm` do not lose each other's changes.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use zeroize::Zeroizing;

use crate::config::hostinfo::{self, Entry, FILE_MAX, quote, words};
use crate::config::name::HostName;
use crate::config::paths::Paths;
use crate::config::secure;
use crate::fault::Fault;

/// The lock for changes to the files of a configuration folder. It is released when dropped, or
/// when the process ends.
pub(super) struct Lock {
    _held: Flock<File>,
}

impl Lock {
    /// Waits until no other process changes the files of the folder.
    pub(super) fn take(paths: &Paths) -> Result<Self, Fault> {
        if matches!(paths.dir.try_exists(), Ok(false)) {
            let init = paths.cosadm("init");
            let words = format!("there is no such folder; {init} makes it");
            return Err(Fault::of(&paths.dir, words));
        }
        secure::check_folder(&paths.dir)?;
        let path = paths.lock();
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .map_err(|e| Fault::of(&path, e))?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(held) => return Ok(Self { _held: held }),
                Err((again, Errno::EINTR)) => file = again,
                Err((_, e)) => return Err(Fault::of(&path, std::io::Error::from(e))),
            }
        }
    }
}

/// A change to an option of a line.
pub(super) enum Change {
    Set(String),
    Remove,
}

/// The text of a host table, which may be changed while a [`Lock`] is held.
pub(super) struct Text {
    file: PathBuf,
    /// The contents of the file.
    before: Zeroizing<Vec<u8>>,
    /// Each line with its line ending.
    lines: Vec<Vec<u8>>,
}

impl Text {
    pub(super) fn read(paths: &Paths, _: &Lock) -> Result<Self, Fault> {
        let file = paths.hostinfo();
        let bytes = hostinfo::content(paths)?;
        Ok(Self {
            file,
            lines: bytes
                .split_inclusive(|b| *b == b'\n')
                .map(<[u8]>::to_vec)
                .collect(),
            before: bytes,
        })
    }

    /// Returns the entry of a host.
    ///
    /// # Errors
    /// Returns an error if its line is invalid, or if there are two.
    pub(super) fn find(&self, host: &HostName) -> Result<Option<Entry>, Fault> {
        hostinfo::find_in(&self.bytes(), &self.file, host)
    }

    /// Adds a line at the end.
    pub(super) fn add(&mut self, host: &HostName, options: &[(&str, String)]) {
        if let Some(last) = self.lines.last_mut().filter(|last| !last.ends_with(b"\n")) {
            last.push(b'\n');
        }
        let mut line = format!("{host} cos");
        for (name, value) in options {
            line.push_str(&format!(" {name}={}", quote(value)));
        }
        line.push('\n');
        self.lines.push(line.into_bytes());
    }

    /// Sets the method of a host's only line to `cos`, and changes options of it. Its other words,
    /// blanks and comment stay as they are.
    pub(super) fn change(
        &mut self,
        host: &HostName,
        changes: &[(&str, Change)],
    ) -> Result<(), Fault> {
        set_word(self.line(host)?, 1, "cos")?;
        self.change_options(host, changes)
    }

    /// Changes options of a host's only line. The method and the rest stay as they are.
    pub(super) fn change_options(
        &mut self,
        host: &HostName,
        changes: &[(&str, Change)],
    ) -> Result<(), Fault> {
        let line = self.line(host)?;
        for (name, change) in changes {
            set_option(line, name, change)?;
        }
        Ok(())
    }

    /// Returns a host's only line.
    fn line(&mut self, host: &HostName) -> Result<&mut Vec<u8>, Fault> {
        let missing = || Fault::of(&self.file, format!("{host} is not in it"));
        self.lines
            .iter_mut()
            .find(|line| named(line).as_ref() == Some(host))
            .ok_or_else(missing)
    }

    /// Removes every line of a host, valid or not.
    pub(super) fn remove(&mut self, host: &HostName) {
        self.lines.retain(|line| named(line).as_ref() != Some(host));
    }

    /// Writes the table. `host` is the host whose line has changed; if the line would be invalid,
    /// nothing is written.
    pub(super) fn save(&self, host: &HostName, _: &Lock) -> Result<(), Fault> {
        let bytes = self.bytes();
        hostinfo::find_in(&bytes, &self.file, host)
            .map_err(|e| e.while_doing("nothing was changed"))?;
        if bytes.len() > FILE_MAX {
            return Err(Fault::of(
                &self.file,
                format!("it would be longer than {FILE_MAX} bytes; nothing was changed"),
            ));
        }
        secure::replace(&self.file, &bytes, 0o644)
    }

    /// Writes the table if it differs from the file, and returns whether it does.
    pub(super) fn save_if_changed(&self, host: &HostName, lock: &Lock) -> Result<bool, Fault> {
        if self.bytes() == **self.before {
            return Ok(false);
        }
        self.save(host, lock)?;
        Ok(true)
    }

    fn bytes(&self) -> Vec<u8> {
        self.lines.concat()
    }
}

/// Returns the host that a line names, even if the rest of the line is invalid.
fn named(line: &[u8]) -> Option<HostName> {
    hostinfo::named(without_line_ending(line))
}

/// Returns a line without its line ending.
fn without_line_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn set_word(line: &mut Vec<u8>, number: usize, text: &str) -> Result<(), Fault> {
    if let Some(word) = words(without_line_ending(line))?
        .get(number)
        .filter(|word| word.text != text)
    {
        line.splice(word.span.clone(), text.bytes());
    }
    Ok(())
}

fn set_option(line: &mut Vec<u8>, name: &str, change: &Change) -> Result<(), Fault> {
    let words = words(without_line_ending(line))?;
    let is = |text: &str| text.split_once('=').is_some_and(|(key, _)| key == name);
    let old = words
        .iter()
        .find(|word| is(&word.text))
        .map(|word| word.span.clone());
    let end = words.last().map_or(0, |word| word.span.end);
    match (change, old) {
        (Change::Set(value), Some(span)) => {
            line.splice(span, format!("{name}={}", quote(value)).into_bytes());
        }
        (Change::Set(value), None) => {
            line.splice(end..end, format!(" {name}={}", quote(value)).into_bytes());
        }
        (Change::Remove, Some(span)) => {
            // Remove also the blank before it. There is one: the name and the method come first.
            line.splice(span.start.saturating_sub(1)..span.end, []);
        }
        (Change::Remove, None) => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::scratch::Scratch;

    fn host(name: &str) -> HostName {
        HostName::parse(name).unwrap()
    }

    fn edited(before: &str, edit: impl FnOnce(&mut Text)) -> String {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        scratch.file("hostinfo", before, 0o640);
        let lock = Lock::take(&paths).unwrap();
        let mut text = Text::read(&paths, &lock).unwrap();
        edit(&mut text);
        text.save(&host("a"), &lock).unwrap();
        let about = std::fs::metadata(paths.hostinfo()).unwrap();
        assert_eq!(about.permissions().mode() & 0o7777, 0o640);
        std::fs::read_to_string(paths.hostinfo()).unwrap()
    }

    #[test]
    fn adding_keeps_what_is_there() {
        let options = [
            ("addr", "::1".to_owned()),
            ("commands", "/bin/df -h".to_owned()),
        ];
        assert_eq!(
            edited("# mine\n\nb ssh # x", |t| t.add(&host("a"), &options)),
            "# mine\n\nb ssh # x\na cos addr=::1 commands=\"/bin/df -h\"\n"
        );
    }

    #[test]
    fn changing_keeps_the_rest_of_the_line() {
        let set = |value: &str| Change::Set(value.to_owned());
        let changes = [
            ("port", set("7")),
            ("as", set("x")),
            ("server", Change::Remove),
            ("user", Change::Remove),
        ];
        assert_eq!(
            edited(
                "# 1\r\nA\t ssh  port='9' commands=\"/bin/x # y\" server=z   # mine\r\nb cos\n",
                |t| {
                    t.change(&host("a"), &changes).unwrap();
                }
            ),
            "# 1\r\nA\t cos  port=7 commands=\"/bin/x # y\" as=x   # mine\r\nb cos\n"
        );
        assert_eq!(
            edited("a cos", |t| t.change(&host("a"), &changes[..1]).unwrap()),
            "a cos port=7"
        );
    }

    #[test]
    fn removing_takes_wrong_lines_too() {
        assert_eq!(
            edited("x cos\na cos\n 'a' zzz\na \"\nab cos", |t| t
                .remove(&host("a"))),
            "x cos\nab cos"
        );
    }

    #[test]
    fn a_wrong_line_is_not_saved() {
        let scratch = Scratch::new();
        let paths = scratch.paths();
        scratch.file("hostinfo", "a cos\n", 0o644);
        let lock = Lock::take(&paths).unwrap();
        let mut text = Text::read(&paths, &lock).unwrap();
        text.add(&host("a"), &[]);
        assert!(
            text.save(&host("a"), &lock)
                .unwrap_err()
                .to_string()
                .starts_with("nothing was changed: ")
        );
        assert_eq!(std::fs::read(paths.hostinfo()).unwrap(), b"a cos\n");
    }
}
