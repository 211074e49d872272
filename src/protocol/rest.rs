//! What follows a ClientHello that cannot carry it: the words of a long command, or the words with
//! the variables. The request has its digest and length, so the proof covers it (PROTOCOL 11).
//!
//! Pure; used by the client, which packs, and the monitor, which unpacks.

use sha2::{Digest, Sha256};

use super::request::{self, Command, put_variables, put_words};
use super::wanted::Environment;
use super::{Malformed, cbor, limits};

/// The keys of a map that follows; they are those of the request.
const WORDS: u8 = 4;
const VARIABLES: u8 = 5;

/// A command with its variables, as a request carries them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The words, or their digest and length.
    pub command: Command,
    /// The variables that are in the request itself.
    pub environment: Environment,
    /// The encoding that must follow, if any.
    pub follows: Option<Vec<u8>>,
}

/// Returns whether a command of `words` bytes leaves room in the ClientHello for these variables,
/// whatever the names in it.
fn fit_hello(words: usize, variables: usize) -> bool {
    let most = limits::COMMAND_IN_HELLO.saturating_add(limits::VARIABLES_IN_HELLO);
    variables <= limits::VARIABLES_IN_HELLO || words.saturating_add(variables) <= most
}

/// Returns the length of the variables' encoding, bytes.
pub fn length_of(environment: &[(String, Vec<u8>)]) -> usize {
    cbor::write(|e| put_variables(e, environment)).map_or(usize::MAX, |bytes| bytes.len())
}

/// Puts the words of a command and its variables where they fit: into the request, or after it.
///
/// # Errors
/// More words or bytes than a command may have with its variables.
pub fn pack(words: Vec<Vec<u8>>, environment: Environment) -> Result<Packed, Malformed> {
    let length = request::encode_words(&words)?.len();
    if fit_hello(length, length_of(&environment)) {
        let (command, follows) = request::pack_words(words)?;
        return Ok(Packed {
            command,
            environment,
            follows,
        });
    }
    let bytes = cbor::write(|e| {
        put_words(e.map(2)?.u8(WORDS)?, &words)?;
        put_variables(e.u8(VARIABLES)?, &environment)
    })?;
    if bytes.len() > limits::COMMAND {
        return Err(Malformed("more variables than the protocol allows"));
    }
    Ok(Packed {
        command: request::follows(&bytes)?,
        environment: Vec::new(),
        follows: Some(bytes),
    })
}

/// Parses what followed the ClientHello: an array of words, or a map of words and variables. Checks
/// that it is what the proof covers.
///
/// # Errors
/// Another digest, or anything but canonical words and variables.
pub fn unpack(bytes: &[u8], digest: &[u8; 32]) -> Result<(Vec<Vec<u8>>, Environment), Malformed> {
    // Major type 5, a map, is 101 in the first three bits.
    if bytes.first().is_none_or(|head| head >> 5 != 5) {
        let words = request::decode_words(bytes, digest)?;
        return Ok((words, Environment::new()));
    }
    if Sha256::digest(bytes).as_slice() != digest {
        return Err(Malformed("a command that is not the one that was proven"));
    }
    let (mut words, mut environment) = (None, Environment::new());
    cbor::each_pair(bytes, |key, d| {
        match u8::try_from(key) {
            Ok(WORDS) => words = Some(request::get_words(d)?),
            Ok(VARIABLES) => environment = request::variables(d)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let words = words.ok_or(Malformed("variables that follow without a command"))?;
    Ok((words, environment))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(count: usize, bytes: usize) -> Environment {
        let one = |n| (format!("V{n}"), vec![b'v'; bytes]);
        (0..count).map(one).collect()
    }

    fn digest(command: &Command) -> [u8; 32] {
        let Command::Follows { digest, .. } = command else {
            panic!("the words are in the request");
        };
        *digest
    }

    #[test]
    fn variables_go_where_they_fit() {
        let words = |bytes: usize| vec![vec![b'x'; bytes]];
        for (command, environment, words_follow, variables_follow) in [
            (10, variables(1, 200), false, false),
            (10, variables(1, 2_700), false, false),
            (10, variables(1, 2_800), true, true),
            (2_556, variables(1, 240), false, false),
            (2_557, variables(1, 240), true, false),
            (2_557, variables(1, 300), true, true),
            (10, variables(1_024, 100), true, true),
            (60_000, variables(1, 60_000), true, true),
        ] {
            let packed = pack(words(command), environment.clone()).unwrap();
            assert_eq!(packed.follows.is_some(), words_follow, "{command}");
            let in_request = if variables_follow {
                0
            } else {
                environment.len()
            };
            assert_eq!(packed.environment.len(), in_request, "{command}");
            if let Some(bytes) = &packed.follows {
                let (back, more) = unpack(bytes, &digest(&packed.command)).unwrap();
                assert_eq!(back, words(command));
                let wanted = if variables_follow {
                    environment
                } else {
                    Vec::new()
                };
                assert_eq!(more, wanted);
            }
        }
        assert!(pack(words(10), variables(1, limits::COMMAND)).is_err());
        assert!(pack(words(70_000), variables(1, 70_000)).is_err());
    }

    #[test]
    fn rest_of_a_command_is_words_or_a_map_with_words() {
        let hash = |bytes: &[u8]| Sha256::digest(bytes).into();
        let map = |keys: &[u8]| {
            cbor::write(|e| {
                e.map(cbor::len(keys.len()))?;
                for key in keys {
                    e.u8(*key)?;
                    match *key {
                        WORDS => put_words(e, &[b"id".to_vec()])?,
                        VARIABLES => put_variables(e, &[("A".to_owned(), b"1".to_vec())])?,
                        _ => put_words(e, &[])?,
                    }
                }
                Ok(())
            })
            .unwrap()
        };
        let read = |bytes: &[u8]| unpack(bytes, &hash(bytes));
        let words = vec![b"id".to_vec()];
        assert_eq!(read(&map(&[4])), Ok((words.clone(), Vec::new())));
        let one = vec![("A".to_owned(), b"1".to_vec())];
        assert_eq!(read(&map(&[4, 5])), Ok((words.clone(), one.clone())));
        assert_eq!(read(&map(&[4, 5, 9])), Ok((words, one)));
        for bad in [&[5][..], &[], &[5, 4], &[4, 4]] {
            assert!(read(&map(bad)).is_err(), "{bad:?}");
        }
        assert!(unpack(&map(&[4, 5]), &[0; 32]).is_err());
    }
}
