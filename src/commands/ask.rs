use crate::Global;
use crate::assemble::{Library, RunningServer, needed_models, running_server, settings};
use crate::commands::models::pull;
use crate::output::{hint, json, line, write};
use anyhow::Context;
use futures::StreamExt;
use groundtone_answer::{AnswerEvent, Question};
use groundtone_config::Config;
use groundtone_openai_api::{ChatCompletionRequest, Content, ModelList, RequestMessage};
use groundtone_prompt::{PromptMessage, Role};
use groundtone_provider::{get_json, stream_chunks};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Flags of `groundtone ask`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The question
    question: String,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let (text, details) = match running_server(&config)? {
        Some(server) => ask_server(&server, args.question, global.json).await?,
        None => ask_here(&config, args.question, global.json).await?,
    };
    if global.json {
        let mut whole = Map::from_iter([("answer".to_owned(), Value::String(text))]);
        whole.extend(details.as_object().cloned().unwrap_or_default());
        return json(&whole);
    }
    line("")?;
    show_sources(&details)
}

/// Loads everything for one answer; the data directory is ours while it is written.
async fn ask_here(config: &Config, question: String, quiet: bool) -> anyhow::Result<(String, Value)> {
    pull(config, &needed_models(config)).await?;
    let library = Library::open(config, "groundtone ask").await?;
    let answerer = library.answerer(config).await?;
    let messages = vec![PromptMessage::new(Role::User, question)];
    let mut events = answerer.stream(Question::new(library.tenant.clone(), messages)).await?;
    let mut text = String::new();
    while let Some(event) = events.next().await {
        match event? {
            AnswerEvent::Delta(delta) => {
                show(&delta, quiet)?;
                text.push_str(&delta);
            }
            AnswerEvent::Beside(_) => {}
            AnswerEvent::Done(summary) => return Ok((text, serde_json::to_value(&*summary).context("the answer's details")?)),
        }
    }
    anyhow::bail!("the answer ended without its end")
}

/// Asks the server that holds the data directory.
async fn ask_server(server: &RunningServer, question: String, quiet: bool) -> anyhow::Result<(String, Value)> {
    let endpoint = &server.endpoint;
    let explain = |error: groundtone_provider::Error| hint(error, "if the server wants a key, name its variable in `server.api_key_env`");
    let models: ModelList = get_json(endpoint, "/models").await.map_err(explain)?;
    let model = models.data.into_iter().next().context("the server has no model")?.id;
    let message = RequestMessage { role: "user".to_owned(), content: Some(Content::Text(question)), rest: Map::new() };
    let body = ChatCompletionRequest { model, messages: vec![message], stream: Some(true), ..ChatCompletionRequest::default() };
    let mut chunks = stream_chunks(endpoint, &body).await.map_err(explain)?;
    let mut text = String::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        for delta in chunk.choices.into_iter().filter_map(|choice| choice.delta.content) {
            show(&delta, quiet)?;
            text.push_str(&delta);
        }
        if let Some(details) = chunk.groundtone {
            return Ok((text, details));
        }
    }
    anyhow::bail!("the answer ended without its end")
}

fn show(delta: &str, quiet: bool) -> anyhow::Result<()> {
    if quiet { Ok(()) } else { write(delta) }
}

/// The cited sources, each once, by number.
fn show_sources(details: &Value) -> anyhow::Result<()> {
    let citations = details["citations"].as_array().map(Vec::as_slice).unwrap_or_default();
    let cited: BTreeMap<u64, &Value> = citations.iter().filter_map(|citation| Some((citation["number"].as_u64()?, citation))).collect();
    let text = |citation: &Value, key: &str| citation[key].as_str().unwrap_or_default().to_owned();
    if !cited.is_empty() {
        line("")?;
    }
    cited.iter().try_for_each(|(number, citation)| line(format!("[{number}] {}\n    {}", text(citation, "title"), text(citation, "url"))))
}
