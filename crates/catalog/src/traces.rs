//! A trace of every answer, and what people thought of it.

use crate::{Catalog, Error};
use groundtone_types::{Tenant, TokenUsage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row};

/// How an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// A whole answer.
    Answered,
    /// A whole answer that says that it knows none.
    Abstained,
    /// An error.
    Failed,
    /// The client left before the end.
    Cancelled,
}

impl Outcome {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Abstained => "abstained",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What somebody thought of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thumb {
    /// Good.
    Up,
    /// Bad.
    Down,
}

impl Thumb {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A snippet that was in the prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TracedSnippet {
    /// Its number in the prompt.
    pub number: usize,
    /// The point that was found.
    pub point: String,
    /// The document.
    pub document: String,
    /// Title and headings.
    pub title: String,
    /// Where a reader finds it.
    pub url: String,
    /// What ranked it; compares within one answer only.
    pub score: f32,
    /// What the model read.
    pub text: String,
}

/// Feedback on an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feedback {
    /// Good or bad.
    pub thumb: Thumb,
    /// In the customer's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What the answer should have been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<String>,
    /// Unix seconds.
    pub at: i64,
}

/// Everything that is kept of one answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TraceRecord {
    /// `tr_` and a UUIDv7, so ids ascend in time.
    pub id: String,
    /// Unix seconds of the question.
    pub at: i64,
    /// The key that asked; `None` where the server has no keys.
    pub key: Option<String>,
    /// The request's `x-request-id`.
    pub request_id: Option<String>,
    /// How the assistant answered: which of its variants.
    pub variant: String,
    /// The release that it answered for; `None` for a pinned variant, and before anything was released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The model that wrote.
    pub model: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The error, where it ended with one.
    pub error: Option<String>,
    /// What the client asked.
    pub question: String,
    /// What was searched for.
    pub query: String,
    /// What it was told; the part that was written where the client left.
    pub answer: String,
    /// The whole conversation, as `role` and `content`.
    pub messages: Value,
    /// How the model was to write.
    pub sampling: Value,
    /// What was in the prompt, by number.
    pub snippets: Vec<TracedSnippet>,
    /// The citations with their status.
    pub citations: Value,
    /// Which prompt contract rendered it.
    pub prompt_fingerprint: String,
    /// Tokens; `None` where the model server did not say.
    pub usage: Option<TokenUsage>,
    /// What it cost, in the currency of the prices.
    pub money: f64,
    /// Where the time went, in milliseconds.
    pub timings: Value,
    /// What somebody thought of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<Feedback>,
}

impl TraceRecord {
    /// Everything that people wrote, changed by `redact`. Names of documents and models stay.
    pub fn redact(&mut self, redact: impl Fn(&str) -> String) {
        for text in [&mut self.question, &mut self.query, &mut self.answer].into_iter().chain(&mut self.error) {
            *text = redact(text);
        }
        for snippet in &mut self.snippets {
            for text in [&mut snippet.text, &mut snippet.title, &mut snippet.url] {
                *text = redact(text);
            }
        }
        for value in [&mut self.messages, &mut self.citations, &mut self.sampling] {
            redact_value(value, &redact);
        }
        if let Some(feedback) = &mut self.feedback {
            feedback.text.iter_mut().chain(&mut feedback.correction).for_each(|text| *text = redact(text));
        }
    }
}

fn redact_value(value: &mut Value, redact: &impl Fn(&str) -> String) {
    match value {
        Value::String(text) => *text = redact(text),
        Value::Array(items) => items.iter_mut().for_each(|item| redact_value(item, redact)),
        Value::Object(fields) => fields.values_mut().for_each(|field| redact_value(field, redact)),
        _ => {}
    }
}

/// Which traces are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceFilter {
    /// With this feedback.
    pub thumb: Option<Thumb>,
    /// With this end.
    pub outcome: Option<Outcome>,
    /// Of this variant.
    pub variant: Option<String>,
    /// Older than this one.
    pub before: Option<String>,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Days.
    pub days: u32,
    /// Traces of each tenant.
    pub count: u32,
}

/// Traces of one statement: the database takes 32,766 values.
const ROWS: usize = 512;
const COLUMNS: &str = "t.record AS record, f.thumb AS thumb, f.text AS text, f.correction AS correction, f.at AS feedback_at";
const JOINED: &str = "FROM traces t LEFT JOIN feedback f ON f.tenant = t.tenant AND f.trace = t.id";

impl Catalog {
    /// Keeps traces, all or none of them.
    pub async fn put_traces(&self, traces: &[(Tenant, TraceRecord)]) -> Result<(), Error> {
        let records =
            traces.iter().map(|(_, trace)| serde_json::to_string(trace)).collect::<Result<Vec<_>, _>>().map_err(|e| self.broken(&e))?;
        let rows: Vec<_> = traces.iter().zip(records).collect();
        let mut transaction = self.pool.begin().await.map_err(|e| self.failed(e))?;
        for rows in rows.chunks(ROWS) {
            let mut insert = QueryBuilder::new("INSERT OR REPLACE INTO traces (tenant, id, at, variant, outcome, record) ");
            insert.push_values(rows, |mut row, ((tenant, trace), record)| {
                row.push_bind(tenant.as_str())
                    .push_bind(&trace.id)
                    .push_bind(trace.at)
                    .push_bind(&trace.variant)
                    .push_bind(trace.outcome.as_str())
                    .push_bind(record);
            });
            // Hardly two batches are of one length: such a statement is not worth keeping.
            insert.build().persistent(false).execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))
    }

    /// One trace with its feedback.
    pub async fn trace(&self, tenant: &Tenant, id: &str) -> Result<Option<TraceRecord>, Error> {
        let query = format!("SELECT {COLUMNS} {JOINED} WHERE t.tenant = ? AND t.id = ?");
        let query = sqlx::query(sqlx::AssertSqlSafe(query)).bind(tenant.as_str()).bind(id);
        query.fetch_optional(&self.pool).await.map_err(|e| self.failed(e))?.map(|row| self.trace_of(&row)).transpose()
    }

    /// The traces that a filter admits, newest first.
    pub async fn traces(&self, tenant: &Tenant, filter: &TraceFilter, limit: u32) -> Result<Vec<TraceRecord>, Error> {
        let query = format!(
            "SELECT {COLUMNS} {JOINED} WHERE t.tenant = ?1 AND (?2 IS NULL OR f.thumb = ?2) AND (?3 IS NULL OR t.outcome = ?3)
                AND (?4 IS NULL OR t.variant = ?4) AND (?5 IS NULL OR t.id < ?5) ORDER BY t.id DESC LIMIT ?6"
        );
        let query = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(tenant.as_str())
            .bind(filter.thumb.map(Thumb::as_str))
            .bind(filter.outcome.map(Outcome::as_str))
            .bind(&filter.variant)
            .bind(&filter.before)
            .bind(limit);
        query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?.iter().map(|row| self.trace_of(row)).collect()
    }

    /// Keeps feedback on a trace in place of what was there; false where the tenant has no such trace.
    pub async fn put_feedback(&self, tenant: &Tenant, trace: &str, feedback: &Feedback) -> Result<bool, Error> {
        let query = "INSERT OR REPLACE INTO feedback (tenant, trace, thumb, text, correction, at)
            SELECT tenant, id, ?3, ?4, ?5, ?6 FROM traces WHERE tenant = ?1 AND id = ?2";
        let done = sqlx::query(query)
            .bind(tenant.as_str())
            .bind(trace)
            .bind(feedback.thumb.as_str())
            .bind(&feedback.text)
            .bind(&feedback.correction)
            .bind(feedback.at)
            .execute(&self.pool)
            .await;
        done.map(|done| done.rows_affected() > 0).map_err(|e| self.failed(e))
    }

    /// Forgets what is older or more than may be kept, with its feedback. Gives how many traces went.
    pub async fn forget_traces(&self, keep: Retention, now: i64) -> Result<u64, Error> {
        let mut transaction = self.pool.begin().await.map_err(|e| self.failed(e))?;
        let oldest = now - i64::from(keep.days) * 86_400;
        let old = sqlx::query("DELETE FROM traces WHERE at < ?").bind(oldest);
        let old = old.execute(&mut *transaction).await.map_err(|e| self.failed(e))?.rows_affected();
        let many = "DELETE FROM traces WHERE (tenant, id) IN
            (SELECT tenant, id FROM (SELECT tenant, id, row_number() OVER (PARTITION BY tenant ORDER BY id DESC) AS place FROM traces) WHERE place > ?)";
        let many = sqlx::query(many).bind(keep.count).execute(&mut *transaction).await.map_err(|e| self.failed(e))?.rows_affected();
        let orphans = "DELETE FROM feedback WHERE NOT EXISTS (SELECT 1 FROM traces WHERE traces.tenant = feedback.tenant AND traces.id = feedback.trace)";
        if old + many > 0 {
            sqlx::query(orphans).execute(&mut *transaction).await.map_err(|e| self.failed(e))?;
        }
        transaction.commit().await.map_err(|e| self.failed(e))?;
        Ok(old + many)
    }

    fn trace_of(&self, row: &SqliteRow) -> Result<TraceRecord, Error> {
        let text = |column: &str| row.try_get::<Option<String>, _>(column).map_err(|e| self.failed(e));
        let mut trace: TraceRecord = serde_json::from_str(&text("record")?.unwrap_or_default()).map_err(|e| self.broken(&e))?;
        if let Some(thumb) = text("thumb")? {
            trace.feedback = Some(Feedback {
                thumb: serde_json::from_value(Value::String(thumb)).map_err(|e| self.broken(&e))?,
                text: text("text")?,
                correction: text("correction")?,
                at: row.try_get("feedback_at").map_err(|e| self.failed(e))?,
            });
        }
        Ok(trace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DataDirectory;
    use serde_json::json;

    fn trace(id: &str, outcome: Outcome, at: i64) -> TraceRecord {
        TraceRecord {
            id: id.to_owned(),
            at,
            key: None,
            request_id: None,
            variant: "rag".to_owned(),
            release: None,
            model: "m".to_owned(),
            outcome,
            error: None,
            question: format!("question {id}"),
            query: String::new(),
            answer: format!("answer {id}"),
            messages: json!([{"role": "user", "content": "ann@example.org"}]),
            sampling: json!({}),
            snippets: Vec::new(),
            citations: json!([]),
            prompt_fingerprint: String::new(),
            usage: None,
            money: 0.0,
            timings: json!({}),
            feedback: None,
        }
    }

    #[tokio::test]
    async fn traces_are_found_by_what_people_said_and_by_how_they_ended() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&DataDirectory::open(folder.path(), "test").unwrap()).await.unwrap();
        let (mine, theirs) = (Tenant::default(), Tenant::new("theirs").unwrap());
        let kept = [
            (mine.clone(), trace("1", Outcome::Answered, 10)),
            (mine.clone(), trace("2", Outcome::Abstained, 20)),
            (mine.clone(), trace("3", Outcome::Failed, 30)),
            (theirs.clone(), trace("4", Outcome::Answered, 40)),
        ];
        catalog.put_traces(&kept).await.unwrap();
        let feedback = Feedback { thumb: Thumb::Down, text: Some("no".into()), correction: Some("better".into()), at: 50 };
        assert!(catalog.put_feedback(&mine, "1", &feedback).await.unwrap());
        assert!(!catalog.put_feedback(&theirs, "1", &feedback).await.unwrap(), "another tenant's trace is not there");
        let found = async |filter: TraceFilter| {
            catalog.traces(&mine, &filter, 10).await.unwrap().into_iter().map(|trace| trace.id).collect::<Vec<_>>()
        };
        assert_eq!(found(TraceFilter::default()).await, ["3", "2", "1"]);
        assert_eq!(found(TraceFilter { before: Some("3".into()), ..TraceFilter::default() }).await, ["2", "1"]);
        assert_eq!(found(TraceFilter { thumb: Some(Thumb::Down), ..TraceFilter::default() }).await, ["1"]);
        assert_eq!(found(TraceFilter { thumb: Some(Thumb::Up), ..TraceFilter::default() }).await, [""; 0]);
        assert_eq!(found(TraceFilter { outcome: Some(Outcome::Abstained), ..TraceFilter::default() }).await, ["2"]);
        assert_eq!(found(TraceFilter { variant: Some("tuned".into()), ..TraceFilter::default() }).await, [""; 0]);
        assert_eq!(catalog.trace(&mine, "1").await.unwrap().unwrap().feedback, Some(feedback));
        assert_eq!(catalog.trace(&mine, "4").await.unwrap(), None);
        // By age, then by number; feedback goes with its trace.
        assert_eq!(catalog.forget_traces(Retention { days: 1, count: 10 }, 86_400 + 15).await.unwrap(), 1);
        assert_eq!(catalog.forget_traces(Retention { days: 1, count: 1 }, 86_400).await.unwrap(), 1);
        assert_eq!(found(TraceFilter::default()).await, ["3"]);
        assert_eq!(catalog.traces(&theirs, &TraceFilter::default(), 10).await.unwrap().len(), 1, "each tenant has its own number");
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM feedback").fetch_one(&catalog.pool).await.unwrap();
        assert_eq!(left, 0);
    }

    #[test]
    fn everything_that_people_wrote_is_redacted() {
        let mut trace = trace("1", Outcome::Answered, 1);
        trace.question = "ann@example.org?".into();
        trace.feedback = Some(Feedback { thumb: Thumb::Up, text: None, correction: Some("To ann@example.org".into()), at: 2 });
        trace.redact(|text| text.replace("ann@example.org", "[email]"));
        assert_eq!((trace.question.as_str(), &trace.messages[0]["content"]), ("[email]?", &json!("[email]")));
        assert_eq!(trace.feedback.unwrap().correction.unwrap(), "To [email]");
    }
}
