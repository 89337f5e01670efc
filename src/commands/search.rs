use crate::Global;
use crate::assemble::{Library, running_server, settings};
use crate::output::{hint, json, line};
use groundtone_prompt::{PromptMessage, Role};
use groundtone_provider::post_json;
use groundtone_retrieval::{ArmScore, Basis};
use groundtone_server::{SearchBody, SearchHits};
use serde_json::{Map, Value};

/// Flags of `groundtone search`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What a customer would ask
    question: String,
    /// How many snippets (retrieval.top_k)
    #[arg(long)]
    top_k: Option<usize>,
    /// Only documents with this metadata: KEY=VALUE, or JSON such as {"lang": ["de", "en"], "date": {"from": "2026-01-31"}}
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// An earlier question that this one may lean on, oldest first
    #[arg(long, value_name = "QUESTION")]
    after: Vec<String>,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let flags: Vec<_> = args.top_k.map(|top_k| ("retrieval.top_k", top_k.to_string())).into_iter().collect();
    let config = settings(global, &flags)?;
    let history = args.after.iter().map(|question| PromptMessage::new(Role::User, question)).collect();
    let body = SearchBody { query: args.question, history, filter: filter(&args.filter)?, top_k: args.top_k };
    let found = match running_server(&config)? {
        Some(server) => post_json(&server.endpoint, "/groundtone/search", &body).await?,
        None => {
            let library = Library::open(&config, "groundtone search").await?;
            let retriever = library.retriever(&config).await?;
            body.find(body.by_rule().await, &retriever, &library.tenant, &config.assistant.collection).await?
        }
    };
    if global.json { json(&found) } else { show(&found) }
}

fn show(found: &SearchHits) -> anyhow::Result<()> {
    if found.basis != Basis::Asked {
        line(format!("searched for: {}\n", found.query))?;
    }
    for (at, hit) in found.hits.iter().enumerate() {
        let chunk = &hit.snippet.chunk;
        let arms = [("dense", hit.arms.dense), ("bm25", hit.arms.bm25), ("rerank", hit.arms.rerank)];
        let arm = |(name, score): (&str, Option<ArmScore>)| score.map(|arm| format!("{name} #{} {:.3}", arm.rank, arm.score));
        let arms: Vec<String> = arms.into_iter().filter_map(arm).collect();
        let head = format!("{}. {:.4} ({})  {}  ({})", at + 1, hit.snippet.score, arms.join(", "), chunk.breadcrumb(), chunk.document);
        line(format!("{head}\n{}\n", chunk.shown_text().trim()))?;
    }
    if let Some(verdict) = found.verdict {
        let says = if verdict.answerable { "worth an answer" } else { "too little for an answer" };
        line(format!("{says}: probability {:.3}", verdict.probability))?;
    }
    if found.hits.is_empty() { line("nothing found") } else { Ok(()) }
}

/// `KEY=VALUE` pairs and JSON objects to one filter. A value that is JSON of a scalar or a list is taken as such, anything else is text.
fn filter(given: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut filter = Map::new();
    for part in given {
        if part.trim_start().starts_with('{') {
            let object: Map<String, Value> =
                serde_json::from_str(part).map_err(|error| hint(format!("--filter {part}: {error}"), "it must be a JSON object"))?;
            filter.extend(object);
            continue;
        }
        let pair = part.split_once('=').ok_or_else(|| hint(format!("--filter {part} has no `=`"), "write KEY=VALUE, or a JSON object"))?;
        let value = serde_json::from_str(pair.1).unwrap_or_else(|_| Value::from(pair.1));
        filter.insert(pair.0.trim().to_owned(), value);
    }
    Ok(filter)
}
