//! The monitor's access to the machine registry.
//!
//! Runs in the monitor. A standalone daemon reads the registry itself if that does not block.
//! Otherwise it asks two worker processes, one that reads and one that registers. Under inetd,
//! where no other connection would wait, everything is done in the monitor.

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
use crate::registry::{Doors, Id, process};

/// A question's number, which is never reused.
pub(in super::super) type Ticket = u64;

/// How long a read of the registry may take: longer than a reader waits for a writer.
const LOOKING: Duration = Duration::from_secs(8);

/// The same for a write, which is queued behind others: `cos` waits 30 s for an answer.
const WRITING: Duration = Duration::from_secs(20);

/// How long a worker stays without questions.
const IDLE: Duration = Duration::from_secs(60);

/// Most notes that no connection waits for: beyond that they are dropped.
const NOTES: usize = 64;

/// The result of a question.
pub(in super::super) enum Asked {
    /// The answer.
    Now(Answer),
    /// The answer will come, with this number.
    Later(Ticket),
}

/// An answer, and the connection that it is for.
pub(in super::super) struct Told {
    pub(in super::super) whose: Option<Connection>,
    pub(in super::super) ticket: Ticket,
    pub(in super::super) answer: Answer,
}

/// The monitor's access to the registry.
pub(in super::super) enum RegistryClient {
    /// In this process; with the notes to be written when the one connection is over.
    Here(Box<Doors>, Vec<Question>),
    /// By worker processes.
    Apart(Box<Apart>),
}

/// The nonblocking reader, and the two workers.
pub(in super::super) struct Apart {
    settings: PathBuf,
    eyes: Doors,
    looks: Option<RegistryWorker>,
    writes: Option<RegistryWorker>,
    next: Ticket,
}

impl RegistryClient {
    /// Opens the registry for a standalone daemon, and checks it. Also returns the faults despite
    /// which the daemon starts.
    ///
    /// # Errors
    /// Fails if the registry is not sound, or if no process is available.
    pub(in super::super) fn apart(paths: &Paths) -> Result<(Self, Vec<Fault>), Fault> {
        let settings = paths.settings();
        let without = RegistryWorker::check(&settings)?;
        let registry_client = Self::Apart(Box::new(Apart {
            settings,
            eyes: Doors::here(paths),
            looks: None,
            writes: None,
            next: 1,
        }));
        Ok((registry_client, without))
    }

    /// Opens the registry for inetd's one connection.
    ///
    /// # Errors
    /// Fails if the registry has never been made and cannot be made now.
    pub(in super::super) fn here(paths: &Paths) -> Result<Self, Fault> {
        Doors::make_first(paths)?;
        Ok(Self::Here(Box::new(Doors::of(paths)), Vec::new()))
    }

    /// Announces a question, which comes once the peer has computed its part. Under inetd, opens
    /// the files in that time.
    pub(in super::super) fn prepare(&mut self) {
        if let Self::Here(doors, _) = self {
            doors.prepare();
        }
    }

    /// Whether a machine is excluded now; under inetd only.
    pub(in super::super) fn is_excluded(&mut self, id: Id) -> bool {
        match self {
            Self::Here(doors, _) => doors.look(id).is_ok_and(|status| status.excluded),
            Self::Apart(_) => false,
        }
    }

    /// Asks a question.
    ///
    /// # Errors
    /// Fails if no process is available.
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
                    if let Some(status) = apart.eyes.look_here(id) {
                        return Ok(Asked::Now(Answer::MachineStatus(Box::new(status))));
                    }
                }
                apart.ask(registry, whose, &question, now).map(Asked::Later)
            }
        }
    }

    /// Has something written that no connection waits for.
    ///
    /// # Errors
    /// Fails if no process is available.
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

    /// Writes the notes that were left for the end, and returns the outcomes. Kills the workers and
    /// adds them to the unreaped: a worker blocked in disk I/O may not even die.
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

    /// Handles the messages of one of the workers.
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

    /// Watches the workers' channels for writability while questions wait.
    pub(in super::super) fn watch_unsent(&mut self, registry: &Registry) {
        if let Self::Apart(apart) = self {
            for worker in [&mut apart.looks, &mut apart.writes].into_iter().flatten() {
                worker.watch_unsent(registry);
            }
        }
    }

    /// Drops the questions of a connection whose peer has left.
    pub(in super::super) fn forget(&mut self, connection: Connection) {
        if let Self::Apart(apart) = self {
            if let Some(writes) = &mut apart.writes {
                writes.forget(connection);
            }
        }
    }

    /// Fails overdue questions, and ends a worker that is idle.
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

    /// Returns when something is due.
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

    /// Handles a worker that is dead or must be killed. If a question is late, all fail. Otherwise
    /// the questions are asked again, except for a first one that was asked again before.
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
            // What delays one question delays the others as well.
            let late = "the registry did not answer in time";
            told.extend(waiting.drain(..).map(|a| a.failed(late)));
        } else if waiting.front().is_some_and(|a| a.again) {
            // The first time, the worker may have ended because the inner door was moved.
            let first = waiting.pop_front();
            told.extend(first.map(|a| a.failed("the registry process has died twice")));
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
                let why = format!("the registry process: {e}");
                told.extend(waiting.into_iter().map(|a| a.failed(&why)));
            }
        }
        told
    }
}

/// Starts a worker. One that registers is sent one question at a time, so that the questions of a
/// peer that has left can be dropped.
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

    /// A worker blocked in disk I/O once kept the daemon from ending.
    #[test]
    fn finish_does_not_wait_for_a_registry_worker() {
        let paths = Scratch::new().paths();
        let mut registry_client = RegistryClient::Apart(Box::new(Apart {
            settings: paths.settings(),
            eyes: Doors::here(&paths),
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
