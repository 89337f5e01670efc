use crate::Global;
use crate::assemble::{embedder, redactor, settings};
use crate::commands::models::pull;
use crate::commands::traces::TraceBook;
use crate::output::{hint, json, line, say};
use groundtone_catalog::{Outcome, Thumb, TraceFilter, TraceRecord};
use groundtone_config::{Config, Engine};
use groundtone_evals::{MOST_UNMET, Remedy, Subject, Unmet, read_unmet, subjects};
use groundtone_prompt::{PromptMessage, Role};
use groundtone_provider::{Batcher, EmbedFor, Pace};
use groundtone_types::Tenant;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Flags of `groundtone eval unmet`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Questions and what came of them: JSONL of {"question", "answer", "abstained", "thumb" or "rating", "correction"}; without it the stored answers
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Whose stored answers
    #[arg(long, value_name = "NAME", default_value_t, conflicts_with = "log")]
    tenant: Tenant,
    /// Take these subjects: their numbers in the list, or the trace id of one of their questions, which stays the same while others come in
    #[arg(long, value_delimiter = ',', value_name = "SUBJECT", requires_all = ["make", "out"])]
    take: Vec<String>,
    /// What to make of them
    #[arg(long = "as", value_enum)]
    make: Option<Make>,
    /// Where to: a file for cases and rows, which are added at its end; a folder for documents
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// What becomes of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Make {
    /// Rows of a held-out set
    Cases,
    /// Training examples, of questions with a correction
    Rows,
    /// Drafts of documents, for a person to write
    Documents,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let asked = match &args.log {
        Some(log) => read_unmet(log)
            .map_err(|error| hint(error, "each line is a JSON object with `question`, and `abstained`, `thumb` or `correction`"))?,
        None => stored(&config, &args.tenant).await?,
    };
    if config.embedder.kind == Engine::Local {
        pull(&config, std::slice::from_ref(&config.embedder.model)).await?;
    }
    let questions: Vec<String> = asked.iter().map(|unmet| unmet.subject().to_owned()).collect();
    let batcher = Batcher::new(embedder(&config).await?, Pace::default());
    let mut vectors = Vec::with_capacity(questions.len());
    for batch in questions.chunks(256) {
        vectors.extend(batcher.embedder().embed(batch, EmbedFor::Query).await?);
    }
    let found = subjects(&asked, &vectors);
    let (Some(make), Some(out)) = (args.make, &args.out) else {
        return if global.json { json(&found) } else { show(&found) };
    };
    let numbers = args.take.iter().map(|name| place(name, &found)).collect::<anyhow::Result<BTreeSet<usize>>>()?;
    let chosen: Vec<&Subject> = numbers.into_iter().map(|at| &found[at]).collect();
    let made = write(make, out, &chosen)?;
    if global.json {
        return json(&serde_json::json!({"made": made, "out": out}));
    }
    say(format!("{made} written to {}", out.display()));
    Ok(())
}

/// Where in the list a subject stands.
fn place(name: &str, found: &[Subject]) -> anyhow::Result<usize> {
    let at = match name.parse::<usize>() {
        Ok(number) => number.checked_sub(1).filter(|at| *at < found.len()),
        Err(_) => found.iter().position(|subject| subject.asked.iter().any(|unmet| unmet.trace.as_deref() == Some(name))),
    };
    at.ok_or_else(|| hint(format!("there is no subject `{name}`; the list has {}", found.len()), "leave --take out to see the list"))
}

/// A file name that says what a document is about.
fn file_name(question: &str) -> String {
    let words = question.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).take(8);
    let name = words.map(str::to_lowercase).collect::<Vec<_>>().join("-");
    let name: String = name.chars().take(60).collect();
    format!("{}.md", if name.is_empty() { "unmet" } else { &name })
}

/// Stored answers that abstained, were rated badly or were corrected, oldest first.
async fn stored(config: &Config, tenant: &Tenant) -> anyhow::Result<Vec<Unmet>> {
    let (book, redactor) = (TraceBook::open(config, tenant, "groundtone eval unmet").await?, redactor(config)?);
    let mut found = BTreeMap::new();
    for (thumb, outcome) in [(Some(Thumb::Down), None), (Some(Thumb::Up), None), (None, Some(Outcome::Abstained))] {
        let filter = TraceFilter { thumb, outcome, ..TraceFilter::default() };
        book.each(filter, MOST_UNMET, &redactor, |trace| {
            let unmet = unmet(trace);
            if unmet.counts() {
                found.insert(unmet.trace.clone(), unmet);
            }
        })
        .await?;
    }
    // The newest, where there are more than can be put together.
    let older = found.len().saturating_sub(MOST_UNMET);
    Ok(found.into_values().skip(older).collect())
}

fn unmet(trace: TraceRecord) -> Unmet {
    let messages: Vec<PromptMessage> = serde_json::from_value(trace.messages).unwrap_or_default();
    let before = messages.iter().rposition(|message| message.role == Role::User).unwrap_or_default();
    let (disliked, correction) = match trace.feedback {
        Some(feedback) => (feedback.thumb == Thumb::Down, feedback.correction.filter(|text| !text.trim().is_empty())),
        None => (false, None),
    };
    Unmet {
        trace: Some(trace.id),
        about: Some(trace.query).filter(|query| *query != trace.question && !query.trim().is_empty()),
        question: trace.question,
        history: messages.into_iter().take(before).filter(|message| message.role != Role::System).collect(),
        answer: trace.answer,
        abstained: trace.outcome == Outcome::Abstained,
        disliked,
        correction,
    }
}

fn show(found: &[Subject]) -> anyhow::Result<()> {
    for (at, subject) in found.iter().enumerate() {
        let remedy = match subject.remedy {
            Remedy::Document => "a document is missing",
            Remedy::TrainingRow => "a training row",
            Remedy::EvaluationCase => "an evaluation case",
        };
        line(format!(
            "{:>3}  {:>4} asked, {:>4} unanswered, {:>4} disliked  {remedy:<22}{}",
            at + 1,
            subject.count,
            subject.abstained,
            subject.disliked,
            subject.question
        ))?;
    }
    Ok(())
}

/// Writes what was asked for, and says how many.
fn write(make: Make, out: &Path, chosen: &[&Subject]) -> anyhow::Result<usize> {
    let failed = |error: std::io::Error| hint(format!("{}: {error}", out.display()), "name another place with --out");
    if make == Make::Documents {
        std::fs::create_dir_all(out).map_err(failed)?;
        let drafts: BTreeMap<PathBuf, &&Subject> = chosen.iter().map(|subject| (out.join(file_name(&subject.question)), subject)).collect();
        if let Some(path) = drafts.keys().find(|path| path.exists()) {
            return Err(hint(
                format!("{} is there already", path.display()),
                "somebody may have written it; name another folder with --out",
            ));
        }
        drafts.iter().try_for_each(|(path, subject)| std::fs::write(path, subject.document())).map_err(failed)?;
        return Ok(drafts.len());
    }
    let rows: Vec<serde_json::Value> = match make {
        Make::Cases => chosen.iter().map(|subject| subject.case(&uuid::Uuid::now_v7().simple().to_string())).collect(),
        _ => chosen.iter().flat_map(|subject| subject.rows()).collect(),
    };
    if rows.is_empty() {
        return Err(hint("none of these questions has a correction to learn from", "take them as cases, or correct an answer first"));
    }
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(out).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(rows.len())
}
