//! Where the doors are asked. Who stands looks by himself where that keeps nobody waiting,
//! and else asks two processes of his, one that looks and one that registers; under inetd,
//! where there is nobody else, it is all done right here.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mio::Registry;
use nix::unistd::Pid;

use super::super::event_source;
use super::registry_worker::RegistryWorker;
use crate::config::paths::Paths;
use crate::daemon::monitor::event_source::WorkerKind;
use crate::fault::Fault;
use crate::ipc::gate::Connection;
use crate::registry::asked::{Answer, Question};
use crate::registry::{Doors, Id, NonblockingReader, process};

/// A question's number; a number is never used twice.
pub(in super::super) type Ticket = u64;

/// How long a look at the doors may take: longer than one waits for another who writes.
const LOOKING: Duration = Duration::from_secs(8);

/// The same of what is written, behind others: `cos` waits 30 s for an answer.
const WRITING: Duration = Duration::from_secs(20);

/// How long a process stays when there is nothing to be done.
const IDLE: Duration = Duration::from_secs(60);

/// Notes that nobody waits for: beyond so many none is taken.
const NOTES: usize = 64;

/// What asking came to.
pub(in super::super) enum Asked {
    /// The answer.
    Now(Answer),
    /// It will come, with this number.
    Later(Ticket),
}

/// An answer, and whose it is.
pub(in super::super) struct Told {
    pub(in super::super) whose: Option<Connection>,
    pub(in super::super) ticket: Ticket,
    pub(in super::super) answer: Answer,
}

/// Where the doors are asked.
pub(in super::super) enum RegistryClient {
    /// Here; and what is to be written down when the one connection is over.
    Here(Box<Doors>, Vec<Question>),
    /// By processes of their own.
    Apart(Box<Apart>),
}

/// Own eyes, and the two processes.
pub(in super::super) struct Apart {
    settings: PathBuf,
    eyes: NonblockingReader,
    looks: Option<RegistryWorker>,
    writes: Option<RegistryWorker>,
    next: Ticket,
}

impl RegistryClient {
    /// For a daemon that stands: the doors are opened, and must be sound. What of them it
    /// starts without is the second.
    ///
    /// # Errors
    /// They are not, or there is no process to be had.
    pub(in super::super) fn apart(paths: &Paths) -> Result<(Self, Vec<Fault>), Fault> {
        let settings = paths.settings();
        let without = RegistryWorker::check(&settings)?;
        let registry_client = Self::Apart(Box::new(Apart {
            settings,
            eyes: NonblockingReader::of(paths),
            looks: None,
            writes: None,
            next: 1,
        }));
        Ok((registry_client, without))
    }

    /// For inetd's one connection.
    ///
    /// # Errors
    /// What was never made cannot be made now.
    pub(in super::super) fn here(paths: &Paths) -> Result<Self, Fault> {
        Doors::make_first(paths)?;
        Ok(Self::Here(Box::new(Doors::of(paths)), Vec::new()))
    }

    /// A question will come, when the peer has computed its part: under inetd the files
    /// are opened meanwhile.
    pub(in super::super) fn prepare(&mut self) {
        if let Self::Here(doors, _) = self {
            doors.prepare();
        }
    }

    /// Under inetd: whether a machine is excluded now.
    pub(in super::super) fn is_excluded(&mut self, id: Id) -> bool {
        match self {
            Self::Here(doors, _) => doors.look(id).is_ok_and(|status| status.excluded),
            Self::Apart(_) => false,
        }
    }

    /// Asks.
    ///
    /// # Errors
    /// There is no process to be had.
    pub(in super::super) fn ask(
        &mut self,
        registry: &Registry,
        whose: Option<Connection>,
        question: Question,
        now: Instant,
    ) -> Result<Asked, Fault> {
        match self {
            Self::Here(doors, _) => Ok(Asked::Now(process::answer(doors, question))),
            Self::Apart(apart) => {
                if let Question::Look(id) = question {
                    if let Some(status) = apart.eyes.look(id) {
                        return Ok(Asked::Now(Answer::MachineStatus(Box::new(status))));
                    }
                }
                apart.ask(registry, whose, &question, now).map(Asked::Later)
            }
        }
    }

    /// Has something written down that nobody waits for.
    ///
    /// # Errors
    /// There is no process to be had.
    pub(super) fn note(
        &mut self,
        registry: &Registry,
        question: Question,
        now: Instant,
    ) -> Result<(), Fault> {
        match self {
            Self::Here(_, notes) => notes.push(question),
            Self::Apart(apart) => {
                let waiting = apart.writes.as_ref().map_or(0, RegistryWorker::waiting);
                if waiting < NOTES {
                    apart.ask(registry, None, &question, now)?;
                }
            }
        }
        Ok(())
    }

    /// Writes down what was left for the end; what that came to. Adds the processes, which are
    /// killed, to the unreaped: one that hangs at its disk may not even die.
    pub(in super::super) fn finish(&mut self, unreaped: &mut Vec<Pid>) -> Vec<Answer> {
        let mut all = Vec::new();
        match self {
            Self::Here(doors, notes) => {
                let notes = std::mem::take(notes).into_iter();
                all.extend(notes.map(|note| process::answer(doors, note)));
            }
            Self::Apart(apart) => {
                let both = [apart.looks.take(), apart.writes.take()];
                unreaped.extend(both.into_iter().flatten().map(RegistryWorker::discard));
            }
        }
        all
    }

    /// One of the processes has something to say.
    pub(in super::super) fn hear(
        &mut self,
        registry: &Registry,
        which: WorkerKind,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<Told> {
        match self {
            Self::Apart(apart) => apart.hear(registry, which, unreaped, now),
            Self::Here(..) => Vec::new(),
        }
    }

    /// Watches the processes for room while questions wait for it.
    pub(in super::super) fn watch_unsent(&mut self, registry: &Registry) {
        if let Self::Apart(apart) = self {
            for worker in [&mut apart.looks, &mut apart.writes].into_iter().flatten() {
                worker.watch_unsent(registry);
            }
        }
    }

    /// Somebody has left.
    pub(in super::super) fn forget(&mut self, connection: Connection) {
        if let Self::Apart(apart) = self {
            if let Some(writes) = &mut apart.writes {
                writes.forget(connection);
            }
        }
    }

    /// What must have been answered by now is not; and a process that is idle ends.
    pub(in super::super) fn tend(
        &mut self,
        registry: &Registry,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<Told> {
        let Self::Apart(apart) = self else {
            return Vec::new();
        };
        let mut told = Vec::new();
        for which in [WorkerKind::Looks, WorkerKind::Writes] {
            if apart.worker(which).as_ref().is_some_and(|k| k.is_idle(now)) {
                unreaped.extend(apart.worker(which).take().map(RegistryWorker::discard));
            }
            let late = apart.worker(which).as_ref().is_some_and(|k| k.is_late(now));
            if late {
                told.extend(apart.lost(registry, which, unreaped, now));
            }
        }
        told
    }

    /// When something is due.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        let Self::Apart(apart) = self else {
            return None;
        };
        let both = [&apart.looks, &apart.writes].into_iter().flatten();
        both.filter_map(|k| k.due().or(k.idle_until())).min()
    }
}

impl Apart {
    fn worker(&mut self, which: WorkerKind) -> &mut Option<RegistryWorker> {
        match which {
            WorkerKind::Looks => &mut self.looks,
            WorkerKind::Writes => &mut self.writes,
        }
    }

    fn ask(
        &mut self,
        registry: &Registry,
        whose: Option<Connection>,
        question: &Question,
        now: Instant,
    ) -> Result<Ticket, Fault> {
        let (which, within) = match question {
            Question::Look(_) => (WorkerKind::Looks, LOOKING),
            Question::Introduce(..)
            | Question::Saw(_)
            | Question::Register(..)
            | Question::Activate(..) => (WorkerKind::Writes, WRITING),
        };
        let ticket = self.next;
        self.next += 1;
        let settings = self.settings.clone();
        let worker = match self.worker(which) {
            Some(worker) => worker,
            none => none.insert(start(registry, &settings, which)?),
        };
        worker.ask(
            ticket,
            whose,
            question.encode(ticket),
            now + within,
            now + IDLE,
        );
        Ok(ticket)
    }

    fn hear(
        &mut self,
        registry: &Registry,
        which: WorkerKind,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<Told> {
        let mut told = Vec::new();
        loop {
            let Some(worker) = self.worker(which) else {
                return told;
            };
            match worker.hear(now + IDLE) {
                Ok(Some(answer)) => told.extend(answer),
                Ok(None) => return told,
                Err(_) => {
                    told.extend(self.lost(registry, which, unreaped, now));
                    return told;
                }
            }
        }
    }

    /// A process is gone, or must be: the one that it was busy with hears so, unless the
    /// inner door was only moved; the others are asked anew.
    fn lost(
        &mut self,
        registry: &Registry,
        which: WorkerKind,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<Told> {
        let Some(mut old) = self.worker(which).take() else {
            return Vec::new();
        };
        let mut told = Vec::new();
        let is_late = old.is_late(now);
        let mut waiting = old.take_waiting();
        unreaped.push(old.discard());
        if is_late {
            // Whoever keeps it keeps the others waiting as well.
            let late = "the doors did not answer in time";
            told.extend(waiting.drain(..).map(|a| a.failed(late)));
        } else if waiting.front().is_some_and(|a| a.again) {
            // Else it may have ended because the inner door was moved.
            let first = waiting.pop_front();
            told.extend(first.map(|a| a.failed("the door process has died, twice")));
        }
        // The next question starts another.
        if waiting.is_empty() {
            return told;
        }
        match start(registry, &self.settings, which) {
            Ok(mut worker) => {
                for mut asked in waiting {
                    asked.again = true;
                    worker.ask_again(asked, now + IDLE);
                }
                *self.worker(which) = Some(worker);
            }
            Err(e) => {
                let why = format!("the door process: {e}");
                told.extend(waiting.into_iter().map(|a| a.failed(&why)));
            }
        }
        told
    }
}

/// One that registers is sent one thing at a time: for who has left nothing is asked then.
fn start(registry: &Registry, settings: &Path, which: WorkerKind) -> Result<RegistryWorker, Fault> {
    match which {
        WorkerKind::Looks => {
            RegistryWorker::start(registry, settings, event_source::DOOR, usize::MAX)
        }
        WorkerKind::Writes => RegistryWorker::start(registry, settings, event_source::REGISTRAR, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry_worker::tests::forked;
    use super::*;
    use crate::config::scratch::Scratch;

    /// One that hung at its disk once kept the daemon from ending.
    #[test]
    fn finish_waits_for_no_door_process() {
        let paths = Scratch::new().paths();
        let mut registry_client = RegistryClient::Apart(Box::new(Apart {
            settings: paths.settings(),
            eyes: NonblockingReader::of(&paths),
            looks: Some(forked(|_| std::thread::sleep(WRITING))),
            writes: None,
            next: 1,
        }));
        let mut unreaped = Vec::new();
        assert!(registry_client.finish(&mut unreaped).is_empty());
        let [pid] = unreaped[..] else {
            panic!("{unreaped:?}");
        };
        nix::sys::wait::waitpid(pid, None).expect("it was killed, and not reaped yet");
    }
}
