//! What a user's client says to the signer, and what it hears: one message there, one
//! back, in the canonical CBOR of the wire. Pure.

use crate::secret::PublicKey;
use crate::wire::request::{self, Command, EXEC, GUI, Gui, Service};
use crate::wire::{Malformed, cbor, limits};

/// Longest message either way, bytes: a request fills a ClientHello (4,096) at most.
pub const MESSAGE: usize = 2 * limits::GREETING_BODY;

/// Bytes of the words that say why nothing was signed.
const WORDS: usize = 1_024;

/// What a user wants to ask of which host. Not in it: his name, which the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The host, by its name in the host table here.
    pub host: String,
    /// The nonce that it has drawn for the connection.
    pub nonce: [u8; limits::NONCE],
    /// Its public key, as the client has it.
    pub pin: PublicKey,
    /// The public half of the client's own key, by which it shakes hands.
    pub key: PublicKey,
    /// Under which of the cookies that are live; 0: the newest.
    pub which: u8,
    /// What is asked for.
    pub service: Service,
    /// The user to be there.
    pub user: String,
    /// The command, or the application and its arguments.
    pub command: Command,
    /// Variables to pass, name and value.
    pub environment: Vec<(String, Vec<u8>)>,
}

/// What was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The name by which the host knows this one.
    pub caller: String,
    /// The host's name for itself.
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
    /// It is signed.
    Signed(Signed),
    /// It is not, and why, for the person who asks.
    Refused(String),
}

const UNKNOWN: Malformed = Malformed("a field that the signer does not know");

impl Ask {
    /// The message's bytes.
    ///
    /// # Errors
    /// It is longer than one may be.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let gui = match &self.service {
            Service::Exec => None,
            Service::Gui(gui) => Some(gui),
        };
        let long = matches!(self.command, Command::Follows { .. });
        let optional = [
            !self.environment.is_empty(),
            long,
            gui.is_some_and(|g| g.host.is_some()),
            gui.is_some(),
            gui.is_some_and(|g| g.detach),
        ];
        let fields = cbor::len(optional.into_iter().filter(|there| *there).count());
        let bytes = cbor::write(|e| {
            e.map(fields.saturating_add(8))?;
            e.u8(1)?.str(&self.host)?.u8(2)?.bytes(&self.nonce)?;
            e.u8(3)?.bytes(&self.pin.0)?.u8(4)?.bytes(&self.key.0)?;
            e.u8(5)?.u8(self.which)?;
            e.u8(6)?.str(if gui.is_some() { GUI } else { EXEC })?;
            e.u8(7)?.str(&self.user)?;
            if let Command::Words(words) = &self.command {
                e.u8(8)?;
                request::put_words(e, words)?;
            }
            if !self.environment.is_empty() {
                e.u8(9)?;
                request::put_variables(e, &self.environment)?;
            }
            if let Command::Follows { digest, length } = &self.command {
                e.u8(10)?.bytes(digest)?.u8(11)?.u32(*length)?;
            }
            if let Some(gui) = gui {
                if let Some(host) = &gui.host {
                    e.u8(12)?.str(host)?;
                }
                e.u8(13)?.u16(gui.port)?;
                if gui.detach {
                    e.u8(14)?.bool(true)?;
                }
            }
            Ok(())
        })?;
        if bytes.len() > MESSAGE {
            return Err(Malformed("more than the signer takes"));
        }
        Ok(bytes)
    }

    /// The name of the service that is asked for.
    pub const fn service_name(&self) -> &'static str {
        match self.service {
            Service::Exec => EXEC,
            Service::Gui(_) => GUI,
        }
    }

    /// Parses a message. Each field's own rules are those of the request that is made
    /// of them, which is parsed again before it is signed.
    ///
    /// # Errors
    /// Anything but canonical fields, all of them known.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut host, mut nonce, mut pin, mut key, mut which) = (None, None, None, None, None);
        let (mut service, mut user, mut environment) = (None, None, Vec::new());
        let (mut words, mut digest, mut length) = (None, None, None);
        let (mut display, mut port, mut detach) = (None, None, false);
        if bytes.len() > MESSAGE {
            return Err(Malformed("more than the signer takes"));
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
                8 => words = Some(request::get_words(d)?),
                9 => environment = request::variables(d)?,
                10 => digest = Some(cbor::exactly(d)?),
                11 => length = Some(d.u32()?),
                12 => display = Some(d.str()?.to_owned()),
                13 => port = Some(d.u16()?),
                14 => detach = d.bool()?,
                _ => return Err(UNKNOWN),
            }
            Ok(true)
        })?;
        let service = match (service, port, &display, detach) {
            (Some(EXEC), None, None, false) => Service::Exec,
            (Some(GUI), Some(port), ..) => Service::Gui(Gui {
                host: display,
                port,
                detach,
            }),
            _ => {
                return Err(Malformed(
                    "a service that does not exist, or another's fields",
                ));
            }
        };
        let command = match (words, digest, length) {
            (Some(words), None, None) => Command::Words(words),
            (None, Some(digest), Some(length)) => Command::Follows { digest, length },
            _ => return Err(Malformed("no command, or two")),
        };
        Ok(Self {
            host: host.ok_or(Malformed("no host"))?,
            nonce: nonce.ok_or(Malformed("no nonce"))?,
            pin: pin.ok_or(Malformed("no key of the host"))?,
            key: key.ok_or(Malformed("no key of the client"))?,
            which: which.ok_or(Malformed("no cookie is named"))?,
            service,
            user: user.ok_or(Malformed("no user to be"))?,
            command,
            environment,
        })
    }
}

impl Reply {
    /// The message's bytes.
    ///
    /// # Errors
    /// None that a reply has.
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
    /// It is none.
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
