//! The start, from the command line to a daemon that serves. The parent process, if there is one,
//! exits only when that has succeeded.
//!
//! Runs in the process that becomes the monitor. To serve, it must not read a secret before the
//! guard is forked or, under inetd, before gate, relay and look-up process are.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Poll};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use super::backends::Backends;
use super::children::Child;
use super::configuration::{can_log_in, settings};
use super::event_loop::Monitor;
use super::first_accounts::{NOBODY, account_of, own_account};
use super::ground::Ground;
use super::guard::Guard;
use super::hosts::Hosts;
use super::jobs::Jobs;
use super::key_cache::KeyCache;
use super::listen::listeners;
use super::logins::Logins;
use super::look_ups::{LookUps, Process, RunsAs};
use super::names::Names;
use super::notify::Manager;
use super::options::{self, Asked, Task};
use super::parts::Parts;
use super::preauth::Connections;
use super::processes::{Processes, Which};
use super::registry_client::RegistryClient;
use super::registry_client::guesses::Guesses;
use super::run_claim::Claim;
use super::sessions::Sessions;
use super::shared_programs::SharedPrograms;
use super::sockets::LocalSockets;
use super::startup_error::{
    print_error, print_startup_fault, stderr_is_the_peers, warn_of_line, warn_of_log, warn_of_user,
};
use super::{descriptor_limit, event_source, inetd, run_folder};
use crate::config::keys;
use crate::config::name::UserName;
use crate::config::paths::Paths;
use crate::config::settings::Settings;
use crate::fault::Fault;
use crate::log::{Level, Log, log};
use crate::registry::Doors;
use crate::sys::process::ChildMains;
use crate::sys::sandbox::{Role, SandboxConfig};
use crate::sys::signals::Signals;
use crate::sys::{inherited, kernel, memory, process, signals, socket};

/// The exit code for a wrong command line, as in most programs; sshd has none.
const USAGE: u8 = 2;

/// The result of the start.
pub(super) enum Started {
    /// A daemon, ready to serve.
    Serving(Box<Monitor>),
    /// Nothing is left to do; the exit code.
    Done(u8),
}

pub(super) fn start(child_mains: &ChildMains) -> Started {
    inherited::close();
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let asked = match options::parse(&words) {
        Ok(asked) => Asked {
            stderr: asked.stderr && !stderr_is_the_peers(),
            ..asked
        },
        Err(e) => {
            print_error(&e);
            print_error(&"try cosserver --help");
            return Started::Done(USAGE);
        }
    };
    match asked.task {
        Task::Help => Started::Done(print(&options::help())),
        Task::Version => Started::Done(print(concat!(
            "cosserver ",
            env!("CARGO_PKG_VERSION"),
            "\n"
        ))),
        Task::Print => Started::Done(print_settings(&asked)),
        Task::Test => Started::Done(test(&asked)),
        // The client has reset the connection: there is nothing to do, or to report.
        Task::Serve if asked.inetd && socket::was_reset(std::io::stdin().as_fd()) => {
            Started::Done(process::SUCCESS)
        }
        Task::Serve => {
            let mut saved_stderr = None;
            match serve(&asked, child_mains, &mut saved_stderr) {
                Ok(monitor) => Started::Serving(Box::new(monitor)),
                Err(e) => {
                    saved_stderr.iter().for_each(process::SavedStderr::undo);
                    print_startup_fault(&e);
                    Started::Done(process::FAILURE)
                }
            }
        }
    }
}

fn print(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => process::SUCCESS,
        Err(e) => {
            print_error(&format_args!("standard output: {e}"));
            process::FAILURE
        }
    }
}

fn print_settings(asked: &Asked) -> u8 {
    match settings(&asked.file, asked.port) {
        Ok(settings) => {
            warn_of_user(&settings);
            print(&settings.print())
        }
        Err(e) => {
            print_startup_fault(&e);
            process::FAILURE
        }
    }
}

/// Refuses root, by any name, as the account of the processes that handle unauthenticated input.
fn cannot_be(user: &UserName) -> Option<Fault> {
    if !geteuid().is_root() {
        return None;
    }
    let account = account_of(user.as_str(), None);
    let is_roots = account.map(|a| a.is_some_and(|a| a.uid == 0));
    is_roots.map_or_else(Some, |is| is.then(|| is_root(user)))
}

fn is_root(user: &UserName) -> Fault {
    Fault::new(format!(
        "[daemon] user = \"{user}\": that is root, and gate and relay must have no privileges"
    ))
}

/// Handles `-t`: checks everything that the start would read, and reports every fault.
fn test(asked: &Asked) -> u8 {
    let paths = Paths::of_file(&asked.file);
    let mut faults = Vec::new();
    match settings(&asked.file, asked.port) {
        Ok(settings) => {
            warn_of_user(&settings);
            warn_of_log(asked);
            faults.extend(cannot_be(&settings.daemon.user));
            faults.extend(can_log_in(&settings).err());
        }
        Err(e) => faults.push(e),
    }
    faults.extend(keys::load_host_key(&paths).err());
    match Doors::check(&paths) {
        // The daemon starts, and each costs one machine.
        Ok(wrong) => wrong.iter().for_each(warn_of_line),
        Err(fault) => faults.push(fault),
    }
    match crate::config::hostinfo::HostTable::load(&paths) {
        Ok(table) => faults.extend(table.faults().iter().cloned()),
        Err(e) => faults.push(e),
    }
    for fault in &faults {
        print_startup_fault(fault);
    }
    if faults.is_empty() {
        process::SUCCESS
    } else {
        process::FAILURE
    }
}

fn serve(
    asked: &Asked,
    child_mains: &ChildMains,
    saved_stderr: &mut Option<process::SavedStderr>,
) -> Result<Monitor, Fault> {
    let inherited = process::Limits::now();
    process::raise_descriptors(0);
    process::keep_private();
    memory::keep_small();
    signals::all_default();
    let sessions = Sessions::default();
    // Fork it while there is no secret, and little memory that it would keep a copy of. Under inetd
    // the client would wait for it.
    let guard = (!asked.inetd).then(|| Guard::start(sessions.groups(), None));
    let mut begun = asked
        .inetd
        .then(|| inetd::begin(asked, child_mains, saved_stderr))
        .transpose()?;
    let paths = Paths::of_file(&asked.file);
    // Under inetd it reads its files once, until the connection has become a session.
    let paths = if asked.inetd { paths.once() } else { paths };
    let settings = settings(&asked.file, asked.port)?;
    sessions.groups().set_grace(settings.exec.hup_to_kill);
    let login_program = can_log_in(&settings)?;
    process::raise_descriptors(descriptor_limit::wanted(&settings));
    let mut degraded = Vec::new();
    let process = begun.as_mut().map(|b| &mut b.look_up);
    let (sandbox_config, in_its_place) =
        sandbox_config(&paths, &settings, process, &mut degraded)?.unzip();
    let user = sandbox_config
        .as_ref()
        .map(|sandbox_config| (sandbox_config.uid, sandbox_config.gid));
    if let Some(begun) = &mut begun {
        begun.gate.send_in(sandbox_config.as_ref())?;
        if user.is_some() && begun.look_up.runs_as() == RunsAs::NotTold {
            begun.look_up.begin(user, true)?;
        }
    }
    let host = keys::load_host_key(&paths)?;
    let own = if geteuid().is_root() {
        None
    } else {
        Some(own_account(begun.as_mut().map(|b| &mut b.look_up))?)
    };
    let registry = if asked.inetd {
        RegistryClient::here(&paths)?
    } else {
        let (registry, trouble) = RegistryClient::standalone(&paths)?;
        degraded.extend(trouble);
        registry
    };
    let listeners = if asked.inetd {
        Vec::new()
    } else {
        listeners(&settings)?
    };
    warn_of_log(asked);
    let ready = if asked.foreground || asked.inetd {
        None
    } else {
        Some(sessions.groups().to_background()?)
    };
    if ready.is_some() && !asked.stderr {
        *saved_stderr = Some(process::silence_stderr(asked.stderr)?);
    }

    let level = if asked.debug {
        Level::Debug
    } else {
        Level::Info
    };
    let mut log = if asked.stderr {
        Log::stderr(level)
    } else {
        Log::syslog(level)
    };
    if std::process::id() == 1 {
        let why = "this is process 1, and reaps only its own children: start it under an init";
        log!(log, Warning, "fault", why);
    }
    if in_its_place == Some(true) {
        warn_about_account(&mut log, &settings);
    }
    for why in &degraded {
        log!(log, Error, "degraded", why = why.in_one_line());
    }
    signals::ignore_sigpipe()?;
    let caught = [
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGTERM,
        Signal::SIGINT,
        // Under inetd: another monitor needs this one's slot.
        Signal::SIGUSR1,
    ];
    let signals = Signals::catch(&caught)?;
    let poll = Poll::new()?;
    let fd = signals.as_fd().as_raw_fd();
    poll.registry().register(
        &mut SourceFd(&fd),
        event_source::SIGNALS,
        Interest::READABLE,
    )?;
    let mut look_ups = LookUps::new(user);
    let (connection, gate, relay) = match begun {
        Some(b) => {
            look_ups.take_started(poll.registry(), b.look_up)?;
            (Some(b.connection), b.gate, b.relay)
        }
        None => (None, Child::new(Role::Gate), Child::new(Role::Relay)),
    };
    let manager = Manager::from_environment(degraded.first().map(Fault::in_one_line));
    let confined = sandbox_config.as_ref().map(|config| config.uid);
    let hosts = Hosts::load(&paths);
    let parts = Parts {
        backends: Backends::default(),
        shared_programs: SharedPrograms::default(),
        ground: Ground {
            paths,
            settings,
            host,
            log,
            poll,
            inherited,
            unreaped: Vec::new(),
            is_inetd: asked.inetd,
            is_stopping: false,
        },
        processes: Processes::new(gate, relay, sandbox_config, listeners),
        names: Names::new(hosts, own, look_ups),
        registry,
        guesses: Guesses::default(),
        key_cache: KeyCache::default(),
        connections: Connections::default(),
        logins: Logins::new(login_program),
        jobs: Jobs::new(sessions),
        inetd: connection,
    };
    let mut monitor = Monitor {
        parts,
        sockets: LocalSockets::new(confined),
        claim: Claim::default(),
        manager,
        signals,
        port: asked.port,
        grace: None,
        hung_up: false,
    };
    start_processes(&mut monitor.parts, guard)?;
    if !asked.inetd {
        announce(&mut monitor, ready)?;
    }
    Ok(monitor)
}

/// Starts gate and relay. Under inetd the gate first: the client waits for it.
fn start_processes(parts: &mut Parts, guard: Option<Result<Guard, Fault>>) -> Result<(), Fault> {
    let (ground, processes) = (&mut parts.ground, &mut parts.processes);
    parts.jobs.warn_of_few_descriptors(ground);
    let listed = parts.names.networks();
    if ground.is_inetd {
        processes.start(ground, Which::Gate, &listed)?;
        parts.names.announce_hosts(ground, Instant::now());
        processes.start(ground, Which::Relay, &listed)?;
        if let Some(inetd) = &mut parts.inetd {
            parts.logins.share(inetd.open_table(ground));
        }
        parts.admit_inetd();
    } else {
        // Under inetd only with a session: a daemon that serves an unauthenticated client gets no
        // protection.
        parts.jobs.protect(ground, guard);
        processes.start(ground, Which::Relay, &listed)?;
        processes.start(ground, Which::Gate, &listed)?;
        parts.names.announce_hosts(ground, Instant::now());
    }
    Ok(())
}

/// Reports that it is ready: to the log, the pid file, the parent, and the service manager.
fn announce(monitor: &mut Monitor, ready: Option<OwnedFd>) -> Result<(), Fault> {
    for (protection, why) in kernel::missing() {
        let ground = &mut monitor.parts.ground;
        ground.warn_of_missing("monitor", protection, &why);
    }
    monitor.claim_run_folder(Instant::now());
    let Parts {
        ground, processes, ..
    } = &mut monitor.parts;
    for listener in processes.listeners() {
        let address = listener.local_addr()?;
        ground
            .log
            .line(Level::Info, format_args!("listening on {address}"));
    }
    if let Some(ready) = ready {
        let _ = nix::unistd::write(&ready, &[1]);
    }
    monitor.manager.tell("READY=1");
    Ok(())
}

/// Returns the root and the user of gate and relay, and whether that user is only the fallback.
/// Only for root.
fn sandbox_config(
    paths: &Paths,
    settings: &Settings,
    begun: Option<&mut Process>,
    degraded: &mut Vec<Fault>,
) -> Result<Option<(SandboxConfig, bool)>, Fault> {
    run_folder::make(paths, degraded)?;
    if !geteuid().is_root() {
        return Ok(None);
    }
    let root = run_folder::empty_root(paths, degraded)?;
    let wanted = settings.daemon.user.as_str();
    let user = match account_of(wanted, begun)? {
        Some(user) => Some(user),
        None => account_of(NOBODY, None)?,
    };
    if user.as_ref().is_some_and(|u| u.uid == 0) {
        return Err(is_root(&settings.daemon.user));
    }
    let user = user.ok_or_else(|| {
        Fault::new(format!(
            "there is neither a user {wanted} nor {NOBODY} for gate and relay"
        ))
    })?;
    let sandbox_config = SandboxConfig {
        uid: user.uid,
        gid: user.gid,
        root,
    };
    Ok(Some((
        sandbox_config,
        user.name == NOBODY && wanted != NOBODY,
    )))
}

fn warn_about_account(log: &mut Log, settings: &Settings) {
    let wanted = settings.daemon.user.as_str();
    let why = format!("there is no user {wanted}; gate and relay run as {NOBODY}");
    log!(log, Warning, "account", why);
}
