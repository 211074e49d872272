//! The request: what the client asks for, as the proof covers it.
//!
//! Pure; used by the client, the signer and the monitor. The caller keeps the request's bytes as
//! they came, because the proof covers exactly these bytes.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::name::{UserName, is_service_name};
use super::wanted::{Wanted, WantedFields};
use super::{Malformed, cbor, limits};

/// The command that a client asks for where it was given none: the user's login shell, which reads
/// commands from standard input. The host sets SHELL, and all common shells accept these words.
pub const LOGIN_SHELL: &str = "exec \"$SHELL\" -l";

/// A command: the argument vector as the client was given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The words themselves, at least one where the service runs a command.
    Words(Vec<Vec<u8>>),
    /// A command too long for the ClientHello, or one whose variables are ([`super::rest`]). The
    /// request has SHA-256 of their encoding and its length in bytes; the encoding follows in
    /// records of its own.
    Follows {
        /// SHA-256 of the encoding.
        digest: [u8; 32],
        /// Length of the encoding, bytes, at most [`limits::COMMAND`].
        length: u32,
    },
}

impl Command {
    /// Returns what a log shows of it: the words with single spaces between them, the first 200
    /// bytes. The caller must escape it.
    pub fn shown(&self) -> String {
        const MOST: usize = 200;
        let Self::Words(words) = self else {
            return String::new();
        };
        let line = words.join(&b' ');
        let mut text = String::from_utf8_lossy(line.get(..MOST).unwrap_or(&line)).into_owned();
        if line.len() > MOST {
            text.push('…');
        }
        text
    }
}

/// The service that is asked for (seed 000).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Service {
    /// A command, its streams and its status.
    Exec,
    /// A program of the server's settings. Its name is the only word. It has streams and a status
    /// like a command.
    Subsystem,
    /// An application of the server's table: the first word is its name.
    Gui(Gui),
    /// A named service (seed 003). The first word is its name, in any case; the others are the
    /// caller's arguments.
    Named(Offer),
    /// The names of the services that the caller may use. No command, no variables, no display.
    List(Offer),
    /// The registration of the client's machine at the doors (seed 002). No command, no variables,
    /// no display.
    Enrol,
}

/// Where an application is to be displayed, and whether it is detached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gui {
    /// `GUI_HOST`: an address or a host's name; `None`: the address that the
    /// connection comes from.
    pub host: Option<String>,
    /// `GUI_PORT`.
    pub port: u16,
    /// Whether it outlives the connection.
    pub detach: bool,
}

/// What the client lets the host choose from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// The formats of the result, the preferred one first; empty: the service's own.
    pub formats: Vec<String>,
}

/// A request for a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub service: Service,
    /// The user to run as; the caller's own name where the client names none.
    pub user: String,
    /// The calling user's name, as the calling host says it.
    pub caller_user: UserName,
    /// What to run; no words for a service that runs nothing.
    pub command: Command,
    /// Variables to pass, name and value.
    pub environment: Vec<(String, Vec<u8>)>,
    /// How many seconds the outputs of an ended job must be quiet, while another process holds them
    /// open, before End. [`limits::UNTIL_CLOSED`]: until they are closed. `None`: the server's
    /// setting.
    pub linger: Option<u32>,
}

/// Service name in a request: a command.
pub const EXEC: &str = "exec";
/// A program that the server's settings name.
pub const SUBSYSTEM: &str = "subsystem";
/// An application.
pub const GUI: &str = "gui";
/// A named service.
pub const NAMED: &str = "service";
/// The names of services.
pub const LIST: &str = "services";
/// A machine's registration.
pub const ENROL: &str = "enrol";

impl Service {
    /// Returns whether the service runs anything.
    pub const fn runs(&self) -> bool {
        !matches!(self, Self::List(_) | Self::Enrol)
    }

    /// Returns its name in a request.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Exec => EXEC,
            Self::Subsystem => SUBSYSTEM,
            Self::Gui(_) => GUI,
            Self::Named(_) => NAMED,
            Self::List(_) => LIST,
            Self::Enrol => ENROL,
        }
    }
}

/// The first key of the fields of [`Wanted`] in a request.
const WANTED: u8 = 4;

impl Request {
    /// Returns the request's bytes.
    ///
    /// # Errors
    /// A field is longer than the protocol allows.
    pub fn encode(&self) -> Result<Vec<u8>, Malformed> {
        let wanted = self.wanted();
        let bytes = cbor::write(|e| {
            e.map(wanted.fields().saturating_add(3))?;
            e.u8(1)?
                .str(self.service.name())?
                .u8(2)?
                .str(&self.user)?
                .u8(3)?
                .str(self.caller_user.as_str())?;
            wanted.put(e, WANTED)
        })?;
        Self::decode(&bytes)?;
        Ok(bytes)
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            service: &self.service,
            command: &self.command,
            environment: &self.environment,
            linger: self.linger,
        }
    }

    /// Parses a request's bytes.
    ///
    /// # Errors
    /// Anything but a canonical request for a known service, with each field within its limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut service, mut user, mut caller_user) = (None, None, None);
        let mut wanted = WantedFields::default();
        cbor::each_pair(bytes, |key, d| {
            match key {
                1 => service = Some(d.str()?),
                2 => user = Some(name(d.str()?)?),
                3 => caller_user = Some(caller(d.str()?)?),
                _ => return wanted.take(key, WANTED, d),
            }
            Ok(true)
        })?;
        // Fields of another service are skipped, like unknown keys.
        let linger = wanted.linger();
        let (service, command, environment) = wanted.of(service)?;
        let linger = linger.filter(|_| service.runs());
        Ok(Self {
            service,
            user: user.ok_or(Malformed("a request without a user"))?,
            caller_user: caller_user.ok_or(Malformed("a request without its caller"))?,
            command,
            environment,
            linger,
        })
    }
}

pub(super) fn fits(length: u32) -> bool {
    usize::try_from(length).is_ok_and(|n| n > 0 && n <= limits::COMMAND)
}

/// Encodes the words of a command that follows the ClientHello.
///
/// # Errors
/// More words or bytes than a command may have.
pub fn encode_words(words: &[Vec<u8>]) -> Result<Vec<u8>, Malformed> {
    let bytes = cbor::write(|e| put_words(e, words))?;
    if words.is_empty() || words.len() > limits::ARGUMENTS || bytes.len() > limits::COMMAND {
        return Err(Malformed("the command is longer than the protocol allows"));
    }
    Ok(bytes)
}

/// Parses the words of a command that followed the ClientHello, and checks that it is the one that
/// the proof covers.
///
/// # Errors
/// Another digest, or anything but canonical words.
pub fn decode_words(bytes: &[u8], digest: &[u8; 32]) -> Result<Vec<Vec<u8>>, Malformed> {
    if Sha256::digest(bytes).as_slice() != digest {
        return Err(Malformed("a command that is not the one that was proven"));
    }
    cbor::check(bytes)?;
    get_words(&mut minicbor::Decoder::new(bytes))
}

/// Returns the command as a request carries it, the words where they fit the ClientHello, else
/// their digest; and the encoding that must follow, if any.
///
/// # Errors
/// More words or bytes than a command may have.
pub fn pack_words(words: Vec<Vec<u8>>) -> Result<(Command, Option<Vec<u8>>), Malformed> {
    let bytes = encode_words(&words)?;
    if bytes.len() <= limits::COMMAND_IN_HELLO {
        return Ok((Command::Words(words), None));
    }
    Ok((follows(&bytes)?, Some(bytes)))
}

/// Returns the command that a request carries in place of `bytes`, which follow it.
pub(super) fn follows(bytes: &[u8]) -> Result<Command, Malformed> {
    let length = u32::try_from(bytes.len()).map_err(|_| Malformed("a command too long"))?;
    Ok(Command::Follows {
        digest: Sha256::digest(bytes).into(),
        length,
    })
}

/// Writes the words of a command.
pub(super) fn put_words(
    e: &mut cbor::Out,
    words: &[Vec<u8>],
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    e.array(cbor::len(words.len()))?;
    for w in words {
        e.bytes(w)?;
    }
    Ok(())
}

/// Writes variables.
pub(super) fn put_variables(
    e: &mut cbor::Out,
    all: &[(String, Vec<u8>)],
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    e.array(cbor::len(all.len()))?;
    for (name, value) in all {
        e.array(2)?.str(name)?.bytes(value)?;
    }
    Ok(())
}

/// Reads the words of a command: at least one.
pub(super) fn get_words(d: &mut minicbor::Decoder<'_>) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut words = Vec::new();
    for _ in 0..cbor::array(d, limits::ARGUMENTS)? {
        let word = d.bytes()?;
        if word.contains(&0) {
            return Err(Malformed("a NUL byte in a command"));
        }
        words.push(word.to_vec());
    }
    if words.is_empty() {
        Err(Malformed("an empty command"))
    } else {
        Ok(words)
    }
}

fn name(text: &str) -> Result<String, Malformed> {
    if text.is_empty() || text.len() > limits::NAME {
        return Err(Malformed("a name that is empty or too long"));
    }
    Ok(text.to_owned())
}

/// Parses the calling user's name, which reaches the job's environment and PAM.
fn caller(text: &str) -> Result<UserName, Malformed> {
    UserName::parse(text).map_err(|_| Malformed("a caller's name that no user can have"))
}

/// Checks a value for `GUI_HOST`: an address or a host's name, nothing that a program could take
/// for something else.
pub(super) fn display_host(text: &str) -> Result<String, Malformed> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'_' | b'%');
    if text.starts_with('-') || !text.bytes().all(plain) {
        return Err(Malformed("a display that is no address and no host's name"));
    }
    name(text)
}

/// Returns whether a variable may have this name: a shell accepts it, and it is not too long.
pub fn is_variable(name: &str) -> bool {
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let digit_first = name.bytes().next().is_none_or(|b| b.is_ascii_digit());
    plain && !digit_first && name.len() <= limits::VARIABLE_NAME
}

/// Reads the formats that a client takes.
pub(super) fn formats(d: &mut minicbor::Decoder<'_>) -> Result<Vec<String>, Malformed> {
    let mut all = Vec::new();
    for _ in 0..cbor::array(d, limits::FORMATS)? {
        let name = d.str()?;
        if !is_service_name(name.as_bytes()) {
            return Err(Malformed("a format's name that no service can have"));
        }
        all.push(name.to_owned());
    }
    match all.is_empty() {
        true => Err(Malformed("a list of no format")),
        false => Ok(all),
    }
}

/// Reads variables.
pub(super) fn variables(
    d: &mut minicbor::Decoder<'_>,
) -> Result<Vec<(String, Vec<u8>)>, Malformed> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut names = BTreeSet::new();
    for _ in 0..cbor::array(d, limits::VARIABLES)? {
        if cbor::array(d, 2)? != 2 {
            return Err(Malformed("a variable that is not a name and a value"));
        }
        let (name, value) = (d.str()?, d.bytes()?);
        if !is_variable(name) {
            return Err(Malformed("a variable's name that no shell would take"));
        }
        if value.contains(&0) {
            return Err(Malformed("a NUL byte in a variable's value"));
        }
        if !names.insert(name) {
            return Err(Malformed("a variable that is there twice"));
        }
        all.push((name.to_owned(), value.to_vec()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrol() -> Request {
        Request {
            service: Service::Enrol,
            user: "alice".to_owned(),
            caller_user: "alice".parse().unwrap(),
            command: Command::Words(Vec::new()),
            environment: Vec::new(),
            linger: None,
        }
    }

    #[test]
    fn an_enrolment_is_two_names_and_nothing_else() {
        let bytes = enrol().encode().unwrap();
        assert_eq!(bytes.first(), Some(&0xa3), "three fields");
        assert_eq!(Request::decode(&bytes), Ok(enrol()));

        // Fields of other services are skipped, and not written either.
        let gui = Request {
            service: Service::Gui(Gui {
                host: Some("pc-17".to_owned()),
                port: 9003,
                detach: true,
            }),
            command: Command::Words(vec![b"editor".to_vec()]),
            environment: vec![("LANG".to_owned(), b"C".to_vec())],
            linger: Some(5),
            ..enrol()
        };
        let mut bytes = gui.encode().unwrap();
        // After the map's head and the key 1, "enrol" replaces "gui".
        let mut written = vec![bytes[0], 1, 0x65];
        written.extend_from_slice(b"enrol");
        written.extend(bytes.split_off(6));
        assert_eq!(Request::decode(&written), Ok(enrol()));
        let full = Request {
            service: Service::Enrol,
            ..gui
        };
        assert_eq!(full.encode(), enrol().encode());
    }

    #[test]
    fn a_subsystem_is_one_word() {
        let ask = |words: &[&[u8]]| Request {
            service: Service::Subsystem,
            command: Command::Words(words.iter().map(|w| w.to_vec()).collect()),
            ..enrol()
        };
        let longest = [b'a'; limits::SERVICE_NAME];
        for good in [&b"sftp"[..], b"a.b_c-d+1", &longest] {
            let request = ask(&[good]);
            assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
        let long = [b'a'; limits::SERVICE_NAME + 1];
        for wrong in [&b""[..], b"-s", b"/bin/sh", b"a b", b"\xff", &long] {
            assert!(ask(&[wrong]).encode().is_err(), "{wrong:?}");
        }
        assert!(ask(&[]).encode().is_err());
        assert!(ask(&[b"sftp", b"-R"]).encode().is_err());
        let later = Request {
            command: follows(b"sftp").unwrap(),
            ..ask(&[b"sftp"])
        };
        assert!(later.encode().is_err());
    }

    #[test]
    fn a_named_service_has_a_name_and_arguments() {
        let ask = |words: &[&[u8]]| Request {
            service: Service::Named(Offer {
                formats: vec!["json".into(), "text".into()],
            }),
            command: Command::Words(words.iter().map(|w| w.to_vec()).collect()),
            ..enrol()
        };
        for good in [&[&b"Report"[..]][..], &[b"pg", b"", b"-x", b"\xff"]] {
            let request = ask(good);
            assert_eq!(Request::decode(&request.encode().unwrap()), Ok(request));
        }
        for wrong in [&[][..], &[&b""[..]], &[b"-s"], &[b"a/b", b"c"]] {
            assert!(ask(wrong).encode().is_err(), "{wrong:?}");
        }
        let later = Request {
            command: follows(b"report").unwrap(),
            ..ask(&[b"report"])
        };
        assert!(later.encode().is_err());
        for formats in [vec![], vec!["json".to_owned()]] {
            let list = Request {
                service: Service::List(Offer { formats }),
                ..enrol()
            };
            assert_eq!(Request::decode(&list.encode().unwrap()), Ok(list));
        }
        for formats in [
            vec!["a b".to_owned()],
            vec!["x".to_owned(); limits::FORMATS + 1],
        ] {
            let service = Service::List(Offer { formats });
            let wrong = Request { service, ..enrol() };
            assert!(wrong.encode().is_err());
        }
    }

    #[test]
    fn services_that_run_a_command_need_words() {
        let none = Request {
            service: Service::Exec,
            ..enrol()
        };
        assert!(none.encode().is_err());
    }
}
