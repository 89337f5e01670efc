//! Wire types to Qdrant Edge's and back.

use ::qdrant_client::qdrant::{self as wire, query::Variant};
use qdrant_edge::external::serde_json::{self, Value as Json, json};
use qdrant_edge::external::uuid::Uuid;
use qdrant_edge::{
    Filter, Fusion, NamedQuery, PointId, PointStruct, PointStructPersisted, Prefetch, QueryEnum, QueryRequest, ScoringQuery, SparseVector,
    Vector, VectorInternal, Vectors, WithPayloadInterface, WithVector,
};
use std::collections::HashMap;

pub fn id(id: &wire::PointId) -> PointId {
    match id.point_id_options.as_ref().unwrap() {
        wire::point_id::PointIdOptions::Uuid(text) => PointId::Uuid(text.parse::<Uuid>().unwrap()),
        wire::point_id::PointIdOptions::Num(number) => PointId::NumId(*number),
    }
}

pub fn wire_id(id: PointId) -> wire::PointId {
    match id {
        PointId::Uuid(uuid) => wire::PointId { point_id_options: Some(wire::point_id::PointIdOptions::Uuid(uuid.to_string())) },
        PointId::NumId(number) => number.into(),
    }
}

pub fn wire_payload(payload: Option<qdrant_edge::Payload>) -> HashMap<String, wire::Value> {
    let json = Json::Object(payload.map(|payload| payload.0.into_iter().collect()).unwrap_or_default());
    qdrant_client::Payload::try_from(json).unwrap().into()
}

pub fn point(point: wire::PointStruct) -> PointStructPersisted {
    let Some(wire::vectors::VectorsOptions::Vectors(named)) = point.vectors.unwrap().vectors_options else {
        panic!("named vectors are expected")
    };
    let vectors: Vec<(String, Vector)> = named.vectors.into_iter().map(|(name, vector)| (name, self::vector(vector))).collect();
    let payload: serde_json::Map<String, Json> = point.payload.into_iter().map(|(key, value)| (key, value.into_json())).collect();
    PointStruct::new(id(&point.id.unwrap()), Vectors::new_named(vectors), Json::Object(payload)).into()
}

#[allow(deprecated, reason = "the client still fills the old fields of the message")]
fn vector(vector: wire::Vector) -> Vector {
    match vector.vector {
        Some(wire::vector::Vector::Dense(dense)) => Vector::from(dense.data),
        Some(wire::vector::Vector::Sparse(sparse)) => Vector::from(SparseVector::new(sparse.indices, sparse.values).unwrap()),
        Some(other) => panic!("unexpected vector {other:?}"),
        None => match vector.indices {
            Some(indices) => Vector::from(SparseVector::new(indices.data, vector.data).unwrap()),
            None => Vector::from(vector.data),
        },
    }
}

/// By way of the REST form, which both sides know.
pub fn filter(filter: wire::Filter) -> Filter {
    assert!(filter.should.is_empty() && filter.must_not.is_empty() && filter.min_should.is_none());
    let must: Vec<Json> = filter
        .must
        .into_iter()
        .map(|condition| {
            let Some(wire::condition::ConditionOneOf::Field(field)) = condition.condition_one_of else {
                panic!("a field condition is expected")
            };
            match field.r#match.unwrap().match_value.unwrap() {
                wire::r#match::MatchValue::Keyword(value) => json!({"key": field.key, "match": {"value": value}}),
                wire::r#match::MatchValue::Keywords(values) => json!({"key": field.key, "match": {"any": values.strings}}),
                other => panic!("unexpected match {other:?}"),
            }
        })
        .collect();
    serde_json::from_value(json!({"must": must})).unwrap()
}

fn scoring(query: wire::Query, using: Option<String>) -> ScoringQuery {
    match query.variant.unwrap() {
        Variant::Nearest(input) => {
            let vector = match input.variant.unwrap() {
                wire::vector_input::Variant::Dense(dense) => VectorInternal::Dense(dense.data),
                wire::vector_input::Variant::Sparse(sparse) => {
                    VectorInternal::Sparse(SparseVector::new(sparse.indices, sparse.values).unwrap())
                }
                other => panic!("unexpected vector {other:?}"),
            };
            ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery { query: vector, using }))
        }
        Variant::Rrf(rrf) => ScoringQuery::Fusion(Fusion::Rrf { k: rrf.k.unwrap() as usize, weights: None }),
        other => panic!("unexpected query {other:?}"),
    }
}

pub fn query(request: wire::QueryPoints) -> QueryRequest {
    let arm = |prefetch: wire::PrefetchQuery| Prefetch {
        prefetches: Vec::new(),
        query: Some(scoring(prefetch.query.unwrap(), prefetch.using)),
        limit: prefetch.limit.unwrap() as usize,
        params: None,
        filter: prefetch.filter.map(filter),
        score_threshold: None,
    };
    QueryRequest {
        prefetches: request.prefetch.into_iter().map(arm).collect(),
        query: Some(scoring(request.query.unwrap(), request.using)),
        filter: request.filter.map(filter),
        score_threshold: None,
        limit: request.limit.unwrap() as usize,
        offset: 0,
        params: None,
        with_vector: WithVector::Bool(false),
        with_payload: WithPayloadInterface::Bool(true),
    }
}
