//! Updates the registry note in the configuration folder after a command has changed the machine
//! registry, so that a restored older copy of the registry is detected.
//!
//! Runs in `cosadm`. Owns no file: it reads and writes through [`Noted`], before and after the
//! command. Must not wait for the inner door, which may hang, if the command does not change it.

use super::call::Call;
use super::out::{Failure, Out};
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::registry::noted::Noted;

/// The part of the machine registry that a command may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    Nothing,
    /// Only this host's part: the outer door and the recorded machine keys. The inner door may be
    /// in a folder that hangs (NFS), and the exclusion of a machine must not wait for it.
    Own,
    /// The inner door as well.
    Registry,
    /// The file that the first operand names.
    File,
}

impl Changes {
    /// Returns what this call may change.
    pub(super) fn of(self, call: &Call) -> Self {
        match self {
            Self::File if call.operand(0) == "sestab" => Self::Own,
            Self::File | Self::Registry => Self::Registry,
            Self::Nothing | Self::Own => self,
        }
    }
}

/// Runs a command. If it has changed the registry, updates the registry note with the new counts
/// of changes. If the registry was an older copy before the command, the note never lowers a count.
pub(super) fn noting(
    paths: Option<Paths>,
    changes: Changes,
    out: &Out,
    run: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let now: fn(&Paths) -> Noted = match changes {
        Changes::Nothing => return run(),
        Changes::Own => Noted::own,
        Changes::Registry | Changes::File => Noted::now,
    };
    let paths = paths.filter(Noted::is_there);
    let before = paths.as_ref().map(now);
    let was_older = (paths.as_ref().zip(before.as_ref())).is_none_or(|(p, now)| is_older(p, now));
    let done = run();
    if let Some((paths, before)) = paths.zip(before) {
        if let Err(why) = note(&paths, &before, now(&paths), was_older) {
            out.tell(why.while_doing("the change was not noted in the configuration folder"));
        }
    }
    done
}

/// Returns whether the registry is an older copy, or may be one.
fn is_older(paths: &Paths, now: &Noted) -> bool {
    let Ok(Some(noted)) = Noted::read(paths) else {
        return true;
    };
    !noted.is_newer_than(now, paths).is_empty()
}

fn note(paths: &Paths, before: &Noted, now: Noted, was_older: bool) -> Result<(), Fault> {
    if now == *before {
        return Ok(());
    }
    let noted = Noted::read(paths)?.unwrap_or_default();
    let next = if was_older {
        noted.at_least(&now)
    } else {
        noted.as_of(&now)
    };
    next.write(paths)
}
