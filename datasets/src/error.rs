use groundtone_types::ErrorKind;
use std::path::PathBuf;

/// Why a dataset could not be read, built or split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A table's header does not say where question and answer are.
    #[error("{}: {reason}", path.display())]
    Header {
        /// Which file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Controls that contradict each other.
    #[error("{0}")]
    Controls(String),
    /// The output was begun with other inputs or controls.
    #[error("{} was begun with another {what}", path.display())]
    OtherBuild {
        /// The output.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The output is there already.
    #[error("{} is there already", path.display())]
    Exists {
        /// The output.
        path: PathBuf,
    },
    /// A manifest and its files do not belong together.
    #[error("{}: {reason}", path.display())]
    Manifest {
        /// The manifest, or the file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An example's snippets could not be retrieved or rendered; what was built stays.
    #[error("line {line}, example `{example}`: {source}")]
    Example {
        /// Where in the input.
        line: u64,
        /// Which.
        example: String,
        /// Why.
        source: groundtone_answer::Error,
    },
    /// The index could not answer.
    #[error(transparent)]
    Index(#[from] groundtone_index::Error),
    /// Nothing could be retrieved.
    #[error(transparent)]
    Retrieval(#[from] groundtone_retrieval::Error),
    /// The catalog could not answer.
    #[error(transparent)]
    Catalog(#[from] groundtone_catalog::Error),
    /// The teacher failed.
    #[error("the teacher {model}: {source}")]
    Teacher {
        /// Which model.
        model: String,
        /// Why.
        source: groundtone_provider::Error,
    },
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::File { .. } | Self::Header { .. } | Self::Controls(_) | Self::Manifest { .. } => ErrorKind::InvalidRequest,
            Self::OtherBuild { .. } | Self::Exists { .. } => ErrorKind::Conflict,
            Self::Example { source, .. } => source.kind(),
            Self::Index(error) => error.kind(),
            Self::Retrieval(error) => error.kind(),
            Self::Teacher { source, .. } => source.kind(),
            Self::Catalog(_) => ErrorKind::Internal,
        }
    }
}
