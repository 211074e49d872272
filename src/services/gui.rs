//! The service `gui` (seed 000): an application of the table, displayed at `GUI_HOST` and
//! `GUI_PORT`. Runs in the monitor; the login worker starts what is prepared here.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;

use crate::auth::policy::{Caller, Granted, Gui};
use crate::refusal::{Cause, Refusal};
use crate::sys::socket;

/// An application, ready to start.
pub struct Application {
    /// The path of its program.
    pub path: CString,
    /// Its arguments, the program's path first.
    pub argv: Vec<CString>,
    /// Variables that PAM's variables override.
    pub defaults: Vec<CString>,
    /// Variables that they do not override.
    pub fixed: Vec<CString>,
}

/// Its standard descriptors.
pub struct Streams {
    /// The daemon's ends: standard input, output and error. `None`: it is detached, with no
    /// streams.
    pub ours: Option<[OwnedFd; 3]>,
    /// Its own ends.
    pub its: [OwnedFd; 3],
}

/// Prepares a granted application. `path` is `PATH` if PAM sets none.
///
/// # Errors
/// There is a NUL byte where none is allowed.
pub fn prepare(granted: &Granted<Gui, Caller>, path: &str) -> Result<Application, Refusal> {
    let (gui, to) = (granted.service(), granted.to());
    let account = to.account();
    let argv: Result<Vec<CString>, Refusal> = gui.argv.iter().map(|w| string(w)).collect();
    let argv = argv?;
    let program = argv.first().cloned();
    let pair = |name: &str, value: &[u8]| string(&[name.as_bytes(), b"=", value].concat());

    let mut defaults = vec![pair("PATH", path.as_bytes())?];
    for (name, value) in &gui.passed {
        defaults.push(pair(name, value)?);
    }
    let port = gui.port.to_string();
    let caller_user = to.request().caller_user.as_str();
    let mut fixed = Vec::new();
    for (name, value) in &gui.own {
        fixed.push(pair(name, value.as_bytes())?);
    }
    let host = to.host().map(|h| h.name.as_str());
    let of_host = [("COS_HOST", host), ("COS_USER", host.map(|_| caller_user))];
    let ours = [
        ("HOME", account.home.as_os_str().as_bytes()),
        ("USER", account.name.as_bytes()),
        ("LOGNAME", account.name.as_bytes()),
        ("SHELL", account.shell.as_os_str().as_bytes()),
        ("GUI_HOST", gui.host.as_bytes()),
        ("GUI_PORT", port.as_bytes()),
    ];
    let of_host = of_host
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?.as_bytes())));
    for (name, value) in ours.into_iter().chain(of_host) {
        fixed.push(pair(name, value)?);
    }
    Ok(Application {
        path: program.ok_or_else(|| Refusal::new(Cause::Application, "an empty command"))?,
        argv,
        defaults,
        fixed,
    })
}

impl Streams {
    /// Creates pipes, or uses `/dev/null` for a detached application.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(detach: bool) -> Result<Self, Refusal> {
        let failed = |e: nix::errno::Errno| Refusal::new(Cause::System, e);
        if detach {
            let null = || open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
            let its = [
                null().map_err(failed)?,
                null().map_err(failed)?,
                null().map_err(failed)?,
            ];
            return Ok(Self { ours: None, its });
        }
        let (its_stdin, stdin) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let (stdout, its_stdout) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let (stderr, its_stderr) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let ours = [stdin, stdout, stderr];
        for end in &ours {
            socket::set_nonblocking(end).map_err(|e| Refusal::new(Cause::System, e))?;
        }
        Ok(Self {
            ours: Some(ours),
            its: [its_stdin, its_stdout, its_stderr],
        })
    }
}

fn string(bytes: &[u8]) -> Result<CString, Refusal> {
    CString::new(bytes).map_err(|_| Refusal::new(Cause::Application, "a NUL byte in a word"))
}
