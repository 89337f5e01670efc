use groundtone_types::{Collection, DocumentId, ErrorKind};

/// Why a run ended early. What it had published stays; the next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source is not there or cannot be listed.
    #[error("cannot read {place}: {reason}")]
    Source {
        /// The path or the address.
        place: String,
        /// Why.
        reason: String,
    },
    /// Nothing to do, which is never what somebody meant.
    #[error("found no documents in {place}; formats: {formats}")]
    Empty {
        /// The path or the address.
        place: String,
        /// Endings that are read.
        formats: String,
    },
    /// A name for a source, and several sources.
    #[error("a name can be given to one source, but there are several locations")]
    OneName,
    /// Of all that was found nothing could be ingested.
    #[error("none of the {found} documents in {location} could be ingested")]
    NothingTaken {
        /// The path or the address.
        location: String,
        /// Documents found there.
        found: usize,
    },
    /// A report that is no JSON.
    #[error("the report of a run cannot be written: {0}")]
    Report(String),
    /// A source does not answer; later it may.
    #[error("cannot list {place}: {reason}")]
    Unavailable {
        /// The address.
        place: String,
        /// Why.
        reason: String,
    },
    /// The collection's vectors come from something else.
    #[error("collection `{collection}` was built with {stored} but the configuration says {configured}; their vectors do not mix")]
    OtherVectors {
        /// Which collection.
        collection: Collection,
        /// What built it.
        stored: String,
        /// What is configured.
        configured: String,
    },
    /// The index took points and does not have them.
    #[error("the index took {stored} points of {documents} documents but has {missing} of them not; they stay unpublished")]
    NotStored {
        /// Points written.
        stored: usize,
        /// Documents they belong to.
        documents: usize,
        /// Points not found again.
        missing: usize,
    },
    /// The index still has points of a document that was removed.
    #[error("the index still has {left} points of `{document}` after they were removed")]
    NotRemoved {
        /// Which document.
        document: DocumentId,
        /// Points left.
        left: usize,
    },
    /// A generation that was not built to its end.
    #[error("generation `{generation}` is not complete: no run over it came to its end")]
    Unfinished {
        /// Which one.
        generation: Collection,
    },
    /// There is no such generation.
    #[error("collection `{collection}` has no {wanted}")]
    NoGeneration {
        /// Which collection.
        collection: Collection,
        /// What was asked for: "generation `documents@9`".
        wanted: String,
    },
    /// The embedder failed.
    #[error("embedding failed: {0}")]
    Embed(#[from] groundtone_provider::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] groundtone_index::Error),
    /// The catalog failed.
    #[error(transparent)]
    Catalog(#[from] groundtone_catalog::Error),
    /// A step of the pipeline ended without a word.
    #[error("the {0} step of the pipeline ended unexpectedly")]
    Pipeline(&'static str),
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Source { .. } | Self::Empty { .. } | Self::OneName | Self::NothingTaken { .. } => ErrorKind::InvalidRequest,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::OtherVectors { .. } | Self::Unfinished { .. } => ErrorKind::Conflict,
            Self::NoGeneration { .. } => ErrorKind::NotFound,
            Self::Embed(error) => error.kind(),
            Self::Index(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::NotStored { .. } | Self::NotRemoved { .. } | Self::Report(_) | Self::Pipeline(_) => ErrorKind::Internal,
        }
    }
}
