use crate::Error;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use groundtone_prompt::{Basis, CitationReport, PromptContract, PromptInput, PromptMessage, RenderedPrompt, Role, read_citations};
use groundtone_provider::{Beside, ChatEvent, ChatExtras, ChatModel, ChatRequest, ChatStream, FinishReason, Sampling};
use groundtone_retrieval::Retriever;
use groundtone_types::{Collection, ErrorKind, Snippet, Tenant, TokenUsage};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;
use tracing::{Instrument, Span, field, info_span};

/// Who answers: a name, the documents it knows, and its prompt.
#[derive(Debug, Clone)]
pub struct Assistant {
    /// What a client names as the model.
    pub name: String,
    /// What it searches.
    pub collection: Collection,
    /// How its prompt is made.
    pub contract: PromptContract,
    /// Sampling where the client leaves it open.
    pub sampling: Sampling,
}

/// One turn of a conversation.
#[derive(Debug, Clone)]
pub struct Question {
    /// Whose documents.
    pub tenant: Tenant,
    /// The client's messages, oldest first; the last one is the user's.
    pub messages: Vec<PromptMessage>,
    /// What the client wants of the sampler; the assistant's own where `None`.
    pub sampling: Sampling,
    /// What the client sent beside text.
    pub extras: Arc<ChatExtras>,
    /// What is searched; the assistant's own collection where it is empty.
    pub collections: Vec<Collection>,
    /// Most snippets for the prompt; the retriever's own number where `None`.
    pub most_snippets: Option<usize>,
}

impl Question {
    /// A question with the assistant's own sampling and collection.
    pub fn new(tenant: Tenant, messages: Vec<PromptMessage>) -> Self {
        Self { tenant, messages, sampling: Sampling::default(), extras: Arc::default(), collections: Vec::new(), most_snippets: None }
    }
}

/// A source of the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CitedSource {
    /// First character of the answer that rests on it.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Its number in the prompt.
    pub number: usize,
    /// Whether the model named it or the words gave it away.
    pub basis: Basis,
    /// The document.
    pub document: String,
    /// Title and headings.
    pub title: String,
    /// Where a reader finds it.
    pub url: String,
}

/// Where the time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Embedding the question and searching.
    pub retrieve_ms: f64,
    /// Rendering and packing.
    pub render_ms: f64,
    /// From the model's call to its first text.
    pub first_token_ms: f64,
    /// From the question to the end.
    pub total_ms: f64,
}

/// What is known when the answer is complete.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Citations in the order of the text.
    pub citations: Vec<CitedSource>,
    /// Numbers the model wrote that are no source; never shown as citations.
    pub unresolved_markers: Vec<usize>,
    /// Every snippet that was in the prompt, by number.
    pub sources: Vec<Snippet>,
    /// Why the model stopped.
    #[serde(skip)]
    pub finish: FinishReason,
    /// Tokens; `None` where the model server did not say.
    pub usage: Option<TokenUsage>,
    /// The prompt's fingerprint.
    pub prompt_fingerprint: String,
    /// The model that wrote it.
    pub model: String,
    /// Whether it is the abstain text.
    pub abstained: bool,
    /// Where the time went.
    pub timings: Timings,
}

/// One step of an answer.
#[derive(Debug, Clone)]
pub enum AnswerEvent {
    /// More text.
    Delta(String),
    /// Something that the model server sent beside text: calls of tools, log probabilities.
    Beside(Beside),
    /// The end; exactly one, unless the stream ends with an error.
    Done(Box<Summary>),
}

/// An answer being written. Dropping it stops the model.
pub type AnswerStream = BoxStream<'static, Result<AnswerEvent, Error>>;

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// What the model server sent beside it, in order.
    pub beside: Vec<Beside>,
    /// And what is known about it.
    pub summary: Summary,
}

/// Answers questions with one retriever and one model.
#[derive(Clone)]
pub struct Answerer {
    assistant: Arc<Assistant>,
    retriever: Retriever,
    model: Arc<dyn ChatModel>,
}

impl Answerer {
    /// Puts the parts together. The contract's tokenizer must be the model's.
    pub fn new(assistant: Assistant, retriever: Retriever, model: Arc<dyn ChatModel>) -> Self {
        Self { assistant: Arc::new(assistant), retriever, model }
    }

    /// Who answers.
    pub fn assistant(&self) -> &Assistant {
        &self.assistant
    }

    /// How it searches.
    pub fn retriever(&self) -> &Retriever {
        &self.retriever
    }

    /// Name of the model.
    pub fn model_id(&self) -> &str {
        self.model.id()
    }

    /// What the model will be sent for this question: the bytes that a training row for it must have.
    pub async fn prompt(&self, question: &Question) -> Result<RenderedPrompt, Error> {
        self.prepare(question, &mut Timings::default()).await
    }

    /// The prompt for this question with `snippets` in place of what retrieval finds, best first: the same contract, tokenizer and budget as for an answer.
    pub fn render(&self, question: &Question, snippets: &[Snippet]) -> Result<RenderedPrompt, Error> {
        let (asked, history) = split(question)?;
        let input = PromptInput { history, question: asked, snippets };
        let tokens = self.model.tokens();
        let taken = self.reply_reserve(&question.sampling) + question.extras.prompt_tokens(&*tokens);
        let budget = self.model.context_tokens().saturating_sub(taken);
        Ok(self.assistant.contract.render(&input, budget, &*tokens)?)
    }

    /// Answers and waits for the end.
    pub async fn answer(&self, question: Question) -> Result<Answer, Error> {
        let mut events = self.stream(question).await?;
        let (mut text, mut all_beside) = (String::new(), Vec::new());
        while let Some(event) = events.next().await {
            match event? {
                AnswerEvent::Delta(delta) => text.push_str(&delta),
                AnswerEvent::Beside(beside) => all_beside.push(beside),
                AnswerEvent::Done(summary) => return Ok(Answer { text, beside: all_beside, summary: *summary }),
            }
        }
        Err(Error::Unfinished { model: self.model.id().to_owned() })
    }

    /// Answers piece by piece. An error here means that nothing was written yet.
    pub async fn stream(&self, question: Question) -> Result<AnswerStream, Error> {
        let span = info_span!("answer", assistant = %self.assistant.name);
        self.start(question).instrument(span).await
    }

    async fn start(&self, question: Question) -> Result<AnswerStream, Error> {
        self.model.check(&question.extras)?;
        let started = Instant::now();
        let mut timings = Timings::default();
        let prompt = self.prepare(&question, &mut timings).await?;
        let span = info_span!(
            "answer.generate",
            model = self.model.id(),
            prompt_tokens = field::Empty,
            cached_tokens = field::Empty,
            completion_tokens = field::Empty
        );
        let mut sampling = merge(&question.sampling, &self.assistant.sampling, self.room(&prompt, &question.extras));
        if sampling.stop.is_empty() {
            sampling.stop = self.assistant.contract.template.stops().iter().map(|stop| (*stop).to_owned()).collect();
        }
        let request =
            ChatRequest { messages: prompt.messages.clone(), sampling, extras: question.extras.after_dropping(prompt.dropped_history) };
        let called = Instant::now();
        let events = self.model.chat(request).instrument(span.clone()).await?;
        let writing = Writing {
            events,
            prompt,
            assistant: self.assistant.clone(),
            model: self.model.clone(),
            text: String::new(),
            timings,
            started,
            called,
            span,
            over: false,
        };
        Ok(stream::unfold(writing, Writing::next).boxed())
    }

    async fn prepare(&self, question: &Question, timings: &mut Timings) -> Result<RenderedPrompt, Error> {
        let (asked, _) = split(question)?;
        let began = Instant::now();
        let span = info_span!("answer.retrieve", snippets = field::Empty);
        let snippets = self.retrieve(question, asked).instrument(span.clone()).await?;
        span.record("snippets", snippets.len());
        timings.retrieve_ms = milliseconds(began);
        let began = Instant::now();
        let span = info_span!("answer.render", prompt_tokens = field::Empty);
        let prompt = span.in_scope(|| self.render(question, &snippets))?;
        span.record("prompt_tokens", prompt.prompt_tokens);
        timings.render_ms = milliseconds(began);
        Ok(prompt)
    }

    /// The best snippets of all the collections that the question names.
    async fn retrieve(&self, question: &Question, asked: &str) -> Result<Vec<Snippet>, Error> {
        let own = std::slice::from_ref(&self.assistant.collection);
        let collections = if question.collections.is_empty() { own } else { &question.collections };
        let mut found = Vec::new();
        for collection in collections {
            match self.retriever.retrieve(&question.tenant, collection, asked).await {
                Ok(snippets) => found.extend(snippets),
                // A vector store without a file has no collection yet.
                Err(error) if !question.collections.is_empty() && error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        let most = question.most_snippets.unwrap_or(self.retriever.settings().top_k);
        if collections.len() > 1 {
            found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
        }
        found.truncate(most);
        Ok(found)
    }

    /// Room that is kept for the answer: what was asked for, but never more than half of what the model reads.
    fn reply_reserve(&self, sampling: &Sampling) -> usize {
        let wanted = sampling.max_tokens.or(self.assistant.sampling.max_tokens).map_or(256, |tokens| tokens as usize);
        wanted.min(self.model.context_tokens() / 2)
    }

    fn room(&self, prompt: &RenderedPrompt, extras: &ChatExtras) -> usize {
        let taken = prompt.prompt_tokens + extras.prompt_tokens(&*self.model.tokens());
        self.model.context_tokens().saturating_sub(taken).max(1)
    }
}

/// The question itself, and the conversation before it.
fn split(question: &Question) -> Result<(&str, &[PromptMessage]), Error> {
    match question.messages.split_last() {
        Some((last, history)) if last.role == Role::User && !last.content.trim().is_empty() => Ok((last.content.as_str(), history)),
        Some((last, _)) if last.role == Role::User => Err(Error::Conversation("the last message is empty")),
        Some(_) => Err(Error::Conversation("the last message must be the user's")),
        None => Err(Error::Conversation("there are no messages")),
    }
}

/// The client's wishes, the assistant's where there are none, and never more tokens than fit.
fn merge(client: &Sampling, assistant: &Sampling, room: usize) -> Sampling {
    let wanted = client.max_tokens.or(assistant.max_tokens);
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    Sampling {
        temperature: client.temperature.or(assistant.temperature),
        top_p: client.top_p.or(assistant.top_p),
        max_tokens: wanted.map(|tokens| tokens.min(room)),
        stop: if client.stop.is_empty() { assistant.stop.clone() } else { client.stop.clone() },
        seed: client.seed.or(assistant.seed),
        presence_penalty: client.presence_penalty.or(assistant.presence_penalty),
        frequency_penalty: client.frequency_penalty.or(assistant.frequency_penalty),
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// An answer between its first and its last token.
struct Writing {
    events: ChatStream,
    prompt: RenderedPrompt,
    assistant: Arc<Assistant>,
    model: Arc<dyn ChatModel>,
    text: String,
    timings: Timings,
    started: Instant,
    called: Instant,
    span: Span,
    over: bool,
}

impl Writing {
    async fn next(mut self) -> Option<(Result<AnswerEvent, Error>, Self)> {
        if self.over {
            return None;
        }
        let span = self.span.clone();
        let event = match self.events.next().instrument(span).await {
            Some(Ok(ChatEvent::Delta(delta))) => {
                if self.text.is_empty() {
                    self.timings.first_token_ms = milliseconds(self.called);
                }
                self.text.push_str(&delta);
                Ok(AnswerEvent::Delta(delta))
            }
            Some(Ok(ChatEvent::Beside(beside))) => Ok(AnswerEvent::Beside(beside)),
            Some(Ok(ChatEvent::Finished { reason, usage })) => {
                self.over = true;
                Ok(AnswerEvent::Done(Box::new(self.summary(reason, usage))))
            }
            Some(Err(error)) => {
                self.over = true;
                Err(error.into())
            }
            None => {
                self.over = true;
                Err(Error::Unfinished { model: self.model.id().to_owned() })
            }
        };
        Some((event, self))
    }

    fn summary(&mut self, finish: FinishReason, usage: Option<TokenUsage>) -> Summary {
        if let Some(usage) = usage {
            self.span.record("prompt_tokens", usage.prompt_tokens);
            self.span.record("cached_tokens", usage.cached_tokens);
            self.span.record("completion_tokens", usage.completion_tokens);
        }
        let sources = std::mem::take(&mut self.prompt.sources);
        let abstained = self.text.trim().starts_with(self.assistant.contract.abstain.trim());
        let span = info_span!(parent: &self.span, "answer.cite", citations = field::Empty);
        let report = span.in_scope(|| if abstained { CitationReport::default() } else { read_citations(&self.text, &sources) });
        span.record("citations", report.citations.len());
        let citations = report.citations.iter().filter_map(|citation| {
            let chunk = &sources.get(citation.number - 1)?.chunk;
            Some(CitedSource {
                start: citation.start,
                end: citation.end,
                number: citation.number,
                basis: citation.basis,
                document: chunk.document.to_string(),
                title: chunk.breadcrumb(),
                url: chunk.url.clone(),
            })
        });
        self.timings.total_ms = milliseconds(self.started);
        Summary {
            citations: citations.collect(),
            unresolved_markers: report.unresolved,
            finish,
            usage,
            prompt_fingerprint: self.prompt.fingerprint.to_string(),
            model: self.model.id().to_owned(),
            abstained,
            timings: self.timings,
            sources,
        }
    }
}
