//! The codec of the messages between our processes.
//!
//! [`fields!`] lists the fields of a type in their order and derives both directions from that one
//! list; [`message!`] also makes the type a message. The format is fixed and strict: numbers have
//! their full width, byte strings and lists their length before them, a variant its number, and
//! nothing may follow the last field. Decoding must never read or allocate more than the message
//! holds.

use std::ffi::{CString, OsStr};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::protocol::answer::Reference;
use crate::protocol::hello::Suite;
use crate::protocol::limits;
use crate::protocol::noise::{Direction, Keys};
use crate::protocol::prompt::{Style, Text};
use crate::protocol::stream::{End, Signal};
use crate::secret::Secret;
use crate::sys::account::{Account, UserRecord};
use crate::sys::confine::Confined;
use crate::sys::id_number::IdNumber;
use crate::sys::process::Limits;
use crate::sys::sandbox::{SandboxConfig, SandboxStatus};
use crate::sys::shadow::Validity;

/// Longest reason that is sent why something failed, bytes. A longer one is cut.
pub(crate) const REASON: usize = 2_048;

/// A field that can be written.
pub(crate) trait Put {
    /// Appends the field.
    fn put(&self, w: &mut Writer);
}

/// A field that can be read.
pub(crate) trait Get<'a>: Sized {
    /// Most items of a list of these.
    const MOST: usize = 4_096;

    /// Reads the field. Returns `None` if it is missing or invalid.
    fn get(r: &mut Reader<'a>) -> Option<Self>;
}

/// Writes fields: first only their length is counted, so that a message is allocated once and no
/// copy of a key is left behind.
pub(crate) struct Writer {
    bytes: Vec<u8>,
    counted: Option<usize>,
}

impl Writer {
    /// Appends bytes as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        match &mut self.counted {
            Some(n) => *n = n.saturating_add(bytes.len()),
            None => self.bytes.extend_from_slice(bytes),
        }
    }
}

/// Reads fields.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(bytes)
    }
}

/// Encodes a message. Not generic: a message is put twice, and must not be compiled twice.
pub(crate) fn encode(message: &dyn Put) -> Vec<u8> {
    let mut w = Writer {
        bytes: Vec::new(),
        counted: Some(0),
    };
    message.put(&mut w);
    w.bytes.reserve_exact(w.counted.take().unwrap_or(0));
    message.put(&mut w);
    w.bytes
}

/// Parses a message. Returns `None` if it is malformed.
pub(crate) fn decode<'a, T: Get<'a>>(message: &'a [u8]) -> Option<T> {
    let mut r = Reader(message);
    let value = T::get(&mut r)?;
    r.0.is_empty().then_some(value)
}

/// Implements [`Put`] and [`Get`] for a type from the list of its fields. A struct has them in
/// braces, each variant of an enum behind its number. `field: module` has a field written by
/// `module::put` and read by `module::get`; `if` names a function that a value must satisfy, `most`
/// the most items of a list of these.
macro_rules! fields {
    (struct $type:ident $(<$lt:lifetime>)? {
        $($field:ident $(: $codec:ident)?),* $(,)?
    } $(if $check:path)? $(, most $most:expr)?) => {
        impl $(<$lt>)? $crate::ipc::fields::Put for $type $(<$lt>)? {
            fn put(&self, w: &mut $crate::ipc::fields::Writer) {
                let Self { $($field),* } = self;
                $($crate::ipc::fields::fields!(@put w $field $($codec)?);)*
            }
        }
        impl<'a> $crate::ipc::fields::Get<'a> for $type $(<$lt>)? {
            $(const MOST: usize = $most;)?
            fn get(r: &mut $crate::ipc::fields::Reader<'a>) -> Option<Self> {
                $(let $field = $crate::ipc::fields::fields!(@get r $($codec)?);)*
                Some(Self { $($field),* })$(.filter($check))?
            }
        }
    };
    (enum $type:ident $(<$lt:lifetime>)? { $($number:literal $variant:ident
        $(($($item:ident $(: $codec:ident)?),*))? $({ $($field:ident),* })?
    ),* $(,)? } $(if $check:path)?) => {
        impl $(<$lt>)? $crate::ipc::fields::Put for $type $(<$lt>)? {
            fn put(&self, w: &mut $crate::ipc::fields::Writer) {
                match self {$(
                    Self::$variant $(($($item),*))? $({ $($field),* })? => {
                        w.raw(&[$number]);
                        $($($crate::ipc::fields::fields!(@put w $item $($codec)?);)*)?
                        $($($crate::ipc::fields::fields!(@put w $field);)*)?
                    }
                )*}
            }
        }
        impl<'a> $crate::ipc::fields::Get<'a> for $type $(<$lt>)? {
            fn get(r: &mut $crate::ipc::fields::Reader<'a>) -> Option<Self> {
                let value = match $crate::ipc::fields::Get::get(r)? {
                    $($number => {
                        $($(let $item = $crate::ipc::fields::fields!(@get r $($codec)?);)*)?
                        $($(let $field = $crate::ipc::fields::fields!(@get r);)*)?
                        Self::$variant $(($($item),*))? $({ $($field),* })?
                    })*
                    0_u8..=u8::MAX => return None,
                };
                Some(value)$(.filter($check))?
            }
        }
    };
    (@put $w:ident $item:ident) => { $crate::ipc::fields::Put::put($item, $w) };
    (@put $w:ident $item:ident $codec:ident) => { $codec::put($item, $w) };
    (@get $r:ident) => { $crate::ipc::fields::Get::get($r)? };
    (@get $r:ident $codec:ident) => { $codec::get($r)? };
}
pub(crate) use fields;

/// As [`fields!`], and adds `encode` and `decode`.
macro_rules! message {
    ($kind:ident $type:ident $(<$lt:lifetime>)? { $($fields:tt)* } $(if $check:path)?) => {
        $crate::ipc::fields::fields!($kind $type $(<$lt>)? { $($fields)* } $(if $check)?);
        impl<'a> $type $(<$lt>)? {
            /// Encodes the message.
            pub fn encode(&self) -> Vec<u8> {
                $crate::ipc::fields::encode(self)
            }

            /// Parses a message. Returns `None` if it is malformed.
            pub fn decode(message: &'a [u8]) -> Option<Self> {
                $crate::ipc::fields::decode(message)
            }
        }
    };
}
pub(crate) use message;

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl Put for $number {
            fn put(&self, w: &mut Writer) {
                w.raw(&self.to_be_bytes());
            }
        }
        impl Get<'_> for $number {
            fn get(r: &mut Reader<'_>) -> Option<Self> {
                r.array().map(|bytes| Self::from_be_bytes(*bytes))
            }
        }
    )*};
}
numbers!(u8, u16, u32, u64, usize);

/// Implements the traits by way of another type, into which and from which a value is converted.
macro_rules! by {
    ($($type:ty as $field:ty: $value:ident => $put:expr, $got:ident => $get:expr;)*) => {$(
        impl Put for $type {
            fn put(&self, w: &mut Writer) {
                let $value = self;
                $put.put(w);
            }
        }
        impl<'a> Get<'a> for $type {
            fn get(r: &mut Reader<'a>) -> Option<Self> {
                let $got = <$field>::get(r)?;
                $get
            }
        }
    )*};
}
by! {
    bool as u8: b => u8::from(*b), n => (n < 2).then_some(n == 1);
    // No error number or pid is negative.
    i32 as u32: n => u32::try_from(*n).unwrap_or(0), n => n.try_into().ok();
    String as &'a str: s => s.as_str(), s => Some(s.to_owned());
    CString as &'a [u8]: s => s.as_bytes(), b => CString::new(b).ok();
    PathBuf as &'a [u8]: p => p.as_path(), b => Some(OsStr::from_bytes(b).into());
    Zeroizing<Vec<u8>> as &'a [u8]: v => v.as_slice(), b => Some(Zeroizing::new(b.to_vec()));
    Reference as [u8; 8]: r => r.0, b => Some(Self(b));
}

impl Put for Path {
    fn put(&self, w: &mut Writer) {
        self.as_os_str().as_bytes().put(w);
    }
}

impl<T: Put + ?Sized> Put for &T {
    fn put(&self, w: &mut Writer) {
        (**self).put(w);
    }
}

impl Put for [u8] {
    fn put(&self, w: &mut Writer) {
        self.len().put(w);
        w.raw(self);
    }
}

impl<'a> Get<'a> for &'a [u8] {
    fn get(r: &mut Reader<'a>) -> Option<Self> {
        let n = Get::get(r)?;
        r.take(n)
    }
}

impl Put for str {
    fn put(&self, w: &mut Writer) {
        self.as_bytes().put(w);
    }
}

impl<'a> Get<'a> for &'a str {
    fn get(r: &mut Reader<'a>) -> Option<Self> {
        std::str::from_utf8(Get::get(r)?).ok()
    }
}

impl<const N: usize> Put for [u8; N] {
    fn put(&self, w: &mut Writer) {
        w.raw(self);
    }
}

impl<const N: usize> Get<'_> for [u8; N] {
    fn get(r: &mut Reader<'_>) -> Option<Self> {
        r.array().copied()
    }
}

impl Put for IpAddr {
    fn put(&self, w: &mut Writer) {
        match self {
            Self::V4(ip) => ip.octets().as_slice().put(w),
            Self::V6(ip) => ip.octets().as_slice().put(w),
        }
    }
}

impl Get<'_> for IpAddr {
    fn get(r: &mut Reader<'_>) -> Option<Self> {
        let bytes = <&[u8]>::get(r)?;
        let v4 = <[u8; 4]>::try_from(bytes).map(Self::from);
        v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(Self::from))
            .ok()
    }
}

impl Put for Secret {
    fn put(&self, w: &mut Writer) {
        self.expose().put(w);
    }
}

impl Get<'_> for Secret {
    fn get(r: &mut Reader<'_>) -> Option<Self> {
        r.array().map(|bytes| Self::new(*bytes))
    }
}

impl Put for IdNumber {
    fn put(&self, w: &mut Writer) {
        self.get().put(w);
    }
}

impl Get<'_> for IdNumber {
    /// The most groups of an account that the kernel takes.
    const MOST: usize = 65_536;

    fn get(r: &mut Reader<'_>) -> Option<Self> {
        u32::get(r).and_then(Self::new)
    }
}

impl<T: Put> Put for Vec<T> {
    fn put(&self, w: &mut Writer) {
        self.len().put(w);
        self.iter().for_each(|item| item.put(w));
    }
}

impl<'a, T: Get<'a>> Get<'a> for Vec<T> {
    fn get(r: &mut Reader<'a>) -> Option<Self> {
        let count = usize::get(r).filter(|n| *n <= T::MOST)?;
        (0..count).map(|_| T::get(r)).collect()
    }
}

impl<T: Put> Put for Option<T> {
    fn put(&self, w: &mut Writer) {
        self.is_some().put(w);
        self.iter().for_each(|value| value.put(w));
    }
}

impl<'a, T: Get<'a>> Get<'a> for Option<T> {
    fn get(r: &mut Reader<'a>) -> Option<Self> {
        match Get::get(r)? {
            true => T::get(r).map(Some),
            false => Some(None),
        }
    }
}

impl<T: Put> Put for Result<T, String> {
    fn put(&self, w: &mut Writer) {
        self.is_ok().put(w);
        match self {
            Ok(value) => value.put(w),
            Err(why) => reason::put(why, w),
        }
    }
}

impl<'a, T: Get<'a>> Get<'a> for Result<T, String> {
    fn get(r: &mut Reader<'a>) -> Option<Self> {
        match Get::get(r)? {
            true => T::get(r).map(Ok),
            false => reason::get(r).map(Err),
        }
    }
}

impl<T: Put> Put for Box<T> {
    fn put(&self, w: &mut Writer) {
        (**self).put(w);
    }
}

impl<'a, T: Get<'a>> Get<'a> for Box<T> {
    fn get(r: &mut Reader<'a>) -> Option<Self> {
        T::get(r).map(Self::new)
    }
}

impl<A: Put, B: Put> Put for (A, B) {
    fn put(&self, w: &mut Writer) {
        self.0.put(w);
        self.1.put(w);
    }
}

impl<'a, A: Get<'a>, B: Get<'a>> Get<'a> for (A, B) {
    fn get(r: &mut Reader<'a>) -> Option<Self> {
        Some((A::get(r)?, B::get(r)?))
    }
}

/// The reason why something failed, cut to [`REASON`].
pub(crate) mod reason {
    use super::{Get, Put, REASON, Reader, Writer};

    pub(crate) fn put(words: &str, w: &mut Writer) {
        let mut ends = (0..=REASON.min(words.len())).rev();
        let end = ends.find(|n| words.is_char_boundary(*n)).unwrap_or(0);
        words.get(..end).unwrap_or_default().put(w);
    }

    pub(crate) fn get(r: &mut Reader<'_>) -> Option<String> {
        Get::get(r)
    }
}

/// Bytes of any length.
pub(crate) mod bytes {
    use super::{Get, Put, Reader, Writer};

    pub(crate) fn put(bytes: &[u8], w: &mut Writer) {
        bytes.put(w);
    }

    pub(crate) fn get(r: &mut Reader<'_>) -> Option<Vec<u8>> {
        <&[u8]>::get(r).map(<[u8]>::to_vec)
    }
}

fn fits(text: &Text) -> bool {
    text.words.len() <= limits::PROMPT
}

// The types of other modules that messages contain. None is a proof of the typestate: code that can
// decode a type can make a value of it.
fields!(enum Suite { 1 AesGcm, 2 ChaChaPoly });
fields!(struct Keys { suite, to_server, to_client });
fields!(struct Direction { key, counter });
fields!(enum Signal { 1 Hangup, 2 Interrupt, 3 Quit, 15 Terminate });
fields!(enum End { 1 Exited(status), 2 Killed(signal), 3 NotStarted(why) });
fields!(enum Style { 1 Hidden, 2 Shown, 3 Info, 4 Error });
fields!(struct Text { style, words } if fits, most limits::PROMPTS);
fields!(struct Account { name, uid, gid, groups, home, shell });
fields!(struct UserRecord { account, validity, named_groups });
fields!(struct Validity { locked, expires });
fields!(struct Limits { files, core });
fields!(struct Confined { user, landlock, seccomp, landlock_error, seccomp_error });
fields!(struct SandboxConfig { uid, gid, root });
fields!(struct SandboxStatus { chroot, landlock, seccomp, landlock_error, seccomp_error });

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Sample<'a> {
        Empty,
        Borrowed(u64, &'a [u8]),
        Owned(bool, String, Vec<Option<CString>>),
        Named { address: IpAddr, errno: i32 },
    }
    fields!(enum Sample<'a> {
        1 Empty,
        2 Borrowed(number, bytes),
        3 Owned(flag, text, list),
        4 Named { address, errno },
    });

    #[test]
    fn messages_round_trip_whole_and_in_one_allocation() {
        let secret = [7_u8; 100];
        for sample in [
            Sample::Empty,
            Sample::Borrowed(u64::MAX, &secret),
            Sample::Owned(true, "Grüezi".into(), vec![None, Some(c"x".into())]),
            Sample::Named {
                address: [192, 0, 2, 1].into(),
                errno: i32::MAX,
            },
        ] {
            let bytes = encode(&sample);
            assert_eq!(bytes.capacity(), bytes.len());
            for end in 0..bytes.len() {
                assert_eq!(decode::<Sample<'_>>(&bytes[..end]), None);
            }
            let longer = [&bytes[..], &[0]].concat();
            assert_eq!(decode::<Sample<'_>>(&longer), None);
            assert_eq!(decode(&bytes), Some(sample));
        }
        let message = encode(&Sample::Borrowed(1, &secret));
        let Some(Sample::Borrowed(_, bytes)) = decode(&message) else {
            panic!("not decoded");
        };
        assert!(message.as_ptr_range().contains(&bytes.as_ptr()));
    }

    #[test]
    fn hostile_messages_are_rejected() {
        let most = usize::MAX.to_be_bytes();
        let length = |n: usize| n.to_be_bytes();
        for (what, message) in [
            ("nothing", vec![]),
            ("an unknown variant", vec![5]),
            ("variant zero", vec![0]),
            ("a length beyond its message", [&[2; 9][..], &most].concat()),
            ("neither true nor false", [&[3, 2][..], &[0; 16]].concat()),
            (
                "no UTF-8",
                [&[3, 1][..], &length(1), &[0xff], &length(0)].concat(),
            ),
            ("too many items", [&[3, 1][..], &length(0), &most].concat()),
            (
                "fewer items than counted",
                [&[3, 1][..], &length(0), &length(4_096), &[0; 4_095]].concat(),
            ),
            (
                "a NUL in a C string",
                [&[3, 1][..], &length(0), &length(1), &[1], &length(1), &[0]].concat(),
            ),
            (
                "an address of five bytes",
                [&[4][..], &length(5), &[0; 5 + 4]].concat(),
            ),
            (
                "a negative error number",
                [&[4][..], &length(4), &[0; 4], &[0xff; 4]].concat(),
            ),
        ] {
            assert_eq!(decode::<Sample<'_>>(&message), None, "{what}");
        }
        let items = |n: usize| [&n.to_be_bytes()[..], &vec![0; n]].concat();
        assert!(decode::<Vec<Option<u8>>>(&items(4_096)).is_some());
        assert!(decode::<Vec<Option<u8>>>(&items(4_097)).is_none());
    }

    #[test]
    fn reasons_are_cut_between_characters() {
        let long: Result<u8, String> = Err(format!("x{}", "ü".repeat(REASON)));
        let cut: Result<u8, String> = decode(&encode(&long)).unwrap();
        assert_eq!(cut.unwrap_err().len(), REASON - 1);
    }
}
