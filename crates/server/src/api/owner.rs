//! What the command line asks of the server that holds its data directory. Only who can read that directory has the key to these routes ([`crate::access::Need::Owner`]).

use crate::access::Caller;
use crate::error::{ApiError, ApiJson, ApiQuery};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use axum::response::Sse;
use axum::response::sse::Event;
use futures::{Stream, StreamExt, stream};
use groundtone_catalog::{Quarantined, RunRecord};
use groundtone_ingest::{Drift, Order, OrderEvent, Progress};
use groundtone_types::Collection;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How often progress is sent, whether there is any or not: the client takes silence for a dead server.
const TICK: Duration = Duration::from_millis(500);
/// Most locations of one order.
const MOST_LOCATIONS: usize = 1000;

/// Runs of ingest.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunList {
    /// Newest first.
    pub runs: Vec<RunRecord>,
}

/// Documents that were not ingested.
#[derive(Debug, Serialize, Deserialize)]
pub struct RejectedList {
    /// Where they would be.
    pub collection: Collection,
    /// Each with its reason.
    pub rejected: Vec<Quarantined>,
}

/// How many runs.
#[derive(Debug, Deserialize)]
pub(crate) struct Latest {
    limit: u32,
}

/// Of which collection.
#[derive(Debug, Deserialize)]
pub(crate) struct Which {
    collection: Collection,
}

/// What `fsck` takes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsckBody {
    /// Which collection.
    pub collection: Collection,
    /// Whether drift is repaired.
    #[serde(default)]
    pub repair: bool,
}

/// What `gc` takes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GcBody {
    /// How many of the generations that answered last are kept.
    pub keep: usize,
}

/// What `gc` did.
#[derive(Debug, Serialize, Deserialize)]
pub struct Removed {
    /// Generations that are gone.
    pub removed: Vec<Collection>,
}

fn failed(error: &groundtone_ingest::Error) -> ApiError {
    ApiError::of(error.kind(), error)
}

fn of_catalog(error: &groundtone_catalog::Error) -> ApiError {
    ApiError::of(error.kind(), error)
}

/// `POST /v1/groundtone/ingest`: carries out an order. The answer is an event stream of [`OrderEvent`]; an error is its last event.
///
/// The run goes on when the client leaves: half a run is worth less than a whole one, and the ledger has its report.
pub(crate) async fn ingest(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(order): ApiJson<Order>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    if order.locations.is_empty() || order.locations.len() > MOST_LOCATIONS {
        return Err(ApiError::invalid("locations", format!("one to {MOST_LOCATIONS} locations")));
    }
    let turn = state.documents.turn().await?;
    let (progress, seen) = watch::channel(None);
    let (to_client, reports) = mpsc::channel(order.locations.len());
    let working = state.clone();
    let work = tokio::spawn(async move {
        let documents = &working.documents;
        let tell = |event: OrderEvent| match event {
            OrderEvent::Progress(at) => {
                progress.send_replace(Some(at));
            }
            report @ OrderEvent::Report(_) => {
                if to_client.try_send(report).is_err() {
                    tracing::debug!("the client of an ingest run has left; the run goes on");
                }
            }
        };
        let done = documents.ingester.carry_out(&order, &documents.run_settings(&caller.tenant), &documents.sources, &tell).await;
        drop(turn);
        done
    });
    Ok(Sse::new(events(Telling { seen, reports, work: Some(work), tick: tokio::time::interval(TICK) }).map(Ok)))
}

/// A run that is being told of.
struct Telling {
    seen: watch::Receiver<Option<Progress>>,
    reports: mpsc::Receiver<OrderEvent>,
    work: Option<JoinHandle<Result<(), groundtone_ingest::Error>>>,
    tick: tokio::time::Interval,
}

fn events(telling: Telling) -> impl Stream<Item = Event> {
    stream::unfold(telling, |mut telling| async move {
        telling.work.as_ref()?;
        loop {
            tokio::select! {
                biased;
                report = telling.reports.recv() => {
                    let event = match report {
                        Some(report) => json(&report),
                        // The work has let go of its end of the channel: it is over.
                        None => ending(telling.work.take()?).await,
                    };
                    return Some((event, telling));
                }
                _ = telling.tick.tick() => {
                    let at = *telling.seen.borrow();
                    if let Some(at) = at {
                        return Some((json(&OrderEvent::Progress(at)), telling));
                    }
                }
            }
        }
    })
}

async fn ending(work: JoinHandle<Result<(), groundtone_ingest::Error>>) -> Event {
    let error = match work.await {
        Ok(Ok(())) => return Event::default().data("[DONE]"),
        Ok(Err(error)) => failed(&error),
        Err(error) => ApiError::of(groundtone_types::ErrorKind::Internal, &error),
    };
    json(&error.body())
}

fn json(value: &impl Serialize) -> Event {
    Event::default().json_data(value).unwrap_or_else(|_| Event::default().comment("an event could not be written"))
}

/// `GET /v1/groundtone/runs?limit=N`: the latest runs of ingest.
pub(crate) async fn runs(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiQuery(latest): ApiQuery<Latest>,
) -> Result<Json<RunList>, ApiError> {
    let documents = &state.documents;
    let runs = documents.catalog.runs(&caller.tenant, latest.limit).await.map_err(|error| of_catalog(&error))?;
    Ok(Json(RunList { runs }))
}

/// `GET /v1/groundtone/runs/{prefix}`: the runs whose ids begin so, two at most.
pub(crate) async fn runs_with(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(prefix): Path<String>,
) -> Result<Json<RunList>, ApiError> {
    let documents = &state.documents;
    let runs = documents.catalog.runs_with(&caller.tenant, &prefix).await.map_err(|error| of_catalog(&error))?;
    Ok(Json(RunList { runs }))
}

/// `GET /v1/groundtone/rejected?collection=NAME`: documents that their source has and the collection has not.
pub(crate) async fn rejected(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiQuery(which): ApiQuery<Which>,
) -> Result<Json<RejectedList>, ApiError> {
    let documents = &state.documents;
    let found = documents.catalog.quarantined(&caller.tenant, &which.collection, None).await;
    Ok(Json(RejectedList { collection: which.collection, rejected: found.map_err(|error| of_catalog(&error))? }))
}

/// `POST /v1/groundtone/fsck`: where catalog and index disagree; repaired on demand.
pub(crate) async fn fsck(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    ApiJson(body): ApiJson<FsckBody>,
) -> Result<Json<Drift>, ApiError> {
    let documents = &state.documents;
    let _turn = documents.turn().await?;
    let drift = documents.ingester.fsck(&caller.tenant, &body.collection, body.repair).await;
    drift.map(Json).map_err(|error| failed(&error))
}

/// `POST /v1/groundtone/generations/gc`: removes generations that do not answer.
pub(crate) async fn gc(State(state): State<Arc<AppState>>, ApiJson(body): ApiJson<GcBody>) -> Result<Json<Removed>, ApiError> {
    let documents = &state.documents;
    let _turn = documents.turn().await?;
    let removed = documents.ingester.remove_generations(&documents.settings.collection, body.keep).await;
    Ok(Json(Removed { removed: removed.map_err(|error| failed(&error))? }))
}
