//! The messages between a user's client and the signer: one request, one reply, in the canonical
//! CBOR of the wire. Pure.

use crate::protocol::request::{Command, EXEC, SUBSYSTEM, Service};
use crate::protocol::wanted::{Wanted, WantedFields};
use crate::protocol::{Malformed, cbor, limits};
use crate::secret::PublicKey;

/// Longest message in either direction, bytes: a request fills a ClientHello (4,096) at most.
pub const MESSAGE: usize = 2 * limits::GREETING_BODY;

/// Longest reason why nothing was signed, bytes.
const WORDS: usize = 1_024;

/// A user's request to be signed, and its host. It does not contain the user's name, which the
/// kernel reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The host, by its name in this host table.
    pub host: String,
    /// The nonce that it has drawn for the connection.
    pub nonce: [u8; limits::NONCE],
    /// Its public key, as the client has it.
    pub pin: PublicKey,
    /// The public half of the client's own key, which it uses in the handshake.
    pub key: PublicKey,
    /// Which of the live cookies to use; 0: the newest.
    pub which: u8,
    /// The requested service.
    pub service: Service,
    /// The remote user.
    pub user: String,
    /// The command, or the application and its arguments.
    pub command: Command,
    /// Variables to pass, name and value.
    pub environment: Vec<(String, Vec<u8>)>,
    /// The quiet time after its end, as in the request.
    pub linger: Option<u32>,
}

/// A signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The name by which the host knows this one.
    pub caller: String,
    /// The host's own name.
    pub server: String,
    /// The request's exact bytes.
    pub request: Vec<u8>,
    /// The public key of this machine, which vouches.
    pub machine: PublicKey,
    /// The proof for the host.
    pub proof: [u8; 32],
    /// The proof that the host must answer with.
    pub expected: [u8; 32],
    /// How many cookies are live.
    pub cookies: u8,
}

/// The signer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// The request is signed.
    Signed(Signed),
    /// The request is not signed; the reason is for the user.
    Refused(String),
}

/// The first CBOR key of the request's fields.
const WANTED: u8 = 8;

/// A machine is registered by its own key, never by vouching.
pub(super) const NOT_SIGNED: Malformed =
    Malformed("a machine registers itself (cos enrol); that is not signed for it");

const UNKNOWN: Malformed = Malformed("a field that the signer does not know");

impl Ask {
    /// Encodes the message.
    ///
    /// # Errors
    /// It is longer than allowed.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let wanted = Wanted {
            service: &self.service,
            command: &self.command,
            environment: &self.environment,
            linger: self.linger,
        };
        let bytes = cbor::write(|e| {
            e.map(wanted.fields().saturating_add(7))?;
            e.u8(1)?.str(&self.host)?.u8(2)?.bytes(&self.nonce)?;
            e.u8(3)?.bytes(&self.pin.0)?.u8(4)?.bytes(&self.key.0)?;
            e.u8(5)?.u8(self.which)?;
            e.u8(6)?.str(self.service.name())?;
            e.u8(7)?.str(&self.user)?;
            wanted.put(e, WANTED)
        })?;
        if bytes.len() > MESSAGE {
            return Err(Malformed("more than the signer accepts"));
        }
        Ok(bytes)
    }

    /// Parses a message. The rules of each field are those of the request made of them, which is
    /// parsed again before it is signed.
    ///
    /// # Errors
    /// The fields are not canonical, or one is unknown.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut host, mut nonce, mut pin, mut key, mut which) = (None, None, None, None, None);
        let (mut service, mut user) = (None, None);
        let mut wanted = WantedFields::default();
        if bytes.len() > MESSAGE {
            return Err(Malformed("more than the signer accepts"));
        }
        cbor::each_pair(bytes, |number, d| {
            match number {
                1 => host = Some(d.str()?.to_owned()),
                2 => nonce = Some(cbor::exactly(d)?),
                3 => pin = Some(PublicKey(cbor::exactly(d)?)),
                4 => key = Some(PublicKey(cbor::exactly(d)?)),
                5 => which = Some(d.u8()?),
                6 => service = Some(d.str()?),
                7 => user = Some(d.str()?.to_owned()),
                _ if wanted.take(number, WANTED, d)? => {}
                _ => return Err(UNKNOWN),
            }
            Ok(true)
        })?;
        if matches!(service, Some(EXEC | SUBSYSTEM)) && wanted.has_display() {
            return Err(Malformed("an application's fields for a command"));
        }
        let linger = wanted.linger();
        let (service, command, environment) = wanted.of(service)?;
        if service == Service::Enrol {
            return Err(NOT_SIGNED);
        }
        Ok(Self {
            host: host.ok_or(Malformed("no host"))?,
            nonce: nonce.ok_or(Malformed("no nonce"))?,
            pin: pin.ok_or(Malformed("no key of the host"))?,
            key: key.ok_or(Malformed("no key of the client"))?,
            which: which.ok_or(Malformed("no cookie is named"))?,
            service,
            user: user.ok_or(Malformed("no user to run as"))?,
            command,
            environment,
            linger,
        })
    }
}

impl Reply {
    /// Encodes the message.
    ///
    /// # Errors
    /// None for a valid reply.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        cbor::write(|e| match self {
            Self::Signed(s) => {
                e.map(7)?.u8(1)?.str(&s.caller)?.u8(2)?.str(&s.server)?;
                e.u8(3)?.bytes(&s.request)?.u8(4)?.bytes(&s.machine.0)?;
                e.u8(5)?.bytes(&s.proof)?.u8(6)?.bytes(&s.expected)?;
                e.u8(7)?.u8(s.cookies)?;
                Ok(())
            }
            Self::Refused(why) => {
                let why: String = why.chars().take(WORDS / 4).collect();
                e.map(1)?.u8(8)?.str(&why)?;
                Ok(())
            }
        })
    }

    /// Parses a message.
    ///
    /// # Errors
    /// The bytes are not a reply.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut caller, mut server, mut request, mut machine) = (None, None, None, None);
        let (mut proof, mut expected, mut cookies, mut refused) = (None, None, None, None);
        cbor::each_pair(bytes, |number, d| {
            match number {
                1 => caller = Some(d.str()?.to_owned()),
                2 => server = Some(d.str()?.to_owned()),
                3 => request = Some(d.bytes()?.to_vec()),
                4 => machine = Some(PublicKey(cbor::exactly(d)?)),
                5 => proof = Some(cbor::exactly(d)?),
                6 => expected = Some(cbor::exactly(d)?),
                7 => cookies = Some(d.u8()?),
                8 => refused = Some(d.str()?.to_owned()),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        if let Some(why) = refused {
            return Ok(Self::Refused(why));
        }
        let missing = Malformed("a signer's answer without one of its fields");
        Ok(Self::Signed(Signed {
            caller: caller.ok_or(missing)?,
            server: server.ok_or(missing)?,
            request: request.ok_or(missing)?,
            machine: machine.ok_or(missing)?,
            proof: proof.ok_or(missing)?,
            expected: expected.ok_or(missing)?,
            cookies: cookies.ok_or(missing)?,
        }))
    }
}
