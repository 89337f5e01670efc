//! Wire types to Qdrant Edge's and back.

use ::qdrant_client::qdrant::{self as wire, query::Variant};
use qdrant_edge::external::serde_json::{self, Value as Json, json};
use qdrant_edge::external::uuid::Uuid;
use qdrant_edge::{
    Filter, NamedQuery, PointId, PointStruct, PointStructPersisted, QueryEnum, QueryRequest, ScoringQuery, SparseVector, Vector,
    VectorInternal, VectorStructInternal, Vectors, WithPayloadInterface, WithVector,
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
    serde_json::from_value(rest_filter(filter)).unwrap()
}

fn rest_filter(filter: wire::Filter) -> Json {
    assert!(filter.must_not.is_empty() && filter.min_should.is_none());
    let clauses = |conditions: Vec<wire::Condition>| Json::from(conditions.into_iter().map(rest_condition).collect::<Vec<Json>>());
    let mut rest = serde_json::Map::new();
    // An empty clause is no clause.
    for (name, conditions) in [("must", filter.must), ("should", filter.should)] {
        if !conditions.is_empty() {
            rest.insert(name.to_owned(), clauses(conditions));
        }
    }
    rest.into()
}

fn rest_condition(condition: wire::Condition) -> Json {
    let field = match condition.condition_one_of {
        Some(wire::condition::ConditionOneOf::Field(field)) => field,
        Some(wire::condition::ConditionOneOf::Filter(filter)) => return rest_filter(filter),
        other => panic!("unexpected condition {other:?}"),
    };
    if let Some(range) = field.range {
        return json!({"key": field.key, "range": {"gte": range.gte, "lte": range.lte}});
    }
    if let Some(range) = field.datetime_range {
        let time = |time: Option<wire::Timestamp>| time.map(|time| time.to_string());
        return json!({"key": field.key, "range": {"gte": time(range.gte), "lte": time(range.lte)}});
    }
    match field.r#match.unwrap().match_value.unwrap() {
        wire::r#match::MatchValue::Keyword(value) => json!({"key": field.key, "match": {"value": value}}),
        wire::r#match::MatchValue::Boolean(value) => json!({"key": field.key, "match": {"value": value}}),
        wire::r#match::MatchValue::Keywords(values) => json!({"key": field.key, "match": {"any": values.strings}}),
        other => panic!("unexpected match {other:?}"),
    }
}

/// The named dense vectors of a record.
pub fn wire_vectors(vectors: VectorStructInternal) -> wire::VectorsOutput {
    let VectorStructInternal::Named(named) = vectors else { panic!("named vectors are expected") };
    let output = |(name, vector): (String, VectorInternal)| match vector {
        VectorInternal::Dense(data) => {
            let vector = Some(wire::vector_output::Vector::Dense(wire::DenseVector { data }));
            (name, wire::VectorOutput { vector, ..wire::VectorOutput::default() })
        }
        other => panic!("unexpected vector {other:?}"),
    };
    let vectors = named.into_iter().map(output).collect();
    wire::VectorsOutput { vectors_options: Some(wire::vectors_output::VectorsOptions::Vectors(wire::NamedVectorsOutput { vectors })) }
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
        other => panic!("unexpected query {other:?}"),
    }
}

pub fn query(request: wire::QueryPoints) -> QueryRequest {
    assert!(request.prefetch.is_empty());
    QueryRequest {
        prefetches: Vec::new(),
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
