use serde::{Deserialize, Serialize};

/// `POST /v1/embeddings`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmbeddingRequest {
    /// Which model.
    pub model: String,
    /// What to embed.
    pub input: EmbeddingInput,
    /// `float` (default) or `base64` (little-endian f32, what the SDKs ask for).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_format: Option<EncodingFormat>,
    /// Shorter vectors, where the model can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dimensions: Option<usize>,
}

/// One text or many. Token ids are refused: they belong to one tokenizer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmbeddingInput {
    /// One text.
    One(String),
    /// Many texts.
    Many(Vec<String>),
}

impl EmbeddingInput {
    /// All texts.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// How vectors are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EncodingFormat {
    /// Numbers.
    Float,
    /// Base64 of little-endian f32.
    Base64,
}

/// The answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EmbeddingList {
    /// `list`.
    #[serde(default)]
    pub object: String,
    /// One for each text; `index` says which.
    pub data: Vec<Embedding>,
    /// The model.
    #[serde(default)]
    pub model: String,
    /// Tokens.
    #[serde(default)]
    pub usage: Option<EmbeddingUsage>,
}

/// One vector.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Embedding {
    /// `embedding`.
    #[serde(default)]
    pub object: String,
    /// Which text.
    #[serde(default)]
    pub index: usize,
    /// The vector.
    pub embedding: EmbeddingValues,
}

/// A vector as numbers or as base64.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EmbeddingValues {
    /// Numbers.
    Float(Vec<f32>),
    /// Base64 of little-endian f32.
    Base64(String),
}

/// Tokens of an embedding call.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct EmbeddingUsage {
    /// Tokens read.
    pub prompt_tokens: u64,
    /// The same.
    #[serde(default)]
    pub total_tokens: u64,
}
