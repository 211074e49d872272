//! The canonical form that every CBOR message must have. It is checked before the message is
//! decoded, so that no two decoders can read it differently.
//!
//! The form is that of RFC 8949 section 4.2.1 (core deterministic encoding), narrowed: definite
//! lengths; shortest integers and lengths; map keys that are unsigned integers or texts in strictly
//! ascending order (so that no key occurs twice); no floats, no tags; `true` and `false` the only
//! simple values; nothing after the end; a bounded depth.

use std::convert::Infallible;

use minicbor::{Decoder, Encoder, encode};

use super::{Malformed, limits};

/// The encoder that a message is written into.
pub(crate) type Out = Encoder<Vec<u8>>;

/// Writes one message. The caller must write the keys in ascending order.
pub(crate) fn write(
    f: impl FnOnce(&mut Out) -> Result<(), encode::Error<Infallible>>,
) -> Result<Vec<u8>, Malformed> {
    let mut e = Encoder::new(Vec::new());
    f(&mut e).map_err(|_| Malformed("a message that cannot be encoded"))?;
    Ok(e.into_writer())
}

/// Checks the canonical form of a message that is a map, then calls `f` with each key and the
/// decoder before its value. `f` reads the value; for a key that it does not know, it returns
/// false, and the value is skipped.
pub(crate) fn each_pair<'b>(
    bytes: &'b [u8],
    mut f: impl FnMut(u64, &mut Decoder<'b>) -> Result<bool, Malformed>,
) -> Result<(), Malformed> {
    check(bytes)?;
    let mut d = Decoder::new(bytes);
    let n = d.map()?.ok_or(Malformed("CBOR of indefinite length"))?;
    for _ in 0..n {
        let key = d.u64()?;
        if !f(key, &mut d)? {
            d.skip()?;
        }
    }
    Ok(())
}

/// Reads the length of an array that may have at most `most` items.
pub(crate) fn array(d: &mut Decoder<'_>, most: usize) -> Result<usize, Malformed> {
    d.array()?
        .and_then(|n| usize::try_from(n).ok())
        .filter(|n| *n <= most)
        .ok_or(Malformed("a list with more items than it may have"))
}

/// Reads a byte string of exactly `N` bytes.
pub(crate) fn exactly<const N: usize>(d: &mut Decoder<'_>) -> Result<[u8; N], Malformed> {
    d.bytes()?
        .try_into()
        .map_err(|_| Malformed("a key, nonce or digest of another length"))
}

/// Returns the length of a list, as CBOR writes it.
pub(crate) fn len(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Checks that `bytes` are exactly one canonical item.
///
/// # Errors
/// The first rule that is broken.
pub fn check(bytes: &[u8]) -> Result<(), Malformed> {
    let rest = item(bytes, limits::CBOR_DEPTH)?;
    if rest.is_empty() {
        Ok(())
    } else {
        Err(Malformed("bytes after the end of the message"))
    }
}

fn item(bytes: &[u8], depth: usize) -> Result<&[u8], Malformed> {
    let depth = depth
        .checked_sub(1)
        .ok_or(Malformed("CBOR nested too deep"))?;
    let Head {
        major,
        value,
        mut rest,
    } = head(bytes)?;
    match major {
        0 | 1 => Ok(rest),
        2 | 3 => {
            let length = usize::try_from(value).map_err(|_| SHORT)?;
            let (string, rest) = rest.split_at_checked(length).ok_or(SHORT)?;
            if major == 3 && std::str::from_utf8(string).is_err() {
                return Err(Malformed("CBOR text that is not UTF-8"));
            }
            Ok(rest)
        }
        4 => {
            for _ in 0..value {
                rest = item(rest, depth)?;
            }
            Ok(rest)
        }
        5 => {
            let mut before: &[u8] = &[];
            for _ in 0..value {
                let key = rest;
                if !matches!(head(key)?.major, 0 | 3) {
                    return Err(Malformed(
                        "CBOR map key that is neither a number nor a text",
                    ));
                }
                rest = item(rest, depth)?;
                let length = key.len().saturating_sub(rest.len());
                let key = key.get(..length).ok_or(SHORT)?;
                // Shortest encodings sort bytewise as RFC 8949 orders keys.
                if key <= before {
                    return Err(Malformed("CBOR map keys twice or out of order"));
                }
                before = key;
                rest = item(rest, depth)?;
            }
            Ok(rest)
        }
        7 if value == 20 || value == 21 => Ok(rest),
        _ => Err(Malformed("CBOR of a kind that no message has")),
    }
}

struct Head<'a> {
    major: u8,
    value: u64,
    rest: &'a [u8],
}

const SHORT: Malformed = Malformed("CBOR that ends too early");
const LONG_FORM: Malformed = Malformed("CBOR number or length not in its shortest form");

fn head(bytes: &[u8]) -> Result<Head<'_>, Malformed> {
    let (&first, rest) = bytes.split_first().ok_or(SHORT)?;
    let (major, low) = (first >> 5, first & 31);
    if major == 7 && low >= 24 {
        return Err(Malformed("CBOR of a kind that no message has"));
    }
    let (value, rest) = match low {
        0..=23 => (u64::from(low), rest),
        24 => {
            let ([n], rest) = rest.split_first_chunk().ok_or(SHORT)?;
            (least(u64::from(*n), 24)?, rest)
        }
        25 => {
            let (n, rest) = rest.split_first_chunk().ok_or(SHORT)?;
            (least(u64::from(u16::from_be_bytes(*n)), 1 << 8)?, rest)
        }
        26 => {
            let (n, rest) = rest.split_first_chunk().ok_or(SHORT)?;
            (least(u64::from(u32::from_be_bytes(*n)), 1 << 16)?, rest)
        }
        27 => {
            let (n, rest) = rest.split_first_chunk().ok_or(SHORT)?;
            (least(u64::from_be_bytes(*n), 1 << 32)?, rest)
        }
        _ => return Err(Malformed("CBOR of indefinite length")),
    };
    Ok(Head { major, value, rest })
}

fn least(value: u64, floor: u64) -> Result<u64, Malformed> {
    if value < floor {
        Err(LONG_FORM)
    } else {
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_canonical_items_are_accepted() {
        let good: &[&[u8]] = &[
            &[0x00],
            &[0x18, 24],
            &[0xa2, 0x01, 0x01, 0x02, 0x82, 0x41, 0xff, 0x61, b'x'],
            &[0xf5],
            &[0xa0],
        ];
        let bad: &[&[u8]] = &[
            &[],
            &[0x18, 23],                                     // long form
            &[0x19, 0, 255],                                 // long form
            &[0x5f, 0x41, 1, 0xff],                          // indefinite
            &[0xa2, 1, 1, 1, 1],                             // twice
            &[0xa2, 2, 1, 1, 1],                             // order
            &[0xa1, 0x41, 1, 1],                             // key of bytes
            &[0xf6],                                         // null
            &[0xf9, 0, 0],                                   // float
            &[0xc0, 0],                                      // tag
            &[0x61, 0xff],                                   // not UTF-8
            &[0x00, 0x00],                                   // trailing
            &[0x42, 1],                                      // short
            &[0x9b, 255, 255, 255, 255, 255, 255, 255, 255], // long array
            &[0x81; 64],                                     // deep
        ];
        for g in good {
            assert_eq!(check(g), Ok(()), "{g:02x?}");
        }
        for b in bad {
            assert!(check(b).is_err(), "{b:02x?}");
        }
    }
}
