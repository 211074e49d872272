//! A manual login: the test sees each record as it arrives.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use cosserver::protocol::answer::Answer;
use cosserver::protocol::hello::{Hello, ServerHello};
use cosserver::protocol::noise::{Initiator, Prepared};
use cosserver::protocol::opening::{Credential, Opening};
use cosserver::protocol::prompt::{Answers, Asks, Text};
use cosserver::protocol::record::{self, Kind};
use cosserver::protocol::request::{Command, Gui, Request, Service};
use cosserver::protocol::seal::{Opener, Sealer};
use cosserver::protocol::stream::Message;
use cosserver::secret::{KeyPair, PublicKey};
use zeroize::Zeroizing;

use crate::daemon::hostile::{Caller, RawConnection};

/// A user, and the request that the user makes of a daemon.
#[derive(Clone)]
pub struct Person {
    machine: KeyPair,
    host: PublicKey,
    pub port: u16,
    /// The source address.
    pub from: IpAddr,
    pub user: String,
    pub application: String,
    pub detach: bool,
}

/// A login in progress: the prompts have arrived.
pub struct Conversation {
    raw_connection: RawConnection,
    sealer: Sealer,
    opener: Opener,
    /// The texts of the last message.
    pub texts: Vec<Text>,
    /// Length and kind of each record since the ServerHello.
    pub shape: Vec<(usize, u8)>,
    /// When the last answers were sent.
    pub answered: Instant,
}

/// The reply to answers.
pub enum Said {
    Prompts(Box<Conversation>),
    Accepted(Vec<Text>),
    /// The shape of all records, and the time from the last answers to the denial.
    Denied(Vec<(usize, u8)>, Duration),
}

impl Person {
    pub fn new(d: &crate::daemon::Daemon, user: &str, application: &str) -> Self {
        let caller = Caller::of(d);
        Self {
            machine: caller.machine,
            host: caller.host,
            port: d.port,
            from: IpAddr::V4(Ipv4Addr::LOCALHOST),
            user: user.into(),
            application: application.into(),
            detach: false,
        }
    }

    /// Sends the request, and receives the first prompts.
    pub fn ask(&self) -> Conversation {
        let (mut raw_connection, noise) = self.request();
        let answer = raw_connection.record().expect("no prompts");
        let shape = vec![shape(&answer)];
        let content = record::parse(&answer, &[Kind::Answer]).unwrap().content;
        let (payload, keys) = noise.read_2(content).unwrap();
        let Answer::Prompts {
            by: Asks::Login,
            texts,
        } = Answer::decode(&payload).unwrap()
        else {
            panic!("no prompts");
        };
        Conversation {
            raw_connection,
            sealer: Sealer::new(keys.suite, &keys.to_server).unwrap(),
            opener: Opener::new(keys.suite, &keys.to_client).unwrap(),
            texts,
            shape,
            answered: Instant::now(),
        }
    }

    /// Sends the request.
    fn request(&self) -> (RawConnection, Initiator) {
        let mut raw_connection = RawConnection::from_address(self.from, self.port);
        let greeting = raw_connection.greet();
        let hello = Hello::parse(&greeting.hello).unwrap();
        let theirs = ServerHello::parse(&greeting.server_hello, &hello).unwrap();
        let request = Request {
            service: Service::Gui(Gui {
                host: None,
                port: 9003,
                detach: self.detach,
            }),
            user: self.user.clone(),
            caller_user: "tester".parse().unwrap(),
            command: Command::Words(vec![self.application.clone().into()]),
            environment: Vec::new(),
            linger: None,
        };
        let request = request.encode().unwrap();
        let opening = Opening {
            request: &request,
            credential: Credential::Password,
        };
        let mut noise = Initiator::new(
            theirs.suite,
            &self.machine,
            &self.host,
            &greeting.hello,
            &greeting.server_hello,
            Prepared::default(),
        )
        .unwrap();
        let message = noise.message_1(&opening.encode().unwrap()).unwrap();
        raw_connection.send(&record::compose(Kind::ClientHello, &message).unwrap());
        (raw_connection, noise)
    }

    /// Sends the request, and does not wait for a reply.
    pub fn ask_only(&self) -> RawConnection {
        self.request().0
    }

    /// Sends the request, and must be denied before any prompt.
    pub fn is_refused_at_once(&self) {
        let (mut raw_connection, _) = self.request();
        raw_connection.denied();
    }

    /// Sends the request, answers once, and must be denied.
    pub fn refused(&self, answer: &str) -> (Vec<(usize, u8)>, Duration) {
        match self.ask().answer(&[answer]) {
            Said::Denied(shape, after) => (shape, after),
            Said::Prompts(_) => panic!("{} is asked again", self.user),
            Said::Accepted(_) => panic!("{} is accepted", self.user),
        }
    }
}

impl Conversation {
    /// Returns the texts of the last message.
    pub fn words(&self) -> Vec<&str> {
        self.texts.iter().map(|t| &*t.words).collect()
    }

    /// Answers, and receives the reply.
    pub fn answer(mut self, answers: &[&str]) -> Said {
        self.send(answers);
        let record = self.raw_connection.record().expect("neither yes nor no");
        let after = self.answered.elapsed();
        self.shape.push(shape(&record));
        let envelope = record::parse(&record, &[Kind::Sealed, Kind::Denied]).unwrap();
        if envelope.kind == Kind::Denied {
            assert_eq!(self.raw_connection.rest(), b"", "more than a refusal");
            return Said::Denied(self.shape, after);
        }
        let mut sealed = envelope.content.to_vec();
        let text = self.opener.open(&mut sealed).unwrap();
        match Answer::decode(text).unwrap() {
            Answer::Prompts { texts, .. } => Said::Prompts(Box::new(Self { texts, ..self })),
            Answer::Accept { texts, .. } => Said::Accepted(texts),
            Answer::SendCommand => panic!("it asks for a command"),
        }
    }
}

impl Conversation {
    /// Answers, must be accepted, and sends nothing more: returns what comes then, to the end.
    pub fn receives_all(mut self, answers: &[&str]) -> Vec<String> {
        self.send(answers);
        let record = self.raw_connection.record().expect("neither yes nor no");
        let envelope = record::parse(&record, &[Kind::Sealed]).unwrap();
        let mut sealed = envelope.content.to_vec();
        let answer = Answer::decode(self.opener.open(&mut sealed).unwrap()).unwrap();
        assert!(matches!(answer, Answer::Accept { .. }), "not accepted");
        self.opener.rekey().unwrap();
        let mut came = Vec::new();
        while let Some(mut record) = self.raw_connection.record() {
            let text = self.opener.open(&mut record[2..]).unwrap();
            came.push(match Message::parse(text).unwrap() {
                Message::Reset(stream) => format!("Reset {}", stream as u8),
                Message::Eof(stream) => format!("Eof {}", stream as u8),
                Message::End(end) => format!("{end:?}"),
                other @ (Message::Data(..) | Message::Credit(..) | Message::Signal(_)) => {
                    format!("{other:?}")
                }
            });
        }
        came
    }

    /// Breaks the protocol, and must be denied all the same.
    pub fn breaks_off(mut self) {
        self.raw_connection.send(b"\0\x10GET / HTTP/1.0\r\n");
        self.raw_connection.denied();
    }

    /// Sends nothing until the connection is closed.
    pub fn sits(mut self) {
        self.raw_connection.closed();
    }

    /// Must be denied without having answered; returns the reference.
    pub fn denied(mut self) -> String {
        self.raw_connection.denied()
    }

    /// Answers, and does not wait for a reply.
    pub fn send(&mut self, answers: &[&str]) {
        let answers = answers
            .iter()
            .map(|a| Zeroizing::new(a.as_bytes().to_vec()));
        let mut content = Answers::new(answers.collect()).unwrap().encode().unwrap();
        let tag = self.sealer.seal(&mut content).unwrap();
        content.extend_from_slice(&tag);
        let record = record::compose(Kind::Sealed, &content).unwrap();
        self.answered = Instant::now();
        self.raw_connection.send(&record);
    }
}

/// Returns a record's length and kind.
fn shape(record: &[u8]) -> (usize, u8) {
    (record.len(), record[6])
}
