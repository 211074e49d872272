//! Machines simulated by the test that connect to the registry, and the manager's access to both of
//! its files. Each machine has its own key and implements the protocol by itself.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use cosserver::config::keys;
use cosserver::config::paths::Paths;
use cosserver::protocol::answer::Answer;
use cosserver::protocol::hello::{Hello, ServerHello};
use cosserver::protocol::noise::{Initiator, Prepared};
use cosserver::protocol::opening::{Credential, Opening};
use cosserver::protocol::prompt::{Answers, Asks, Text};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{Command, Request, Service};
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::End;
use cosserver::registry::inner::Machine as Authorized;
use cosserver::registry::{Id, Inner, Level, Name, Outer};
use cosserver::secret::{KeyPair, PublicKey};
use zeroize::Zeroizing;

use crate::daemon::hostile::{RawConnection, Session};
use crate::daemon::{Daemon, Folder};

/// Denials come as early as possible, and a wrong password has its default penalty.
pub const QUICK: &str = "[daemon]\nrefusal-interval = 1\n";

/// Makes a valid name.
pub fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// Returns a loopback address from which no connection has come yet.
pub fn fresh_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    // From 127.16.0.0 on: each number once, for 15 million calls.
    IpAddr::V4(Ipv4Addr::from(0x7f10_0000 + n % 0x00ef_ffff))
}

/// A daemon's registry, with the manager's access to it.
pub struct Manager {
    pub outer: Outer,
    pub inner: Inner,
}

impl Manager {
    /// Opens that of a daemon that has created its registry.
    pub fn of(d: &Daemon) -> Self {
        Self::in_folder(&d.server())
    }

    /// Opens that of a directory.
    pub fn in_folder(server: &Path) -> Self {
        let paths = Paths::of_dir(server);
        let outer = Outer::open(&paths).unwrap();
        let folder = outer.folder().unwrap();
        let inner = Inner::open(&Inner::path(&paths, folder.as_deref())).unwrap();
        Self { outer, inner }
    }

    /// The same, with the outer door at this level.
    pub fn at(d: &Daemon, level: Level) -> Self {
        let mut manager = Self::of(d);
        manager.outer.set_level(level).unwrap();
        manager
    }

    /// Returns all machines that the inner door knows.
    pub fn machines(&self) -> Vec<Authorized> {
        self.inner.machines().unwrap()
    }

    /// Closes the outer door, as leaving IDMAINT does.
    pub fn close(&mut self) -> u64 {
        let Self { outer, inner } = self;
        let machines = inner.machines().unwrap().into_iter();
        outer
            .close(machines.map(|m| (m.id, m.name)).collect())
            .unwrap()
    }
}

/// Returns whether the administrator has deleted a machine.
pub fn is_deleted(inner: &Inner, id: &Id) -> bool {
    let text = std::fs::read_to_string(inner.file()).unwrap();
    let line = format!("{id} deleted ");
    text.lines().any(|l| l.starts_with(&line))
}

/// Builds a library that is loaded into a program in a test (LD_PRELOAD): `killer` or `hang`.
pub fn preload(folder: &Path, name: &str) -> PathBuf {
    let library = folder.join(format!("{name}.so"));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/door");
    let mut cc = std::process::Command::new("cc");
    cc.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
    let source = source.join(format!("{name}.c"));
    crate::daemon::must(cc.arg(&library).arg(source).arg("-ldl"));
    library
}

/// Writes a registry file, until it is dropped: holds the lock of its writers. Must be the only one
/// in this process that uses this lock.
pub fn writing(file: &Path) -> std::fs::File {
    let lock = std::fs::File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(format!("{}.lock", file.display()))
        .unwrap();
    assert_eq!(cosserver::sys::locks::take(&lock, 0), Ok(true));
    lock
}

/// Creates a directory for an inner door that several hosts share, with the inner door in it.
pub fn shared_door(folder: &Folder) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.path("shared");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    Inner::create(&path.join("idfile")).unwrap();
    path
}

/// A machine with its own key and its own address.
#[derive(Clone)]
pub struct Machine {
    pub key: KeyPair,
    pub from: IpAddr,
}

/// The answer to a machine.
pub enum Outcome {
    /// The inner door prompts.
    Asked(Box<Conversation>),
    /// It is allowed, with these texts.
    In(Vec<Text>),
    /// Denied, with this reference.
    Denied(String),
    /// The connection was cut without an answer: the daemon has died.
    Cut,
}

/// The inner door has prompted, and waits.
pub struct Conversation {
    raw_connection: RawConnection,
    sealer: Sealer,
    opener: Opener,
    /// What it prompts for.
    pub by: Asks,
}

impl Machine {
    /// Creates an unknown machine.
    pub fn new() -> Self {
        Self {
            key: KeyPair::random().unwrap(),
            from: fresh_address(),
        }
    }

    /// Returns its ID.
    pub fn id(&self) -> Id {
        Id::of(&self.key.public)
    }

    /// Greets the host that has this key, and makes a handshake with this payload.
    pub fn shakes_hands(&self, at: &At, payload: &[u8]) -> Option<(RawConnection, Initiator)> {
        self.shakes_hands_after(at, payload, || ())
    }

    /// The same, and does this between the greeting and the handshake.
    fn shakes_hands_after(
        &self,
        at: &At,
        payload: &[u8],
        between: impl FnOnce(),
    ) -> Option<(RawConnection, Initiator)> {
        let mut raw_connection = RawConnection::try_from_address(self.from, at.port).ok()?;
        let hello = crate::daemon::hostile::hello();
        raw_connection.send(&hello);
        let theirs = raw_connection.record()?;
        let said = ServerHello::parse(&theirs, &Hello::parse(&hello).unwrap()).unwrap();
        let mut noise = Initiator::new(
            said.suite,
            &self.key,
            &at.host,
            &hello,
            &theirs,
            Prepared::default(),
        )
        .unwrap();
        let message = noise.message_1(payload).unwrap();
        between();
        raw_connection.send(&record::compose(Kind::ClientHello, &message).unwrap());
        Some((raw_connection, noise))
    }

    /// Returns the opening of a registration request.
    pub fn enrolment() -> Vec<u8> {
        let request = Request {
            service: Service::Enrol,
            user: "tester".into(),
            caller_user: "tester".parse().unwrap(),
            command: Command::Words(Vec::new()),
            environment: Vec::new(),
            linger: None,
        };
        let opening = Opening {
            request: &request.encode().unwrap(),
            credential: Credential::Machine,
        };
        opening.encode().unwrap()
    }

    /// Requests registration, and returns the answer.
    pub fn calls(&self, at: &At) -> Outcome {
        self.calls_after(at, || ())
    }

    /// The same, and does this between the greeting and the handshake.
    pub fn calls_after(&self, at: &At, between: impl FnOnce()) -> Outcome {
        let handshake = self.shakes_hands_after(at, &Self::enrolment(), between);
        let Some((mut raw_connection, noise)) = handshake else {
            return Outcome::Cut;
        };
        let Some(answer) = raw_connection.record() else {
            return Outcome::Cut;
        };
        let envelope = record::parse(&answer, &[Kind::Answer, Kind::Denied]).unwrap();
        if envelope.kind == Kind::Denied {
            return denied(raw_connection, envelope.content);
        }
        let (payload, keys) = noise.read_2(envelope.content).unwrap();
        let sealer = Sealer::new(keys.suite, &keys.to_server).unwrap();
        let opener = Opener::new(keys.suite, &keys.to_client).unwrap();
        match Answer::decode(&payload).unwrap() {
            Answer::Prompts { by, .. } => Outcome::Asked(Box::new(Conversation {
                raw_connection,
                sealer,
                opener,
                by,
            })),
            Answer::Accept { texts, .. } => is_over(raw_connection, sealer, opener, texts),
            Answer::SendCommand => panic!("it asks for a command"),
        }
    }

    /// Requests registration, and must be prompted for this.
    pub fn is_asked(&self, at: &At, wanted: Asks) -> Conversation {
        match self.calls(at) {
            Outcome::Asked(talk) => {
                assert_eq!(talk.by, wanted);
                *talk
            }
            other => panic!("not asked: {other:?}"),
        }
    }

    /// Requests registration, and must be allowed without a prompt.
    pub fn is_known(&self, at: &At) {
        let outcome = self.calls(at);
        assert!(matches!(outcome, Outcome::In(_)), "not let in: {outcome:?}");
    }

    /// Requests registration, and must be denied; returns the reference.
    pub fn is_refused(&self, at: &At) -> String {
        match self.calls(at) {
            Outcome::Denied(reference) => reference,
            other => panic!("not refused: {other:?}"),
        }
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked(talk) => write!(f, "asked by {:?}", talk.by),
            Self::In(texts) => write!(f, "let in: {texts:?}"),
            Self::Denied(reference) => write!(f, "denied {reference}"),
            Self::Cut => write!(f, "cut"),
        }
    }
}

/// The target of a connection: a daemon's port and its host's key.
#[derive(Clone)]
pub struct At {
    pub port: u16,
    pub host: PublicKey,
}

impl At {
    /// That of a daemon.
    pub fn of(d: &Daemon) -> Self {
        let paths = Paths::of_dir(&d.server());
        Self {
            port: d.port,
            host: keys::load_host_key(&paths).unwrap().public,
        }
    }
}

impl Conversation {
    /// Answers with this text, and returns the reply.
    pub fn types(mut self, text: &str) -> Outcome {
        let typed = Zeroizing::new(text.as_bytes().to_vec());
        let mut content = Answers::new(vec![typed]).unwrap().encode().unwrap();
        let tag = self.sealer.seal(&mut content).unwrap();
        content.extend_from_slice(&tag);
        self.raw_connection
            .send(&record::compose(Kind::Sealed, &content).unwrap());
        let Some(answer) = self.raw_connection.record() else {
            return Outcome::Cut;
        };
        let envelope = record::parse(&answer, &[Kind::Sealed, Kind::Denied]).unwrap();
        if envelope.kind == Kind::Denied {
            return denied(self.raw_connection, envelope.content);
        }
        let mut sealed = envelope.content.to_vec();
        let text = self.opener.open(&mut sealed).unwrap();
        match Answer::decode(text).unwrap() {
            Answer::Accept { texts, .. } => Outcome::In(texts),
            Answer::Prompts { .. } => panic!("it asks again"),
            Answer::SendCommand => panic!("it asks for a command"),
        }
    }
}

fn denied(mut raw_connection: RawConnection, content: &[u8]) -> Outcome {
    assert_eq!(raw_connection.rest(), b"", "more than a refusal");
    let reference = cosserver::protocol::answer::parse_denied(content).unwrap();
    Outcome::Denied(reference.to_hex())
}

/// A machine that is already known gets an empty session.
fn is_over(
    raw_connection: RawConnection,
    sealer: Sealer,
    opener: Opener,
    texts: Vec<Text>,
) -> Outcome {
    let mut session = Session {
        raw_connection,
        sealer,
        opener,
    };
    let (output, end) = session.finish();
    assert!(output.is_empty(), "a session with something in it");
    match end {
        Some(End::Exited(0)) => Outcome::In(texts),
        Some(other) => panic!("it ended by {other:?}"),
        None => Outcome::Cut,
    }
}
