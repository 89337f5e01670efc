use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /v1/vector_stores`, and `POST /v1/vector_stores/{id}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct VectorStoreRequest {
    /// What to call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Uploaded files to begin with. `null` is none: LiteLLM sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_ids: Option<Vec<String>>,
    /// The client's own notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Map<String, Value>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A vector store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VectorStore {
    /// `vs_...`, or the name of a collection.
    pub id: String,
    /// Always `vector_store`.
    pub object: String,
    /// Unix seconds.
    pub created_at: i64,
    /// What the client calls it.
    pub name: String,
    /// Bytes of the files that can be found.
    pub usage_bytes: u64,
    /// Its files by state.
    pub file_counts: FileCounts,
    /// `in_progress` while files are read, else `completed`.
    pub status: String,
    /// Never: stores stay until they are deleted.
    #[serde(default)]
    pub expires_after: Option<Value>,
    /// Never.
    #[serde(default)]
    pub expires_at: Option<i64>,
    /// Unix seconds.
    #[serde(default)]
    pub last_active_at: Option<i64>,
    /// The client's own notes.
    #[serde(default)]
    pub metadata: Option<Map<String, Value>>,
}

/// Files of a store by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileCounts {
    /// Being read.
    pub in_progress: u64,
    /// Can be found.
    pub completed: u64,
    /// Could not be read.
    pub failed: u64,
    /// Always 0.
    pub cancelled: u64,
    /// All.
    pub total: u64,
}

/// `POST /v1/vector_stores/{id}/files`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VectorStoreFileRequest {
    /// An uploaded file.
    pub file_id: String,
    /// The client's own notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attributes: Option<Map<String, Value>>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A file in a store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VectorStoreFile {
    /// The uploaded file's id.
    pub id: String,
    /// Always `vector_store.file`.
    pub object: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Bytes of it in the store.
    pub usage_bytes: u64,
    /// The store.
    pub vector_store_id: String,
    /// `in_progress`, `completed` or `failed`.
    pub status: String,
    /// Why it failed.
    #[serde(default)]
    pub last_error: Option<FileError>,
    /// The client's own notes.
    #[serde(default)]
    pub attributes: Option<Map<String, Value>>,
}

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileError {
    /// `server_error`, `unsupported_file` or `invalid_file`.
    pub code: String,
    /// A sentence.
    pub message: String,
}

/// `POST /v1/vector_stores/{id}/search`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VectorStoreSearchRequest {
    /// One question or several.
    pub query: Value,
    /// 1 to 50; 10 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_num_results: Option<usize>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// The answer of a search.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct VectorStoreSearchPage {
    /// Always `vector_store.search_results.page`.
    pub object: String,
    /// The questions.
    pub search_query: Vec<String>,
    /// Best first.
    pub data: Vec<VectorStoreHit>,
    /// Always false.
    pub has_more: bool,
    /// Always `None`.
    #[serde(default)]
    pub next_page: Option<String>,
}

/// One hit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorStoreHit {
    /// The uploaded file, or the document.
    pub file_id: String,
    /// What it is called.
    pub filename: String,
    /// The retriever's score; scores of one search can be compared.
    pub score: f32,
    /// The client's own notes.
    #[serde(default)]
    pub attributes: Option<Map<String, Value>>,
    /// The text.
    pub content: Vec<HitText>,
}

/// Text of a hit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HitText {
    /// Always `text`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: String,
}
