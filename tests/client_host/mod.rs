//! A host for the client to connect to: the server's side of the protocol, controlled by the test,
//! and a private configuration directory for it.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "a module of several test programs, of which each uses a part"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use cosserver::config::name::HostName;
use cosserver::config::paths::Paths;
use cosserver::config::{cookie, keys, known_hosts};
use cosserver::protocol::answer::{self, Answer, Reference};
use cosserver::protocol::hello::{Hello, ServerHello};
use cosserver::protocol::limits::LENGTH_BYTES;
use cosserver::protocol::noise::{Keys, Prepared, Responder};
use cosserver::protocol::opening::Opening;
use cosserver::protocol::proof::{self, Claim, Side};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::Request;
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::{End, Message, Signal, Stream};
use cosserver::secret::{KeyPair, PublicKey, Secret, random};

/// Longer than anything in these tests takes; a process that hangs fails the test.
const HANGS: Duration = Duration::from_secs(60);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A host, and a client's directory in which it is `hostb`.
pub struct Host {
    pub folder: PathBuf,
    pub paths: Paths,
    pub listener: TcpListener,
    pub key: KeyPair,
    pub cookie: Secret,
}

impl Host {
    pub fn new() -> Self {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cosserver-client-{}-{number}", std::process::id());
        let folder = fs::canonicalize(std::env::temp_dir()).unwrap().join(name);
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let paths = Paths::of_dir(&folder);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (key, cookie) = (KeyPair::random().unwrap(), Secret::random().unwrap());
        let host = Self {
            folder,
            paths,
            listener,
            key,
            cookie,
        };
        keys::create(&host.paths.machine_key()).unwrap();
        host.pin(&host.key.public);
        host.cookies(std::slice::from_ref(&host.cookie));
        host.table(&format!(
            "hostb cos addr=127.0.0.1 port={} as=hosta\n",
            host.port()
        ));
        host
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    pub fn table(&self, text: &str) {
        fs::write(self.paths.hostinfo(), text).unwrap();
    }

    pub fn pin(&self, key: &PublicKey) {
        known_hosts::pin(&self.paths, &name("hostb"), key).unwrap();
    }

    pub fn cookies(&self, cookies: &[Secret]) {
        fs::create_dir_all(self.paths.cookies()).unwrap();
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(self.paths.cookies(), mode).unwrap();
        cookie::write_out(&self.paths, &name("hostb"), cookies).unwrap();
    }

    /// Creates `cosrsh` with these arguments; the environment names its directory.
    pub fn cosrsh(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cos"));
        command
            .arg0("cosrsh")
            .args(words)
            .env("COS_CONFIG_DIR", &self.folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Starts `cosrsh` with these arguments.
    pub fn start(&self, words: &[&str]) -> Child {
        self.cosrsh(words).spawn().unwrap()
    }

    /// The same with its input as a pipe.
    pub fn start_with_input(&self, words: &[&str]) -> Child {
        let mut command = self.cosrsh(words);
        command.stdin(Stdio::piped()).spawn().unwrap()
    }

    /// Creates a shell with this command line; the environment names the directory.
    pub fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]);
        command.env("COS_CONFIG_DIR", &self.folder);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Accepts the next connection.
    pub fn take(&self) -> Connection {
        let (socket, _) = self.listener.accept().unwrap();
        socket.set_read_timeout(Some(HANGS)).unwrap();
        socket.set_nodelay(true).unwrap();
        Connection {
            socket,
            key: self.key.clone(),
            cookie: self.cookie.clone(),
        }
    }

    /// Accepts the next connection and its request.
    pub fn accept(&self) -> Session {
        self.take().greet().receive().accept()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

/// A connection on which nothing has been sent.
pub struct Connection {
    pub socket: TcpStream,
    key: KeyPair,
    cookie: Secret,
}

impl Connection {
    /// Exchanges Hello and ServerHello.
    pub fn greet(self) -> Greeted {
        self.greet_with(|_| {})
    }

    /// The same with a modified ServerHello.
    pub fn greet_with(mut self, change: impl FnOnce(&mut ServerHello)) -> Greeted {
        let hello_record = whole_record(&mut self.socket);
        let hello = Hello::parse(&hello_record).unwrap();
        let mut ours = ServerHello {
            version: 1,
            suite: hello.suites[0],
            nonce: random().unwrap(),
            greeting_limit: 4096,
            host_key: None,
        };
        change(&mut ours);
        let our_record = ours.compose().unwrap();
        self.socket.write_all(&our_record).unwrap();
        Greeted {
            connection: self,
            hello_record,
            our_record,
            ours,
        }
    }
}

/// A connection after both hellos.
pub struct Greeted {
    connection: Connection,
    hello_record: Vec<u8>,
    our_record: Vec<u8>,
    ours: ServerHello,
}

impl Greeted {
    /// Opens the ClientHello and checks the proof.
    pub fn receive(self) -> Asked {
        let opened = self
            .try_receive()
            .unwrap_or_else(|_| panic!("not for this host"));
        assert!(opened.proven, "a proof that is not that of the cookie");
        opened
    }

    /// Waits until the client has hung up without sending anything.
    pub fn try_hear_nothing(mut self) {
        let mut rest = Vec::new();
        let _ = self.connection.socket.read_to_end(&mut rest);
        assert!(rest.is_empty());
    }

    /// The same; returns an error if it was made for another host.
    pub fn try_receive(mut self) -> Result<Asked, Connection> {
        let record = whole_record(&mut self.connection.socket);
        let message = record::parse(&record, &[Kind::ClientHello])
            .unwrap()
            .content;
        let Connection { key, cookie, .. } = &self.connection;
        let opened = Responder::open(
            self.ours.suite,
            key,
            &self.hello_record,
            &self.our_record,
            message,
            Prepared::default(),
        );
        let Ok(opened) = opened else {
            return Err(self.connection);
        };
        let opening = Opening::decode(&opened.payload).unwrap();
        let hosts = opening.credential.hosts().unwrap();
        let claim = Claim {
            caller: &hosts.caller,
            server: &hosts.server,
            caller_key: &opened.machine,
            server_key: &key.public,
            nonce: &self.ours.nonce,
            request: opening.request,
            voucher: None,
        };
        let proven = proof::verify(cookie, Side::Client, &claim, &hosts.proof);
        let our_proof = proof::make(cookie, Side::Server, &claim).unwrap();
        let (caller, server) = (hosts.caller.clone(), hosts.server.clone());
        let request = Request::decode(opening.request).unwrap();
        let socket = self.connection.socket;
        Ok(Asked {
            socket,
            responder: opened.responder,
            caller,
            server,
            request,
            proven,
            our_proof,
        })
    }
}

/// A connection on which a request has been made.
pub struct Asked {
    pub socket: TcpStream,
    responder: Responder,
    pub caller: String,
    pub server: String,
    pub request: Request,
    pub proven: bool,
    pub our_proof: [u8; 32],
}

impl Asked {
    pub fn deny(mut self) {
        deny(&mut self.socket);
    }

    /// Sends AuthAccept.
    pub fn accept(self) -> Session {
        self.accept_with(b"")
    }

    /// Sends AuthAccept with these bytes after it in one write.
    pub fn accept_with(self, behind: &[u8]) -> Session {
        let proof = self.our_proof;
        let (mut socket, keys, mut record) = self.answer(&Answer::accept(proof, Vec::new()));
        record.extend_from_slice(behind);
        socket.write_all(&record).unwrap();
        Session::new(socket, &keys)
    }

    /// Returns the record of an answer, without sending it.
    pub fn answer(self, answer: &Answer) -> (TcpStream, Keys, Vec<u8>) {
        let (message, keys) = self.responder.message_2(&answer.encode().unwrap()).unwrap();
        (
            self.socket,
            keys,
            record::compose(Kind::Answer, &message).unwrap(),
        )
    }
}

pub fn deny(socket: &mut TcpStream) {
    socket
        .write_all(&answer::compose_denied(Reference([0xab; 8])).unwrap())
        .unwrap();
}

/// An accepted connection.
pub struct Session {
    pub socket: TcpStream,
    pub sealer: Sealer,
    pub opener: Opener,
    body: Vec<u8>,
}

/// A message of the client, with the bytes of its data.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    Data(Vec<u8>),
    Eof,
    Reset(Stream),
    Credit(Stream, u32),
    Signal(Signal),
}

impl Session {
    pub fn new(socket: TcpStream, keys: &Keys) -> Self {
        Self {
            socket,
            sealer: Sealer::new(keys.suite, &keys.to_client).unwrap(),
            opener: Opener::new(keys.suite, &keys.to_server).unwrap(),
            body: Vec::new(),
        }
    }

    /// Returns the next message; `None` once the client has hung up.
    pub fn receive(&mut self) -> Option<Said> {
        let mut head = [0; LENGTH_BYTES];
        self.socket.read_exact(&mut head).ok()?;
        self.body.resize(u16::from_be_bytes(head).into(), 0);
        self.socket.read_exact(&mut self.body).unwrap();
        let text = self.opener.open(&mut self.body).unwrap();
        Some(match Message::parse(text).unwrap() {
            Message::Data(Stream::Main, bytes) => Said::Data(bytes.to_vec()),
            Message::Eof(Stream::Main) => Said::Eof,
            Message::Reset(s) => Said::Reset(s),
            Message::Credit(s, n) => Said::Credit(s, n),
            Message::Signal(s) => Said::Signal(s),
            other @ (Message::Data(..) | Message::Eof(_) | Message::End(_)) => {
                panic!("a client said {other:?}")
            }
        })
    }

    /// Waits for this message, skipping credit.
    pub fn expect(&mut self, what: &Said) {
        loop {
            match self.receive() {
                Some(said) if said == *what => return,
                Some(Said::Credit(..)) => {}
                other => panic!("{other:?} instead of {what:?}"),
            }
        }
    }

    pub fn say(&mut self, message: &Message<'_>) {
        let record = self.sealer.record(&message.compose()).unwrap();
        // The client may have gone, as intended by some of these tests.
        let _ = self.socket.write_all(&record);
    }

    /// Sends the ends of both outputs, and of the command.
    pub fn end(mut self, end: End) {
        self.say(&Message::Eof(Stream::Main));
        self.say(&Message::Eof(Stream::Error));
        self.say(&Message::End(end));
        self.until_gone();
    }

    /// Waits until the client has hung up.
    pub fn until_gone(&mut self) {
        while self.receive().is_some() {}
    }
}

/// Reads a record, with its length field.
pub fn whole_record(socket: &mut TcpStream) -> Vec<u8> {
    let mut record = vec![0; LENGTH_BYTES];
    socket.read_exact(&mut record).unwrap();
    let length = u16::from_be_bytes([record[0], record[1]]);
    record.resize(LENGTH_BYTES + usize::from(length), 0);
    socket.read_exact(&mut record[LENGTH_BYTES..]).unwrap();
    record
}

/// How a client ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status; `None` if a signal killed it.
    pub status: Option<i32>,
    pub signal: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
}

/// Waits for a client's end; a client that hangs is killed, and the test fails.
pub fn finish(child: Child) -> Ended {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, hung) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if hung.recv_timeout(HANGS) == Err(mpsc::RecvTimeoutError::Timeout) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().unwrap();
    drop(done);
    guard.join().unwrap();
    Ended {
        status: output.status.code(),
        signal: output.status.signal(),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Ends a session with status 0; the client must exit with it.
pub fn ends_well(session: Session, child: Child) -> Ended {
    session.end(End::Exited(0));
    let ended = finish(child);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    ended
}

pub fn send_signal(child: &Child, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, signal).unwrap();
}

/// Returns bytes that are the same in every run and do not repeat soon.
pub fn pattern(length: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes.extend_from_slice(&x.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Writes an executable file.
pub fn script(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    crate::program::script(&file, text);
    file
}

/// Connects to `hostb`, runs `serve` for the host, and returns the client's error line.
pub fn complaint(host: &Host, serve: impl FnOnce(&Host)) -> String {
    let child = host.start(&["hostb", "x"]);
    serve(host);
    let ended = finish(child);
    assert_eq!(ended.status, Some(255), "{ended:?}");
    // At most one remedy follows the error, on its own line.
    let lines: Vec<&str> = ended.err.lines().collect();
    assert!(
        matches!(lines[..], [_] | [_, _]) && lines[1..].iter().all(|l| l.starts_with("cos: to ")),
        "{ended:?}"
    );
    assert!(ended.out.is_empty(), "{ended:?}");
    ended
        .err
        .strip_prefix("cos: hostb: ")
        .unwrap()
        .trim_end()
        .to_owned()
}

/// Sends a record with this text, valid or not.
pub fn raw(session: &mut Session, text: &[u8]) {
    let record = session.sealer.record(text).unwrap();
    session.socket.write_all(&record).unwrap();
}

/// Waits until the client has hung up.
pub fn gone(socket: &mut TcpStream) {
    let _ = std::io::copy(socket, &mut std::io::sink());
}
