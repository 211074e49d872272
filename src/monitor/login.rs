//! A login's way through the monitor, top to bottom: begun, prompted, answered,
//! known, granted, started, accepted; and its end.
//!
//! `Claimant` or `Proven` → (PAM, in a worker) → `Caller` → `Granted` → running.

use std::os::fd::OwnedFd;
use std::time::Instant;

use nix::unistd::{Pid, pipe2};

use super::Monitor;
use super::answer::{Halt, Stranger, Talk};
use super::logins::{Alone, Login, LoginId, Stage, Who};
use super::sessions::{Leader, Whose};
use crate::channel::gate::{Connection, Order};
use crate::channel::login::{self as worker, Begin, Known, Launch, Started, Task, Word};
use crate::channel::relay::Session;
use crate::channel::{Channel, Incoming};
use crate::log::Level;
use crate::policy::{self, Caller, Granted, Gui};
use crate::refusal::{Cause, Refusal};
use crate::service::gui;
use crate::sys::account::Account;
use crate::sys::socket;
use crate::wire::answer::Answer;
use crate::wire::noise::Keys;
use crate::wire::prompt::{Answers, Text};
use crate::wire::record::{self, Kind};
use crate::wire::stream::End;
use crate::wire::Malformed;

impl Monitor {
    /// A request for an application: it waits for its turn with PAM.
    pub(super) fn begin_login(
        &mut self,
        connection: Connection,
        who: Who,
        socket: OwnedFd,
        now: Instant,
    ) -> Result<(), Halt> {
        let (peer, request, user, task) = match &who {
            Who::Claimant(c) => {
                let request = c.request();
                (c.peer(), request, request.user.clone(), Task::Authenticate)
            }
            Who::Host(p, user) => (p.peer(), p.request(), user.to_string(), Task::Trust),
        };
        let begin = Begin {
            user,
            remote_host: peer.to_string(),
            remote_user: request.caller_user.clone(),
            task,
            groups: self.settings.gui.groups(),
            limits: self.inherited,
        };
        let refuse = |words: &str| Err(Refusal::new(Cause::Busy, words).of(peer).into());
        if !self.logins.has_room(self.settings.login.waiting) {
            return refuse("too many logins under way");
        }
        if let Some(why) = self.cannot_start() {
            return refuse(why);
        }
        self.step("login", &[("connection", &connection), ("user", &begin.user)]);
        let until = now + self.settings.login.time;
        let login = Login::new(connection, peer, who, socket, begin, until);
        let id = self.logins.add(login);
        self.strangers.insert(connection, Stranger::LoggingIn(id));
        self.give_turns(now);
        Ok(())
    }

    /// Whoever waits for PAM gets his turn, as long as there are any.
    fn give_turns(&mut self, now: Instant) {
        let (most, check) = (self.settings.login.checks, self.settings.login.check);
        loop {
            let registry = self.poll.registry();
            match self.logins.give_turn(registry, most, check, now) {
                None => return,
                Some((_, Ok(()))) => {}
                Some((id, Err(e))) => self.refuse_login(id, Cause::System, &e.to_string()),
            }
        }
    }

    /// A login's worker has something to say.
    pub(super) fn hear_worker(&mut self, id: LoginId, buffer: &mut [u8], now: Instant) {
        // Until it was refused: its turn is another's then.
        while let Some(login) = self.logins.get(id) {
            match login.channel().map(|c| c.receive(buffer)) {
                Some(Ok(Incoming::Message(message, _))) => match Word::decode(&message) {
                    Some(word) => self.obey_worker(id, word, now),
                    None => self.logins.kill(id),
                },
                Some(Ok(Incoming::Nothing)) => break,
                Some(Ok(Incoming::Gone) | Err(_)) | None => {
                    self.worker_ended(id, now);
                    break;
                }
            }
        }
        self.give_turns(now);
    }

    fn obey_worker(&mut self, id: LoginId, word: Word, now: Instant) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        login.late = None;
        let outcome = match (word, &login.stage) {
            (Word::Ask(texts), Stage::Checking) => self.prompt(id, texts, now),
            (Word::Known(known), Stage::Checking) => self.grant_login(id, known, now),
            (Word::Running(started), Stage::Launching(..)) => self.accept_login(id, started, now),
            (Word::Exited(n), _) => return self.application_ended(id, End::Exited(n), now),
            (Word::Killed(n), _) => return self.application_ended(id, End::Killed(n), now),
            (Word::Refused(code, words), Stage::Checking | Stage::Launching(..)) => {
                let words = format!("PAM: {words} ({code})");
                return self.refuse_login(id, Cause::Login, &words);
            }
            _ => return self.logins.kill(id),
        };
        match outcome {
            Ok(()) => {}
            Err(Halt::Refused(refusal)) => self.refuse_login(id, refusal.cause, &refusal.words),
            Err(Halt::Closed(why, _)) => self.refuse_login(id, Cause::System, why),
        }
    }

    /// PAM asks: the peer is prompted. A stranger who has left is asked nothing.
    fn prompt(&mut self, id: LoginId, texts: Vec<Text>, now: Instant) -> Result<(), Halt> {
        let Some(login) = self.logins.get(id) else {
            return Ok(());
        };
        let Some(connection) = login.connection else {
            self.logins.kill(id);
            return Ok(());
        };
        let prompts = texts.iter().filter(|t| t.style.is_prompt()).count();
        let record = login.say(&Answer::Prompts(texts).encode()?)?;
        login.stage = Stage::Prompted(prompts);
        let left = login.until.saturating_duration_since(now).as_secs().max(1);
        let seconds = u32::try_from(left).unwrap_or(u32::MAX);
        self.step("prompt", &[("connection", &connection), ("prompts", &prompts)]);
        self.tell_gate(Order::Prompt(connection, seconds, &record).encode());
        Ok(())
    }

    /// The peer's answers: they wait for their turn with PAM.
    pub(super) fn take_answers(
        &mut self,
        id: LoginId,
        record: &[u8],
        now: Instant,
    ) -> Result<(), Halt> {
        let Some(login) = self.logins.get(id) else {
            return Ok(());
        };
        let (Stage::Prompted(expected), Some(talk)) = (&login.stage, &mut login.talk) else {
            return Err(Halt::Closed("answers that nobody asked for", Some(login.peer)));
        };
        let peer = login.peer;
        let refuse = |m: Malformed| Halt::from(Refusal::new(Cause::Handshake, m).of(peer));
        let envelope = record::parse(record, &[Kind::Sealed]).map_err(refuse)?;
        let mut body = zeroize::Zeroizing::new(envelope.content.to_vec());
        let text = talk.opener.open(&mut body).map_err(refuse)?;
        let answers = Answers::decode(text, *expected).map_err(refuse)?;
        login.stage = Stage::Queued(worker::Order::Answers(answers.all().to_vec()));
        self.give_turns(now);
        Ok(())
    }

    /// It is known who he is: may he start what he asks for?
    fn grant_login(&mut self, id: LoginId, known: Known, now: Instant) -> Result<(), Halt> {
        let cannot = self.cannot_start();
        let (serves, becomes_user) = (self.accounts.serves(), self.accounts.serves().is_none());
        let Some(login) = self.logins.get(id) else {
            return Ok(());
        };
        let peer = login.peer;
        if let Some(why) = cannot {
            return Err(Refusal::new(Cause::Busy, why).of(peer).into());
        }
        let caller = match login.who.take() {
            Some(Who::Claimant(claimant)) => {
                Caller::Person(Box::new(claimant.believed(known.account)))
            }
            Some(Who::Host(proven, _)) => {
                let account = same_user(&login.begin, known.account)?;
                policy::check_account(&proven, &account).map_err(|r| r.of(peer))?;
                Caller::Host(proven, account)
            }
            None => return Err(Halt::Closed("a worker that knows somebody twice", Some(peer))),
        };
        let granted =
            policy::grant_application(caller, &known.groups, &self.settings.gui, serves)
                .map_err(|r| r.of(peer))?;
        // A module may have made him another, whose session it is then.
        login.begin.user.clone_from(&granted.to().account().name);
        let application = gui::prepare(&granted, &self.settings.exec.path)?;
        let detach = granted.service().detach;
        let streams = gui::Streams::new(detach)?;
        let launch = Launch {
            path: application.path,
            argv: application.argv,
            defaults: application.defaults,
            fixed: application.fixed,
            becomes_user,
            detach,
        };
        login.late = Some(now + self.settings.login.check);
        login.stage = Stage::Launching(Box::new(granted), streams.ours);
        if login.launch(launch, streams.its) {
            Ok(())
        } else {
            Err(Refusal::new(Cause::System, "the login worker died").of(peer).into())
        }
    }

    /// The application runs: the connection is accepted, and given to the relay.
    fn accept_login(&mut self, id: LoginId, started: Started, now: Instant) -> Result<(), Halt> {
        let Some(login) = self.logins.get(id) else {
            return Ok(());
        };
        let stage = std::mem::replace(&mut login.stage, Stage::Over);
        let Stage::Launching(mut granted, streams) = stage else {
            return Ok(());
        };
        let pid = Pid::from_raw(started.pid);
        let detach = granted.service().detach;
        let session = self.sessions.next_id();
        login.stage = if detach {
            login.alone = Some(Alone::new(session, whose(&granted)));
            Stage::Detached(pid, started.variables)
        } else {
            Stage::Running(session, started.variables)
        };
        let accepted = login.accept(&mut granted, started.texts);
        let (connection, socket) = (login.connection.take(), login.socket.take());
        self.log_login(session, &granted);
        let (Some(connection), Some(socket)) = (connection, socket) else {
            // The peer has left meanwhile.
            self.hang_up_login(id);
            return Ok(());
        };
        self.strangers.remove(&connection);
        self.tell_gate(Order::Taken(connection).encode());
        let leader = if detach { Leader::Nobody } else { Leader::Workers(pid) };
        let handed = accepted
            .map_err(|m| crate::fault::Fault::new(m.to_string()))
            .and_then(|(answer, keys)| {
                let answer = socket::send_now(std::os::fd::AsFd::as_fd(&socket), answer);
                self.hand_login_over(&granted, leader, streams, socket, answer, keys, now)
            });
        if let Err(e) = handed {
            self.log.say(Level::Error, "fault", &[("why", &e)]);
            self.hang_up_login(id);
        } else if detach {
            let finished = self.sessions.told(session, End::Exited(0), now);
            self.log_end(finished);
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "each goes to the relay, or to the table")]
    fn hand_login_over(
        &mut self,
        granted: &Granted<Gui, Caller>,
        leader: Leader,
        streams: Option<[OwnedFd; 3]>,
        socket: OwnedFd,
        answer: Vec<u8>,
        keys: Keys,
        now: Instant,
    ) -> Result<(), crate::fault::Fault> {
        let [stdin, stdout, stderr] = match streams {
            Some(streams) => streams,
            None => nothing()?,
        };
        let (ours, theirs) = Channel::pair()?;
        let linger = u32::try_from(self.settings.exec.linger.as_millis()).unwrap_or(u32::MAX);
        let session = Session {
            answer,
            keys,
            linger,
        };
        let registry = self.poll.registry();
        self.sessions.add(registry, whose(granted), leader, ours, now)?;
        self.tell_relay(session.encode(), vec![socket, theirs, stdin, stdout, stderr]);
        Ok(())
    }

    fn log_login(&mut self, session: u64, granted: &Granted<Gui, Caller>) {
        let (to, service) = (granted.to(), granted.service());
        let host = to.host().map_or("", |h| h.name.as_str());
        let display = format!("{}:{}", service.host, service.port);
        self.log.say(
            Level::Info,
            "login",
            &[
                ("session", &session),
                ("host", &host),
                ("peer", &to.peer()),
                ("user", &to.account().name),
                ("caller", &to.request().caller_user),
                ("application", &service.name),
                ("display", &display),
                ("detached", &service.detach),
            ],
        );
    }

    // ---- the end ----

    /// An application has ended, which its worker waits to reap.
    fn application_ended(&mut self, id: LoginId, end: End, now: Instant) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let stage = std::mem::replace(&mut login.stage, Stage::Over);
        if let Stage::Running(session, _) = stage {
            let finished = self.sessions.told(session, end, now);
            self.log_end(finished);
        }
        if let Some(login) = self.logins.get(id) {
            login.tell(&worker::Order::Reap, Vec::new());
        }
    }

    /// A worker has ended. One that should not have leaves a PAM session open, which
    /// another must close, and an application, which is hung up.
    fn worker_ended(&mut self, id: LoginId, now: Instant) {
        let words = "the login worker died";
        let Some((mut login, pid)) = self.logins.remove(id) else {
            return;
        };
        self.corpses.extend(pid);
        self.corpses.retain(|pid| !crate::sys::process::reap(*pid));
        if login.is_heir() {
            return;
        }
        let variables = match std::mem::replace(&mut login.stage, Stage::Over) {
            Stage::Over => return,
            Stage::Queued(_) | Stage::Checking | Stage::Prompted(_) => None,
            Stage::Launching(..) => Some(Vec::new()),
            Stage::Detached(_, variables) => Some(variables),
            Stage::Running(session, variables) => {
                let kill_after = self.settings.exec.hup_to_kill;
                let finished = self.sessions.orphaned(session, kill_after, now);
                self.log_end(finished);
                Some(variables)
            }
        };
        let user = &login.begin.user;
        self.log
            .say(Level::Error, "lost", &[("process", &"login"), ("user", user)]);
        if let Some(connection) = login.connection {
            let refusal = Refusal::new(Cause::Login, words).of(login.peer);
            self.refuse(connection, &refusal);
        }
        if let Some(variables) = variables {
            self.close_pam_session(login.peer, login.begin, variables, now);
        }
    }

    /// Has another worker close the PAM session of one that died.
    fn close_pam_session(
        &mut self,
        peer: std::net::IpAddr,
        begin: Begin,
        variables: Vec<std::ffi::CString>,
        now: Instant,
    ) {
        let begin = Begin {
            task: Task::CloseOnly(variables),
            ..begin
        };
        let until = now + self.settings.login.time;
        self.logins.add(Login::heir(peer, begin, until));
        self.give_turns(now);
    }

    /// Hangs up what a login has started, by ending its worker's line: the worker does
    /// the rest.
    fn hang_up_login(&mut self, id: LoginId) {
        if let Some((_, pid)) = self.logins.remove(id) {
            self.corpses.extend(pid);
        }
    }

    /// Refuses a login. A worker that works is killed; one that waits for us, or has
    /// said no, ends its transaction by itself when its line ends.
    fn refuse_login(&mut self, id: LoginId, cause: Cause, words: &str) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        let (connection, peer) = (login.connection.take(), login.peer);
        let works = login.late.is_some();
        // It is in the midst of opening the PAM session.
        let left_open = (works && matches!(login.stage, Stage::Launching(..)))
            .then(|| login.begin.clone());
        if works {
            self.logins.kill(id);
        }
        if let Some((_, pid)) = self.logins.remove(id) {
            self.corpses.extend(pid);
        }
        if let Some(connection) = connection {
            self.refuse(connection, &Refusal::new(cause, words).of(peer));
        }
        if let Some(begin) = left_open {
            self.close_pam_session(peer, begin, Vec::new(), Instant::now());
        }
    }

    /// A stranger has left, or was refused, in the middle of his login.
    pub(super) fn abandon_login(&mut self, id: LoginId) {
        let Some(login) = self.logins.get(id) else {
            return;
        };
        login.connection = None;
        // What is being started will be hung up once its worker says that it runs.
        if !matches!(login.stage, Stage::Launching(..)) {
            self.logins.kill(id);
            if let Some((_, pid)) = self.logins.remove(id) {
                self.corpses.extend(pid);
            }
            self.give_turns(Instant::now());
        }
    }

    /// Logins whose time is over.
    pub(super) fn tend_logins(&mut self, now: Instant) {
        for id in self.logins.late(now) {
            self.refuse_login(id, Cause::Login, "PAM did not answer in time: does a module hang?");
        }
        self.logins.tend_detached(now);
        self.give_turns(now);
    }
}

/// Whose session it is.
fn whose(granted: &Granted<Gui, Caller>) -> Whose {
    let to = granted.to();
    Whose {
        host: to.host().map_or_else(String::new, |h| h.name.to_string()),
        user: to.account().name.clone(),
        peer: to.peer(),
        caller: to.request().caller_user.clone(),
        service: format!("gui {}", granted.service().name),
    }
}

/// A host's user must be who was asked for, whatever a module made of him.
fn same_user(begin: &Begin, account: Account) -> Result<Account, Refusal> {
    if account.name == begin.user {
        return Ok(account);
    }
    let words = format!("PAM made {} of {}", account.name, begin.user);
    Err(Refusal::new(Cause::User, words))
}

/// Pipes whose other ends are closed: nothing to read, and nobody who reads.
fn nothing() -> Result<[OwnedFd; 3], crate::fault::Fault> {
    let flags = nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK;
    let (_, stdin) = pipe2(flags)?;
    let (stdout, _) = pipe2(flags)?;
    let (stderr, _) = pipe2(flags)?;
    Ok([stdin, stdout, stderr])
}

impl Login {
    /// The next record to the peer, with this answer: message 2, or a sealed one.
    fn say(&mut self, payload: &[u8]) -> Result<Vec<u8>, Malformed> {
        if let Some(talk) = &mut self.talk {
            return talk.seal(payload);
        }
        let made = match &mut self.who {
            Some(Who::Claimant(claimant)) => claimant.message_2(payload),
            Some(Who::Host(proven, _)) => proven.message_2(payload),
            None => Err(Malformed("message 2 of nobody")),
        };
        let (message, keys) = made?;
        self.talk = Some(Box::new(Talk::new(keys)?));
        record::compose(Kind::Answer, &message)
    }

    /// The record that accepts, and the keys that the relay goes on with.
    fn accept(
        &mut self,
        granted: &mut Granted<Gui, Caller>,
        texts: Vec<Text>,
    ) -> Result<(Vec<u8>, Keys), Malformed> {
        let texts: Vec<Text> = texts.into_iter().filter(|t| !t.style.is_prompt()).collect();
        let proof = granted.to().server_proof();
        let payload = Answer::Accept { proof, texts }.encode()?;
        match self.talk.take() {
            None => {
                let (message, keys) = granted.to_mut().message_2(&payload)?;
                Ok((record::compose(Kind::Answer, &message)?, keys))
            }
            Some(mut talk) => {
                let record = talk.seal(&payload)?;
                Ok((record, talk.into_keys()))
            }
        }
    }
}
