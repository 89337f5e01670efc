use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Asking: answers, embeddings, searches, feedback.
    Chat,
    /// Documents, files and vector stores.
    Ingest,
    /// Training files, jobs and tuned models.
    Tune,
    /// `/metrics`.
    Metrics,
    /// Everything, keys, traces and releases too.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 5] = [Self::Chat, Self::Ingest, Self::Tune, Self::Metrics, Self::Admin];

    /// Its name in the command line, the API and the catalog.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Ingest => "ingest",
            Self::Tune => "tune",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope; there are chat, ingest, tune, metrics and admin")]
pub struct UnknownScope(pub String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written() {
        for scope in Scope::ALL {
            assert_eq!(scope.to_string().parse(), Ok(scope));
            assert_eq!(serde_json::to_string(&scope).ok(), Some(format!("\"{scope}\"")));
        }
        assert_eq!("root".parse::<Scope>(), Err(UnknownScope("root".to_owned())));
    }
}
