//! Examples in, training rows out: retrieved by the production retriever, rendered by the production prompt.

mod controls;
mod ground;
mod output;

pub use controls::{AnswerStyle, CitationStyle, Controls, Missed, Order, RowKind};

use crate::manifest::{BuildRecord, Counts, DatasetPaths, Entry, MANIFEST_FORMAT, Manifest, RowRecord, SnippetRecord, SourceRecord};
use crate::random::SplitMix64;
use crate::{Error, Example, ReadOptions, Record, Records, Row};
use futures::{StreamExt, stream};
use ground::Oracle;
use groundtone_answer::{Answerer, Found, Question};
use groundtone_catalog::Catalog;
use groundtone_prompt::{PromptMessage, Quote, RenderedPrompt, Role, quote_then_answer, read_citations, strip_citations, write_citations};
use groundtone_retrieval::{Retriever, Settings};
use groundtone_types::{Collection, DocumentId, Snippet, Tenant};
use output::Output;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Snippets that are looked through for oracles and near misses.
const POOL: usize = 30;
/// Most chunks of one document that are looked through for its answer.
const DOCUMENT_CHUNKS: usize = 2_000;

/// One build, as it is asked for: of this process, or of the one that has the index open.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildSettings {
    /// The examples.
    pub source: PathBuf,
    /// How they are read.
    pub read: ReadOptions,
    /// The file of rows; manifest and rows file stand beside it. `None` writes nothing: a dry run.
    pub out: Option<PathBuf>,
    /// Replace a finished dataset, or one that was begun otherwise.
    pub overwrite: bool,
    /// Take only the first so many examples.
    pub limit: Option<u64>,
    /// What rows are asked for.
    pub controls: Controls,
    /// Seed of every choice.
    pub seed: u64,
    /// Rows in the making at the same time; changes nothing but the speed.
    pub concurrency: usize,
}

/// What is told while a dataset is built.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildEvent {
    /// How far it is.
    Progress {
        /// Bytes of the examples that were read.
        read: u64,
        /// Rows so far.
        rows: u64,
    },
    /// It is done.
    Report(Box<BuildReport>),
}

/// What a build did.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BuildReport {
    /// The file of rows; `None` for a dry run.
    pub out: Option<PathBuf>,
    /// The manifest's counts.
    pub counts: Counts,
    /// Lines of the rows file that an earlier, cut-off build had made.
    pub resumed: u64,
    /// The first records and examples that became no row.
    pub problems: Vec<Entry>,
    /// SHA-256 of the file of rows.
    pub sha256: Option<String>,
}

/// Problems that a report names one by one; the rows file has them all.
const NAMED_PROBLEMS: usize = 100;

/// Builds datasets for one assistant.
pub struct Builder {
    answerer: Answerer,
    /// The collection as serving names it; the answerer searches one generation of it.
    collection: Collection,
    /// Embedder and BM25 settings of the generation, for the manifest.
    vectors: String,
    served: Retriever,
    wide: Retriever,
    catalog: Arc<Catalog>,
    tenant: Tenant,
}

/// What is to be made of one place of the input.
enum Task {
    Rejected { line: u64, reason: String },
    Example { line: u64, place: u64, example: Box<Example> },
}

/// A row before it has a place in the file.
type Made = (Entry, Option<Row>);

impl Builder {
    /// Builds with what serving answers with, over the generation that answers now: one for every build, whatever the collection's name stands for meanwhile.
    /// `vectors` is what the generation's vectors come from.
    pub async fn new(answerer: &Answerer, catalog: Arc<Catalog>, tenant: Tenant, vectors: String) -> Result<Self, Error> {
        let served = answerer.retriever().clone();
        let collection = answerer.assistant().collection.clone();
        let generation = served.index().resolve(&collection).await?.unwrap_or_else(|| collection.clone());
        let answerer = answerer.over(generation);
        let settings = served.settings();
        let pool = POOL.max(settings.top_k);
        let wide = served.with_settings(Settings { top_k: pool, candidates: settings.candidates.max(pool), ..settings });
        Ok(Self { answerer, collection, vectors, served, wide, catalog, tenant })
    }

    /// Builds a dataset, or goes on with one that was cut off. `progress` is told the bytes of the examples that were read, and the rows so far.
    ///
    /// The bytes that are written depend on examples, index, settings, controls and seed: not on concurrency, and not on how often the build was cut off.
    pub async fn run(&self, settings: &BuildSettings, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<BuildReport, Error> {
        settings.controls.check()?;
        let source = SourceRecord::of(&settings.source, &settings.read)?;
        let build = self.record(settings)?;
        let mut output = match &settings.out {
            Some(out) => Output::open(&DatasetPaths::of(out), &source, &build, settings.limit, settings.overwrite)?,
            None => Output::nowhere(),
        };
        let resumed = output.done();
        let mut problems: Vec<Entry> = Vec::new();
        let mut records = Records::open(&settings.source, &settings.read)?;
        let mut tasks = Tasks { place: 0, records: &mut records, waiting: Vec::new(), left: settings.limit, file: &settings.source };
        let tasks = std::iter::from_fn(|| tasks.next()).skip(usize::try_from(resumed).unwrap_or(usize::MAX));
        let mut made = stream::iter(tasks)
            .map(|task| async {
                let (task, bytes) = task?;
                Ok::<_, Error>((self.make(settings, task).await?, bytes))
            })
            .buffered(settings.concurrency.max(1));
        while let Some(next) = made.next().await {
            let ((entry, row), bytes) = next?;
            if !matches!(entry, Entry::Row(_)) && problems.len() < NAMED_PROBLEMS {
                problems.push(entry.clone());
            }
            output.append(entry, row.as_ref())?;
            progress(bytes, output.counts().rows);
        }
        drop(made);
        let counts = output.counts().clone();
        let Some(out) = &settings.out else { return Ok(BuildReport { out: None, counts, resumed, problems, sha256: None }) };
        let (file, rows_file) = output.finish()?;
        let sha256 = Some(file.sha256.clone());
        let groundtone = env!("CARGO_PKG_VERSION").to_owned();
        Manifest { format: MANIFEST_FORMAT, groundtone, file, rows_file, source, build, counts: counts.clone(), split: None }.write(out)?;
        Output::forget(&DatasetPaths::of(out))?;
        Ok(BuildReport { out: Some(out.clone()), counts, resumed, problems, sha256 })
    }

    /// Whether a build of this dataset was cut off: the same build goes on where it was.
    pub fn is_unfinished(out: &Path) -> bool {
        output::state_file(&DatasetPaths::of(out)).exists()
    }

    fn record(&self, settings: &BuildSettings) -> Result<BuildRecord, Error> {
        let contract = &self.answerer.assistant().contract;
        let written = |error: serde_json::Error| Error::Controls(error.to_string());
        let mut retrieval = serde_json::to_value(self.served.settings()).map_err(written)?;
        if let Some(gate) = self.served.gate() {
            retrieval["gate"] = serde_json::to_value(gate).map_err(written)?;
        }
        Ok(BuildRecord {
            prompt_fingerprint: contract.fingerprint().to_string(),
            prompt: contract.clone(),
            chat_model: self.answerer.model_id().to_owned(),
            collection: self.collection.clone(),
            generation: self.answerer.assistant().collection.clone(),
            vectors: self.vectors.clone(),
            retrieval,
            seed: settings.seed,
            controls: settings.controls.clone(),
        })
    }

    async fn make(&self, settings: &BuildSettings, task: Task) -> Result<Made, Error> {
        let (line, place, example) = match task {
            Task::Rejected { line, reason } => return Ok((Entry::Rejected { line, reason }, None)),
            Task::Example { line, place, example } => (line, place, example),
        };
        let dropped = |reason: String| (Entry::Dropped { line, example: example.id.clone(), reason }, None);
        let wanted = settings.controls.kind(settings.seed, place);
        // Its author says that nothing holds the answer: it shows what serving would, and stays as it is.
        let abstains = example.answer.starts_with(self.answerer.assistant().contract.abstain.trim());
        let wanted = if abstains { RowKind::NoAnswer } else { wanted };
        let rng = SplitMix64::new(settings.seed, place);
        let row = if abstains {
            self.abstaining_row(&settings.controls, &example).await
        } else {
            self.row(&settings.controls, &example, wanted, rng).await
        };
        match row {
            Ok(Ok((mut record, row))) => {
                record.line = line;
                Ok((Entry::Row(Box::new(record)), Some(row)))
            }
            Ok(Err(reason)) => Ok(dropped(reason)),
            // The example's own fault; everything else is the index's or the embedder's, and ends the build.
            Err(Error::Example {
                source: error @ (groundtone_answer::Error::Prompt(_) | groundtone_answer::Error::Conversation(_)),
                ..
            }) => Ok(dropped(error.to_string())),
            Err(Error::Example { source, .. }) => Err(Error::Example { line, example: example.id.clone(), source }),
            Err(other) => Err(other),
        }
    }

    /// The row of an example, or why there is none.
    async fn row(
        &self,
        controls: &Controls,
        example: &Example,
        wanted: RowKind,
        mut rng: SplitMix64,
    ) -> Result<Result<(RowRecord, Row), String>, Error> {
        if wanted == RowKind::Plain {
            let failed = |source| Error::Example { line: 0, example: example.id.clone(), source };
            let rendered = self.answerer.render_plain(&self.question(example)).map_err(failed)?;
            return Ok(Ok(self.finish(controls, example, Plan::new(wanted, Vec::new()), rendered.messages, Vec::new())));
        }
        let (plan, mut snippets) = match self.ground(controls, example, wanted).await? {
            Ok(grounded) => grounded,
            Err(reason) => return Ok(Err(reason)),
        };
        if controls.order == Order::Shuffled {
            rng.shuffle(&mut snippets);
        }
        let needed = if plan.kind == RowKind::Oracle { &plan.oracles[..] } else { &[] };
        let rendered = self.render(&self.question(example), snippets, needed)?;
        let shows = |oracle: &Oracle| rendered.sources.iter().any(|source| source.id == oracle.snippet.id);
        if plan.kind == RowKind::Oracle && !plan.oracles.iter().any(shows) {
            return Ok(Err("the chunk that holds its answer does not fit into the prompt".to_owned()));
        }
        let documents = self.document_hashes(&rendered.sources).await?;
        Ok(Ok(self.finish(controls, example, plan, rendered.messages, rendered.sources.into_iter().zip(documents).collect())))
    }

    /// What a row with sources can be, and its snippets; or why there is none.
    async fn ground(&self, controls: &Controls, example: &Example, wanted: RowKind) -> Result<Result<Grounded, String>, Error> {
        if wanted == RowKind::Served {
            return self.ground_served(controls, example, None).await;
        }
        let count = self.serving(controls).settings().top_k;
        let pool = self.retrieve(&self.wide, example).await?;
        let oracles = self.find_oracles(example, &pool).await?;
        let misses = ground::near_misses(example, &pool, &oracles, count);
        if let Err(reason) = ground::possible(wanted, &oracles, misses.len()) {
            return self.ground_served(controls, example, Some(format!("{}: {reason}", wanted.as_str()))).await;
        }
        let snippets = if wanted == RowKind::Oracle { ground::with_oracles(&pool, &oracles, count) } else { misses };
        Ok(Ok((Plan::new(wanted, oracles), snippets)))
    }

    /// What serving shows; where that does not hold the answer, what the controls want then.
    async fn ground_served(
        &self,
        controls: &Controls,
        example: &Example,
        changed: Option<String>,
    ) -> Result<Result<Grounded, String>, Error> {
        let Found { snippets, answerable, .. } = self.find(controls, example).await?;
        let oracles = ground::oracles(example, &snippets);
        let plan = Plan { changed, gated: !answerable, ..Plan::new(RowKind::Served, oracles) };
        if !plan.oracles.is_empty() || answerable && controls.missed == Missed::Keep {
            return Ok(Ok((plan, snippets)));
        }
        Ok(match controls.missed {
            Missed::Drop => Err("retrieval does not find its answer".to_owned()),
            // What serving says to it.
            Missed::Keep => {
                let changed = Some("served: serving finds too little to ask a model".to_owned());
                Ok((Plan { kind: RowKind::NoAnswer, changed, ..plan }, snippets))
            }
            Missed::Abstain => match self.abstaining(example, self.serving(controls).settings().top_k).await? {
                None => Err("retrieval does not find its answer, and its snippets may hold it all the same".to_owned()),
                Some(misses) => {
                    let changed = Some("served: retrieval does not find its answer".to_owned());
                    Ok((Plan { kind: RowKind::NoAnswer, changed, ..plan }, misses))
                }
            },
        })
    }

    /// The row of an example that abstains itself: what serving would show, and its own words.
    async fn abstaining_row(&self, controls: &Controls, example: &Example) -> Result<Result<(RowRecord, Row), String>, Error> {
        let Found { snippets, answerable, .. } = self.find(controls, example).await?;
        let rendered = self.render(&self.question(example), snippets, &[])?;
        let documents = self.document_hashes(&rendered.sources).await?;
        let plan = Plan { gated: !answerable, ..Plan::new(RowKind::NoAnswer, Vec::new()) };
        Ok(Ok(self.finish(controls, example, plan, rendered.messages, rendered.sources.into_iter().zip(documents).collect())))
    }

    /// Search as serving does it, with as many snippets as the controls say.
    fn serving(&self, controls: &Controls) -> Retriever {
        let settings = self.served.settings();
        self.served.with_settings(Settings { top_k: controls.snippets.unwrap_or(settings.top_k), ..settings })
    }

    /// What is left of the pool for an abstaining row of an example whose answer serving does not find; `None` where something may hold it.
    async fn abstaining(&self, example: &Example, count: usize) -> Result<Option<Vec<Snippet>>, Error> {
        let pool = self.retrieve(&self.wide, example).await?;
        let oracles = self.find_oracles(example, &pool).await?;
        let misses = ground::near_misses(example, &pool, &oracles, count);
        Ok((!misses.is_empty()).then_some(misses))
    }

    fn question(&self, example: &Example) -> Question {
        let mut messages = example.history.clone();
        messages.push(PromptMessage::new(Role::User, &example.question));
        Question::new(self.tenant.clone(), messages)
    }

    /// What serving answers an example from, with as many snippets as the controls say.
    async fn find(&self, controls: &Controls, example: &Example) -> Result<Found, Error> {
        let question = Question { most_snippets: controls.snippets, ..self.question(example) };
        self.answerer.find(&question).await.map_err(|source| Error::Example { line: 0, example: example.id.clone(), source })
    }

    /// What is found with what serving searches for.
    async fn retrieve(&self, retriever: &Retriever, example: &Example) -> Result<Vec<Snippet>, Error> {
        let failed = |source| Error::Example { line: 0, example: example.id.clone(), source };
        let resolved = self.answerer.resolved(&self.question(example)).await.map_err(failed)?;
        self.search(retriever, example, &resolved.question).await
    }

    async fn search(&self, retriever: &Retriever, example: &Example, text: &str) -> Result<Vec<Snippet>, Error> {
        let found = retriever.retrieve(&self.tenant, &self.answerer.assistant().collection, text).await;
        found.map_err(|error| Error::Example { line: 0, example: example.id.clone(), source: error.into() })
    }

    /// The chunks that hold the answer: in the pool; else in the documents that the example names; else where the answer's own words lead.
    /// What was found elsewhere stays out of the pool, which is what retrieval finds for the question.
    async fn find_oracles(&self, example: &Example, pool: &[Snippet]) -> Result<Vec<Oracle>, Error> {
        let found = ground::oracles(example, pool);
        if example.documents.is_empty() {
            if !found.is_empty() {
                return Ok(found);
            }
            let both = format!("{} {}", example.question, example.answer);
            return Ok(ground::oracles(example, &self.search(&self.wide, example, &both).await?));
        }
        if found.iter().any(|oracle| oracle.shown) && found.len() >= example.documents.len() {
            return Ok(found);
        }
        let mut wider = pool.to_vec();
        for name in &example.documents {
            for chunk in self.document(name).await? {
                let id = chunk.point_id();
                if wider.iter().all(|snippet| snippet.id != id) {
                    wider.push(Snippet { id, chunk, score: 0.0 });
                }
            }
        }
        Ok(ground::oracles(example, &wider))
    }

    /// The chunks of a document; none where there is no such document.
    async fn document(&self, name: &str) -> Result<Vec<groundtone_types::Chunk>, Error> {
        let collection = &self.answerer.assistant().collection;
        let Ok(id) = DocumentId::new(name) else { return Ok(Vec::new()) };
        let mut points = self.catalog.points(&self.tenant, collection, &id).await?;
        points.truncate(DOCUMENT_CHUNKS);
        Ok(self.served.index().chunks(&self.tenant, collection, &points).await?)
    }

    async fn document_hashes(&self, sources: &[Snippet]) -> Result<Vec<Option<String>>, Error> {
        let mut hashes = Vec::with_capacity(sources.len());
        for source in sources {
            let record = self.catalog.document(&self.tenant, &self.answerer.assistant().collection, &source.chunk.document).await?;
            hashes.push(record.map(|record| record.content_hash.to_string()));
        }
        Ok(hashes)
    }

    /// Renders as serving does. Where the budget has no room for an oracle, other snippets make room for it, the last one first.
    fn render(&self, question: &Question, mut snippets: Vec<Snippet>, oracles: &[Oracle]) -> Result<RenderedPrompt, Error> {
        let is_oracle = |snippet: &Snippet| oracles.iter().any(|oracle| oracle.snippet.id == snippet.id);
        loop {
            let rendered = self.answerer.render(question, &snippets);
            let rendered = rendered.map_err(|source| Error::Example { line: 0, example: String::new(), source })?;
            let missing = rendered.dropped.iter().any(|dropped| oracles.iter().any(|oracle| oracle.snippet.id == dropped.id));
            match snippets.iter().rposition(|snippet| !is_oracle(snippet)) {
                Some(last) if missing => {
                    snippets.remove(last);
                }
                _ => return Ok(rendered),
            }
        }
    }

    /// Puts the answer behind the prompt.
    fn finish(
        &self,
        controls: &Controls,
        example: &Example,
        plan: Plan,
        prompt: Vec<PromptMessage>,
        shown: Vec<(Snippet, Option<String>)>,
    ) -> (RowRecord, Row) {
        let sources: Vec<Snippet> = shown.iter().map(|(snippet, _)| snippet.clone()).collect();
        let number = |oracle: &Oracle| sources.iter().position(|source| source.id == oracle.snippet.id).map(|at| at + 1);
        let oracle: Vec<usize> = plan.oracles.iter().filter_map(number).collect();
        let fallback = plan.oracles.iter().filter(|oracle| oracle.shown).find_map(number);
        let abstain = self.answerer.assistant().contract.abstain.trim();
        let answer = match plan.kind {
            RowKind::NoAnswer if example.answer.starts_with(abstain) => example.answer.clone(),
            RowKind::NoAnswer => abstain.to_owned(),
            _ if controls.citations == CitationStyle::Keep => example.answer.clone(),
            RowKind::Plain | RowKind::Distractors => strip_citations(&example.answer),
            RowKind::Served | RowKind::Oracle => cited_answer(controls, example, &sources, fallback),
        };
        let mut cited: Vec<usize> = match plan.kind {
            RowKind::NoAnswer | RowKind::Plain => Vec::new(),
            _ => read_citations(&answer, &sources)
                .citations
                .iter()
                .filter(|citation| citation.basis == groundtone_prompt::Basis::Marker)
                .map(|citation| citation.number)
                .collect(),
        };
        cited.sort_unstable();
        cited.dedup();
        let snippets = shown.into_iter().enumerate().map(|(at, (snippet, document_sha256))| SnippetRecord {
            number: at + 1,
            id: snippet.id,
            document: snippet.chunk.document.to_string(),
            document_sha256,
            ordinal: snippet.chunk.ordinal,
            span: snippet.chunk.span,
            chunk_sha256: snippet.chunk.content_hash().to_string(),
        });
        let fallback = fallback.or(cited.first().copied());
        let rejected = example.rejected.as_ref().map(|rejected| rejected_answer(controls, plan.kind, rejected, &sources, fallback));
        let record = RowRecord {
            row: 0,
            start: 0,
            end: 0,
            line: 0,
            example: example.id.clone(),
            question: example.question.clone(),
            kind: plan.kind,
            changed: plan.changed,
            label: example.label.clone(),
            group: example.group.clone(),
            documents: example.documents.clone(),
            snippets: snippets.collect(),
            oracle,
            cited,
            gated: plan.gated,
            rejected,
        };
        (record, Row::new(prompt, answer))
    }
}

/// The answer that was turned down, with markers as the row's own answer has them: a pair is to differ in what was said, not in how it is written.
/// Its own numbers were those of another prompt.
fn rejected_answer(controls: &Controls, kind: RowKind, rejected: &str, sources: &[Snippet], fallback: Option<usize>) -> String {
    match (controls.citations, kind) {
        (CitationStyle::Keep, _) => rejected.to_owned(),
        (CitationStyle::Write, RowKind::Served | RowKind::Oracle) => write_citations(&strip_citations(rejected), sources, fallback),
        (CitationStyle::Write, _) => strip_citations(rejected),
    }
}

/// What a row turned out to be.
struct Plan {
    kind: RowKind,
    changed: Option<String>,
    oracles: Vec<Oracle>,
    /// Serving asks no model this.
    gated: bool,
}

impl Plan {
    fn new(kind: RowKind, oracles: Vec<Oracle>) -> Self {
        Self { kind, changed: None, oracles, gated: false }
    }
}

/// What a row turned out to be, and its snippets.
type Grounded = (Plan, Vec<Snippet>);

/// The answer with its markers, behind its quotes where they are wanted.
fn cited_answer(controls: &Controls, example: &Example, sources: &[Snippet], fallback: Option<usize>) -> String {
    let answer = write_citations(&strip_citations(&example.answer), sources, fallback);
    if controls.style == AnswerStyle::Answer {
        return answer;
    }
    let mut numbers: Vec<usize> = read_citations(&answer, sources).citations.iter().map(|citation| citation.number).collect();
    let mut seen = std::collections::HashSet::new();
    numbers.retain(|number| seen.insert(*number));
    let quotes = numbers.into_iter().filter_map(|number| Some(Quote { number, text: ground::quote(example, sources.get(number - 1)?)? }));
    quote_then_answer(&quotes.collect::<Vec<_>>(), &answer)
}

/// The records of the input as tasks, in order. Each rejected record and each example has a place of its own.
struct Tasks<'a> {
    place: u64,
    records: &'a mut Records,
    waiting: Vec<Task>,
    left: Option<u64>,
    file: &'a Path,
}

impl Tasks<'_> {
    /// The next task and how many bytes of the input were read for it.
    fn next(&mut self) -> Option<Result<(Task, u64), Error>> {
        while self.waiting.is_empty() {
            if self.left == Some(0) {
                return None;
            }
            let Record { line, outcome } = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(Error::File { path: self.file.to_owned(), reason: error.to_string() })),
            };
            match outcome {
                Err(reason) => self.waiting.push(Task::Rejected { line, reason }),
                Ok(examples) => {
                    for example in examples {
                        self.waiting.push(Task::Example { line, place: self.place, example: Box::new(example) });
                        self.place += 1;
                    }
                }
            }
            self.waiting.reverse();
        }
        let task = self.waiting.pop()?;
        if let (Some(left), Task::Example { .. }) = (&mut self.left, &task) {
            if *left == 0 {
                return None;
            }
            *left -= 1;
        }
        Some(Ok((task, self.records.bytes())))
    }
}

#[cfg(test)]
mod tests;
