//! Creates a job's child: by clone(2), sharing its parent's memory until exec, or, if that is not
//! possible, by fork(2).
//!
//! Runs in the monitor, which has one thread. A fork copies the monitor's page tables, and each
//! page that either process writes afterwards: about 0.4 ms of processor time for a command.
//! vfork(2) copies nothing but stops the monitor until the child has executed its program, which a
//! slow home directory or the user's own SIGSTOP can delay forever. So the child shares the memory
//! (CLONE_VM) and the monitor continues:
//!
//! - the child has its own stack, and the plan that it executes is lent to it: the monitor touches
//!   neither before the kernel has reported, by clearing the word that CLONE_CHILD_CLEARTID names,
//!   that the child has executed its program or ended;
//! - it makes raw system calls only, so it never writes the monitor's `errno`;
//! - the user that it becomes cannot read, trace or dump its memory, because PR_SET_DUMPABLE is 0.
//!   A change of user sets that to `fs.suid_dumpable` for all processes that share the memory: if
//!   that is not 0 (systemd-coredump and apport set 2), jobs of other users are forked.

#[cfg(direct_calls)]
pub use shared::Starter;
#[cfg(direct_calls)]
pub(in crate::sys) use shared::start_ours;

#[cfg(not(direct_calls))]
pub use forked::Starter;
#[cfg(not(direct_calls))]
pub(in crate::sys) use forked::start_ours;

use crate::sys::oom::{self, OomPriority};

/// Runs a child that has a copy of all memory.
fn run_forked(plan: &super::Plan) -> ! {
    // It may have been started while the monitor's own value was lowered.
    oom::take(OomPriority::Original);
    super::child::run(plan)
}

#[cfg(all(test, direct_calls))]
pub(super) use shared::keeps_closed;

#[cfg(direct_calls)]
mod shared {
    use std::ffi::c_void;
    use std::ptr::{NonNull, null_mut};
    use std::sync::atomic::{AtomicI32, Ordering};

    use super::run_forked;

    use nix::errno::Errno;
    use nix::sys::signal::{SigSet, SigmaskHow};
    use nix::unistd::Pid;

    use crate::sys::id_number::IdNumber;
    use crate::sys::job::stack::Stack;
    use crate::sys::job::{Identity, Plan, child};

    /// Starts jobs, and keeps what is lent to children that have not yet executed their program.
    #[derive(Default)]
    pub struct Starter {
        lent: Vec<NonNull<Lent>>,
        spare: Vec<Stack>,
        /// Children that may still share the memory.
        begun: Vec<Pid>,
        /// Whether the system does not tell which processes share the memory.
        blind: bool,
        /// The next job shares no memory.
        forks: bool,
    }

    /// What a child uses of this process's memory.
    struct Lent {
        /// Not zero while the child uses it; the kernel clears it.
        in_use: AtomicI32,
        plan: Plan,
        stack: Stack,
    }

    impl Starter {
        /// Stacks that are kept for the next children.
        const SPARE: usize = 2;

        /// Number of remembered jobs at which those that no longer share the memory are removed.
        const BEGUN: usize = 256;

        /// Starts a child that executes the plan. `leader` gets its process ID before it runs.
        ///
        /// # Errors
        /// No process, or no memory for its stack.
        pub(in crate::sys::job) fn start(
            &mut self,
            plan: Plan,
            leader: Option<&AtomicI32>,
        ) -> nix::Result<Pid> {
            self.reclaim();
            let forks = std::mem::take(&mut self.forks);
            if forks || plan.user().is_some_and(opens_memory) {
                return fork(&plan, leader);
            }
            let stack = match self.spare.pop() {
                Some(stack) => stack,
                None => Stack::new()?,
            };
            let top = stack.top();
            let lent = Box::new(Lent {
                in_use: AtomicI32::new(1),
                plan,
                stack,
            });
            // From here on it belongs to the child: this process has no Rust reference to it.
            let lent = NonNull::from(Box::leak(lent));
            let (settid, number) = settid(leader);
            let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | settid | libc::SIGCHLD;
            // SAFETY: `lent` is a whole Lent; only the word's address is taken.
            let word = unsafe { &raw mut (*lent.as_ptr()).in_use };
            // A signal to the child before its handlers are reset would be taken for one to the
            // parent, because both share the handlers' pipe.
            let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
            // SAFETY: only the child uses the stack, which lives, like the plan, until the word is
            // cleared; the child makes system calls only and never returns.
            let pid = unsafe {
                libc::clone(
                    enter,
                    top,
                    flags,
                    lent.as_ptr().cast(),
                    number,
                    null_mut::<c_void>(),
                    word,
                )
            };
            let pid = Errno::result(pid);
            if let Ok(before) = before {
                let _ = before.thread_set_mask();
            }
            if pid.is_err() {
                // SAFETY: there is no child, so only this process uses it.
                unsafe { lent.as_ref() }.in_use.store(0, Ordering::Release);
            }
            self.lent.push(lent);
            let pid = pid.map(Pid::from_raw)?;
            if self.begun.len() >= Self::BEGUN {
                self.forget_unshared();
            }
            self.begun.push(pid);
            Ok(pid)
        }

        /// Makes the next job start with its own memory. It then also has its own `oom_score_adj`,
        /// so the monitor's can stay lowered.
        pub const fn fork_next(&mut self) {
            self.forks = true;
        }

        /// Returns whether a started job may still share this process's memory. (The kernel clears
        /// the job's word some instructions before the job has its own memory.)
        pub fn shares_memory(&mut self) -> bool {
            self.reclaim();
            self.forget_unshared();
            self.blind || !self.lent.is_empty() || !self.begun.is_empty()
        }

        fn forget_unshared(&mut self) {
            let mut blind = false;
            self.begun.retain(|pid| match shares_with_us(*pid) {
                Ok(shares) => shares,
                Err(_) => {
                    blind = true;
                    false
                }
            });
            self.blind |= blind;
        }

        /// Takes back what children that have executed their program or ended no longer use.
        fn reclaim(&mut self) {
            let spare = &mut self.spare;
            self.lent.retain(|lent| {
                // SAFETY: it lives until it is freed below, and the word is atomic.
                let in_use = unsafe { lent.as_ref() }.in_use.load(Ordering::Acquire);
                if in_use == 0 {
                    // SAFETY: made by Box::leak, and the child no longer uses it.
                    let lent = unsafe { Box::from_raw(lent.as_ptr()) };
                    if spare.len() < Self::SPARE {
                        spare.push(lent.stack);
                    }
                }
                in_use != 0
            });
        }

        /// Returns how many children have not yet executed their program.
        #[cfg(test)]
        pub(in crate::sys::job) fn beginning(&mut self) -> usize {
            self.reclaim();
            self.lent.len()
        }
    }

    /// Returns the flag of clone(2) that makes the kernel write the child's process ID to `leader`
    /// before the child runs, and its argument.
    fn settid(leader: Option<&AtomicI32>) -> (libc::c_int, *mut i32) {
        leader.map_or((0, null_mut()), |leader| {
            (libc::CLONE_PARENT_SETTID, leader.as_ptr())
        })
    }

    /// Forks by clone(2), so that the kernel sets `leader`: the child has a copy of all memory.
    /// Uses a raw call, because the library's clone() takes a stack. The library's own state (the
    /// thread's ID) is stale in the child, which does not use it.
    fn fork(plan: &Plan, leader: Option<&AtomicI32>) -> nix::Result<Pid> {
        let (settid, number) = settid(leader);
        let flags = libc::c_long::from(settid | libc::SIGCHLD);
        // As in `start`: the child unblocks them after resetting its handlers.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: this process has one thread, so the child is complete; the word lives for the
        // call.
        let pid =
            unsafe { libc::syscall(libc::SYS_clone, flags, 0_usize, number, 0_usize, 0_usize) };
        if pid == 0 {
            run_forked(plan);
        }
        let pid = Errno::result(pid);
        // From here on there is a job: an error would lose it.
        let _ = before.thread_set_mask();
        let pid = i32::try_from(pid?).map_err(|_| Errno::EOVERFLOW)?;
        Ok(Pid::from_raw(pid))
    }

    /// Returns whether a process shares the memory of this one, by kcmp(2).
    fn shares_with_us(pid: Pid) -> nix::Result<bool> {
        /// `KCMP_VM`: libc does not define it.
        const MEMORY: libc::c_int = 1;
        let own = nix::unistd::getpid().as_raw();
        // SAFETY: the call takes only numbers.
        let order = unsafe { libc::syscall(libc::SYS_kcmp, own, pid.as_raw(), MEMORY, 0, 0) };
        match Errno::result(order) {
            Ok(order) => Ok(order == 0),
            Err(Errno::ESRCH) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Starts a process of this program, which executes this program again or ends, and waits until
    /// it has. Until then it shares the memory, and the C library's `errno`. No user's file is
    /// involved, so the wait takes about 0.1 ms.
    ///
    /// # Errors
    /// No process, or no memory for its stack.
    pub(in crate::sys) fn start_ours<F: Fn() -> libc::c_int>(child: &F) -> nix::Result<Pid> {
        extern "C" fn enter<F: Fn() -> libc::c_int>(child: *mut c_void) -> libc::c_int {
            // SAFETY: the pointer passed below, by a parent that waits.
            let child = unsafe { &*child.cast::<F>() };
            child()
        }
        let stack = Stack::new()?;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let child: *const F = child;
        // As above: the child unblocks them after resetting its handlers.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: only the child uses the stack, which outlives that use, since the call returns
        // when the child has executed or ended; so does what `child` borrows.
        let pid = unsafe { libc::clone(enter::<F>, stack.top(), flags, child.cast_mut().cast()) };
        let pid = Errno::result(pid);
        before.thread_set_mask()?;
        pid.map(Pid::from_raw)
    }

    /// Returns whether a change to this user would open the memory of all processes that share it.
    /// Checked each time: the setting may change while the monitor runs.
    fn opens_memory(user: &Identity) -> bool {
        let changes = (user.uid, user.gid) != (IdNumber::ROOT, IdNumber::ROOT);
        changes && !keeps_closed(std::fs::read("/proc/sys/fs/suid_dumpable").ok().as_deref())
    }

    /// Returns whether `fs.suid_dumpable` allows a child of another user to share memory.
    pub(in crate::sys::job) fn keeps_closed(setting: Option<&[u8]>) -> bool {
        setting.is_some_and(|s| s.trim_ascii() == b"0")
    }

    /// The child's first function, on its own stack.
    extern "C" fn enter(lent: *mut c_void) -> libc::c_int {
        // SAFETY: the pointer that `start` passed; the parent only reads the word in it while the
        // child runs.
        let plan = unsafe { &(*lent.cast::<Lent>()).plan };
        child::run(plan)
    }
}

#[cfg(not(direct_calls))]
mod forked {
    use std::sync::atomic::AtomicI32;

    use nix::unistd::Pid;

    use crate::sys::job::Plan;

    /// Starts jobs.
    #[derive(Default)]
    pub struct Starter;

    impl Starter {
        /// Starts a child that executes the plan.
        ///
        /// # Errors
        /// The process could not be created.
        pub(in crate::sys::job) fn start(
            &mut self,
            plan: Plan,
            _: Option<&AtomicI32>,
        ) -> nix::Result<Pid> {
            match crate::sys::job::fork_quietly()? {
                Some(pid) => Ok(pid),
                None => super::run_forked(&plan),
            }
        }

        /// Makes the next job start with its own memory, as every job does here.
        pub const fn fork_next(&mut self) {}

        /// Returns whether a job shares this process's memory: none does.
        pub fn shares_memory(&mut self) -> bool {
            false
        }
    }

    /// Starts a process of this program, which executes this program again or ends.
    ///
    /// # Errors
    /// The process could not be created.
    pub(in crate::sys) fn start_ours<F: Fn() -> libc::c_int>(child: &F) -> nix::Result<Pid> {
        match super::super::fork_quietly()? {
            Some(pid) => Ok(pid),
            // SAFETY: ends the child without running its parent's exit handlers.
            None => unsafe { libc::_exit(child()) },
        }
    }
}
