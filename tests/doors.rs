//! The registry of a real daemon: which machine is allowed, prompted or denied, and that each
//! change applies to the next connection.

use crate::daemon;

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::door::{is_deleted, writing};
use cosserver::config::paths::Paths;
use cosserver::protocol::answer::Answer;
use cosserver::protocol::noise::Initiator;
use cosserver::protocol::opening::{Credential, Opening};
use cosserver::protocol::prompt::{Answers, Asks};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{Command as Words, Gui, Request, Service};
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::registry::inner::Setting;
use cosserver::registry::{Doors, Id, Inner, Level, List, Name, Occurred, Outer, Seen};
use cosserver::secret::KeyPair;
use daemon::hostile::{Caller, RawConnection, nonce, shake, timed, vouch};
use daemon::{COSSERVER, Daemon, Folder, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zeroize::Zeroizing;

/// The manager's access to both doors of a directory.
struct Manager {
    outer: Outer,
    inner: Inner,
}

impl Manager {
    fn of(server: &Path) -> Self {
        let paths = Paths::of_dir(server);
        Doors::make(&paths).unwrap();
        Self {
            outer: Outer::open(&paths).unwrap(),
            inner: Inner::open(&Inner::path(&paths, None)).unwrap(),
        }
    }

    fn close(&mut self) {
        let Self { outer, inner } = self;
        let machines = inner.machines().unwrap().into_iter();
        let machines = machines.map(|m| (m.id, m.name)).collect();
        outer.close(machines).unwrap();
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// A machine with its own key that connects to a daemon.
struct Machine {
    key: KeyPair,
    host: Caller,
    port: u16,
    from: IpAddr,
}

/// The first answer that it gets.
enum Outcome {
    Accepted(Vec<String>),
    Asked(Asks, Box<Conversation>),
    Denied(String),
}

/// An exchange of prompts with the inner door.
struct Conversation {
    raw_connection: RawConnection,
    sealer: Sealer,
    opener: Opener,
}

impl Machine {
    fn new(d: &Daemon) -> Self {
        let (host, port) = (Caller::of(d), d.port);
        let key = KeyPair::random().unwrap();
        let from = IpAddr::from([127, 0, 0, 1]);
        Self {
            key,
            host,
            port,
            from,
        }
    }

    fn id(&self) -> Id {
        Id::of(&self.key.public)
    }

    /// Sends this as the payload of its handshake.
    fn sends(&self, payload: &[u8]) -> (RawConnection, Initiator) {
        let mut raw_connection = RawConnection::from_address(self.from, self.port);
        let greeting = raw_connection.greet();
        let (hello, noise) = shake(&self.host, &self.key, &greeting, payload);
        raw_connection.send(&hello);
        (raw_connection, noise)
    }

    /// Sends a request with this mechanism and service.
    fn asks(&self, credential: Credential, service: Service, words: &[&str]) -> Outcome {
        let request = self.request(service, words);
        let opening = Opening {
            request: &request,
            credential,
        };
        let (mut raw_connection, noise) = self.sends(&opening.encode().unwrap());
        let record = raw_connection.record().expect("neither yes nor no");
        let envelope = record::parse(&record, &[Kind::Answer, Kind::Denied]).unwrap();
        if envelope.kind == Kind::Denied {
            return Outcome::Denied(hex(envelope.content));
        }
        let (payload, keys) = noise.read_2(envelope.content).unwrap();
        match Answer::decode(&payload).unwrap() {
            Answer::Accept { texts, .. } => {
                Outcome::Accepted(texts.into_iter().map(|t| t.words).collect())
            }
            Answer::Prompts { by, .. } => {
                let talk = Conversation {
                    raw_connection,
                    sealer: Sealer::new(keys.suite, &keys.to_server).unwrap(),
                    opener: Opener::new(keys.suite, &keys.to_client).unwrap(),
                };
                Outcome::Asked(by, Box::new(talk))
            }
            Answer::SendCommand => panic!("it asks for a command"),
        }
    }

    /// Requests registration.
    fn enrols(&self) -> Outcome {
        self.asks(Credential::Machine, Service::Enrol, &[])
    }

    /// Requests registration; returns whether it is prompted. It may be closed without an answer.
    fn tries(&self) -> Option<Conversation> {
        let mut raw_connection = RawConnection::try_from_address(self.from, self.port).ok()?;
        let greeting = raw_connection.try_greet()?;
        let request = self.request(Service::Enrol, &[]);
        let opening = Opening {
            request: &request,
            credential: Credential::Machine,
        };
        let payload = opening.encode().unwrap();
        let (hello, noise) = shake(&self.host, &self.key, &greeting, &payload);
        raw_connection.send(&hello);
        let record = raw_connection.record()?;
        let content = record::parse(&record, &[Kind::Answer]).ok()?.content;
        let (_, keys) = noise.read_2(content).unwrap();
        Some(Conversation {
            raw_connection,
            sealer: Sealer::new(keys.suite, &keys.to_server).unwrap(),
            opener: Opener::new(keys.suite, &keys.to_client).unwrap(),
        })
    }

    fn request(&self, service: Service, words: &[&str]) -> Vec<u8> {
        let request = Request {
            service,
            user: "alice".into(),
            caller_user: "tester".parse().unwrap(),
            command: Words::Words(words.iter().map(|w| w.as_bytes().to_vec()).collect()),
            environment: Vec::new(),
            linger: None,
        };
        request.encode().unwrap()
    }

    /// Requests registration, and must be prompted.
    fn is_asked(&self) -> (Asks, Conversation) {
        match self.enrols() {
            Outcome::Asked(by, talk) => (by, *talk),
            Outcome::Accepted(_) => panic!("let in at once"),
            Outcome::Denied(_) => panic!("refused at once"),
        }
    }

    /// Requests a login.
    fn logs_in(&self) -> Outcome {
        let (host, port, detach) = (None, 9003, false);
        let gui = Gui { host, port, detach };
        self.asks(Credential::Password, Service::Gui(gui), &["xterm"])
    }

    fn is_allowed(&self) -> bool {
        matches!(self.enrols(), Outcome::Accepted(_))
    }

    /// Must be denied for this cause.
    fn is_refused(&self, d: &Daemon, cause: &str) -> String {
        match self.enrols() {
            Outcome::Denied(reference) => must_be(d, &reference, cause),
            Outcome::Accepted(_) | Outcome::Asked(..) => panic!("it is not refused"),
        }
    }
}

impl Conversation {
    /// Answers; returns whether it is allowed, otherwise the denial's reference.
    fn answers(&mut self, text: &str) -> Result<Vec<String>, String> {
        self.sends(text);
        let record = self.raw_connection.record().expect("neither yes nor no");
        let envelope = record::parse(&record, &[Kind::Sealed, Kind::Denied]).unwrap();
        if envelope.kind == Kind::Denied {
            return Err(hex(envelope.content));
        }
        let mut sealed = envelope.content.to_vec();
        let text = self.opener.open(&mut sealed).unwrap();
        match Answer::decode(text).unwrap() {
            Answer::Accept { texts, .. } => Ok(texts.into_iter().map(|t| t.words).collect()),
            Answer::Prompts { .. } | Answer::SendCommand => panic!("it is asked again"),
        }
    }

    fn sends(&mut self, text: &str) {
        let answers = Answers::new(vec![Zeroizing::new(text.as_bytes().to_vec())]);
        let mut content = answers.unwrap().encode_padded().unwrap();
        let tag = self.sealer.seal(&mut content).unwrap();
        content.extend_from_slice(&tag);
        let record = record::compose(Kind::Sealed, &content).unwrap();
        self.raw_connection.send(&record);
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Checks that the log has this cause under that reference.
fn must_be(d: &Daemon, reference: &str, cause: &str) -> String {
    let line = d.log.wait(&format!("denied ref={reference} "));
    assert!(line.contains(&format!(" cause={cause} ")), "{line}");
    line
}

/// A denial must not slow down the next one.
const SETTINGS: &str = "[daemon]\nrefusal-interval = 1\n[penalties]\nexempt = [\"127.0.0.0/8\"]\n";

fn start() -> (Daemon, Manager) {
    let d = Daemon::start_with(SETTINGS, "");
    let manager = Manager::of(&d.server());
    (d, manager)
}

#[test]
fn by_default_only_hosts_with_a_cookie_are_allowed() {
    let (d, mut m) = start();
    let machine = Machine::new(&d);
    machine.is_refused(&d, "unknown-machine");
    let Outcome::Denied(reference) = machine.logs_in() else {
        panic!("an unknown machine is asked for a password");
    };
    must_be(&d, &reference, "unknown-machine");
    assert_eq!(d.says(0, &["echo", "in"]), b"in\n");
    // From now on it is listed by its name.
    let id = Id::of(&Caller::of(&d).machine.public);
    until("the host is on the list", || {
        m.inner
            .machine(&id)
            .unwrap()
            .is_some_and(|m| m.name == name("hosta"))
    });
    m.close();
    assert_eq!(m.outer.count(List::Include).unwrap(), 1);
    d.says(0, &["true"]);
}

#[test]
fn an_excluded_machine_is_refused_before_its_request_is_decoded() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Off).unwrap();
    let machine = Machine::new(&d);
    let garbage = |cause| {
        let (mut raw_connection, _) = machine.sends(b"this is no opening");
        must_be(&d, &raw_connection.denied(), cause);
    };
    garbage("handshake");
    m.outer.put(List::Exclude, &machine.id(), "").unwrap();
    garbage("excluded");
    machine.is_refused(&d, "excluded");
    m.outer.delete(List::Exclude, &machine.id()).unwrap();
    assert!(machine.is_allowed());
}

#[test]
fn an_excluded_host_is_refused_whatever_cookie_it_has() {
    let (d, mut m) = start();
    d.says(0, &["true"]);
    let id = Id::of(&Caller::of(&d).machine.public);
    m.outer.put(List::Exclude, &id, "hosta").unwrap();
    d.says(255, &["true"]);
    d.log.wait("cause=excluded");
    m.outer.delete(List::Exclude, &id).unwrap();
    d.says(0, &["true"]);
}

/// Returns the output of `cosadm check`, with or without problems.
fn checked(d: &Daemon) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cosadm"));
    let out = daemon::run(command.arg("-C").arg(d.server()).arg("check"));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn a_host_that_was_deleted_is_not_known_again_by_its_cookie() {
    let (d, mut m) = start();
    d.says(0, &["true"]);
    let id = Id::of(&Caller::of(&d).machine.public);
    until("the host is on the list", || {
        m.inner.machine(&id).unwrap().is_some()
    });
    let cosadm = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cosadm"));
        let out = daemon::run(command.arg("-C").arg(d.server()).args(words));
        assert!(out.status.success(), "{out:?}");
        String::from_utf8([out.stdout, out.stderr].concat()).unwrap()
    };
    assert!(cosadm(&["host", "list", "--json"]).contains(r#""denied":null"#));
    m.inner.delete(&id).unwrap();
    d.says(255, &["true"]);
    d.log.wait("cause=unknown-machine");
    // The host table's listing also says that the machine is denied.
    for told in [
        cosadm(&["host", "list", "--json"]),
        cosadm(&["host", "show", "hosta"]),
    ] {
        assert!(told.contains("denied by the registry"), "{told}");
        assert!(told.contains(&format!("machine add {id}")), "{told}");
    }
    // At level 1 it is denied as well, also while a one-time password is waiting for it.
    m.outer.set_level(Level::Open).unwrap();
    for (reason, password) in [
        ("its machine was deleted from the inner door", "x"),
        ("its machine was deleted; `cosadm ", "y"),
    ] {
        d.says(255, &["true"]);
        for told in [
            cosadm(&["host", "list"]),
            cosadm(&["host", "show", "hosta"]),
            checked(&d),
        ] {
            let told: Vec<&str> = told.lines().filter(|l| l.contains("hosta")).collect();
            let told = told.join("\n");
            assert!(told.contains(reason) && !told.contains("may run"), "{told}");
            assert!(told.contains(&format!("machine add {id}")), "{told}");
            assert!(!told.contains("ok       host hosta"), "{told}");
        }
        for told in [cosadm(&["door", "status"]), checked(&d)] {
            let words = "registered, unless deleted or excluded";
            assert!(told.contains(words), "{told}");
        }
        cosadm(&["otp", "add", password]);
    }
    m.inner.add(&id, &name("hosta"), true).unwrap();
    d.says(0, &["true"]);
    // The trust is revoked, but the machine stays known, as any PC does.
    let told = cosadm(&["host", "remove", "hosta"]);
    assert!(told.contains(&format!("machine delete {id}")), "{told}");
}

#[test]
fn closed_outer_door_requires_the_machine_on_both_lists() {
    let (d, mut m) = start();
    let machine = Machine::new(&d);
    m.inner.add(&machine.id(), &name("pc"), true).unwrap();
    // The log names the command that would allow it, and nothing more.
    let is_told = |add, close| {
        let line = machine.is_refused(&d, "unknown-machine");
        let told = ["machine add", "door close"].map(|words| line.contains(words));
        assert_eq!(told, [add, close], "{line}");
    };
    is_told(false, true);
    m.close();
    assert!(machine.is_allowed());
    m.inner.delete(&machine.id()).unwrap();
    is_told(true, false);
    m.inner.add(&machine.id(), &name("pc"), true).unwrap();
    m.outer.delete(List::Include, &machine.id()).unwrap();
    is_told(false, true);
    m.inner.delete(&machine.id()).unwrap();
    is_told(true, false);
    m.outer.set_level(Level::Open).unwrap();
    is_told(true, false);
}

#[test]
fn in_build_mode_a_name_registers() {
    let (d, mut m) = start();
    let machine = Machine::new(&d);
    m.inner.set(&[Setting::BuildMode(true)]).unwrap();
    // Only while the outer door is open.
    machine.is_refused(&d, "unknown-machine");
    m.outer.set_level(Level::Open).unwrap();
    let (by, mut talk) = machine.is_asked();
    assert_eq!(by, Asks::Name);
    assert_eq!(talk.answers("  Reception  "), Ok(vec![]));
    assert_eq!(
        m.inner.machine(&machine.id()).unwrap().unwrap().name,
        name("Reception")
    );
    d.log.wait(&format!(
        "registered machine={} name=Reception",
        machine.id()
    ));
    assert!(machine.is_allowed());
    for wrong in ["", " ", "a\u{1b}[2Jb", &"x".repeat(300)] {
        let (_, mut talk) = Machine::new(&d).is_asked();
        must_be(&d, &talk.answers(wrong).unwrap_err(), "activation");
    }
    assert_eq!(m.inner.count().unwrap(), 1);
}

#[test]
fn an_activation_password_registers_once_under_the_managers_name() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    let machines = [Machine::new(&d), Machine::new(&d), Machine::new(&d)];
    machines[0].is_refused(&d, "unknown-machine");
    m.inner
        .add_chosen(&name("Reception PC"), b"a chosen one")
        .unwrap();
    let made = m.inner.add_generated(&name("Store")).unwrap().shown();
    let (by, mut talk) = machines[0].is_asked();
    assert_eq!(by, Asks::Activation);
    must_be(&d, &talk.answers("a wrong one").unwrap_err(), "activation");
    let (_, mut talk) = machines[0].is_asked();
    assert_eq!(talk.answers("a chosen one"), Ok(vec![]));
    let (_, mut talk) = machines[1].is_asked();
    must_be(&d, &talk.answers("a chosen one").unwrap_err(), "activation");
    let (_, mut talk) = machines[1].is_asked();
    assert_eq!(talk.answers(&made), Ok(vec![]));
    let named = |n: usize| m.inner.machine(&machines[n].id()).unwrap().unwrap().name;
    assert_eq!((named(0), named(1)), (name("Reception PC"), name("Store")));
    // No password is left that could be right.
    machines[2].is_refused(&d, "unknown-machine");
}

/// A connection that only waits at the inner door's prompt makes room for others, and does not lock
/// them out.
#[test]
fn connection_at_the_prompt_is_evicted_for_another_address() {
    let d = Daemon::start_with(
        &format!("{SETTINGS}[limits]\nsilent-per-source = 500\n"),
        "",
    );
    let mut m = Manager::of(&d.server());
    m.outer.set_level(Level::Open).unwrap();
    m.inner.add_chosen(&name("pc"), b"secret").unwrap();
    let mut sitting: Vec<Conversation> = (0..64).map(|_| Machine::new(&d).is_asked().1).collect();
    // The same address gets no more room.
    Machine::new(&d).is_refused(&d, "busy");
    let other = Machine {
        from: IpAddr::from([127, 0, 0, 2]),
        ..Machine::new(&d)
    };
    let (_, mut talk) = other.is_asked();
    must_be(&d, &sitting[0].raw_connection.denied(), "busy");
    assert_eq!(talk.answers("secret"), Ok(vec![]));
    must_be(&d, &sitting[1].answers("secret").unwrap_err(), "activation");
}

#[test]
fn backdoor_password_registers_any_machine() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    m.inner.set_backdoor(Some(b"sesame")).unwrap();
    for _ in 0..2 {
        let machine = Machine::new(&d);
        let (by, mut talk) = machine.is_asked();
        assert_eq!(by, Asks::Activation);
        assert_eq!(talk.answers("sesame"), Ok(vec![]));
        let known = m.inner.machine(&machine.id()).unwrap().unwrap();
        assert_eq!(known.name, name("tester@127.0.0.1"));
        assert!(!known.remote);
    }
}

#[test]
fn outer_door_closed_during_the_prompt_prevents_registration() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    m.inner.add_chosen(&name("pc"), b"secret").unwrap();
    let machine = Machine::new(&d);
    let (_, mut talk) = machine.is_asked();
    m.outer.set_level(Level::Closed).unwrap();
    must_be(&d, &talk.answers("secret").unwrap_err(), "activation");
    assert_eq!(m.inner.passwords().unwrap().len(), 1);
    assert_eq!(m.inner.count().unwrap(), 0);
}

/// A writer delays a registration, and the manager closes the outer door at the same time: the
/// decision from before no longer counts.
#[test]
fn outer_door_closed_while_a_registration_waits_denies_it() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    m.inner.add_chosen(&name("pc"), b"secret").unwrap();
    let (closed, excluded) = (Machine::new(&d), Machine::new(&d));
    for machine in [&closed, &excluded] {
        m.outer.set_level(Level::Open).unwrap();
        let (_, mut talk) = machine.is_asked();
        let writer = writing(m.inner.file());
        talk.sends("secret");
        let processes = || daemon::of_role(d.pid(), "registry");
        until("it registers", || processes() == 1);
        if machine.id() == closed.id() {
            m.outer.set_level(Level::Closed).unwrap();
        } else {
            m.outer.put(List::Exclude, &machine.id(), "").unwrap();
        }
        drop(writer);
        must_be(&d, &talk.raw_connection.denied(), "activation");
        assert!(m.inner.machine(&machine.id()).unwrap().is_none());
        assert_eq!(m.inner.passwords().unwrap().len(), 1);
    }
}

/// Each denial has the penalty of a wrong proof for its source, which is left with one slot at a
/// time.
#[test]
fn denial_by_the_registry_is_penalised() {
    let settings =
        "[daemon]\nrefusal-interval = 1\n[penalties]\nauthfail = 100\nmin = 50\nexempt = []\n";
    let d = Daemon::start_with(settings, "");
    let mut m = Manager::of(&d.server());
    m.outer.set_level(Level::Open).unwrap();
    let has_one_slot = |machine: &Machine| {
        let mut first = RawConnection::greeted(machine.from, d.port);
        let _second = RawConnection::greeted(machine.from, d.port);
        // At once, and not by its deadline.
        let ((), took) = timed(|| first.closed());
        assert!(took < Duration::from_secs(5), "{took:?}");
    };
    let at = |n| Machine {
        from: IpAddr::from([127, 9, 9, n]),
        ..Machine::new(&d)
    };
    let unknown = at(1);
    unknown.is_refused(&d, "unknown-machine");
    has_one_slot(&unknown);
    let banned = at(2);
    m.outer.put(List::Exclude, &banned.id(), "").unwrap();
    banned.is_refused(&d, "excluded");
    has_one_slot(&banned);
    m.inner.add_chosen(&name("pc"), b"secret").unwrap();
    let guesser = at(3);
    let (_, mut talk) = guesser.is_asked();
    talk.sends("guessed");
    must_be(&d, &talk.raw_connection.denied(), "activation");
    has_one_slot(&guesser);
}

/// Regression: the page said that End comes at once, but three messages came before it.
#[test]
fn what_comes_with_a_registration_is_what_the_page_says() {
    use cosserver::protocol::stream::Message;
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    let machine = Machine::new(&d);
    m.inner.add(&machine.id(), &name("pc"), true).unwrap();
    let request = machine.request(Service::Enrol, &[]);
    let opening = Opening {
        request: &request,
        credential: Credential::Machine,
    };
    let (raw_connection, noise) = machine.sends(&opening.encode().unwrap());
    let mut session = raw_connection.session(noise);
    let mut came = Vec::new();
    while let Some(mut record) = session.raw_connection.record() {
        let text = session.opener.open(&mut record[2..]).unwrap();
        came.push(match Message::parse(text).unwrap() {
            Message::Reset(stream) => format!("Reset {}", stream as u8),
            Message::Eof(stream) => format!("Eof {}", stream as u8),
            Message::End(end) => format!("{end:?}"),
            Message::Data(..) | Message::Credit(..) | Message::Signal(_) => "other".to_owned(),
        });
    }
    assert_eq!(came.pop().as_deref(), Some("Exited(0)"), "{came:?}");
    came.sort_unstable();
    assert_eq!(came, ["Eof 0", "Eof 1", "Reset 0"]);
}

/// Regression: a client that hung up before it was told was only penalised for leaving, and if the
/// inner door was slow, the log did not show its guess.
#[test]
fn disconnect_hides_no_wrong_activation_password_or_other_refusal() {
    let settings = "[daemon]\nrefusal-interval = 1\n[penalties]\nauthfail = 100\nnoauth = 0\n\
        grace-exceeded = 0\nmin = 50\nexempt = []\n";
    let d = Daemon::start_with(settings, "");
    let mut m = Manager::of(&d.server());
    m.outer.set_level(Level::Open).unwrap();
    m.inner.add_chosen(&name("pc"), b"secret").unwrap();
    // Soon after the log line: the gate learns of the penalty a moment later.
    let has_one_slot = |from: IpAddr| {
        until("one slot is left", || {
            let mut both = [(); 2].map(|()| RawConnection::greeted(from, d.port));
            d.gate_at_rest();
            both.iter_mut()
                .filter_map(|s| s.is_open().then_some(()))
                .count()
                == 1
        });
    };
    let guesser = Machine {
        from: IpAddr::from([127, 9, 8, 1]),
        ..Machine::new(&d)
    };
    let (_, mut talk) = guesser.is_asked();
    talk.sends("guessed");
    drop(talk);
    let line = d.log.wait("cause=activation");
    assert!(
        line.contains("denied ref=") && line.contains("peer=127.9.8.1 "),
        "{line}"
    );
    has_one_slot(guesser.from);
    // A host at an address that is not its own; it leaves after its last byte.
    let from = IpAddr::from([127, 9, 8, 2]);
    let caller = Caller::of(&d);
    let mut raw_connection = RawConnection::from_address(from, d.port);
    let greeting = raw_connection.greet();
    let (hello, _) = caller.client_hello(&greeting, &caller.request("true"));
    raw_connection.send(&hello);
    drop(raw_connection);
    d.log.wait("peer=127.9.8.2 cause=address");
    has_one_slot(from);
}

/// The time when a machine was last seen is recorded, once an hour.
#[test]
fn allowed_machine_is_recorded_as_seen() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    let machine = Machine::new(&d);
    m.inner.add(&machine.id(), &name("pc"), true).unwrap();
    let records = Seen::of(&Paths::of_dir(&d.server()));
    let seen = || records.get(&machine.id());
    assert_eq!(seen(), None);
    assert!(machine.is_allowed());
    until("it was seen", || seen().is_some());
    let path = d.server().join("state/seen");
    let set = |ago: i64| {
        let text = fs::read_to_string(&path).unwrap();
        let then = Occurred(Occurred::now().0 - ago);
        let was = format!("{} {}", machine.id(), seen().unwrap());
        assert!(text.contains(&was), "{text}");
        let is = format!("{} {then}", machine.id());
        fs::write(&path, text.replace(&was, &is)).unwrap();
        assert_eq!(seen(), Some(then));
        seen()
    };
    let before = set(3_000);
    assert!(machine.is_allowed());
    // After this, no earlier write is still pending.
    m.inner.set(&[Setting::BuildMode(true)]).unwrap();
    assert_eq!(Machine::new(&d).is_asked().1.answers("new"), Ok(vec![]));
    assert_eq!(seen(), before);
    let before = set(4_000);
    assert!(machine.is_allowed());
    until("it was seen again", || seen() > before);
}

/// A client that guesses and hangs up is not faster than one that waits for its denial.
#[test]
fn not_waiting_for_the_denial_does_not_speed_up_activation_guesses() {
    let d = Daemon::start_with("[penalties]\nexempt = []\n", "");
    let mut m = Manager::of(&d.server());
    m.outer.set_level(Level::Open).unwrap();
    m.inner.set_backdoor(Some(b"sesame")).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_secs(6);
    let mut guesses = 0;
    while std::time::Instant::now() < end {
        let mut machine = Machine::new(&d);
        // Not a host of the table, for which slots are reserved.
        machine.from = IpAddr::from([127, 0, 0, 77]);
        if let Some(mut talk) = machine.tries() {
            // The effect shows that a guess is checked: this one is right.
            talk.sends("sesame");
            guesses += 1;
        }
    }
    assert!(guesses > 0, "nobody is asked");
    let looked_up = m.inner.count().unwrap();
    assert!(
        (1..=20).contains(&looked_up),
        "{looked_up} of {guesses} in 6 s"
    );
}

#[test]
fn welcome_text_reaches_allowed_machines() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    let words = "Welcome to hostb";
    m.inner
        .set(&[Setting::Welcome(words.into()), Setting::BuildMode(true)])
        .unwrap();
    let machine = Machine::new(&d);
    let (_, mut talk) = machine.is_asked();
    assert_eq!(talk.answers("pc"), Ok(vec![words.to_owned()]));
    let Outcome::Accepted(texts) = machine.enrols() else {
        panic!("it is not let in");
    };
    assert_eq!(texts, [words]);
    // A command's output is not changed.
    assert_eq!(d.says(0, &["echo", "x"]), b"x\n");
}

#[test]
fn registry_skips_local_machines_at_the_remote_only_level() {
    let (d, mut m) = start();
    let machine = Machine::new(&d);
    machine.is_refused(&d, "unknown-machine");
    m.inner.set(&[Setting::RemoteOnly(true)]).unwrap();
    assert!(machine.is_allowed());
    m.outer.put(List::Exclude, &machine.id(), "").unwrap();
    machine.is_refused(&d, "excluded");
}

#[test]
fn at_level_0_the_registry_is_not_consulted() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Off).unwrap();
    assert!(Machine::new(&d).is_allowed());
    assert_eq!(m.inner.count().unwrap(), 0);
}

/// If a host's signer vouches for a user, the registry checks the host's machine; but a user whose
/// own key is excluded is denied.
#[test]
fn registry_checks_the_machine_of_the_vouching_host() {
    let (d, mut m) = start();
    let caller = Caller::of(&d);
    let user = KeyPair::random().unwrap();
    let asks = || {
        let mut raw_connection = RawConnection::connect(d.port);
        let greeting = raw_connection.greet();
        let request = caller.request("true");
        let opening = vouch(&caller, &user, &nonce(&greeting), &request);
        let (hello, _) = shake(&caller, &user, &greeting, &opening);
        raw_connection.send(&hello);
        let record = raw_connection.record().expect("neither yes nor no");
        let envelope = record::parse(&record, &[Kind::Answer, Kind::Denied]).unwrap();
        (envelope.kind == Kind::Denied).then(|| hex(envelope.content))
    };
    // Which user it may be is checked later: the registry has allowed it.
    if let Some(reference) = asks() {
        must_be(&d, &reference, "user");
    }
    let (host, own) = (Id::of(&caller.machine.public), Id::of(&user.public));
    until("the host is on the list", || {
        m.inner.machine(&host).unwrap().is_some()
    });
    assert!(m.inner.machine(&own).unwrap().is_none());
    assert!(!is_deleted(&m.inner, &own));
    for id in [host, own] {
        m.outer.put(List::Exclude, &id, "").unwrap();
        must_be(
            &d,
            &asks().expect("an excluded machine is let in"),
            "excluded",
        );
        m.outer.delete(List::Exclude, &id).unwrap();
    }
    m.inner.delete(&host).unwrap();
    must_be(
        &d,
        &asks().expect("a deleted machine is let in"),
        "unknown-machine",
    );
}

/// A known machine without a cookie gains nothing.
#[test]
fn registered_machine_is_not_a_host() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Off).unwrap();
    let machine = Machine::new(&d);
    for (credential, service, words) in [
        (Credential::Machine, Service::Exec, &["id"][..]),
        (Credential::Password, Service::Exec, &["id"]),
        (Credential::Password, Service::Enrol, &[]),
    ] {
        let Outcome::Denied(reference) = machine.asks(credential, service, words) else {
            panic!("it is not refused");
        };
        must_be(&d, &reference, "handshake");
    }
}

#[test]
fn exclusion_with_now_hangs_up_the_machines_session() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    m.inner.set(&[Setting::BuildMode(true)]).unwrap();
    let session = d.session(&["echo here; sleep 1000"]);
    session.out.wait("here");
    let id = Id::of(&Caller::of(&d).machine.public);
    m.outer.put(List::Exclude, &id, "hosta").unwrap();
    assert_eq!(cut(&d, id), 1);
    let ended = session.finish();
    assert_ne!(ended.status, Some(0));
    d.log.wait("how=cut");
    // Also a machine at the inner door's prompt.
    let machine = Machine::new(&d);
    let (_, mut talk) = machine.is_asked();
    assert_eq!(cut(&d, machine.id()), 1);
    must_be(&d, &talk.raw_connection.denied(), "excluded");
    assert_eq!(cut(&d, machine.id()), 0);
}

/// Tells the daemon to hang a machine up, as `cosadm exclude add --now` does.
fn cut(d: &Daemon, id: Id) -> u64 {
    use cosserver::ipc::control::{Answer, Question};
    use cosserver::sys::local;
    let socket = local::call(&d.server().join("run/control"), daemon::PATIENCE).unwrap();
    nix::unistd::write(&socket, &Question::Cut(id.0).encode()).unwrap();
    let mut buffer = [0; 256];
    let n = nix::unistd::read(&socket, &mut buffer).unwrap();
    match Answer::decode(&buffer[..n]) {
        Some(Answer::Cut(count)) => count,
        other => panic!("{other:?}"),
    }
}

// ---- the registry worker ----

/// Starts a daemon whose inner door is in a directory that other hosts share, which it reads by the
/// registry worker. The worker has been used.
fn start_shared() -> (Daemon, Manager) {
    let (d, mut m) = start();
    let shared = d.folder.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o700)).unwrap();
    Inner::create(&Inner::path(&Paths::of_dir(&d.server()), Some(&shared))).unwrap();
    m.outer.set_folder(Some(&shared)).unwrap();
    d.says(0, &["true"]);
    (d, m)
}

fn registry_worker(d: &Daemon) -> Pid {
    Pid::from_raw(d.process("registry"))
}

/// It holds the registry's files and its channel, and no socket of an unauthenticated connection;
/// tests/sandbox.rs checks that it has no key.
#[test]
fn registry_worker_can_open_only_its_own_files() {
    // Only root can see what it holds.
    if !daemon::needs_root() {
        return;
    }
    let (d, _m) = start_shared();
    let pid = registry_worker(&d).as_raw();
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open = open.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    // A folder in which a file was just replaced is open while it is synced.
    let folders = [d.folder.path("shared"), d.server().join("state")];
    for path in open.filter(|path| !folders.contains(path)) {
        let text = path.display().to_string();
        let ours = [
            "/sestab",
            "/idfile",
            "/seen",
            // A file that is being written.
            "/.cosserver-",
            "/dev/null",
            "socket:",
            "pipe:",
        ];
        assert!(ours.iter().any(|part| text.contains(part)), "{text}");
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
}

#[test]
fn registry_worker_that_dies_is_restarted() {
    let (d, _m) = start_shared();
    for _ in 0..3 {
        let old = registry_worker(&d);
        kill(old, Signal::SIGKILL).unwrap();
        d.says(0, &["true"]);
        assert_ne!(registry_worker(&d), old);
        assert_eq!(daemon::of_role(d.pid(), "registry"), 1);
    }
}

#[test]
fn hanging_registry_worker_times_out_and_denies() {
    let (d, mut m) = start_shared();
    daemon::stop(registry_worker(&d).as_raw());
    d.says(255, &["true"]);
    d.log.wait("cause=registry");
    d.says(0, &["true"]);
    m.outer.set_level(Level::Off).unwrap();
    assert!(Machine::new(&d).is_allowed());
}

#[test]
fn registry_file_damaged_at_run_time_denies_and_is_named_in_the_log() {
    let (d, m) = start();
    d.says(0, &["true"]);
    // The record of the first proof is written: it would replace the damaged file.
    let host = Id::of(&Caller::of(&d).machine.public);
    until("the host is on the list", || {
        m.inner.machine(&host).unwrap().is_some()
    });
    drop(m);
    let path = d.server().join("state/idfile");
    let good = fs::read(&path).unwrap();
    for bad in [vec![b'x'; 9_000], Vec::new()] {
        fs::write(&path, bad).unwrap();
        d.says(255, &["true"]);
        let line = d.log.wait("cause=registry");
        assert!(line.contains("idfile"), "{line}");
    }
    fs::write(&path, &good).unwrap();
    d.says(0, &["true"]);
}

/// The inner door is moved to another directory: another registry worker replaces the one that
/// could not read there.
#[test]
fn inner_door_can_be_moved_under_a_running_daemon() {
    let (d, mut m) = start();
    d.says(0, &["true"]);
    let shared = d.folder.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o700)).unwrap();
    let path = Inner::path(&Paths::of_dir(&d.server()), Some(&shared));
    Inner::create(&path).unwrap();
    let mut inner = Inner::open(&path).unwrap();
    m.outer.set_folder(Some(&shared)).unwrap();
    m.outer.set_level(Level::Open).unwrap();
    let machine = Machine::new(&d);
    machine.is_refused(&d, "unknown-machine");
    inner.add(&machine.id(), &name("pc"), true).unwrap();
    assert!(machine.is_allowed());
    inner.set(&[Setting::BuildMode(true)]).unwrap();
    let newcomer = Machine::new(&d);
    assert_eq!(newcomer.is_asked().1.answers("new"), Ok(vec![]));
    assert!(inner.machine(&newcomer.id()).unwrap().is_some());
    // Gone with its directory: every machine is denied, and nothing is created there.
    drop(inner);
    fs::rename(&shared, d.folder.path("away")).unwrap();
    machine.is_refused(&d, "registry");
    fs::rename(d.folder.path("away"), &shared).unwrap();
    assert!(machine.is_allowed());
    // Another directory in its place, as after a new mount.
    let copy = d.folder.path("copy");
    daemon::must(Command::new("cp").arg("-a").args([&shared, &copy]));
    fs::rename(&shared, d.folder.path("old")).unwrap();
    fs::rename(&copy, &shared).unwrap();
    assert!(machine.is_allowed());
}

/// The registry is on this host only: the monitor reads it by itself, without a registry worker,
/// and a writer delays no connection. A registration waits for it, and is denied if it takes long.
#[test]
fn registry_writer_delays_only_registrations() {
    let (d, mut m) = start();
    m.outer.set_level(Level::Open).unwrap();
    m.inner.set(&[Setting::BuildMode(true)]).unwrap();
    let (known, banned) = (Machine::new(&d), Machine::new(&d));
    m.inner.add(&known.id(), &name("pc"), true).unwrap();
    m.outer.put(List::Exclude, &banned.id(), "banned").unwrap();
    let newcomer = Machine::new(&d);
    let (_, mut talk) = newcomer.is_asked();
    let writers = [m.inner.file().to_owned(), d.server().join("state/sestab")];
    let writers = writers.map(|file| writing(&file));
    talk.sends("new");
    until("it registers", || daemon::of_role(d.pid(), "registry") == 1);
    let (_, took) = timed(|| assert!(known.is_allowed()));
    assert!(took < Duration::from_secs(1), "{took:?}");
    banned.is_refused(&d, "excluded");
    let line = d.log.wait("cause=registry");
    assert!(line.contains("idfile"), "{line}");
    assert!(line.contains("has been writing it"), "{line}");
    drop(writers);
    assert_eq!(Machine::new(&d).is_asked().1.answers("new"), Ok(vec![]));
}

// ---- the start ----

/// Both `-t` and a start report all of these, in one line.
fn refuses_to_start(folder: &Folder, words: &[&str]) {
    for flag in ["-t", "-D"] {
        let mut command = Command::new(COSSERVER);
        command.args([flag, "-e", "-p", "0", "-f"]);
        let out = daemon::run(command.arg(folder.path("S/cosserver.toml")));
        let told = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{told}");
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        assert!(told.lines().any(has_all), "{flag}: {told}");
    }
}

#[test]
fn daemon_with_a_damaged_registry_does_not_start_and_changes_nothing() {
    let folder = daemon::prepare("", "");
    let mut m = Manager::of(&folder.path("S"));
    m.inner.add(&Id([7; 16]), &name("pc"), true).unwrap();
    m.outer.put(List::Exclude, &Id([8; 16]), "gone").unwrap();
    drop(m);
    for file in ["sestab", "idfile"] {
        let path: PathBuf = folder.path("S/state").join(file);
        let good = fs::read(&path).unwrap();
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        let newer = String::from_utf8(good.clone()).unwrap();
        let newer = newer.replace(
            &format!("cosserver {file} 1"),
            &format!("cosserver {file} 99"),
        );
        let torn = good[..good.len() - 1].to_vec();
        for (bad, words) in [
            (vec![0; 100], "it is not the"),
            (torn, "damaged"),
            (newer.into_bytes(), "another version"),
        ] {
            fs::write(&path, &bad).unwrap();
            let written = fs::File::options().write(true).open(&path).unwrap();
            written.set_modified(modified).unwrap();
            refuses_to_start(&folder, &[file, words]);
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
        fs::write(&path, &good).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        refuses_to_start(&folder, &[file, "chmod 600"]);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
    let d = Daemon::start_in(folder, &[]);
    d.says(0, &["true"]);
}

/// A missing registry file is not silently recreated: excluded or deleted machines would be
/// allowed. The daemon starts, denies, and serves again when the file is back.
#[test]
fn missing_registry_file_is_not_silently_recreated() {
    let mut folder = daemon::prepare("", "");
    drop(Manager::of(&folder.path("S")));
    let both = ["sestab", "idfile"];
    for gone in [&both[..1], &both[1..], &both[..]] {
        let away = |file: &str| (folder.path("S/state").join(file), folder.path(file));
        let files: Vec<_> = gone.iter().map(|file| away(file)).collect();
        for (path, copy) in &files {
            fs::rename(path, copy).unwrap();
        }
        let words = [gone[0], "gone", "cosadm", "init"];
        let has_all = |line: &str| words.iter().all(|word| line.contains(word));
        let mut tested = Command::new(COSSERVER);
        let tested = tested.arg("-tf").arg(folder.path("S/cosserver.toml"));
        let tested = daemon::run(tested);
        assert_eq!(tested.status.code(), Some(1));
        let told = String::from_utf8(tested.stderr).unwrap();
        assert!(told.lines().any(has_all), "{told}");
        let mut d = Daemon::start_in(folder, &[]);
        d.log
            .wait_from(0, |l| l.starts_with("degraded why=") && has_all(l));
        d.says(255, &["true"]);
        d.log
            .wait_from(0, |l| l.contains("cause=registry") && has_all(l));
        for (path, copy) in &files {
            assert!(!path.exists(), "it was made anew");
            fs::rename(copy, path).unwrap();
        }
        assert_eq!(d.says(0, &["echo back"]), b"back\n");
        folder = std::mem::take(&mut d.folder);
    }
}

/// Earlier decisions still apply after a restart.
#[test]
fn registry_decisions_survive_a_restart() {
    let folder = daemon::prepare("", "");
    let mut m = Manager::of(&folder.path("S"));
    m.inner.add(&Id([7; 16]), &name("pc"), true).unwrap();
    m.close();
    m.outer.put(List::Exclude, &Id([8; 16]), "gone").unwrap();
    drop(m);
    let d = Daemon::start_in(folder, &[]);
    d.says(0, &["true"]);
    let m = Manager::of(&d.server());
    assert_eq!(m.outer.level().unwrap(), Level::Closed);
    assert!(m.outer.get(List::Exclude, &Id([8; 16])).unwrap().is_some());
    assert!(m.outer.get(List::Include, &Id([7; 16])).unwrap().is_some());
}

// ---- inetd ----

#[test]
fn under_inetd_the_registry_decides_the_same() {
    let d = Daemon::inetd_as(SETTINGS);
    let mut m = Manager::of(&d.server());
    let machine = Machine::new(&d);
    assert_eq!(d.says(0, &["echo", "in"]), b"in\n");
    let id = Id::of(&Caller::of(&d).machine.public);
    until("the host is on the list", || {
        m.inner.machine(&id).unwrap().is_some()
    });
    assert!(matches!(machine.enrols(), Outcome::Denied(_)));
    m.outer.set_level(Level::Open).unwrap();
    m.inner.add_chosen(&name("pc"), b"secret").unwrap();
    let (_, mut talk) = machine.is_asked();
    assert_eq!(talk.answers("secret"), Ok(vec![]));
    assert!(machine.is_allowed());
    m.outer.put(List::Exclude, &id, "hosta").unwrap();
    d.says(255, &["true"]);
}

/// Each of inetd's daemons knows only its own connection: it is told to check again.
#[test]
fn under_inetd_exclusion_with_now_hangs_up_the_machines_session() {
    let d = Daemon::inetd_as(SETTINGS);
    let exclude = |id: Id| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cosadm"));
        command.arg("-C").arg(d.server());
        command.args(["exclude", "add", "--now", "--json", &id.to_string()]);
        let out = daemon::must(&mut command);
        String::from_utf8(out).unwrap()
    };
    let mut m = Manager::of(&d.server());
    let id = Id::of(&Caller::of(&d).machine.public);
    let said = exclude(Machine::new(&d).id());
    assert!(said.contains(r#""cut":null,"told":0"#), "{said}");
    let sessions: Vec<_> = (0..3)
        .map(|n| {
            let session = d.session(&["echo here; sleep 1000"]);
            session.out.wait("here");
            assert_eq!(daemon::children(d.pid()).len(), n + 1);
            session
        })
        .collect();
    // The exclusion of another machine does not affect them.
    let said = exclude(Machine::new(&d).id());
    assert!(said.contains(r#""told":3"#), "{said}");
    assert_eq!(daemon::children(d.pid()).len(), 3);
    let said = exclude(id);
    assert!(said.contains(r#""told":3"#), "{said}");
    for session in sessions {
        assert_ne!(session.finish().status, Some(0));
    }
    until("the daemons have ended", || {
        daemon::children(d.pid()).is_empty()
    });
    d.log.said_times("how=cut", 3);
    // Also a machine at the inner door's prompt.
    m.outer.set_level(Level::Open).unwrap();
    m.inner.add_chosen(&name("pc"), b"secret").unwrap();
    let machine = Machine::new(&d);
    let (_, mut talk) = machine.is_asked();
    exclude(machine.id());
    must_be(&d, &talk.raw_connection.denied(), "excluded");
}
