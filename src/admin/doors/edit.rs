//! `cosadm edit`: opens the file of a door in the administrator's editor, as vipw(8) does.
//!
//! Runs in `cosadm`. Owns the copy that the editor gets: the file as it is, so that the line
//! numbers are those of `cosadm check`. It is in a new folder of the state folder, which only this
//! user can enter, together with whatever the editor creates beside it. [`Edit`] holds the lock,
//! checks the text and installs it. Must not throw away a text that the administrator has changed,
//! unless told.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::super::call::Call;
use super::super::out::{Failure, Out};
use super::{BUT_HOSTS, PATIENCE, door, in_time, inner, inner_in, outer, sestab};
use crate::config::paths::Paths;
use crate::config::secure::{self, Created, Kind};
use crate::config::words::quoted;
use crate::fault::Fault;
use crate::registry::{Checked, Edit, Level};
use crate::secret;
use crate::sys::editor;
use crate::tty::{self, Terminal};

/// Largest copy that is read, bytes: longer than every file that can be installed.
const LARGEST: usize = 256 << 20;

/// How many wrong lines are shown.
const SHOWN: usize = 20;

/// Longest answer to a question, bytes.
const ANSWER: usize = 64;

/// What all failures say.
const UNCHANGED: &str = "nothing was changed";

/// The files that can be edited.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    Sestab,
    Idfile,
}

impl Which {
    fn of(word: &str) -> Result<Self, Failure> {
        match word {
            "sestab" => Ok(Self::Sestab),
            "idfile" => Ok(Self::Idfile),
            _ => {
                let words = format!("{} is neither sestab nor idfile", quoted(word));
                Err(Failure::Usage(words))
            }
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Sestab => "sestab",
            Self::Idfile => "idfile",
        }
    }
}

/// Edits the file of a door.
pub(in crate::admin) fn edit(call: &Call, out: &Out) -> Result<(), Failure> {
    let which = Which::of(call.operand(0))?;
    let paths = call.paths()?;
    let outer = outer(&paths)?;
    let edit = match which {
        Which::Sestab => outer.edit()?,
        Which::Idfile => inner(&paths, &outer)?.edit()?,
    };
    for copy in WorkingCopy::left(&paths, which) {
        let copy = copy.display();
        out.tell(format!("an earlier edit has left its copy in {copy}"));
    }
    let mut copy = WorkingCopy::new(&paths, which, edit.text())?;
    let done = match edited(&edit, &copy, out) {
        Ok(Some(checked)) => install(&paths, which, edit, checked, out),
        Ok(None) => {
            out.tell(UNCHANGED);
            Ok(())
        }
        Err(failed) => Err(failed),
    };
    if !matches!(done, Err(Failed::Kept(_))) {
        if let Err(fault) = copy.remove() {
            // It has hashed passwords.
            out.tell(fault);
        }
    }
    match done {
        Ok(()) => Ok(()),
        Err(Failed::Discarded) => {
            out.tell(UNCHANGED);
            Err(Failure::Found)
        }
        Err(Failed::Unchanged(fault)) => Err(fault.into()),
        Err(Failed::Kept(fault)) => {
            copy.is_kept = true;
            let file = copy.file();
            if !file.exists() {
                return Err(fault.into());
            }
            let remedy = format!("your copy is kept: {}", file.display());
            Err(fault.with_remedy(remedy).into())
        }
    }
}

/// Why a file was not edited.
enum Failed {
    /// The administrator has left without saving.
    Discarded,
    /// The administrator has not changed the copy.
    Unchanged(Fault),
    /// The copy is kept.
    Kept(Fault),
}

/// Has the administrator edit the copy. Returns the checked text, which has no new fault; `None`:
/// it is that of the file.
fn edited(edit: &Edit, copy: &WorkingCopy, out: &Out) -> Result<Option<Checked>, Failed> {
    loop {
        let ended = editor::run(&program(), copy.file());
        let text = copy.read();
        let is_same = matches!(&text, Ok(text) if **text == *edit.text());
        let why = match ended {
            Ok(status) if status.success() => None,
            Ok(status) => Some(format!("the editor failed ({status}); {UNCHANGED}")),
            Err(e) => Some(format!("the editor: {e}; {UNCHANGED}")),
        };
        if let Some(why) = why {
            let failed = if is_same {
                Failed::Unchanged
            } else {
                Failed::Kept
            };
            return Err(failed(Fault::new(why)));
        }
        if is_same {
            return Ok(None);
        }
        let unread = |fault: Fault| Failed::Kept(fault.while_doing(UNCHANGED));
        let checked = edit.check(copy.file(), &text.map_err(unread)?);
        if checked.faults().is_empty() {
            return Ok(Some(checked));
        }
        for fault in checked.faults().iter().take(SHOWN) {
            out.tell(fault);
        }
        let more = checked.faults().len().saturating_sub(SHOWN);
        if more > 0 {
            out.tell(format!("{more} more lines are wrong"));
        }
        if !again()? {
            let words = format!("a line is wrong; {UNCHANGED}");
            return Err(Failed::Kept(Fault::of(edit.file(), words)));
        }
    }
}

/// Installs the new text, and reports what it does to the machines.
fn install(
    paths: &Paths,
    which: Which,
    edit: Edit,
    checked: Checked,
    out: &Out,
) -> Result<(), Failed> {
    let file = edit.file().display().to_string();
    let left = edit.install(checked).map_err(Failed::Kept)?;
    out.tell(format!(
        "{file} is changed, and applies to the next connection"
    ));
    if which == Which::Sestab {
        let paths = paths.clone();
        let now = in_time(PATIENCE, move || Ok(door::now(&paths)));
        out.tell(now.unwrap_or_else(|fault| fault.to_string()));
    }
    for fault in left.iter().take(SHOWN) {
        out.tell(format!("warning: {fault}"));
    }
    match warning(paths, which) {
        Ok(Some(words)) => out.tell(format!("warning: {words}")),
        Ok(None) => {}
        Err(fault) => out.tell(format!("warning: {fault}")),
    }
    Ok(())
}

/// Returns what is wrong with the doors as they are now.
fn warning(paths: &Paths, which: Which) -> Result<Option<String>, Fault> {
    let outer = outer(paths)?;
    if which == Which::Sestab {
        if let Some(words) = sestab::denies_all(paths, &outer)? {
            return Ok(Some(words));
        }
    }
    if outer.level()? == Level::Off {
        return Ok(None);
    }
    let (paths, folder) = (paths.clone(), outer.folder()?);
    let count = in_time(PATIENCE, move || {
        inner_in(&paths, folder.as_deref())?.count()
    })?;
    Ok((count == 0).then(|| format!("no machine is authorized; {BUT_HOSTS}")))
}

/// Returns the editor that the administrator has chosen.
fn program() -> OsString {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    set("VISUAL")
        .or_else(|| set("EDITOR"))
        .unwrap_or_else(|| "vi".into())
}

/// Asks whether to edit the copy again. Returns `false` if there is no terminal, or its input ends.
fn again() -> Result<bool, Failed> {
    let terminal = tty::is_interactive().then(|| Terminal::open().ok());
    let Some(mut terminal) = terminal.flatten() else {
        return Ok(false);
    };
    loop {
        let asked = terminal.tell("What now? (e)dit again, e(x)it without saving: ");
        let Ok(answer) = asked.and_then(|()| terminal.line(ANSWER)) else {
            return Ok(false);
        };
        match answer.trim_ascii() {
            b"e" | b"E" => return Ok(true),
            b"x" | b"X" => return Err(Failed::Discarded),
            _ => {}
        }
    }
}

/// The copy that the editor gets, alone in a folder. Both are removed when dropped unless kept.
struct WorkingCopy {
    folder: PathBuf,
    file: PathBuf,
    is_kept: bool,
}

impl WorkingCopy {
    fn new(paths: &Paths, which: Which, text: &[u8]) -> Result<Self, Fault> {
        let number = secret::to_hex(&secret::random::<8>()?);
        let folder = paths.state.join(format!("{}{number}", Self::prefix(which)));
        secure::make_folder(&folder, 0o700)?;
        let copy = Self {
            file: folder.join(which.name()),
            folder,
            is_kept: false,
        };
        if secure::create_new(&copy.file, text, 0o600)? == Created::There {
            return Err(Fault::of(&copy.file, "it exists already"));
        }
        Ok(copy)
    }

    fn prefix(which: Which) -> String {
        format!("edit-{}-", which.name())
    }

    /// Returns the folders of earlier copies. No other edit of the file runs now.
    fn left(paths: &Paths, which: Which) -> Vec<PathBuf> {
        let prefix = Self::prefix(which);
        let all = fs::read_dir(&paths.state).into_iter().flatten().flatten();
        let is_copy = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(prefix.as_bytes())
        };
        let mut left: Vec<_> = all.map(|entry| entry.path()).filter(is_copy).collect();
        left.sort();
        left
    }

    fn file(&self) -> &Path {
        &self.file
    }

    /// Removes the copy and its folder, unless it is kept or removed already.
    fn remove(&mut self) -> Result<(), Fault> {
        if std::mem::replace(&mut self.is_kept, true) {
            return Ok(());
        }
        let removed = fs::remove_dir_all(&self.folder);
        removed.map_err(|e| Fault::of(&self.folder, format!("not removed: {e}")))
    }

    /// Reads the copy. Others cannot reach it, whatever mode the editor has given it.
    fn read(&self) -> Result<Zeroizing<Vec<u8>>, Fault> {
        secure::read(&self.file, Kind::Policy, LARGEST)
    }
}

impl Drop for WorkingCopy {
    fn drop(&mut self) {
        // Where that can be reported, it has been done.
        drop(self.remove());
    }
}
