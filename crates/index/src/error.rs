use groundtone_types::{Collection, ErrorKind};

/// What can go wrong with an index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such collection.
    #[error("there is no collection `{0}`")]
    NoCollection(Collection),
    /// The collection's vectors have another length.
    #[error("collection `{collection}` holds {stored}-dimension vectors but {given}-dimension vectors were given")]
    DimensionMismatch {
        /// Which collection.
        collection: Collection,
        /// What it holds.
        stored: usize,
        /// What came.
        given: usize,
    },
    /// The index did not answer.
    #[error("the index at {place} did not answer: {reason}")]
    Unavailable {
        /// Folder or address.
        place: String,
        /// Why.
        reason: String,
    },
    /// The index answered something that cannot be right.
    #[error("the index at {place} failed: {reason}")]
    Failed {
        /// Folder or address.
        place: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoCollection(_) => ErrorKind::NotFound,
            Self::DimensionMismatch { .. } => ErrorKind::Conflict,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }
}
