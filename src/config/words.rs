//! Text for users: safe quoting of input, suggestions for mistyped words, and the command that
//! helps. Used wherever an administrator's file is wrong. Pure.

use std::num::NonZeroU16;

pub use crate::fault::quoted;
pub use crate::protocol::name::is_shown;

/// The longest word, in characters, for which another is suggested.
const REPEATED: usize = 64;

/// Returns another host's text for a terminal, with `?` for each character that must not be shown.
pub fn shown(text: &str) -> String {
    text.chars()
        .map(|c| if is_shown(c) { c } else { '?' })
        .collect()
}

/// Returns the option that `word` was probably meant to be: the nearest by edit distance, if it is
/// near enough to be a typing error.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > REPEATED {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        let away = distance(word, option);
        let enough = length.max(option.chars().count()).div_ceil(3).max(2);
        // Two changes in three letters make another word: "foo" is not a mistyped "who".
        let other = away * 2 > length.max(option.chars().count());
        let near = away <= enough && away < length.max(1) && !other;
        if near && best.is_none_or(|(least, _)| away < least) {
            best = Some((away, option));
        }
    }
    best.map(|(_, option)| option)
}

/// Returns `; did you mean "…"?`, or nothing.
pub fn did_you_mean<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, options).map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"))
}

/// Parses a TCP port, from 1 to 65535, in plain digits.
pub fn port(text: &str) -> Option<NonZeroU16> {
    let plain = text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

/// Returns the lines of a text with their numbers; 1 is the first. A carriage return before the end
/// of a line belongs to the end.
pub(crate) fn numbered(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = text
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines)
}

/// Returns the UTF-8 part at the beginning of a line, and whether that is the whole line. A comment
/// may be in any encoding, and the text before it still counts.
pub(crate) fn readable(line: &[u8]) -> (&str, bool) {
    match std::str::from_utf8(line) {
        Ok(text) => (text, true),
        Err(e) => {
            let text = line.get(..e.valid_up_to()).unwrap_or_default();
            (std::str::from_utf8(text).unwrap_or_default(), false)
        }
    }
}

/// Quotes a word for a shell.
pub fn shell_word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"%+,-./:=@_".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// Returns the number of letters to be inserted, deleted, changed or swapped with their neighbor to
/// turn one word into the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // Keep two rows of the table: the last one and the one before it, which a swap refers to.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut left: Option<char> = None;
    for (row, letter) in a.chars().enumerate() {
        let mut this = Vec::with_capacity(b.len() + 1);
        this.push(row + 1);
        let mut above_left: Option<char> = None;
        for (column, other) in b.iter().enumerate() {
            let at =
                |line: &[usize], column: usize| line.get(column).copied().unwrap_or(usize::MAX / 2);
            let changed = at(&last, column) + usize::from(letter != *other);
            let mut least = changed
                .min(at(&last, column + 1) + 1)
                .min(at(&this, column) + 1);
            if left == Some(*other) && above_left == Some(letter) && column > 0 {
                least = least.min(at(&before, column - 1) + 1);
            }
            this.push(least);
            above_left = Some(*other);
        }
        before = std::mem::replace(&mut last, this);
        left = Some(letter);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invisible_characters_are_not_printed() {
        for c in "\0\x1b\u{7f}\u{9b}\u{ad}\u{200b}\u{200d}\u{200e}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}".chars() {
            assert!(!is_shown(c), "{c:?}");
        }
        for c in " aé\u{301}あ\u{a0}‘€😀".chars() {
            assert!(is_shown(c), "{c:?}");
        }
    }

    #[test]
    fn distances() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("prot", "port"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("run_as", "run-as"), 1);
    }

    #[test]
    fn suggested_word_is_similar() {
        let options = ["port", "path", "listen", "silent-per-source"];
        assert_eq!(nearest("prot", options), Some("port"));
        assert_eq!(nearest("listn", options), Some("listen"));
        assert_eq!(
            nearest("silent_per_source", options),
            Some("silent-per-source")
        );
        assert_eq!(nearest("colour", options), None);
        assert_eq!(nearest("foo", ["who", "kill"]), None);
        assert_eq!(nearest("woh", ["who", "kill"]), Some("who"));
        assert_eq!(nearest("", options), None);
        assert_eq!(nearest(&"p".repeat(100_000), options), None);
    }

    #[test]
    fn quoting_keeps_to_one_line() {
        assert_eq!(quoted("a'b"), "\"a'b\"");
        assert_eq!(quoted("a\nb\x1b[0m\""), "\"a\\nb\\u{1b}[0m\\\"\"");
        assert!(quoted(&"x".repeat(1000)).len() < 80);
    }

    #[test]
    fn words_for_a_shell() {
        assert_eq!(shell_word("/etc/cos-1"), "/etc/cos-1");
        assert_eq!(shell_word(""), "''");
        assert_eq!(shell_word("it's $x"), r"'it'\''s $x'");
    }
}
