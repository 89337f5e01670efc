//! Which points a call is about.

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use groundtone_types::{Chunk, DocumentId, Metadata, MetadataValue};
use serde_json::{Map, Value};

/// Most conditions of a filter, and most values of one condition.
const MOST: usize = 64;

/// Which points a call is about. The tenant is not in here: it is an argument of its own, and no filter widens it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Filter {
    /// Only points of these documents; empty means all.
    pub documents: Vec<DocumentId>,
    /// Only points whose document's metadata meets all of these; empty means all.
    pub metadata: Vec<Condition>,
}

/// What the metadata of a document must be, for one key. A document without the key does not meet it; of a list of texts one is enough.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    key: String,
    test: Test,
}

/// How a value is tested.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Test {
    /// It is one of these; never empty. Numbers are compared as 64-bit floats, texts byte for byte.
    AnyOf(Vec<MetadataValue>),
    /// It is a number between these bounds.
    Number(Range<f64>),
    /// It is a text that names a date between these bounds, in microseconds since 1970 (UTC). Other texts are no dates.
    Date(Range<i64>),
}

/// Bounds of a range, both ends in it; at least one is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range<T> {
    /// The least.
    pub from: Option<T>,
    /// The most.
    pub to: Option<T>,
}

/// Why a filter cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` in the filter: {reason}")]
pub struct FilterError {
    key: String,
    reason: String,
}

impl<T: PartialOrd> Range<T> {
    fn holds(&self, value: &T) -> bool {
        self.from.as_ref().is_none_or(|from| value >= from) && self.to.as_ref().is_none_or(|to| value <= to)
    }
}

impl Condition {
    /// The key's value is one of these, at least one.
    pub fn any_of(key: &str, values: Vec<MetadataValue>) -> Result<Self, FilterError> {
        if values.is_empty() || values.len() > MOST {
            return Err(refused(key, format!("name 1 to {MOST} values")));
        }
        if values.iter().any(|value| matches!(value, MetadataValue::Texts(_))) {
            return Err(refused(key, "a list cannot hold another list"));
        }
        Self::new(key, Test::AnyOf(values))
    }

    /// The key's value is a number in this range.
    pub fn number(key: &str, range: Range<f64>) -> Result<Self, FilterError> {
        if range.from.is_none() && range.to.is_none() || [range.from, range.to].iter().flatten().any(|bound| !bound.is_finite()) {
            return Err(refused(key, "a range needs a finite bound"));
        }
        Self::new(key, Test::Number(range))
    }

    /// The key's value is a date in this range.
    pub fn date(key: &str, range: Range<i64>) -> Result<Self, FilterError> {
        if range.from.is_none() && range.to.is_none() {
            return Err(refused(key, "a range needs a bound"));
        }
        Self::new(key, Test::Date(range))
    }

    fn new(key: &str, test: Test) -> Result<Self, FilterError> {
        // The same rule as for the keys of `Metadata`; a key is part of a path in the engines' own filters.
        if key.is_empty() || key.len() > 64 || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
            return Err(refused(key, "a key is 1 to 64 letters, digits, `_` or `-`"));
        }
        Ok(Self { key: key.to_owned(), test })
    }

    /// Which key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// How its value is tested.
    pub fn test(&self) -> &Test {
        &self.test
    }

    /// Whether this metadata meets it.
    pub fn admits(&self, metadata: &Metadata) -> bool {
        let Some(value) = metadata.get(&self.key) else { return false };
        match (&self.test, value) {
            (Test::AnyOf(wanted), MetadataValue::Texts(texts)) => {
                texts.iter().any(|text| wanted.iter().any(|wanted| matches!(wanted, MetadataValue::Text(wanted) if wanted == text)))
            }
            (Test::AnyOf(wanted), value) => wanted.iter().any(|wanted| equal(wanted, value)),
            (Test::Number(range), MetadataValue::Number(number)) => number.as_f64().is_some_and(|number| range.holds(&number)),
            (Test::Date(range), MetadataValue::Text(text)) => date_of(text).is_some_and(|date| range.holds(&date)),
            (Test::Date(range), MetadataValue::Texts(texts)) => {
                texts.iter().any(|text| date_of(text).is_some_and(|date| range.holds(&date)))
            }
            _ => false,
        }
    }
}

fn refused(key: &str, reason: impl Into<String>) -> FilterError {
    FilterError { key: key.chars().take(64).collect(), reason: reason.into() }
}

fn equal(a: &MetadataValue, b: &MetadataValue) -> bool {
    match (a, b) {
        (MetadataValue::Number(a), MetadataValue::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}

/// A date in the forms that Qdrant reads, in microseconds since 1970: RFC 3339, the same without its zone (then UTC), without seconds, or the day alone.
pub fn date_of(text: &str) -> Option<i64> {
    let zoned = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%#z"))
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%#z"));
    if let Ok(date) = zoned {
        return Some(date.timestamp_micros());
    }
    let naive = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"))
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M"))
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M"))
        .or_else(|_| NaiveDate::parse_from_str(text, "%Y-%m-%d").map(Into::into));
    naive.ok().map(|date| date.and_utc().timestamp_micros())
}

impl Filter {
    /// Only points of this document.
    pub fn document(id: DocumentId) -> Self {
        Self { documents: vec![id], metadata: Vec::new() }
    }

    /// Whether a chunk meets it.
    pub fn admits(&self, chunk: &Chunk) -> bool {
        (self.documents.is_empty() || self.documents.contains(&chunk.document))
            && self.metadata.iter().all(|condition| condition.admits(&chunk.metadata))
    }

    /// Reads a filter on metadata: `{"lang": "de", "tags": ["a", "b"], "price": {"from": 10, "to": 20}, "date": {"from": "2026-01-31"}}`.
    ///
    /// A scalar must be equal, of a list one must be equal, an object is a range of numbers or of dates, both ends in it. All keys must hold.
    pub fn of_metadata(given: &Map<String, Value>) -> Result<Self, FilterError> {
        if given.len() > MOST {
            return Err(refused("", format!("at most {MOST} keys")));
        }
        let metadata = given.iter().map(|(key, value)| condition(key, value)).collect::<Result<_, _>>()?;
        Ok(Self { documents: Vec::new(), metadata })
    }
}

fn scalar(key: &str, value: &Value) -> Result<MetadataValue, FilterError> {
    match value {
        Value::Bool(value) => Ok(MetadataValue::Bool(*value)),
        Value::Number(value) => Ok(MetadataValue::Number(value.clone())),
        Value::String(value) => Ok(MetadataValue::Text(value.clone())),
        _ => Err(refused(key, "a value is a text, a number or a truth value")),
    }
}

fn condition(key: &str, value: &Value) -> Result<Condition, FilterError> {
    match value {
        Value::Array(values) => Condition::any_of(key, values.iter().map(|value| scalar(key, value)).collect::<Result<_, _>>()?),
        Value::Object(bounds) => range(key, bounds),
        value => Condition::any_of(key, vec![scalar(key, value)?]),
    }
}

fn range(key: &str, bounds: &Map<String, Value>) -> Result<Condition, FilterError> {
    if let Some(unknown) = bounds.keys().find(|name| !matches!(name.as_str(), "from" | "to")) {
        return Err(refused(key, format!("a range has `from` and `to`, not `{unknown}`")));
    }
    let (from, to) = (bounds.get("from"), bounds.get("to"));
    if [from, to].into_iter().flatten().all(Value::is_number) {
        let bound = |value: Option<&Value>| value.and_then(Value::as_f64);
        return Condition::number(key, Range { from: bound(from), to: bound(to) });
    }
    let date = |value: Option<&Value>| {
        let not_a_date = || refused(key, "both bounds are numbers, or dates like \"2026-01-31\" or \"2026-01-31T09:00:00Z\"");
        value.map(|value| value.as_str().and_then(date_of).ok_or_else(not_a_date)).transpose()
    };
    Condition::date(key, Range { from: date(from)?, to: date(to)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(filter: &Value) -> Result<Filter, String> {
        Filter::of_metadata(filter.as_object().unwrap()).map_err(|error| error.to_string())
    }

    fn admits(filter: &Value, metadata: &Value) -> bool {
        let metadata: Metadata = serde_json::from_value(metadata.clone()).unwrap();
        read(filter).unwrap().metadata.iter().all(|condition| condition.admits(&metadata))
    }

    #[test]
    fn values_lists_and_ranges_admit_what_they_say() {
        let document = json!({"lang": "de", "tags": ["tea", "kettle"], "price": 12.5, "rank": 3, "open": true, "date": "2026-03-01", "at": "2026-03-01T10:00:00+02:00"});
        let cases = [
            (json!({}), true),
            (json!({"lang": "de"}), true),
            (json!({"lang": "en"}), false),
            (json!({"lang": ["en", "de"]}), true),
            (json!({"missing": "x"}), false),
            (json!({"tags": "tea"}), true),
            (json!({"tags": ["coffee", "kettle"]}), true),
            (json!({"tags": "te"}), false),
            (json!({"rank": 3}), true),
            (json!({"rank": 3.0}), true),
            (json!({"rank": "3"}), false),
            (json!({"open": true}), true),
            (json!({"open": [false]}), false),
            (json!({"price": {"from": 12.5}}), true),
            (json!({"price": {"from": 10, "to": 12.4}}), false),
            (json!({"lang": {"from": 1}}), false),
            (json!({"date": {"from": "2026-03-01", "to": "2026-03-01"}}), true),
            (json!({"date": {"from": "2026-03-01T00:00:01Z"}}), false),
            (json!({"at": {"from": "2026-03-01T08:00:00Z", "to": "2026-03-01 08:00"}}), true),
            (json!({"lang": {"from": "2026-01-01"}}), false),
            (json!({"lang": "de", "rank": 4}), false),
        ];
        for (filter, expect) in cases {
            assert_eq!(admits(&filter, &document), expect, "{filter}");
        }
    }

    #[test]
    fn a_filter_that_cannot_be_meant_is_refused_with_its_key() {
        for (filter, reason) in [
            (json!({"lang": []}), "`lang` in the filter: name 1 to 64 values"),
            (json!({"lang": null}), "`lang` in the filter: a value is a text, a number or a truth value"),
            (json!({"lang": [["a"]]}), "`lang` in the filter: a value is a text, a number or a truth value"),
            (json!({"price": {}}), "`price` in the filter: a range needs a finite bound"),
            (json!({"price": {"gte": 1}}), "`price` in the filter: a range has `from` and `to`, not `gte`"),
            (
                json!({"date": {"from": "yesterday"}}),
                "`date` in the filter: both bounds are numbers, or dates like \"2026-01-31\" or \"2026-01-31T09:00:00Z\"",
            ),
            (
                json!({"date": {"from": "2026-01-01", "to": 3}}),
                "`date` in the filter: both bounds are numbers, or dates like \"2026-01-31\" or \"2026-01-31T09:00:00Z\"",
            ),
            (json!({"a.b": 1}), "`a.b` in the filter: a key is 1 to 64 letters, digits, `_` or `-`"),
            (json!({"": 1}), "`` in the filter: a key is 1 to 64 letters, digits, `_` or `-`"),
        ] {
            assert_eq!(read(&filter), Err(reason.to_owned()));
        }
    }
}
