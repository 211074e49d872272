//! The fields that a request and a message to the signer (`signer/fields.rs`) have in common, under
//! consecutive keys.
//!
//! Pure; used by the client, the signer and the monitor.

use std::convert::Infallible;

use minicbor::Decoder;
use minicbor::encode::Error;

use super::name::is_service_name;
use super::request::{
    Command, ENROL, EXEC, GUI, Gui, LIST, NAMED, Offer, SUBSYSTEM, Service, display_host, fits,
    formats, get_words, put_variables, put_words, variables,
};
use super::{Malformed, cbor, limits};

/// Variables, each a name and a value.
pub(crate) type Environment = Vec<(String, Vec<u8>)>;

/// The fields, to be written.
pub(crate) struct Wanted<'a> {
    pub(crate) service: &'a Service,
    pub(crate) command: &'a Command,
    pub(crate) environment: &'a [(String, Vec<u8>)],
    pub(crate) linger: Option<u32>,
}

impl Wanted<'_> {
    const fn gui(&self) -> Option<&Gui> {
        match self.service {
            Service::Gui(gui) => Some(gui),
            Service::Exec
            | Service::Subsystem
            | Service::Named(_)
            | Service::List(_)
            | Service::Enrol => None,
        }
    }

    /// Returns the formats that the client takes.
    fn formats(&self) -> &[String] {
        match self.service {
            Service::Named(offer) | Service::List(offer) => &offer.formats,
            Service::Exec | Service::Subsystem | Service::Gui(_) | Service::Enrol => &[],
        }
    }

    /// Returns how many of its keys are present.
    pub(crate) fn fields(&self) -> u64 {
        let formats = u64::from(!self.formats().is_empty());
        if !self.service.runs() {
            return formats;
        }
        let gui = self.gui();
        // The words; or digest and length.
        let command = match self.command {
            Command::Words(_) => 1,
            Command::Follows { .. } => 2,
        };
        let optional = [
            !self.environment.is_empty(),
            gui.is_some(),
            gui.is_some_and(|g| g.host.is_some()),
            gui.is_some_and(|g| g.detach),
            self.linger.is_some(),
        ];
        cbor::len(optional.into_iter().filter(|there| *there).count())
            .saturating_add(command)
            .saturating_add(formats)
    }

    /// Writes the fields. The first has the key `first`.
    pub(crate) fn put(&self, e: &mut cbor::Out, first: u8) -> Result<(), Error<Infallible>> {
        let key = |n: u8| first.saturating_add(n);
        if self.service.runs() {
            self.put_what_runs(e, key)?;
        }
        let formats = self.formats();
        if !formats.is_empty() {
            e.u8(key(9))?.array(cbor::len(formats.len()))?;
            for format in formats {
                e.str(format)?;
            }
        }
        Ok(())
    }

    fn put_what_runs(
        &self,
        e: &mut cbor::Out,
        key: impl Fn(u8) -> u8,
    ) -> Result<(), Error<Infallible>> {
        if let Command::Words(words) = self.command {
            put_words(e.u8(key(0))?, words)?;
        }
        if !self.environment.is_empty() {
            put_variables(e.u8(key(1))?, self.environment)?;
        }
        if let Command::Follows { digest, length } = self.command {
            e.u8(key(2))?.bytes(digest)?.u8(key(3))?.u32(*length)?;
        }
        if let Some(gui) = self.gui() {
            if let Some(host) = &gui.host {
                e.u8(key(4))?.str(host)?;
            }
            e.u8(key(5))?.u16(gui.port)?;
            if gui.detach {
                e.u8(key(6))?.bool(true)?;
            }
        }
        if let Some(seconds) = self.linger {
            e.u8(key(7))?.u32(seconds)?;
        }
        Ok(())
    }
}

/// The fields while they are read.
#[derive(Default)]
pub(crate) struct WantedFields {
    words: Option<Vec<Vec<u8>>>,
    environment: Environment,
    digest: Option<[u8; 32]>,
    length: Option<u32>,
    host: Option<String>,
    port: Option<u16>,
    detach: bool,
    linger: Option<u32>,
    formats: Vec<String>,
}

impl WantedFields {
    /// Reads the field of this key, where the first field has the key `first`. Returns `false` for
    /// a key that is none of these fields.
    pub(crate) fn take(
        &mut self,
        key: u64,
        first: u8,
        d: &mut Decoder<'_>,
    ) -> Result<bool, Malformed> {
        match key.checked_sub(first.into()) {
            Some(0) => self.words = Some(get_words(d)?),
            Some(1) => self.environment = variables(d)?,
            Some(2) => self.digest = Some(cbor::exactly(d)?),
            Some(3) => self.length = Some(d.u32()?),
            Some(4) => self.host = Some(display_host(d.str()?)?),
            Some(5) => self.port = Some(d.u16()?),
            Some(6) => self.detach = d.bool()?,
            Some(7) => self.linger = Some(linger(d.u32()?)?),
            // 8 was never given.
            Some(9) => self.formats = formats(d)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Returns whether a field is present that only an application has.
    pub(crate) const fn has_display(&self) -> bool {
        self.host.is_some() || self.port.is_some() || self.detach
    }

    /// Returns the quiet time that is asked for.
    pub(crate) const fn linger(&self) -> Option<u32> {
        self.linger
    }

    /// Returns service, command and environment for the service of that name.
    pub(crate) fn of(
        self,
        service: Option<&str>,
    ) -> Result<(Service, Command, Environment), Malformed> {
        let offer = Offer {
            formats: self.formats,
        };
        let service = match (service, self.port) {
            (Some(EXEC), _) => Service::Exec,
            (Some(SUBSYSTEM), _) => Service::Subsystem,
            (Some(NAMED), _) => Service::Named(offer),
            (Some(GUI), Some(port)) if port > 0 => Service::Gui(Gui {
                host: self.host,
                port,
                detach: self.detach,
            }),
            // These run nothing and ignore the fields of other services.
            (Some(name @ (LIST | ENROL)), _) => {
                let service = match name {
                    LIST => Service::List(offer),
                    _ => Service::Enrol,
                };
                return Ok((service, Command::Words(Vec::new()), Environment::new()));
            }
            (Some(GUI), _) => return Err(Malformed("an application without a display")),
            _ => return Err(Malformed("a request for a service that does not exist")),
        };
        let command = match (self.words, self.digest, self.length) {
            (Some(words), None, None) => Command::Words(words),
            (None, Some(digest), Some(length)) if fits(length) => {
                Command::Follows { digest, length }
            }
            _ => return Err(Malformed("a request without a command, or one too long")),
        };
        let follows = matches!(command, Command::Follows { .. });
        if follows && matches!(service, Service::Gui(_)) {
            return Err(Malformed(
                "an application's words must come with its request",
            ));
        }
        match service {
            Service::Subsystem => check_subsystem(&command)?,
            Service::Named(_) => check_named(&command)?,
            Service::Exec | Service::Gui(_) | Service::List(_) | Service::Enrol => {}
        }
        Ok((service, command, self.environment))
    }
}

/// Checks the only word of a request for a subsystem.
fn check_subsystem(command: &Command) -> Result<(), Malformed> {
    match command {
        Command::Words(words) => match words.as_slice() {
            [name] if is_service_name(name) => Ok(()),
            _ => Err(Malformed("a subsystem that is not one word, its name")),
        },
        Command::Follows { .. } => Err(Malformed("a subsystem's name must come with its request")),
    }
}

/// Checks the first word of a request for a named service.
fn check_named(command: &Command) -> Result<(), Malformed> {
    match command {
        Command::Words(words) => match words.first() {
            Some(name) if is_service_name(name) => Ok(()),
            _ => Err(Malformed("a named service without its name")),
        },
        Command::Follows { .. } => Err(Malformed("a service's words must come with its request")),
    }
}

const fn linger(seconds: u32) -> Result<u32, Malformed> {
    match seconds {
        0..=limits::LINGER | limits::UNTIL_CLOSED => Ok(seconds),
        _ => Err(Malformed("a quiet time longer than a day")),
    }
}
