//! A model server that loads adapters while it runs: vLLM's `load_lora_adapter` and `unload_lora_adapter` (`VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`).

use crate::{Endpoint, Error};
use groundtone_openai_api::ModelList;
use serde_json::json;
use std::path::Path;

/// The server.
#[derive(Debug, Clone)]
pub struct LoraServer {
    endpoint: Endpoint,
}

impl LoraServer {
    /// At this endpoint, whose address ends with `/v1`.
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint }
    }

    /// Loads an adapter under a name. `folder` is read by the server: it must be there under the same path.
    ///
    /// # Errors
    /// The server refuses it, or cannot be reached; so for every call below.
    pub async fn load(&self, name: &str, folder: &Path) -> Result<(), Error> {
        // The answer is a sentence.
        self.endpoint.post("/load_lora_adapter", &json!({"lora_name": name, "lora_path": folder})).await.map(drop)
    }

    /// Takes an adapter away.
    pub async fn unload(&self, name: &str) -> Result<(), Error> {
        self.endpoint.post("/unload_lora_adapter", &json!({"lora_name": name})).await.map(drop)
    }

    /// Names of the base model and of the adapters that are loaded.
    pub async fn models(&self) -> Result<Vec<String>, Error> {
        let list: ModelList = crate::get_json(&self.endpoint, "/models").await?;
        Ok(list.data.into_iter().map(|model| model.id).collect())
    }
}
