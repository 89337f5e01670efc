use groundtone_types::ErrorKind;

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The conversation cannot be answered as it is.
    #[error("{0}")]
    Conversation(&'static str),
    /// Nothing could be retrieved.
    #[error(transparent)]
    Retrieval(#[from] groundtone_retrieval::Error),
    /// The prompt could not be rendered.
    #[error(transparent)]
    Prompt(#[from] groundtone_prompt::Error),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] groundtone_provider::Error),
    /// There is no such variant.
    #[error("there is no variant `{name}`; there are {known}")]
    NoVariant {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The model stopped without a word of why.
    #[error("{model} ended its answer without finishing it")]
    Unfinished {
        /// Which model.
        model: String,
    },
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Conversation(_) | Self::Prompt(_) => ErrorKind::InvalidRequest,
            Self::Retrieval(error) => error.kind(),
            Self::Model(error) => error.kind(),
            Self::NoVariant { .. } => ErrorKind::NotFound,
            Self::Unfinished { .. } => ErrorKind::Unavailable,
        }
    }
}
