//! `/v1/fine_tuning/checkpoints/{model}/permissions`: which other projects may use a checkpoint.

use super::{DEFAULT_CHECKPOINTS, MOST_ITEMS};
use crate::access::Caller;
use crate::api::files::{catalog_failed, list_page};
use crate::api::wire::unix_now;
use crate::error::{ApiError, ApiJson, ApiQuery};
use crate::state::AppState;
use axum::Json;
use axum::extract::{Path, State};
use groundtone_catalog::{Page, PermissionRecord};
use groundtone_openai_api::{CheckpointPermission, Deleted, ListPage, PermissionRequest};
use groundtone_types::Tenant;
use serde::Deserialize;
use std::sync::Arc;
use uuid::Uuid;

/// Most projects of one request, and the longest name of one.
const MOST_PROJECTS: usize = 100;
const PROJECT_CHARS: usize = 128;

/// Query of the list.
#[derive(Debug, Deserialize)]
pub(crate) struct PermissionQuery {
    project_id: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
    order: Option<String>,
}

fn wire(permission: PermissionRecord) -> CheckpointPermission {
    CheckpointPermission {
        id: permission.id,
        object: "checkpoint.permission".to_owned(),
        created_at: permission.created_at,
        project_id: permission.project,
    }
}

async fn known(state: &AppState, tenant: &Tenant, model: &str) -> Result<(), ApiError> {
    let found = state.documents.catalog.model(tenant, model).await.map_err(|error| catalog_failed(&error))?;
    found.map(|_| ()).ok_or_else(|| ApiError::not_found(format!("there is no fine-tuned model checkpoint `{model}`")))
}

/// `POST`: one permission for each project.
pub(crate) async fn create(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(model): Path<String>,
    ApiJson(request): ApiJson<PermissionRequest>,
) -> Result<Json<ListPage<CheckpointPermission>>, ApiError> {
    known(&state, &caller.tenant, &model).await?;
    let projects = request.project_ids;
    let fits = |project: &String| (1..=PROJECT_CHARS).contains(&project.chars().count()) && !project.chars().any(char::is_control);
    if !(1..=MOST_PROJECTS).contains(&projects.len()) || !projects.iter().all(fits) {
        return Err(ApiError::invalid("project_ids", format!("send 1 to {MOST_PROJECTS} project ids of up to {PROJECT_CHARS} characters")));
    }
    let mut data = Vec::with_capacity(projects.len());
    for project in projects {
        let permission = PermissionRecord { id: format!("cp_{}", Uuid::now_v7().simple()), created_at: unix_now(), project };
        let catalog = &state.documents.catalog;
        catalog.put_permission(&caller.tenant, &model, &permission).await.map_err(|error| catalog_failed(&error))?;
        data.push(wire(permission));
    }
    let (first_id, last_id) = (data.first().map(|p| p.id.clone()), data.last().map(|p| p.id.clone()));
    Ok(Json(ListPage { object: "list".to_owned(), data, first_id, last_id, has_more: false }))
}

/// `GET`.
pub(crate) async fn list(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path(model): Path<String>,
    ApiQuery(query): ApiQuery<PermissionQuery>,
) -> Result<Json<ListPage<CheckpointPermission>>, ApiError> {
    known(&state, &caller.tenant, &model).await?;
    let limit = query.limit.unwrap_or(DEFAULT_CHECKPOINTS);
    if !(1..=MOST_ITEMS).contains(&limit) {
        return Err(ApiError::invalid("limit", format!("`limit` must be between 1 and {MOST_ITEMS}")));
    }
    let ascending = match query.order.as_deref() {
        None | Some("descending" | "desc") => false,
        Some("ascending" | "asc") => true,
        Some(_) => return Err(ApiError::invalid("order", "`order` must be `ascending` or `descending`")),
    };
    let page = Page { after: query.after.as_deref(), limit: limit + 1, ascending };
    let found = state.documents.catalog.permissions(&caller.tenant, &model, query.project_id.as_deref(), page).await;
    Ok(Json(list_page(page, found.map_err(|error| catalog_failed(&error))?, |permission| permission.id.clone(), wire)))
}

/// `DELETE .../{permission}`.
pub(crate) async fn delete(
    State(state): State<Arc<AppState>>,
    caller: Caller,
    Path((model, id)): Path<(String, String)>,
) -> Result<Json<Deleted>, ApiError> {
    match state.documents.catalog.delete_permission(&caller.tenant, &model, &id).await.map_err(|error| catalog_failed(&error))? {
        true => Ok(Json(Deleted { id, object: "checkpoint.permission".to_owned(), deleted: true })),
        false => Err(ApiError::not_found(format!("there is no permission `{id}` of `{model}`"))),
    }
}
