//! What the command line asks of the server that holds its data directory. Only who can read that directory has the key to these routes ([`crate::access::Need::Owner`]).

use crate::access::Caller;
use crate::api::telling::tell;
use crate::error::{ApiError, ApiJson, ApiQuery};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Sse;
use axum::response::sse::Event;
use futures::Stream;
use groundtone_catalog::{Quarantined, RunRecord};
use groundtone_datasets::{BuildEvent, BuildSettings, Builder};
use groundtone_ingest::{Drift, Order, OrderEvent};
use groundtone_types::{Collection, Tenant};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::Arc;

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
    Ok(tell(order.locations.len(), |teller| async move {
        let documents = &state.documents;
        let hear = |event: OrderEvent| match event {
            progress @ OrderEvent::Progress(_) => teller.at(progress),
            report @ OrderEvent::Report(_) => teller.done(report),
        };
        let done = documents.ingester.carry_out(&order, &documents.run_settings(&caller.tenant), &documents.sources, &hear).await;
        drop(turn);
        done.map_err(|error| failed(&error))
    }))
}

/// What `dataset build` takes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildBody {
    /// Whose documents are searched.
    pub tenant: Tenant,
    /// The dataset; its paths are of this machine.
    pub build: BuildSettings,
}

/// `POST /v1/groundtone/datasets`: builds a dataset with what answers now. The answer is an event stream of [`BuildEvent`]; an error is its last event.
///
/// The build goes on when the client leaves. One at a time: two of them could write the same files.
pub(crate) async fn build(
    State(state): State<Arc<AppState>>,
    ApiJson(BuildBody { tenant, build }): ApiJson<BuildBody>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    if [Some(&build.source), build.out.as_ref()].into_iter().flatten().any(|path| path.is_relative()) {
        return Err(ApiError::invalid("build", "name files by their full paths"));
    }
    let turn = state.building.clone().try_lock_owned();
    let turn =
        turn.map_err(|_| ApiError::new(StatusCode::TOO_MANY_REQUESTS, "another dataset is being built; try again when it is done"))?;
    Ok(tell(1, |teller| async move {
        let of_datasets = |error: groundtone_datasets::Error| ApiError::of(error.kind(), &error);
        let documents = &state.documents;
        let vectors = documents.ingester.fingerprint();
        let builder = Builder::new(&state.answerer, documents.catalog.clone(), tenant, vectors).await.map_err(of_datasets)?;
        let report = builder.run(&build, &|read, rows| teller.at(BuildEvent::Progress { read, rows })).await.map_err(of_datasets)?;
        teller.done(BuildEvent::Report(Box::new(report)));
        drop(turn);
        Ok(())
    }))
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
