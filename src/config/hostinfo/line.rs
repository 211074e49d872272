//! The words of a line of the host table, and the quoting of values. Pure.

use std::ops::Range;

use crate::config::words::readable;
use crate::fault::Fault;

/// The longest line, in bytes without its end.
pub const LINE_MAX: usize = 8 * 1024;

/// A word of a line, and its byte range in the line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Word {
    /// The word without its quotes.
    pub text: String,
    /// Its byte range, including its quotes.
    pub span: Range<usize>,
}

/// Returns the words of a line without their quotes, up to a comment; none for a blank line.
///
/// # Errors
/// The line is too long, is not UTF-8 before its comment, or has a control character or a quote
/// without an end.
pub fn words(line: &[u8]) -> Result<Vec<Word>, Fault> {
    if line.len() > LINE_MAX {
        return Err(Fault::new(format!(
            "the line has {} bytes; {LINE_MAX} are the most",
            line.len()
        )));
    }
    let (line, is_whole) = readable(line);
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote: Option<char> = None;
    for (at, c) in line.char_indices() {
        if c.is_control() && c != '\t' {
            return Err(Fault::new(format!(
                "the line has a control character, {}",
                c.escape_unicode()
            )));
        }
        if quote.is_none() && matches!(c, ' ' | '\t') {
            words.extend(word.take());
            continue;
        }
        if c == '#' && word.is_none() {
            return Ok(words);
        }
        let word = word.get_or_insert_with(|| Word {
            text: String::new(),
            span: at..at,
        });
        word.span.end = at + c.len_utf8();
        match quote {
            Some(q) if q == c => quote = None,
            None if matches!(c, '"' | '\'') => quote = Some(c),
            Some(_) | None => word.text.push(c),
        }
    }
    if !is_whole {
        return Err(Fault::new("the line is not UTF-8 text"));
    }
    if let Some(quote) = quote {
        return Err(Fault::new(format!(
            "a {quote} is opened and not closed on this line"
        )));
    }
    words.extend(word);
    Ok(words)
}

/// Returns whether a value needs no quotes on a line.
pub(super) fn is_plain(value: &str) -> bool {
    !value.is_empty() && !value.starts_with('#') && !value.contains([' ', '\t', '"', '\''])
}

/// Returns a value as it is written on a line: bare if possible, else quoted, in pieces if it
/// contains both kinds of quotes.
pub fn quote(value: &str) -> String {
    if is_plain(value) {
        return value.to_owned();
    }
    if !value.contains('"') {
        return format!("\"{value}\"");
    }
    if !value.contains('\'') {
        return format!("'{value}'");
    }
    value
        .split('"')
        .map(|piece| format!("\"{piece}\""))
        .collect::<Vec<_>>()
        .join("'\"'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Vec<String> {
        words(line.as_bytes())
            .unwrap()
            .into_iter()
            .map(|word| word.text)
            .collect()
    }

    fn is(line: &str, expected: &[&str]) {
        assert_eq!(texts(line), expected, "{line:?}");
    }

    #[test]
    fn words_quotes_and_comments() {
        is("", &[]);
        is(" \t ", &[]);
        is("# a b", &[]);
        is("  # a b", &[]);
        is("a b\tc", &["a", "b", "c"]);
        is("a b#c #d", &["a", "b#c"]);
        is(
            "a commands=\"/bin/df -h *\" x",
            &["a", "commands=/bin/df -h *", "x"],
        );
        is("a 'b \"c\" # d'", &["a", "b \"c\" # d"]);
        is("a ''", &["a", ""]);
        is("\"a\"'b'c", &["abc"]);
        is("a\\ b", &["a\\", "b"]);
        for bad in ["a \"b", "a 'b", "a 'b\"", "a\0", "a\x1b", "a\rb", "a\u{85}"] {
            assert!(words(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(words(b"a \xff").is_err());
        assert!(words(&[b'a'; LINE_MAX]).is_ok());
        assert!(words(&[b'a'; LINE_MAX + 1]).is_err());
    }

    #[test]
    fn spans_of_words() {
        let line = " a  b=\"c d\"'e' # é";
        let spans: Vec<&str> = words(line.as_bytes())
            .unwrap()
            .into_iter()
            .map(|w| &line[w.span])
            .collect();
        assert_eq!(spans, ["a", "b=\"c d\"'e'"]);
    }

    #[test]
    fn what_is_quoted_is_read_back() {
        for value in [
            "a",
            "",
            "#",
            "a b",
            "it's",
            "say \"x\"",
            "'\"' \"'\"",
            "\"",
            "'",
            "a#b",
            "\t",
        ] {
            assert_eq!(
                texts(&format!("k {}", quote(value))),
                ["k", value],
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_comment_need_not_be_utf_8() {
        let read = words(b"hosta cos # B\xfcro").unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(words(b"# B\xfcro"), Ok(Vec::new()));
        for wrong in [
            &b"hosta cos B\xfcro"[..],
            b"h\xfc # x",
            b"hosta \"\xfc # x\"",
        ] {
            let told = words(wrong).unwrap_err().to_string();
            assert!(told.contains("UTF-8"), "{told}");
        }
    }
}
