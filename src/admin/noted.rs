//! Notes in the configuration folder what a command has changed of the machine registry,
//! so that an older copy of it, put back later, is found.
//!
//! Runs in cosadm. Owns no file: it reads and writes by [`Noted`], before and after the command.
//! Must not wait for the inner door, which may hang, where the command does not change that.

use super::out::{Failure, Out};
use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::registry::noted::Noted;

/// What a command may change of the machine registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changes {
    Nothing,
    /// What is this host's own: the outer door and the recorded machine keys. The inner door
    /// may stand in a folder that hangs (NFS), and whoever excludes a machine must not wait
    /// for that.
    Own,
    /// The inner door as well.
    Registry,
}

/// Runs a command, and notes how many changes the registry has seen then, if the command has
/// changed it. One that was an older copy before stays noted as it was.
pub(super) fn noting(
    paths: Option<Paths>,
    changes: Changes,
    out: &Out,
    run: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let now: fn(&Paths) -> Noted = match changes {
        Changes::Nothing => return run(),
        Changes::Own => Noted::own,
        Changes::Registry => Noted::now,
    };
    let paths = paths.filter(Noted::is_there);
    let before = paths.as_ref().map(now);
    let was_older = (paths.as_ref().zip(before.as_ref())).is_none_or(|(p, now)| is_older(p, now));
    let done = run();
    if let Some((paths, before)) = paths.zip(before) {
        if let Err(why) = note(&paths, &before, now(&paths), was_older) {
            out.tell(why.while_doing("not noted in the configuration folder"));
        }
    }
    done
}

/// Whether the registry is an older copy, or that cannot be told.
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
