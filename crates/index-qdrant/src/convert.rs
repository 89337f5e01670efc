//! Points, filters and queries as the wire has them.

use groundtone_index::{BM25, DENSE, Error, Filter, Point, Query, Search, Test, field, stored_id};
use groundtone_types::{Chunk, Collection, MetadataValue, Snippet, Tenant};
use qdrant_client::Payload;
use qdrant_client::qdrant::{
    Condition, DatetimeRange, Filter as WireFilter, NamedVectors, PointId, PointStruct, Query as WireQuery, QueryPoints,
    QueryPointsBuilder, Range, ScoredPoint, Timestamp, Value, Vector, VectorInput, VectorsOutput, r#match::MatchValue,
    point_id::PointIdOptions, vector_output, vectors_output,
};
use serde_json::json;
use std::collections::HashMap;
use uuid::Uuid;

pub(crate) fn point_id(id: Uuid) -> PointId {
    PointId { point_id_options: Some(PointIdOptions::Uuid(id.to_string())) }
}

pub(crate) fn uuid_of(id: &PointId) -> Option<Uuid> {
    match &id.point_id_options {
        Some(PointIdOptions::Uuid(text)) => text.parse().ok(),
        _ => None,
    }
}

/// The tenant is part of every filter.
pub(crate) fn filter(tenant: &Tenant, filter: &Filter) -> WireFilter {
    let mut conditions = vec![Condition::matches(field::TENANT, tenant.to_string())];
    if !filter.documents.is_empty() {
        conditions.push(Condition::matches(field::DOCUMENT, filter.documents.iter().map(ToString::to_string).collect::<Vec<_>>()));
    }
    conditions.extend(filter.metadata.iter().map(metadata));
    WireFilter::must(conditions)
}

/// One condition on the document's metadata.
fn metadata(wanted: &groundtone_index::Condition) -> Condition {
    let key = format!("{}.{}", field::METADATA, wanted.key());
    let number = |from: Option<f64>, to: Option<f64>| Condition::range(key.clone(), Range { gte: from, lte: to, ..Range::default() });
    match wanted.test() {
        Test::Number(bounds) => number(bounds.from, bounds.to),
        Test::Date(bounds) => {
            let time = |micros: i64| Timestamp {
                seconds: micros.div_euclid(1_000_000),
                nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
            };
            Condition::datetime_range(
                key,
                DatetimeRange { gte: bounds.from.map(time), lte: bounds.to.map(time), ..DatetimeRange::default() },
            )
        }
        Test::AnyOf(values) => {
            let equal = |value: &MetadataValue| match value {
                // The engine matches integers and texts; floats it compares.
                MetadataValue::Number(value) => number(value.as_f64(), value.as_f64()),
                MetadataValue::Bool(value) => Condition::matches(key.clone(), *value),
                // Named as a keyword: of a text with spaces the client would make a full-text match.
                MetadataValue::Text(text) => Condition::matches(key.clone(), MatchValue::Keyword(text.clone())),
                MetadataValue::Texts(texts) => Condition::matches(key.clone(), texts.clone()),
            };
            WireFilter::should(values.iter().map(equal)).into()
        }
        // A test of a later version admits nothing rather than everything.
        _ => number(Some(1.0), Some(0.0)),
    }
}

pub(crate) fn point_struct(place: &str, tenant: &Tenant, point: Point) -> Result<PointStruct, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::Failed { place: place.to_owned(), reason: error.to_string() };
    let chunk = serde_json::to_value(&point.chunk).map_err(|error| failed(&error))?;
    let payload = json!({field::TENANT: tenant.as_str(), field::DOCUMENT: point.chunk.document.as_str(), field::POINT: point.id.to_string(), field::CHUNK: chunk});
    let payload = Payload::try_from(payload).map_err(|error| failed(&error))?;
    let vectors = NamedVectors::default()
        .add_vector(DENSE, point.dense)
        .add_vector(BM25, Vector::new_sparse(point.sparse.indices, point.sparse.values));
    Ok(PointStruct::new(point_id(stored_id(tenant, point.id)), vectors, payload))
}

/// The id as it was given, out of a payload.
pub(crate) fn given_id(place: &str, payload: &HashMap<String, Value>) -> Result<Uuid, Error> {
    let broken = || Error::Failed { place: place.to_owned(), reason: "a point without its id".to_owned() };
    payload.get(field::POINT).and_then(Value::as_str).and_then(|text| text.parse().ok()).ok_or_else(broken)
}

pub(crate) fn chunk(place: &str, payload: &mut HashMap<String, Value>) -> Result<Chunk, Error> {
    let chunk = payload.remove(field::CHUNK).map_or(serde_json::Value::Null, Value::into_json);
    serde_json::from_value(chunk)
        .map_err(|error| Error::Failed { place: place.to_owned(), reason: format!("a point without its chunk: {error}") })
}

pub(crate) fn snippet(place: &str, mut point: ScoredPoint) -> Result<Snippet, Error> {
    let id = given_id(place, &point.payload)?;
    Ok(Snippet { id, chunk: chunk(place, &mut point.payload)?, score: point.score })
}

/// The dense vector of a point.
pub(crate) fn dense(vectors: VectorsOutput) -> Option<Vec<f32>> {
    let vectors_output::VectorsOptions::Vectors(mut named) = vectors.vectors_options? else { return None };
    match named.vectors.remove(DENSE)?.into_vector() {
        vector_output::Vector::Dense(dense) => Some(dense.data),
        _ => None,
    }
}

fn nearest_sparse(vector: groundtone_index::SparseVector) -> WireQuery {
    WireQuery::new_nearest(VectorInput::new_sparse(vector.indices, vector.values))
}

pub(crate) fn query_points(collection: &Collection, tenant: &Tenant, query: Query) -> QueryPoints {
    let only = filter(tenant, &query.filter);
    let request = QueryPointsBuilder::new(collection.as_str()).limit(query.limit as u64).with_payload(true);
    match query.search {
        Search::Dense(vector) => request.query(vector).using(DENSE).filter(only).build(),
        Search::Sparse(vector) => request.query(nearest_sparse(vector)).using(BM25).filter(only).build(),
    }
}
