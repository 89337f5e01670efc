//! Personal data and secrets, replaced by the name of their kind before anything is written.

use groundtone_types::{PersonalKind, redact_personal_data};
use regex::{NoExpand, Regex};
use std::borrow::Cow;

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` cannot be used: {reason}")]
pub struct PatternError {
    entry: String,
    reason: String,
}

/// Replaces what it knows.
#[derive(Debug, Clone, Default)]
pub struct Redactor {
    /// Nothing, or secrets: they go first, because an installation's pattern that takes out a part of a key would hide the rest of it.
    secrets: &'static [PersonalKind],
    own: Vec<(String, Regex)>,
    kinds: Vec<PersonalKind>,
}

impl Redactor {
    /// Secrets, these kinds, and patterns of an installation's own: `NAME=REGEX`.
    pub fn new(kinds: Vec<PersonalKind>, own: &[String]) -> Result<Self, PatternError> {
        let own = own.iter().map(|entry| {
            let problem = |reason: String| PatternError { entry: entry.clone(), reason };
            let named = entry.split_once('=').filter(|(name, pattern)| !name.is_empty() && !pattern.is_empty());
            let (name, pattern) = named.ok_or_else(|| problem("write it as NAME=REGEX".to_owned()))?;
            let last = |error: &regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            Ok((format!("[{name}]"), Regex::new(pattern).map_err(|error| problem(last(&error)))?))
        });
        Ok(Self { secrets: &[PersonalKind::Secret], own: own.collect::<Result<_, _>>()?, kinds })
    }

    /// Replaces nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// The text with everything that was found replaced by `[email]`, `[card]`, `[secret]`, ...
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut redacted = redact_personal_data(text, self.secrets);
        for (name, pattern) in &self.own {
            if let Cow::Owned(replaced) = pattern.replace_all(&redacted, NoExpand(name)) {
                redacted = Cow::Owned(replaced);
            }
        }
        match redacted {
            Cow::Borrowed(text) => redact_personal_data(text, &self.kinds),
            Cow::Owned(text) => Cow::Owned(redact_personal_data(&text, &self.kinds).into_owned()),
        }
    }

    /// Whether something was taken out of a text: whether it holds `[email]`, `[secret]`, ..., of any kind, or of a pattern of one's own.
    pub fn marks(&self, text: &str) -> bool {
        let kinds = PersonalKind::ALL.into_iter().any(|kind| text.contains(&format!("[{}]", kind.as_str())));
        kinds || self.own.iter().any(|(name, _)| text.contains(name.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_always_and_the_rest_as_configured() {
        let text = "I am a@b.io, about ORD-123456, my key is sk-abcdefghijklmnopqrstuvwx";
        let redactor = |kinds: &[PersonalKind], own: &[&str]| {
            let own: Vec<String> = own.iter().map(|&entry| entry.to_owned()).collect();
            Redactor::new(kinds.to_vec(), &own).unwrap().redact(text).into_owned()
        };
        assert_eq!(redactor(&[], &[]), "I am a@b.io, about ORD-123456, my key is [secret]");
        assert_eq!(redactor(&[PersonalKind::Email], &["order=ORD-[0-9]{6}"]), "I am [email], about [order], my key is [secret]");
        // A pattern that fits in the middle of a key does not save the rest of it.
        let own = ["digits=[0-9]{4}".to_owned()];
        assert_eq!(Redactor::new(Vec::new(), &own).unwrap().redact("sk-abcdefgh1234ijklmnop5678"), "[secret]");
        assert_eq!(Redactor::none().redact(text), text);
    }

    #[test]
    fn what_was_taken_out_leaves_its_mark() {
        let redactor = Redactor::new(PersonalKind::ALL.to_vec(), &["order=ORD-[0-9]{6}".to_owned()]).unwrap();
        for text in ["Write to ann@example.org.", "about ORD-123456", "my key is sk-abcdefghijklmnopqrstuvwx"] {
            assert!(redactor.marks(&redactor.redact(text)) && !redactor.marks(text), "{text}");
        }
        assert!(Redactor::none().marks("[email]") && !redactor.marks("[1] and [name]"));
    }

    #[test]
    fn a_wrong_pattern_is_a_sentence() {
        let error = |entry: &str| Redactor::new(Vec::new(), &[entry.to_owned()]).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error("order"), "`order` cannot be used: write it as NAME=REGEX");
        assert!(error("order=(").starts_with("`order=(` cannot be used: error: unclosed group"), "{}", error("order=("));
    }
}
