//! How a job's child comes to be: by clone(2), sharing its parent's memory until
//! exec, or where that is not to be had by fork(2).
//!
//! Run by the monitor, which has one thread. A fork copies the monitor's tables of
//! pages, and each page that either writes afterwards: some 0.4 ms of processor time
//! for a command. vfork(2) copies nothing but stops the monitor until the child
//! has executed its program, which a slow home folder or the user's own SIGSTOP can
//! put off for ever. So the child shares the memory (CLONE_VM) and the monitor goes on:
//!
//! - the child has a stack of its own, and the plan that it carries out is lent
//!   to it: neither is touched before the kernel has said, by clearing the
//!   word that CLONE_CHILD_CLEARTID names, that the child has executed its program or ended;
//! - it makes raw system calls only, so it never writes the monitor's `errno`;
//! - its memory cannot be read, traced or dumped by the user that it becomes,
//!   because nobody's can whose PR_SET_DUMPABLE is 0. A change of user sets that to
//!   what `fs.suid_dumpable` says, for all who share the memory: where that is not 0
//!   (systemd-coredump and apport set 2), jobs of other users are forked after all.

#[cfg(direct_calls)]
pub use shared::Starter;
#[cfg(direct_calls)]
pub(in crate::sys) use shared::start_ours;

#[cfg(not(direct_calls))]
pub use forked::Starter;
#[cfg(not(direct_calls))]
pub(in crate::sys) use forked::start_ours;

use crate::sys::oom::{self, OomPriority};

/// The life of a child that has a copy of everything.
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

    /// Starts jobs, and keeps what is lent to the children that have not yet executed.
    #[derive(Default)]
    pub struct Starter {
        lent: Vec<NonNull<Lent>>,
        spare: Vec<Stack>,
        /// Those that may share the memory still.
        begun: Vec<Pid>,
        /// Whether the system does not tell who shares it.
        blind: bool,
        /// The next job shares nothing.
        forks: bool,
    }

    /// What a child uses of our memory.
    struct Lent {
        /// Not zero while the child uses it; the kernel clears it.
        in_use: AtomicI32,
        plan: Plan,
        stack: Stack,
    }

    impl Starter {
        /// Stacks that are kept for the next children.
        const SPARE: usize = 2;

        /// Jobs that are remembered before it is looked which of them may be forgotten.
        const BEGUN: usize = 256;

        /// Starts a child that carries the plan out. `leader` has its number before it runs.
        ///
        /// # Errors
        /// No process, or no memory for its stack.
        pub(in crate::sys::job) fn start(
            &mut self,
            plan: Plan,
            leader: Option<&AtomicI32>,
        ) -> nix::Result<Pid> {
            self.take_back();
            let forks = std::mem::take(&mut self.forks);
            if forks || plan.program.user.as_ref().is_some_and(opens_memory) {
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
            // From here on it is the child's: no Rust reference of ours to it is left.
            let lent = NonNull::from(Box::leak(lent));
            let (settid, number) = settid(leader);
            let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | settid | libc::SIGCHLD;
            // SAFETY: `lent` is a whole Lent; only the word's address is taken.
            let word = unsafe { &raw mut (*lent.as_ptr()).in_use };
            // A signal that came to the child before its handlers are gone would be
            // taken for one to the parent, whose pipe they share.
            let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
            // SAFETY: the stack is the child's alone and lives, as the plan does, until
            // the word is cleared; the child makes system calls only and never returns.
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
                // SAFETY: there is no child, so it is ours alone.
                unsafe { lent.as_ref() }.in_use.store(0, Ordering::Release);
            }
            self.lent.push(lent);
            let pid = pid.map(Pid::from_raw)?;
            if self.begun.len() >= Self::BEGUN {
                self.forget_those_apart();
            }
            self.begun.push(pid);
            Ok(pid)
        }

        /// Has the next job started with a memory of its own: it then has an
        /// `oom_score_adj` of its own too, so that ours may stay lowered.
        pub const fn fork_next(&mut self) {
            self.forks = true;
        }

        /// Whether a job that was started may share this process's memory still. (That its
        /// word is cleared comes some instructions before it has a memory of its own.)
        pub fn shares_memory(&mut self) -> bool {
            self.take_back();
            self.forget_those_apart();
            self.blind || !self.lent.is_empty() || !self.begun.is_empty()
        }

        fn forget_those_apart(&mut self) {
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

        /// Takes back what children that have executed or ended no longer use.
        fn take_back(&mut self) {
            let spare = &mut self.spare;
            self.lent.retain(|lent| {
                // SAFETY: it lives until it is freed below, and the word is atomic.
                let in_use = unsafe { lent.as_ref() }.in_use.load(Ordering::Acquire);
                if in_use == 0 {
                    // SAFETY: made by Box::leak, and the child uses it no more.
                    let lent = unsafe { Box::from_raw(lent.as_ptr()) };
                    if spare.len() < Self::SPARE {
                        spare.push(lent.stack);
                    }
                }
                in_use != 0
            });
        }

        /// How many children have not yet executed their program.
        #[cfg(test)]
        pub(in crate::sys::job) fn beginning(&mut self) -> usize {
            self.take_back();
            self.lent.len()
        }
    }

    /// The flag of clone(2) by which the kernel writes the child's number to `leader` before
    /// the child runs, and its argument.
    fn settid(leader: Option<&AtomicI32>) -> (libc::c_int, *mut i32) {
        leader.map_or((0, null_mut()), |leader| {
            (libc::CLONE_PARENT_SETTID, leader.as_ptr())
        })
    }

    /// Forks by clone(2), so that the kernel sets `leader`: the child has a copy of everything.
    /// A raw call, because the library's clone() takes a stack. The library's own state (the
    /// thread's number) is stale in the child, which uses none of it.
    fn fork(plan: &Plan, leader: Option<&AtomicI32>) -> nix::Result<Pid> {
        let (settid, number) = settid(leader);
        let flags = libc::c_long::from(settid | libc::SIGCHLD);
        // As in `start`: the child unblocks them when its handlers are gone.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: this process has one thread, so the child is as whole as its parent; the
        // word lives for the call.
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

    /// Whether a process uses the memory of this one: kcmp(2).
    fn shares_with_us(pid: Pid) -> nix::Result<bool> {
        /// `KCMP_VM`: libc does not have it.
        const MEMORY: libc::c_int = 1;
        let own = nix::unistd::getpid().as_raw();
        // SAFETY: the call takes numbers alone.
        let order = unsafe { libc::syscall(libc::SYS_kcmp, own, pid.as_raw(), MEMORY, 0, 0) };
        match Errno::result(order) {
            Ok(order) => Ok(order == 0),
            Err(Errno::ESRCH) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Starts a process of ours, which executes our own program or ends, and is
    /// waited for until it has: it shares the memory meanwhile, and the C library's
    /// `errno`. No file of a user's is on its way, so it is waited for some 0.1 ms.
    ///
    /// # Errors
    /// No process, or no memory for its stack.
    pub(in crate::sys) fn start_ours<F: Fn() -> libc::c_int>(child: &F) -> nix::Result<Pid> {
        extern "C" fn enter<F: Fn() -> libc::c_int>(child: *mut c_void) -> libc::c_int {
            // SAFETY: what is given below, by a parent that waits.
            let child = unsafe { &*child.cast::<F>() };
            child()
        }
        let stack = Stack::new()?;
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let child: *const F = child;
        // As above: the child unblocks them when its handlers are gone.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the stack is the child's alone and outlives its use, since the call
        // returns when the child has executed or ended; so does what `child` borrows.
        let pid = unsafe { libc::clone(enter::<F>, stack.top(), flags, child.cast_mut().cast()) };
        let pid = Errno::result(pid);
        before.thread_set_mask()?;
        pid.map(Pid::from_raw)
    }

    /// Whether becoming this user would open the memory of all who share it. Asked
    /// each time: it may be set while we run.
    fn opens_memory(user: &Identity) -> bool {
        let changes = (user.uid, user.gid) != (IdNumber::ROOT, IdNumber::ROOT);
        changes && !keeps_closed(std::fs::read("/proc/sys/fs/suid_dumpable").ok().as_deref())
    }

    /// What `fs.suid_dumpable` must be for a child of another user to share memory.
    pub(in crate::sys::job) fn keeps_closed(setting: Option<&[u8]>) -> bool {
        setting.is_some_and(|s| s.trim_ascii() == b"0")
    }

    /// The child's first function, on its own stack.
    extern "C" fn enter(lent: *mut c_void) -> libc::c_int {
        // SAFETY: what `start` gave; the parent only reads the word in it meanwhile.
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
        /// Starts a child that carries the plan out.
        ///
        /// # Errors
        /// No process was to be had.
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

        /// Has the next job started with a memory of its own, as every job is.
        pub const fn fork_next(&mut self) {}

        /// Whether a job shares this process's memory: none does.
        pub fn shares_memory(&mut self) -> bool {
            false
        }
    }

    /// Starts a process of ours, which executes our own program or ends.
    ///
    /// # Errors
    /// No process was to be had.
    pub(in crate::sys) fn start_ours<F: Fn() -> libc::c_int>(child: &F) -> nix::Result<Pid> {
        match super::super::fork_quietly()? {
            Some(pid) => Ok(pid),
            // SAFETY: ends the child without running what its parent would run at exit.
            None => unsafe { libc::_exit(child()) },
        }
    }
}
