//! What shadows answer, a line of JSON each, in `shadow.jsonl` of the data directory; without personal data and secrets, like a trace.

use groundtone_answer::{ShadowAnswer, ShadowSink};
use groundtone_telemetry::Redactor;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tracing::warn;

/// Records that may wait to be written; one more is dropped.
const WAITING: usize = 64;
/// The file is not written beyond this.
const MOST_BYTES: u64 = 256 << 20;

/// Where shadows' answers go. The records are written one after the other, beside everything else.
pub(crate) fn sink(path: PathBuf, redactor: Redactor, now: fn() -> i64) -> ShadowSink {
    let (sender, mut waiting) = mpsc::channel::<ShadowAnswer>(WAITING);
    tokio::spawn(async move {
        while let Some(answer) = waiting.recv().await {
            if let Err(error) = append(&path, &record(&answer, &redactor, now())).await {
                warn!(%error, path = %path.display(), "what a shadow answered could not be written");
            }
        }
    });
    Arc::new(move |answer| {
        if sender.try_send(answer).is_err() {
            warn!("what a shadow answered was dropped: the file is slower than the answers");
        }
    })
}

async fn append(path: &PathBuf, record: &Value) -> std::io::Result<()> {
    let mut file = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await?;
    if file.metadata().await?.len() > MOST_BYTES {
        return Err(std::io::Error::other("it is full; move it away"));
    }
    file.write_all(format!("{record}\n").as_bytes()).await?;
    file.flush().await
}

fn record(shadow: &ShadowAnswer, redactor: &Redactor, at: i64) -> Value {
    let ShadowAnswer { tenant, question, primary, variant, answer } = shadow;
    let mut record = json!({"at": at, "tenant": tenant, "question": redactor.redact(question), "primary": primary, "variant": variant});
    match answer {
        Ok(answer) => {
            let summary = &answer.summary;
            record["answer"] = json!(redactor.redact(&answer.text));
            record["model"] = json!(summary.model);
            record["abstained"] = json!(summary.abstained);
            record["citations"] = json!(summary.citations);
            record["usage"] = json!(summary.usage);
            record["timings"] = json!(summary.timings);
        }
        Err(error) => record["error"] = json!(redactor.redact(&error.to_string())),
    }
    record
}
