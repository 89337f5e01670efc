use crate::Global;
use crate::assemble::{Library, running_server, settings};
use crate::output::{json, line};
use groundtone_config::Config;
use groundtone_provider::{Endpoint, post_json};
use groundtone_retrieval::ArmScore;
use groundtone_server::SearchHits;
use std::time::Duration;

/// Flags of `groundtone search`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// What a customer would ask
    question: String,
    /// How many snippets (retrieval.top_k)
    #[arg(long)]
    top_k: Option<usize>,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let flags: Vec<_> = args.top_k.map(|top_k| ("retrieval.top_k", top_k.to_string())).into_iter().collect();
    let config = settings(global, &flags)?;
    let found = match running_server(&config.data.directory)? {
        Some(address) => {
            post_json(&endpoint(&config, &address)?, "/groundtone/search", &serde_json::json!({"query": args.question})).await?
        }
        None => {
            let library = Library::open(&config, "groundtone search").await?;
            let retriever = library.retriever(&config).await?;
            SearchHits { hits: retriever.explain(&library.tenant, &config.assistant.collection, &args.question).await? }
        }
    };
    if global.json {
        return json(&found);
    }
    for (at, hit) in found.hits.iter().enumerate() {
        let (chunk, arms) = (&hit.snippet.chunk, [("dense", hit.arms.dense), ("bm25", hit.arms.bm25)]);
        let arm = |(name, score): (&str, Option<ArmScore>)| score.map(|arm| format!("{name} #{} {:.3}", arm.rank, arm.score));
        let arms: Vec<String> = arms.into_iter().filter_map(arm).collect();
        let head = format!("{}. {:.4} ({})  {}  ({})", at + 1, hit.snippet.score, arms.join(", "), chunk.breadcrumb(), chunk.document);
        line(format!("{head}\n{}\n", chunk.text.trim()))?;
    }
    if found.hits.is_empty() { line("nothing found") } else { Ok(()) }
}

/// The server that holds the data directory, as a client sees it.
pub(crate) fn endpoint(config: &Config, address: &str) -> anyhow::Result<Endpoint> {
    let key = groundtone_config::secret("server.api_key_env", &config.server.api_key_env)?;
    let limit = Duration::from_secs(config.server.request_timeout_seconds);
    Ok(Endpoint::new(&format!("{address}/v1"), key, Duration::from_secs(5), limit, limit)?)
}
