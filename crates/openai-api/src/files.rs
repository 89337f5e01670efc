use serde::{Deserialize, Serialize};

/// A page of a list. Reference: OpenAI API reference, "list" objects with cursors.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListPage<T> {
    /// Always `list`.
    pub object: String,
    /// The items.
    pub data: Vec<T>,
    /// Id of the first one.
    #[serde(default)]
    pub first_id: Option<String>,
    /// Id of the last one: the next page's `after`.
    #[serde(default)]
    pub last_id: Option<String>,
    /// Whether there is a next page.
    #[serde(default)]
    pub has_more: bool,
}

/// Answer of a deletion.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deleted {
    /// What was deleted.
    pub id: String,
    /// Its kind: `file`, `vector_store.deleted`, ...
    pub object: String,
    /// Always true.
    pub deleted: bool,
}

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileObject {
    /// `file-...`.
    pub id: String,
    /// Always `file`.
    pub object: String,
    /// Its length.
    pub bytes: u64,
    /// Unix seconds.
    pub created_at: i64,
    /// Unix seconds; `None` for one that stays.
    #[serde(default)]
    pub expires_at: Option<i64>,
    /// What the client called it.
    pub filename: String,
    /// `assistants`, `user_data`, ...
    pub purpose: String,
    /// `processed`: files are whole when their upload is answered.
    pub status: String,
}
