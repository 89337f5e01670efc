use groundtone_types::ErrorKind;
use std::path::PathBuf;

/// What can go wrong with the data directory or the catalog.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has it open.
    #[error("the data directory {} is in use by process {pid} ({command}){}", directory.display(), address.as_ref().map(|a| format!(" at {a}")).unwrap_or_default())]
    Held {
        /// Which directory.
        directory: PathBuf,
        /// Who.
        pid: u32,
        /// What it does.
        command: String,
        /// Where it listens, if it does.
        address: Option<String>,
    },
    /// It was written by a newer version.
    #[error("the data directory {} has layout {found}, but this version knows layouts up to {known}; use a newer groundtone", directory.display())]
    NewerLayout {
        /// Which directory.
        directory: PathBuf,
        /// What it has.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// A tenant's uploaded files leave no room for another one.
    #[error(
        "there is no room for another file: {files} of {most_files} files and {bytes} of {quota_bytes} bytes are taken; delete some first"
    )]
    Full {
        /// Files that are kept.
        files: u64,
        /// Their bytes.
        bytes: u64,
        /// Most files.
        most_files: u64,
        /// Most bytes.
        quota_bytes: u64,
    },
    /// Somebody else has changed the same thing in between.
    #[error("{what}")]
    Conflict {
        /// What.
        what: String,
    },
    /// An idempotency key that was used for something else before.
    #[error("the idempotency key `{key}` was used before with another request; use a new one")]
    KeyReused {
        /// Which key.
        key: String,
    },
    /// A file could not be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The database failed.
    #[error("the catalog {}: {source}", path.display())]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// A row that this version cannot have written.
    #[error("the catalog {} has a row that cannot be read: {reason}", path.display())]
    Row {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Held { .. } | Self::NewerLayout { .. } | Self::Conflict { .. } => ErrorKind::Conflict,
            Self::Full { .. } | Self::KeyReused { .. } => ErrorKind::InvalidRequest,
            Self::File { .. } | Self::Database { .. } => ErrorKind::Unavailable,
            Self::Row { .. } => ErrorKind::Internal,
        }
    }
}
