//! Words for people: what was typed, quoted safely, and what was probably
//! meant. Used wherever a file of the administrator is found wrong. Pure.

/// The longest piece of somebody's typing that a message repeats, in
/// characters.
const REPEATED: usize = 64;

/// Some text from a file, in quotes, with control characters escaped and cut
/// after 64 characters, so that a message stays one readable line.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (count, c) in text.chars().enumerate() {
        if count == REPEATED {
            out.push('…');
            break;
        }
        out.extend(c.escape_debug().filter(|_| c != '\''));
        if c == '\'' {
            out.push(c);
        }
    }
    out.push('"');
    out
}

/// The option that `word` was probably meant to be: the nearest by edit
/// distance, if it is near enough to be a slip of the fingers.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = word.chars().count();
    if length > REPEATED {
        return None;
    }
    let mut best: Option<(usize, &str)> = None;
    for option in options {
        let away = distance(word, option);
        let enough = length.max(option.chars().count()).div_ceil(3).max(2);
        let near = away <= enough && away < length.max(1);
        if near && best.is_none_or(|(least, _)| away < least) {
            best = Some((away, option));
        }
    }
    best.map(|(_, option)| option)
}

/// `; did you mean "…"?`, or nothing.
pub fn did_you_mean<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, options).map_or_else(String::new, |near| format!("; did you mean \"{near}\"?"))
}

/// How many letters must be put in, left out, changed or swapped with their
/// neighbour to make one word of the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // Two rows of the table are kept: the last one and the one before it,
    // which a swap looks back to.
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
    fn distances() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("prot", "port"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("run_as", "run-as"), 1);
    }

    #[test]
    fn the_nearest_is_near() {
        let options = ["port", "path", "listen", "silent-per-source"];
        assert_eq!(nearest("prot", options), Some("port"));
        assert_eq!(nearest("listn", options), Some("listen"));
        assert_eq!(
            nearest("silent_per_source", options),
            Some("silent-per-source")
        );
        assert_eq!(nearest("colour", options), None);
        assert_eq!(nearest("", options), None);
        assert_eq!(nearest(&"p".repeat(100_000), options), None);
    }

    #[test]
    fn quoting_keeps_to_one_line() {
        assert_eq!(quoted("a'b"), "\"a'b\"");
        assert_eq!(quoted("a\nb\x1b[0m\""), "\"a\\nb\\u{1b}[0m\\\"\"");
        assert!(quoted(&"x".repeat(1000)).len() < 80);
    }
}
