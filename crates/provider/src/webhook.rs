//! Messages that are signed as Standard Webhooks has it (version 1: HMAC-SHA256).

use crate::{Endpoint, Error};
use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

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

/// A receiver and the secret that it knows.
#[derive(Debug)]
pub struct SignedWebhook {
    endpoint: Endpoint,
    secret: SecretString,
}

impl SignedWebhook {
    /// Messages go to `url` itself; `wait` bounds the connection and the answer each.
    ///
    /// # Errors
    /// The HTTP client cannot be made.
    pub fn new(url: &str, secret: SecretString, wait: Duration) -> Result<Self, Error> {
        Ok(Self { endpoint: Endpoint::new(url, None, wait, wait, wait)?, secret })
    }
}

#[async_trait]
impl SendWebhook for SignedWebhook {
    async fn send(&self, message: &WebhookMessage) -> Result<(), String> {
        let request = self
            .endpoint
            .request(reqwest::Method::POST, "")
            .header("content-type", "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", message.timestamp.to_string())
            .header("webhook-signature", sign(self.secret.expose_secret(), message))
            .body(message.body.clone());
        // The answer's body is not read.
        self.endpoint.send(request).await.map(drop).map_err(|error| error.to_string())
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
