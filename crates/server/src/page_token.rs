//! Tokens for web pages: short-lived, bound to the page's origin, signed with a key that lives as long as the process.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};

const PREFIX: &str = "gtp-";

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    /// Id of the key that made it.
    #[serde(rename = "k")]
    pub(crate) key: String,
    /// The one origin whose pages may use it.
    #[serde(rename = "o")]
    pub(crate) origin: String,
    /// Unix seconds from which on it is refused.
    #[serde(rename = "e")]
    pub(crate) expires_at: i64,
}

/// Signs tokens with HMAC-SHA-256 and reads them back.
#[derive(Debug)]
pub struct PageTokens {
    key: hmac::Key,
}

impl PageTokens {
    /// With a new random key: tokens of an earlier process are refused.
    pub fn new() -> Result<Self, crate::keyring::NoRandomness> {
        let mut secret = [0; 32];
        crate::keyring::random(&mut secret)?;
        Ok(Self { key: hmac::Key::new(hmac::HMAC_SHA256, &secret) })
    }

    pub(crate) fn is_one(sent: &str) -> bool {
        sent.starts_with(PREFIX)
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, serde_json::Error> {
        let claims = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims)?);
        let signature = hmac::sign(&self.key, claims.as_bytes());
        Ok(format!("{PREFIX}{claims}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that we signed, for a page of this origin, at this time.
    pub(crate) fn read(&self, sent: &str, origin: Option<&str>, now: i64) -> Option<Claims> {
        let (claims, signature) = sent.strip_prefix(PREFIX)?.split_once('.')?;
        // `ring` compares in constant time.
        hmac::verify(&self.key, claims.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        (now < claims.expires_at && origin == Some(claims.origin.as_str())).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_origin_and_its_time_and_cannot_be_changed() {
        let tokens = PageTokens::new().unwrap();
        let claims = Claims { key: "k".into(), origin: "https://shop.example".into(), expires_at: 100 };
        let token = tokens.sign(&claims).unwrap();
        let read = |sent: &str, origin: Option<&str>, now: i64| tokens.read(sent, origin, now);
        assert_eq!(read(&token, Some("https://shop.example"), 99), Some(claims.clone()));
        assert_eq!(read(&token, Some("https://shop.example"), 100), None);
        assert_eq!(read(&token, Some("https://evil.example"), 99), None);
        assert_eq!(read(&token, None, 99), None, "a request without an origin comes from no page");
        for at in PREFIX.len()..token.len() {
            let mut other = token.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            // The last character of the signature has bits that mean nothing.
            let changed = tokens.read(std::str::from_utf8(&other).unwrap(), Some("https://shop.example"), 99);
            assert!(changed.is_none() || at == token.len() - 1, "at {at}");
        }
        let forged = PageTokens::new().unwrap().sign(&claims).unwrap();
        assert_eq!(read(&forged, Some("https://shop.example"), 99), None, "another process's key");
    }
}
