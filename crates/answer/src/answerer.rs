use crate::evidence::{self, Found};
use crate::question::merge;
use crate::writing::{Writing, milliseconds, rules_for};
use crate::{AbstainReason, Answer, AnswerEvent, AnswerStream, Error, Question, Summary, Timings};
use futures::{StreamExt, stream};
use groundtone_prompt::{AnswerReader, CitationPolicy, PromptContract, PromptInput, ReadingRules, RenderedPrompt};
use groundtone_provider::{ChatExtras, ChatModel, ChatRequest, FinishReason, Sampling};
use groundtone_retrieval::{Resolved, Retriever};
use groundtone_types::{Collection, Snippet, TokenUsage};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;
use tracing::{Instrument, field, info_span};

/// Who answers: a name, the documents it knows, and its prompt.
#[derive(Debug, Clone)]
pub struct Assistant {
    /// What a client names as the model.
    pub name: String,
    /// What it searches.
    pub collection: Collection,
    /// How its prompt is made.
    pub contract: PromptContract,
    /// How its answers are read.
    pub reading: ReadingRules,
    /// Sampling where the client leaves it open.
    pub sampling: Sampling,
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

    /// What an answer to this question is searched with.
    pub async fn resolved(&self, question: &Question) -> Result<Resolved, Error> {
        evidence::resolved(question).await
    }

    /// What an answer to this question is made from, and whether it is enough.
    pub async fn find(&self, question: &Question) -> Result<Found, Error> {
        evidence::find(&self.retriever, &self.assistant.collection, question).await
    }

    /// The prompt for this question with `snippets`, best first: the contract, tokenizer and budget of an answer.
    pub fn render(&self, question: &Question, snippets: &[Snippet]) -> Result<RenderedPrompt, Error> {
        let (asked, history) = question.split()?;
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
        let span = info_span!("answer.retrieve", snippets = field::Empty, evidence = field::Empty);
        let found = self.find(&question).instrument(span.clone()).await?;
        span.record("snippets", found.snippets.len());
        span.record("evidence", found.evidence.map(|evidence| evidence.score));
        timings.retrieve_ms = milliseconds(started);
        if !found.answerable {
            return Ok(self.abstain(found, timings, started));
        }
        let began = Instant::now();
        let span = info_span!("answer.render", prompt_tokens = field::Empty);
        let prompt = span.in_scope(|| self.render(&question, &found.snippets))?;
        span.record("prompt_tokens", prompt.prompt_tokens);
        timings.render_ms = milliseconds(began);
        self.write(&question, found, prompt, timings, started).await
    }

    /// Asks the model, and reads what it writes.
    async fn write(
        &self,
        question: &Question,
        found: Found,
        prompt: RenderedPrompt,
        timings: Timings,
        started: Instant,
    ) -> Result<AnswerStream, Error> {
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
        let request = ChatRequest { messages: prompt.messages, sampling, extras: question.extras.after_dropping(prompt.dropped_history) };
        let called = Instant::now();
        let events = self.model.chat(request).instrument(span.clone()).await?;
        let rules = rules_for(&self.assistant.reading, &question.extras);
        // What the question says may stand in the answer, and so may what it leans on.
        let (asked, _) = question.split()?;
        let known = format!("{asked}\n{}", found.resolved.question);
        let writing = Writing {
            events,
            withholds: rules.policy == CitationPolicy::Refuse,
            reader: AnswerReader::new(&known, &prompt.sources, rules),
            sources: prompt.sources,
            summary: self.summary(&found, prompt.fingerprint.to_string()),
            abstain: self.assistant.contract.abstain.clone(),
            ready: VecDeque::new(),
            timings,
            started,
            called,
            span,
            over: false,
        };
        Ok(stream::unfold(writing, Writing::next).boxed())
    }

    /// The abstain text, without asking a model.
    fn abstain(&self, found: Found, mut timings: Timings, started: Instant) -> AnswerStream {
        timings.total_ms = milliseconds(started);
        let mut summary = self.summary(&found, self.assistant.contract.fingerprint().to_string());
        summary.sources = found.snippets;
        summary.usage = Some(TokenUsage::default());
        summary.abstained = true;
        summary.abstained_because = Some(AbstainReason::NoEvidence);
        summary.timings = timings;
        let text = self.assistant.contract.abstain.trim().to_owned();
        stream::iter([Ok(AnswerEvent::Delta(text)), Ok(AnswerEvent::Done(Box::new(summary)))]).boxed()
    }

    /// What is known of an answer before it is written.
    fn summary(&self, found: &Found, prompt_fingerprint: String) -> Summary {
        Summary {
            citations: Vec::new(),
            unresolved_markers: Vec::new(),
            removed_citations: Vec::new(),
            links_removed: 0,
            sources: Vec::new(),
            finish: FinishReason::Stop,
            usage: None,
            prompt_fingerprint,
            model: self.model.id().to_owned(),
            abstained: false,
            abstained_because: None,
            evidence: found.evidence,
            rewritten_query: found.rewritten(),
            timings: Timings::default(),
        }
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
