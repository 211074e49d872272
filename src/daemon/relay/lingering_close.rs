//! What follows a session: waits for the client to hang up, or closes the pipes of a job that is
//! hung up after its SIGHUP.
//!
//! Runs in the relay, in the session's thread, which holds nothing else of the session by then.
//! Must not wait for clients for ever or in unlimited number, nor long for a job.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use nix::unistd::read;

use crate::ipc::{Channel, Incoming};
use crate::sys::socket;

/// How long a client that was sent the end may take to hang up.
const LINGERING_CLOSE: Duration = Duration::from_secs(10);

/// Most threads that wait for that at the same time: to the monitor these sessions are over, and
/// its limit does not count them. Beyond it no thread waits, and a client that is still sending may
/// get a reset instead of the last record.
const AT_ONCE: usize = 256;

/// Lets the client read the last record before the socket is closed: closing it with unread bytes
/// would reset the connection. `lingering_count` counts the threads that wait here.
pub(super) fn lingering_close(connection: &OwnedFd, lingering_count: &AtomicUsize) {
    let _ = shutdown(connection.as_raw_fd(), Shutdown::Write);
    let others = lingering_count.fetch_add(1, Ordering::Relaxed);
    let patience = if others < AT_ONCE {
        LINGERING_CLOSE
    } else {
        Duration::ZERO
    };
    wait_for_end(connection, Instant::now() + patience);
    lingering_count.fetch_sub(1, Ordering::Relaxed);
}

/// How long the monitor may take to send SIGHUP.
const SIGNALLED: Duration = Duration::from_secs(5);

/// How long the pipes of a job are kept after SIGHUP, if it does not end before.
const PAUSE: Duration = Duration::from_secs(1);

/// Closes a job's pipes after the monitor has hung the job up, which it shows by closing the
/// session's channel.
///
/// Not before: a job that handles SIGHUP would die of SIGPIPE first. Not at once either: the job
/// needs a moment to handle it, and may wait for room in a full pipe. So its output is read and
/// discarded until then.
pub(super) fn after_the_hang_up(
    monitor: Channel,
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
) {
    keep_pipes(monitor, stdin, outputs, Instant::now() + SIGNALLED);
}

/// Keeps a job's pipes until the monitor has hung it up, or until this time, and a moment longer.
fn keep_pipes(
    monitor: Channel,
    stdin: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
    mut until: Instant,
) {
    let mut monitor = Some(monitor);
    // Pipes that the job still holds: each reports when the job has closed it.
    let mut input = stdin;
    let mut outputs: Vec<OwnedFd> = outputs.into_iter().flatten().collect();
    let mut bytes = vec![0; 16 * 1024];
    while monitor.is_some() || input.is_some() || !outputs.is_empty() {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
        let channel = monitor.as_ref().map(AsFd::as_fd);
        let channel = channel.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let stdin = input.as_ref().map(AsFd::as_fd);
        let stdin = stdin.map(|fd| PollFd::new(fd, PollFlags::empty()));
        let others = outputs
            .iter()
            .map(|o| PollFd::new(o.as_fd(), PollFlags::POLLIN));
        let mut fds: Vec<PollFd<'_>> = channel.into_iter().chain(stdin).chain(others).collect();
        match poll(&mut fds, timeout) {
            Ok(0) if left.is_zero() => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return,
        }
        let mut ready = fds.iter().map(|fd| fd.any().unwrap_or(false));
        let channel_is_ready = monitor.is_some() && ready.next() == Some(true);
        let input_is_over = input.is_some() && ready.next() == Some(true);
        let ready: Vec<bool> = ready.collect();
        if channel_is_ready && monitor.as_ref().is_some_and(is_at_its_end) {
            monitor = None;
            until = Instant::now() + PAUSE;
        // Check the time only after what has arrived: it may have passed while this process was
        // stopped.
        } else if left.is_zero() {
            return;
        }
        if input_is_over {
            input = None;
        }
        let mut ready = ready.into_iter();
        outputs.retain(|output| {
            ready.next() != Some(true)
                || matches!(
                    read(output, &mut bytes),
                    Ok(1..) | Err(Errno::EAGAIN | Errno::EINTR)
                )
        });
    }
}

/// Whether the monitor has closed its end. Messages that still come are ignored.
fn is_at_its_end(monitor: &Channel) -> bool {
    matches!(monitor.receive(&mut [0; 512]), Ok(Incoming::Gone) | Err(_))
}

fn wait_for_end(connection: &OwnedFd, until: Instant) {
    let mut bytes = [0; 512];
    loop {
        match socket::receive(connection.as_fd(), &mut bytes) {
            Ok(0) => return,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
                let mut fds = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
                if poll(&mut fds, timeout) == Ok(0) {
                    return;
                }
            }
            Err(_) => return,
        }
        if Instant::now() >= until {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    /// Regression test: a relay that was stopped closed the pipes at once, although the job had
    /// just been hung up and waited for room in one of them.
    #[test]
    fn pipes_stay_open_briefly_even_after_the_deadline() {
        let (monitor, theirs) = Channel::pair().unwrap();
        drop(theirs);
        let (reader, writer) = nix::unistd::pipe().unwrap();
        socket::set_nonblocking(&reader).unwrap();
        let job = std::thread::spawn(move || File::from(writer).write_all(&[0; 300_000]));
        keep_pipes(monitor, None, [Some(reader), None], Instant::now());
        job.join().unwrap().unwrap();
    }
}
