//! The sandbox of gate and relay: another user, an empty root directory, no new privileges, no
//! files (landlock), few system calls (seccomp).
//!
//! If the kernel lacks landlock or seccomp, or a container's filter denies the system call, the
//! process continues without it and reports which protection is missing, and why. If the kernel has
//! a protection and enabling it fails, that is an error, which names the protection.

use std::io;

use super::id_number::IdNumber;
use crate::fault::Fault;

/// The process to sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// One thread with one event loop.
    Gate,
    /// Threads that move bytes.
    Relay,
}

/// The protections in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SandboxStatus {
    /// Another user and an empty root directory (only as root).
    pub chroot: bool,
    /// No file can be opened.
    pub landlock: bool,
    /// Only the system calls of the role are allowed.
    pub seccomp: bool,
    /// The kernel's error if landlock is missing; otherwise 0.
    pub landlock_error: i32,
    /// The kernel's error if seccomp is missing; otherwise 0.
    pub seccomp_error: i32,
}

impl SandboxStatus {
    /// Returns the protections that are missing because the kernel refused them: the name of each,
    /// and its error.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, io::Error)> {
        missing(self.landlock_error, self.seccomp_error)
    }
}

/// Returns the protections that have an error, and the error.
pub(super) fn missing(
    landlock: i32,
    seccomp: i32,
) -> impl Iterator<Item = (&'static str, io::Error)> {
    let all = [("landlock", landlock), ("seccomp", seccomp)];
    let missing = all.into_iter().filter(|(_, error)| *error != 0);
    missing.map(|(name, error)| (name, io::Error::from_raw_os_error(error)))
}

/// Returns whether an error says that the system call is not available: it does not exist (ENOSYS),
/// it lacks the operation (EINVAL), it is disabled (EOPNOTSUPP), or a container's filter denies it
/// (EPERM).
pub(super) fn is_missing(error: i32) -> bool {
    [libc::ENOSYS, libc::EINVAL, libc::EOPNOTSUPP, libc::EPERM].contains(&error)
}

/// Returns the error if a protection could not be enabled because one of its system calls is
/// missing: a container's filter may deny only the later ones.
#[cfg(target_os = "linux")]
pub(super) fn missing_call(e: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut causes = std::iter::successors(Some(e), |e| e.source());
    let error = causes.find_map(|e| e.downcast_ref::<io::Error>()?.raw_os_error());
    error.filter(|error| is_missing(*error))
}

/// Makes this process the given user with that group as its only group, and verifies the result.
///
/// # Errors
/// The system denied it, or it had no effect.
pub(super) fn become_sole_identity(uid: IdNumber, gid: IdNumber) -> Result<(), Fault> {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (user, group) = (Uid::from_raw(uid.get()), Gid::from_raw(gid.get()));
    setgroups(&[group]).map_err(|e| failed("setgroups", "CAP_SETGID", e))?;
    setresgid(group, group, group).map_err(|e| failed("setresgid", "CAP_SETGID", e))?;
    setresuid(user, user, user).map_err(|e| failed("setresuid", "CAP_SETUID", e))?;
    if super::job::is_user(uid, gid) {
        return Ok(());
    }
    Err(Fault::new(format!(
        "this process did not become user {uid} and group {gid}"
    )))
}

/// Builds an error that names the failed step and, if it failed with EPERM, the capability that it
/// needs.
pub(super) fn failed(step: &str, capability: &str, e: impl Into<io::Error>) -> Fault {
    let e = e.into();
    let hint = if e.raw_os_error() == Some(libc::EPERM) && !capability.is_empty() {
        format!("; it needs the capability {capability}")
    } else {
        String::new()
    };
    Fault::new(format!("{step}: {e}{hint}"))
}

/// The user that the process becomes, and its root directory. Only for root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxConfig {
    /// User ID.
    pub uid: IdNumber,
    /// Group ID.
    pub gid: IdNumber,
    /// The new root: an empty directory that no other user can write to. `None`: no chroot.
    pub root: Option<std::path::PathBuf>,
}

/// Enters the sandbox: changes the root directory and the user if `sandbox_config` is given (only
/// as root), then enables the other protections.
///
/// # Errors
/// A protection that the system has could not be enabled.
pub fn enter(role: Role, sandbox_config: Option<&SandboxConfig>) -> Result<SandboxStatus, Fault> {
    let mut sandbox_status = SandboxStatus::default();
    if let Some(sandbox_config) = sandbox_config {
        use nix::unistd::{chdir, chroot};
        if let Some(root) = &sandbox_config.root {
            chdir(root).map_err(|e| failed("chroot: its folder", "", e))?;
            chroot(".").map_err(|e| failed("chroot", "CAP_SYS_CHROOT", e))?;
            sandbox_status.chroot = true;
        }
        become_sole_identity(sandbox_config.uid, sandbox_config.gid)?;
        // The change of user has reset the dumpable flag to `fs.suid_dumpable`.
        super::process::keep_private();
    }
    system::seal(role, &mut sandbox_status)?;
    Ok(sandbox_status)
}

/// Confines this process to these directories: it can open no other file, and make no new
/// connection. Returns whether the system supports that (landlock).
///
/// # Errors
/// A protection that the system has could not be enabled.
pub fn keep_to(folders: &[std::path::PathBuf]) -> Result<bool, Fault> {
    system::keep_to(folders)
}

#[cfg(target_os = "linux")]
pub(super) mod system {
    use std::ffi::c_long;
    use std::io;

    use landlock::{
        ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr,
        RulesetCreatedAttr, RulesetStatus, Scope, path_beneath_rules,
    };
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
    };

    use super::{Fault, Role, SandboxStatus, failed, missing_call};
    use crate::sys::filter::{self, Rules};
    use crate::sys::unsent::TCP_RTO_MAX_MS;

    pub(super) fn seal(role: Role, sandbox_status: &mut SandboxStatus) -> Result<(), Fault> {
        no_new_privileges()?;
        match these_files(&[])? {
            0 => sandbox_status.landlock = true,
            error => sandbox_status.landlock_error = error,
        }
        match few_calls(role)? {
            0 => sandbox_status.seccomp = true,
            error => sandbox_status.seccomp_error = error,
        }
        Ok(())
    }

    fn no_new_privileges() -> Result<(), Fault> {
        nix::sys::prctl::set_no_new_privs().map_err(|e| failed("no new privileges", "", e))
    }

    pub(super) fn keep_to(folders: &[std::path::PathBuf]) -> Result<bool, Fault> {
        no_new_privileges()?;
        these_files(folders).map(|error| error == 0)
    }

    /// Returns why there is no landlock, by asking for its version as in the manual page.
    pub(in crate::sys) fn landlock_error() -> i32 {
        const VERSION: libc::c_uint = 1;
        let none = std::ptr::null::<libc::c_void>();
        let call = libc::SYS_landlock_create_ruleset;
        // SAFETY: asks for a number and accesses no memory of this process.
        let answer = unsafe { libc::syscall(call, none, 0_usize, VERSION) };
        if answer < 0 {
            nix::errno::Errno::last_raw()
        } else {
            libc::ENOSYS
        }
    }

    /// Allows only these directories. Returns 0, or the error by which the kernel says that it has
    /// no landlock.
    fn these_files(folders: &[std::path::PathBuf]) -> Result<i32, Fault> {
        let abi = ABI::V6;
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))
            .and_then(|r| r.handle_access(AccessNet::from_all(abi)))
            .and_then(|r| r.scope(Scope::from_all(abi)))
            .and_then(|r| r.create())
            .and_then(|r| r.add_rules(path_beneath_rules(folders, AccessFs::from_all(abi))))
            .and_then(|r| r.restrict_self());
        match status {
            Ok(status) if status.ruleset == RulesetStatus::NotEnforced => Ok(landlock_error()),
            Ok(_) => Ok(0),
            Err(e) => missing_call(&e).ok_or_else(|| Fault::new(format!("landlock: {e}"))),
        }
    }

    /// Allows only the system calls of the role. Returns 0, or the error by which the kernel says
    /// that it has no seccomp.
    fn few_calls(role: Role) -> Result<i32, Fault> {
        let program = program(role)?;
        program.map_or(Ok(libc::ENOSYS), |program| {
            filter::apply(&program).map_err(|e| wrong(&e))
        })
    }

    /// Compiles a role's filter.
    pub(in crate::sys) fn program(role: Role) -> Result<Option<BpfProgram>, Fault> {
        let (allow, kill) = (SeccompAction::Allow, SeccompAction::KillProcess);
        let program = filter::compile(list(role)?, allow, kill).map_err(|e| wrong(&e))?;
        let Some(mut program) = program else {
            return Ok(None);
        };
        if role == Role::Relay {
            filter::without_clone3(&mut program);
        }
        Ok(Some(program))
    }

    fn wrong(e: &io::Error) -> Fault {
        Fault::new(format!("seccomp: {e}"))
    }

    /// Returns the allowed system calls of a role.
    pub(in crate::sys) fn list(role: Role) -> Result<Rules, Fault> {
        let mut rules = Rules::new();
        for call in BOTH.iter().chain(match role {
            Role::Gate => GATE,
            Role::Relay => RELAY,
        }) {
            rules.insert(number(*call), Vec::new());
        }
        rules.insert(number(libc::SYS_fcntl), vec![no_owner()?]);
        if role == Role::Relay {
            // Threads only: clone(2) of a process does not set CLONE_THREAD.
            rules.insert(number(libc::SYS_clone), vec![thread_only()?]);
            // The options that `unsent` uses, and no others.
            let limit = (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT);
            let state = (libc::IPPROTO_TCP, libc::TCP_INFO);
            let pause = (libc::IPPROTO_TCP, TCP_RTO_MAX_MS);
            rules.insert(number(libc::SYS_setsockopt), options(&[limit, pause])?);
            rules.insert(
                number(libc::SYS_getsockopt),
                options(&[limit, state, pause])?,
            );
        } else {
            // The options that the gate sets on a connection, and no others: with SO_LINGER set,
            // the monitor, which has a copy, would block in close(2).
            let set = [
                (libc::IPPROTO_TCP, libc::TCP_NODELAY),
                (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
                (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
                (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
                (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
                (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            ];
            rules.insert(number(libc::SYS_setsockopt), options(&set)?);
        }
        Ok(rules)
    }

    /// Converts the number of a system call for seccompiler.
    #[allow(
        clippy::useless_conversion,
        reason = "32 bits on 32-bit machines, 64 on others"
    )]
    fn number(call: c_long) -> i64 {
        i64::from(call)
    }

    /// Allows every command of fcntl(2) except those that give a descriptor an owner to signal.
    fn no_owner() -> Result<SeccompRule, Fault> {
        let differs = |command: &u64| {
            SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *command)
        };
        let conditions = filter::OWNER_COMMANDS.iter().map(differs).collect();
        let rule = Result::and_then(conditions, SeccompRule::new);
        rule.map_err(|e| Fault::new(format!("seccomp: {e}")))
    }

    fn thread_only() -> Result<SeccompRule, Fault> {
        let flag = u64::from(libc::CLONE_THREAD.unsigned_abs());
        let masked = SeccompCmpOp::MaskedEq(flag);
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, masked, flag)
            .and_then(|c| SeccompRule::new(vec![c]))
            .map_err(|e| Fault::new(format!("seccomp: {e}")))
    }

    /// Allows these socket options (level and name), for setsockopt(2) and getsockopt(2).
    fn options(all: &[(libc::c_int, libc::c_int)]) -> Result<Vec<SeccompRule>, Fault> {
        let is = |at, number: libc::c_int| {
            let number = u64::from(number.unsigned_abs());
            SeccompCondition::new(at, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number)
        };
        let rule = |(level, name): &(_, _)| SeccompRule::new(vec![is(1, *level)?, is(2, *name)?]);
        let rules = all.iter().map(rule).collect::<Result<_, _>>();
        rules.map_err(|e| Fault::new(format!("seccomp: {e}")))
    }

    const BOTH: &[c_long] = &[
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_close,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_shutdown,
        libc::SYS_mmap,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_mprotect,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_clock_gettime,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigaction,
        libc::SYS_sigaltstack,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    const GATE: &[c_long] = &[
        libc::SYS_accept4,
        libc::SYS_getpeername,
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
    ];

    const RELAY: &[c_long] = &[
        libc::SYS_readv,
        libc::SYS_writev,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_sched_getaffinity,
        libc::SYS_gettid,
        libc::SYS_prctl,
    ];
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn seal(_: super::Role, _: &mut super::SandboxStatus) -> Result<(), super::Fault> {
        Ok(())
    }

    pub(super) fn keep_to(_: &[std::path::PathBuf]) -> Result<bool, super::Fault> {
        Ok(false)
    }
}
