//! Rescue: everything of an account's fine-tuning that can be taken along before its models stop answering.

use crate::Global;
use crate::assemble::now;
use crate::output::{json, line, say};
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, NaiveDate};
use groundtone_config::Config;
use groundtone_openai_api::{FineTuningEvent, FineTuningJob};
use groundtone_provider::FineTuningClient;
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Rows of a page, and most pages of anything.
const PAGE: u32 = 100;
const MOST_PAGES: usize = 1_000;
/// Attempts at an answer, and the pauses between them.
const MOST_ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Flags of `groundtone tune import`.
#[derive(clap::Args)]
pub(super) struct Import {
    /// Folder for what is taken along; what is in it already is not fetched again
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Questions whose answers by each fine-tuned model are kept: JSON lines with `messages` or `question`
    #[arg(long, value_name = "FILE")]
    questions: Option<PathBuf>,
    /// Only say what there is
    #[arg(long)]
    inventory: bool,
}

/// A fine-tuned model of the account.
#[derive(Debug, Serialize)]
struct Found {
    model: String,
    base: String,
    job: Option<String>,
    /// When it stops answering: the server's own word, else `tuning.retirements`.
    shutdown_date: Option<String>,
    days_left: Option<i64>,
    /// Whether the server still lists it; a job may name one that is gone.
    listed: bool,
}

pub(super) async fn run(global: &Global, config: &Config, client: &FineTuningClient, import: &Import) -> anyhow::Result<()> {
    let jobs = every_job(client).await?;
    let models = inventory(client, config, &jobs).await?;
    if !global.json {
        models.iter().try_for_each(|found| {
            let left = match found.days_left {
                _ if !found.listed => "is gone".to_owned(),
                Some(days) if days < 0 => "has stopped".to_owned(),
                Some(days) => format!("{days} days left"),
                None => "no end known".to_owned(),
            };
            line(format!("{:<14}  {}  ({})", left, found.model, found.job.as_deref().unwrap_or("no job")))
        })?;
    }
    if import.inventory {
        return if global.json { json(&models) } else { line(format!("{} models, {} jobs", models.len(), jobs.len())) };
    }
    fs::create_dir_all(&import.out).with_context(|| import.out.display().to_string())?;
    write(&import.out.join("inventory.json"), &serde_json::to_vec_pretty(&models)?)?;
    let mut missing = Vec::new();
    for job in &jobs {
        missing.extend(take_along(client, job, &import.out.join("jobs").join(&job.id)).await?);
    }
    let answers = match &import.questions {
        Some(questions) => golden(client, &models, questions, &import.out, &mut missing).await?,
        None => 0,
    };
    let result = json!({"out": import.out, "models": models.len(), "jobs": jobs.len(), "answers": answers, "missing": missing});
    if global.json {
        return json(&result);
    }
    missing.iter().for_each(|what| say(format!("not there any more: {what}")));
    line(format!("{} models, {} jobs, {answers} answers in {}", models.len(), jobs.len(), import.out.display()))
}

async fn every_job(client: &FineTuningClient) -> anyhow::Result<Vec<FineTuningJob>> {
    let mut jobs: Vec<FineTuningJob> = Vec::new();
    for _ in 0..MOST_PAGES {
        let after = jobs.last().map(|job| job.id.clone());
        let page = client.jobs(after.as_deref(), PAGE).await?;
        let is_last = !page.has_more || page.data.is_empty();
        jobs.extend(page.data);
        if is_last {
            return Ok(jobs);
        }
    }
    anyhow::bail!("the list of jobs does not end")
}

async fn every_event(client: &FineTuningClient, job: &str) -> anyhow::Result<Vec<FineTuningEvent>> {
    let mut events: Vec<FineTuningEvent> = Vec::new();
    for _ in 0..MOST_PAGES {
        let after = events.last().map(|event| event.id.clone());
        let page = client.events(job, after.as_deref(), PAGE).await?;
        let is_last = !page.has_more || page.data.is_empty();
        events.extend(page.data);
        if is_last {
            break;
        }
    }
    events.reverse();
    Ok(events)
}

async fn inventory(client: &FineTuningClient, config: &Config, jobs: &[FineTuningJob]) -> anyhow::Result<Vec<Found>> {
    let listed = client.models().await?.data.into_iter().filter(|model| model.id.starts_with("ft:"));
    let mut named: Vec<(String, Option<String>, bool)> = listed.map(|model| (model.id, model.shutdown_date, true)).collect();
    for model in jobs.iter().filter_map(|job| job.fine_tuned_model.as_ref()) {
        if named.iter().all(|(known, ..)| known != model) {
            named.push((model.clone(), None, false));
        }
    }
    let mut found = Vec::new();
    for (model, shutdown_date, listed) in named {
        let job = jobs.iter().find(|job| job.fine_tuned_model.as_ref() == Some(&model));
        let base = job.map_or_else(|| model.split(':').nth(1).unwrap_or_default().to_owned(), |job| job.model.clone());
        let shutdown_date = shutdown_date.or_else(|| config.tuning.retirement(&base).map(str::to_owned));
        let days_left = shutdown_date.as_deref().and_then(|date| days_until(date, now()));
        found.push(Found { model, base, job: job.map(|job| job.id.clone()), shutdown_date, days_left, listed });
    }
    found.sort_by_key(|found| (found.days_left.unwrap_or(i64::MAX), found.model.clone()));
    Ok(found)
}

/// Whole days from a moment to a date (`2027-01-14`); negative behind it.
fn days_until(date: &str, unix_seconds: i64) -> Option<i64> {
    let today = DateTime::from_timestamp(unix_seconds, 0)?.date_naive();
    Some(date.parse::<NaiveDate>().ok()?.signed_duration_since(today).num_days())
}

/// Everything of one job. What the server no longer has is named and left out.
async fn take_along(client: &FineTuningClient, job: &FineTuningJob, folder: &Path) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    write(&folder.join("job.json"), &serde_json::to_vec_pretty(job)?)?;
    let events = folder.join("events.jsonl");
    if !events.exists() {
        let lines: Result<Vec<String>, _> = every_event(client, &job.id).await?.iter().map(serde_json::to_string).collect();
        write(&events, (lines?.join("\n") + "\n").as_bytes())?;
    }
    let mut missing = Vec::new();
    match client.checkpoints(&job.id).await {
        Ok(page) => write(&folder.join("checkpoints.json"), &serde_json::to_vec_pretty(&page.data)?)?,
        Err(error) => missing.push(format!("the checkpoints of {}: {error}", job.id)),
    }
    let mut files = vec![(job.training_file.clone(), "training.jsonl".to_owned())];
    files.extend(job.validation_file.clone().map(|file| (file, "validation.jsonl".to_owned())));
    files.extend(job.result_files.iter().enumerate().map(|(at, file)| (file.clone(), format!("metrics-{at}.csv"))));
    for (id, name) in files {
        let path = folder.join(&name);
        if path.exists() {
            continue;
        }
        match client.content(&id).await {
            Ok(bytes) => write(&path, &if name.starts_with("metrics") { plain(bytes) } else { bytes })?,
            Err(error) => missing.push(format!("{id} ({name} of {}): {error}", job.id)),
        }
    }
    Ok(missing)
}

/// Metrics come as base64.
fn plain(bytes: Vec<u8>) -> Vec<u8> {
    let text: Vec<u8> = bytes.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).unwrap_or(bytes)
}

/// A file is there as a whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("part");
    let all = || -> std::io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    all().with_context(|| path.display().to_string())
}

/// An answer, asked for again where the server is only busy: an account's models stop on a day, and a night of questions must not end with the first 429.
async fn answer(client: &FineTuningClient, body: &Value) -> Result<Value, groundtone_provider::Error> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..MOST_ATTEMPTS {
        match client.chat(body).await {
            Err(error) if error.is_passing() => tokio::time::sleep(error.retry_after().unwrap_or(pause).min(LONGEST_PAUSE)).await,
            other => return other,
        }
        pause *= 2;
    }
    client.chat(body).await
}

/// What each model answers to each question, at temperature 0, as long as it still does. A replacement is measured by it. What a model does not answer is named in `missing`; the
/// same command asks for it again.
async fn golden(
    client: &FineTuningClient,
    models: &[Found],
    questions: &Path,
    out: &Path,
    missing: &mut Vec<String>,
) -> anyhow::Result<usize> {
    let text = fs::read_to_string(questions).with_context(|| questions.display().to_string())?;
    let path = out.join("golden.jsonl");
    let known = fs::read_to_string(&path).unwrap_or_default();
    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
    let mut kept = known.lines().count();
    for found in models.iter().filter(|found| found.listed && found.days_left.is_none_or(|days| days >= 0)) {
        for (at, row) in text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()) {
            let name = format!("{}#{}", found.model, at + 1);
            if known.contains(&json!(name).to_string()) {
                continue;
            }
            let messages = messages(row).with_context(|| format!("{}:{}", questions.display(), at + 1))?;
            let answer = match answer(client, &json!({"model": found.model, "messages": messages, "temperature": 0})).await {
                Ok(answer) => answer,
                Err(error) => {
                    missing.push(format!("the answer of {} to question {}: {error}", found.model, at + 1));
                    continue;
                }
            };
            let record =
                json!({"id": name, "model": found.model, "messages": messages, "answer": answer["choices"][0]["message"], "at": now()});
            writeln!(file, "{record}").with_context(|| path.display().to_string())?;
            kept += 1;
        }
    }
    file.sync_all().with_context(|| path.display().to_string())?;
    Ok(kept)
}

/// The messages of a question. An answer that stands at their end is what the model is asked for.
fn messages(row: &str) -> anyhow::Result<Value> {
    let row: Value = serde_json::from_str(row)?;
    if let Some(question) = row["question"].as_str() {
        return Ok(json!([{"role": "user", "content": question}]));
    }
    let mut messages = row["messages"].as_array().cloned().context("neither `messages` nor `question`")?;
    if messages.last().is_some_and(|last| last["role"] == "assistant") {
        messages.pop();
    }
    Ok(Value::Array(messages))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_counted_to_the_date() {
        // 2026-11-27 23:59:59 UTC.
        let now = 1_795_823_999;
        assert_eq!(days_until("2027-01-14", now), Some(48));
        assert_eq!(days_until("2026-11-26", now), Some(-1));
        assert_eq!(days_until("soon", now), None);
    }

    #[test]
    fn metrics_are_read_as_they_come() {
        assert_eq!(plain(b"c3RlcCx0cmFpbl9sb3Nz\n".to_vec()), b"step,train_loss");
        assert_eq!(plain(b"step,train_loss\n1,2.0\n".to_vec()), b"step,train_loss\n1,2.0\n");
    }

    #[test]
    fn the_answer_is_not_part_of_the_question() {
        let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
        assert_eq!(messages(row).ok(), Some(json!([{"role": "user", "content": "a"}])));
        assert_eq!(messages(r#"{"question": "a"}"#).ok(), Some(json!([{"role": "user", "content": "a"}])));
        assert!(messages("{}").is_err());
    }
}
