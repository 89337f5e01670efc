use std::path::PathBuf;

/// Why something could not be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A line is not what its file should hold.
    #[error("{}:{line}: {reason}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// A file of rules, prices or arms is not what it should be.
    #[error("{}: {reason}", path.display())]
    Rules {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The metric that was to decide was not measured.
    #[error("{name} was not measured for every arm; there are: {}", known.join(", "))]
    Metric {
        /// Which.
        name: String,
        /// What was.
        known: Vec<String>,
    },
    /// There is nothing to evaluate.
    #[error("{}: {reason}", path.display())]
    Empty {
        /// Which folder or file.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// Too little to fit a gate on.
    #[error(
        "a gate needs at least {least} questions that can be answered and as many that cannot; there are {answerable} and {unanswerable}"
    )]
    TooFew {
        /// Of each kind.
        least: usize,
        /// What there is.
        answerable: usize,
        /// What there is.
        unanswerable: usize,
    },
    /// A document could not be embedded.
    #[error(transparent)]
    Embed(#[from] groundtone_provider::Error),
    /// The index failed.
    #[error(transparent)]
    Index(#[from] groundtone_index::Error),
    /// A question could not be searched for.
    #[error(transparent)]
    Retrieve(#[from] groundtone_retrieval::Error),
    /// The embedding cache failed.
    #[error(transparent)]
    Cache(#[from] groundtone_catalog::Error),
}
