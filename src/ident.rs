//! Names as types, quoted in one place. A name that reaches a statement is always quoted, so that no keyword,
//! capital, space or quote in it can change what the statement means.

use serde::{Deserialize, Serialize};
use std::fmt;

/// PostgreSQL's limit for a name, in bytes (`NAMEDATALEN - 1`).
pub const MAX_NAME_BYTES: usize = 63;

/// An identifier, stored as the catalog has it. `Display` quotes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ident(String);

impl Ident {
    pub fn new(name: impl Into<String>) -> Self {
        Ident(name.into())
    }

    /// The name as the catalog has it, not quoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_too_long(&self) -> bool {
        self.0.len() > MAX_NAME_BYTES
    }

    /// As much of the name as the server takes.
    pub fn cut(mut self) -> Ident {
        while self.is_too_long() {
            self.0.pop();
        }
        self
    }

    /// This name with `suffix` behind it.
    pub fn with_suffix(&self, suffix: &str) -> Ident {
        Ident(format!("{}{suffix}", self.0))
    }
}

impl fmt::Display for Ident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// A schema-qualified relation name. `Display` quotes both parts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelName {
    pub schema: Ident,
    pub name: Ident,
}

impl RelName {
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        RelName {
            schema: Ident::new(schema),
            name: Ident::new(name),
        }
    }

    /// Another relation in the same schema.
    pub fn sibling(&self, name: Ident) -> RelName {
        RelName {
            schema: self.schema.clone(),
            name,
        }
    }
}

impl fmt::Display for RelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// A string literal. `Display` quotes it as `quote_literal` does.
pub struct Literal<'a>(pub &'a str);

impl fmt::Display for Literal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains('\\') {
            write!(f, "E'{}'", self.0.replace('\\', "\\\\").replace('\'', "''"))
        } else {
            write!(f, "'{}'", self.0.replace('\'', "''"))
        }
    }
}

/// Items separated by commas, each through its `Display`.
pub fn list<T: fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_capitals_spaces_and_unicode_stay_one_identifier() {
        assert_eq!(
            Ident::new("re\"venues; drop").to_string(),
            "\"re\"\"venues; drop\""
        );
        assert_eq!(RelName::new("Ünï", "sel ect").to_string(), "\"Ünï\".\"sel ect\"");
    }

    #[test]
    fn a_literal_cannot_end_early() {
        assert_eq!(Literal("it's").to_string(), "'it''s'");
        assert_eq!(Literal("a\\'b").to_string(), "E'a\\\\''b'");
    }

    #[test]
    fn length_is_counted_in_bytes() {
        assert!(!Ident::new("a".repeat(63)).is_too_long());
        assert!(Ident::new("é".repeat(32)).is_too_long());
    }
}
