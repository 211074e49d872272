//! The invitation card: the short text that one host's administrator carries to the other's over a
//! safe channel. Pure; used only by `cosadm`.
//!
//! ```text
//! -----BEGIN COSSERVER INVITATION-----
//! caller: hosta
//! server: hostb
//! addr: 192.0.2.1,2001:db8::1
//! port: 9002
//! key: 64 hexadecimal digits, the server's public key
//! cookie: 64 hexadecimal digits, the secret
//! check: 8 hexadecimal digits
//! -----END COSSERVER INVITATION-----
//! ```
//!
//! The check is the first 8 hexadecimal digits of the SHA-256 over the lines from `caller` to
//! `cookie`, each written as above with a newline. It only detects typing errors.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::address::Address;
use super::name::HostName;
use super::words::{self, did_you_mean, quoted};
use crate::fault::Fault;
use crate::secret::{PublicKey, Secret, to_hex};

const BEGIN: &str = "-----BEGIN COSSERVER INVITATION-----";
const END: &str = "-----END COSSERVER INVITATION-----";
/// The fields in their order.
const FIELDS: [&str; 7] = ["caller", "server", "addr", "port", "key", "cookie", "check"];
/// The longest text that is searched for a card, in bytes.
pub const TEXT_MAX: usize = 64 * 1024;
/// The most addresses on a card.
pub const ADDRESSES_MAX: usize = 32;

/// An invitation: what the caller needs to reach the server and to authenticate to it. It holds a
/// secret, so it has no `Debug`.
pub struct Card {
    /// The name by which the server knows the invited host.
    pub caller: HostName,
    /// The server's own name.
    pub server: HostName,
    /// The server's addresses, in the order in which to try them.
    pub addresses: Vec<IpAddr>,
    /// The server's TCP port, 1 to 65535.
    pub port: u16,
    /// The server's public key.
    pub key: PublicKey,
    /// The secret with which the caller authenticates.
    pub cookie: Secret,
}

impl Card {
    /// Returns the card as text, wiped when dropped.
    pub fn print(&self) -> Zeroizing<String> {
        let body = self.body();
        let mut text = Zeroizing::new(String::with_capacity(body.len() + 128));
        for piece in [
            BEGIN,
            "\n",
            &body,
            "check: ",
            &check(&body),
            "\n",
            END,
            "\n",
        ] {
            text.push_str(piece);
        }
        text
    }

    /// Returns the lines that the check covers.
    fn body(&self) -> Zeroizing<String> {
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let addresses = addresses.join(",");
        // Reserve it in full, so that the text never moves and leaves a copy.
        let mut body = Zeroizing::new(String::with_capacity(1024 + addresses.len()));
        let values: [&str; 6] = [
            self.caller.as_str(),
            self.server.as_str(),
            &addresses,
            &self.port.to_string(),
            &self.key.to_hex(),
            &self.cookie.to_hex(),
        ];
        for (field, value) in FIELDS.iter().zip(values) {
            for piece in [field, ": ", value, "\n"] {
                body.push_str(piece);
            }
        }
        body
    }

    /// Finds and parses the one card in a text. Text before and after it, blanks, blank lines and
    /// carriage returns, and the order of its lines do not matter.
    ///
    /// There is no card or more than one, or it is wrong. The fault names the line of the text, 1
    /// being the first, and no secret.
    pub fn parse(text: &[u8]) -> Result<Self, Fault> {
        if text.len() > TEXT_MAX {
            return Err(Fault::new(format!(
                "the text is longer than {TEXT_MAX} bytes; that is no invitation"
            )));
        }
        let mut lines = (1_usize..).zip(text.split(|b| *b == b'\n').map(<[u8]>::trim_ascii));
        if !lines.any(|(_, line)| line == BEGIN.as_bytes()) {
            return Err(Fault::new(format!(
                "there is no invitation in it: no line {BEGIN}"
            )));
        }
        let mut values: [Option<(usize, &str)>; FIELDS.len()] = [None; FIELDS.len()];
        let mut ended = false;
        for (number, line) in lines.by_ref() {
            if line == END.as_bytes() {
                ended = true;
                break;
            }
            take(line, number, &mut values)?;
        }
        if !ended {
            return Err(Fault::new(format!(
                "the invitation has no end: no line {END}"
            )));
        }
        if let Some((number, _)) = lines.find(|(_, line)| *line == BEGIN.as_bytes()) {
            return Err(on(
                number,
                "a second invitation begins; join them one by one",
            ));
        }
        Self::of(values)
    }

    fn of(values: [Option<(usize, &str)>; FIELDS.len()]) -> Result<Self, Fault> {
        if let Some((field, _)) = FIELDS
            .iter()
            .zip(&values)
            .find(|(_, value)| value.is_none())
        {
            return Err(Fault::new(format!(
                "the invitation has no line \"{field}:\""
            )));
        }
        let [
            Some(caller),
            Some(server),
            Some(addresses),
            Some(port),
            Some(key),
            Some(cookie),
            Some(sum),
        ] = values
        else {
            return Err(Fault::new("the invitation lacks a line"));
        };
        let card = Self {
            caller: HostName::parse(caller.1).map_err(|e| on(caller.0, e))?,
            server: HostName::parse(server.1).map_err(|e| on(server.0, e))?,
            addresses: self::addresses(addresses.1).map_err(|e| on(addresses.0, e))?,
            port: words::port(port.1)
                .ok_or_else(|| {
                    on(
                        port.0,
                        format!("{} is no port from 1 to 65535", quoted(port.1)),
                    )
                })?
                .get(),
            key: PublicKey::from_hex(key.1).ok_or_else(|| on(key.0, digits(key.1)))?,
            cookie: Secret::from_hex(cookie.1).ok_or_else(|| on(cookie.0, digits(cookie.1)))?,
        };
        if !sum.1.eq_ignore_ascii_case(&check(&card.body())) {
            return Err(on(
                sum.0,
                "the check does not fit the lines above: something was mistyped or left out",
            ));
        }
        Ok(card)
    }
}

/// Stores the value of one line of a card.
fn take<'t>(
    line: &'t [u8],
    number: usize,
    values: &mut [Option<(usize, &'t str)>],
) -> Result<(), Fault> {
    if line.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(line).map_err(|_| on(number, "it is not text"))?;
    let Some((field, value)) = text.split_once(':') else {
        return Err(on(number, "a line of an invitation is \"name: value\""));
    };
    let field = field.trim().to_ascii_lowercase();
    let slot = FIELDS
        .iter()
        .position(|known| *known == field)
        .and_then(|i| values.get_mut(i));
    let Some(slot) = slot else {
        return Err(on(
            number,
            format!(
                "unknown line {}{}",
                quoted(&field),
                did_you_mean(&field, FIELDS)
            ),
        ));
    };
    if slot.is_some() {
        return Err(on(number, format!("a second line \"{field}:\"")));
    }
    *slot = Some((number, value.trim()));
    Ok(())
}

fn addresses(value: &str) -> Result<Vec<IpAddr>, Fault> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for item in value.split(',').map(str::trim) {
        let address = Address::parse(item)?;
        if !address.zone().is_empty() {
            let words = format!(
                "{} is an address on a link that only one host knows",
                quoted(item)
            );
            return Err(Fault::new(words));
        }
        let address = address.ip();
        if addresses.len() == ADDRESSES_MAX {
            return Err(Fault::new(format!("more than {ADDRESSES_MAX} addresses")));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// Describes what is wrong with a key or a cookie, without revealing it.
fn digits(value: &str) -> String {
    let count = value.chars().count();
    if count == 64 {
        "it has something other than hexadecimal digits".into()
    } else {
        format!("64 hexadecimal digits are needed, and there are {count} characters")
    }
}

fn check(body: &str) -> String {
    to_hex(&Sha256::digest(body.as_bytes()))
        .chars()
        .take(8)
        .collect()
}

fn on(number: usize, why: impl std::fmt::Display) -> Fault {
    Fault::new(format!("line {number}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::scratch::Numbers;

    fn card() -> Card {
        Card {
            caller: HostName::parse("hosta").unwrap(),
            server: HostName::parse("hostb").unwrap(),
            addresses: vec!["127.0.0.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            port: 9002,
            key: PublicKey([0xab; 32]),
            cookie: Secret::new([0xcd; 32]),
        }
    }

    fn told(text: &str) -> String {
        let told = Card::parse(text.as_bytes())
            .err()
            .unwrap_or_else(|| panic!("taken: {text}"))
            .to_string();
        assert!(!told.contains("cdcd"), "a secret is told: {told}");
        told
    }

    fn same(card: &Card) {
        assert_eq!(*card.print(), *self::card().print());
    }

    #[test]
    fn card_round_trip() {
        let text = card().print();
        assert!(text.starts_with("-----BEGIN COSSERVER INVITATION-----\ncaller: hosta\nserver: hostb\naddr: 127.0.0.1,2001:db8::1\nport: 9002\nkey: abab"));
        same(&Card::parse(text.as_bytes()).unwrap());
        // SHA-256 of the six lines by another program (coreutils' sha256sum).
        assert!(
            text.ends_with("check: 16474555\n-----END COSSERVER INVITATION-----\n"),
            "{}",
            *text
        );
    }

    #[test]
    fn what_surrounds_it_does_not_matter() {
        let text = card().print();
        same(
            &Card::parse(format!("Dear admin,\n\nhere: \n{}\n-- \nbye", *text).as_bytes()).unwrap(),
        );
        same(&Card::parse(text.replace('\n', "\r\n").as_bytes()).unwrap());
        same(&Card::parse(text.replace('\n', " \n\n\t ").as_bytes()).unwrap());
        same(&Card::parse(text.replace("caller: ", "Caller :").as_bytes()).unwrap());
        same(&Card::parse(text.to_uppercase().as_bytes()).unwrap());
        same(
            &Card::parse(
                [b"\xff\xfe\n", text.as_bytes(), b"\xff"]
                    .concat()
                    .as_slice(),
            )
            .unwrap(),
        );
        let mut lines: Vec<&str> = text.lines().collect();
        lines.swap(1, 6);
        same(&Card::parse(lines.join("\n").as_bytes()).unwrap());
    }

    #[test]
    fn mistakes_name_the_line() {
        let text = card().print();
        let with = |from: &str, to: &str| told(&text.replace(from, to));
        assert!(told("").contains("there is no invitation in it"));
        assert!(told(text.split_once("-----END").unwrap().0).contains("has no end"));
        assert!(with("hosta", "hostc").contains("line 8: the check does not fit"));
        assert!(with("hosta", "ho/sta").contains("line 2: \"ho/sta\" is no host name"));
        assert!(with("127.0.0.1", "127.0.0").contains("line 4: \"127.0.0\" is no address"));
        assert!(with("9002", "0").contains("line 5: \"0\" is no port"));
        assert!(with("9002", "+9002").contains("line 5"));
        assert!(
            with("key: ab", "key: ")
                .contains("line 6: 64 hexadecimal digits are needed, and there are 62")
        );
        assert!(with("cookie: cd", "cookie: xx").contains("line 7: it has something other"));
        assert!(with("cookie: cd", "cookie: dc").contains("line 8: the check"));
        assert!(with("server: hostb\n", "").contains("no line \"server:\""));
        assert!(
            with("server:", "sever:")
                .contains("line 3: unknown line \"sever\"; did you mean \"server\"?")
        );
        assert!(
            with("server: hostb\n", "server: hostb\nserver: hostb\n")
                .contains("line 4: a second line")
        );
        assert!(with("server: hostb", "hostb").contains("line 3: a line of an invitation is"));
        assert!(told(&format!("{}{}", *text, *text)).contains("line 10: a second invitation"));
        assert!(told(&"x".repeat(TEXT_MAX + 1)).contains("longer"));
        assert!(with("127.0.0.1", &"127.0.0.1,".repeat(40)).contains("more than 32"));
    }

    #[test]
    fn mutants_end_with_an_answer() {
        let text = card().print();
        let mut numbers = Numbers(3);
        let mut wrong = 0;
        for _ in 0..100_000 {
            let mutant = numbers.mutate(text.as_bytes());
            match Card::parse(&mutant) {
                // The check accepts only a card with the same meaning.
                Ok(card) => same(&card),
                Err(fault) => wrong += usize::from(!fault.to_string().contains("cdcdcd")),
            }
        }
        assert!(wrong > 50_000);
    }
}
