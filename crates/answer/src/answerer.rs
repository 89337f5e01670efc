use crate::condense::ModelCondense;
use crate::evidence::{self, Condenser, Found};
use crate::route::{Decision, Live, route};
use crate::semantic::{Comparison, Semantics};
use crate::shadow::{ShadowAnswer, ShadowSink, Shadows};
use crate::variant::Variant;
use crate::watch::{Watch, Watched};
use crate::writing::{Writing, milliseconds, rules_for};
use crate::{AbstainReason, Answer, AnswerEvent, AnswerStream, Error, Question, Summary, Timings, collect};
use futures::{StreamExt, stream};
use groundtone_prompt::{AnswerReader, CitationPolicy, PromptContract, ReadingRules, RenderedPrompt, Role};
use groundtone_provider::{ChatModel, FinishReason, Sampling};
use groundtone_retrieval::{Condense, CondenseLimits, Resolved, Retriever};
use groundtone_types::{Collection, ErrorKind, Snippet, TokenUsage};
use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;
use tracing::{Instrument, Span, field, info_span, warn};

/// The variant that every assistant has: documents, and the assistant's own prompt and model.
pub const RAG: &str = "rag";

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

/// Answers questions with one retriever and a model for each variant.
#[derive(Clone)]
pub struct Answerer {
    assistant: Arc<Assistant>,
    retriever: Retriever,
    /// The first one is the assistant's own.
    variants: Arc<Vec<Variant>>,
    live: Arc<RwLock<Arc<Live>>>,
    condenser: Condenser,
    semantics: Option<Semantics>,
    shadows: Option<Shadows>,
    watch: Option<Arc<dyn Watch>>,
}

impl Answerer {
    /// Puts the parts together; the one variant is [`RAG`]. The contract's tokenizer must be the model's.
    pub fn new(assistant: Assistant, retriever: Retriever, model: Arc<dyn ChatModel>) -> Self {
        let own = Variant {
            name: RAG.to_owned(),
            retrieval: true,
            contract: assistant.contract.clone(),
            model,
            sampling: assistant.sampling.clone(),
        };
        let live = Live { variant: RAG.to_owned(), ..Live::default() };
        Self {
            assistant: Arc::new(assistant),
            retriever,
            variants: Arc::new(vec![own]),
            live: Arc::new(RwLock::new(Arc::new(live))),
            condenser: None,
            semantics: None,
            shadows: None,
            watch: None,
        }
    }

    /// The same with more variants. One that is called [`RAG`] takes the place of the assistant's own.
    #[must_use]
    pub fn with_variants(self, more: Vec<Variant>) -> Self {
        let mut variants = self.variants.to_vec();
        for variant in more {
            match variants.iter_mut().find(|known| known.name == variant.name) {
                Some(known) => *known = variant,
                None => variants.push(variant),
            }
        }
        Self { variants: Arc::new(variants), ..self }
    }

    /// The same with the assistant's own model asked, once and within these limits, what a follow-up means where the rules are unsure.
    #[must_use]
    pub fn condensing(self, limits: CondenseLimits) -> Self {
        let model: Arc<dyn Condense> = Arc::new(ModelCondense(self.variants[0].model.clone()));
        Self { condenser: Some((model, limits)), ..self }
    }

    /// The same, and where only the wording of a citation is in doubt the embedder is asked. [`ReadingRules::semantic`] says so too.
    #[must_use]
    pub fn comparing(self, semantics: Semantics) -> Self {
        Self { semantics: Some(semantics), ..self }
    }

    /// The same with a place where shadows' answers go, and how many of them run at the same time.
    #[must_use]
    pub fn with_shadows(self, parallel: usize, sink: ShadowSink) -> Self {
        Self { shadows: Some(Shadows::new(parallel, sink)), ..self }
    }

    /// The same, and `watch` is told of every answer's end. Shadows' answers are not for it.
    #[must_use]
    pub fn watched_by(self, watch: Arc<dyn Watch>) -> Self {
        Self { watch: Some(watch), ..self }
    }

    /// The same, and nobody is told: for answers that are for no customer.
    #[must_use]
    pub fn unwatched(&self) -> Self {
        Self { watch: None, ..self.clone() }
    }

    /// Who answers.
    pub fn assistant(&self) -> &Assistant {
        &self.assistant
    }

    /// How it searches.
    pub fn retriever(&self) -> &Retriever {
        &self.retriever
    }

    /// Name of the assistant's own model.
    pub fn model_id(&self) -> &str {
        self.variants[0].model.id()
    }

    /// Every variant, the assistant's own first.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// A variant by its name.
    pub fn variant(&self, name: &str) -> Result<&Variant, Error> {
        self.variants.iter().find(|variant| variant.name == name).ok_or_else(|| Error::NoVariant {
            name: name.to_owned(),
            known: self.variants.iter().map(|variant| variant.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// What answers now.
    pub fn live(&self) -> Arc<Live> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets something else answer from the next question on; answers that have begun are not touched. An error where it names a variant that there is not.
    pub fn switch(&self, live: Live) -> Result<(), Error> {
        let named = live.canary.iter().map(|canary| &canary.variant).chain(&live.shadow).chain(&live.fallbacks);
        for name in std::iter::once(&live.variant).chain(named) {
            self.variant(name)?;
        }
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live);
        Ok(())
    }

    /// What an answer to this question is searched with.
    pub async fn resolved(&self, question: &Question) -> Result<Resolved, Error> {
        evidence::resolved(question, &self.condenser).await
    }

    /// What an answer to this question is made from, and whether it is enough.
    pub async fn find(&self, question: &Question) -> Result<Found, Error> {
        evidence::find(&self.retriever, &self.assistant.collection, question, &self.condenser).await
    }

    /// The prompt of the assistant's own variant for this question with `snippets`, best first: the contract, tokenizer and budget of an answer.
    pub fn render(&self, question: &Question, snippets: &[Snippet]) -> Result<RenderedPrompt, Error> {
        self.variants[0].render(question, snippets)
    }

    /// The same for a variant without documents.
    pub fn render_plain(&self, question: &Question) -> Result<RenderedPrompt, Error> {
        Variant { retrieval: false, ..self.variants[0].clone() }.render(question, &[])
    }

    /// Answers and waits for the end.
    pub async fn answer(&self, question: Question) -> Result<Answer, Error> {
        collect(self.stream(question).await?, self.model_id()).await
    }

    /// The same, searching in another way.
    #[must_use]
    pub fn searching(&self, retriever: Retriever) -> Self {
        Self { retriever, ..self.clone() }
    }

    /// The same, answering from another collection: one generation of its own, say.
    #[must_use]
    pub fn over(&self, collection: Collection) -> Self {
        Self { assistant: Arc::new(Assistant { collection, ..Assistant::clone(&self.assistant) }), ..self.clone() }
    }

    /// Answers piece by piece. An error here means that nothing was written yet.
    pub async fn stream(&self, question: Question) -> Result<AnswerStream, Error> {
        let live = self.live();
        let conversation = question.conversation_key();
        let healthy = |name: &str| self.variant(name).is_ok_and(|variant| !variant.model.is_resting());
        let decision = route(&live, question.variant.as_deref(), &conversation, &healthy);
        let span = info_span!(
            "answer",
            assistant = %self.assistant.name,
            variant = %decision.primary,
            release = decision.release.as_deref(),
            error = field::Empty
        );
        let watched = Watched { question, conversation, decision, live, watch: self.watch.clone(), began: Instant::now() };
        let answer = self.start(&watched.question, &watched.decision).instrument(span.clone()).await;
        if let Err(error) = &answer {
            span.record("error", error.kind().as_str());
        }
        watched.follow(answer)
    }

    /// Asks the variants of a decision one after the other until one has begun to answer.
    async fn start(&self, question: &Question, decision: &Decision) -> Result<AnswerStream, Error> {
        let mut asked = Asked { question, decision, found: None, started: Instant::now(), failed: None };
        let mut names = vec![decision.primary.clone()];
        names.extend(decision.fallbacks.iter().cloned());
        let last = names.len() - 1;
        for (at, name) in names.into_iter().enumerate() {
            let error = match self.attempt(self.variant(&name)?, &mut asked).await {
                Ok(answer) => {
                    self.shadow(question, decision);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if at == last || !may_fall_back(&error) {
                return Err(error);
            }
            warn!(variant = %name, %error, "another variant answers");
            asked.failed.get_or_insert(name);
        }
        Err(Error::NoVariant { name: decision.primary.clone(), known: String::new() })
    }

    /// One variant's answer up to its beginning.
    async fn attempt(&self, variant: &Variant, asked: &mut Asked<'_>) -> Result<AnswerStream, Error> {
        variant.model.check(&asked.question.extras)?;
        let mut timings = Timings::default();
        let nothing = Found::nothing(asked.question)?;
        let found = if variant.retrieval {
            let began = Instant::now();
            if asked.found.is_none() {
                let span = info_span!("answer.retrieve", snippets = field::Empty, evidence = field::Empty);
                let found = self.find(asked.question).instrument(span.clone()).await?;
                span.record("snippets", found.snippets.len());
                span.record("evidence", found.evidence.map(|evidence| evidence.score));
                asked.found = Some(found);
            }
            timings.retrieve_ms = milliseconds(began);
            asked.found.as_ref().unwrap_or(&nothing)
        } else {
            &nothing
        };
        let mut summary = asked.summary(variant, found);
        if !found.answerable {
            return Ok(abstain(variant, found, summary, timings, asked.started));
        }
        let began = Instant::now();
        let span = info_span!("answer.render", prompt_tokens = field::Empty);
        let prompt = span.in_scope(|| variant.render(asked.question, &found.snippets))?;
        span.record("prompt_tokens", prompt.prompt_tokens);
        timings.render_ms = milliseconds(began);
        summary.prompt_fingerprint = prompt.fingerprint.to_string();
        self.write(variant, asked, prompt, summary, timings).await
    }

    /// Asks the model, and reads what it writes.
    async fn write(
        &self,
        variant: &Variant,
        asked: &Asked<'_>,
        prompt: RenderedPrompt,
        summary: Summary,
        timings: Timings,
    ) -> Result<AnswerStream, Error> {
        let question = asked.question;
        let request = variant.request(question, &prompt);
        // What the model's client knows of its server it notes itself.
        let span = info_span!(
            "answer.generate",
            model = variant.model.id(),
            max_tokens = request.sampling.max_tokens,
            temperature = request.sampling.temperature.map(|value| (f64::from(value) * 1e4).round() / 1e4),
            stream = field::Empty,
            provider = field::Empty,
            server = field::Empty,
            port = field::Empty,
            response_model = field::Empty,
            response_id = field::Empty,
            first_token_seconds = field::Empty,
            finish = field::Empty,
            error = field::Empty,
            reasoning_tokens = field::Empty,
            prompt_tokens = field::Empty,
            cached_tokens = field::Empty,
            completion_tokens = field::Empty
        );
        let called = Instant::now();
        let events = variant.model.chat(request).instrument(span.clone()).await.inspect_err(|error| {
            span.record("error", error.kind().as_str());
        })?;
        let rules = rules_for(&self.assistant.reading, &question.extras);
        // What the question says may stand in the answer, and so may what it leans on.
        let (said, _) = question.split()?;
        let known = format!("{said}\n{}", summary.rewritten_query.as_deref().unwrap_or_default());
        let writing = Writing {
            events,
            withholds: rules.policy == CitationPolicy::Refuse,
            reader: AnswerReader::new(&known, &prompt.sources, rules),
            sources: prompt.sources,
            comparison: self.semantics.clone().map(Comparison::new),
            check: None,
            finished: None,
            summary,
            abstain: variant.contract.abstain.clone(),
            ready: VecDeque::new(),
            timings,
            started: asked.started,
            called,
            answer: Span::current(),
            span,
            over: false,
        };
        Ok(stream::unfold(writing, Writing::next).boxed())
    }

    /// Gives the shadow its copy.
    fn shadow(&self, question: &Question, decision: &Decision) {
        let (Some(shadows), Some(shadow)) = (&self.shadows, &decision.shadow) else { return };
        let pinned = Question { variant: Some(shadow.clone()), ..question.clone() };
        let said = question.messages.iter().rfind(|message| message.role == Role::User).map(|message| message.content.clone());
        let (answerer, tenant) = (self.unwatched(), question.tenant.clone());
        let (primary, variant) = (decision.primary.clone(), shadow.clone());
        let work = async move {
            let answer = answerer.answer(pinned).await;
            ShadowAnswer { tenant, question: said.unwrap_or_default(), primary, variant, answer }
        };
        shadows.run(shadow, work);
    }
}

/// A question on its way through the variants.
struct Asked<'a> {
    question: &'a Question,
    decision: &'a Decision,
    /// What was found, once for all variants.
    found: Option<Found>,
    started: Instant,
    /// The first variant that failed.
    failed: Option<String>,
}

impl Asked<'_> {
    /// What is known of an answer before it is written.
    fn summary(&self, variant: &Variant, found: &Found) -> Summary {
        Summary {
            citations: Vec::new(),
            unresolved_markers: Vec::new(),
            removed_citations: Vec::new(),
            links_removed: 0,
            sources: Vec::new(),
            finish: FinishReason::Stop,
            usage: None,
            variant: variant.name.clone(),
            release: self.decision.release.clone(),
            canary: self.decision.canary,
            fell_back_from: self.failed.clone(),
            prompt_fingerprint: variant.fingerprint().to_string(),
            model: variant.model.id().to_owned(),
            abstained: false,
            abstained_because: None,
            evidence: found.evidence,
            rewritten_query: found.rewritten(),
            timings: Timings::default(),
            trace_id: None,
        }
    }
}

/// Whether another variant may do better: not where the request itself is wrong.
fn may_fall_back(error: &Error) -> bool {
    matches!(error, Error::Model(_)) && !matches!(error.kind(), ErrorKind::InvalidRequest)
}

/// The abstain text, without asking a model.
fn abstain(variant: &Variant, found: &Found, mut summary: Summary, mut timings: Timings, started: Instant) -> AnswerStream {
    timings.total_ms = milliseconds(started);
    summary.sources = found.snippets.clone();
    summary.usage = Some(TokenUsage::default());
    summary.abstained = true;
    summary.abstained_because = Some(AbstainReason::NoEvidence);
    summary.timings = timings;
    let text = variant.contract.abstain.trim().to_owned();
    stream::iter([Ok(AnswerEvent::Delta(text)), Ok(AnswerEvent::Done(Box::new(summary)))]).boxed()
}
