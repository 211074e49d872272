//! What the readers and the writer of the tables of `cosserver.toml` share: names of tables, lists
//! of texts, and texts in the form of TOML. Pure.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::words::{did_you_mean, quoted};
use crate::fault::Fault;
use crate::protocol::limits;
use crate::protocol::name::is_service_name;

/// A mistake and its offset in the text.
pub(super) type Mistake = (usize, String);

/// Tables `[HEADER.NAME]`, all of which describe the same kind of thing.
pub(super) struct Family {
    /// The name of the table that holds them.
    pub header: &'static str,
    /// What each of them describes.
    pub noun: &'static str,
    /// The names of their keys.
    pub keys: fn() -> Vec<&'static str>,
}

/// One table `[HEADER.NAME]`.
pub(super) struct Member<'t, 'i> {
    /// Its name.
    pub name: &'t str,
    /// The offset of its name.
    pub at: usize,
    /// Its keys.
    pub keys: &'t DeTable<'i>,
}

impl Family {
    /// Returns the tables in a table. Adds a mistake for each key that is no table or has a wrong
    /// name.
    pub(super) fn members<'t, 'i>(
        &self,
        table: &'t DeTable<'i>,
        mistakes: &mut Vec<Mistake>,
    ) -> Vec<Member<'t, 'i>> {
        let Self { header, noun, .. } = self;
        let mut members = Vec::new();
        for (key, value) in table {
            let (name, at): (&str, _) = (key.get_ref(), key.span().start);
            if let Err(why) = check_name(name, noun) {
                mistakes.push((at, why.to_string()));
                continue;
            }
            if let Some(keys) = value.get_ref().as_table() {
                members.push(Member { name, at, keys });
                continue;
            }
            let words = if (self.keys)().contains(&name) {
                let noun = with_article(noun);
                format!(
                    "{name} belongs to {noun}, whose table is [{header}.NAME]: write its name there"
                )
            } else {
                format!("{name} must be a table of its own: write [{header}.{name}]")
            };
            mistakes.push((at, words));
        }
        members
    }

    /// Describes an unknown key of a member.
    pub(super) fn unknown_key(&self, name: &str, value: &DeValue<'_>) -> String {
        let hint = if value.is_table() {
            "; a name with a dot in it must be in quotes".to_owned()
        } else {
            did_you_mean(name, (self.keys)())
        };
        let noun = with_article(self.noun);
        format!("unknown key {} of {noun}{hint}", quoted(name))
    }
}

/// Checks a name that a request may carry.
///
/// # Errors
/// Returns what is wrong with it. `noun` is what it names.
pub(super) fn check_name(name: &str, noun: &str) -> Result<(), Fault> {
    if is_service_name(name.as_bytes()) {
        return Ok(());
    }
    let most = limits::SERVICE_NAME;
    Err(Fault::new(format!(
        "{} is no {noun}'s name: at most {most} letters, digits and . _ - +, no - first",
        quoted(name)
    )))
}

/// Returns the words for a value that is not as it must be. What follows `;` in the bounds, the
/// default or that the key is required, is left out.
pub(super) fn must_be(bounds: &str) -> String {
    let allowed = bounds
        .split_once(';')
        .map_or(bounds, |(allowed, _)| allowed);
    format!("it must be {allowed}")
}

/// Returns the texts of a list; `None` if it is no list, or has another value.
pub(super) fn texts(value: &Spanned<DeValue<'_>>) -> Option<Vec<String>> {
    let array = value.get_ref().as_array()?;
    array
        .iter()
        .map(|item| item.get_ref().as_str().map(str::to_owned))
        .collect()
}

/// Returns a program and its arguments; `None` if the value is no list of texts, or an empty one.
///
/// # Errors
/// Returns what is wrong with the words.
pub(super) fn command(value: &Spanned<DeValue<'_>>) -> Result<Option<Vec<String>>, String> {
    let Some(words) = texts(value) else {
        return Ok(None);
    };
    match words.first() {
        Some(path) if path.starts_with('/') => {}
        Some(path) => return Err(format!("{} is no absolute path", quoted(path))),
        None => return Ok(None),
    }
    if words.iter().any(|w| w.contains('\0')) {
        return Err("a NUL byte in it".into());
    }
    Ok(Some(words))
}

/// Returns the value of this name.
///
/// # Errors
/// There is none; the words list the names.
pub(super) fn one_of<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, String> {
    let found = all.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names = all.iter().map(|(name, _)| *name);
        let listed: Vec<_> = names.clone().collect();
        let hint = did_you_mean(text, names);
        format!("{} is none of {}{hint}", quoted(text), listed.join(", "))
    })
}

/// Returns the name of a value.
pub(super) fn name_of<T: PartialEq>(value: &T, all: &[(&'static str, T)]) -> &'static str {
    let found = all.iter().find(|(_, other)| other == value);
    found.map_or("", |(name, _)| name)
}

/// Returns a TOML basic string.
pub(super) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Returns a noun with its article.
pub(super) fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}
