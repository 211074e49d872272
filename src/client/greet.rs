//! From a connection to an accepted command: hello, proof, answer.
//!
//! Runs in the client. Owns the connection until it is accepted or denied. Each step takes the
//! value that the previous one returned. Must not answer a question before the server has proven
//! its key, or accept before its proof is checked.
//!
//! [`Dialed`] → [`Greeted`] (the server's hello) → [`Answer`]: [`Accepted`], after the server's own
//! proof is checked, or denied.

use std::io::Write;
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;

use super::auth_method::{AuthMethod, Question};
use super::conversation::{Conversation, Unanswered};
use super::denied::denied_because;
use super::dial::{Dialed, has_news, wait_for};
use super::inbox::{Inbox, ReadOutcome, is_for_later};
use super::io_error::text_without_number;
use super::jump::{Jump, Peer};
use super::request;
use crate::config::keys;
use crate::config::words::quoted;
use crate::fault::Fault;
use crate::protocol::answer::{self, Reference};
use crate::protocol::hello::{Hello, ServerHello, Suite, VERSION};
use crate::protocol::limits::{COMMAND_PIECE, LENGTH_BYTES};
use crate::protocol::noise::{Initiator, Prepared};
use crate::protocol::opening::{Credential, Opening};
use crate::protocol::record::{self, Envelope, Kind};
use crate::protocol::seal::{Opener, Sealer};
use crate::protocol::{Malformed, answer as wire_answer};
use crate::secret::{PublicKey, same_bytes};

/// How long an answer may take. A denial leaves the server at the next multiple of two seconds
/// after the ClientHello; a name service that the server must ask may take longer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The same limit at a login, whose answers wait for a PAM slot.
const VERDICT_WITHIN: Duration = Duration::from_secs(660);

/// Our first message, and its bytes.
pub struct OurHello {
    hello: Hello,
    record: Vec<u8>,
}

impl OurHello {
    /// Returns the Hello of this program on this machine.
    ///
    /// # Errors
    /// None that can happen.
    pub fn new() -> Result<Self, Fault> {
        Self::asking(false)
    }

    /// Returns a Hello that can also ask for the host's public key.
    ///
    /// # Errors
    /// None that can happen.
    pub fn asking(wants_host_key: bool) -> Result<Self, Fault> {
        let suites = Suite::preferred().to_vec();
        let hello = Hello {
            version: VERSION,
            suites,
            wants_host_key,
        };
        let record = hello.compose().map_err(ours)?;
        Ok(Self { hello, record })
    }

    /// The whole record.
    pub fn record(&self) -> &[u8] {
        &self.record
    }
}

/// A connection whose server has sent its hello.
pub struct Greeted<'a> {
    line: Line,
    ours: &'a OurHello,
    theirs: ServerHello,
    their_record: Vec<u8>,
}

/// A command that the server has accepted.
pub struct Accepted {
    /// The connection, nonblocking.
    pub socket: TcpStream,
    /// What carries the connection, if it goes through other hosts.
    pub jump: Option<Jump>,
    /// Holds what came with the answer.
    pub inbox: Inbox,
    /// Seals what we send.
    pub sealer: Sealer,
    /// Opens what the server sends.
    pub opener: Opener,
}

/// The server's answer to a question.
pub enum Answer {
    /// Accepted.
    Accepted(Box<Accepted>),
    /// Denied; the server's log has the reason under this reference.
    Denied(Reference),
}

impl<'a> Greeted<'a> {
    /// Waits for the server's hello, as long as connecting may take.
    ///
    /// # Errors
    /// No hello came in time, or something else came.
    pub fn wait(dialed: Dialed, ours: &'a OurHello) -> Result<Self, Fault> {
        let within = dialed.time_for_hello();
        let mut line = Line {
            socket: dialed.socket,
            jump: dialed.jump,
            peer: dialed.peer,
            inbox: Inbox::default(),
            answer_within: ANSWER_WITHIN,
        };
        let record = line.receive(Kind::ServerHello, within)?;
        let their_record = line.inbox.bytes(record).to_vec();
        let theirs = ServerHello::parse(&their_record, &ours.hello)
            .map_err(|e| line.preauth(&format!("{e}")))?;
        Ok(Self {
            line,
            ours,
            theirs,
            their_record,
        })
    }

    /// The suite of the connection, for `-v`.
    pub const fn suite(&self) -> Suite {
        self.theirs.suite
    }

    /// The public key that the host claims. It is not proven yet.
    pub const fn host_key(&self) -> Option<&PublicKey> {
        self.theirs.host_key.as_ref()
    }

    /// Authenticates us, sends the request, waits for the answer and checks it. `conversation`
    /// handles what the host asks and prints before the answer.
    ///
    /// # Errors
    /// There is no answer, or it cannot come from the intended host.
    pub fn ask(
        self,
        auth_method: AuthMethod<'_>,
        question: &Question,
        prepared: Prepared,
        conversation: &mut Conversation<'_>,
    ) -> Result<Answer, Fault> {
        let (machine, pin) = auth_method.keys();
        let Self {
            mut line,
            ours: our_hello,
            theirs,
            their_record,
        } = self;
        let shown = auth_method.show(question, &theirs.nonce)?;
        let expected = shown.expected;
        let vouched = match &shown.credential {
            Credential::Vouch(_, host) => Some(*host),
            Credential::Hash(_) | Credential::Password | Credential::Machine => None,
        };
        conversation.step(|| {
            let key = vouched.unwrap_or(machine.public);
            format!("the ID of this machine is {}", keys::fingerprint(&key))
        });
        let opening = Opening {
            request: &shown.request,
            credential: shown.credential,
        };
        let hello = &our_hello.record;
        let mut noise = Initiator::new(theirs.suite, machine, pin, hello, &their_record, prepared)
            .map_err(ours)?;
        let message = noise
            .message_1(&opening.encode().map_err(ours)?)
            .map_err(ours)?;
        let record = record::compose(Kind::ClientHello, &message).map_err(ours)?;
        let most = usize::try_from(theirs.greeting_limit).unwrap_or(usize::MAX);
        if record.len().saturating_sub(LENGTH_BYTES) > most {
            let environment = question.asked.environment.iter();
            let longest = environment.max_by_key(|(_, value)| value.len());
            let words = format!("the request is too long: the host accepts at most {most} bytes");
            return Err(match longest {
                None => Fault::new(words),
                Some((name, value)) => Fault::new(format!(
                    "{words}; the longest variable is {} ({} bytes)",
                    quoted(name),
                    value.len()
                ))
                .with_remedy(request::without(name)),
            });
        }
        line.send(&record)?;

        let within = line.within(conversation.is_login());
        let record = line.receive(Kind::Answer, within)?;
        let content = match line.envelope(record.clone(), Kind::Answer)? {
            Said::Denied(reference) => return Ok(Answer::Denied(reference)),
            Said::Due(content) => content,
        };
        let (payload, keys) = noise.read_2(content).map_err(invalid_server_message)?;
        conversation.run_once_authenticated()?;
        let mut sealer = Sealer::new(keys.suite, &keys.to_server).map_err(ours)?;
        let mut opener = Opener::new(keys.suite, &keys.to_client).map_err(ours)?;
        let mut answer = wire_answer::Answer::decode(&payload).map_err(invalid_server_message)?;
        let mut follows = question.follows.as_deref();
        let mut sent = false;
        let mut talked = false;
        let (proof, texts) = loop {
            match answer {
                wire_answer::Answer::SendCommand => {
                    let rest = follows.take().ok_or_else(|| {
                        invalid_server_message(Malformed(
                            "it asks for a command that it already has",
                        ))
                    })?;
                    for piece in rest.chunks(COMMAND_PIECE) {
                        line.send_sealed(&mut sealer, piece)?;
                    }
                    sent = true;
                }
                // A host must ask before it gets the command, not after.
                wire_answer::Answer::Prompts { by, texts } if !sent => {
                    let host = line.socket.as_fd();
                    let answers = conversation.answer(by, &texts, vouched.is_some(), host);
                    let answers = answers.map_err(|e| match e {
                        Unanswered::Fault(fault) => line.cut_short().unwrap_or(fault),
                        Unanswered::OutOfTurn => out_of_turn(),
                    })?;
                    let answers = answers.encode_padded().map_err(ours)?;
                    line.send_sealed(&mut sealer, &answers)?;
                }
                wire_answer::Answer::Prompts { .. } => return Err(out_of_turn()),
                wire_answer::Answer::Accept { .. } if follows.is_some() => {
                    return Err(invalid_server_message(Malformed(
                        "it accepted a command that it had not received",
                    )));
                }
                wire_answer::Answer::Accept { proof, texts } => break (proof, texts),
            }
            let within = line.within(conversation.is_login());
            let record = line.receive(Kind::Sealed, within)?;
            let mut sealed = match line.envelope(record, Kind::Sealed)? {
                Said::Denied(reference) => return Ok(Answer::Denied(reference)),
                Said::Due(content) => content.to_vec(),
            };
            let text = opener.open(&mut sealed).map_err(invalid_server_message)?;
            answer = wire_answer::Answer::decode(text).map_err(invalid_server_message)?;
            talked = true;
        };
        if talked {
            // Rekey, so that the process that continues on the server cannot read the conversation
            // so far.
            sealer.rekey().map_err(ours)?;
            opener.rekey().map_err(ours)?;
        }
        let right = match (expected, proof) {
            (Some(expected), Some(proof)) => same_bytes(&expected, &proof),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        if !right {
            return Err(invalid_server_message(Malformed(
                "its proof does not match our cookie",
            )));
        }
        conversation.welcome(&texts);
        Ok(Answer::Accepted(Box::new(Accepted {
            socket: line.socket,
            jump: line.jump,
            inbox: line.inbox,
            sealer,
            opener,
        })))
    }
}

/// The content of a record before the acceptance.
enum Said<'a> {
    Due(&'a [u8]),
    Denied(Reference),
}

/// A connection before it is accepted.
struct Line {
    // Declared before `jump`, and so dropped first: the child ends once the connection is closed.
    socket: TcpStream,
    jump: Option<Jump>,
    peer: Peer,
    inbox: Inbox,
    /// How long the host may take to answer, and to accept a record.
    answer_within: Duration,
}

impl Line {
    /// How long an answer may take. At a login it waits for a PAM slot.
    fn within(&self, login: bool) -> Duration {
        if login {
            VERDICT_WITHIN.max(self.answer_within)
        } else {
            self.answer_within
        }
    }

    /// Waits for a record that may be one of this kind.
    fn receive(&mut self, due: Kind, within: Duration) -> Result<Range<usize>, Fault> {
        let until = Instant::now()
            .checked_add(within)
            .unwrap_or_else(Instant::now);
        loop {
            match self.inbox.next(record::limit_of(due)) {
                Ok(Some(record)) => return Ok(record),
                Ok(None) => {}
                Err(e) => return Err(self.preauth(&e.to_string())),
            }
            wait_for(&self.socket, PollFlags::POLLIN, until).map_err(|e| {
                if e.kind() == std::io::ErrorKind::TimedOut {
                    self.silent(due, within)
                } else {
                    Fault::new(text_without_number(&e))
                }
            })?;
            match self.inbox.fill(&mut self.socket) {
                Ok(ReadOutcome::Bytes(_) | ReadOutcome::Nothing) => {}
                Ok(ReadOutcome::Closed) => return Err(self.hung_up(due, "closed the connection")),
                Err(e) => return Err(self.hung_up(due, &text_without_number(&e))),
            }
        }
    }

    /// Returns why the host no longer waits for an answer, if it does not.
    fn cut_short(&mut self) -> Option<Fault> {
        if !has_news(self.socket.as_fd()) {
            return None;
        }
        let record = self.receive(Kind::Sealed, self.answer_within);
        Some(match record.and_then(|r| self.envelope(r, Kind::Sealed)) {
            Ok(Said::Due(_)) => out_of_turn(),
            Ok(Said::Denied(reference)) => {
                let host = self.peer.host();
                denied_because(&host, reference, "it did not wait for the answer")
            }
            Err(fault) => fault,
        })
    }

    /// Parses a record's envelope: the record that is due, or a denial where one may come.
    fn envelope(&self, record: Range<usize>, due: Kind) -> Result<Said<'_>, Fault> {
        let bytes = self.inbox.bytes(record);
        let Envelope { kind, content } =
            record::parse(bytes, &[due, Kind::Denied]).map_err(invalid_server_message)?;
        if kind == Kind::Denied {
            return answer::parse_denied(content)
                .map(Said::Denied)
                .map_err(invalid_server_message);
        }
        Ok(Said::Due(content))
    }

    fn send_sealed(&mut self, sealer: &mut Sealer, text: &[u8]) -> Result<(), Fault> {
        let mut content = text.to_vec();
        let tag = sealer.seal(&mut content).map_err(ours)?;
        content.extend_from_slice(&tag);
        self.send(&record::compose(Kind::Sealed, &content).map_err(ours)?)
    }

    fn send(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        let until = Instant::now()
            .checked_add(self.answer_within)
            .unwrap_or_else(Instant::now);
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(e) if is_for_later(&e) => {
                    wait_for(&self.socket, PollFlags::POLLOUT, until).map_err(|_| {
                        Fault::new(format!("{} stopped reading the request", self.peer))
                    })?;
                }
                Err(e) => return Err(self.hung_up(Kind::Answer, &text_without_number(&e))),
            }
        }
        Ok(())
    }

    fn preauth(&self, why: &str) -> Fault {
        Fault::new(format!(
            "{} does not speak cosserver's protocol ({why}); is this its port?",
            self.peer
        ))
    }

    fn silent(&self, due: Kind, within: Duration) -> Fault {
        let what = if due == Kind::ServerHello {
            "connected, but no hello came"
        } else {
            "no answer to the request came"
        };
        let address = &self.peer;
        let within = if within.is_zero() {
            "in time".to_owned()
        } else {
            format!("within {} s", within.as_millis().div_ceil(1000))
        };
        let hint = if due == Kind::ServerHello {
            "; is this its port?"
        } else {
            ""
        };
        Fault::new(format!("{address}: {what} {within}{hint}"))
    }

    fn hung_up(&mut self, due: Kind, how: &str) -> Fault {
        // If a host in between has failed, that is the reason.
        if let Some(fault) = self.jump.as_mut().and_then(Jump::failure) {
            return fault;
        }
        let hint = if due == Kind::ServerHello {
            "before the handshake (too many connections, or this address is being rate-limited)"
        } else if due == Kind::Sealed {
            "instead of going on: the answer may have come too late; its log says why"
        } else {
            "instead of answering; its log says why"
        };
        Fault::new(format!("{}: {how} {hint}", self.peer))
    }
}

/// A fault of our own, which no peer can cause.
fn ours(e: Malformed) -> Fault {
    Fault::new(e.to_string())
}

fn out_of_turn() -> Fault {
    invalid_server_message(Malformed("it asks for answers out of turn"))
}

fn invalid_server_message(e: Malformed) -> Fault {
    Fault::new(format!(
        "the answer is not from the host whose key is pinned ({e})"
    ))
}

#[cfg(test)]
#[path = "greet_tests.rs"]
mod tests;
