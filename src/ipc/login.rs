//! Messages between the monitor and a login worker.
//!
//! The worker runs PAM and has the monitor's privileges. Its messages must still be fixed and
//! strict, because third-party modules run inside it.

use std::ffi::CString;

use zeroize::Zeroizing;

use super::fields::{fields, message};
use crate::protocol::name::UserName;
use crate::protocol::prompt::Text;
use crate::sys::account::Account;
use crate::sys::process::Limits;

/// Descriptors that come with [`Order::Launch`]: the application's standard streams.
pub const LAUNCH_DESCRIPTORS: usize = 3;

/// A message of the monitor to the worker.
pub enum Order {
    /// Begin a transaction. The first message.
    Begin(Begin),
    /// The answers to the prompts of the last [`WorkerToMonitor::Ask`].
    Answers(Vec<Zeroizing<Vec<u8>>>),
    /// There are no answers: the client has left. PAM goes on to its decision.
    NoAnswer,
    /// Open the session and start this application. Its descriptors come with the message.
    Launch(Launch),
    /// The monitor has received the application's end: reap it, and close the session.
    Reap,
}

/// What a transaction is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// The requested user.
    pub user: String,
    /// The caller's address, numeric.
    pub remote_host: String,
    /// The caller's name on that host, if the host itself has stated it; else empty. Modules may
    /// authenticate a user by it, and an unauthenticated client can claim any name.
    pub remote_user: String,
    /// What to do with the user.
    pub task: Task,
    /// Group names: the worker reports which of them the user is in.
    pub groups: Vec<String>,
    /// The limits that the daemon was started with.
    pub limits: Limits,
}

/// What a worker is started for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Ask the user for the password, and whatever else PAM requires.
    Authenticate,
    /// An authenticated host vouches for the user: only check whether the account may be used.
    Trust,
    /// The worker of a session died: close that session, which had these variables.
    CloseOnly(Vec<CString>),
}

/// An application to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Its file, an absolute path.
    pub path: CString,
    /// Its arguments, beginning with its own name.
    pub argv: Vec<CString>,
    /// Variables whose values a variable of PAM replaces.
    pub defaults: Vec<CString>,
    /// Variables that replace those of PAM.
    pub fixed: Vec<CString>,
    /// Whether to become the user: true if the daemon is root.
    pub becomes_user: bool,
    /// Whether to detach it: it then runs on even after the monitor is gone.
    pub detach: bool,
}

/// A message of the worker to the monitor.
pub enum WorkerToMonitor {
    /// PAM asks; at least one of these is a prompt.
    Ask(Vec<Text>),
    /// The user is authenticated, by PAM or by a host, and the account may be used.
    Authenticated(PamAccount),
    /// The application runs.
    Running(Started),
    /// The application exited with this status.
    Exited(u8),
    /// This signal killed the application.
    Killed(u8),
    /// PAM denied the login: its error number, and the text for the log.
    Refused(i32, String),
    /// Neither allowed nor denied: what failed here, for the log.
    Failed(String),
}

/// The account that PAM or a host has authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PamAccount {
    /// The account.
    pub account: Account,
    /// The user's groups, of those that were asked about.
    pub groups: Vec<String>,
}

/// An application that runs.
#[derive(Clone)]
pub struct Started {
    /// Its leader, in its own process group; not reaped before [`Order::Reap`].
    pub pid: i32,
    /// PAM's messages since it last asked.
    pub texts: Vec<Text>,
    /// PAM's variables, for the cleanup worker, which closes the session if this worker cannot.
    pub variables: Vec<CString>,
}

message!(enum Order { 1 Begin(begin), 2 Answers(answers), 3 Launch(launch), 4 Reap, 5 NoAnswer });
fields!(struct Begin { user, remote_host, remote_user, task, groups, limits });
fields!(enum Task { 0 Authenticate, 1 Trust, 2 CloseOnly(variables) });
fields!(struct Launch { path, argv, defaults, fixed, becomes_user, detach });

message!(enum WorkerToMonitor {
    1 Ask(texts),
    2 Authenticated(account),
    3 Running(started),
    4 Exited(status),
    5 Killed(signal),
    6 Refused(code, words),
    7 Failed(words),
} if asks);
fields!(struct PamAccount { account, groups } if has_a_name);
fields!(struct Started { pid, texts, variables } if has_a_pid);

/// Whether there is a prompt in a message that asks.
fn asks(word: &WorkerToMonitor) -> bool {
    let prompts = |texts: &[Text]| texts.iter().any(|t| t.style.is_prompt());
    !matches!(word, WorkerToMonitor::Ask(texts) if !prompts(texts))
}

/// Whether an account has a valid name. A module of PAM or NSS may return any name, and it reaches
/// the environment of an application and the log.
fn has_a_name(account: &PamAccount) -> bool {
    UserName::parse(&account.account.name).is_ok()
}

/// Zero and one are no application's pid, and signalling them would be fatal.
const fn has_a_pid(started: &Started) -> bool {
    started.pid > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::prompt::Style;

    #[test]
    fn orders_and_reports_round_trip() {
        let strings = |all: &[&str]| all.iter().map(|s| CString::new(*s).unwrap()).collect();
        let begin = |task| {
            Order::Begin(Begin {
                user: "alice".into(),
                remote_host: "192.0.2.7".into(),
                remote_user: "al".into(),
                task,
                groups: vec!["staff".into()],
                limits: Limits {
                    files: Some((1024, 4096)),
                    core: None,
                },
            })
        };
        let launch = Order::Launch(Launch {
            path: c"/usr/bin/xterm".into(),
            argv: strings(&["xterm", "-e", ""]),
            defaults: strings(&["PATH=/bin"]),
            fixed: strings(&["GUI_PORT=9003"]),
            becomes_user: true,
            detach: true,
        });
        for order in [
            begin(Task::Authenticate),
            begin(Task::Trust),
            begin(Task::CloseOnly(strings(&["A=b"]))),
            Order::Answers(vec![Zeroizing::new(b"secret".to_vec())]),
            launch,
            Order::NoAnswer,
            Order::Reap,
        ] {
            let sent = order.encode();
            assert_eq!(Order::decode(&sent).map(|o| o.encode()), Some(sent));
        }
        let text = |style| Text {
            style,
            words: "x".into(),
        };
        let started = Started {
            pid: 7,
            texts: vec![text(Style::Info)],
            variables: strings(&["A=b"]),
        };
        for word in [
            WorkerToMonitor::Ask(vec![text(Style::Error), text(Style::Hidden)]),
            WorkerToMonitor::Running(started.clone()),
            WorkerToMonitor::Exited(3),
            WorkerToMonitor::Killed(9),
            WorkerToMonitor::Refused(7, "Authentication failure".into()),
            WorkerToMonitor::Failed("no pam.d file".into()),
        ] {
            let sent = word.encode();
            assert_eq!(
                WorkerToMonitor::decode(&sent).map(|w| w.encode()),
                Some(sent)
            );
        }
        // Without a prompt `Ask` is malformed, and so is a pid that no application can have.
        let told = WorkerToMonitor::Ask(vec![text(Style::Info)]);
        assert!(WorkerToMonitor::decode(&told.encode()).is_none());
        let init = WorkerToMonitor::Running(Started { pid: 1, ..started });
        assert!(WorkerToMonitor::decode(&init.encode()).is_none());
    }
}
