//! Points and filters as Qdrant Edge has them.

use groundtone_index::{BM25, DENSE, Error, Filter, Point, field, stored_id};
use groundtone_types::{Chunk, Snippet, Tenant};
use qdrant_edge::external::serde_json::{self, Value, json};
use qdrant_edge::{
    AnyVariants, Condition, FieldCondition, Filter as EdgeFilter, JsonPath, Match, MatchAny, PointId, PointStruct, PointStructPersisted,
    ScoredPoint, SparseVector, ValueVariants, Vector, Vectors,
};
use uuid::Uuid;

pub(crate) fn path(name: &str) -> Result<JsonPath, Error> {
    name.parse().map_err(|()| Error::Failed { place: "Qdrant Edge".to_owned(), reason: format!("`{name}` is no payload field") })
}

fn keyword(name: &str, value: &str) -> Result<Condition, Error> {
    Ok(Condition::Field(FieldCondition::new_match(path(name)?, Match::new_value(ValueVariants::String(value.into())))))
}

/// The tenant is part of every filter.
pub(crate) fn filter(tenant: &Tenant, filter: &Filter) -> Result<EdgeFilter, Error> {
    let mut conditions = vec![keyword(field::TENANT, tenant.as_str())?];
    if !filter.documents.is_empty() {
        let any = AnyVariants::Strings(filter.documents.iter().map(|id| id.as_str().into()).collect());
        conditions.push(Condition::Field(FieldCondition::new_match(path(field::DOCUMENT)?, Match::Any(MatchAny { any }))));
    }
    Ok(EdgeFilter { must: Some(conditions), ..EdgeFilter::default() })
}

pub(crate) fn point(tenant: &Tenant, point: Point) -> Result<PointStructPersisted, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Failed { place: "Qdrant Edge".to_owned(), reason: error.to_string() };
    let sparse = SparseVector::new(point.sparse.indices, point.sparse.values).map_err(|error| failed(&error))?;
    let chunk = serde_json::to_value(&point.chunk).map_err(|error| failed(&error))?;
    let payload = json!({field::TENANT: tenant.as_str(), field::DOCUMENT: point.chunk.document.as_str(), field::POINT: point.id.to_string(), field::CHUNK: chunk});
    let vectors = Vectors::new_named([(DENSE, Vector::from(point.dense)), (BM25, Vector::from(sparse))]);
    Ok(PointStruct::new(PointId::Uuid(stored_id(tenant, point.id)), vectors, payload).into())
}

/// The id as it was given, out of a payload.
pub(crate) fn given_id(place: &str, payload: Option<&qdrant_edge::Payload>) -> Result<Uuid, Error> {
    let text = payload.and_then(|payload| payload.0.get(field::POINT)).and_then(Value::as_str);
    let broken = || Error::Failed { place: place.to_owned(), reason: "a point without its id".to_owned() };
    text.and_then(|text| text.parse().ok()).ok_or_else(broken)
}

pub(crate) fn chunk(place: &str, payload: Option<qdrant_edge::Payload>) -> Result<Chunk, Error> {
    let chunk = payload.and_then(|mut payload| payload.0.remove(field::CHUNK)).unwrap_or(Value::Null);
    serde_json::from_value(chunk)
        .map_err(|error| Error::Failed { place: place.to_owned(), reason: format!("a point without its chunk: {error}") })
}

pub(crate) fn snippet(place: &str, point: ScoredPoint) -> Result<Snippet, Error> {
    let id = given_id(place, point.payload.as_ref())?;
    Ok(Snippet { id, chunk: chunk(place, point.payload)?, score: point.score })
}
