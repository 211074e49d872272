//! The standby guard: a child that shares the monitor's memory until the monitor ends, and then
//! executes this program.
//!
//! The monitor starts it under inetd, just before a job. That costs one clone(2); a fork would copy
//! the monitor's page tables, and a short command would wait for that. Like a job's child it makes
//! raw system calls only ([`super::job`]): it writes neither the monitor's `errno` nor any other
//! memory but its own stack. It keeps no descriptor but `/dev/null`, blocks every signal, and
//! learns of its parent's end by PR_SET_PDEATHSIG. If lack of memory ends the monitor, it ends the
//! standby guard too, because the kernel kills every process that shares the memory. Must not stay
//! for long: the monitor replaces it by a forked guard once the job has run for a moment.

use std::os::fd::OwnedFd;

#[cfg(direct_calls)]
pub use shared::Standby;

#[cfg(not(direct_calls))]
pub use missing::Standby;

/// Positions in the table of numbers; the program gets the numbers there as its arguments.
#[derive(Clone, Copy)]
pub struct Places {
    /// Time from a job's SIGHUP to its SIGKILL, milliseconds. First argument.
    pub grace: usize,
    /// The process ID of the job's leader; 0: there is no job, and no program is executed. Second
    /// argument.
    pub leader: usize,
}

/// The pidfd of the leader, in the program that the standby guard executes.
const LEADER: i32 = 4;

/// Initializes the program that a standby guard has executed: sets the monitor's OOM priority, and
/// returns the leader's pidfd if there is one.
pub fn init_process() -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    super::oom::take(super::oom::OomPriority::Monitor);
    // SAFETY: sets a flag of a descriptor, which may not exist.
    let flags = unsafe { libc::fcntl(LEADER, libc::F_SETFD, libc::FD_CLOEXEC) };
    // SAFETY: it is open, and nothing else in this program uses that number yet.
    (flags >= 0).then(|| unsafe { OwnedFd::from_raw_fd(LEADER) })
}

#[cfg(direct_calls)]
mod shared {
    use std::ffi::{CStr, CString, c_void};
    use std::ptr::{NonNull, null_mut};
    use std::rc::Rc;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    use nix::unistd::Pid;

    use super::{LEADER, Places};
    use crate::sys::decimal::Decimal;
    use crate::sys::guard::Numbers;
    use crate::sys::job::{Stack, calls, close_from};

    /// How often it checks whether its parent lives, in case the kernel's signal does not come.
    const LOOKING: Duration = Duration::from_secs(1);

    /// A standby guard. If this value is dropped, the guard stays, and acts when this process ends.
    pub struct Standby {
        pid: Pid,
        lent: NonNull<Lent>,
    }

    /// The memory of this process that the guard uses until it is reaped.
    struct Lent {
        numbers: Rc<Numbers>,
        places: Places,
        program: CString,
        name: CString,
        parent: i32,
        _stack: Stack,
    }

    impl Standby {
        /// Starts a standby guard. When this process has ended, the guard executes this program
        /// under the given name, with the numbers at these positions as its arguments.
        ///
        /// # Errors
        /// EAGAIN or ENOMEM: no process, or no memory for its stack. Any other: the system does not
        /// allow this.
        pub fn start(name: &CStr, numbers: &Rc<Numbers>, places: Places) -> nix::Result<Self> {
            let program = crate::sys::inherited::own_program();
            Self::start_program(program, name, numbers, places)
        }

        fn start_program(
            program: CString,
            name: &CStr,
            numbers: &Rc<Numbers>,
            places: Places,
        ) -> nix::Result<Self> {
            let stack = Stack::new()?;
            let top = stack.top();
            let lent = Box::new(Lent {
                numbers: Rc::clone(numbers),
                places,
                program,
                name: name.to_owned(),
                parent: nix::unistd::getpid().as_raw(),
                _stack: stack,
            });
            // Signals stay blocked in the child: this process's handlers must not run in it.
            let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
            let lent = NonNull::from(Box::leak(lent));
            // No signal at its end: only `dismiss` waits for it.
            let flags = libc::CLONE_VM;
            // SAFETY: only the child uses the stack, which lives until the child is reaped, as does
            // the lent data; the child makes system calls only and never returns.
            let pid = unsafe {
                libc::clone(
                    enter,
                    top,
                    flags,
                    lent.as_ptr().cast(),
                    null_mut::<c_void>(),
                    null_mut::<c_void>(),
                    null_mut::<c_void>(),
                )
            };
            let pid = Errno::result(pid);
            let _ = before.thread_set_mask();
            match pid {
                Ok(pid) => Ok(Self {
                    pid: Pid::from_raw(pid),
                    lent,
                }),
                Err(e) => {
                    // SAFETY: made by Box::leak above, and there is no child.
                    drop(unsafe { Box::from_raw(lent.as_ptr()) });
                    Err(e)
                }
            }
        }

        /// Returns whether it has ended, which it never does by itself.
        pub fn has_ended(&self) -> bool {
            let flags = WaitPidFlag::__WCLONE | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            let id = nix::sys::wait::Id::Pid(self.pid);
            let ended = nix::sys::wait::waitid(id, flags | WaitPidFlag::WEXITED);
            !matches!(ended, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
        }

        /// Kills and reaps it.
        pub fn dismiss(self) {
            let _ = kill(self.pid, Signal::SIGKILL);
            let gone = loop {
                match waitpid(self.pid, Some(WaitPidFlag::__WCLONE)) {
                    Err(Errno::EINTR) => {}
                    ended => break ended.is_ok(),
                }
            };
            if gone {
                // SAFETY: made by Box::leak, and its only other user is reaped.
                drop(unsafe { Box::from_raw(self.lent.as_ptr()) });
            }
        }
    }

    /// The child's first function, on its own stack.
    extern "C" fn enter(lent: *mut c_void) -> libc::c_int {
        // SAFETY: the pointer that `start` passed; nothing writes to it except atomic stores to the
        // numbers.
        let lent = unsafe { &*lent.cast::<Lent>() };
        calls::new_session();
        // 0 and 1 are /dev/null already.
        let _ = calls::duplicate(1, 2);
        close_from(3);
        calls::set_name(c"cos: guard");
        calls::die_with_parent();
        // The parent may have ended before the line above, and other processes may send SIGHUP.
        while calls::parent() == lent.parent {
            calls::wait_for(Signal::SIGHUP, LOOKING);
        }
        let leader = lent.numbers.get(lent.places.leader);
        if leader == 0 {
            calls::exit(0);
        }
        // At once: if the leader is reaped while the program starts, its process ID becomes free.
        if let Ok(process) = calls::open_process(leader) {
            let _ = calls::duplicate(process, LEADER);
        }
        let grace = lent.numbers.get(lent.places.grace);
        let arguments = (Decimal::of(grace), Decimal::of(leader));
        let argv = [
            lent.name.as_ptr(),
            arguments.0.as_ptr(),
            arguments.1.as_ptr(),
            std::ptr::null(),
        ];
        let environment = [crate::sys::memory::TUNABLES.as_ptr(), std::ptr::null()];
        // SAFETY: both arrays end with a null pointer, and what they point to lives.
        unsafe { calls::execute(&lent.program, argv.as_ptr(), environment.as_ptr()) };
        // There is no memory for the program, or it no longer exists: at least end the process
        // group.
        if leader > 1 {
            calls::signal_group(leader, Signal::SIGHUP);
            let grace = Duration::from_millis(u64::try_from(grace).unwrap_or(0));
            calls::wait_for(Signal::SIGTERM, grace);
            calls::signal_group(leader, Signal::SIGKILL);
        }
        calls::exit(127)
    }

    #[cfg(test)]
    mod tests {
        use std::fs::File;
        use std::io::{Read, Write};

        use nix::fcntl::OFlag;
        use nix::unistd::{getpgid, pipe2};

        use super::*;
        use crate::sys::forked::Forked;
        use crate::sys::job::fork_quietly;

        /// A monitor that dies for lack of memory may leave none for the program.
        #[test]
        fn without_its_program_it_ends_the_process_group_itself() {
            let (end, leaders) = pipe2(OFlag::O_CLOEXEC).unwrap();
            let (mut end, mut leaders) = (File::from(end), File::from(leaders));
            let parent = Forked::start(move || {
                let table = std::num::NonZeroUsize::MIN.saturating_add(1);
                let numbers = Rc::new(Numbers::new(table).unwrap());
                let places = Places {
                    grace: 0,
                    leader: 1,
                };
                let Some(leader) = fork_quietly().unwrap() else {
                    leaders.write_all(b"runs").unwrap();
                    calls::new_session();
                    loop {
                        calls::wait_for(Signal::SIGTERM, LOOKING);
                    }
                };
                while getpgid(Some(leader)) != Ok(leader) {
                    std::thread::yield_now();
                }
                numbers.set(1, leader.as_raw());
                Standby::start_program(c"/nowhere".into(), c"guard", &numbers, places).unwrap();
            })
            .unwrap();
            let mut said = String::new();
            // Until the leader, which has the pipe, is dead.
            end.read_to_string(&mut said).unwrap();
            assert_eq!(said, "runs");
            parent.end();
        }

        #[test]
        fn one_that_is_dismissed_or_killed_is_reaped() {
            let numbers = Rc::new(Numbers::new(std::num::NonZeroUsize::MIN).unwrap());
            let places = Places {
                grace: 0,
                leader: 0,
            };
            for killed in [false, true] {
                let standby = Standby::start(c"guard", &numbers, places).unwrap();
                let pid = standby.pid;
                assert!(!standby.has_ended());
                if killed {
                    kill(pid, Signal::SIGKILL).unwrap();
                    while !standby.has_ended() {
                        std::thread::yield_now();
                    }
                }
                standby.dismiss();
                assert_eq!(kill(pid, None), Err(Errno::ESRCH));
            }
        }
    }
}

#[cfg(not(direct_calls))]
mod missing {
    use std::ffi::CStr;
    use std::rc::Rc;

    use nix::errno::Errno;

    use super::Places;
    use crate::sys::guard::Numbers;

    /// A standby guard. There is none where a child does not make system calls directly.
    pub struct Standby(std::convert::Infallible);

    impl Standby {
        /// Starts none.
        ///
        /// # Errors
        /// ENOSYS, always.
        pub fn start(_: &CStr, _: &Rc<Numbers>, _: Places) -> nix::Result<Self> {
            Err(Errno::ENOSYS)
        }

        /// Returns whether it has ended.
        pub fn has_ended(&self) -> bool {
            match self.0 {}
        }

        /// Kills and reaps it.
        pub fn dismiss(self) {
            match self.0 {}
        }
    }
}
