use super::arm::ArmSpec;
use super::journal::Journal;
use crate::Error;
use crate::case::{Case, CaseSet, Cited, Reply, Source};
use crate::decide::ArmRun;
use futures::{StreamExt, stream};
use groundtone_openai_api::{ChatCompletionRequest, Content, RequestMessage, StreamOptions, Usage};
use groundtone_prompt::Role as Speaker;
use groundtone_provider::{Endpoint, Error as ProviderError, stream_chunks};
use groundtone_types::ErrorKind;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Questions that one arm is asked before it is the next one's turn: a slow hour of the machine hits all arms, and a model that must be switched is not switched for each question.
const BLOCK: usize = 16;
/// Calls for one answer.
const ATTEMPTS: u32 = 4;
/// Pause after the first failure where the server names none; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause that a server may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Answers that are there.
    pub done: usize,
    /// Of so many.
    pub total: usize,
    /// Of them from the journal.
    pub known: usize,
    /// Of them failed.
    pub failed: usize,
}

/// An arm and where to ask it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The arm.
    pub arm: ArmSpec,
    /// Its server.
    pub endpoint: Endpoint,
    /// Everything that its answers depend on beside the request: prompt fingerprint, index generation, model files. Answers of another state are not used again.
    pub state: String,
}

/// How a run goes.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// Answers at the same time.
    pub parallel: usize,
    /// 0 is greedy, and what a comparison wants.
    pub temperature: f32,
    /// Seed of the sampler, for servers that take one.
    pub seed: i64,
}

struct Job<'a> {
    target: usize,
    case: usize,
    key: String,
    body: ChatCompletionRequest,
    known: Option<&'a Reply>,
}

/// Asks every arm every question, those in the journal excepted, and gives the answers in the order of the set. An answer that failed is not put in the journal: the next run tries
/// it again.
pub async fn ask_all(
    set: &CaseSet,
    targets: &[Target],
    journal_path: &std::path::Path,
    settings: &RunSettings,
    progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<Vec<ArmRun>, Error> {
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for (block, cases) in set.cases.chunks(BLOCK).enumerate() {
        for (target, asked) in targets.iter().enumerate() {
            for (at, case) in cases.iter().enumerate() {
                let body = body(case, &asked.arm, settings);
                let key = key(asked, &body);
                jobs.push(Job { target, case: block * BLOCK + at, key, body, known: None });
            }
        }
    }
    let wanted: std::collections::HashSet<&str> = jobs.iter().map(|job| job.key.as_str()).collect();
    let (path, owned) =
        (journal_path.to_owned(), wanted.iter().map(|key| (*key).to_owned()).collect::<std::collections::HashSet<String>>());
    let opened = tokio::task::spawn_blocking(move || Journal::open(&path, |key| owned.contains(key))).await;
    let journal = opened.map_err(|error| Error::File { path: journal_path.to_owned(), reason: error.to_string() })??;
    jobs.iter_mut().for_each(|job| job.known = journal.get(&job.key));
    let (done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (total, known) = (jobs.len(), jobs.iter().filter(|job| job.known.is_some()).count());
    let journal = &journal;
    let (done, failed) = (&done, &failed);
    let answered: Vec<Result<(usize, usize, Reply), Error>> = stream::iter(jobs)
        .map(|job| async move {
            let reply = match job.known {
                Some(reply) => reply.clone(),
                None => {
                    let target = &targets[job.target];
                    let reply = ask(&target.endpoint, &job.body).await;
                    match &reply.error {
                        Some(_) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                        }
                        None => journal.add(&job.key, &target.arm.name, &set.cases[job.case].id, &reply)?,
                    }
                    reply
                }
            };
            let done = done.fetch_add(1, Ordering::Relaxed) + 1;
            progress(Progress { done, total, known, failed: failed.load(Ordering::Relaxed) });
            Ok((job.target, job.case, reply))
        })
        .buffer_unordered(settings.parallel.max(1))
        .collect()
        .await;
    let mut runs: Vec<ArmRun> = targets
        .iter()
        .map(|target| ArmRun {
            name: target.arm.name.clone(),
            model: target.arm.model.clone(),
            role: target.arm.role,
            replies: vec![Reply::default(); set.cases.len()],
        })
        .collect();
    for one in answered {
        let (target, case, reply) = one?;
        runs[target].replies[case] = reply;
    }
    Ok(runs)
}

fn message(role: &str, content: &str) -> RequestMessage {
    RequestMessage { role: role.to_owned(), content: Some(Content::Text(content.to_owned())), rest: Map::new() }
}

/// What is sent: the arm's prompt and examples, the conversation, the question.
fn body(case: &Case, arm: &ArmSpec, settings: &RunSettings) -> ChatCompletionRequest {
    let mut messages: Vec<RequestMessage> = arm.prompt.iter().map(|prompt| message("system", prompt)).collect();
    for shot in &arm.shots {
        messages.extend([message("user", &shot.question), message("assistant", &shot.answer)]);
    }
    let role = |speaker: Speaker| match speaker {
        Speaker::System => "system",
        Speaker::User => "user",
        Speaker::Assistant => "assistant",
    };
    messages.extend(case.history.iter().map(|turn| message(role(turn.role), &turn.content)));
    messages.push(message("user", &case.question));
    ChatCompletionRequest {
        model: arm.model.clone(),
        messages,
        stream: Some(true),
        stream_options: Some(StreamOptions { include_usage: true }),
        temperature: Some(settings.temperature),
        seed: Some(settings.seed),
        max_completion_tokens: arm.max_tokens,
        ..ChatCompletionRequest::default()
    }
}

/// Everything that an answer depends on. The Groundtone under test has no fixed address, so its state stands for it.
fn key(target: &Target, body: &ChatCompletionRequest) -> String {
    let mut digest = Sha256::new();
    let body = serde_json::to_string(body).unwrap_or_default();
    for part in [target.arm.url.as_deref().unwrap_or("groundtone"), &target.state, &body] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part.as_bytes());
    }
    hex::encode(digest.finalize())
}

/// One answer, after as many calls as it takes; the time is that of the call that answered.
pub(super) async fn ask(endpoint: &Endpoint, body: &ChatCompletionRequest) -> Reply {
    let mut pause = PAUSE;
    for attempt in 1.. {
        let error = match once(endpoint, body).await {
            Ok(reply) => return reply,
            Err(error) => error,
        };
        let passing = matches!(error.kind(), ErrorKind::Overloaded | ErrorKind::Unavailable | ErrorKind::Timeout);
        if attempt == ATTEMPTS || !passing {
            return Reply { error: Some(error.to_string()), ..Reply::default() };
        }
        tokio::time::sleep(error.retry_after().unwrap_or(pause).min(LONGEST_PAUSE)).await;
        pause *= 2;
    }
    Reply::default()
}

async fn once(endpoint: &Endpoint, body: &ChatCompletionRequest) -> Result<Reply, ProviderError> {
    let started = Instant::now();
    let mut chunks = stream_chunks(endpoint, body).await?;
    let mut reply = Reply::default();
    let (mut finished, mut details) = (false, None);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        for choice in chunk.choices {
            if let Some(text) = choice.delta.content.filter(|text| !text.is_empty()) {
                if reply.text.is_empty() {
                    reply.first_token_ms = started.elapsed().as_secs_f64() * 1e3;
                }
                reply.text.push_str(&text);
            }
            finished |= choice.finish_reason.is_some();
        }
        if let Some(usage) = chunk.usage {
            count(&mut reply, &usage);
        }
        details = chunk.groundtone.or(details);
    }
    reply.total_ms = started.elapsed().as_secs_f64() * 1e3;
    if !finished {
        return Err(ProviderError::Unreachable {
            endpoint: endpoint.base_url().to_owned(),
            reason: "the stream ended before the answer did".to_owned(),
        });
    }
    if reply.text.is_empty() {
        reply.first_token_ms = reply.total_ms;
    }
    if let Some(details) = details {
        describe(&mut reply, &details);
    }
    Ok(reply)
}

fn count(reply: &mut Reply, usage: &Usage) {
    reply.prompt_tokens = Some(usage.prompt_tokens);
    reply.completion_tokens = Some(usage.completion_tokens);
    reply.cached_tokens = usage.prompt_tokens_details.map_or(0, |details| details.cached_tokens);
}

/// What Groundtone says beside its answer.
fn describe(reply: &mut Reply, details: &Value) {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let list = |key: &str| details[key].as_array().map(Vec::as_slice).unwrap_or_default();
    reply.model = details["model"].as_str().map(str::to_owned);
    reply.prompt_fingerprint = details["prompt_fingerprint"].as_str().map(str::to_owned);
    reply.abstained = details["abstained"].as_bool();
    reply.unresolved = list("unresolved_markers").len();
    reply.sources = list("sources")
        .iter()
        .map(|source| Source { document: text(source, "document"), text: format!("{}\n{}", text(source, "title"), text(source, "text")) })
        .collect();
    let supported =
        |citation: &Value| citation["status"].as_str().filter(|status| *status != "unchecked").map(|status| status != "unsupported");
    reply.cited =
        list("citations").iter().map(|citation| Cited { document: text(citation, "document"), supported: supported(citation) }).collect();
}
