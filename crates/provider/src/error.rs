use groundtone_openai_api::ErrorObject;
use groundtone_types::ErrorKind;
use std::time::Duration;

/// What can go wrong with a model or with the server that runs it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The queue is full.
    #[error("{model} is busy: {waiting} requests are waiting already")]
    Overloaded {
        /// Which model.
        model: String,
        /// Length of the queue.
        waiting: usize,
    },
    /// The prompt does not fit.
    #[error("the prompt has {prompt_tokens} tokens but {model} reads at most {limit}")]
    PromptTooLong {
        /// Which model.
        model: String,
        /// What was sent.
        prompt_tokens: usize,
        /// What fits.
        limit: usize,
    },
    /// The client wants something that this model cannot do.
    #[error("`{parameter}` is not supported by {model}")]
    Unsupported {
        /// Which model.
        model: String,
        /// The request's field.
        parameter: String,
    },
    /// The model server refused the request.
    #[error("{endpoint} answered {status}: {message}")]
    Refused {
        /// Its address.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// What it said, shortened.
        message: String,
        /// The body of its error, where it had OpenAI's shape.
        detail: Option<Box<ErrorObject>>,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// The model server could not be reached, or hung up.
    #[error("{endpoint} did not answer: {reason}")]
    Unreachable {
        /// Its address.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// The model server failed too often; nothing is sent to it for a while.
    #[error("{endpoint} failed several times in a row and is left alone for another {:.0} s", wait.as_secs_f64().ceil())]
    Resting {
        /// Its address.
        endpoint: String,
        /// How long.
        wait: Duration,
    },
    /// The model server took too long.
    #[error("{endpoint} did not answer within {seconds} s")]
    Timeout {
        /// Its address.
        endpoint: String,
        /// The limit.
        seconds: u64,
    },
    /// The model server answered something that is not the protocol.
    #[error("{endpoint} answered something unexpected: {reason}")]
    Protocol {
        /// Its address.
        endpoint: String,
        /// What was wrong with it.
        reason: String,
    },
    /// Vectors of another length than the collection's.
    #[error("{model} made a vector of {found} numbers where {wanted} were expected")]
    Dimensions {
        /// Which model.
        model: String,
        /// What came.
        found: usize,
        /// What was configured.
        wanted: usize,
    },
    /// The model in process failed.
    #[error("{model} failed: {reason}")]
    Model {
        /// Which model.
        model: String,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::PromptTooLong { .. } | Self::Unsupported { .. } => ErrorKind::InvalidRequest,
            Self::Refused { status: 429, .. } => ErrorKind::Overloaded,
            Self::Refused { status: 400 | 413 | 422, .. } => ErrorKind::InvalidRequest,
            Self::Timeout { .. } => ErrorKind::Timeout,
            Self::Refused { .. } | Self::Unreachable { .. } | Self::Protocol { .. } | Self::Resting { .. } => ErrorKind::Unavailable,
            Self::Dimensions { .. } => ErrorKind::Conflict,
            Self::Model { .. } => ErrorKind::Internal,
        }
    }

    /// Whether the same call may pass later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Overloaded { .. } | Self::Unreachable { .. } | Self::Timeout { .. } => true,
            _ => false,
        }
    }

    /// How long the server asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Resting { wait, .. } => Some(*wait),
            _ => None,
        }
    }
}
