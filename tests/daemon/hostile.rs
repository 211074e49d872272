//! A client that follows the protocol only as far as the test wants: it sends records by hand, from
//! any address of the loopback network.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use cosserver::config::name::HostName;
use cosserver::config::paths::Paths;
use cosserver::config::{cookie, hostinfo, keys, known_hosts};
use cosserver::curve;
use cosserver::protocol::answer::{self, Answer};
use cosserver::protocol::hello::{Hello, ServerHello, Suite};
use cosserver::protocol::noise::{Initiator, Keys, Prepared};
use cosserver::protocol::opening::{Credential, Hosts, Opening};
use cosserver::protocol::proof::{self, Claim, Side, Voucher};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{self, Command, Request, Service};
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::{End, Message, Stream};
use cosserver::secret::{KeyPair, PublicKey, Secret};
use nix::sys::socket as sys;

use super::{Daemon, PATIENCE};

/// The host `hosta` with the keys of its directory. Changing a field makes it a thief of the
/// cookie, an unknown host or one with a false claim.
#[derive(Clone)]
pub struct Caller {
    pub name: String,
    pub server: String,
    pub machine: KeyPair,
    pub cookie: Secret,
    pub host: PublicKey,
    pub user: String,
}

impl Caller {
    pub fn of(d: &Daemon) -> Self {
        Self::in_folder(&d.client())
    }

    /// The same with a client's directory.
    pub fn in_folder(folder: &std::path::Path) -> Self {
        let paths = Paths::of_dir(folder);
        let hostb = HostName::parse("hostb").unwrap();
        let entry = hostinfo::find(&paths, &hostb).unwrap().unwrap();
        Self {
            name: "hosta".into(),
            server: entry.server_name().to_string(),
            machine: keys::load_machine_key(&paths).unwrap(),
            cookie: cookie::load_out(&paths, &hostb).unwrap()[0].clone(),
            host: known_hosts::pins(&paths, &hostb).unwrap()[0],
            user: super::me(),
        }
    }

    /// Returns a request for a shell command.
    pub fn request(&self, command: &str) -> Vec<u8> {
        self.request_of(Command::Words(vec![command.into()]))
    }

    pub fn request_of(&self, command: Command) -> Vec<u8> {
        let request = Request {
            service: Service::Exec,
            user: self.user.clone(),
            caller_user: "tester".parse().unwrap(),
            command,
            environment: Vec::new(),
            linger: None,
        };
        request.encode().unwrap()
    }

    /// Returns the ClientHello record for a greeting, and the state that opens its answer.
    pub fn client_hello(&self, greeting: &Greeting, request: &[u8]) -> (Vec<u8>, Initiator) {
        let nonce = nonce(greeting);
        let claim = Claim {
            caller: &self.name,
            server: &self.server,
            caller_key: &self.machine.public,
            server_key: &self.host,
            nonce: &nonce,
            request,
            voucher: None,
        };
        let opening = Opening {
            request,
            credential: Credential::Hash(Hosts {
                caller: self.name.clone(),
                server: self.server.clone(),
                proof: proof::make(&self.cookie, Side::Client, &claim).unwrap(),
            }),
        };
        shake(self, &self.machine, greeting, &opening.encode().unwrap())
    }

    /// Greets and requests a command; returns the connection before any answer.
    pub fn ask(&self, port: u16, command: &str) -> RawConnection {
        self.ask_for(port, Command::Words(vec![command.into()]))
    }

    /// The same for a command given as separate words.
    pub fn ask_for(&self, port: u16, command: Command) -> RawConnection {
        let mut s = RawConnection::connect(port);
        let greeting = s.greet();
        s.send(&self.client_hello(&greeting, &self.request_of(command)).0);
        s
    }

    /// Greets, requests a command and is accepted.
    pub fn accepted(&self, port: u16, command: &str) -> Session {
        self.accepted_for(port, Command::Words(vec![command.into()]))
    }

    /// The same for a command given as separate words.
    pub fn accepted_for(&self, port: u16, command: Command) -> Session {
        self.accepted_on(RawConnection::connect(port), command)
    }

    /// The same on an existing connection.
    pub fn accepted_on(&self, mut s: RawConnection, command: Command) -> Session {
        let greeting = s.greet();
        let (hello, noise) = self.client_hello(&greeting, &self.request_of(command));
        s.send(&hello);
        s.session(noise)
    }

    /// Greets and announces a long command; returns the keys of the answer.
    pub fn announces(&self, port: u16, words: &[Vec<u8>]) -> (RawConnection, Keys, Vec<u8>) {
        let (command, rest) = request::pack_words(words.to_vec()).unwrap();
        let mut s = RawConnection::connect(port);
        let greeting = s.greet();
        let (hello, noise) = self.client_hello(&greeting, &self.request_of(command));
        s.send(&hello);
        let record = s.record().expect("no AuthContinue");
        let content = record::parse(&record, &[Kind::Answer]).unwrap().content;
        let (payload, keys) = noise.read_2(content).unwrap();
        assert_eq!(Answer::decode(&payload).unwrap(), Answer::SendCommand);
        (s, keys, rest.unwrap())
    }
}

/// Both hellos, as whole records.
#[derive(Clone)]
pub struct Greeting {
    pub hello: Vec<u8>,
    pub server_hello: Vec<u8>,
}

/// Returns the nonce of a greeting.
pub fn nonce(greeting: &Greeting) -> [u8; 32] {
    let hello = Hello::parse(&greeting.hello).unwrap();
    let theirs = ServerHello::parse(&greeting.server_hello, &hello).unwrap();
    theirs.nonce
}

/// Returns an opening in which the caller's signer vouches for its user, as the signer would.
pub fn vouch(caller: &Caller, user_key: &KeyPair, nonce: &[u8; 32], request: &[u8]) -> Vec<u8> {
    let shared = curve::agree(caller.machine.private.expose(), &caller.host.0).unwrap();
    let shared = Secret::new(*shared);
    let claim = Claim {
        caller: &caller.name,
        server: &caller.server,
        caller_key: &user_key.public,
        server_key: &caller.host,
        nonce,
        request,
        voucher: Some(Voucher {
            machine: &caller.machine.public,
            shared: &shared,
        }),
    };
    let hosts = Hosts {
        caller: caller.name.clone(),
        server: caller.server.clone(),
        proof: proof::make(&caller.cookie, Side::Client, &claim).unwrap(),
    };
    let opening = Opening {
        request,
        credential: Credential::Vouch(hosts, caller.machine.public),
    };
    opening.encode().unwrap()
}

/// Makes a handshake with this key for this greeting, around an opening.
pub fn shake(
    caller: &Caller,
    key: &KeyPair,
    greeting: &Greeting,
    opening: &[u8],
) -> (Vec<u8>, Initiator) {
    let hello = Hello::parse(&greeting.hello).unwrap();
    let theirs = ServerHello::parse(&greeting.server_hello, &hello).unwrap();
    let mut noise = Initiator::new(
        theirs.suite,
        key,
        &caller.host,
        &greeting.hello,
        &greeting.server_hello,
        Prepared::default(),
    )
    .unwrap();
    let message = noise.message_1(opening).unwrap();
    (record::compose(Kind::ClientHello, &message).unwrap(), noise)
}

/// Returns a Hello as the real client sends it.
pub fn hello() -> Vec<u8> {
    let hello = Hello {
        version: 1,
        suites: Suite::preferred().to_vec(),
        wants_host_key: false,
    };
    hello.compose().unwrap()
}

/// One connection.
pub struct RawConnection {
    pub socket: TcpStream,
}

impl RawConnection {
    pub fn connect(port: u16) -> Self {
        Self::from_address("127.0.0.1".parse().unwrap(), port)
    }

    /// Connects from this address of the loopback network to the same family's loopback.
    pub fn from_address(from: IpAddr, port: u16) -> Self {
        Self::try_from_address(from, port).unwrap()
    }

    pub fn try_from_address(from: IpAddr, port: u16) -> nix::Result<Self> {
        let (family, to): (_, IpAddr) = if from.is_ipv4() {
            (sys::AddressFamily::Inet, "127.0.0.1".parse().unwrap())
        } else {
            (sys::AddressFamily::Inet6, "::1".parse().unwrap())
        };
        let fd = sys::socket(
            family,
            sys::SockType::Stream,
            sys::SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let address = |ip, port| sys::SockaddrStorage::from(SocketAddr::new(ip, port));
        // A bound address takes one of its own 28,000 ports only when connected.
        let late = nix::sys::socket::sockopt::IpBindAddressNoPort;
        if from.is_ipv4() {
            sys::setsockopt(&fd, late, &true)?;
        }
        sys::bind(fd.as_raw_fd(), &address(from, 0))?;
        sys::connect(fd.as_raw_fd(), &address(to, port))?;
        let socket = TcpStream::from(fd);
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Ok(Self { socket })
    }

    /// The same, with the greeting.
    pub fn greeted(from: IpAddr, port: u16) -> Self {
        let mut raw_connection = Self::from_address(from, port);
        raw_connection.greet();
        raw_connection
    }

    /// Sends data that is not the protocol; must be rejected for it.
    pub fn says_garbage(&mut self) {
        self.send(b"GET / HTTP/1.0\r\n\r\n");
        self.closed();
    }

    /// Sends; a connection that is closed during the send is expected here.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    pub fn greet(&mut self) -> Greeting {
        self.try_greet().expect("no ServerHello")
    }

    /// The same; `None`: it is rejected.
    pub fn try_greet(&mut self) -> Option<Greeting> {
        let hello = hello();
        self.send(&hello);
        let server_hello = self.record()?;
        Some(Greeting {
            hello,
            server_hello,
        })
    }

    /// Returns the next record, with its length; `None` if the connection ends before it.
    pub fn record(&mut self) -> Option<Vec<u8>> {
        let mut record = vec![0; 2];
        self.exactly(&mut record)?;
        let body = usize::from(u16::from_be_bytes([record[0], record[1]]));
        record.resize(2 + body, 0);
        self.exactly(&mut record[2..])?;
        Some(record)
    }

    fn exactly(&mut self, into: &mut [u8]) -> Option<()> {
        match self.socket.read_exact(into) {
            Ok(()) => Some(()),
            Err(e) if is_end(&e) => None,
            Err(e) => panic!("neither bytes nor an end came: {e}"),
        }
    }

    /// Waits for the end of the connection, and returns the bytes before it.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.socket.read_to_end(&mut bytes) {
            Ok(_) => bytes,
            Err(e) if is_end(&e) => bytes,
            Err(e) => panic!("the connection did not end: {e}"),
        }
    }

    /// Returns whether neither side has closed it.
    pub fn is_open(&mut self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let seen = self.socket.peek(&mut [0]);
        self.socket.set_nonblocking(false).unwrap();
        matches!(seen, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }

    /// Must be closed without a byte.
    pub fn closed(&mut self) {
        assert_eq!(self.rest(), b"", "an answer to garbage");
    }

    /// Must be denied; returns the reference as in the log.
    pub fn denied(&mut self) -> String {
        let record = self.rest();
        let head = [0, 13, b'C', b'O', b'S', b's', 5];
        assert!(
            record.len() == 15 && record.starts_with(&head),
            "{record:?} is no refusal"
        );
        let content = record::parse(&record, &[Kind::Denied]).unwrap().content;
        answer::parse_denied(content).unwrap().to_hex()
    }

    /// Must be accepted.
    pub fn session(mut self, noise: Initiator) -> Session {
        let record = self.record().expect("no answer");
        let content = record::parse(&record, &[Kind::Answer]).unwrap().content;
        let (payload, keys) = noise.read_2(content).unwrap();
        assert!(matches!(
            Answer::decode(&payload).unwrap(),
            Answer::Accept { .. }
        ));
        Session {
            sealer: Sealer::new(keys.suite, &keys.to_server).unwrap(),
            opener: Opener::new(keys.suite, &keys.to_client).unwrap(),
            raw_connection: self,
        }
    }
}

/// Returns whether a socket's error means the end of its connection.
fn is_end(e: &std::io::Error) -> bool {
    matches!(
        e.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
    )
}

/// An accepted connection.
pub struct Session {
    pub raw_connection: RawConnection,
    pub sealer: Sealer,
    pub opener: Opener,
}

impl Session {
    pub fn send(&mut self, message: &Message<'_>) {
        let record = self.sealer.record(&message.compose()).unwrap();
        self.raw_connection.send(&record);
    }

    /// Reads to the end: standard output, and how the job ended. `None`: the connection was cut.
    pub fn finish(&mut self) -> (Vec<u8>, Option<End>) {
        let mut output = Vec::new();
        while let Some(mut record) = self.raw_connection.record() {
            let text = self.opener.open(&mut record[2..]).unwrap();
            match Message::parse(text).unwrap() {
                Message::Data(Stream::Main, bytes) => output.extend_from_slice(bytes),
                Message::End(end) => return (output, Some(end)),
                _ => {}
            }
        }
        (output, None)
    }

    /// Reads output until it ends with this.
    pub fn until(&mut self, wanted: &[u8]) {
        let mut output = Vec::new();
        while !output.ends_with(wanted) {
            let mut record = self.raw_connection.record().expect("the session was cut");
            let text = self.opener.open(&mut record[2..]).unwrap();
            if let Message::Data(Stream::Main, bytes) = Message::parse(text).unwrap() {
                output.extend_from_slice(bytes);
            }
        }
    }
}

/// Measures a call.
pub fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = f();
    (value, start.elapsed())
}
