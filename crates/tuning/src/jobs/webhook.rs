//! Telling a client that a job is over, signed as Standard Webhooks has it (version 1: HMAC-SHA256).

use super::service::Jobs;
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use groundtone_catalog::{JobRecord, JobStatus};
use groundtone_openai_api::{WebhookEvent, WebhookSubject};
use groundtone_types::Tenant;

/// Failed attempts after which a message is given up.
const MOST_ATTEMPTS: u32 = 10;
/// The first pause; each one is twice as long as the one before.
const FIRST_PAUSE_SECONDS: i64 = 5;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookMessage {
    /// `webhook-id`: the same at every attempt, so that a receiver can drop what it has seen.
    pub id: String,
    /// `webhook-timestamp`: Unix seconds of this attempt.
    pub timestamp: i64,
    /// JSON.
    pub body: String,
}

/// Signs and sends messages.
#[async_trait]
pub trait SendWebhook: Send + Sync {
    /// Sends one. Anything but a status of 2xx is an error, told in a sentence.
    ///
    /// # Errors
    /// It did not arrive.
    async fn send(&self, message: &WebhookMessage) -> Result<(), String>;
}

/// `webhook-signature` of a message: `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body`. A secret that begins with `whsec_` is base64 behind it; another is taken as it is.
pub fn sign(secret: &str, message: &WebhookMessage) -> String {
    let key = secret.strip_prefix("whsec_").and_then(|coded| STANDARD.decode(coded).ok()).unwrap_or_else(|| secret.as_bytes().to_vec());
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    let text = format!("{}.{}.{}", message.id, message.timestamp, message.body);
    format!("v1,{}", STANDARD.encode(ring::hmac::sign(&key, text.as_bytes())))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_the_standard() {
        // The test vector of the Standard Webhooks specification's reference libraries.
        let message =
            WebhookMessage { id: "msg_p5jXN8AQM9LWM0D4loKWxJek".into(), timestamp: 1_614_265_330, body: "{\"test\": 2432232314}".into() };
        assert_eq!(sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &message), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
