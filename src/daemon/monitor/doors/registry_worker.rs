//! One door process as the monitor sees it: what it was asked, in the order in which it
//! will answer.

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

/// How long one may look whether the files are sound: a million machines take a
/// second on a quick disk.
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
    /// Nobody has answered it.
    pub(super) fn failed(self, why: &str) -> Told {
        Told {
            whose: self.whose,
            ticket: self.ticket,
            answer: Answer::Fault(why.to_owned()),
        }
    }
}

/// A door process.
pub(super) struct RegistryWorker {
    pid: Pid,
    channel: Channel,
    /// In the event loop, where it is.
    watch: Option<Watch>,
    /// Whether it has said that the doors are open.
    began: bool,
    /// What the daemon starts without.
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
        // Before there is a process, which would else have to be killed and reaped.
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

    /// One for a daemon that starts: it looks whether the doors are sound, and has ended
    /// then. What of them the daemon starts without.
    ///
    /// # Errors
    /// They are not, or there is no process to be had.
    pub(super) fn check(settings: &Path) -> Result<Vec<Fault>, Fault> {
        let mut worker = Self::launch(settings, None, 0)?;
        let until = Instant::now() + STARTING;
        let checked = worker.wait_for_the_beginning(until);
        let without = std::mem::take(&mut worker.without);
        let pid = worker.discard();
        // One that hangs at its disk may not even die.
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

    /// One for a daemon that runs: it says itself when it is ready.
    ///
    /// # Errors
    /// There is no process to be had.
    pub(super) fn start(
        registry: &Registry,
        settings: &Path,
        event_source: Token,
        at_a_time: usize,
    ) -> Result<Self, Fault> {
        Self::launch(settings, Some((registry, event_source)), at_a_time)
    }

    /// Watches for room while questions wait for it.
    pub(super) fn watch_unsent(&mut self, registry: &Registry) {
        if let Some(watch) = &mut self.watch {
            // Without it they go with its next answer, or are late.
            let _ = watch.update(registry, &self.channel);
        }
    }

    /// Asks it.
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

    /// Asks it what another has not answered.
    pub(super) fn ask_again(&mut self, asked: Asked, idle_until: Instant) {
        self.waiting.push_back(asked);
        self.idle_until = Some(idle_until);
        self.send();
    }

    /// Sends it what it may be sent now.
    fn send(&mut self) {
        while self.sent < self.at_a_time {
            let Some(asked) = self.waiting.get(self.sent) else {
                return;
            };
            // Should it be dead, its channel's end comes, and this is asked of the next.
            let _ = self.channel.send(asked.question.to_vec(), Vec::new());
            self.sent += 1;
        }
    }

    /// Somebody has left: what he asked, and it was not sent yet, is not asked.
    pub(super) fn forget(&mut self, connection: Connection) {
        let mut at = 0;
        let sent = self.sent;
        self.waiting.retain(|asked| {
            at += 1;
            at <= sent || asked.whose != Some(connection)
        });
    }

    /// What it says; `None`: nothing now.
    ///
    /// # Errors
    /// It is gone, or speaks out of turn, or the doors cannot be opened.
    pub(super) fn hear(&mut self, idle_until: Instant) -> Result<Option<Vec<Told>>, Fault> {
        let mut buffer = vec![0; MESSAGE];
        self.channel.flush()?;
        let message = match self.channel.receive(&mut buffer)? {
            Incoming::Message(message, _) => message,
            Incoming::Nothing => return Ok(None),
            Incoming::Gone => return Err(Fault::new("the door process has died")),
        };
        let wrong = || Fault::new("the door process spoke out of turn");
        let (ticket, answer) = Answer::decode(&message).ok_or_else(wrong)?;
        // Only while somebody waits with a time limit: the event loop would hear notes for ever.
        let may_note = !self.began && self.watch.is_none();
        if let (door::WITHOUT, Answer::Fault(why), true) = (ticket, &answer, may_note) {
            self.without.push(Fault::new(why));
            return Ok(Some(Vec::new()));
        }
        if ticket == 0 && !self.began {
            self.began = true;
            return match answer {
                Answer::Fault(why) if self.waiting.is_empty() => Err(Fault::new(why)),
                // It ends now: whoever waits hears why.
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

    /// How many questions it has not answered.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Gives back what it has not answered.
    pub(super) fn take_waiting(&mut self) -> VecDeque<Asked> {
        self.sent = 0;
        std::mem::take(&mut self.waiting)
    }

    /// When its next answer must be here.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.front().map(|a| a.until)
    }

    /// Whether an answer is late.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.due().is_some_and(|until| until <= now)
    }

    /// Until when it stays without a question.
    pub(super) const fn idle_until(&self) -> Option<Instant> {
        self.idle_until
    }

    /// Whether it has had nothing to do for long.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.waiting.is_empty() && self.idle_until.is_some_and(|until| until <= now)
    }

    /// Makes sure that it is dead. Its number, to be reaped.
    pub(super) fn discard(self) -> Pid {
        process::signal(self.pid, Signal::SIGKILL);
        self.pid
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::forked::Forked;

    /// A door process that does this with its end of the channel instead.
    pub(in super::super) fn forked(work: impl FnOnce(Channel)) -> RegistryWorker {
        let (ours, theirs) = Channel::pair().unwrap();
        let child = Forked::start(|| work(Channel::new(theirs))).unwrap();
        RegistryWorker::of(child.pid, ours, 1)
    }

    /// Notes of what the daemon starts without, one after another, once held its start for ever.
    #[test]
    fn a_door_process_that_never_stops_talking_holds_up_no_start() {
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

    /// The event loop would hear them for as long as they come.
    #[test]
    fn notes_to_a_daemon_that_runs_are_out_of_turn() {
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
