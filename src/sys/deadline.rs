//! Kills this process at a deadline, whatever it does: for third-party code that may hang where no
//! other process supervises it.

use std::time::Duration;

use crate::fault::Fault;

/// Kills this process when its time is up, unless dropped before. No child inherits it.
pub struct Deadline {
    #[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"))]
    _timer: nix::sys::timer::Timer,
}

#[cfg(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd"))]
impl Deadline {
    /// Starts the timer.
    ///
    /// # Errors
    /// The system has no timer left.
    pub fn after(time: Duration) -> Result<Self, Fault> {
        use nix::sys::signal::{SigEvent, SigevNotify, Signal};
        use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
        let notify = SigevNotify::SigevSignal {
            signal: Signal::SIGKILL,
            si_value: 0,
        };
        let mut timer = Timer::new(nix::time::ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
        let once = Expiration::OneShot(time.into());
        timer.set(once, TimerSetTimeFlags::empty())?;
        Ok(Self { _timer: timer })
    }
}

/// On other systems by alarm(2), which a module may replace by its own.
#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd")))]
impl Deadline {
    /// Starts the timer.
    ///
    /// # Errors
    /// Never.
    pub fn after(time: Duration) -> Result<Self, Fault> {
        let seconds = u32::try_from(time.as_secs().max(1)).unwrap_or(u32::MAX);
        nix::unistd::alarm::set(seconds);
        Ok(Self {})
    }
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd", target_os = "netbsd")))]
impl Drop for Deadline {
    fn drop(&mut self) {
        nix::unistd::alarm::cancel();
    }
}
