//! The command lines of the programs. Each has its flags in tables, by which they are parsed and
//! from which `--help` is written. What a flag does is the program's own. Pure.

pub mod json;

use std::ffi::OsStr;

pub use getopts::{Fail, ParsingStyle};

use getopts::Options;

/// An entry of a table: a flag, or several letters that are described together.
pub struct Flag<E: 'static = ()> {
    /// The names and the value, as the help shows them: `-o, --output FILE`. Several letters
    /// without a long name are a flag each.
    pub shown: &'static str,
    /// Its line of help.
    pub help: &'static str,
    /// How often it may be given.
    pub times: Times,
    /// What it does.
    pub effect: E,
}

/// How often a flag may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Times {
    /// At most once.
    Once,
    /// Once. The program checks that it is given.
    Required,
    /// Any number of times.
    Any,
}

/// Returns a flag that may be given once, and that the program asks for by its name.
pub const fn flag(shown: &'static str, help: &'static str) -> Flag {
    Flag {
        shown,
        help,
        times: Times::Once,
        effect: (),
    }
}

impl Flag {
    /// Returns the same flag, which may be given that often.
    pub const fn times(self, times: Times) -> Self {
        Self { times, ..self }
    }
}

impl<E> Flag<E> {
    /// Returns the name of its value; empty if it takes none.
    pub fn value(&self) -> &'static str {
        let last = self.shown.rsplit(' ').next();
        last.filter(|word| !word.starts_with('-'))
            .unwrap_or_default()
    }

    /// Returns letter and long name of each flag, without dashes; one of the two may be empty.
    pub fn names(&self) -> Vec<(&'static str, &'static str)> {
        let words = || self.shown.split([' ', ',']);
        let mut letters = words().filter_map(|word| word.strip_prefix('-'));
        match words().find_map(|word| word.strip_prefix("--")) {
            Some(long) => {
                let letter = letters.find(|name| !name.starts_with('-'));
                vec![(letter.unwrap_or_default(), long)]
            }
            None => letters.map(|letter| (letter, "")).collect(),
        }
    }

    /// Returns its line of the help.
    pub fn line(&self, width: usize) -> String {
        entry(self.shown, width, self.help)
    }
}

/// Returns one line of a list in the help: what it is about, padded to the width of its column, and
/// the meaning.
pub fn entry(shown: &str, width: usize, meaning: &str) -> String {
    format!("  {shown:<width$} {meaning}\n")
}

/// Checks that the words of a command line are UTF-8.
///
/// # Errors
/// Returns what is wrong with the first that is not.
pub fn check_utf8<W: AsRef<OsStr>>(line: &[W]) -> Result<(), String> {
    let mut words = line.iter().map(AsRef::as_ref);
    match words.find(|word| word.to_str().is_none()) {
        Some(word) => Err(format!("argument {word:?} is not valid UTF-8")),
        None => Ok(()),
    }
}

/// Returns a flag's name with its dashes.
pub fn dashed(name: &str) -> String {
    let dashes = if name.chars().count() == 1 { "-" } else { "--" };
    [dashes, name].concat()
}

/// A flag that was given.
pub struct Given<E: 'static> {
    /// Its entry.
    pub flag: &'static Flag<E>,
    /// Its letter, if it has one.
    pub letter: &'static str,
    /// Its long name, if it has one.
    pub long: &'static str,
    /// Its value, if it takes one.
    pub value: String,
}

/// A command line, parsed.
pub struct Parsed<E: 'static> {
    /// The flags in the order in which they were given.
    pub given: Vec<Given<E>>,
    /// The other words.
    pub words: Vec<String>,
    /// Whether `--` precedes the first word.
    pub is_terminated: bool,
}

impl<E> Parsed<E> {
    /// Returns the values of a flag, by its letter or its long name.
    pub fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        let given = self.given.iter();
        let given = given.filter(move |given| given.letter == name || given.long == name);
        given.map(|given| &*given.value)
    }

    /// Returns the value of a flag, the last one if there are several.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values(name).next_back()
    }

    /// Returns whether a flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }
}

/// Parses a command line by the flags of these tables.
///
/// # Errors
/// A flag is unknown, is given too often, or has no value or one too many.
pub fn parse<E>(
    tables: &[&'static [Flag<E>]],
    style: ParsingStyle,
    line: impl IntoIterator<Item: AsRef<OsStr>>,
) -> Result<Parsed<E>, Fail> {
    let entries = tables.iter().copied().flatten();
    let flags = entries.flat_map(|flag| flag.names().into_iter().map(move |name| (flag, name)));
    let flags: Vec<_> = flags.collect();
    let mut options = Options::new();
    options.parsing_style(style);
    for (flag, (letter, long)) in &flags {
        match (flag.value(), flag.times) {
            ("", Times::Any) => options.optflagmulti(letter, long, ""),
            ("", _) => options.optflag(letter, long, ""),
            (value, Times::Any) => options.optmulti(letter, long, "", value),
            (value, _) => options.optopt(letter, long, "", value),
        };
    }
    let found = options.parse(line)?;
    let mut given = Vec::new();
    for (flag, (letter, long)) in flags {
        let name = if letter.is_empty() { long } else { letter };
        let all: Vec<(usize, String)> = if flag.value().is_empty() {
            let positions = found.opt_positions(name).into_iter();
            positions.map(|at| (at, String::new())).collect()
        } else {
            found.opt_strs_pos(name)
        };
        given.extend(all.into_iter().map(|(at, value)| {
            let given = Given {
                flag,
                letter,
                long,
                value,
            };
            (at, given)
        }));
    }
    given.sort_by_key(|(at, _)| *at);
    Ok(Parsed {
        given: given.into_iter().map(|(_, given)| given).collect(),
        is_terminated: found.free_trailing_start() == Some(0),
        words: found.free,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    #[test]
    fn a_word_that_is_not_utf8_is_described_as_such() {
        let words = [OsStr::new("--\"é"), OsStr::from_bytes(b"x\xff")];
        let why = r#"argument "x\xFF" is not valid UTF-8"#;
        assert_eq!(check_utf8(&words), Err(why.to_owned()));
        assert_eq!(check_utf8(&words[..1]), Ok(()));
    }

    const TABLE: &[Flag] = &[
        flag("-o, --output FILE", "write it there"),
        flag("-x, -y", "ignored"),
        flag("--addr A,…", "an address").times(Times::Any),
        flag("-e, -F FILE", "ignored").times(Times::Any),
    ];

    #[test]
    fn an_entry_is_read_as_it_is_shown() {
        let read = TABLE.iter().map(|f| (f.names(), f.value()));
        let wanted = [
            (vec![("o", "output")], "FILE"),
            (vec![("x", ""), ("y", "")], ""),
            (vec![("", "addr")], "A,…"),
            (vec![("e", ""), ("F", "")], "FILE"),
        ];
        assert_eq!(read.collect::<Vec<_>>(), wanted);
        assert_eq!(TABLE[0].line(20), "  -o, --output FILE    write it there\n");
    }

    #[test]
    fn flags_come_in_their_order() {
        let line = "--addr 1 -xe 2 -o f w -F 3 --addr=4 -- -y";
        let parse = |style| parse(&[TABLE], style, line.split(' '));
        let parsed = parse(ParsingStyle::FloatingFrees).unwrap();
        let given = parsed
            .given
            .iter()
            .map(|g| [g.letter, g.long, &g.value].concat());
        let wanted = ["addr1", "x", "e2", "ooutputf", "F3", "addr4"];
        assert_eq!(given.collect::<Vec<_>>(), wanted);
        assert_eq!(parsed.values("addr").collect::<Vec<_>>(), ["1", "4"]);
        assert_eq!(parsed.value("output"), parsed.value("o"));
        assert!(parsed.has("x") && !parsed.has("y") && !parsed.is_terminated);
        assert_eq!(parsed.words, ["w", "-y"]);
        let parsed = parse(ParsingStyle::StopAtFirstFree).unwrap();
        assert_eq!((parsed.given.len(), parsed.words.len()), (4, 6));
        let twice = super::parse(&[TABLE], ParsingStyle::FloatingFrees, ["-xx"]);
        assert!(matches!(twice, Err(Fail::OptionDuplicated(_))));
    }
}
