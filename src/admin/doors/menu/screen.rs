//! The menu's terminal: writes and reads lines, and divides lists into pages.

use std::fmt::Display;
use std::io;

use super::quoted;
use crate::admin::doors::many;
use crate::admin::doors::typed::{self, Password};
use crate::admin::out::lines;
use crate::fault::Fault;
use crate::tty::Terminal;

/// Longest line, bytes: the limit of a terminal.
const LINE: usize = 4_096;
/// Lines of a screen of unknown height.
const HEIGHT: u16 = 24;
/// Lines of the screen that a list leaves free for the text around it.
const AROUND: u16 = 7;

/// Why the menu was left before its end.
pub(super) enum Left {
    /// The terminal's input has ended.
    EndOfInput,
    /// An error that the menu cannot continue after.
    Fault(Fault),
}

impl From<Fault> for Left {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<io::Error> for Left {
    fn from(e: io::Error) -> Self {
        let is = |kind| e.kind() == kind;
        if is(io::ErrorKind::UnexpectedEof) {
            Self::EndOfInput
        } else if is(io::ErrorKind::Interrupted) {
            Self::Fault(Fault::new("interrupted; nothing more was changed"))
        } else {
            Self::Fault(Fault::new(format!("the terminal: {e}")))
        }
    }
}

pub(super) struct Screen(Terminal);

impl Screen {
    pub(super) fn open() -> Result<Self, Fault> {
        let terminal = Terminal::open();
        let told = |e| Fault::new(format!("the menu needs a terminal: {e}"));
        terminal.map(Self).map_err(told)
    }

    /// Returns how many lines of a list the screen has room for.
    pub(super) fn room(&self) -> u32 {
        let height = self.0.height().unwrap_or(HEIGHT);
        height.saturating_sub(AROUND).max(1).into()
    }

    pub(super) fn say(&mut self, text: &str) -> Result<(), Left> {
        Ok(self.0.tell(&lines(text))?)
    }

    /// Shows what went wrong with a choice; the menu continues.
    pub(super) fn wrong(&mut self, words: impl Display) -> Result<(), Left> {
        self.say(&format!("  ! {words}\n"))
    }

    pub(super) fn no_choice(&mut self, choice: &str) -> Result<(), Left> {
        self.wrong(format_args!("{} is not a choice", quoted(choice)))
    }

    /// Reads a line, without the blanks around it.
    pub(super) fn ask(&mut self, prompt: &str) -> Result<String, Left> {
        loop {
            self.say(prompt)?;
            let line = self.0.line(LINE)?;
            match std::str::from_utf8(&line) {
                Ok(text) => return Ok(text.trim().to_owned()),
                Err(_) => self.wrong("that is not UTF-8")?,
            }
        }
    }

    /// Asks until the answer is Y or N.
    pub(super) fn yes(&mut self, prompt: &str) -> Result<bool, Left> {
        loop {
            match self.yes_or_enter(prompt)? {
                Some(yes) => return Ok(yes),
                None => self.wrong("type Y or N")?,
            }
        }
    }

    /// Asks until the answer is Y, N, or only Enter (`None`).
    pub(super) fn yes_or_enter(&mut self, prompt: &str) -> Result<Option<bool>, Left> {
        loop {
            let answer = self.ask(prompt)?;
            match answer.to_ascii_uppercase().as_str() {
                "Y" | "YES" => return Ok(Some(true)),
                "N" | "NO" => return Ok(Some(false)),
                "" => return Ok(None),
                _ => self.wrong("type Y or N")?,
            }
        }
    }

    /// Asks for the line of the list to delete; `None`: the administrator deletes none.
    pub(super) fn line_to_delete(&mut self) -> Result<Option<u64>, Left> {
        loop {
            let line = self.ask("Enter Line# to Delete: ")?;
            if line.is_empty() {
                return Ok(None);
            }
            match line.parse() {
                Ok(number) => return Ok(Some(number)),
                Err(_) => self.wrong(format_args!("{} is not a line number", quoted(&line)))?,
            }
        }
    }

    /// Reads a password, typed twice and not shown, or one of the inputs in `none`, which mean "no
    /// password".
    pub(super) fn password(&mut self, prompt: &str, none: &[&[u8]]) -> Result<Password, Left> {
        loop {
            if let Some(password) = typed::twice(&mut self.0, prompt, none)? {
                return Ok(password);
            }
            self.wrong("the passwords do not match")?;
        }
    }
}

/// The page of a list that is shown. Pure.
#[derive(Default)]
pub(super) struct Pages {
    page: u64,
    size: u32,
    total: u64,
}

impl Pages {
    /// Returns the rows of a list that are shown. The screen has room for `size` of them.
    pub(super) fn of<T>(&mut self, all: Vec<T>, size: u32) -> Vec<T> {
        self.total = u64::try_from(all.len()).unwrap_or(u64::MAX);
        self.size = size.max(1);
        self.page = self.page.min(self.last());
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let rows = all.into_iter().skip(count(self.skipped()));
        rows.take(count(self.size.into())).collect()
    }

    fn last(&self) -> u64 {
        self.total.saturating_sub(1) / u64::from(self.size.max(1))
    }

    pub(super) fn next(&mut self) {
        self.page = (self.page + 1).min(self.last());
    }

    pub(super) fn previous(&mut self) {
        self.page = self.page.saturating_sub(1);
    }

    /// Returns how many rows are before the page.
    fn skipped(&self) -> u64 {
        self.page * u64::from(self.size)
    }

    /// Returns the numbers of the page's rows.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> + use<> {
        self.skipped() + 1..
    }

    /// Returns the choices between pages; empty if there is only one page.
    pub(super) fn choices(&self) -> &'static str {
        if self.last() > 0 {
            "  (N)ext page  (P)revious page"
        } else {
            ""
        }
    }

    /// Returns the number of the page, as text; empty if there is only one page.
    pub(super) fn which(&self) -> String {
        let (page, last) = (self.page + 1, self.last() + 1);
        if last == 1 {
            return String::new();
        }
        format!("page {page} of {last}, {}\n", many(self.total, "line"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_stay_within_the_list() {
        let mut pages = Pages::default();
        assert!(pages.of(Vec::<u8>::new(), 10).is_empty());
        assert_eq!((pages.skipped(), pages.which().as_str()), (0, ""));
        pages.next();
        assert_eq!(pages.skipped(), 0);
        assert_eq!(pages.of((1..=21).collect(), 10).len(), 10);
        pages.next();
        pages.next();
        pages.next();
        assert_eq!(pages.skipped(), 20);
        assert_eq!(pages.numbers().next(), Some(21));
        assert_eq!(pages.which(), "page 3 of 3, 21 lines\n");
        // Another process has deleted rows.
        assert_eq!(
            pages.of((1..=20).collect(), 10),
            (11..=20).collect::<Vec<_>>()
        );
        assert_eq!(pages.skipped(), 10);
        pages.previous();
        pages.previous();
        assert_eq!(pages.skipped(), 0);
    }
}
