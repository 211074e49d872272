//! The two messages in the clear: Hello and ServerHello.
//!
//! Pure; used by the client and the monitor. Every byte of both messages is in the prologue of the
//! Noise handshake, so a changed byte ends the connection.

use minicbor::Decoder;

use super::record::{self, Kind};
use super::{Malformed, cbor, limits};
use crate::secret::PublicKey;

/// The protocol version that this code speaks.
pub const VERSION: u32 = 1;

/// The cipher suite of a connection. There is no suite without encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suite {
    /// `Noise_IK_25519_AESGCM_SHA256`
    AesGcm = 1,
    /// `Noise_IK_25519_ChaChaPoly_SHA256`
    ChaChaPoly = 2,
}

impl Suite {
    /// Returns the suite's number on the wire.
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Returns the suite with this number on the wire; `None` if it is unknown.
    pub fn of(number: u32) -> Option<Self> {
        [Self::AesGcm, Self::ChaChaPoly]
            .into_iter()
            .find(|s| s.number() == number)
    }

    /// Returns the suites in this machine's order of preference: AES first where the processor has
    /// AES instructions, else ChaCha20.
    pub fn preferred() -> [Self; 2] {
        if aes_in_hardware() {
            [Self::AesGcm, Self::ChaChaPoly]
        } else {
            [Self::ChaChaPoly, Self::AesGcm]
        }
    }
}

fn aes_in_hardware() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes")
        && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    false
}

/// The client's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The highest version that the client speaks, at least 1.
    pub version: u32,
    /// The known suites among those that it offers, in its order of preference; never empty.
    pub suites: Vec<Suite>,
    /// Whether it asks for the host's public key (first contact).
    pub wants_host_key: bool,
}

impl Hello {
    /// Returns the whole record.
    ///
    /// # Errors
    /// More suites than a Hello may offer.
    pub fn compose(&self) -> Result<Vec<u8>, Malformed> {
        let content = cbor::write(|e| {
            e.map(if self.wants_host_key { 3 } else { 2 })?;
            e.u8(1)?
                .u32(self.version)?
                .u8(2)?
                .array(cbor::len(self.suites.len()))?;
            for s in &self.suites {
                e.u32(s.number())?;
            }
            if self.wants_host_key {
                e.u8(3)?.bool(true)?;
            }
            Ok(())
        })?;
        record::compose(Kind::Hello, &content)
    }

    /// Parses a whole record.
    ///
    /// # Errors
    /// Anything but a canonical Hello that offers a known suite.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let content = record::parse(bytes, &[Kind::Hello])?.content;
        let (mut version, mut suites, mut wants_host_key) = (None, None, false);
        cbor::each_pair(content, |key, d| {
            match key {
                1 => version = Some(d.u32()?),
                2 => suites = Some(offered(d)?),
                3 => wants_host_key = d.bool()?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let version = version
            .filter(|v| *v >= 1)
            .ok_or(Malformed("a Hello without a version"))?;
        let suites = suites.filter(|s| !s.is_empty());
        let suites = suites.ok_or(Malformed("a Hello that offers no suite we have"))?;
        Ok(Self {
            version,
            suites,
            wants_host_key,
        })
    }
}

fn offered(d: &mut Decoder<'_>) -> Result<Vec<Suite>, Malformed> {
    let mut suites = Vec::new();
    for _ in 0..cbor::array(d, limits::SUITES_OFFERED)? {
        suites.extend(Suite::of(d.u32()?));
    }
    Ok(suites)
}

/// The server's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHello {
    /// The version of the connection: the lower of both sides' highest.
    pub version: u32,
    /// The suite of the connection, one that the client offered.
    pub suite: Suite,
    /// The nonce. The monitor draws it for this connection and uses it once.
    pub nonce: [u8; limits::NONCE],
    /// The largest ClientHello body that the server takes, bytes.
    pub greeting_limit: u32,
    /// The host's public key, if the client asked for it.
    pub host_key: Option<PublicKey>,
}

impl ServerHello {
    /// Returns the whole record.
    ///
    /// # Errors
    /// None that the fields can cause.
    pub fn compose(&self) -> Result<Vec<u8>, Malformed> {
        let content = cbor::write(|e| {
            e.map(if self.host_key.is_some() { 5 } else { 4 })?;
            e.u8(1)?
                .u32(self.version)?
                .u8(2)?
                .u32(self.suite.number())?;
            e.u8(3)?
                .bytes(&self.nonce)?
                .u8(4)?
                .u32(self.greeting_limit)?;
            if let Some(key) = &self.host_key {
                e.u8(5)?.bytes(&key.0)?;
            }
            Ok(())
        })?;
        record::compose(Kind::ServerHello, &content)
    }

    /// Parses a whole record, the answer to `hello`.
    ///
    /// # Errors
    /// Anything but a canonical ServerHello that answers this Hello.
    pub fn parse(bytes: &[u8], hello: &Hello) -> Result<Self, Malformed> {
        let content = record::parse(bytes, &[Kind::ServerHello])?.content;
        let (mut version, mut suite, mut nonce) = (None, None, None);
        let (mut greeting_limit, mut host_key) = (None, None);
        cbor::each_pair(content, |key, d| {
            match key {
                1 => version = Some(d.u32()?),
                2 => suite = Suite::of(d.u32()?),
                3 => nonce = Some(cbor::exactly(d)?),
                4 => greeting_limit = Some(d.u32()?),
                5 => host_key = Some(PublicKey(cbor::exactly(d)?)),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(Self {
            version: version
                .filter(|v| (1..=hello.version).contains(v))
                .ok_or(Malformed(
                    "a ServerHello of a version that we did not offer",
                ))?,
            suite: suite.filter(|s| hello.suites.contains(s)).ok_or(Malformed(
                "a ServerHello with a suite that we did not offer",
            ))?,
            nonce: nonce.ok_or(Malformed("a ServerHello without a nonce"))?,
            greeting_limit: greeting_limit.ok_or(Malformed("a ServerHello without limits"))?,
            host_key,
        })
    }
}
