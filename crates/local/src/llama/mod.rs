//! The chat model in process, by llama.cpp.
//!
//! One thread owns the context and answers everybody: each step takes one token of every running answer and a share of the waiting prompts, so nobody starves
//! ([`engine`]). A finished answer leaves its keys and values in the cache, and the next prompt with the same beginning goes on from there.
//! Adapters are applied to the one base model while it runs: many can be loaded, and each request is answered with one or none.

mod engine;
mod extras;
mod sampler;
mod slot;
mod template;
mod text;
mod tokenizer;

pub use tokenizer::{Answer, ChatTokenizer, ChatTokens};

use async_trait::async_trait;
use engine::{Engine, Job, Message};
use futures::StreamExt;
use groundtone_prompt::CountTokens;
use groundtone_provider::{ChatExtras, ChatModel, ChatRequest, ChatStream, Error, Sampling};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::token::LlamaToken;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, mpsc as sync_mpsc};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

static BACKEND: LazyLock<Result<LlamaBackend, String>> = LazyLock::new(|| {
    let mut backend = LlamaBackend::init().map_err(|error| error.to_string())?;
    backend.void_logs();
    Ok(backend)
});

/// The thread that computes, one for all models of the process: their steps take turns. OpenMP keeps a team of threads for each thread that has computed, idle or not, and once all teams together have
/// more threads than there are cores none of them waits awake any more: with two models in memory each lost a third to a half of its speed.
static COMPUTE: LazyLock<Result<rayon::ThreadPool, String>> = LazyLock::new(|| {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "llama-compute".to_owned()).build();
    pool.map_err(|error| format!("its thread cannot be started: {error}"))
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

/// A GGUF model, with an adapter or without. Dropping the last handle ends its thread when the running answers are through.
#[derive(Clone)]
pub struct LlamaChat {
    settings: LlamaSettings,
    tokenizer: Arc<ChatTokenizer>,
    jobs: sync_mpsc::Sender<Message>,
    waiting: Arc<AtomicUsize>,
    loaded: Arc<Mutex<BTreeSet<Arc<str>>>>,
    adapter: Option<Arc<str>>,
}

impl LlamaChat {
    /// Loads a GGUF file and starts its thread. Blocks while it loads.
    pub fn load(path: &Path, settings: LlamaSettings) -> Result<Self, Error> {
        let failed = |reason: String| Error::Model { model: settings.model_id.clone(), reason };
        let shown = path.display();
        let tokenizer = Arc::new(ChatTokenizer::load(path, &settings.model_id)?);
        let backend = BACKEND.as_ref().map_err(|error| failed(error.clone()))?;
        COMPUTE.as_ref().map_err(|error| failed(error.clone()))?;
        let model = LlamaModel::load_from_file(backend, path, &LlamaModelParams::default())
            .map_err(|_| failed(format!("{shown} is no GGUF model that llama.cpp can load")))?;
        let (jobs, inbox) = sync_mpsc::channel();
        let (started, result) = sync_mpsc::channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let engine = Engine { model, settings: settings.clone(), waiting: waiting.clone() };
        let spawned = std::thread::Builder::new().name("llama".to_owned()).spawn(move || engine.run(&inbox, &started));
        spawned.map_err(|error| failed(format!("its thread cannot be started: {error}")))?;
        result.recv().map_err(|_| failed("its thread ended at the start".to_owned()))?.map_err(failed)?;
        Ok(Self { settings, tokenizer, jobs, waiting, loaded: Arc::default(), adapter: None })
    }

    /// Loads an adapter's GGUF file under a name, in place of one that had it. Running answers stop for a moment and go on.
    ///
    /// # Errors
    /// A file that cannot be read, or that is no adapter of this base model.
    pub async fn load_adapter(&self, id: &str, path: &Path) -> Result<(), Error> {
        let shown = path.display();
        tokio::fs::File::open(path).await.map_err(|error| self.failed(format!("{shown} cannot be read: {error}")))?;
        let (id, (reply, loaded)) = (Arc::<str>::from(id), oneshot::channel());
        self.send(Message::Load { id: id.clone(), path: path.to_owned(), reply })?;
        loaded.await.map_err(|_| self.ended())?.map_err(|reason| self.failed(reason))?;
        self.names().insert(id);
        Ok(())
    }

    /// Takes an adapter away; false if there is none of that name. Its memory is given back when the model goes.
    ///
    /// # Errors
    /// The engine's thread has ended.
    pub async fn unload_adapter(&self, id: &str) -> Result<bool, Error> {
        if !self.names().remove(id) {
            return Ok(false);
        }
        let (reply, gone) = oneshot::channel();
        self.send(Message::Unload { id: id.into(), reply })?;
        gone.await.map_err(|_| self.ended())?;
        Ok(true)
    }

    /// Names of the loaded adapters, sorted.
    pub fn adapters(&self) -> Vec<String> {
        self.names().iter().map(ToString::to_string).collect()
    }

    /// The same model, answering with the adapter `id` and called `name`; `None` if no such adapter is loaded.
    pub fn with_adapter(&self, id: &str, name: &str) -> Option<Arc<dyn ChatModel>> {
        let adapter = self.names().get(id).cloned()?;
        let settings = LlamaSettings { model_id: name.to_owned(), ..self.settings.clone() };
        Some(Arc::new(Self { settings, adapter: Some(adapter), ..self.clone() }))
    }

    /// Reads chats as this model does.
    pub fn tokenizer(&self) -> Arc<ChatTokenizer> {
        self.tokenizer.clone()
    }

    fn names(&self) -> std::sync::MutexGuard<'_, BTreeSet<Arc<str>>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, message: Message) -> Result<(), Error> {
        self.jobs.send(message).map_err(|_| self.ended())
    }

    fn ended(&self) -> Error {
        self.failed("its thread has ended".to_owned())
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
        self.tokenizer.clone()
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
        let tokenizer = self.tokenizer.clone();
        let tokenize = move || tokenizer.prompt(&request.messages);
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
        let prompt: Vec<LlamaToken> = prompt.into_iter().map(|token| LlamaToken(token.cast_signed())).collect();
        let (adapter, prompt_tokens) = (self.adapter.clone(), prompt.len());
        self.send(Message::Answer(Job { prompt, prompt_tokens, adapter, max_tokens, sampling, events, _place: place }))?;
        Ok(ReceiverStream::new(receiver).boxed())
    }
}
