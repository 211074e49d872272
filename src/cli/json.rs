//! The output of `--json` (RFC 8259). Pure.
//!
//! Not `serde_json`: it sorts the fields of an object, and would take a formatter of ours for the
//! characters that must not be shown, which is most of this file, and three crates.

use std::fmt::{self, Write};

use crate::protocol::name::is_shown;

/// A JSON value.
pub enum Json {
    /// Null.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(u64),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Self>),
    /// An object, with its fields in this order.
    Object(Vec<(&'static str, Self)>),
}

impl Json {
    /// Returns a string.
    pub fn text(value: impl fmt::Display) -> Self {
        Self::Text(value.to_string())
    }

    /// Returns a number.
    pub fn count(value: usize) -> Self {
        Self::Number(u64::try_from(value).unwrap_or(u64::MAX))
    }

    /// Returns an array of strings.
    pub fn texts<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }

    /// Returns a string, or null.
    pub fn maybe(value: Option<impl fmt::Display>) -> Self {
        value.map(Self::text).into()
    }
}

impl From<Option<Self>> for Json {
    fn from(value: Option<Self>) -> Self {
        value.unwrap_or(Self::Null)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(&quoted(value)),
            Self::List(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if i == 0 { "" } else { "," })?;
                }
                f.write_char(']')
            }
            Self::Object(fields) => {
                f.write_char('{')?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { "," })?;
                    write!(f, "{}:{value}", quoted(name))?;
                }
                f.write_char('}')
            }
        }
    }
}

/// Returns a text as a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if !is_shown(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A character that `cosadm` shows as `?` must be escaped in JSON, which programs read.
    #[test]
    fn json_escapes_unprintable_characters() {
        assert_eq!(
            quoted("a\u{1b}\u{202e}\u{e0041}é\n"),
            r#""a\u001b\u202e\udb40\udc41é\n""#
        );
    }

    #[test]
    fn every_kind() {
        let value = Json::Object(vec![
            (
                "a",
                Json::List(vec![Json::Null, Json::Bool(true), Json::Number(7)]),
            ),
            ("b", Json::text("\"\\\n\t\u{1}\u{7f}é/")),
            ("c", Json::Object(Vec::new())),
            ("d", Json::List(Vec::new())),
        ]);
        assert_eq!(
            value.to_string(),
            r#"{"a":[null,true,7],"b":"\"\\\n\t\u0001\u007fé/","c":{},"d":[]}"#
        );
    }
}
