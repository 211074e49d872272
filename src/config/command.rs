//! The allow list of commands: a path and a pattern for each argument. Pure; the monitor applies it
//! to the argument vector that the proof covers. No shell is involved, so only `*`, `?`, `\` and
//! `...` have a meaning.
//!
//! `/usr/bin/df -h *` allows `df -h /tmp` and neither `df -h` nor `df -h a b`.
//!
//! - The first word is the program, an absolute path without wildcards.
//! - `*` is any run of bytes within one argument, `?` is one byte; `\` removes the special meaning
//!   of the next character, also of a blank.
//! - A last word `...` allows any further arguments, or none.
//! - A pattern that begins with a wildcard does not match an argument that
//!   begins with `-`, so that a file name cannot become an option.
//! - A pattern with a wildcard does not match an argument with a `..` between
//!   slashes or behind a `=`, so that `/var/log/*` stays in `/var/log`.

use std::fmt;

use super::words::quoted;
use crate::fault::Fault;

/// An allowed command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandPattern {
    text: String,
    path: Vec<u8>,
    arguments: Arguments,
}

/// The arguments that a caller may add to a named service's command: the part of a command pattern
/// after its path. `...` does not match an argument that begins with `-` here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArgsPattern {
    text: String,
    arguments: Arguments,
}

/// A pattern for each argument.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Arguments {
    each: Vec<Vec<Piece>>,
    more: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Piece {
    Byte(u8),
    One,
    Any,
}

impl CommandPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong =
            |why: &str| Fault::new(format!("{} is no command pattern: {why}", quoted(text)));
        let (words, more) = split_more(text).map_err(wrong)?;
        let mut words = words.into_iter();
        let path: Option<Vec<u8>> = words
            .next()
            .unwrap_or_default()
            .into_iter()
            .map(literal)
            .collect();
        let path = path.ok_or_else(|| wrong("the program's path may have no wildcards"))?;
        if path.first() != Some(&b'/') {
            return Err(wrong("it must begin with the absolute path of a program"));
        }
        if path
            .iter()
            .skip(1)
            .copied()
            .collect::<Vec<u8>>()
            .split(|b| *b == b'/')
            .any(is_detour)
        {
            return Err(wrong(
                "the program's path may have no //, /./ or /../ and no / at its end",
            ));
        }
        Ok(Self {
            text: text.to_owned(),
            path,
            arguments: Arguments {
                each: words.collect(),
                more,
            },
        })
    }

    /// Returns whether an argument vector, the program first, matches this command.
    pub fn allows(&self, argv: &[Vec<u8>]) -> bool {
        let Some((program, arguments)) = argv.split_first() else {
            return false;
        };
        *program == self.path && !program.contains(&0) && self.arguments.allow(arguments)
    }
}

impl ArgsPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong = |why: &str| {
            Fault::new(format!(
                "{} is no pattern for arguments: {why}",
                quoted(text)
            ))
        };
        let (each, more) = split_more(text).map_err(wrong)?;
        Ok(Self {
            text: text.to_owned(),
            arguments: Arguments { each, more },
        })
    }

    /// Returns whether a caller may add these arguments.
    pub fn allows(&self, arguments: &[Vec<u8>]) -> bool {
        let mut further = arguments.iter().skip(self.arguments.each.len());
        self.arguments.allow(arguments) && !further.any(|word| word.starts_with(b"-"))
    }
}

impl fmt::Display for ArgsPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Arguments {
    fn allow(&self, arguments: &[Vec<u8>]) -> bool {
        let count = self.each.len();
        let enough = if self.more {
            arguments.len() >= count
        } else {
            arguments.len() == count
        };
        let mut pairs = self.each.iter().zip(arguments);
        enough
            && !arguments.iter().any(|word| word.contains(&0))
            && pairs.all(|(pattern, argument)| matches(pattern, argument))
    }
}

impl fmt::Display for CommandPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn literal(piece: Piece) -> Option<u8> {
    match piece {
        Piece::Byte(byte) => Some(byte),
        Piece::One | Piece::Any => None,
    }
}

fn is(word: &[Piece], text: &[u8]) -> bool {
    word.iter()
        .copied()
        .map(literal)
        .eq(text.iter().copied().map(Some))
}

fn is_detour(part: &[u8]) -> bool {
    matches!(part, b"" | b"." | b"..")
}

/// Splits a pattern into its words before a last `...`, and whether there is one.
fn split_more(text: &str) -> Result<(Vec<Vec<Piece>>, bool), &'static str> {
    let mut words = split(text)?;
    let more = words.last().is_some_and(|word| is(word, b"..."));
    if more {
        words.pop();
    }
    if words.iter().any(|word| is(word, b"...")) {
        return Err("... may only be its last word");
    }
    Ok((words, more))
}

/// Splits a pattern into words; a run of `*` becomes one.
fn split(text: &str) -> Result<Vec<Vec<Piece>>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<Vec<Piece>> = None;
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let piece = match byte {
            b' ' | b'\t' => {
                words.extend(word.take());
                continue;
            }
            b'*' => Piece::Any,
            b'?' => Piece::One,
            b'[' => return Err("[ is not supported; write \\[ for the character itself"),
            b'\\' => Piece::Byte(bytes.next().ok_or("it ends with a backslash")?),
            byte if byte.is_ascii_control() => return Err("it has a control character"),
            byte => Piece::Byte(byte),
        };
        let word = word.get_or_insert_default();
        if piece != Piece::Any || word.last() != Some(&Piece::Any) {
            word.push(piece);
        }
    }
    words.extend(word);
    Ok(words)
}

fn matches(pattern: &[Piece], argument: &[u8]) -> bool {
    if matches!(pattern.first(), Some(Piece::Any | Piece::One)) && argument.first() == Some(&b'-') {
        return false;
    }
    let wild = pattern.iter().any(|piece| literal(*piece).is_none());
    if wild && has_detour(argument) {
        return false;
    }
    glob(pattern, argument)
}

/// Returns whether a path in the argument leads upwards. A path may follow a `=`.
fn has_detour(argument: &[u8]) -> bool {
    let mut parts = argument.split(|b| matches!(*b, b'/' | b'='));
    parts.any(|part| part == b"..")
}

/// Matches without recursion. It backtracks only to the last `*`, since an earlier one could not do
/// better. Time: at most the product of both lengths.
fn glob(pattern: &[Piece], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(from) {
        let step = match pattern.get(at) {
            Some(Piece::Any) => {
                star = Some((at + 1, from));
                at += 1;
                continue;
            }
            Some(Piece::One) => true,
            Some(Piece::Byte(wanted)) => wanted == byte,
            None => false,
        };
        if step {
            at += 1;
            from += 1;
        } else if let Some((after, began)) = star {
            // The `*` takes one more byte.
            star = Some((after, began + 1));
            at = after;
            from = began + 1;
        } else {
            return false;
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|piece| *piece == Piece::Any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_of_a_service_are_what_a_pattern_says() {
        let allows = |pattern: &str, words: &[&str]| {
            let words: Vec<Vec<u8>> = words.iter().map(|w| w.as_bytes().to_vec()).collect();
            ArgsPattern::parse(pattern).unwrap().allows(&words)
        };
        assert!(allows("", &[]));
        assert!(!allows("", &["x"]));
        assert!(allows("daily month=*", &["daily", "month=11"]));
        assert!(!allows("daily month=*", &["daily"]));
        assert!(!allows("daily month=*", &["daily", "month=../x"]));
        assert!(allows("-v *", &["-v", "x"]));
        assert!(!allows("* *", &["-v", "x"]));
        assert!(!allows("*", &["a\0b"]));
        // What no pattern names is no option.
        assert!(allows("...", &["a", "b"]));
        assert!(!allows("...", &["a", "-b"]));
        assert!(ArgsPattern::parse("... a").is_err());
    }
    use crate::config::scratch::Numbers;

    fn allows(pattern: &str, argv: &[&str]) -> bool {
        let argv: Vec<Vec<u8>> = argv.iter().map(|a| a.as_bytes().to_vec()).collect();
        CommandPattern::parse(pattern).unwrap().allows(&argv)
    }

    #[test]
    fn the_count_of_arguments() {
        assert!(allows("/usr/bin/df -h *", &["/usr/bin/df", "-h", "/tmp"]));
        assert!(!allows("/usr/bin/df -h *", &["/usr/bin/df", "-h"]));
        assert!(!allows(
            "/usr/bin/df -h *",
            &["/usr/bin/df", "-h", "/", "/tmp"]
        ));
        assert!(allows("/usr/bin/df", &["/usr/bin/df"]));
        assert!(!allows("/usr/bin/df", &["/usr/bin/df", "-h"]));
        assert!(!allows("/usr/bin/df", &["df"]));
        assert!(!allows("/usr/bin/df", &[]));
        assert!(allows("/usr/bin/df ...", &["/usr/bin/df"]));
        assert!(allows(
            "/usr/bin/df ...",
            &["/usr/bin/df", "-h", "/../x", ""]
        ));
        assert!(allows("/usr/bin/df -h ...", &["/usr/bin/df", "-h", "-i"]));
        assert!(!allows("/usr/bin/df -h ...", &["/usr/bin/df", "-i"]));
        assert!(allows("  /bin/a \t b ", &["/bin/a", "b"]));
    }

    #[test]
    fn wildcards() {
        let arg =
            |pattern: &str, argument: &str| allows(&format!("/x {pattern}"), &["/x", argument]);
        assert!(arg("*", ""));
        assert!(arg("*", "a b;c"));
        assert!(arg("a*b*c", "a--b--b--c"));
        assert!(!arg("a*b*c", "a--b--b--"));
        assert!(arg("a?c", "abc"));
        assert!(!arg("a?c", "ac"));
        assert!(!arg("a?c", "a-éc"));
        assert!(arg("*.log", "x.log"));
        assert!(arg("a***", "a"));
        assert!(arg("\\*", "*"));
        assert!(!arg("\\*", "x"));
        assert!(arg("a\\ b", "a b"));
        assert!(arg("a\\\\b", "a\\b"));
        assert!(arg("\\[a]", "[a]"));
        assert!(arg("-*", "-x"));
        assert!(arg("--file=*", "--file=-x"));
        // Option injection and path traversal.
        assert!(!arg("*", "-rf"));
        assert!(!arg("?x", "-x"));
        assert!(!arg("/var/log/*", "/var/log/../../etc/shadow"));
        assert!(!arg("/var/log/*", "/var/log/.."));
        assert!(!arg("*", ".."));
        assert!(arg("/var/log/../x", "/var/log/../x"));
        assert!(arg("*..*", "a..b"));
        assert!(!arg("*", "a\0b"));
    }

    #[test]
    fn metacharacters_of_a_shell_mean_nothing() {
        assert!(!allows("/bin/echo a", &["/bin/echo", "a;id"]));
        assert!(!allows("/bin/echo $HOME", &["/bin/echo", "/root"]));
        assert!(allows("/bin/echo $HOME", &["/bin/echo", "$HOME"]));
        assert!(!allows("/bin/echo a", &["/bin/echo a"]));
        assert!(!allows("/bin/echo ~", &["/bin/echo", "/root"]));
    }

    #[test]
    fn patterns_refused() {
        for bad in [
            "",
            " ",
            "...",
            "df -h",
            "./df",
            "/bin/*",
            "/bin/d?",
            "/usr/../bin/df",
            "/usr//bin/df",
            "/usr/./bin/df",
            "/bin/",
            "/",
            "/bin/df ... x",
            "/bin/df [ab]",
            "/bin/df \\",
            "/bin/df a\0",
            "/bin/df\na",
            "/bin/df/..",
        ] {
            assert!(CommandPattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn stars_do_not_explode() {
        let pattern = format!("/x {}b", "a*".repeat(2000));
        assert!(!allows(&pattern, &["/x", &"a".repeat(60_000)]));
    }

    #[test]
    fn the_same_as_a_plain_recursive_matcher() {
        fn plain(p: &[Piece], t: &[u8]) -> bool {
            match (p.first(), t.first()) {
                (None, None) => true,
                (Some(Piece::Any), _) => plain(&p[1..], t) || (!t.is_empty() && plain(p, &t[1..])),
                (Some(Piece::One), Some(_)) => plain(&p[1..], &t[1..]),
                (Some(Piece::Byte(b)), Some(c)) if b == c => plain(&p[1..], &t[1..]),
                _ => false,
            }
        }
        let mut numbers = Numbers(7);
        let mut both = [0; 2];
        for _ in 0..20_000 {
            let pattern: String = (0..numbers.below(8))
                .map(|_| ['a', 'b', '*', '?'][numbers.below(4)])
                .collect();
            let text: Vec<u8> = (0..numbers.below(8))
                .map(|_| b"ab"[numbers.below(2)])
                .collect();
            let pattern = split(&pattern).unwrap().pop().unwrap_or_default();
            let answer = glob(&pattern, &text);
            assert_eq!(answer, plain(&pattern, &text), "{pattern:?} {text:?}");
            both[usize::from(answer)] += 1;
        }
        assert!(both[0] > 1000 && both[1] > 1000);
    }
}
