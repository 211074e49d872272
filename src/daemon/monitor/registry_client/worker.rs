//! The registry worker as the monitor sees it, and the questions that it has not answered. Runs in
//! the monitor.
//!
//! The worker answers looks and writes in two threads (`registry::process`), each kind in the order
//! of its questions. Must not wait for it, except while the daemon starts.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use mio::Registry;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use zeroize::Zeroizing;

use super::super::event_source;
use super::{Ticket, TicketAnswer};
use crate::fault::Fault;
use crate::ipc::gate::Connection;
use crate::ipc::watch::Watch;
use crate::ipc::{Channel, Incoming};
use crate::registry::asked::{Answer, MESSAGE, Question};
use crate::registry::process as registry_process;
use crate::sys::oom::OomPriority;
use crate::sys::process;

/// How long a worker may check whether the files are sound: a million machines take a second on a
/// fast disk.
const STARTING: Duration = Duration::from_secs(120);

/// How long a read of the registry may take. A reader waits for no lock: this is for a folder that
/// hangs.
const LOOKING: Duration = Duration::from_secs(8);

/// How long a write may take from its turn on: it waits up to 5 s for the lock, and `cos` waits 30
/// s for an answer.
pub(super) const WRITING: Duration = Duration::from_secs(20);

/// How long the worker stays without questions.
const IDLE: Duration = Duration::from_secs(60);

/// A question that was asked.
struct SentQuestion {
    ticket: Ticket,
    connection: Option<Connection>,
    question: Zeroizing<Vec<u8>>,
    until: Instant,
    /// It was asked before, of a process that has ended.
    again: bool,
}

impl SentQuestion {
    /// Returns a failure as its answer.
    fn failed(self, why: &str) -> TicketAnswer {
        TicketAnswer {
            connection: self.connection,
            ticket: self.ticket,
            answer: Answer::Fault(why.to_owned()),
        }
    }
}

/// The questions that have no answer yet.
#[derive(Default)]
pub(super) struct Unanswered {
    /// All of them were sent.
    looks: VecDeque<SentQuestion>,
    /// Only the first was sent, so that those of a peer that leaves can be dropped.
    writes: VecDeque<SentQuestion>,
}

impl Unanswered {
    /// Returns the deadline of the next answer.
    fn due(&self) -> Option<Instant> {
        let first = [self.looks.front(), self.writes.front()];
        first.into_iter().flatten().map(|a| a.until).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due().is_none()
    }

    /// Fails all questions. Returns the answers.
    pub(super) fn fail(&mut self, why: &str) -> Vec<TicketAnswer> {
        let all = self.looks.drain(..).chain(self.writes.drain(..));
        all.map(|a| a.failed(why)).collect()
    }

    /// Fails questions of a worker that has ended, and returns their answers. The others may be
    /// asked again.
    ///
    /// If a look is late, all looks fail, since what delays one delays the others. The same applies
    /// to writes. Of a kind that is not late, only the first fails, and only if it was asked
    /// before: it may have ended the worker, while the others may have nothing to do with its end.
    pub(super) fn fail_some(&mut self, now: Instant) -> Vec<TicketAnswer> {
        let mut told = Vec::new();
        for kind in [&mut self.looks, &mut self.writes] {
            let first = kind.front();
            if first.is_some_and(|a| a.until <= now) {
                let late = "the registry did not answer in time";
                told.extend(kind.drain(..).map(|a| a.failed(late)));
            } else if first.is_some_and(|a| a.again) {
                // The first time, the worker may have ended because the inner door was moved.
                let first = kind.pop_front();
                told.extend(first.map(|a| a.failed("the registry process has died twice")));
            }
        }
        told
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
    unanswered: Unanswered,
    idle_until: Option<Instant>,
}

impl RegistryWorker {
    fn of(pid: Pid, channel: Channel) -> Self {
        Self {
            pid,
            channel,
            watch: None,
            began: false,
            without: Vec::new(),
            unanswered: Unanswered::default(),
            idle_until: None,
        }
    }

    fn launch(settings: &Path, poll: Option<&Registry>) -> Result<Self, Fault> {
        let (channel, theirs) = Channel::pair()?;
        // Before there is a process, which would otherwise have to be killed and reaped.
        let watch = poll.map(|poll| Watch::new(poll, &channel, event_source::REGISTRY_WORKER));
        let watch = watch.transpose()?;
        let pid = process::again("cosserver: registry", theirs.as_fd(), OomPriority::Original)?;
        let starts = watch.is_none();
        let mut worker = Self::of(pid, channel);
        worker.watch = watch;
        match worker
            .channel
            .send(registry_process::begin(settings, starts), Vec::new())
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
        let mut worker = Self::launch(settings, None)?;
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
            drop(self.handle_messages(Instant::now())?);
        }
        Ok(())
    }

    /// Starts a worker for a running daemon: it reports when it is ready.
    ///
    /// # Errors
    /// Fails if no process is available.
    pub(super) fn start(poll: &Registry, settings: &Path) -> Result<Self, Fault> {
        Self::launch(settings, Some(poll))
    }

    /// Watches for writability while questions wait.
    pub(super) fn watch_unsent(&mut self, poll: &Registry) {
        if let Some(watch) = &mut self.watch {
            // If that fails, they are sent when its next answer comes, or time out.
            let _ = watch.update(poll, &self.channel);
        }
    }

    /// Asks it a question.
    pub(super) fn ask(
        &mut self,
        ticket: Ticket,
        connection: Option<Connection>,
        question: &Question,
        now: Instant,
    ) {
        let Unanswered { looks, writes } = &mut self.unanswered;
        let (kind, within, is_sent_now) = match question {
            Question::Look(_) => (looks, LOOKING, true),
            Question::Introduce(..)
            | Question::Visited(_)
            | Question::Register(..)
            | Question::Activate(..) => {
                let is_first = writes.is_empty();
                (writes, WRITING, is_first)
            }
        };
        let asked = SentQuestion {
            ticket,
            connection,
            question: Zeroizing::new(question.encode(ticket)),
            until: now + within,
            again: false,
        };
        if is_sent_now {
            send(&mut self.channel, &asked);
        }
        kind.push_back(asked);
        self.idle_until = Some(now + IDLE);
    }

    /// Asks it the questions that another worker has not answered. Their deadlines remain.
    pub(super) fn ask_again(&mut self, unanswered: Unanswered, now: Instant) {
        self.unanswered = unanswered;
        let Unanswered { looks, writes } = &mut self.unanswered;
        for asked in looks.iter_mut().chain(writes.front_mut()) {
            asked.again = true;
            send(&mut self.channel, asked);
        }
        self.idle_until = Some(now + IDLE);
    }

    /// Drops the writes of a connection whose peer has left, if they were not sent yet.
    pub(super) fn forget(&mut self, connection: Connection) {
        let mut is_sent = true;
        self.unanswered
            .writes
            .retain(|asked| std::mem::take(&mut is_sent) || asked.connection != Some(connection));
    }

    /// Returns its messages; `None`: there are none now.
    ///
    /// # Errors
    /// Fails if it is gone, sends something out of turn, or cannot open the registry.
    pub(super) fn handle_messages(
        &mut self,
        now: Instant,
    ) -> Result<Option<Vec<TicketAnswer>>, Fault> {
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
        if let (registry_process::WITHOUT, Answer::Fault(why), true) = (ticket, &answer, may_note) {
            self.without.push(Fault::new(why));
            return Ok(Some(Vec::new()));
        }
        if ticket == 0 && !self.began {
            self.began = true;
            return match answer {
                Answer::Fault(why) if self.unanswered.is_empty() => Err(Fault::new(why)),
                // It ends now: all that wait get the reason.
                Answer::Fault(why) => Ok(Some(self.unanswered.fail(&why))),
                Answer::Done | Answer::MachineStatus(_) | Answer::RegistrationOutcome(_) => {
                    Ok(Some(Vec::new()))
                }
            };
        }
        let Unanswered { looks, writes } = &mut self.unanswered;
        let is_first =
            |kind: &VecDeque<SentQuestion>| kind.front().is_some_and(|a| a.ticket == ticket);
        let asked = if is_first(looks) {
            looks.pop_front()
        } else if is_first(writes) {
            let asked = writes.pop_front();
            if let Some(next) = writes.front_mut() {
                // The time of a write begins when it is its turn.
                next.until = now + WRITING;
                send(&mut self.channel, next);
            }
            asked
        } else {
            None
        };
        let asked = asked.ok_or_else(wrong)?;
        self.idle_until = Some(now + IDLE);
        Ok(Some(vec![TicketAnswer {
            connection: asked.connection,
            ticket,
            answer,
        }]))
    }

    /// Returns how many looks it has not answered.
    pub(super) fn looks(&self) -> usize {
        self.unanswered.looks.len()
    }

    /// Returns how many writes it has not answered.
    pub(super) fn writes(&self) -> usize {
        self.unanswered.writes.len()
    }

    /// Takes the questions that it has not answered.
    pub(super) fn take_unanswered(&mut self) -> Unanswered {
        std::mem::take(&mut self.unanswered)
    }

    /// Returns the deadline of its next answer, or until when it stays without a question.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.unanswered.due().or(self.idle_until)
    }

    /// Whether an answer is late.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.unanswered.due().is_some_and(|until| until <= now)
    }

    /// Whether it has been idle for long.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.unanswered.is_empty() && self.idle_until.is_some_and(|until| until <= now)
    }

    /// Kills it. Returns its process ID, to be reaped.
    pub(super) fn discard(self) -> Pid {
        process::signal(self.pid, Signal::SIGKILL);
        self.pid
    }
}

/// Sends a question. If the worker is dead, the end of its channel follows, and the next worker is
/// asked.
fn send(channel: &mut Channel, asked: &SentQuestion) {
    let _ = channel.send(asked.question.to_vec(), Vec::new());
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::registry::Id;
    use crate::sys::forked::Forked;

    /// Returns a registry worker that runs this with its end of the channel instead.
    pub(in super::super) fn forked(work: impl FnOnce(Channel)) -> RegistryWorker {
        let (ours, theirs) = Channel::pair().unwrap();
        let child = Forked::start(|| work(Channel::new(theirs))).unwrap();
        RegistryWorker::of(child.pid, ours)
    }

    /// Endless notes about faults once delayed the daemon's start forever.
    #[test]
    fn registry_worker_that_keeps_sending_does_not_delay_the_start() {
        const LIMIT: Duration = Duration::from_millis(200);
        const TALKS: Duration = Duration::from_secs(5);
        let begun = Instant::now();
        let mut worker = forked(|mut channel| {
            let note = Answer::Fault("x".into()).encode(registry_process::WITHOUT);
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
            let note = Answer::Fault("x".into()).encode(registry_process::WITHOUT);
            channel.deliver(note.to_vec(), STARTING).unwrap();
        });
        let watch = Watch::new(
            poll.registry(),
            &worker.channel,
            event_source::REGISTRY_WORKER,
        );
        worker.watch = Some(watch.unwrap());
        assert!(worker.channel.wait_until(until).unwrap());
        assert!(worker.handle_messages(until).is_err());
        waitpid(worker.discard(), None).unwrap();
    }

    const LOOK: Question = Question::Look(Id([1; 16]));
    const WRITE: Question = Question::Visited(Id([2; 16]));

    /// Asks questions with tickets from 1 on.
    fn ask_all(worker: &mut RegistryWorker, questions: &[Question], now: Instant) {
        for (ticket, question) in (1..).zip(questions) {
            worker.ask(ticket, Some(7), question, now);
        }
    }

    fn tickets(told: &[TicketAnswer]) -> Vec<Ticket> {
        told.iter().map(|t| t.ticket).collect()
    }

    /// The worker gets the second write only after it has answered the first.
    #[test]
    fn looks_are_sent_and_answered_beside_a_write() {
        let now = Instant::now();
        let mut worker = forked(|mut channel| {
            let mut buffer = vec![0; MESSAGE];
            let mut next = |channel: &Channel| match channel.receive_until(&mut buffer, now + IDLE)
            {
                Ok(Incoming::Message(message, _)) => Question::decode(&message).map(|q| q.0),
                _ => None,
            };
            let got = [next(&channel), next(&channel), next(&channel)];
            if got == [Some(1), Some(3), Some(4)] {
                for ticket in [3, 1] {
                    channel.deliver(Answer::Done.encode(ticket), IDLE).unwrap();
                }
                if let Some(ticket) = next(&channel) {
                    channel.deliver(Answer::Done.encode(ticket), IDLE).unwrap();
                }
            }
        });
        worker.began = true;
        ask_all(&mut worker, &[WRITE, WRITE, LOOK, LOOK], now);
        for ticket in [3, 1, 2] {
            assert!(worker.channel.wait_until(now + IDLE).unwrap());
            let told = worker.handle_messages(now).unwrap().unwrap();
            assert_eq!(tickets(&told), [ticket]);
        }
        assert_eq!((worker.writes(), worker.unanswered.looks.len()), (0, 1));
        waitpid(worker.discard(), None).unwrap();
    }

    #[test]
    fn late_questions_fail_and_those_of_the_other_kind_are_asked_again_once() {
        let now = Instant::now();
        let mut worker = forked(|_| ());
        ask_all(&mut worker, &[LOOK, WRITE, LOOK, WRITE], now);
        assert_eq!(worker.deadline(), Some(now + LOOKING));
        let mut left = worker.take_unanswered();
        assert_eq!(tickets(&left.fail_some(now + LOOKING)), [1, 3]);
        // Another worker dies at once.
        worker.ask_again(left, now);
        assert_eq!(worker.deadline(), Some(now + WRITING));
        let mut left = worker.take_unanswered();
        assert_eq!(tickets(&left.fail_some(now)), [2]);
        assert_eq!(tickets(&left.fail_some(now + WRITING)), [4]);
        assert!(left.is_empty());
        waitpid(worker.discard(), None).unwrap();
    }

    #[test]
    fn questions_of_a_peer_that_left_are_dropped_unless_they_were_sent() {
        let now = Instant::now();
        let mut worker = forked(|_| ());
        ask_all(&mut worker, &[WRITE, LOOK, WRITE, WRITE], now);
        worker.forget(8);
        assert_eq!(worker.writes(), 3);
        worker.forget(7);
        assert_eq!(tickets(&worker.unanswered.fail("")), [2, 1]);
        waitpid(worker.discard(), None).unwrap();
    }
}
