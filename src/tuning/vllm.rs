//! Trained models on a vLLM server: their adapters are loaded there while it runs.

use async_trait::async_trait;
use groundtone_catalog::ModelRecord;
use groundtone_config::Config;
use groundtone_provider::{ChatModel, Endpoint, Error, LoraServer, OpenAiChat};
use groundtone_tuning::jobs::{AdapterKind, Shelf};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// An adapter that was there so long ago is looked for again: a server that was restarted has forgotten it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// One vLLM server for all base models and adapters.
pub(super) struct VllmShelf {
    server: LoraServer,
    endpoint: Endpoint,
    context_tokens: usize,
    /// When each adapter was seen there last.
    seen: Mutex<HashMap<String, Instant>>,
}

impl VllmShelf {
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        let (tuning, chat) = (&config.tuning, &config.chat);
        let seconds = Duration::from_secs;
        let key = groundtone_config::secret("tuning.vllm_api_key_env", &tuning.vllm_api_key_env)?;
        let (first, idle) = (seconds(chat.first_token_timeout_seconds), seconds(chat.idle_timeout_seconds));
        let endpoint = Endpoint::new(&tuning.vllm_url, key, CONNECT, first, idle)?;
        let context_tokens = chat.context_tokens as usize;
        Ok(Self { server: LoraServer::new(endpoint.clone()), endpoint, context_tokens, seen: Mutex::default() })
    }

    fn model(&self, name: &str) -> Arc<dyn ChatModel> {
        Arc::new(OpenAiChat::new(self.endpoint.clone(), name, self.context_tokens))
    }
}

#[async_trait]
impl Shelf for VllmShelf {
    fn adapter_kind(&self) -> AdapterKind {
        AdapterKind::Peft
    }

    async fn open(&self, id: &str, _model: &ModelRecord, adapter: &Path) -> Result<Arc<dyn ChatModel>, Error> {
        let mut seen = self.seen.lock().await;
        if seen.get(id).is_none_or(|at| at.elapsed() > LOOK_AGAIN) {
            if !self.server.models().await?.iter().any(|known| known == id) {
                self.server.load(id, adapter).await?;
            }
            seen.insert(id.to_owned(), Instant::now());
        }
        Ok(self.model(id))
    }

    async fn open_base(&self, model: &str) -> Result<Arc<dyn ChatModel>, Error> {
        Ok(self.model(model))
    }

    async fn forget(&self, id: &str) {
        self.seen.lock().await.remove(id);
        if let Err(error) = self.server.unload(id).await {
            tracing::warn!(model = id, %error, "an adapter could not be unloaded");
        }
    }
}
