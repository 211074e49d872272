//! Numbers as text without the allocator, for a child that shares its parent's memory.

#[cfg(direct_calls)]
use std::ffi::{CStr, c_char};

/// A decimal number.
pub(super) struct Decimal {
    /// At most eleven bytes, at the end of the buffer, and NUL.
    text: [u8; Self::SIZE],
    at: usize,
}

impl Decimal {
    const SIZE: usize = 12;

    pub(super) fn of(value: i32) -> Self {
        let (mut text, mut at) = ([0; Self::SIZE], Self::SIZE - 1);
        let mut put = |byte| {
            if let Some(place) = text.get_mut(at - 1) {
                *place = byte;
                at -= 1;
            }
        };
        let mut left = value.unsigned_abs();
        loop {
            put(b'0'.wrapping_add(u8::try_from(left % 10).unwrap_or(0)));
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if value < 0 {
            put(b'-');
        }
        Self { text, at }
    }

    /// Returns its bytes, with NUL.
    #[cfg(any(test, direct_calls))]
    fn with_nul(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.text.get(self.at..Self::SIZE - 1).unwrap_or_default()
    }

    /// Returns it as a C string.
    #[cfg(direct_calls)]
    pub(super) fn as_ptr(&self) -> *const c_char {
        CStr::from_bytes_with_nul(self.with_nul())
            .unwrap_or_default()
            .as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_written_in_decimal() {
        let all = [i32::MIN, -1000, -17, -1, 0, 7, 10, 999, 1000, i32::MAX];
        for value in all {
            let written = Decimal::of(value);
            assert_eq!(written.as_bytes(), value.to_string().as_bytes());
            assert_eq!(written.with_nul().last(), Some(&0));
        }
    }
}
