//! A client of the fine-tuning API: OpenAI's, Azure OpenAI's, our own, and every server that speaks it.

use crate::{Endpoint, Error};
use groundtone_openai_api::{
    Deleted, FileObject, FineTuningCheckpoint, FineTuningEvent, FineTuningJob, FineTuningJobRequest, ListPage, ModelList, PlainPage,
};
use reqwest::Method;
use reqwest::multipart::{Form, Part};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::Path;
use std::time::Duration;
use tokio_util::io::ReaderStream;

/// Largest file that is downloaded.
const FILE_BYTES: usize = 1 << 30;
/// Longest wait for the answer to an upload, however large the file is.
const UPLOAD_WAIT: Duration = Duration::from_secs(3600);

/// What can be done to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobAction {
    /// Call it off.
    Cancel,
    /// Let it wait.
    Pause,
    /// Let it go on.
    Resume,
}

impl JobAction {
    fn path(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }
}

/// The client.
#[derive(Debug, Clone)]
pub struct FineTuningClient {
    endpoint: Endpoint,
}

impl FineTuningClient {
    /// Of the server at this endpoint.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Error> {
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = self.endpoint.request(Method::GET, &path);
        self.endpoint.read_json(self.endpoint.send(request).await?).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Error> {
        self.endpoint.read_json(self.endpoint.post(path, body).await?).await
    }

    /// Sends a file as it is read from the disk.
    ///
    /// # Errors
    /// The file cannot be read, or the server refuses it.
    pub async fn upload(&self, path: &Path, purpose: &str) -> Result<FileObject, Error> {
        let failed = |error: std::io::Error| self.endpoint.protocol(format!("{}: {error}", path.display()));
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let length = file.metadata().await.map_err(failed)?.len();
        let name = path.file_name().map_or_else(|| "rows.jsonl".to_owned(), |name| name.to_string_lossy().into_owned());
        let part = Part::stream_with_length(reqwest::Body::wrap_stream(ReaderStream::new(file)), length).file_name(name);
        let form = Form::new().text("purpose", purpose.to_owned()).part("file", part);
        let mut endpoint = self.endpoint.clone();
        endpoint.first_byte = UPLOAD_WAIT;
        endpoint.read_json(endpoint.send(endpoint.request(Method::POST, "/files").multipart(form)).await?).await
    }

    /// What is known of a file.
    ///
    /// # Errors
    /// There is none, or the server cannot be reached; so for every call below.
    pub async fn file(&self, id: &str) -> Result<FileObject, Error> {
        self.get(&format!("/files/{}", segment(id)), &[]).await
    }

    /// A file's content.
    pub async fn content(&self, id: &str) -> Result<Vec<u8>, Error> {
        let request = self.endpoint.request(Method::GET, &format!("/files/{}/content", segment(id)));
        self.endpoint.read_within(self.endpoint.send(request).await?, FILE_BYTES).await
    }

    /// Makes a job.
    pub async fn create(&self, request: &FineTuningJobRequest) -> Result<FineTuningJob, Error> {
        self.post("/fine_tuning/jobs", request).await
    }

    /// One job.
    pub async fn job(&self, id: &str) -> Result<FineTuningJob, Error> {
        self.get(&format!("/fine_tuning/jobs/{}", segment(id)), &[]).await
    }

    /// A page of jobs, newest first.
    pub async fn jobs(&self, after: Option<&str>, limit: u32) -> Result<PlainPage<FineTuningJob>, Error> {
        self.page("/fine_tuning/jobs", after, limit).await
    }

    /// A page of what happened to a job, newest first.
    pub async fn events(&self, id: &str, after: Option<&str>, limit: u32) -> Result<PlainPage<FineTuningEvent>, Error> {
        self.page(&format!("/fine_tuning/jobs/{}/events", segment(id)), after, limit).await
    }

    /// The checkpoints of a job, newest first.
    pub async fn checkpoints(&self, id: &str) -> Result<ListPage<FineTuningCheckpoint>, Error> {
        self.get(&format!("/fine_tuning/jobs/{}/checkpoints", segment(id)), &[]).await
    }

    /// Calls a job off, pauses it, or lets it go on.
    pub async fn act(&self, id: &str, action: JobAction) -> Result<FineTuningJob, Error> {
        self.post(&format!("/fine_tuning/jobs/{}/{}", segment(id), action.path()), &serde_json::json!({})).await
    }

    /// The models of the account.
    pub async fn models(&self) -> Result<ModelList, Error> {
        self.get("/models", &[]).await
    }

    /// Removes a model.
    pub async fn delete_model(&self, id: &str) -> Result<Deleted, Error> {
        let request = self.endpoint.request(Method::DELETE, &format!("/models/{}", segment(id)));
        self.endpoint.read_json(self.endpoint.send(request).await?).await
    }

    /// A chat completion as it comes.
    pub async fn chat(&self, body: &serde_json::Value) -> Result<serde_json::Value, Error> {
        self.post("/chat/completions", body).await
    }

    /// Lets a name stand for a model, on one of our own servers.
    pub async fn put_alias(&self, id: &str, target: &str) -> Result<serde_json::Value, Error> {
        let request = self.endpoint.request(Method::PUT, &format!("/groundtone/aliases/{}", segment(id)));
        let request = request.json(&serde_json::json!({"target": target}));
        self.endpoint.read_json(self.endpoint.send(request).await?).await
    }

    /// What is known of the rows with this hash, on one of our own servers; `None` for a server that is not.
    pub async fn knows_dataset(&self, sha256: &str) -> Result<Option<bool>, Error> {
        match self.get::<serde_json::Value>(&format!("/groundtone/datasets/{}", segment(sha256)), &[]).await {
            Ok(_) => Ok(Some(true)),
            Err(Error::Refused { status: 400..=499, detail, .. }) => {
                Ok(detail.and_then(|detail| detail.code).is_some_and(|code| code == "dataset_not_found").then_some(false))
            }
            Err(error) => Err(error),
        }
    }

    /// Tells one of our own servers what rows were made of.
    pub async fn put_dataset(&self, sha256: &str, body: &impl Serialize) -> Result<(), Error> {
        let request = self.endpoint.request(Method::PUT, &format!("/groundtone/datasets/{}", segment(sha256)));
        self.endpoint.send(request.json(body)).await.map(drop)
    }

    /// Where a model comes from, on one of our own servers.
    pub async fn lineage(&self, model: &str) -> Result<serde_json::Value, Error> {
        self.get(&format!("/groundtone/models/{}/lineage", segment(model)), &[]).await
    }

    async fn page<T: DeserializeOwned>(&self, path: &str, after: Option<&str>, limit: u32) -> Result<PlainPage<T>, Error> {
        let limit = limit.to_string();
        let mut query = vec![("limit", limit.as_str())];
        query.extend(after.map(|after| ("after", after)));
        self.get(path, &query).await
    }
}

/// An id as one segment of a path: nothing in it can lead elsewhere.
fn segment(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    let text: String = id.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect();
    if text.bytes().all(|byte| byte == b'.') { text.replace('.', "%2E") } else { text }
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn ids_stay_one_segment_of_the_path() {
        for (id, path) in [("ft:a:b::c", "ft:a:b::c"), ("../jobs", "..%2Fjobs"), ("..", "%2E%2E"), ("a?b#c", "a%3Fb%23c"), ("ü", "%C3%BC")]
        {
            assert_eq!(segment(id), path);
        }
    }
}
