//! JSON output for scripts (RFC 8259). Pure.

use std::fmt::{self, Write};

use crate::config::words;

/// A JSON value.
pub(super) enum Json {
    Null,
    Bool(bool),
    Number(u64),
    Text(String),
    List(Vec<Self>),
    Object(Vec<(&'static str, Self)>),
}

impl Json {
    pub(super) fn text(value: impl fmt::Display) -> Self {
        Self::Text(value.to_string())
    }

    pub(super) fn count(value: usize) -> Self {
        Self::Number(u64::try_from(value).unwrap_or(u64::MAX))
    }

    /// Returns a list of texts.
    pub(super) fn texts<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> Self {
        Self::List(items.into_iter().map(Self::text).collect())
    }

    /// Returns a text, or null.
    pub(super) fn maybe(value: Option<impl fmt::Display>) -> Self {
        value.map_or(Self::Null, Self::text)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(&words::json(value)),
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
                    write!(f, "{}:{value}", words::json(name))?;
                }
                f.write_char('}')
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
