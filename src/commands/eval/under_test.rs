//! The Groundtone that is asked: one that runs, or one that this command starts on the data directory for as long as it asks.

use crate::assemble::{Library, needed_models, now, running_server};
use crate::commands::models::pull;
use crate::commands::serve::serve;
use crate::commands::traces::EVALUATION;
use crate::output::hint;
use anyhow::Context;
use groundtone_catalog::{Catalog, EvaluationRecord};
use groundtone_config::Config;
use groundtone_openai_api::ModelList;
use groundtone_provider::{Endpoint, get_json, post_json};
use groundtone_types::Tenant;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Documents that are read at once for the fingerprint.
const PAGE: u32 = 1_000;

/// Where questions go.
pub(super) struct UnderTest {
    pub(super) endpoint: Endpoint,
    /// Everything that its answers depend on; `None` where a server that runs elsewhere does not tell.
    pub(super) state: Option<String>,
    /// What it offers.
    pub(super) models: Vec<String>,
    own: Option<Own>,
}

/// A server in this process.
struct Own {
    task: JoinHandle<anyhow::Result<()>>,
    catalog: Arc<Catalog>,
    tenant: Tenant,
}

impl UnderTest {
    /// The server at `url`, else the one that holds the data directory, else one of our own.
    pub(super) async fn find(config: &Config, url: Option<&str>) -> anyhow::Result<Self> {
        let endpoint = match url {
            Some(url) => {
                let url = url.trim_end_matches('/').trim_end_matches("/v1");
                let key = groundtone_config::secret("server.api_key_env", &config.server.api_key_env)?;
                let limit = Duration::from_secs(config.server.request_timeout_seconds);
                Some(Endpoint::new(&format!("{url}/v1"), key, Duration::from_secs(5), limit, limit)?)
            }
            None => running_server(config)?.map(|server| server.endpoint),
        };
        match endpoint {
            Some(endpoint) => {
                let endpoint = marked(endpoint);
                let models = models(&endpoint).await?;
                Ok(Self { endpoint, state: None, models, own: None })
            }
            None => Self::start(config).await,
        }
    }

    async fn start(config: &Config) -> anyhow::Result<Self> {
        pull(config, &needed_models(config)).await?;
        let library = Library::open(config, "groundtone eval").await?;
        let state = state(config, &library).await?;
        let (catalog, tenant) = (library.catalog.clone(), library.tenant.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the server under test")?;
        // Nobody else on this machine may ask it.
        let key = uuid::Uuid::new_v4().simple().to_string();
        let mut config = config.clone();
        // Its questions are no customers': nobody is called to them, and they say nothing about a canary.
        config.handoff.webhook_url.clear();
        config.release.canary_watch = false;
        config.server.api_key_sha256 = vec![hex::encode(Sha256::digest(key.as_bytes()))];
        let limit = Duration::from_secs(config.server.request_timeout_seconds);
        let (said, heard) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            serve(&config, library, listener, move |address| {
                drop(said.send(address.to_owned()));
                Ok(())
            })
            .await
        });
        let address = match heard.await {
            Ok(address) => address,
            Err(_) => {
                task.await.context("the server under test")??;
                anyhow::bail!("the server under test stopped before it began");
            }
        };
        let endpoint = marked(Endpoint::new(&format!("{address}/v1"), Some(key.into()), Duration::from_secs(5), limit, limit)?);
        let models = models(&endpoint).await?;
        let state = format!("{state} {}", models.join(" "));
        Ok(Self { endpoint, state: Some(state), models, own: Some(Own { task, catalog, tenant }) })
    }

    /// Waits for `work`, but no longer than the server lives: Ctrl-C stops it, and what was answered is in the journal.
    pub(super) async fn during<T>(&mut self, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        let Some(own) = &mut self.own else { return work.await };
        tokio::select! {
            done = work => done,
            ended = &mut own.task => {
                ended.context("the server under test")??;
                Err(hint("the run was stopped", "run the same command again: it goes on where it was"))
            }
        }
    }

    /// Keeps an evaluation in the catalog of the server.
    pub(super) async fn store(&self, record: &EvaluationRecord) -> anyhow::Result<()> {
        match &self.own {
            Some(own) => Ok(own.catalog.put_evaluation(&own.tenant, record).await?),
            None => {
                let stored: Result<serde_json::Value, _> = post_json(&self.endpoint, "/groundtone/evaluations", record).await;
                stored.map(drop).map_err(|error| hint(error, "the report is written; only the server's catalog does not have it"))
            }
        }
    }

    /// Stops a server of our own.
    pub(super) async fn stop(self) {
        if let Some(own) = self.own {
            own.task.abort();
            drop(own.task.await);
        }
    }
}

/// Requests of an evaluation say so in their ids, and so do their traces.
fn marked(endpoint: Endpoint) -> Endpoint {
    endpoint.with_header("x-request-id", format!("{EVALUATION}{}", uuid::Uuid::now_v7().simple()).into())
}

async fn models(endpoint: &Endpoint) -> anyhow::Result<Vec<String>> {
    let explain = |error: groundtone_provider::Error| hint(error, "if the server wants a key, name its variable in `server.api_key_env`");
    let list: ModelList = get_json(endpoint, "/models").await.map_err(explain)?;
    Ok(list.data.into_iter().map(|model| model.id).collect())
}

/// A hash of the settings that answers depend on, and of every document that is indexed.
async fn state(config: &Config, library: &Library) -> anyhow::Result<String> {
    let mut settings = serde_json::to_value(config)?;
    for part in ["data", "server", "log", "files", "sources", "handoff"] {
        settings[part] = serde_json::Value::Null;
    }
    let mut digest = Sha256::new();
    digest.update(settings.to_string());
    digest.update(env!("CARGO_PKG_VERSION"));
    let name = &config.assistant.collection;
    let live = library.index.resolve(name).await?.unwrap_or_else(|| name.clone());
    digest.update(live.as_str());
    let mut last = None;
    loop {
        let page = library.catalog.documents(&library.tenant, &live, last.as_ref(), PAGE).await?;
        let Some(end) = page.last() else { break };
        for document in &page {
            digest.update(document.id.as_str());
            digest.update(document.content_hash.as_str());
            digest.update(&document.settings_fingerprint);
        }
        last = Some(end.id.clone());
    }
    Ok(hex::encode(digest.finalize()))
}

/// A record of a report, for the catalog.
pub(super) fn record(report: &groundtone_evals::decide::DecisionReport, name: &str) -> anyhow::Result<EvaluationRecord> {
    let arm = |passing: &groundtone_evals::decide::Passing| {
        let arm = report.arm(&passing.arm);
        groundtone_catalog::EvaluatedArm {
            name: passing.arm.clone(),
            model: arm.map(|arm| arm.model.clone()).unwrap_or_default(),
            answered_by: arm.and_then(|arm| arm.answered_by.clone()),
            prompt_fingerprint: arm.and_then(|arm| arm.prompt_fingerprint.clone()),
            passed: passing.passed,
            reason: passing.reason.clone(),
        }
    };
    Ok(EvaluationRecord {
        id: report.id.clone(),
        name: name.to_owned(),
        set_sha256: report.set.sha256.clone(),
        cases: report.set.rows as u64,
        decision: report.verdict.decision.as_str().to_owned(),
        reason: report.verdict.reason.clone(),
        arms: report.verdict.passing.iter().map(arm).collect(),
        report: serde_json::to_string(report)?,
        created_at: now(),
    })
}
