//! The chat model in process, by llama.cpp.
//!
//! One thread owns the context and decodes for everybody: each step takes one token of every running answer and a share of the waiting prompts, so nobody starves
//! ([`engine`]). A finished answer leaves its keys and values in the cache, and the next prompt with the same beginning goes on from there.

mod engine;
mod extras;
mod slot;
mod template;
mod text;

use async_trait::async_trait;
use engine::{Engine, Job};
use futures::StreamExt;
use groundtone_prompt::CountTokens;
use groundtone_provider::{ChatExtras, ChatModel, ChatRequest, ChatStream, Error, Sampling};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaChatTemplate, LlamaModel};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, mpsc as sync_mpsc};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Used where a GGUF brings no chat template.
const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

static BACKEND: LazyLock<Result<LlamaBackend, String>> = LazyLock::new(|| {
    let mut backend = LlamaBackend::init().map_err(|error| error.to_string())?;
    backend.void_logs();
    Ok(backend)
});

/// How a model runs.
#[derive(Debug, Clone, PartialEq)]
pub struct LlamaSettings {
    /// What the model is called.
    pub model_id: String,
    /// Prompt and answer together, for each answer.
    pub context_tokens: u32,
    /// Answers written at the same time.
    pub parallel: u32,
    /// Threads that compute.
    pub threads: usize,
    /// Requests that may wait; one more is refused.
    pub queue: usize,
    /// Most tokens of an answer where the request does not say.
    pub max_tokens: u32,
}

/// A GGUF model. Dropping it ends its thread when the running answers are through.
pub struct LlamaChat {
    settings: LlamaSettings,
    model: Arc<LlamaModel>,
    template: LlamaChatTemplate,
    tokens: Arc<Vocabulary>,
    jobs: sync_mpsc::Sender<Job>,
    waiting: Arc<AtomicUsize>,
}

impl LlamaChat {
    /// Loads a GGUF file and starts its thread. Blocks while it loads.
    pub fn load(path: &Path, settings: LlamaSettings) -> Result<Self, Error> {
        let failed = |reason: String| Error::Model { model: settings.model_id.clone(), reason };
        let shown = path.display();
        std::fs::File::open(path).map_err(|error| failed(format!("{shown} cannot be read: {error}")))?;
        let backend = BACKEND.as_ref().map_err(|error| failed(error.clone()))?;
        let model = LlamaModel::load_from_file(backend, path, &LlamaModelParams::default())
            .map_err(|_| failed(format!("{shown} is no GGUF model that llama.cpp can load")))?;
        let model = Arc::new(model);
        let template = match model.chat_template(None) {
            Ok(template) => template,
            Err(_) => {
                tracing::warn!(model = settings.model_id, "this GGUF has no chat template; ChatML is used");
                LlamaChatTemplate::new(CHATML).map_err(|error| failed(error.to_string()))?
            }
        };
        let (jobs, inbox) = sync_mpsc::channel();
        let (started, result) = sync_mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let engine = Engine { model: model.clone(), settings: settings.clone(), waiting: waiting.clone() };
        let spawned = std::thread::Builder::new().name("llama".to_owned()).spawn(move || engine.run(&inbox, &started));
        spawned.map_err(|error| failed(format!("its thread cannot be started: {error}")))?;
        result.recv().map_err(|_| failed("its thread ended at the start".to_owned()))?.map_err(failed)?;
        let tokens = Arc::new(Vocabulary { id: format!("gguf:{}", settings.model_id), model: model.clone() });
        Ok(Self { settings, model, template, tokens, jobs, waiting })
    }

    fn failed(&self, reason: String) -> Error {
        Error::Model { model: self.settings.model_id.clone(), reason }
    }

    /// A place in the queue, or the refusal.
    fn take_place(&self) -> Result<Place, Error> {
        let most = self.settings.queue + self.settings.parallel as usize;
        let taken = self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |taken| (taken < most).then_some(taken + 1));
        match taken {
            Ok(_) => Ok(Place(self.waiting.clone())),
            Err(taken) => Err(Error::Overloaded { model: self.settings.model_id.clone(), waiting: taken }),
        }
    }
}

/// A request's place among those that run or wait; given back when dropped, wherever that is.
pub(crate) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ChatModel for LlamaChat {
    fn id(&self) -> &str {
        &self.settings.model_id
    }

    fn context_tokens(&self) -> usize {
        self.settings.context_tokens as usize
    }

    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.tokens.clone()
    }

    fn check(&self, extras: &ChatExtras) -> Result<(), Error> {
        match extras::unsupported(extras) {
            Some(parameter) => Err(Error::Unsupported { model: self.settings.model_id.clone(), parameter }),
            None => Ok(()),
        }
    }

    async fn chat(&self, request: ChatRequest) -> Result<ChatStream, Error> {
        self.check(&request.extras)?;
        let place = self.take_place()?;
        let (model, template) = (self.model.clone(), self.template.clone());
        let tokenize = move || template::tokenize_chat(&model, &template, &request.messages);
        let prompt = tokio::task::spawn_blocking(tokenize)
            .await
            .map_err(|error| self.failed(error.to_string()))?
            .map_err(|reason| self.failed(reason))?;
        let room = self.settings.context_tokens as usize;
        if prompt.is_empty() || prompt.len() >= room {
            return Err(Error::PromptTooLong { model: self.settings.model_id.clone(), prompt_tokens: prompt.len(), limit: room - 1 });
        }
        let most = request.sampling.max_tokens.unwrap_or(self.settings.max_tokens) as usize;
        let max_tokens = most.clamp(1, room - prompt.len());
        // Room for every event of the answer: the engine never waits for a slow reader, and the memory is bounded by the answer's length.
        let (events, receiver) = mpsc::channel(max_tokens + 4);
        let sampling = Sampling { max_tokens: None, ..request.sampling };
        self.jobs
            .send(Job { prompt, max_tokens, sampling, events, _place: place })
            .map_err(|_| self.failed("its thread has ended".to_owned()))?;
        Ok(ReceiverStream::new(receiver).boxed())
    }
}

/// The model's own vocabulary.
struct Vocabulary {
    id: String,
    model: Arc<LlamaModel>,
}

impl CountTokens for Vocabulary {
    fn id(&self) -> &str {
        &self.id
    }

    fn token_starts(&self, text: &str) -> Vec<u32> {
        let vocabulary = self.model.vocab();
        let mut offset = 0u32;
        let mut starts = Vec::new();
        for token in template::tokenize_plain(&self.model, text) {
            starts.push(offset);
            offset += vocabulary.token_to_piece(token, false, None).len() as u32;
        }
        starts
    }

    fn count(&self, text: &str) -> usize {
        template::tokenize_plain(&self.model, text).len()
    }
}
