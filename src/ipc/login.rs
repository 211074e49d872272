//! Messages between the monitor and a login worker.
//!
//! The worker runs PAM and has the monitor's privileges. Its messages must still be fixed and
//! strict, because third-party modules run inside it.

use std::ffi::CString;

use zeroize::Zeroizing;

use super::fields::{Reader, Writer};
use crate::protocol::limits;
use crate::protocol::name::UserName;
use crate::protocol::prompt::{Style, Text};
use crate::sys::account::Account;
use crate::sys::process::Limits;

/// Most items in a list: words, variables, groups.
const ITEMS: usize = 4096;

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

/// Whether an account has a valid name. A module of PAM or NSS may return any name, and it reaches
/// the environment of an application and the log.
fn has_a_name(account: &Account) -> bool {
    UserName::parse(&account.name).is_ok()
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
    /// Variables that PAM's override.
    pub defaults: Vec<CString>,
    /// Variables that override PAM's.
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
    Known(Known),
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

/// What a worker found out about a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
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

impl Order {
    /// Encodes the message. The sender must wipe it.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Begin(b) => {
                let w = Writer::new(1)
                    .bytes(b.user.as_bytes())
                    .bytes(b.remote_host.as_bytes())
                    .bytes(b.remote_user.as_bytes());
                let (task, variables): (u64, &[CString]) = match &b.task {
                    Task::Authenticate => (0, &[]),
                    Task::Trust => (1, &[]),
                    Task::CloseOnly(variables) => (2, variables),
                };
                let w = put_strings(w.number(task), variables);
                let w = list(w, &b.groups, |w, g| w.bytes(g.as_bytes()));
                let w = put_limit(w, b.limits.files);
                put_limit(w, b.limits.core).done()
            }
            Self::Answers(all) => {
                let most: usize = all.iter().map(|a| a.len() + 8).sum();
                let w = Writer::sized(2, most + 64);
                list(w, all, |w, a| w.bytes(a)).done()
            }
            Self::Launch(l) => {
                let w = Writer::new(3).bytes(l.path.as_bytes());
                let w = put_strings(w, &l.argv);
                let w = put_strings(w, &l.defaults);
                put_strings(w, &l.fixed)
                    .number(l.becomes_user.into())
                    .number(l.detach.into())
                    .done()
            }
            Self::Reap => Writer::new(4).done(),
            Self::NoAnswer => Writer::new(5).done(),
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        let order = match kind {
            1 => {
                let (user, remote_host, remote_user) = (r.text()?, r.text()?, r.text()?);
                let task: u8 = r.number()?;
                let variables = strings(&mut r)?;
                let task = match task {
                    0 => Task::Authenticate,
                    1 => Task::Trust,
                    2 => Task::CloseOnly(variables),
                    _ => return None,
                };
                let groups = items(&mut r, Reader::text)?;
                let limits = Limits {
                    files: limit(&mut r)?,
                    core: limit(&mut r)?,
                };
                Self::Begin(Begin {
                    user,
                    remote_host,
                    remote_user,
                    task,
                    groups,
                    limits,
                })
            }
            2 => Self::Answers(items(&mut r, |r| {
                Some(Zeroizing::new(r.bytes()?.to_vec()))
            })?),
            3 => Self::Launch(Launch {
                path: string(&mut r)?,
                argv: strings(&mut r)?,
                defaults: strings(&mut r)?,
                fixed: strings(&mut r)?,
                becomes_user: r.number::<u8>()? != 0,
                detach: r.number::<u8>()? != 0,
            }),
            4 => Self::Reap,
            5 => Self::NoAnswer,
            _ => return None,
        };
        r.done(order)
    }
}

impl WorkerToMonitor {
    /// Encodes the message.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Ask(texts) => put_texts(Writer::new(1), texts).done(),
            Self::Known(k) => {
                let w = Writer::new(2).bytes(&k.account.to_bytes());
                list(w, &k.groups, |w, g| w.bytes(g.as_bytes())).done()
            }
            Self::Running(s) => {
                let w = Writer::new(3).number(u64::try_from(s.pid).unwrap_or(0));
                put_strings(put_texts(w, &s.texts), &s.variables).done()
            }
            Self::Exited(n) => Writer::new(4).number((*n).into()).done(),
            Self::Killed(n) => Writer::new(5).number((*n).into()).done(),
            Self::Refused(code, words) => Writer::new(6)
                .number(u64::try_from(*code).unwrap_or(0))
                .bytes(words.as_bytes())
                .done(),
            Self::Failed(words) => Writer::new(7).bytes(words.as_bytes()).done(),
        }
    }

    /// Parses a message. Returns `None` if it is malformed.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (kind, mut r) = Reader::new(message)?;
        let word = match kind {
            1 => {
                let all = texts(&mut r)?;
                all.iter().find(|t| t.style.is_prompt())?;
                Self::Ask(all)
            }
            2 => Self::Known(Known {
                account: Account::from_bytes(r.bytes()?).filter(has_a_name)?,
                groups: items(&mut r, Reader::text)?,
            }),
            3 => Self::Running(Started {
                // Zero and one are no application's pid, and signalling them would be fatal.
                pid: r.number().filter(|pid| *pid > 1)?,
                texts: texts(&mut r)?,
                variables: strings(&mut r)?,
            }),
            4 => Self::Exited(r.number()?),
            5 => Self::Killed(r.number()?),
            6 => Self::Refused(r.number()?, r.text()?),
            7 => Self::Failed(r.text()?),
            _ => return None,
        };
        r.done(word)
    }
}

fn list<T>(w: Writer, all: &[T], put: impl Fn(Writer, &T) -> Writer) -> Writer {
    let w = w.number(u64::try_from(all.len()).unwrap_or(u64::MAX));
    all.iter().fold(w, put)
}

fn items<'a, T>(r: &mut Reader<'a>, get: impl Fn(&mut Reader<'a>) -> Option<T>) -> Option<Vec<T>> {
    let count: usize = r.number().filter(|n| *n <= ITEMS)?;
    (0..count).map(|_| get(r)).collect()
}

fn put_strings(w: Writer, all: &[CString]) -> Writer {
    list(w, all, |w, s| w.bytes(s.as_bytes()))
}

fn strings(r: &mut Reader<'_>) -> Option<Vec<CString>> {
    items(r, string)
}

fn string(r: &mut Reader<'_>) -> Option<CString> {
    CString::new(r.bytes()?).ok()
}

fn put_texts(w: Writer, all: &[Text]) -> Writer {
    list(w, all, |w, t| {
        w.number(t.style.number().into()).bytes(t.words.as_bytes())
    })
}

fn texts(r: &mut Reader<'_>) -> Option<Vec<Text>> {
    let all = items(r, |r| {
        Some(Text {
            style: Style::of(r.number()?)?,
            words: r.text()?,
        })
    })?;
    let fits = all.len() <= limits::PROMPTS && all.iter().all(|t| t.words.len() <= limits::PROMPT);
    fits.then_some(all)
}

fn put_limit(w: Writer, limit: Option<(u64, u64)>) -> Writer {
    let (soft, hard) = limit.unwrap_or_default();
    w.number(limit.is_some().into()).number(soft).number(hard)
}

#[allow(
    clippy::option_option,
    reason = "a limit may be unknown, and a message may be none"
)]
fn limit(r: &mut Reader<'_>) -> Option<Option<(u64, u64)>> {
    let there: u8 = r.number()?;
    let pair = (r.number()?, r.number()?);
    Some((there != 0).then_some(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

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
