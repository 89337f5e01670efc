use crate::parse::{ending_of, parser_for};
use secrecy::SecretString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// File endings in lower case, without the dot.
#[derive(Debug, Clone, Default)]
pub struct Endings(Arc<[String]>);

impl Endings {
    /// These endings, beside those of our own parsers.
    pub fn new(endings: impl IntoIterator<Item = String>) -> Self {
        Self(endings.into_iter().collect())
    }

    /// The endings beside those of our own parsers.
    pub(super) fn others(&self) -> &[String] {
        &self.0
    }

    /// Whether a file's ending is one that is read.
    pub(super) fn reads(&self, path: &Path) -> bool {
        parser_for(path).is_some() || ending_of(path).is_some_and(|ending| self.0.contains(&ending))
    }
}

/// What sources are told; the keys of `[sources]` in the configuration, with secrets already looked up.
#[derive(Debug, Clone)]
pub struct SourceSettings {
    /// Endings that are read beside those of our own parsers: an extractor's server takes them.
    pub extra_endings: Endings,
    /// Larger files of text, Markdown and CSV are read in parts; 0 reads every file whole.
    pub split_above_bytes: u64,
    /// Hosts that web sources may reach on a private network.
    pub allow_private_hosts: Vec<String>,
    /// Most pages of one sitemap source.
    pub web_max_pages: usize,
    /// Longest time for one page.
    pub web_timeout: Duration,
    /// Who is asking.
    pub web_user_agent: String,
    /// Base URL of an S3-compatible server; empty means AWS.
    pub s3_endpoint: String,
    /// Region that requests are signed for.
    pub s3_region: String,
    /// Access key; without one requests are not signed.
    pub s3_access_key: Option<SecretString>,
    /// The secret that goes with it.
    pub s3_secret_key: Option<SecretString>,
    /// Whether the endpoint may be `http://`.
    pub s3_allow_http: bool,
    /// Longest line of a file of records.
    pub record_max_bytes: usize,
    /// A change is reported when nothing more has changed for this long.
    pub watch_debounce: Duration,
    /// A followed source is looked through this often even if nobody says that it changed.
    pub watch_rescan: Duration,
}

impl Default for SourceSettings {
    /// The configuration's defaults.
    fn default() -> Self {
        Self {
            extra_endings: Endings::default(),
            split_above_bytes: 8_000_000,
            allow_private_hosts: Vec::new(),
            web_max_pages: 10_000,
            web_timeout: Duration::from_secs(30),
            web_user_agent: "groundtone".to_owned(),
            s3_endpoint: String::new(),
            s3_region: "us-east-1".to_owned(),
            s3_access_key: None,
            s3_secret_key: None,
            s3_allow_http: false,
            record_max_bytes: 4 << 20,
            watch_debounce: Duration::from_millis(500),
            watch_rescan: Duration::from_secs(300),
        }
    }
}
