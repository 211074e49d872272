//! One-time passwords and the backdoor password (seed 002, steps 19 to 24).
//!
//! A password that the administrator chose is stored as argon2id under one salt per file, so that
//! one computation finds it among all. A generated password has a selector and 128 random bits,
//! which cannot be guessed, so it is stored as a plain hash. A one-time password is erased in the
//! change that registers its machine, so it works only once, even if two machines race.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{Inner, State, Still, known_as, put};
use crate::fault::Fault;
use crate::registry::id::{Id, Name, Occurred};
use crate::registry::text::{self, Document, Hashed};
use crate::secret::{self, from_hex, same_bytes, to_hex};

/// Argon2id's costs: KiB of memory, passes, lanes (OWASP's choice for little memory).
const MEMORY: u32 = 9_216;
const PASSES: u32 = 4;

/// Longest password, bytes: the longest answer.
const LONGEST: usize = crate::protocol::limits::REPLY;

/// Crockford's base32: without I, L, O and U.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const SELECTOR_DIGITS: usize = 8;
const SECRET_DIGITS: usize = 26;
const LABEL: &[u8] = b"cosserver activation password 1";

/// An unused one-time password.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pending {
    /// The name that its machine will get.
    pub name: String,
    /// When it was created.
    pub made: Occurred,
    /// Whether it was generated; otherwise the administrator chose it.
    pub generated: bool,
}

/// A generated password, to be shown once.
pub struct Generated {
    selector: [u8; 5],
    secret: Zeroizing<[u8; 16]>,
}

impl Generated {
    fn new() -> Result<Self, Fault> {
        Ok(Self {
            selector: secret::random()?,
            secret: Zeroizing::new(secret::random()?),
        })
    }

    /// Returns it as it is typed: 34 digits of Crockford's base32, in groups.
    pub fn shown(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::with_capacity(48));
        let mut count = 0;
        let selector = self
            .selector
            .iter()
            .fold(0_u128, |n, b| n << 8 | u128::from(*b));
        let secret = u128::from_be_bytes(*self.secret);
        for (number, digits) in [(selector, SELECTOR_DIGITS), (secret, SECRET_DIGITS)] {
            for place in (0..digits).rev() {
                let digit = usize::try_from(number >> (5 * place) & 31).unwrap_or(0);
                if count > 0 && count % 6 == 0 {
                    text.push('-');
                }
                text.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
                count += 1;
            }
        }
        text
    }

    /// Parses a typed password: in either case, with or without its dashes.
    fn parse(text: &[u8]) -> Option<Self> {
        let mut digits = Zeroizing::new(Vec::with_capacity(SELECTOR_DIGITS + SECRET_DIGITS));
        for byte in text.iter().filter(|b| !matches!(b, b'-' | b' ')) {
            let byte = match byte.to_ascii_uppercase() {
                b'O' => b'0',
                b'I' | b'L' => b'1',
                other => other,
            };
            if digits.len() == SELECTOR_DIGITS + SECRET_DIGITS {
                return None;
            }
            digits.push(DIGITS.iter().position(|d| *d == byte)?);
        }
        if digits.len() != SELECTOR_DIGITS + SECRET_DIGITS {
            return None;
        }
        let (selector, secret) = digits.split_at_checked(SELECTOR_DIGITS)?;
        let number = |digits: &[usize]| {
            let digits = digits.iter().filter_map(|d| u128::try_from(*d).ok());
            digits.fold(0_u128, |n, d| n << 5 | d)
        };
        // 26 digits have 130 bits.
        if secret.first().is_none_or(|first| *first > 7) {
            return None;
        }
        let selector = number(selector).to_be_bytes();
        Some(Self {
            selector: selector.last_chunk().copied()?,
            secret: Zeroizing::new(number(secret).to_be_bytes()),
        })
    }

    #[cfg(test)]
    pub(super) fn secret_bytes(&self) -> [u8; 16] {
        *self.secret
    }

    fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(LABEL);
        hash.update(*self.secret);
        hash.finalize().into()
    }
}

/// A typed password, ready for lookup.
enum Typed {
    Generated(Generated),
    Chosen(Zeroizing<[u8; 32]>),
}

/// Which password matched.
enum Right {
    OneTime(Name),
    Backdoor,
}

impl Inner {
    /// Returns the unused one-time passwords, in the order of their names.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn passwords(&self) -> Result<Vec<Pending>, Fault> {
        let (_, all) = self.0.passwords()?;
        let pending = all.iter().map(|p| Pending {
            name: p.name.as_str().to_owned(),
            made: p.made,
            generated: p.selector.is_some(),
        });
        let mut pending: Vec<Pending> = pending.collect();
        pending.sort_by_cached_key(|p| p.name.to_ascii_lowercase());
        Ok(pending)
    }

    /// Returns whether there is an unused one-time password.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn has_passwords(&self) -> Result<bool, Fault> {
        Ok(!self.0.passwords()?.1.is_empty())
    }

    /// Generates a one-time password for the machine that will have this name.
    ///
    /// # Errors
    /// There is one for that name, or the file cannot be written.
    pub fn add_generated(&mut self, name: &Name) -> Result<Generated, Fault> {
        let password = Generated::new()?;
        let hash = password.hash();
        self.add_password(name, &hash, Some(password.selector))?;
        Ok(password)
    }

    /// Stores a one-time password that the administrator chose. Its hash takes a moment.
    ///
    /// # Errors
    /// There is one for that name, it is already that of another name, it is empty or longer than
    /// an answer may be, or the file cannot be written.
    pub fn add_chosen(&mut self, name: &Name, password: &[u8]) -> Result<(), Fault> {
        no_generated(password)?;
        let hash = self.hash(password)?;
        self.add_password(name, &hash, None)
    }

    fn add_password(
        &mut self,
        name: &Name,
        hash: &[u8; 32],
        selector: Option<[u8; 5]>,
    ) -> Result<(), Fault> {
        let made = Occurred::now();
        self.0.change_always(|all| {
            let taken = |why: &str| Err(Fault::new(format!("{name}: {why}")));
            if all.passwords().iter().any(|p| p.name == *name) {
                return taken("there is a one-time password for that name; delete it first");
            }
            let is_own = |p: &Hashed| same_bytes(&p.hash, hash);
            let is_backdoor = backdoor(all.settings()).is_some_and(|b| same_bytes(&b, hash));
            if is_backdoor || all.passwords().iter().any(is_own) {
                return taken("that password is taken; choose another for each name");
            }
            all.add_password(Hashed {
                hash: *hash,
                selector,
                made,
                name: name.clone(),
            });
            Ok(())
        })
    }

    /// Deletes the one-time password of that name. Returns `false` if there is none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn delete_password(&mut self, name: &str) -> Result<bool, Fault> {
        self.0
            .change_always(|all| Ok(all.take_passwords(|p| p.name.as_str() == name).is_some()))
    }

    /// Sets or removes the backdoor password. Its hash takes a moment.
    ///
    /// # Errors
    /// It is a pending one-time password, empty, or longer than an answer may be, or the file
    /// cannot be written.
    pub fn set_backdoor(&mut self, password: Option<&[u8]>) -> Result<(), Fault> {
        password.map_or(Ok(()), no_generated)?;
        let hash = password.map(|p| self.hash(p)).transpose()?;
        self.0.change_always(|all| {
            let is_same = |p: &Hashed| hash.as_ref().is_some_and(|h| same_bytes(&p.hash, &**h));
            if all.passwords().iter().any(is_same) {
                return Err(Fault::new(
                    "that is a one-time password; choose another for the backdoor",
                ));
            }
            let digits = hash.as_ref().map(|hash| to_hex(&**hash));
            all.set("backdoor", digits.as_ref().map(String::as_bytes))
        })
    }

    /// Registers a machine by a one-time password, which is erased, or by the backdoor password,
    /// under the name `otherwise`. Returns the machine's current name, or `None` if the password is
    /// wrong. The hash takes a moment.
    ///
    /// # Errors
    /// The file cannot be written. The password then remains valid.
    pub fn activate(
        &mut self,
        id: &Id,
        password: &[u8],
        otherwise: &Name,
        remote: bool,
        still: Still<'_>,
    ) -> Result<Option<Name>, Fault> {
        let typed = match Generated::parse(password) {
            Some(generated) => Typed::Generated(generated),
            None if password.is_empty() || password.len() > LONGEST => return Ok(None),
            None => Typed::Chosen(self.hash(password)?),
        };
        // A wrong password costs no lock, unless it is the first and the file has no salt yet.
        let is_known = self.look(id)?.0 == State::Authorized;
        if !is_known && !typed.is_one_of(self.0.passwords()?) {
            return Ok(None);
        }
        self.change_if(still, |all| {
            // Another request has registered it; leave the password for another machine.
            if let Some(known) = known_as(all, id) {
                return Some(known);
            }
            let name = match take(all, &typed)? {
                Right::OneTime(name) => name,
                Right::Backdoor => otherwise.clone(),
            };
            put(all, id, &name, remote);
            Some(name)
        })
    }

    /// Returns the hash of a password that the administrator chose.
    fn hash(&mut self, password: &[u8]) -> Result<Zeroizing<[u8; 32]>, Fault> {
        if password.is_empty() || password.len() > LONGEST {
            return Err(Fault::new(format!(
                "a password has 1 to {LONGEST} bytes, and this one {}",
                password.len()
            )));
        }
        let salt = self.salt()?;
        let mut hash = Zeroizing::new([0; 32]);
        let costs = Params::new(MEMORY, PASSES, 1, Some(hash.len()));
        let costs = costs.map_err(|e| Fault::new(format!("argon2: {e}")))?;
        let mut memory = Zeroizing::new(Vec::new());
        memory
            .try_reserve_exact(costs.block_count())
            .map_err(|e| Fault::new(format!("argon2: {e}")))?;
        memory.resize(costs.block_count(), Block::default());
        Argon2::new(Algorithm::Argon2id, Version::V0x13, costs)
            .hash_password_into_with_memory(password, &salt, &mut *hash, &mut *memory)
            .map_err(|e| Fault::new(format!("argon2: {e}")))?;
        Ok(hash)
    }

    /// Returns the one salt of the file, which is created on first use.
    fn salt(&mut self) -> Result<[u8; 16], Fault> {
        let salt = |all: &text::Settings| hex(all.get("salt")?);
        if let Some(salt) = salt(&self.0.settings()?) {
            return Ok(salt);
        }
        let new: [u8; 16] = secret::random()?;
        self.0.change_always(|all| {
            if let Some(salt) = salt(all.settings()) {
                return Ok(salt);
            }
            all.set("salt", Some(to_hex(&new).as_bytes()))?;
            Ok(new)
        })
    }
}

/// Returns the bytes of a setting that has as many hexadecimal digits.
pub(super) fn hex<const N: usize>(value: &[u8]) -> Option<[u8; N]> {
    from_hex(std::str::from_utf8(value).ok()?)
}

/// Returns the hash of the backdoor password.
fn backdoor(settings: &text::Settings) -> Option<[u8; 32]> {
    hex(settings.get("backdoor")?)
}

/// Rejects a password in the form of a generated one: it would be looked up only among those.
fn no_generated(password: &[u8]) -> Result<(), Fault> {
    if Generated::parse(password).is_none() {
        return Ok(());
    }
    Err(Fault::new(
        "that reads like a password that cosadm makes by itself; choose another",
    ))
}

impl Typed {
    /// Returns whether this is the one-time password.
    fn is(&self, password: &Hashed) -> bool {
        let hash = match self {
            Self::Generated(g) => g.hash(),
            Self::Chosen(hash) => **hash,
        };
        let selector = match self {
            Self::Generated(g) => Some(g.selector),
            Self::Chosen(_) => None,
        };
        password.selector == selector && same_bytes(&password.hash, &hash)
    }

    /// Returns whether this is the backdoor password.
    fn is_backdoor(&self, settings: &text::Settings) -> bool {
        match self {
            Self::Generated(_) => false,
            Self::Chosen(hash) => backdoor(settings).is_some_and(|b| same_bytes(&b, &**hash)),
        }
    }

    fn is_one_of(&self, (settings, passwords): (text::Settings, Vec<Hashed>)) -> bool {
        passwords.iter().any(|p| self.is(p)) || self.is_backdoor(&settings)
    }
}

/// Returns which password matches, and erases it if it is a one-time password.
fn take(all: &mut Document, typed: &Typed) -> Option<Right> {
    if let Some(password) = all.take_passwords(|p| typed.is(p)) {
        return Some(Right::OneTime(password.name));
    }
    typed.is_backdoor(all.settings()).then_some(Right::Backdoor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_password_is_read_as_it_is_typed() {
        for _ in 0..100 {
            let made = Generated::new().unwrap();
            let shown = made.shown();
            assert_eq!(shown.len(), 34 + 5);
            for typed in [
                shown.to_string(),
                shown.to_lowercase(),
                shown.replace('-', ""),
                shown.replace('0', "o").replace('1', "l"),
            ] {
                let read = Generated::parse(typed.as_bytes()).unwrap();
                assert!(read.selector == made.selector && read.secret == made.secret);
            }
        }
        for wrong in [
            "",
            "secret",
            &"8".repeat(33),
            &"8".repeat(35),
            &"U".repeat(34),
        ] {
            assert!(Generated::parse(wrong.as_bytes()).is_none());
        }
        // More than 128 bits.
        assert!(Generated::parse("0".repeat(8).as_bytes()).is_none());
        let much = format!("{}{}", "0".repeat(8), "Z".repeat(26));
        assert!(Generated::parse(much.as_bytes()).is_none());
    }
}
