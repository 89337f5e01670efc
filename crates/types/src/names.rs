use serde::{Deserialize, Serialize};
use std::fmt;

/// A name that breaks its type's rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{noun} `{value}` is not valid: {rule}")]
pub struct NameError {
    noun: &'static str,
    value: String,
    rule: &'static str,
}

const SLUG_RULE: &str = "use 1 to 64 of a-z, 0-9, `-` and `_`, starting with a letter or digit";
const DOCUMENT_RULE: &str = "use 1 to 1024 characters without control characters";

fn is_slug(value: &str) -> bool {
    let mut bytes = value.bytes();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    value.len() <= 64 && bytes.next().is_some_and(plain) && bytes.all(|b| plain(b) || b == b'-' || b == b'_')
}

/// A slug, or a generation of one: `documents@2`.
fn is_collection(value: &str) -> bool {
    match value.split_once('@') {
        None => is_slug(value),
        Some((base, number)) => {
            is_slug(base) && number.len() <= 6 && !number.starts_with('0') && number.parse::<u32>().is_ok_and(|n| n > 0)
        }
    }
}

fn is_document_id(value: &str) -> bool {
    !value.is_empty() && value.chars().count() <= 1024 && !value.chars().any(char::is_control)
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $noun:literal, $rule:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the rule and keeps the name; errors name the rule that was broken.
            pub fn new(value: impl Into<String>) -> Result<Self, NameError> {
                let value = value.into();
                if $check(&value) { Ok(Self(value)) } else { Err(NameError { noun: $noun, value, rule: $rule }) }
            }
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(value: String) -> Result<Self, NameError> {
                Self::new(value)
            }
        }
        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(value: &str) -> Result<Self, NameError> {
                Self::new(value)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// Whose data this is. Every store and catalog call takes one; there is no call without.
    Tenant, "tenant", SLUG_RULE, is_slug
);
name_type!(
    /// A named set of documents that is searched together, or one generation of it (`documents@2`).
    Collection, "collection", SLUG_RULE, is_collection
);
name_type!(
    /// A document's stable name inside a collection: for a folder, its path below that folder with `/`.
    DocumentId, "document id", DOCUMENT_RULE, is_document_id
);

impl Collection {
    /// The `number`th generation of this collection, from 1; of a generation, its sibling.
    pub fn generation(&self, number: u32) -> Self {
        Self(format!("{}@{}", self.base(), number.max(1)))
    }

    /// The name without its generation.
    pub fn base(&self) -> &str {
        self.0.split('@').next().unwrap_or_default()
    }

    /// Which generation this names; `None` for the collection itself.
    pub fn number(&self) -> Option<u32> {
        self.0.split_once('@').and_then(|(_, number)| number.parse().ok())
    }
}

impl Default for Tenant {
    /// The one tenant of an installation that has no keys.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_or_filter_are_refused() {
        for bad in ["", "..", "a/b", "A", "ü", "-a", "_a", "a b", &"a".repeat(65)] {
            assert!(Tenant::new(bad).is_err(), "{bad:?}");
            assert!(Collection::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "default", "help-centre_2", "0"] {
            assert!(Tenant::new(good).is_ok(), "{good:?}");
        }
        for bad in ["a@", "a@0", "a@01", "a@x", "@1", "a@1@2", "a@1234567", "A@1"] {
            assert!(Collection::new(bad).is_err(), "{bad:?}");
        }
        let parts = Collection::new("docs@2").map(|second| (second.base().to_owned(), second.number(), second.generation(7).to_string()));
        assert_eq!(parts, Ok(("docs".to_owned(), Some(2), "docs@7".to_owned())));
        assert!(Tenant::new("a@1").is_err());
        assert!(DocumentId::new("policies/returns.md").is_ok());
        assert!(DocumentId::new("a\nb").is_err());
    }

    #[test]
    fn a_refused_name_says_which_rule_it_broke() {
        let error = Collection::new("My Docs").map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(
            error,
            Err("collection `My Docs` is not valid: use 1 to 64 of a-z, 0-9, `-` and `_`, starting with a letter or digit".to_owned())
        );
    }
}
