//! The monitor's access to the machine registry.
//!
//! Runs in the monitor. A standalone daemon reads the registry itself if that does not block.
//! Otherwise it asks the registry worker, a process that it starts when needed. Under inetd, where
//! no other connection would wait, everything is done in the monitor. Must not wait for the worker,
//! except while the daemon starts.

mod ahead;
pub(super) mod guesses;
mod worker;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Instant;

use mio::Registry;
use nix::unistd::Pid;

use crate::config::paths::Paths;
use crate::fault::Fault;
use crate::ipc::gate::Connection;
use crate::registry::asked::{Answer, Question};
use crate::registry::{Doors, Id, process};
use ahead::LastMachines;
pub(super) use ahead::LookAhead;
use worker::RegistryWorker;

/// A question's number, which is never reused.
pub(super) type Ticket = u64;

/// Most notes that no connection waits for: beyond that they are dropped.
const NOTES: usize = 64;

/// While as many looks wait, none is asked ahead.
const LOOKS: usize = 16;

/// What a question leads to.
pub(super) enum Reply {
    /// The answer.
    Ready(Answer),
    /// The answer will come, with this number.
    Pending(Ticket),
}

/// An answer, and the connection that it is for.
pub(super) struct TicketAnswer {
    pub(super) connection: Option<Connection>,
    pub(super) ticket: Ticket,
    pub(super) answer: Answer,
}

/// The monitor's access to the registry.
pub(super) enum RegistryClient {
    /// In this process; with the notes to be written when the one connection is over.
    Here(Box<Doors>, Vec<Question>),
    /// By the worker process.
    Standalone(Box<Standalone>),
}

/// The doors as this process reads them, and the worker if it runs.
pub(super) struct Standalone {
    settings: PathBuf,
    own: Doors,
    worker: Option<RegistryWorker>,
    next: Ticket,
    machines: LastMachines,
}

impl RegistryClient {
    /// Opens the registry for a standalone daemon, and checks it. Also returns the faults despite
    /// which the daemon starts.
    ///
    /// # Errors
    /// Fails if the registry is not sound, or if no process is available.
    pub(super) fn standalone(paths: &Paths) -> Result<(Self, Vec<Fault>), Fault> {
        let settings = paths.settings();
        let without = RegistryWorker::check(&settings)?;
        let registry_client = Self::Standalone(Box::new(Standalone {
            settings,
            own: Doors::here(paths),
            worker: None,
            next: 1,
            machines: LastMachines::default(),
        }));
        Ok((registry_client, without))
    }

    /// Opens the registry for inetd's one connection.
    ///
    /// # Errors
    /// Fails if the registry has never been made and cannot be made now.
    pub(super) fn here(paths: &Paths) -> Result<Self, Fault> {
        Doors::make_first(paths)?;
        Ok(Self::Here(Box::new(Doors::of(paths)), Vec::new()))
    }

    /// Announces a look for a connection, which comes once the peer has computed its part. In that
    /// time, the worker looks for the machine that it most likely is; under inetd, the files are
    /// opened.
    pub(super) fn prepare(
        &mut self,
        poll: &Registry,
        connection: Connection,
        peer: IpAddr,
        now: Instant,
    ) -> LookAhead {
        match self {
            Self::Here(doors, _) => doors.prepare(),
            Self::Standalone(standalone) => {
                let asked = standalone.ask_ahead(poll, connection, peer, now);
                return asked.unwrap_or_default();
            }
        }
        LookAhead::default()
    }

    /// Asks about the machine of a connection, for which [`Self::prepare`] may have asked already.
    /// What this host's own files decide is read now.
    ///
    /// # Errors
    /// Fails if no process is available.
    pub(super) fn look(
        &mut self,
        poll: &Registry,
        (connection, peer): (Connection, IpAddr),
        id: Id,
        ahead: LookAhead,
        now: Instant,
    ) -> Result<Reply, Fault> {
        if let Some(answer) = self.look_now(id) {
            return Ok(Reply::Ready(answer));
        }
        // The event loop's time is older: it is taken before all events of one turn.
        if let Some(reply) = ahead.result(id, Instant::now()) {
            return Ok(reply);
        }
        if let Self::Standalone(standalone) = self {
            standalone.machines.remember(peer, id);
        }
        self.ask_process(poll, Some(connection), Question::Look(id), now)
    }

    /// Returns the status of a machine, if that needs no other process.
    fn look_now(&mut self, id: Id) -> Option<Answer> {
        match self {
            Self::Here(doors, _) => Some(process::answer(doors, Question::Look(id))),
            Self::Standalone(standalone) => {
                let status = standalone.own.look_here(id)?;
                Some(Answer::MachineStatus(Box::new(status)))
            }
        }
    }

    /// Whether a machine is excluded now; under inetd only.
    pub(super) fn is_excluded(&mut self, id: Id) -> bool {
        match self {
            Self::Here(doors, _) => doors.look(id).is_ok_and(|status| status.excluded),
            Self::Standalone(_) => false,
        }
    }

    /// Asks a question.
    ///
    /// # Errors
    /// Fails if no process is available.
    pub(super) fn ask(
        &mut self,
        poll: &Registry,
        connection: Option<Connection>,
        question: Question,
        now: Instant,
    ) -> Result<Reply, Fault> {
        if let Question::Look(id) = question {
            if let Some(answer) = self.look_now(id) {
                return Ok(Reply::Ready(answer));
            }
        }
        self.ask_process(poll, connection, question, now)
    }

    /// Asks the worker; under inetd, answers in this process.
    fn ask_process(
        &mut self,
        poll: &Registry,
        connection: Option<Connection>,
        question: Question,
        now: Instant,
    ) -> Result<Reply, Fault> {
        match self {
            Self::Here(doors, _) => Ok(Reply::Ready(process::answer(doors, question))),
            Self::Standalone(standalone) => {
                let ticket = standalone.ask(poll, connection, &question, now)?;
                Ok(Reply::Pending(ticket))
            }
        }
    }

    /// Has something written that no connection waits for.
    ///
    /// # Errors
    /// Fails if no process is available.
    pub(super) fn note(
        &mut self,
        poll: &Registry,
        question: Question,
        now: Instant,
    ) -> Result<(), Fault> {
        match self {
            Self::Here(_, notes) => notes.push(question),
            Self::Standalone(standalone) => {
                let waiting = standalone.worker.as_ref().map_or(0, RegistryWorker::writes);
                if waiting < NOTES {
                    standalone.ask(poll, None, &question, now)?;
                }
            }
        }
        Ok(())
    }

    /// Writes the notes that were left for the end, and returns the outcomes. Kills the worker and
    /// adds it to the unreaped: a worker blocked in disk I/O may not even die.
    pub(super) fn finish(&mut self, unreaped: &mut Vec<Pid>) -> Vec<Answer> {
        let mut all = Vec::new();
        match self {
            Self::Here(doors, notes) => {
                let notes = std::mem::take(notes).into_iter();
                all.extend(notes.map(|note| process::answer(doors, note)));
            }
            Self::Standalone(standalone) => {
                unreaped.extend(standalone.worker.take().map(RegistryWorker::discard));
            }
        }
        all
    }

    /// Handles the worker's messages.
    pub(super) fn handle_messages(
        &mut self,
        poll: &Registry,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<TicketAnswer> {
        match self {
            Self::Standalone(standalone) => standalone.handle_messages(poll, unreaped, now),
            Self::Here(..) => Vec::new(),
        }
    }

    /// Watches the worker's channel for writability while questions wait.
    pub(super) fn watch_unsent(&mut self, poll: &Registry) {
        if let Some(worker) = self.worker() {
            worker.watch_unsent(poll);
        }
    }

    /// Drops the questions of a connection whose peer has left.
    pub(super) fn forget(&mut self, connection: Connection) {
        if let Some(worker) = self.worker() {
            worker.forget(connection);
        }
    }

    fn worker(&mut self) -> Option<&mut RegistryWorker> {
        match self {
            Self::Standalone(standalone) => standalone.worker.as_mut(),
            Self::Here(..) => None,
        }
    }

    /// Fails overdue questions, and ends the worker if it is idle.
    pub(super) fn expire(
        &mut self,
        poll: &Registry,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<TicketAnswer> {
        let Self::Standalone(standalone) = self else {
            return Vec::new();
        };
        let worker = standalone.worker.as_ref();
        if worker.is_some_and(|worker| worker.is_idle(now)) {
            unreaped.extend(standalone.worker.take().map(RegistryWorker::discard));
        } else if worker.is_some_and(|worker| worker.is_late(now)) {
            return standalone.lost(poll, unreaped, now);
        }
        Vec::new()
    }

    /// Returns when something is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Standalone(standalone) => standalone.worker.as_ref()?.deadline(),
            Self::Here(..) => None,
        }
    }
}

impl Standalone {
    /// Asks about the machine that came last from this address, if the worker was asked about that
    /// and still runs.
    fn ask_ahead(
        &mut self,
        poll: &Registry,
        connection: Connection,
        peer: IpAddr,
        now: Instant,
    ) -> Option<LookAhead> {
        let id = self.machines.get(peer)?;
        let worker = self.worker.as_ref()?;
        if worker.looks() >= LOOKS {
            return None;
        }
        let look = Question::Look(id);
        // If this fails, so does the question at the ClientHello, which reports it.
        let ticket = self.ask(poll, Some(connection), &look, now).ok()?;
        Some(LookAhead::asked(id, ticket, now))
    }

    fn ask(
        &mut self,
        poll: &Registry,
        connection: Option<Connection>,
        question: &Question,
        now: Instant,
    ) -> Result<Ticket, Fault> {
        let ticket = self.next;
        self.next += 1;
        let worker = match &mut self.worker {
            Some(worker) => worker,
            none => none.insert(RegistryWorker::start(poll, &self.settings)?),
        };
        worker.ask(ticket, connection, question, now);
        Ok(ticket)
    }

    fn handle_messages(
        &mut self,
        poll: &Registry,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<TicketAnswer> {
        let mut told = Vec::new();
        loop {
            let Some(worker) = &mut self.worker else {
                return told;
            };
            match worker.handle_messages(now) {
                Ok(Some(answer)) => told.extend(answer),
                Ok(None) => return told,
                Err(_) => {
                    told.extend(self.lost(poll, unreaped, now));
                    return told;
                }
            }
        }
    }

    /// Handles a worker that is dead or must be killed: some of its questions fail
    /// ([`Unanswered::fail_some`]), and the others are asked again.
    ///
    /// [`Unanswered::fail_some`]: worker::Unanswered::fail_some
    fn lost(
        &mut self,
        poll: &Registry,
        unreaped: &mut Vec<Pid>,
        now: Instant,
    ) -> Vec<TicketAnswer> {
        let Some(mut old) = self.worker.take() else {
            return Vec::new();
        };
        let mut unanswered = old.take_unanswered();
        unreaped.push(old.discard());
        let mut told = unanswered.fail_some(now);
        // The next question starts another.
        if unanswered.is_empty() {
            return told;
        }
        match RegistryWorker::start(poll, &self.settings) {
            Ok(mut worker) => {
                worker.ask_again(unanswered, now);
                self.worker = Some(worker);
            }
            Err(e) => told.extend(unanswered.fail(&format!("the registry process: {e}"))),
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::worker::{WRITING, tests::forked};
    use super::*;
    use crate::config::scratch::Scratch;
    use crate::registry::{Level, MachineStatus, RegistrationState};

    fn standalone(paths: &Paths, worker: RegistryWorker) -> RegistryClient {
        RegistryClient::Standalone(Box::new(Standalone {
            settings: paths.settings(),
            own: Doors::here(paths),
            worker: Some(worker),
            next: 1,
            machines: LastMachines::default(),
        }))
    }

    /// Returns the status of a machine that is allowed.
    fn allowed(id: Id) -> Answer {
        Answer::MachineStatus(Box::new(MachineStatus {
            id,
            excluded: false,
            included: true,
            level: Level::Closed,
            state: RegistrationState::Known { unseen: false },
            remote_only: false,
            build_mode: false,
            passwords: false,
            welcome: String::new(),
        }))
    }

    #[test]
    fn a_look_asked_ahead_is_used_for_the_same_machine_while_it_is_fresh() {
        let (one, two) = (Id([1; 16]), Id([2; 16]));
        let peer = IpAddr::from([192, 0, 2, 1]);
        let poll = mio::Poll::new().unwrap();
        let mio = poll.registry();
        // As if asked in an hour, so that a slow machine does not make it late.
        let fresh = Instant::now() + Duration::from_secs(3600);
        let late = Instant::now() - ahead::FRESH - Duration::from_millis(1);
        // No file is there: the monitor reads none by itself.
        let paths = Scratch::new().paths();
        let mut client = standalone(&paths, forked(|_| std::thread::sleep(WRITING)));
        let mut tickets = 1..;
        let mut ticket = || tickets.next().unwrap();
        let pending = |reply: Result<Reply, Fault>| match reply {
            Ok(Reply::Pending(ticket)) => ticket,
            Ok(Reply::Ready(_)) | Err(_) => panic!("it is not asked"),
        };
        // Nothing is known of the address.
        let ahead = client.prepare(mio, 1, peer, fresh);
        let asked = client.look(mio, (1, peer), one, ahead, fresh);
        assert_eq!(pending(asked), ticket());
        // It is asked ahead, and not answered yet.
        let ahead = client.prepare(mio, 2, peer, fresh);
        let asked = client.look(mio, (2, peer), one, ahead, fresh);
        assert_eq!(pending(asked), ticket());
        // It is answered; the answer to another question comes back.
        let mut ahead = client.prepare(mio, 3, peer, fresh);
        assert!(ahead.note(99, allowed(two)).is_some());
        assert!(ahead.note(ticket(), allowed(one)).is_none());
        let ready = client.look(mio, (3, peer), one, ahead, fresh);
        let Ok(Reply::Ready(Answer::MachineStatus(status))) = ready else {
            panic!("the result is not used");
        };
        assert_eq!(status.id, one);
        // A fault, an exclusion, a late peer and another machine are asked again.
        type Spoil = fn(&mut LookAhead, Ticket);
        let spoilt: [(Spoil, Id, Instant); 4] = [
            (
                |ahead, ticket| drop(ahead.note(ticket, Answer::Fault(String::new()))),
                one,
                fresh,
            ),
            (|ahead, _| ahead.forget(Id([1; 16])), one, fresh),
            (|_, _| (), one, late),
            (|_, _| (), two, fresh),
        ];
        for (n, (spoil, id, at)) in spoilt.into_iter().enumerate() {
            let mut ahead = client.prepare(mio, 4, peer, at);
            let asked = ticket();
            assert!(ahead.note(asked, allowed(one)).is_none());
            spoil(&mut ahead, asked);
            let asked = client.look(mio, (4, peer), id, ahead, fresh);
            assert_eq!(pending(asked), ticket(), "case {n}");
        }
        // While many wait, none is asked ahead.
        for connection in 0..10 {
            let ahead = client.prepare(mio, connection, peer, fresh);
            let asked = client.look(mio, (connection, peer), one, ahead, fresh);
            pending(asked);
        }
        let asked = client.look(mio, (5, peer), one, LookAhead::default(), fresh);
        let last = pending(asked);
        drop(client.prepare(mio, 6, peer, fresh));
        let asked = client.look(mio, (6, peer), one, LookAhead::default(), fresh);
        assert_eq!(pending(asked), last + 1);
        let mut unreaped = Vec::new();
        assert!(client.finish(&mut unreaped).is_empty());
        nix::sys::wait::waitpid(unreaped[0], None).unwrap();
    }

    /// A worker blocked in disk I/O once kept the daemon from ending.
    #[test]
    fn finish_does_not_wait_for_a_registry_worker() {
        let paths = Scratch::new().paths();
        let mut registry_client = standalone(&paths, forked(|_| std::thread::sleep(WRITING)));
        let mut unreaped = Vec::new();
        assert!(registry_client.finish(&mut unreaped).is_empty());
        let [pid] = unreaped[..] else {
            panic!("{unreaped:?}");
        };
        nix::sys::wait::waitpid(pid, None).expect("it was killed, and not reaped yet");
    }
}
