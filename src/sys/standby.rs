//! A guard that stands by: a child that shares this process's memory until this one ends, and
//! executes our own program then.
//!
//! Started by the monitor under inetd, just before a job. A fork would copy the monitor's
//! tables of pages, and add 14 % to a short command; this costs one clone(2). As a job's child
//! it makes raw system calls only ([`super::job`]): it never writes the monitor's `errno`, nor
//! anything else of its memory but its own stack. It has no descriptor, hears no signal but the
//! kernel's word that its parent is dead, and is in a session of its own. What ends all who share
//! a memory (the kernel, for want of it) ends it with the monitor: so it stands by for a short
//! time only, until a guard that was forked takes its place.

#[cfg(direct_calls)]
pub use shared::Standby;

#[cfg(not(direct_calls))]
pub use missing::Standby;

/// Where in the table the numbers stand that the program gets as its arguments.
pub struct Places {
    /// Its first argument.
    pub first: usize,
    /// Its second. If the number there is 0, there is nothing to do, and no program is executed.
    pub second: usize,
}

#[cfg(direct_calls)]
mod shared {
    use std::ffi::{CStr, CString, c_void};
    use std::ptr::{NonNull, null_mut};
    use std::rc::Rc;

    use nix::errno::Errno;
    use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
    use nix::sys::wait::{WaitPidFlag, waitpid};
    use nix::unistd::Pid;

    use super::Places;
    use crate::sys::decimal::Decimal;
    use crate::sys::guard::Numbers;
    use crate::sys::job::{Stack, calls, close_from};

    /// One that stands by. Dropped, it is killed and reaped.
    pub struct Standby {
        pid: Pid,
        lent: NonNull<Lent>,
    }

    /// What it uses of our memory, until it is reaped.
    struct Lent {
        numbers: Rc<Numbers>,
        places: Places,
        program: CString,
        name: CString,
        parent: i32,
        _stack: Stack,
    }

    impl Standby {
        /// Starts one, which executes our program under this name when this process has ended,
        /// with the numbers at these places as its arguments.
        ///
        /// # Errors
        /// No process, or no memory for its stack.
        pub fn start(name: &CStr, numbers: &Rc<Numbers>, places: Places) -> nix::Result<Self> {
            let stack = Stack::new()?;
            let top = stack.top();
            let lent = Box::new(Lent {
                numbers: Rc::clone(numbers),
                places,
                program: crate::sys::inherited::own_program(),
                name: name.to_owned(),
                parent: nix::unistd::getpid().as_raw(),
                _stack: stack,
            });
            let lent = NonNull::from(Box::leak(lent));
            // No signal at its end: nobody waits for it but whoever drops it.
            let flags = libc::CLONE_VM;
            // All stay blocked in it: its parent's end is asked for, not delivered.
            let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK);
            // SAFETY: the stack is the child's alone, and lives, as what it is lent does,
            // until it is reaped; it makes system calls only and never returns.
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
            if let Ok(before) = before {
                let _ = before.thread_set_mask();
            }
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
    }

    impl Drop for Standby {
        fn drop(&mut self) {
            let _ = kill(self.pid, Signal::SIGKILL);
            let gone = loop {
                match waitpid(self.pid, Some(WaitPidFlag::__WCLONE)) {
                    Err(Errno::EINTR) => {}
                    ended => break ended.is_ok(),
                }
            };
            // A fork of its parent's cannot wait for it, and has a copy of what it is lent.
            if gone {
                // SAFETY: made by Box::leak, and its only other user is reaped.
                drop(unsafe { Box::from_raw(self.lent.as_ptr()) });
            }
        }
    }

    /// Its first function, on its own stack.
    extern "C" fn enter(lent: *mut c_void) -> libc::c_int {
        // SAFETY: what `start` gave; nobody writes it but, by atomic stores, the numbers.
        let lent = unsafe { &*lent.cast::<Lent>() };
        calls::new_session();
        close_from(0);
        calls::set_name(c"cos: guard");
        calls::die_with_parent();
        // It may have ended before the line above; and others may send SIGHUP.
        while calls::parent() == lent.parent {
            calls::wait_for(Signal::SIGHUP);
        }
        let second = lent.numbers.get(lent.places.second);
        if second == 0 {
            calls::exit(0);
        }
        let first = Decimal::of(lent.numbers.get(lent.places.first));
        let second = Decimal::of(second);
        let argv = [
            lent.name.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            std::ptr::null(),
        ];
        let environment = [crate::sys::memory::TUNABLES.as_ptr(), std::ptr::null()];
        // SAFETY: both arrays end with a null pointer, and what they point to lives.
        unsafe { calls::execute(&lent.program, argv.as_ptr(), environment.as_ptr()) };
        calls::exit(127)
    }
}

#[cfg(not(direct_calls))]
mod missing {
    use std::ffi::CStr;
    use std::rc::Rc;

    use nix::errno::Errno;

    use super::Places;
    use crate::sys::guard::Numbers;

    /// One that stands by, which there is not where a child makes no system calls itself.
    pub struct Standby {
        _none: std::convert::Infallible,
    }

    impl Standby {
        /// Starts none.
        ///
        /// # Errors
        /// Always: there is no such thing here.
        pub fn start(_: &CStr, _: &Rc<Numbers>, _: Places) -> nix::Result<Self> {
            Err(Errno::ENOSYS)
        }
    }
}
