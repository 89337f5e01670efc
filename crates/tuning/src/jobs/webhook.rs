//! Telling a client that a job is over.

use super::service::Jobs;
use groundtone_catalog::{JobRecord, JobStatus};
use groundtone_openai_api::{WebhookEvent, WebhookSubject};
use groundtone_provider::WebhookMessage;
use groundtone_types::Tenant;

/// Failed attempts after which a message is given up.
const MOST_ATTEMPTS: u32 = 10;
/// The first pause; each one is twice as long as the one before.
const FIRST_PAUSE_SECONDS: i64 = 5;

fn message(job: &JobRecord, id: &str, now: i64) -> Option<WebhookMessage> {
    let kind = match job.status {
        JobStatus::Succeeded => "fine_tuning.job.succeeded",
        JobStatus::Failed => "fine_tuning.job.failed",
        JobStatus::Cancelled => "fine_tuning.job.cancelled",
        _ => return None,
    };
    let event = WebhookEvent {
        id: id.to_owned(),
        object: "event".to_owned(),
        kind: kind.to_owned(),
        created_at: job.finished_at.unwrap_or(now),
        data: WebhookSubject { id: job.id.clone() },
    };
    Some(WebhookMessage { id: id.to_owned(), timestamp: now, body: serde_json::to_string(&event).ok()? })
}

impl Jobs {
    /// Sends what is due. Messages are part of their job's record: a restart does not lose them, and may send one again.
    pub(super) async fn send_webhooks(&self) -> Result<(), groundtone_catalog::Error> {
        let Some(webhook) = &self.parts.webhook else { return Ok(()) };
        let now = self.now();
        for (tenant, job) in self.parts.catalog.jobs_with_webhooks().await? {
            let Some(pending) = job.webhook.clone().filter(|pending| pending.next_at <= now) else { continue };
            let Some(message) = message(&job, &pending.id, now) else { continue };
            let sent = webhook.send(&message).await;
            self.note_webhook(&tenant, &job.id, sent, now).await?;
        }
        Ok(())
    }

    async fn note_webhook(&self, tenant: &Tenant, id: &str, sent: Result<(), String>, now: i64) -> Result<(), groundtone_catalog::Error> {
        let _turn = self.turn.lock().await;
        let Some(mut job) = self.parts.catalog.job(tenant, id).await? else { return Ok(()) };
        let mut events = Vec::new();
        match (sent, &mut job.webhook) {
            (Err(reason), Some(pending)) if pending.attempts + 1 < MOST_ATTEMPTS => {
                tracing::warn!(job = id, attempt = pending.attempts + 1, reason, "a webhook was not taken");
                pending.next_at = now + (FIRST_PAUSE_SECONDS << pending.attempts.min(MOST_ATTEMPTS));
                pending.attempts += 1;
            }
            (Err(reason), _) => {
                let mut event = self.said(format!("The webhook was not taken in {MOST_ATTEMPTS} attempts: {reason}"));
                event.level = "warn";
                events.push(event);
                job.webhook = None;
            }
            (Ok(()), _) => job.webhook = None,
        }
        let status = job.status;
        self.parts.catalog.update_job(tenant, &job, status, &events).await?;
        Ok(())
    }
}
