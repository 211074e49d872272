//! The stages of a login in PAM's order: authenticate, account, change an expired password,
//! credentials, session; then the application; then close session and credentials.
//!
//! Runs in the login worker, top to bottom. Owns the transaction. Must not end without closing what
//! it has opened, even if the monitor is gone.

use std::rc::Rc;

use nix::unistd::{Gid, Group, setgroups};

use super::Line;
use super::application::Application;
use super::conversation::{Conversation, Held};
use super::pam::{self, AccountStatus, Failure, Item, Start, Transaction};
use crate::fault::Fault;
use crate::ipc::login::{Begin, Launch, Order, PamAccount, Task, WorkerToMonitor};
use crate::sys::account::{self, Account};
use crate::sys::pam_files::{self, SERVICE};
use crate::sys::process;

/// The value of PAM_TTY: there is no terminal, but some modules require a name.
const TERMINAL: &str = "cosserver";

/// Most time that closing may take, seconds: as long as `[login] check` can be.
const CLOSE_WITHIN: u32 = 100;

/// Runs a login, from the first order to the last message.
///
/// # Errors
/// The monitor is gone, or has dismissed this worker.
pub(super) fn run(line: &Line, start: Start) -> Result<(), Fault> {
    let (Order::Begin(begin), _) = line.next()? else {
        return Err(Fault::new("an unexpected first order"));
    };
    let held = Held::default();
    let outcome = log_in(line, &begin, &held, start);
    match outcome {
        Ok(()) => Ok(()),
        Err(Stop::Refused(f)) if !f.is_ours => line.say(&WorkerToMonitor::Refused(f.code, f.words)),
        Err(Stop::Refused(f)) => line.say(&WorkerToMonitor::Failed(format!(
            "PAM: {} ({})",
            f.words, f.code
        ))),
        Err(Stop::Failed(words)) => line.say(&WorkerToMonitor::Failed(words)),
        Err(Stop::Over(fault)) => Err(fault),
    }
}

/// Why a login ends early.
enum Stop {
    /// PAM denied it: report that to the monitor.
    Refused(Failure),
    /// Something failed here: report that to the monitor.
    Failed(String),
    /// The monitor is gone.
    Over(Fault),
}

impl From<Failure> for Stop {
    fn from(f: Failure) -> Self {
        Self::Refused(f)
    }
}

impl From<Fault> for Stop {
    fn from(f: Fault) -> Self {
        Self::Over(f)
    }
}

fn failed(words: impl ToString) -> Stop {
    Stop::Failed(words.to_string())
}

fn log_in(line: &Line, begin: &Begin, held: &Held, start: Start) -> Result<(), Stop> {
    let mut pam = begin_transaction(line, begin, held, start)?;
    match &begin.task {
        Task::Authenticate => pam.authenticate()?,
        Task::Trust => {}
        Task::CloseOnly(variables) => {
            for variable in variables {
                pam.put(variable)?;
            }
            close(pam.as_mut());
            return Ok(());
        }
    }
    if pam.account().map_err(|f| f.at("account"))? == AccountStatus::PasswordExpired {
        pam.change_expired().map_err(|f| f.at("new password"))?;
    }
    let account = pam.user().map_or(Ok(None), |name| account::look_up(&name));
    let unusable = |why| failed(format!("the user that PAM names cannot be used: {why}"));
    let account = account.map_err(unusable)?;
    let account = account.ok_or_else(|| failed("the user that PAM names does not exist"))?;
    line.say(&WorkerToMonitor::Authenticated(PamAccount {
        groups: groups_among(&account, &begin.groups),
        account: account.clone(),
    }))?;

    let (order, fds) = line.next()?;
    let Order::Launch(launch) = order else {
        return Err(Fault::new("an unexpected order").into());
    };
    let fds = fds
        .try_into()
        .map_err(|_| Fault::new("an application without its three descriptors"))?;
    // A session that is opened must be closed again, even if the monitor is gone.
    line.outlive_monitor();
    open(pam.as_mut(), begin, &account, &launch)?;
    let application = Application::start(&launch, &account, fds, pam.as_mut(), held);
    line.lift_deadline();
    let ended = match application {
        Ok(application) => application.wait_and_report(line),
        Err(e) => {
            close(pam.as_mut());
            return Err(failed(e));
        }
    };
    close(pam.as_mut());
    ended.map_err(Stop::from)
}

fn begin_transaction(
    line: &Line,
    begin: &Begin,
    held: &Held,
    start: Start,
) -> Result<Box<dyn Transaction>, Stop> {
    pam_files::judge().map_err(|trouble| failed(format!("PAM: {trouble}")))?;
    let string = |text: &str| pam::string(text).ok_or_else(|| failed("a NUL byte in a name"));
    let conversation = Conversation::new(line.clone(), Rc::clone(held));
    let (service, user) = (string(SERVICE)?, string(&begin.user)?);
    let mut pam = start(&service, &user, Box::new(conversation))?;
    for (item, value) in [
        (Item::RemoteHost, begin.remote_host.as_str()),
        (Item::RemoteUser, &begin.remote_user),
        (Item::Terminal, TERMINAL),
    ] {
        if !value.is_empty() {
            pam.set(item, &string(value)?)?;
        }
    }
    Ok(pam)
}

/// Returns which of these groups the user is in.
fn groups_among(account: &Account, names: &[String]) -> Vec<String> {
    let is_in = |name: &&String| match Group::from_name(name) {
        Ok(Some(group)) => account.groups.iter().any(|g| *g == group.gid.as_raw()),
        Ok(None) | Err(_) => false,
    };
    names.iter().filter(is_in).cloned().collect()
}

/// Establishes the credentials and opens the session.
///
/// Sets the user's groups first, because credentials may add to them (pam_setcred(3)). Restores the
/// limits that the daemon was started with, because the session may set others.
fn open(
    pam: &mut dyn Transaction,
    begin: &Begin,
    account: &Account,
    launch: &Launch,
) -> Result<(), Stop> {
    if launch.becomes_user {
        let groups: Vec<Gid> = account
            .groups
            .iter()
            .map(|g| Gid::from_raw(g.get()))
            .collect();
        setgroups(&groups).map_err(failed)?;
    }
    process::ends_with_parent(false);
    process::restore(&begin.limits);
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // The user is authenticated by now: a failure here says nothing about a guess.
    let says_no = |f: Failure| failed(format!("PAM: {} ({})", f.words, f.code));
    pam.establish_credentials()
        .map_err(|f| says_no(f.at("credentials")))?;
    if let Err(failure) = pam.open_session() {
        let _ = pam.delete_credentials();
        return Err(says_no(failure.at("session")));
    }
    Ok(())
}

/// Closes the session and deletes the credentials, each even if the other fails. The monitor ends
/// this process if a module hangs; if the monitor is gone, the kernel's alarm does.
fn close(pam: &mut dyn Transaction) {
    process::ends_with_parent(false);
    nix::unistd::alarm::set(CLOSE_WITHIN);
    let _ = pam.close_session();
    let _ = pam.delete_credentials();
}
