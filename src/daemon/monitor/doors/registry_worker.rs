//! One registry worker as the monitor sees it, and its questions, in the order in which it will
//! answer. Runs in the monitor.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::{Registry, Token};
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::registry_client::{Ticket, Told};
use crate::fault::Fault;
use crate::ipc::gate::Connection;
use crate::ipc::watch::Watch;
use crate::ipc::{Channel, Incoming};
use crate::registry::asked::{Answer, MESSAGE};
use crate::registry::process as door;
use crate::sys::oom::OomPriority;
use crate::sys::process;

/// How long a worker may check whether the files are sound: a million machines take a second on a
/// fast disk.
const STARTING: Duration = Duration::from_secs(120);

/// A question that was asked.
pub(super) struct Asked {
    ticket: Ticket,
    whose: Option<Connection>,
    question: Zeroizing<Vec<u8>>,
    pub(super) until: Instant,
    /// It was asked before, of a process that has ended.
    pub(super) again: bool,
}

impl Asked {
    /// Returns a failure as its answer.
    pub(super) fn failed(self, why: &str) -> Told {
        Told {
            whose: self.whose,
            ticket: self.ticket,
            answer: Answer::Fault(why.to_owned()),
        }
    }
}

/// A registry worker.
pub(super) struct RegistryWorker {
    pid: Pid,
    channel: Channel,
    /// Set if it is registered with the event loop.
    watch: Option<Watch>,
    /// Whether it has reported that the registry is open.
    began: bool,
    /// The faults despite which the daemon starts.
    without: Vec<Fault>,
    waiting: VecDeque<Asked>,
    /// How many of these it has been sent, and how many it may be sent at a time.
    sent: usize,
    at_a_time: usize,
    idle_until: Option<Instant>,
}

impl RegistryWorker {
    fn of(pid: Pid, channel: Channel, at_a_time: usize) -> Self {
        Self {
            pid,
            channel,
            watch: None,
            began: false,
            without: Vec::new(),
            waiting: VecDeque::new(),
            sent: 0,
            at_a_time,
            idle_until: None,
        }
    }

    fn launch(
        settings: &Path,
        watched: Option<(&Registry, Token)>,
        at_a_time: usize,
    ) -> Result<Self, Fault> {
        let (channel, theirs) = Channel::pair()?;
        // Before there is a process, which would otherwise have to be killed and reaped.
        let watch =
            watched.map(|(registry, event_source)| Watch::new(registry, &channel, event_source));
        let watch = watch.transpose()?;
        let pid = process::again("cosserver: door", theirs.as_fd(), OomPriority::Original)?;
        let starts = watch.is_none();
        let mut worker = Self::of(pid, channel, at_a_time);
        worker.watch = watch;
        match worker
            .channel
            .send(door::begin(settings, starts), Vec::new())
        {
            Ok(()) => Ok(worker),
            Err(e) => {
                let _ = waitpid(worker.discard(), None);
                Err(e)
            }
        }
    }

    /// Runs a worker that checks whether the registry is sound, for a daemon that starts, and then
    /// ends. Returns the faults despite which the daemon starts.
    ///
    /// # Errors
    /// Fails if the registry is not sound, or if no process is available.
    pub(super) fn check(settings: &Path) -> Result<Vec<Fault>, Fault> {
        let mut worker = Self::launch(settings, None, 0)?;
        let until = Instant::now() + STARTING;
        let checked = worker.wait_for_the_beginning(until);
        let without = std::mem::take(&mut worker.without);
        let pid = worker.discard();
        // A process blocked in disk I/O may not even die.
        if Instant::now() < until {
            let _ = waitpid(pid, None);
        }
        checked.map(|()| without)
    }

    fn wait_for_the_beginning(&mut self, until: Instant) -> Result<(), Fault> {
        while !self.began {
            if !self.channel.wait_until(until)? {
                return Err(Fault::new("timed out while checking the machine registry"));
            }
            drop(self.hear(until)?);
        }
        Ok(())
    }

    /// Starts a worker for a running daemon: it reports when it is ready.
    ///
    /// # Errors
    /// Fails if no process is available.
    pub(super) fn start(
        registry: &Registry,
        settings: &Path,
        event_source: Token,
        at_a_time: usize,
    ) -> Result<Self, Fault> {
        Self::launch(settings, Some((registry, event_source)), at_a_time)
    }

    /// Watches for writability while questions wait.
    pub(super) fn watch_unsent(&mut self, registry: &Registry) {
        if let Some(watch) = &mut self.watch {
            // If that fails, they are sent when its next answer comes, or time out.
            let _ = watch.update(registry, &self.channel);
        }
    }

    /// Asks it a question.
    pub(super) fn ask(
        &mut self,
        ticket: Ticket,
        whose: Option<Connection>,
        question: Vec<u8>,
        until: Instant,
        idle_until: Instant,
    ) {
        let asked = Asked {
            ticket,
            whose,
            question: Zeroizing::new(question),
            until,
            again: false,
        };
        self.ask_again(asked, idle_until);
    }

    /// Asks it a question that another worker has not answered.
    pub(super) fn ask_again(&mut self, asked: Asked, idle_until: Instant) {
        self.waiting.push_back(asked);
        self.idle_until = Some(idle_until);
        self.send();
    }

    /// Sends it as many questions as it may have now.
    fn send(&mut self) {
        while self.sent < self.at_a_time {
            let Some(asked) = self.waiting.get(self.sent) else {
                return;
            };
            // If it is dead, the end of its channel follows, and the next worker is asked.
            let _ = self.channel.send(asked.question.to_vec(), Vec::new());
            self.sent += 1;
        }
    }

    /// Drops the questions of a connection whose peer has left, if they were not sent yet.
    pub(super) fn forget(&mut self, connection: Connection) {
        let mut at = 0;
        let sent = self.sent;
        self.waiting.retain(|asked| {
            at += 1;
            at <= sent || asked.whose != Some(connection)
        });
    }

    /// Returns its messages; `None`: there are none now.
    ///
    /// # Errors
    /// Fails if it is gone, sends something out of turn, or cannot open the registry.
    pub(super) fn hear(&mut self, idle_until: Instant) -> Result<Option<Vec<Told>>, Fault> {
        let mut buffer = vec![0; MESSAGE];
        self.channel.flush()?;
        let message = match self.channel.receive(&mut buffer)? {
            Incoming::Message(message, _) => message,
            Incoming::Nothing => return Ok(None),
            Incoming::Gone => return Err(Fault::new("the registry process has died")),
        };
        let wrong = || Fault::new("an unexpected message from the registry process");
        let (ticket, answer) = Answer::decode(&message).ok_or_else(wrong)?;
        // Only during the start, which has a time limit: the event loop would handle notes forever.
        let may_note = !self.began && self.watch.is_none();
        if let (door::WITHOUT, Answer::Fault(why), true) = (ticket, &answer, may_note) {
            self.without.push(Fault::new(why));
            return Ok(Some(Vec::new()));
        }
        if ticket == 0 && !self.began {
            self.began = true;
            return match answer {
                Answer::Fault(why) if self.waiting.is_empty() => Err(Fault::new(why)),
                // It ends now: all that wait get the reason.
                Answer::Fault(why) => {
                    let waiting = self.take_waiting();
                    Ok(Some(waiting.into_iter().map(|a| a.failed(&why)).collect()))
                }
                Answer::Done | Answer::MachineStatus(_) | Answer::RegistrationOutcome(_) => {
                    Ok(Some(Vec::new()))
                }
            };
        }
        let asked = self.waiting.pop_front().filter(|a| a.ticket == ticket);
        let asked = asked.ok_or_else(wrong)?;
        self.sent = self.sent.saturating_sub(1);
        self.idle_until = Some(idle_until);
        self.send();
        Ok(Some(vec![Told {
            whose: asked.whose,
            ticket,
            answer,
        }]))
    }

    /// Returns how many questions it has not answered.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the questions that it has not answered.
    pub(super) fn take_waiting(&mut self) -> VecDeque<Asked> {
        self.sent = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Returns the deadline of its next answer.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|a| a.until)
    }

    /// Whether an answer is late.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.due().is_some_and(|until| until <= now)
    }

    /// Returns until when it stays without a question.
    pub(super) const fn idle_until(&self) -> Option<Instant> {
        self.idle_until
    }

    /// Whether it has been idle for long.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.waiting.is_empty() && self.idle_until.is_some_and(|until| until <= now)
    }

    /// Kills it. Returns its process ID, to be reaped.
    pub(super) fn discard(self) -> Pid {
        process::signal(self.pid, Signal::SIGKILL);
        self.pid
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::forked::Forked;

    /// Returns a registry worker that runs this with its end of the channel instead.
    pub(in super::super) fn forked(work: impl FnOnce(Channel)) -> RegistryWorker {
        let (ours, theirs) = Channel::pair().unwrap();
        let child = Forked::start(|| work(Channel::new(theirs))).unwrap();
        RegistryWorker::of(child.pid, ours, 1)
    }

    /// Endless notes about faults once delayed the daemon's start forever.
    #[test]
    fn registry_worker_that_keeps_sending_does_not_delay_the_start() {
        const LIMIT: Duration = Duration::from_millis(200);
        const TALKS: Duration = Duration::from_secs(5);
        let begun = Instant::now();
        let mut worker = forked(|mut channel| {
            let note = Answer::Fault("x".into()).encode(door::WITHOUT);
            while begun.elapsed() < TALKS && channel.deliver(note.to_vec(), TALKS).is_ok() {}
        });
        assert!(worker.wait_for_the_beginning(begun + LIMIT).is_err());
        assert!(begun.elapsed() < TALKS);
        waitpid(worker.discard(), None).unwrap();
    }

    /// The event loop would handle them for as long as they come.
    #[test]
    fn note_to_a_running_daemon_is_a_protocol_error() {
        let poll = mio::Poll::new().unwrap();
        let until = Instant::now() + STARTING;
        let mut worker = forked(|mut channel| {
            let note = Answer::Fault("x".into()).encode(door::WITHOUT);
            channel.deliver(note.to_vec(), STARTING).unwrap();
        });
        let watch = Watch::new(poll.registry(), &worker.channel, Token(1));
        worker.watch = Some(watch.unwrap());
        assert!(worker.channel.wait_until(until).unwrap());
        assert!(worker.hear(until).is_err());
        waitpid(worker.discard(), None).unwrap();
    }
}
