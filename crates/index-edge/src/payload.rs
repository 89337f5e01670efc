//! Points and filters as Qdrant Edge has them.

use groundtone_index::{BM25, DENSE, Error, Filter, Point, Test, field, stored_id};
use groundtone_types::{Chunk, MetadataValue, Snippet, Tenant};
use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::external::serde_json::{self, Value, json};
use qdrant_edge::{
    AnyVariants, Condition, DateTimeWrapper, FieldCondition, Filter as EdgeFilter, JsonPath, Match, MatchAny, PointId, PointStruct,
    PointStructPersisted, Range, ScoredPoint, SparseVector, ValueVariants, Vector, VectorInternal, VectorStructInternal, Vectors,
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
    for wanted in &filter.metadata {
        conditions.push(metadata(wanted)?);
    }
    Ok(EdgeFilter { must: Some(conditions), ..EdgeFilter::default() })
}

fn range<T>(from: Option<T>, to: Option<T>) -> Range<T> {
    Range { lt: None, gt: None, gte: from, lte: to }
}

/// One condition on the document's metadata.
fn metadata(wanted: &groundtone_index::Condition) -> Result<Condition, Error> {
    let key = path(&format!("{}.{}", field::METADATA, wanted.key()))?;
    let number = |from: Option<f64>, to: Option<f64>| {
        Condition::Field(FieldCondition::new_range(key.clone(), range(from.map(OrderedFloat), to.map(OrderedFloat))))
    };
    let condition = match wanted.test() {
        Test::Number(bounds) => number(bounds.from, bounds.to),
        Test::Date(bounds) => {
            // A bound beyond the calendar's end is no bound.
            let bounds = range(bounds.from.and_then(DateTimeWrapper::from_timestamp), bounds.to.and_then(DateTimeWrapper::from_timestamp));
            Condition::Field(FieldCondition::new_datetime_range(key, bounds))
        }
        Test::AnyOf(values) => {
            let equal = |value: &MetadataValue| {
                let value = match value {
                    // The engine matches integers and texts; floats it compares.
                    MetadataValue::Number(value) => return number(value.as_f64(), value.as_f64()),
                    MetadataValue::Bool(value) => ValueVariants::Bool(*value),
                    MetadataValue::Text(text) => ValueVariants::String(text.as_str().into()),
                    MetadataValue::Texts(_) => ValueVariants::Bool(false),
                };
                Condition::Field(FieldCondition::new_match(key.clone(), Match::new_value(value)))
            };
            Condition::Filter(EdgeFilter { should: Some(values.iter().map(equal).collect()), ..EdgeFilter::default() })
        }
        _ => {
            return Err(Error::Failed {
                place: "Qdrant Edge".to_owned(),
                reason: format!("`{}` is tested in an unknown way", wanted.key()),
            });
        }
    };
    Ok(condition)
}

/// The dense vector of a point.
pub(crate) fn dense(vectors: VectorStructInternal) -> Option<Vec<f32>> {
    match vectors {
        VectorStructInternal::Named(mut named) => match named.remove(DENSE)? {
            VectorInternal::Dense(vector) => Some(vector),
            _ => None,
        },
        _ => None,
    }
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
