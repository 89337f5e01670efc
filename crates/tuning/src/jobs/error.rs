use super::state::IllegalTransition;
use groundtone_types::ErrorKind;

/// Why a call about jobs was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JobsError {
    /// There is none.
    #[error("there is no fine-tuning job `{id}`")]
    NotFound {
        /// What was asked for.
        id: String,
    },
    /// A base model that the configuration does not map to one that can be trained. It is never swapped for another.
    #[error("model `{model}` is not available for fine-tuning here: {}", available(.mapped))]
    Model {
        /// What was asked for.
        model: String,
        /// What can be asked for.
        mapped: Vec<String>,
    },
    /// A file that is not there, or is for something else.
    #[error("{message}")]
    File {
        /// The request's field.
        param: &'static str,
        /// What is wrong.
        message: String,
    },
    /// It is in a status that does not allow this.
    #[error("job {id}: {cause}")]
    Status {
        /// Which job.
        id: String,
        /// What is not allowed.
        cause: IllegalTransition,
    },
    /// Too many jobs are not over.
    #[error("{open} fine-tuning jobs are not over yet, and this server takes {most}; wait for one to end, or cancel one")]
    Full {
        /// Those that are not over.
        open: u64,
        /// Most of them.
        most: u64,
    },
    /// There is no such model, or its file is missing.
    #[error("there is no model `{id}` here")]
    NoModel {
        /// What was asked for.
        id: String,
    },
    /// An adapter fits one base model, and nobody said which.
    #[error("name the base model that the adapter was trained on: {}", available(.mapped))]
    WhichBase {
        /// What can be named.
        mapped: Vec<String>,
    },
    /// A model has this name already.
    #[error("there is a model `{id}` already")]
    NameTaken {
        /// The name.
        id: String,
    },
    /// A folder that cannot be written into, or read from.
    #[error("{} {reason}", path.display())]
    Folder {
        /// Which one.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// An adapter that cannot be read, applied or written.
    #[error(transparent)]
    Adapter(#[from] crate::TrainError),
    /// A model that cannot answer.
    #[error("the model cannot be loaded: {0}")]
    Load(#[source] groundtone_provider::Error),
    /// The catalog or the disk.
    #[error(transparent)]
    Catalog(#[from] groundtone_catalog::Error),
}

fn available(mapped: &[String]) -> String {
    match mapped {
        [] => "`tuning.base_models` of its configuration is empty".to_owned(),
        names => format!("`tuning.base_models` has {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}

impl JobsError {
    /// How it should be answered. A job that is over is an invalid request and no conflict: OpenAI's SDKs send a request again that ends in a conflict.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::NoModel { .. } => ErrorKind::NotFound,
            // Who exports and imports owns the files that are named.
            Self::Model { .. }
            | Self::File { .. }
            | Self::Status { .. }
            | Self::WhichBase { .. }
            | Self::NameTaken { .. }
            | Self::Folder { .. }
            | Self::Adapter(_)
            | Self::Load(_) => ErrorKind::InvalidRequest,
            Self::Full { .. } => ErrorKind::Overloaded,
            Self::Catalog(error) => error.kind(),
        }
    }
}
