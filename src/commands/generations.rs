use crate::Global;
use crate::assemble::{Library, RunningServer, now, running_server, settings};
use crate::output::{hint, json, line};
use anyhow::Context;
use groundtone_config::Config;
use groundtone_ingest::{Generation, Ingester};
use groundtone_provider::{get_json, post_json};
use groundtone_server::{GcBody, GenerationList, Removed, SwitchBody};
use groundtone_types::Collection;
use serde::Serialize;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Flags of `groundtone generations`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Every generation, which one answers, and what its vectors come from
    List,
    /// Ask two generations the same questions and count how often they find the same
    Compare {
        /// JSONL with `question` in each line, or a question a line
        questions: PathBuf,
        /// The other generation; the newest one that does not answer where not given
        #[arg(long)]
        with: Option<Collection>,
        /// Settings under which the live generation was built, where it has another embedder
        #[arg(long, value_name = "FILE")]
        live_config: Option<PathBuf>,
    },
    /// Let another generation answer, at once
    Switch {
        /// Which one; the newest one that does not answer where not given
        to: Option<Collection>,
    },
    /// Let the generation answer that answered before
    Rollback,
    /// Remove generations that do not answer
    Gc {
        /// How many of those that answered last are kept for a rollback
        #[arg(long, default_value_t = 1)]
        keep: usize,
    },
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let action = args.action.unwrap_or(Action::List);
    if let Some(server) = running_server(&config)? {
        return through_server(server, action, global.json).await;
    }
    let library = Library::open(&config, "groundtone generations").await?;
    let ingester = library.ingester(&config).await?;
    let collection = &config.ingest.collection;
    let explain = |error: groundtone_ingest::Error| {
        hint(error, "`groundtone ingest --generation LOCATION` builds one; `groundtone generations` lists them")
    };
    match action {
        Action::List => show(&ingester.generations(&library.tenant, collection).await?, global.json),
        Action::Switch { to } => {
            let to = match to {
                Some(to) => to,
                None => ingester.newest(collection).await.map_err(explain)?,
            };
            ingester.switch(collection, &to, now()).await.map_err(explain)?;
            say_live(&to, global.json)
        }
        Action::Rollback => say_live(&ingester.rollback(collection, now()).await.map_err(explain)?, global.json),
        Action::Gc { keep } => say_removed(&ingester.remove_generations(collection, keep).await?, global.json),
        Action::Compare { questions, with, live_config } => {
            compare(
                &config,
                &library,
                &ingester,
                Comparison { questions: &questions, with, live_config: live_config.as_deref() },
                global.json,
            )
            .await
        }
    }
}

async fn through_server(server: RunningServer, action: Action, as_json: bool) -> anyhow::Result<()> {
    let endpoint = &server.endpoint;
    let switch = |to: Option<Collection>, rollback: bool| async move {
        let body = SwitchBody { to, rollback };
        post_json::<GenerationList>(endpoint, "/groundtone/generations/switch", &body).await
    };
    let list = match action {
        Action::List => {
            return show(&get_json::<GenerationList>(endpoint, "/groundtone/generations").await?.generations, as_json);
        }
        Action::Switch { to } => switch(to, false).await?,
        Action::Rollback => switch(None, true).await?,
        Action::Gc { keep } => {
            let gone: Removed = post_json(endpoint, "/groundtone/generations/gc", &GcBody { keep }).await?;
            return say_removed(&gone.removed, as_json);
        }
        Action::Compare { .. } => {
            return Err(hint(format!("a server at {} holds the data directory", server.address), "stop it for this command"));
        }
    };
    let live = list.generations.into_iter().find(|generation| generation.live).context("no generation answers")?;
    say_live(&live.name, as_json)
}

fn say_removed(gone: &[Collection], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(&serde_json::json!({"removed": gone}));
    }
    gone.iter().try_for_each(|name| line(format!("removed {name}")))
}

fn say_live(name: &Collection, as_json: bool) -> anyhow::Result<()> {
    if as_json { json(&serde_json::json!({"live": name})) } else { line(format!("{name} answers now")) }
}

fn show(generations: &[Generation], as_json: bool) -> anyhow::Result<()> {
    if as_json {
        return json(&serde_json::json!({"generations": generations}));
    }
    generations.iter().try_for_each(|generation| {
        let live = match (generation.live, generation.complete) {
            (true, _) => "answers  ",
            (_, true) => "complete ",
            _ => "unfinished",
        };
        line(format!(
            "{live}  {}  {} documents, {} chunks  {}",
            generation.name, generation.documents, generation.chunks, generation.fingerprint
        ))
    })
}

struct Comparison<'a> {
    questions: &'a Path,
    with: Option<Collection>,
    live_config: Option<&'a Path>,
}

/// How two generations answer the same questions.
#[derive(Debug, Serialize)]
struct Compared {
    live: Collection,
    other: Collection,
    questions: usize,
    top_k: usize,
    /// Mean share of documents that both find, of those that either finds.
    overlap: f64,
    /// Questions whose first document is another one.
    other_first: usize,
    /// Those questions, with both first documents.
    differences: Vec<Difference>,
}

#[derive(Debug, Serialize)]
struct Difference {
    question: String,
    live: Option<String>,
    other: Option<String>,
}

/// Shadow queries: each generation is asked with the embedder that it was built with.
async fn compare(config: &Config, library: &Library, ingester: &Ingester, what: Comparison<'_>, as_json: bool) -> anyhow::Result<()> {
    let collection = &config.ingest.collection;
    let live = ingester.live(collection).await?;
    let other = match what.with {
        Some(other) => other,
        None => ingester.newest(collection).await?,
    };
    let questions = read_questions(what.questions)?;
    let of = |name: &Collection, config: &Config| {
        let mut config = config.clone();
        config.assistant.collection = name.clone();
        config
    };
    let theirs = library.retriever(&of(&other, config)).await?;
    let ours = match what.live_config {
        None => library
            .retriever(&of(&live, config))
            .await
            .map_err(|error| hint(format!("{error:#}"), "name its settings with --live-config FILE"))?,
        Some(file) => library.retriever_of(&of(&live, &groundtone_config::load(Some(file), &[])?)).await?,
    };
    let (mut overlap, mut differences) = (0.0, Vec::new());
    for question in &questions {
        let found = |hits: Vec<groundtone_types::Snippet>| hits.into_iter().map(|hit| hit.chunk.document.to_string()).collect::<Vec<_>>();
        let mine = found(ours.retrieve(&library.tenant, &live, question).await?);
        let other = found(theirs.retrieve(&library.tenant, &other, question).await?);
        let (a, b): (HashSet<&String>, HashSet<&String>) = (mine.iter().collect(), other.iter().collect());
        overlap += a.intersection(&b).count() as f64 / a.union(&b).count().max(1) as f64;
        if mine.first() != other.first() {
            differences.push(Difference { question: question.clone(), live: mine.first().cloned(), other: other.first().cloned() });
        }
    }
    let compared = Compared {
        live,
        other,
        questions: questions.len(),
        top_k: config.retrieval.top_k,
        overlap: overlap / questions.len().max(1) as f64,
        other_first: differences.len(),
        differences,
    };
    if as_json {
        return json(&compared);
    }
    for difference in &compared.differences {
        let name = |document: &Option<String>| document.clone().unwrap_or_else(|| "nothing".to_owned());
        line(format!("{}\n    {} -> {}", difference.question, name(&difference.live), name(&difference.other)))?;
    }
    line(format!(
        "{} -> {}: of {} questions {} find another first document; the {} documents found overlap by {:.0} %",
        compared.live,
        compared.other,
        compared.questions,
        compared.other_first,
        compared.top_k,
        compared.overlap * 100.0
    ))
}

/// `question` of each line that is a JSON object; any other line is a question itself.
fn read_questions(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| hint(format!("cannot read {}: {error}", path.display()), "name a file of questions"))?;
    let mut questions = Vec::new();
    for (at, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty()) {
        let question = match serde_json::from_str::<serde_json::Value>(line) {
            Ok(serde_json::Value::Object(fields)) => fields.get("question").and_then(|question| question.as_str()).map(str::to_owned),
            _ => Some(line.to_owned()),
        };
        questions.push(question.with_context(|| format!("{}:{}: has no `question`", path.display(), at + 1))?);
    }
    anyhow::ensure!(!questions.is_empty(), "{} holds no questions", path.display());
    Ok(questions)
}
