//! Tests of the greeting's time limits: a host that sent its hello, and then nothing more.

use std::io::Read;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::sync::mpsc::channel;

use nix::sys::socket::{setsockopt, sockopt};

use super::*;
use crate::client::auth_method::Credentials;
use crate::client::door::Door;
use crate::client::messages::Reporter;
use crate::protocol::limits::GREETING_BODY;
use crate::protocol::noise::Responder;
use crate::protocol::request::{Command, Request, Service};
use crate::secret::{KeyPair, Secret};

/// The client's time limit here, in place of half a minute.
const WITHIN: Duration = Duration::from_secs(1);

/// How long anything may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// How far a host goes before it becomes silent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// It has received the ClientHello.
    AfterHello,
    /// It has received the command that it asked for.
    AfterCommand,
    /// It asked for the command, and reads nothing of it.
    NotReading,
}

/// Returns the next record of a client.
fn read_record(socket: &mut TcpStream) -> Vec<u8> {
    let mut record = vec![0; LENGTH_BYTES];
    socket.read_exact(&mut record).unwrap();
    let body = usize::from(u16::from_be_bytes([record[0], record[1]]));
    record.resize(LENGTH_BYTES + body, 0);
    socket.read_exact(&mut record[LENGTH_BYTES..]).unwrap();
    record
}

/// Acts as a host until it becomes silent. Returns the connection, still open.
fn host(listener: &TcpListener, key: &KeyPair, until: Until) -> TcpStream {
    let (mut socket, _) = listener.accept().unwrap();
    let hello = read_record(&mut socket);
    let server_hello = ServerHello {
        version: VERSION,
        suite: Suite::preferred()[0],
        nonce: [7; 32],
        greeting_limit: u32::try_from(GREETING_BODY).unwrap(),
        host_key: None,
    };
    let suite = server_hello.suite;
    let server_hello = server_hello.compose().unwrap();
    socket.write_all(&server_hello).unwrap();
    let record = read_record(&mut socket);
    if until == Until::AfterHello {
        return socket;
    }
    let message = record::parse(&record, &[Kind::ClientHello]).unwrap();
    let prepared = Prepared::default();
    let opened = Responder::open(suite, key, &hello, &server_hello, message.content, prepared);
    let asks = wire_answer::Answer::SendCommand.encode().unwrap();
    let (message, _keys) = opened.unwrap().responder.message_2(&asks).unwrap();
    let record = record::compose(Kind::Answer, &message).unwrap();
    socket.write_all(&record).unwrap();
    if until == Until::AfterCommand {
        read_record(&mut socket);
    }
    socket
}

/// Asks such a host to run a command of that many bytes. Returns the client's message.
fn ask(until: Until, command: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    setsockopt(&listener, sockopt::RcvBuf, &4096).unwrap();
    let (host_key, machine) = (KeyPair::random().unwrap(), KeyPair::random().unwrap());
    let pin = host_key.public;
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let ours = OurHello::new().unwrap();
        let socket = TcpStream::connect(address).unwrap();
        socket.set_nonblocking(true).unwrap();
        setsockopt(&socket.as_fd(), sockopt::SndBuf, &4096).unwrap();
        (&socket).write_all(ours.record()).unwrap();
        let mut greeted = Greeted::wait(Dialed::of(socket, address, PATIENCE), &ours).unwrap();
        assert_eq!(greeted.line.answer_within, ANSWER_WITHIN);
        greeted.line.answer_within = WITHIN;
        let who = Credentials {
            caller: "hosta",
            server: "hostb",
            machine: &machine,
            pin: &pin,
            cookie: &Secret::random().unwrap(),
        };
        let question = Question {
            asked: Request {
                service: Service::Exec,
                user: "root".into(),
                caller_user: "root".parse().unwrap(),
                command: Command::Words(vec![b"true".to_vec()]),
                environment: Vec::new(),
                linger: None,
            },
            request: b"request".to_vec(),
            follows: (until != Until::AfterHello).then(|| vec![b'x'; command]),
        };
        let reporter = Reporter::new(false);
        let mut conversation = Conversation::new(
            &reporter,
            Door::during_request("hostb", String::new(), false),
        );
        let auth_method = AuthMethod::Hash(who);
        let answer = greeted.ask(
            auth_method,
            &question,
            Prepared::default(),
            &mut conversation,
        );
        tell.send(answer.err().map(|e| e.to_string())).unwrap();
    });
    let held = host(&listener, &host_key, until);
    let said = told.recv_timeout(PATIENCE).expect("it waits for ever");
    drop(held);
    said.expect("nobody has accepted it")
        .replace(&address.to_string(), "HOST")
}

#[test]
fn missing_answer_times_out() {
    let said = ask(Until::AfterHello, 0);
    assert_eq!(said, "HOST: no answer to the request came within 1 s");
}

#[test]
fn missing_answer_after_the_command_times_out() {
    let said = ask(Until::AfterCommand, COMMAND_PIECE);
    assert_eq!(said, "HOST: no answer to the request came within 1 s");
}

#[test]
fn host_that_does_not_read_the_command_times_out() {
    let said = ask(Until::NotReading, 1 << 20);
    assert_eq!(said, "HOST stopped reading the request");
}
