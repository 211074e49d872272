//! What a look-up process gives up before it runs the code of an NSS module: root, privileges
//! that a program could bring it, files to write, and calls that reach into other processes.
//!
//! It keeps what modules need: to read files, to speak with the services of this machine and
//! with servers elsewhere, to have threads. So the list is of what is denied, with an error,
//! and not of what is allowed, as it is for gate and relay.

use crate::fault::Fault;
use nix::sys::resource::Resource;
use nix::unistd::chdir;

use super::id_number::IdNumber;
use super::process;
use super::rlimits;
use super::sandbox::{self, become_alone, failed};

/// Which protections a look-up process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Confined {
    /// It is another user than the monitor.
    pub user: bool,
    /// It can write no file, and, where the kernel has scopes (landlock ABI 6, Linux 6.12),
    /// signal no other process; else seccomp alone denies that.
    pub landlock: bool,
    /// It can make no call that reaches into other processes or changes the system.
    pub seccomp: bool,
    /// What the kernel answered where landlock is missing; else 0.
    pub landlock_error: i32,
    /// What it answered where seccomp is missing; else 0.
    pub seccomp_error: i32,
}

impl Confined {
    /// The protections that are missing because the kernel refused them: the name of
    /// each, and its error.
    pub fn missing(&self) -> impl Iterator<Item = (&'static str, std::io::Error)> {
        sandbox::missing(self.landlock_error, self.seccomp_error)
    }
}

/// Descriptors that it may have: some for each of its threads.
const DESCRIPTORS: u64 = 256;
/// Memory of its own that it may have, bytes: a directory's largest group is a few MiB.
const MEMORY: u64 = 512 << 20;
/// Addresses that it may use, bytes: that memory, libraries, threads' stacks, and the tables
/// that nscd and sssd share with those who ask.
const ADDRESSES: u64 = 2 << 30;
/// Most processes and threads of its user with which it may start one more.
const THREADS: u64 = 8192;

/// Confines this process, which becomes this user and this group, if any is given.
///
/// # Errors
/// A protection that the system has could not be had.
pub fn confine(user: Option<(IdNumber, IdNumber)>) -> Result<Confined, Fault> {
    chdir("/").map_err(|e| failed("chdir", "", e))?;
    for (which, most) in [
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_DATA, MEMORY),
        (Resource::RLIMIT_AS, ADDRESSES),
        (Resource::RLIMIT_NPROC, THREADS),
    ] {
        let (_, hard) = rlimits::get(which).map_err(|e| failed("getrlimit", "", e))?;
        // The kernel counts a user's threads, and holds each process to its own limit: with
        // half of the relay's this one can never use up what the relay may have.
        let is_threads = which == Resource::RLIMIT_NPROC;
        let hard = if is_threads { hard / 2 } else { hard };
        rlimits::set(which, most.min(hard), most.min(hard))
            .map_err(|e| failed("setrlimit", "", e))?;
    }
    let mut confined = Confined::default();
    if let Some((uid, gid)) = user {
        become_alone(uid, gid)?;
        // The change of user has put back what `fs.suid_dumpable` says.
        process::keep_private();
        confined.user = true;
    }
    // So has it with this.
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
    use crate::sys::sandbox::system::landlock_error;
    use crate::sys::sandbox::taken_away;

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

    /// Nothing can be written but `/dev/null`. 0, or why the kernel has no landlock.
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
            Err(e) => taken_away(&e).ok_or_else(|| io::Error::other(e)),
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

    /// Denies the calls below. 0, or why the kernel has no such filters.
    pub(super) fn deny() -> io::Result<i32> {
        match program(std::process::id())? {
            Some(program) => filter::apply(&program),
            None => Ok(libc::ENOSYS),
        }
    }

    /// The filter of the process with this number.
    pub(in crate::sys) fn program(own: u32) -> io::Result<Option<BpfProgram>> {
        let (rules, error) = list(own)?;
        let Some(mut program) = filter::compile(rules, error, SeccompAction::Allow)? else {
            return Ok(None);
        };
        filter::without_clone3(&mut program);
        filter::without_x32(&mut program, libc::EPERM);
        Ok(Some(program))
    }

    /// What it may not call, and the error.
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
        // A process of its own would outlive this one, and count against its user's limit as
        // the relay's threads do. (A thread can have no user namespace of its own.)
        let thread = u64::from(libc::CLONE_THREAD.unsigned_abs());
        let no_thread = SeccompCmpOp::MaskedEq(thread);
        let no_thread = condition(0, SeccompCmpArgLen::Qword, no_thread, 0)?;
        rules.insert(libc::SYS_clone, vec![rule(vec![no_thread])?]);
        // Signals by way of a descriptor, to gate and relay.
        rules.insert(libc::SYS_fcntl, these(1, &filter::OWNER_COMMANDS)?);
        rules.insert(libc::SYS_ioctl, these(1, &OWNER_REQUESTS)?);
        // Memory to share with nobody, which RLIMIT_DATA does not count.
        let kind = u64::from((libc::MAP_TYPE | libc::MAP_ANONYMOUS).unsigned_abs());
        let shared = u64::from((libc::MAP_SHARED | libc::MAP_ANONYMOUS).unsigned_abs());
        let kind = SeccompCmpOp::MaskedEq(kind);
        let shared = condition(3, SeccompCmpArgLen::Dword, kind, shared)?;
        rules.insert(libc::SYS_mmap, vec![rule(vec![shared])?]);
        // A socket that lingers, passed over the channel, would hold up the monitor in close(2).
        // It can be had from others all the same: that is why the monitor receives none there.
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

    /// memfd_secret(2), which libc has not for every architecture.
    const MEMFD_SECRET: i64 = 447;

    /// Calls that no module needs to find a name. Some of them the kernel would let this
    /// process use on gate and relay, which run as the same user.
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
        // Wide doors into the kernel.
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_io_uring_enter,
        libc::SYS_io_uring_register,
    ];
}

/// No filter is made for other processors, as for gate and relay.
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
