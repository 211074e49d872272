//! Confines a look-up process before it runs the code of an NSS module: it gives up root, new
//! privileges from programs, write access to files, and system calls that reach into other
//! processes.
//!
//! It keeps what modules need: reading files, connecting to services on this machine and to servers
//! elsewhere, starting threads. So the filter is a deny list that returns an error, and not an
//! allow list as for gate and relay.

use crate::fault::Fault;
use nix::sys::resource::Resource;
use nix::unistd::chdir;

use super::id_number::IdNumber;
use super::process;
use super::rlimits;
use super::sandbox::{self, become_sole_identity, failed};

/// The protections of a look-up process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Confined {
    /// Its user is not the monitor's.
    pub user: bool,
    /// It cannot write any file, and, where the kernel has scopes (landlock ABI 6, Linux 6.12),
    /// cannot signal any other process; otherwise only seccomp denies that.
    pub landlock: bool,
    /// It cannot make a system call that reaches into other processes or changes the system.
    pub seccomp: bool,
    /// The kernel's error if landlock is missing; otherwise 0.
    pub landlock_error: i32,
    /// The kernel's error if seccomp is missing; otherwise 0.
    pub seccomp_error: i32,
}

impl Confined {
    /// Returns the protections that are missing because the kernel refused them: the name of each,
    /// and its error.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, std::io::Error)> {
        sandbox::missing(self.landlock_error, self.seccomp_error)
    }
}

/// Limit of open descriptors: a few for each thread.
const DESCRIPTORS: u64 = 256;
/// Limit of private memory, bytes: a directory's largest group takes a few MiB.
const MEMORY: u64 = 512 << 20;
/// Limit of address space, bytes: that memory, libraries, threads' stacks, and the tables that nscd
/// and sssd share with their clients.
const ADDRESSES: u64 = 2 << 30;
/// RLIMIT_NPROC: the process cannot start a thread while its user has this many.
const THREADS: u64 = 8192;

/// Confines this process; if `user` is given, it becomes that user and group.
///
/// # Errors
/// A protection that the system has could not be enabled.
pub fn confine(user: Option<(IdNumber, IdNumber)>) -> Result<Confined, Fault> {
    chdir("/").map_err(|e| failed("chdir", "", e))?;
    for (which, most) in [
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_DATA, MEMORY),
        (Resource::RLIMIT_AS, ADDRESSES),
        (Resource::RLIMIT_NPROC, THREADS),
    ] {
        let (_, hard) = rlimits::get(which).map_err(|e| failed("getrlimit", "", e))?;
        // The kernel counts all threads of a user but checks each process against its own limit.
        // With half of the relay's limit, this process can never use up the relay's share.
        let is_threads = which == Resource::RLIMIT_NPROC;
        let hard = if is_threads { hard / 2 } else { hard };
        rlimits::set(which, most.min(hard), most.min(hard))
            .map_err(|e| failed("setrlimit", "", e))?;
    }
    let mut confined = Confined::default();
    if let Some((uid, gid)) = user {
        become_sole_identity(uid, gid)?;
        // The change of user has reset the dumpable flag to `fs.suid_dumpable`.
        process::keep_private();
        confined.user = true;
    }
    // The change of user has also cleared the parent-death signal.
    process::ends_with_parent(true);
    system::confine(&mut confined).map_err(Fault::from)?;
    Ok(confined)
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;

    use landlock::{
        ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr,
        RulesetStatus, Scope, path_beneath_rules,
    };

    use super::{Confined, calls};
    use crate::sys::sandbox::missing_call;
    use crate::sys::sandbox::system::landlock_error;

    pub(super) fn confine(confined: &mut Confined) -> io::Result<()> {
        nix::sys::prctl::set_no_new_privs()?;
        match no_writing()? {
            0 => confined.landlock = true,
            error => confined.landlock_error = error,
        }
        match calls::deny()? {
            0 => confined.seccomp = true,
            error => confined.seccomp_error = error,
        }
        Ok(())
    }

    /// Denies writing to any file but `/dev/null`. Returns 0, or the error by which the kernel says
    /// that it has no landlock.
    fn no_writing() -> io::Result<i32> {
        let write = AccessFs::from_write(ABI::V6);
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(write)
            .and_then(|r| r.scope(Scope::Signal))
            .and_then(|r| r.create())
            .and_then(|r| r.add_rules(path_beneath_rules(["/dev/null"], write)))
            .and_then(|r| r.restrict_self());
        match status {
            Ok(status) if status.ruleset == RulesetStatus::NotEnforced => Ok(landlock_error()),
            Ok(_) => Ok(0),
            Err(e) => missing_call(&e).ok_or_else(|| io::Error::other(e)),
        }
    }
}

#[cfg(all(
    target_os = "linux",
    any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    )
))]
pub(super) mod calls {
    use std::io;

    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule,
    };

    use crate::sys::filter::{self, Rules};

    /// FIOSETOWN and SIOCSPGRP, requests of ioctl(2) that set a socket's owner.
    const OWNER_REQUESTS: [u64; 2] = [0x8901, 0x8902];

    /// Denies the system calls below. Returns 0, or the error by which the kernel says that it has
    /// no such filters.
    pub(super) fn deny() -> io::Result<i32> {
        match program(std::process::id())? {
            Some(program) => filter::apply(&program),
            None => Ok(libc::ENOSYS),
        }
    }

    /// Compiles the filter for the process with this ID.
    pub(in crate::sys) fn program(own: u32) -> io::Result<Option<BpfProgram>> {
        let (rules, error) = list(own)?;
        let Some(mut program) = filter::compile(rules, error, SeccompAction::Allow)? else {
            return Ok(None);
        };
        filter::without_clone3(&mut program);
        filter::without_x32(&mut program, libc::EPERM);
        Ok(Some(program))
    }

    /// Returns the denied system calls, and the action for them.
    pub(in crate::sys) fn list(own: u32) -> io::Result<(Rules, SeccompAction)> {
        let mut rules = Rules::new();
        for call in DENIED {
            rules.insert(*call, Vec::new());
        }
        let own = u64::from(own);
        for call in [libc::SYS_kill, libc::SYS_tgkill] {
            rules.insert(call, vec![others(&[own])?]);
        }
        rules.insert(libc::SYS_prlimit64, vec![others(&[0, own])?]);
        // A child process would outlive this one, and would count against its user's limit as the
        // relay's threads do. (A thread cannot have its own user namespace.)
        let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
        let no_thread = SeccompCmpOp::MaskedEq(thread);
        let no_thread = condition(0, SeccompCmpArgLen::Qword, no_thread, 0)?;
        rules.insert(libc::SYS_clone, vec![rule(vec![no_thread])?]);
        // fcntl(2) and ioctl(2) could send signals to gate and relay through a descriptor.
        rules.insert(libc::SYS_fcntl, these(1, &filter::OWNER_COMMANDS)?);
        rules.insert(libc::SYS_ioctl, these(1, &OWNER_REQUESTS)?);
        // Shared anonymous memory: RLIMIT_DATA does not count it.
        let kind = u64::from((libc::MAP_TYPE | libc::MAP_ANONYMOUS).unsigned_abs());
        let shared = u64::from((libc::MAP_SHARED | libc::MAP_ANONYMOUS).unsigned_abs());
        let kind = SeccompCmpOp::MaskedEq(kind);
        let shared = condition(3, SeccompCmpArgLen::Dword, kind, shared)?;
        rules.insert(libc::SYS_mmap, vec![rule(vec![shared])?]);
        // A socket with SO_LINGER, passed over the channel, would block the monitor in close(2).
        // The process can still get one from elsewhere: that is why the monitor receives no
        // descriptors there.
        let level = u64::from(libc::SOL_SOCKET.unsigned_abs());
        let linger = u64::from(libc::SO_LINGER.unsigned_abs());
        let is = |at, number| condition(at, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, number);
        rules.insert(
            libc::SYS_setsockopt,
            vec![rule(vec![is(1, level)?, is(2, linger)?])?],
        );
        Ok((rules, SeccompAction::Errno(libc::EPERM.unsigned_abs())))
    }

    /// The first argument is none of these numbers.
    fn others(own: &[u64]) -> io::Result<SeccompRule> {
        let differs = |n: &u64| condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, *n);
        rule(own.iter().map(differs).collect::<io::Result<_>>()?)
    }

    /// This argument is one of these numbers.
    fn these(argument: u8, numbers: &[u64]) -> io::Result<Vec<SeccompRule>> {
        let one = |n: &u64| {
            let is = condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *n)?;
            rule(vec![is])
        };
        numbers.iter().map(one).collect()
    }

    fn condition(
        argument: u8,
        length: SeccompCmpArgLen,
        compare: SeccompCmpOp,
        with: u64,
    ) -> io::Result<SeccompCondition> {
        SeccompCondition::new(argument, length, compare, with).map_err(io::Error::other)
    }

    fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
        SeccompRule::new(conditions).map_err(io::Error::other)
    }

    /// memfd_secret(2), which libc does not define for every architecture.
    const MEMFD_SECRET: i64 = 447;

    /// System calls that no module needs to look up a name. Without the filter, the kernel would
    /// allow this process to use some of them on gate and relay, which run as the same user.
    const DENIED: &[i64] = &[
        // Other processes.
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_process_madvise,
        libc::SYS_kcmp,
        libc::SYS_pidfd_open,
        libc::SYS_pidfd_getfd,
        libc::SYS_pidfd_send_signal,
        libc::SYS_tkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_setpriority,
        libc::SYS_ioprio_set,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setscheduler,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setaffinity,
        libc::SYS_migrate_pages,
        libc::SYS_move_pages,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_vfork,
        // Memory that no limit counts, or that outlasts the process.
        libc::SYS_memfd_create,
        MEMFD_SECRET,
        libc::SYS_shmget,
        libc::SYS_msgget,
        // Another view of the system.
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_chroot,
        libc::SYS_pivot_root,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        // The system itself.
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_acct,
        libc::SYS_quotactl,
        // Interfaces with a large attack surface in the kernel.
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
}

/// There is no filter for other processors, as for gate and relay.
#[cfg(all(
    target_os = "linux",
    not(any(
        target_arch = "x86_64",
        target_arch = "aarch64",
        target_arch = "riscv64"
    ))
))]
mod calls {
    pub(super) fn deny() -> std::io::Result<i32> {
        Ok(libc::ENOSYS)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub(super) fn confine(_: &mut super::Confined) -> std::io::Result<()> {
        Ok(())
    }
}
