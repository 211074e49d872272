//! The accounts that a daemon must know before it serves: that of gate and relay, and its own if it
//! is not root.
//!
//! Runs in the monitor, which waits for them, as for all else at the start. Must not be used by a
//! daemon that serves.

use std::time::Duration;

use nix::unistd::geteuid;

use super::look_ups::{self, Process};
use crate::fault::Fault;
use crate::ipc::lookup::Question;
use crate::sys::account::{self, Account, UserRecord};
use crate::sys::id_number::IdNumber;

/// The user of gate and relay if their own account is missing.
pub(super) const NOBODY: &str = "nobody";

/// How long the user database may take to answer at the start.
const LOOKING: Duration = Duration::from_secs(30);

/// Returns the account of a name. A local one is found at once, another by a look-up process. That
/// runs as nobody, since the user that it is to become is not known yet. `begun`: a process that
/// was started before.
pub(super) fn account_of(
    name: &str,
    begun: Option<&mut Process>,
) -> Result<Option<Account>, Fault> {
    if let Some(local) = account::local(name) {
        return Ok(Some(local));
    }
    let nobody =
        account::local(NOBODY).map_or((IdNumber::OVERFLOW, IdNumber::OVERFLOW), |n| (n.uid, n.gid));
    let question = Question::User(name.to_owned(), Vec::new());
    let found = ask_once(begun, Some(nobody), &question);
    let found = found.map_err(|e| e.while_doing("asking the user database"))?;
    Ok(found.map(|record| record.account))
}

/// Returns the user of this process, asked of `begun` or of a new process.
pub(super) fn own_account(begun: Option<&mut Process>) -> Result<Account, Fault> {
    let question = Question::Number(geteuid().as_raw(), Vec::new());
    let found = ask_once(begun, None, &question);
    let own = found.map_err(|e| e.while_doing("asking the user database"))?;
    let own = own.ok_or_else(|| Fault::new("this process's user is not in the user database"))?;
    Ok(own.account)
}

/// Asks a process that was started before, or a new one, which becomes this user.
fn ask_once(
    begun: Option<&mut Process>,
    user: Option<(IdNumber, IdNumber)>,
    question: &Question,
) -> Result<Option<UserRecord>, Fault> {
    match begun {
        Some(process) => process
            .begin(user, true)
            .and_then(|()| process.ask_and_wait(question, LOOKING)),
        None => look_ups::ask_once(user, question, LOOKING),
    }
}
