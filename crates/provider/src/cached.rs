//! What was asked before is not asked again: vectors of questions, and whole answers.

use crate::{CallLimits, ChatEvent, ChatExtras, ChatModel, ChatRequest, ChatStream, EmbedFor, Embedder, Error, FinishReason};
use async_trait::async_trait;
use futures::{StreamExt, stream};
use groundtone_prompt::CountTokens;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest, Sha256};
use std::fmt;
use std::sync::Arc;

/// Answers that are longer are not kept, in bytes.
const LONGEST_ANSWER: usize = 256 << 10;
/// What an entry of a cache takes beside its content, about.
const ENTRY_BYTES: u64 = 200;
/// A guess at the size of an answer, for the first allocation only.
const USUAL_ANSWER: u64 = 2 << 10;

type Key = [u8; 32];

/// Told of every look-up: true where something was found.
pub type Observe = Arc<dyn Fn(bool) + Send + Sync>;

/// An embedder that remembers the vectors of questions, the most used ones longest. Documents pass through.
pub struct CachedEmbedder {
    inner: Arc<dyn Embedder>,
    vectors: Cache<Key, Arc<[f32]>>,
    observe: Observe,
}

impl CachedEmbedder {
    /// Remembers at most `most` questions.
    pub fn new(inner: Arc<dyn Embedder>, most: usize, observe: Observe) -> Self {
        Self { inner, vectors: Cache::new(most), observe }
    }

    fn key(&self, text: &str) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.inner.id());
        hash.update([0]);
        hash.update(text);
        hash.finalize().into()
    }
}

#[async_trait]
impl Embedder for CachedEmbedder {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    fn max_tokens(&self) -> usize {
        self.inner.max_tokens()
    }

    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.inner.tokens()
    }

    fn limits(&self) -> CallLimits {
        self.inner.limits()
    }

    async fn embed(&self, texts: &[String], purpose: EmbedFor) -> Result<Vec<Vec<f32>>, Error> {
        // A list of questions is an evaluation; nobody asks it again soon.
        let [text] = texts else { return self.inner.embed(texts, purpose).await };
        if purpose != EmbedFor::Query {
            return self.inner.embed(texts, purpose).await;
        }
        let key = self.key(text);
        let known = self.vectors.get(&key);
        (self.observe)(known.is_some());
        if let Some(vector) = known {
            return Ok(vec![vector.to_vec()]);
        }
        let vectors = self.inner.embed(texts, purpose).await?;
        if let [vector] = vectors.as_slice() {
            self.vectors.insert(key, vector.as_slice().into());
        }
        Ok(vectors)
    }
}

/// Weighs answers by their bytes.
#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Arc<Vec<ChatEvent>>> for ByBytes {
    fn weight(&self, _: &Key, events: &Arc<Vec<ChatEvent>>) -> u64 {
        events.iter().map(|event| ENTRY_BYTES + bytes(event) as u64).sum()
    }
}

fn bytes(event: &ChatEvent) -> usize {
    match event {
        ChatEvent::Delta(text) => text.len(),
        ChatEvent::Beside(_) | ChatEvent::Finished { .. } => 0,
    }
}

/// Whole answers, for all models of a process.
pub struct AnswerCache {
    answers: Cache<Key, Arc<Vec<ChatEvent>>, ByBytes>,
    observe: Observe,
}

impl fmt::Debug for AnswerCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerCache").field("answers", &self.answers.len()).finish_non_exhaustive()
    }
}

impl AnswerCache {
    /// Keeps at most about `most_bytes`.
    pub fn new(most_bytes: u64, observe: Observe) -> Self {
        let items = usize::try_from(most_bytes / USUAL_ANSWER).unwrap_or(usize::MAX).clamp(16, 100_000);
        Self { answers: Cache::with_weighter(items, most_bytes, ByBytes), observe }
    }

    /// Forgets every answer: what is searched is another one now.
    pub fn clear(&self) {
        self.answers.clear();
    }
}

/// A chat model that says again what it has said to the same request. Only what is certain to be said again is kept: answers at temperature 0, of text, that came to their end.
pub struct CachedChat {
    inner: Arc<dyn ChatModel>,
    cache: Arc<AnswerCache>,
}

impl CachedChat {
    /// Keeps the model's answers in `cache`, under its name.
    pub fn new(inner: Arc<dyn ChatModel>, cache: Arc<AnswerCache>) -> Self {
        Self { inner, cache }
    }

    /// Every byte that the model is given, and the model.
    fn key(&self, request: &ChatRequest) -> Option<Key> {
        let sampling = &request.sampling;
        if sampling.temperature != Some(0.0) {
            return None;
        }
        let messages = serde_json::to_vec(&request.messages).ok()?;
        let mut hash = Sha256::new();
        for part in [self.inner.id().as_bytes(), &messages, format!("{sampling:?}").as_bytes(), format!("{:?}", request.extras).as_bytes()]
        {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Some(hash.finalize().into())
    }
}

#[async_trait]
impl ChatModel for CachedChat {
    fn id(&self) -> &str {
        self.inner.id()
    }

    fn context_tokens(&self) -> usize {
        self.inner.context_tokens()
    }

    fn tokens(&self) -> Arc<dyn CountTokens> {
        self.inner.tokens()
    }

    fn check(&self, extras: &ChatExtras) -> Result<(), Error> {
        self.inner.check(extras)
    }

    fn is_resting(&self) -> bool {
        self.inner.is_resting()
    }

    async fn chat(&self, request: ChatRequest) -> Result<ChatStream, Error> {
        let Some(key) = self.key(&request) else { return self.inner.chat(request).await };
        let known = self.cache.answers.get(&key);
        (self.cache.observe)(known.is_some());
        if let Some(events) = known {
            return Ok(stream::iter(events.iter().cloned().map(again).map(Ok).collect::<Vec<_>>()).boxed());
        }
        let events = self.inner.chat(request).await?;
        let keeping = Keeping { cache: self.cache.clone(), key, events: Vec::new(), bytes: 0 };
        let watched = events.scan(keeping, |keeping, event| {
            if let Ok(event) = &event {
                keeping.see(event);
            }
            std::future::ready(Some(event))
        });
        Ok(watched.boxed())
    }
}

/// The prompt was not read again.
fn again(event: ChatEvent) -> ChatEvent {
    match event {
        ChatEvent::Finished { reason, usage } => {
            let usage = usage.map(|usage| groundtone_types::TokenUsage { cached_tokens: usage.prompt_tokens, ..usage });
            ChatEvent::Finished { reason, usage }
        }
        other => other,
    }
}

/// An answer on its way into the cache.
struct Keeping {
    cache: Arc<AnswerCache>,
    key: Key,
    events: Vec<ChatEvent>,
    bytes: usize,
}

impl Keeping {
    fn see(&mut self, event: &ChatEvent) {
        // Beside text there is no telling what it costs to keep.
        self.bytes = match event {
            ChatEvent::Beside(_) => usize::MAX,
            other => self.bytes.saturating_add(bytes(other)),
        };
        if self.bytes > LONGEST_ANSWER {
            self.events.clear();
            return;
        }
        match (event, self.events.last_mut()) {
            (ChatEvent::Delta(more), Some(ChatEvent::Delta(text))) => text.push_str(more),
            _ => self.events.push(event.clone()),
        }
        if let ChatEvent::Finished { reason: FinishReason::Stop | FinishReason::Length, .. } = event {
            self.cache.answers.insert(self.key, Arc::new(std::mem::take(&mut self.events)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Beside, Sampling};
    use groundtone_prompt::{PromptMessage, Role};
    use groundtone_types::TokenUsage;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    struct Words;

    impl CountTokens for Words {
        fn id(&self) -> &str {
            "words"
        }
        fn token_starts(&self, text: &str) -> Vec<u32> {
            (0..).take(text.len()).collect()
        }
    }

    /// Counts its calls and says what it was asked.
    struct Parrot(AtomicUsize);

    #[async_trait]
    impl ChatModel for Parrot {
        fn id(&self) -> &str {
            "parrot"
        }
        fn context_tokens(&self) -> usize {
            1000
        }
        fn tokens(&self) -> Arc<dyn CountTokens> {
            Arc::new(Words)
        }
        /// From the tenth call on.
        fn is_resting(&self) -> bool {
            self.0.load(Ordering::SeqCst) >= 10
        }
        async fn chat(&self, request: ChatRequest) -> Result<ChatStream, Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            let text = request.messages[0].content.clone();
            let mut events = vec![Ok(ChatEvent::Delta("You said ".to_owned())), Ok(ChatEvent::Delta(text.clone()))];
            if text == "cut" {
                events.push(Err(Error::Overloaded { model: "parrot".to_owned(), waiting: 0 }));
            } else {
                if text == "tools" {
                    events.push(Ok(ChatEvent::Beside(Beside::default())));
                }
                let usage = Some(TokenUsage { prompt_tokens: 7, completion_tokens: 3, ..TokenUsage::default() });
                events.push(Ok(ChatEvent::Finished { reason: FinishReason::Stop, usage }));
            }
            Ok(stream::iter(events).boxed())
        }
    }

    #[async_trait]
    impl Embedder for Parrot {
        fn id(&self) -> &str {
            "parrot"
        }
        fn dimensions(&self) -> usize {
            1
        }
        fn max_tokens(&self) -> usize {
            9
        }
        fn tokens(&self) -> Arc<dyn CountTokens> {
            Arc::new(Words)
        }
        fn limits(&self) -> CallLimits {
            CallLimits { texts: 9, tokens: 9, parallel: 1 }
        }
        async fn embed(&self, texts: &[String], _: EmbedFor) -> Result<Vec<Vec<f32>>, Error> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        }
    }

    fn request(text: &str, temperature: f32, seed: u64) -> ChatRequest {
        let sampling = Sampling { temperature: Some(temperature), seed: Some(seed), ..Sampling::default() };
        ChatRequest { messages: vec![PromptMessage::new(Role::User, text)], sampling, extras: Arc::default() }
    }

    async fn said(model: &CachedChat, request: ChatRequest) -> (String, u64) {
        let (mut text, mut cached) = (String::new(), 0);
        let mut events = model.chat(request).await.unwrap();
        while let Some(event) = events.next().await {
            match event {
                Ok(ChatEvent::Delta(more)) => text.push_str(&more),
                Ok(ChatEvent::Finished { usage, .. }) => cached = usage.unwrap().cached_tokens,
                _ => {}
            }
        }
        (text, cached)
    }

    #[tokio::test]
    async fn an_equal_request_is_answered_from_memory_and_any_other_is_not() {
        let parrot = Arc::new(Parrot(AtomicUsize::new(0)));
        let cache = Arc::new(AnswerCache::new(1 << 20, Arc::new(|_| {})));
        let model = CachedChat::new(parrot.clone(), cache.clone());
        let calls = || parrot.0.load(Ordering::SeqCst);
        assert_eq!(said(&model, request("hello", 0.0, 1)).await, ("You said hello".to_owned(), 0));
        assert_eq!(said(&model, request("hello", 0.0, 1)).await, ("You said hello".to_owned(), 7));
        assert_eq!(calls(), 1);
        for (text, temperature, seed) in [("hello!", 0.0, 1), ("hello", 0.0, 2), ("hello", 0.5, 1), ("hello", 0.5, 1)] {
            said(&model, request(text, temperature, seed)).await;
        }
        assert_eq!(calls(), 5, "another text, another seed, and what is drawn by lot");
        for broken in ["cut", "tools"] {
            said(&model, request(broken, 0.0, 1)).await;
            said(&model, request(broken, 0.0, 1)).await;
        }
        assert_eq!(calls(), 9, "half an answer and calls of tools are not kept");
        cache.clear();
        assert!(!model.is_resting());
        said(&model, request("hello", 0.0, 1)).await;
        assert_eq!(calls(), 10);
        assert!(model.is_resting(), "a fallback must see that the model behind the cache rests");
    }

    #[tokio::test]
    async fn the_cache_of_answers_is_bounded() {
        let model = CachedChat::new(Arc::new(Parrot(AtomicUsize::new(0))), Arc::new(AnswerCache::new(100_000, Arc::new(|_| {}))));
        for at in 0..200 {
            said(&model, request(&format!("{at} {}", "x".repeat(5_000)), 0.0, 1)).await;
        }
        assert!(model.cache.answers.weight() <= 100_000 && model.cache.answers.len() < 20, "{}", model.cache.answers.len());
        let long = "x".repeat(LONGEST_ANSWER);
        said(&model, request(&long, 0.0, 1)).await;
        assert_eq!(said(&model, request(&long, 0.0, 1)).await.1, 0, "too long to be kept");
    }

    #[tokio::test]
    async fn a_question_is_embedded_once_and_documents_always() {
        let parrot = Arc::new(Parrot(AtomicUsize::new(0)));
        let hits = Arc::new(AtomicUsize::new(0));
        let counting = hits.clone();
        let observe: Observe = Arc::new(move |hit| {
            counting.fetch_add(usize::from(hit), Ordering::SeqCst);
        });
        let embedder = CachedEmbedder::new(parrot.clone(), 8, observe);
        let embed = async |text: &str, purpose| embedder.embed(&[text.to_owned()], purpose).await.unwrap();
        for _ in 0..3 {
            assert_eq!(embed("four", EmbedFor::Query).await, [[4.0]]);
        }
        assert_eq!((parrot.0.load(Ordering::SeqCst), hits.load(Ordering::SeqCst)), (1, 2));
        embed("four", EmbedFor::Document).await;
        embed("five!", EmbedFor::Query).await;
        assert_eq!(parrot.0.load(Ordering::SeqCst), 3);
        for at in 0..100 {
            embed(&at.to_string(), EmbedFor::Query).await;
        }
        assert!(embedder.vectors.len() <= 16, "{}", embedder.vectors.len());
    }
}
