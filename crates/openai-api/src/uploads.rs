//! Large files in parts. Reference: OpenAI API reference, `uploads`.

use crate::FileObject;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /v1/uploads`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UploadRequest {
    /// What the client calls the file.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// How long it will be.
    pub bytes: u64,
    /// What kind of file it is.
    pub mime_type: String,
    /// When the file goes away by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_after: Option<ExpiresAfter>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// When a file goes away by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpiresAfter {
    /// Always `created_at`.
    pub anchor: String,
    /// 3600 to 2592000.
    pub seconds: i64,
}

/// `POST /v1/uploads/{id}/complete`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CompleteUploadRequest {
    /// The parts in their order.
    pub part_ids: Vec<String>,
    /// Of the whole content, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub md5: Option<String>,
}

/// An upload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upload {
    /// `upload_...`.
    pub id: String,
    /// Always `upload`.
    pub object: String,
    /// How long the file will be.
    pub bytes: u64,
    /// Unix seconds.
    pub created_at: i64,
    /// What the client calls it.
    pub filename: String,
    /// What it is for.
    pub purpose: String,
    /// `pending`, `completed`, `cancelled` or `expired`.
    pub status: String,
    /// Unix seconds.
    pub expires_at: i64,
    /// The file, once it is completed.
    #[serde(default)]
    pub file: Option<FileObject>,
}

/// A part of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadPart {
    /// `part_...`.
    pub id: String,
    /// Always `upload.part`.
    pub object: String,
    /// Unix seconds.
    pub created_at: i64,
    /// Its upload.
    pub upload_id: String,
}
