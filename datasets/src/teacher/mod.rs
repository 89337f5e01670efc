//! Chunks in, examples out: a teacher model writes questions and answers, and only what its chunk holds and the production retriever finds is kept.

mod check;

use crate::random::mix;
use crate::{Error, Example};
use futures::{StreamExt, TryStreamExt, stream};
use groundtone_catalog::Catalog;
use groundtone_prompt::{PromptMessage, Role};
use groundtone_provider::{ChatEvent, ChatModel, ChatRequest, Sampling};
use groundtone_retrieval::Retriever;
use groundtone_types::{Chunk, Collection, DocumentId, Tenant};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// What a teacher is told; a new text is a new version.
const TEMPLATE: &str = include_str!("../../templates/teacher.v1.txt");
/// Chunks with fewer words are not asked about.
const LEAST_WORDS: usize = 8;
/// Most tokens of a reply, for each question that is asked for.
const REPLY_TOKENS: usize = 120;
/// Tries of one chunk where the teacher is busy or away.
const ATTEMPTS: u32 = 4;
/// Documents in one page of the ledger.
const PAGE: u32 = 200;

/// One run of a teacher.
#[derive(Debug, Clone)]
pub struct TeacherSettings {
    /// The file of examples; its journal stands beside it.
    pub out: PathBuf,
    /// Questions that are asked for, for each chunk.
    pub questions: usize,
    /// Ask about the first so many chunks only.
    pub chunks: Option<u64>,
    /// Chunks that are asked about at the same time.
    pub concurrency: usize,
    /// Seed of the teacher's sampler.
    pub seed: u64,
    /// The brand's own text: the teacher answers in its voice.
    pub system: String,
    /// Replace a journal that was begun otherwise.
    pub overwrite: bool,
}

/// What a teacher did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TeacherReport {
    /// Chunks that were looked at.
    pub chunks: u64,
    /// Chunks of which an earlier, cut-off run knew already.
    pub resumed: u64,
    /// Questions that the teacher wrote; `kept` and `dropped` add up to it.
    pub written: u64,
    /// Examples in the file.
    pub kept: u64,
    /// Questions that were not kept, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Chunks without any question, by reason.
    pub passed_over: BTreeMap<String, u64>,
}

/// One line of the journal: everything that became of a chunk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct ChunkRecord {
    document: DocumentId,
    ordinal: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passed_over: Option<String>,
    kept: Vec<Example>,
    dropped: Vec<DroppedQuestion>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct DroppedQuestion {
    question: String,
    answer: String,
    reason: String,
}

/// Asks a model about every chunk of a collection.
pub struct Teacher {
    /// Who writes.
    pub model: Arc<dyn ChatModel>,
    /// What must find each chunk again.
    pub retriever: Retriever,
    /// Which documents there are.
    pub catalog: Arc<Catalog>,
    /// Whose.
    pub tenant: Tenant,
    /// The generation that is searched.
    pub collection: Collection,
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| Error::File { path: path.to_owned(), reason: error.to_string() }
}

impl Teacher {
    /// Writes the examples, or goes on where an earlier run was cut off. `progress` is told the chunks so far and how many there are.
    pub async fn run(&self, settings: &TeacherSettings, progress: &(dyn Fn(u64, u64) + Sync)) -> Result<TeacherReport, Error> {
        let journal = settings.out.with_extension("teacher.jsonl");
        let mut known = self.open_journal(&journal, settings)?;
        let mut file = OpenOptions::new().append(true).open(&journal).map_err(failed(&journal))?;
        let (_, points) = self.catalog.counts(&self.tenant, &self.collection).await?;
        let total = settings.chunks.map_or(points, |most| most.min(points));
        let limit = usize::try_from(settings.chunks.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
        let skip = usize::try_from(known.report.resumed).unwrap_or(usize::MAX);
        let mut records = self
            .chunks()
            .take(limit)
            .skip(skip)
            .map(|chunk| async move { self.ask(settings, chunk?).await })
            .buffered(settings.concurrency.max(1))
            .boxed();
        while let Some(record) = records.next().await {
            let record = known.without_repeats(record?);
            let mut line = serde_json::to_vec(&record).map_err(|error| Error::Controls(error.to_string()))?;
            line.push(b'\n');
            file.write_all(&line).map_err(failed(&journal))?;
            known.count(&record);
            progress(known.report.chunks, total);
        }
        file.sync_all().map_err(failed(&journal))?;
        write_examples(&journal, &settings.out)?;
        Ok(known.report)
    }

    /// Every chunk of the collection, document by document in the order of their ids.
    fn chunks(&self) -> impl futures::Stream<Item = Result<Chunk, Error>> + Send + '_ {
        let documents = stream::try_unfold(Some(None::<DocumentId>), move |after| async move {
            let Some(after) = after else { return Ok::<_, Error>(None) };
            let page = self.catalog.documents(&self.tenant, &self.collection, after.as_ref(), PAGE).await?;
            let next = page.last().map(|record| Some(record.id.clone()));
            Ok((!page.is_empty()).then_some((stream::iter(page.into_iter().map(Ok)), next)))
        });
        let of_document = move |id: DocumentId| async move {
            let points = self.catalog.points(&self.tenant, &self.collection, &id).await?;
            let chunks = self.retriever.index().chunks(&self.tenant, &self.collection, &points).await?;
            Ok::<_, Error>(stream::iter(chunks.into_iter().map(Ok)))
        };
        documents.try_flatten().and_then(move |record: groundtone_catalog::DocumentRecord| of_document(record.id)).try_flatten()
    }

    async fn ask(&self, settings: &TeacherSettings, chunk: Chunk) -> Result<ChunkRecord, Error> {
        let mut record =
            ChunkRecord { document: chunk.document.clone(), ordinal: chunk.ordinal, passed_over: None, kept: vec![], dropped: vec![] };
        if chunk.shown_text().split_whitespace().count() < LEAST_WORDS {
            record.passed_over = Some("has too few words to ask about".to_owned());
            return Ok(record);
        }
        let reply = match self.reply(settings, &chunk).await {
            Ok(reply) => reply,
            Err(error @ groundtone_provider::Error::PromptTooLong { .. }) => {
                record.passed_over = Some(short(&error));
                return Ok(record);
            }
            Err(source) => return Err(Error::Teacher { model: self.model.id().to_owned(), source }),
        };
        let mut pairs = check::pairs(&reply);
        pairs.truncate(settings.questions * 2);
        if pairs.is_empty() {
            record.passed_over = Some("the reply holds no question with an answer".to_owned());
        }
        for (number, (question, answer)) in pairs.into_iter().enumerate() {
            let mut checked = check::answerable(&question, &answer, &chunk);
            if checked.is_ok() && !self.finds(&question, &chunk).await? {
                checked = Err("retrieval does not find its chunk");
            }
            match checked {
                Ok(()) => record.kept.push(Example {
                    id: format!("{}#{}.{}", chunk.document, chunk.ordinal, number + 1),
                    question,
                    answer,
                    documents: vec![chunk.document.to_string()],
                    span: Some(chunk.span),
                    ..Example::default()
                }),
                Err(reason) => record.dropped.push(DroppedQuestion { question, answer, reason: reason.to_owned() }),
            }
        }
        Ok(record)
    }

    /// Whether production retrieval shows this chunk, or the same text, for the question.
    async fn finds(&self, question: &str, chunk: &Chunk) -> Result<bool, Error> {
        let found = self.retriever.retrieve(&self.tenant, &self.collection, question).await?;
        let id = chunk.point_id();
        Ok(found.iter().any(|snippet| snippet.id == id || snippet.chunk.shown_text() == chunk.shown_text()))
    }

    async fn reply(&self, settings: &TeacherSettings, chunk: &Chunk) -> Result<String, groundtone_provider::Error> {
        let task = TEMPLATE
            .replace("{{count}}", &settings.questions.to_string())
            .replace("{{breadcrumb}}", &chunk.breadcrumb())
            .replace("{{text}}", chunk.shown_text().trim());
        let most = (REPLY_TOKENS * settings.questions).min(self.model.context_tokens() / 3);
        let request = ChatRequest {
            messages: vec![PromptMessage::new(Role::System, settings.system.trim()), PromptMessage::new(Role::User, task)],
            sampling: Sampling {
                temperature: Some(0.0),
                max_tokens: u32::try_from(most).ok(),
                seed: Some(settings.seed),
                ..Sampling::default()
            },
            extras: Default::default(),
        };
        let mut attempt = 0;
        loop {
            match self.read(request.clone()).await {
                Err(error) if error.is_passing() && attempt + 1 < ATTEMPTS => {
                    tokio::time::sleep(error.retry_after().unwrap_or(Duration::from_secs(1 << attempt)).min(Duration::from_secs(60))).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn read(&self, request: ChatRequest) -> Result<String, groundtone_provider::Error> {
        let mut events = self.model.chat(request).await?;
        let mut text = String::new();
        while let Some(event) = events.next().await {
            match event? {
                ChatEvent::Beside(_) => {}
                ChatEvent::Delta(delta) => text.push_str(&delta),
                ChatEvent::Finished { .. } => break,
            }
        }
        Ok(text)
    }

    /// Begins a journal, or reads what an earlier run left, up to its last whole line.
    fn open_journal(&self, path: &Path, settings: &TeacherSettings) -> Result<Known, Error> {
        let state = serde_json::json!({
            "teacher": self.model.id(), "template": TEMPLATE, "system": settings.system, "questions": settings.questions, "seed": settings.seed,
            "collection": self.collection, "retrieval": self.retriever.settings(),
        });
        let mut known = Known::default();
        let mut kept = 0u64;
        if let Ok(file) = File::open(path) {
            let mut lines = BufReader::new(file);
            let mut line = Vec::new();
            let mut first = true;
            while lines.read_until(b'\n', &mut line).map_err(failed(path))? > 0 && line.last() == Some(&b'\n') {
                if std::mem::take(&mut first) {
                    if serde_json::from_slice::<serde_json::Value>(&line).is_ok_and(|value| value == state) {
                        kept += line.len() as u64;
                    } else if settings.overwrite {
                        break;
                    } else {
                        return Err(Error::OtherBuild { path: path.to_owned(), what: "teacher, index or setting".to_owned() });
                    }
                } else {
                    let Ok(record) = serde_json::from_slice::<ChunkRecord>(&line) else { break };
                    known.count(&record);
                    known.report.resumed += 1;
                    kept += line.len() as u64;
                }
                line.clear();
            }
        }
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(failed(path))?;
        file.set_len(kept).map_err(failed(path))?;
        if kept == 0 {
            writeln!(file, "{state}").map_err(failed(path))?;
        }
        Ok(known)
    }
}

/// What earlier chunks gave.
#[derive(Default)]
struct Known {
    report: TeacherReport,
    questions: HashSet<u64>,
}

impl Known {
    /// Questions that another chunk was kept with already are dropped: with two right chunks neither is the oracle.
    fn without_repeats(&mut self, mut record: ChunkRecord) -> ChunkRecord {
        let mut here = HashSet::new();
        let (new, repeated): (Vec<Example>, Vec<Example>) = std::mem::take(&mut record.kept)
            .into_iter()
            .partition(|one| !self.questions.contains(&plain(&one.question)) && here.insert(plain(&one.question)));
        record.kept = new;
        record.dropped.extend(repeated.into_iter().map(|example| DroppedQuestion {
            question: example.question,
            answer: example.answer,
            reason: "the question is there already".to_owned(),
        }));
        record
    }

    fn count(&mut self, record: &ChunkRecord) {
        self.report.chunks += 1;
        self.report.kept += record.kept.len() as u64;
        self.report.written += (record.kept.len() + record.dropped.len()) as u64;
        for dropped in &record.dropped {
            *self.report.dropped.entry(dropped.reason.clone()).or_default() += 1;
        }
        if let Some(reason) = &record.passed_over {
            *self.report.passed_over.entry(reason.clone()).or_default() += 1;
        }
        self.questions.extend(record.kept.iter().map(|example| plain(&example.question)));
    }
}

/// A question without case, blanks and punctuation, as a number (FNV-1a, then mixed).
fn plain(question: &str) -> u64 {
    let letters = question.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase);
    mix(letters.fold(0xCBF2_9CE4_8422_2325, |hash, letter| (hash ^ u64::from(letter)).wrapping_mul(0x100_0000_01B3)))
}

fn short(error: &groundtone_provider::Error) -> String {
    match error {
        groundtone_provider::Error::PromptTooLong { .. } => "the chunk does not fit into the teacher's prompt".to_owned(),
        other => other.to_string(),
    }
}

/// The kept examples of a journal as a file of their own, whole or not at all.
fn write_examples(journal: &Path, out: &Path) -> Result<(), Error> {
    let part = out.with_extension("jsonl.part");
    let mut file = BufWriter::new(File::create(&part).map_err(failed(&part))?);
    for line in BufReader::new(File::open(journal).map_err(failed(journal))?).lines().skip(1) {
        let record: ChunkRecord = serde_json::from_str(&line.map_err(failed(journal))?)
            .map_err(|error| Error::File { path: journal.to_owned(), reason: error.to_string() })?;
        for example in &record.kept {
            let text = serde_json::to_string(example).map_err(|error| Error::Controls(error.to_string()))?;
            writeln!(file, "{text}").map_err(failed(&part))?;
        }
    }
    file.flush().map_err(failed(&part))?;
    std::fs::rename(&part, out).map_err(failed(out))
}

#[cfg(test)]
mod tests;
