//! The service `exec` (seed 000), and the programs of named services (seed 003): a command in its own
//! session and process group, with its three streams in pipes; that of an inetd service has one
//! socket for its input and output. Runs in the monitor.

use std::ffi::{CString, OsStr};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicI32;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Pid, pipe2};

use crate::auth::policy::{Exec, Form, Granted};
use crate::refusal::{Cause, Refusal};
use crate::sys::account::Account;
use crate::sys::job::{Ends, Identity, Program, Starter};
use crate::sys::process::Limits;
use crate::sys::socket;

/// A command's file mode creation mask, as in rshd and sshd.
const MASK: u16 = 0o022;

/// What the daemon gives to every job.
pub struct Setting<'a> {
    /// `PATH` (`[exec] path`).
    pub path: &'a str,
    /// Whether this daemon is root and switches to the user.
    pub becomes_user: bool,
    /// The resource limits that the daemon was started with.
    pub limits: Limits,
    /// The client's address and port, which inetd's services get.
    pub peer: Option<SocketAddr>,
    /// `SSH_CLIENT`, by which bash detects that it was started for a network peer, and reads
    /// `~/.bashrc`. Only the user's shell gets it, because no other program looks for that file.
    pub ssh_client: Option<String>,
}

/// A running job: the pid of its leader, and the daemon's ends of its pipes.
pub struct Running {
    pid: Pid,
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Running {
    /// Returns the leader of its process group and session.
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns the daemon's ends of its pipes: standard input, output and error.
    pub fn into_pipes(self) -> [OwnedFd; 3] {
        [self.stdin, self.stdout, self.stderr]
    }
}

/// Starts a granted command as its user. The leader's pid is written to `leader` before the leader
/// runs.
///
/// # Errors
/// No descriptors or processes are left, or a word of the command is invalid.
pub fn start(
    granted: &Granted<Exec>,
    account: &Account,
    setting: &Setting<'_>,
    starter: &mut Starter,
    leader: Option<&AtomicI32>,
) -> Result<Running, Refusal> {
    let failed = |e: Errno| Refusal::new(Cause::System, e);
    let program = program(granted, account, setting)?;
    let service = granted.service().service.as_ref();
    let [(job_stdin, stdin), (job_stdout, stdout)] = if service.is_some_and(|s| s.is_inetd) {
        connection().map_err(failed)?
    } else {
        let (job_stdin, stdin) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        let (stdout, job_stdout) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
        [(job_stdin, stdin), (job_stdout, stdout)]
    };
    let (stderr, job_stderr) = pipe2(OFlag::O_CLOEXEC).map_err(failed)?;
    let ends = Ends {
        are_its_own: true,
        stdin: job_stdin.as_fd(),
        stdout: job_stdout.as_fd(),
        stderr: job_stderr.as_fd(),
    };
    // This affects only the daemon's ends: the job's are other open file descriptions. Do it now:
    // nothing may fail once there is a job, or it would run untracked.
    for ours in [&stdin, &stdout, &stderr] {
        socket::set_nonblocking(ours).map_err(|e| Refusal::new(Cause::System, e))?;
    }
    let pid = starter
        .job(program, ends, setting.limits, leader)
        .map_err(failed)?;
    Ok(Running {
        pid,
        stdin,
        stdout,
        stderr,
    })
}

/// Returns a connection between a job and the relay: each end as input and as output, the job's
/// first.
fn connection() -> nix::Result<[(OwnedFd, OwnedFd); 2]> {
    let (kind, flags) = (SockType::Stream, SockFlag::SOCK_CLOEXEC);
    let (job, ours) = socketpair(AddressFamily::Unix, kind, None, flags)?;
    let copy = |fd: &OwnedFd| {
        fd.try_clone()
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
    };
    let (job_copy, copy) = (copy(&job)?, copy(&ours)?);
    Ok([(job, ours), (job_copy, copy)])
}

fn program(
    granted: &Granted<Exec>,
    account: &Account,
    setting: &Setting<'_>,
) -> Result<Program, Refusal> {
    let exec = granted.service();
    let (path, argv) = match &exec.form {
        Form::Shell(command) => {
            let shell = account.shell.as_os_str().as_bytes();
            let name = Path::new(&account.shell)
                .file_name()
                .map_or(shell, OsStr::as_bytes);
            (
                string(shell)?,
                vec![string(name)?, string(b"-c")?, string(command)?],
            )
        }
        Form::Direct(words) => {
            let argv = words
                .iter()
                .map(|w| string(w))
                .collect::<Result<Vec<_>, _>>()?;
            let path = argv.first().cloned();
            (
                path.ok_or_else(|| Refusal::new(Cause::Command, "an empty command"))?,
                argv,
            )
        }
    };
    Ok(Program {
        path,
        argv,
        environment: environment(granted, account, setting)?,
        folder: match exec.service {
            Some(_) => string(b"/")?,
            None => string(account.home.as_os_str().as_bytes())?,
        },
        mask: MASK,
        user: setting.becomes_user.then(|| Identity {
            uid: account.uid,
            gid: account.gid,
            groups: account.groups.clone(),
        }),
    })
}

fn environment(
    granted: &Granted<Exec>,
    account: &Account,
    setting: &Setting<'_>,
) -> Result<Vec<CString>, Refusal> {
    let authenticated = granted.authenticated();
    let ssh_client = match granted.service().form {
        Form::Shell(_) => setting.ssh_client.as_ref(),
        Form::Direct(_) => None,
    };
    let service = granted.service().service.as_ref();
    let of_service = service.map_or(&[][..], |service| service.variables.as_slice());
    let of_service = of_service
        .iter()
        .map(|(name, value)| (*name, value.as_bytes()));
    let own: [(&str, &[u8]); 7] = [
        ("HOME", account.home.as_os_str().as_bytes()),
        ("USER", account.name.as_bytes()),
        ("LOGNAME", account.name.as_bytes()),
        ("SHELL", account.shell.as_os_str().as_bytes()),
        ("PATH", setting.path.as_bytes()),
        ("COS_HOST", authenticated.caller().name.as_str().as_bytes()),
        (
            "COS_USER",
            authenticated.request().caller_user.as_str().as_bytes(),
        ),
    ];
    let passed = granted
        .service()
        .environment
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_slice()));
    // Passed variables cannot override those that the daemon sets.
    let own: Vec<(&str, &[u8])> = own.into_iter().chain(of_service).collect();
    let peer = setting.peer.filter(|_| service.is_some_and(|s| s.is_inetd));
    // As systemd and UCSPI set them.
    let peer = peer.map(|peer| {
        let (address, port) = (peer.ip().to_string(), peer.port().to_string());
        [
            ("REMOTE_ADDR", address.clone()),
            ("REMOTE_PORT", port),
            ("TCPREMOTEIP", address),
        ]
    });
    let peer = peer.iter().flatten();
    let own: Vec<(&str, &[u8])> = own
        .into_iter()
        .chain(peer.map(|(name, value)| (*name, value.as_bytes())))
        .collect();
    let is_own = |name| name == "SSH_CLIENT" || own.iter().any(|(own, _)| *own == name);
    let passed = passed.filter(|(name, _)| !is_own(*name));
    own.iter()
        .copied()
        .chain(ssh_client.map(|value| ("SSH_CLIENT", value.as_bytes())))
        .chain(passed)
        .map(|(name, value)| string(&[name.as_bytes(), b"=", value].concat()))
        .collect()
}

fn string(bytes: &[u8]) -> Result<CString, Refusal> {
    CString::new(bytes).map_err(|_| Refusal::new(Cause::Command, "a NUL byte in the command"))
}
