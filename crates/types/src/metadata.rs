use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use std::collections::BTreeMap;

/// Most keys of one document.
const MAX_KEYS: usize = 32;
/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 64;
/// Longest text, in bytes.
const MAX_TEXT_BYTES: usize = 1_000;
/// Most texts of one list.
const MAX_TEXTS: usize = 64;
/// Most bytes of all keys and values together: each chunk of the document carries them.
const MAX_BYTES: usize = 8_000;

/// One value of a document's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MetadataValue {
    /// `true` or `false`.
    Bool(bool),
    /// An integer that fits 64 bits with a sign, or a finite float.
    Number(Number),
    /// A text.
    Text(String),
    /// Several texts: a filter that asks for one of them admits the document.
    Texts(Vec<String>),
}

/// What a source says of a document beside its text: `{"lang": "en", "rank": 3, "tags": ["a", "b"]}`.
///
/// Keys are 1 to 64 of `A-Z a-z 0-9 _ -`, at most 32 of them; texts have at most 1,000 bytes, lists at most 64 texts, all of it at most 8,000 bytes.
/// Values that are null are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, Value>")]
pub struct Metadata(BTreeMap<String, MetadataValue>);

/// Why some metadata is not kept. It names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A key that is not one.
    #[error("`metadata` has the key {0:?}; a key is 1 to {MAX_KEY_BYTES} letters, digits, `_` or `-`")]
    Key(String),
    /// Neither a scalar nor a list of texts.
    #[error("`metadata.{0}` is not a text, a number, a truth value or a list of texts")]
    Value(String),
    /// A text, a list or all of it is too long.
    #[error(
        "`metadata{0}` is too large; at most {MAX_KEYS} keys, {MAX_TEXT_BYTES} bytes a text, {MAX_TEXTS} texts a list and {MAX_BYTES} bytes together are kept"
    )]
    TooLarge(String),
}

impl Metadata {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&MetadataValue> {
        self.0.get(key)
    }

    /// Keys and values in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &MetadataValue)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// As JSON with sorted keys: equal metadata gives equal text.
    pub fn to_json(&self) -> String {
        let object: serde_json::Map<String, Value> = self.0.iter().map(|(key, value)| (key.clone(), Value::from(value.clone()))).collect();
        Value::Object(object).to_string()
    }
}

impl From<MetadataValue> for Value {
    fn from(value: MetadataValue) -> Self {
        match value {
            MetadataValue::Bool(value) => Self::Bool(value),
            MetadataValue::Number(value) => Self::Number(value),
            MetadataValue::Text(value) => Self::String(value),
            MetadataValue::Texts(values) => Self::from(values),
        }
    }
}

impl TryFrom<BTreeMap<String, Value>> for Metadata {
    type Error = MetadataError;

    fn try_from(given: BTreeMap<String, Value>) -> Result<Self, MetadataError> {
        let (mut kept, mut bytes) = (BTreeMap::new(), 0);
        for (key, value) in given.into_iter().filter(|(_, value)| !value.is_null()) {
            if key.is_empty() || key.len() > MAX_KEY_BYTES || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
                return Err(MetadataError::Key(key.chars().take(MAX_KEY_BYTES).collect()));
            }
            let value = kept_value(&key, value)?;
            bytes += key.len() + size(&value);
            kept.insert(key, value);
        }
        if kept.len() > MAX_KEYS || bytes > MAX_BYTES {
            return Err(MetadataError::TooLarge(String::new()));
        }
        Ok(Self(kept))
    }
}

fn kept_value(key: &str, value: Value) -> Result<MetadataValue, MetadataError> {
    let wrong = || MetadataError::Value(key.to_owned());
    let too_large = || MetadataError::TooLarge(format!(".{key}"));
    let text = |value: Value| match value {
        Value::String(text) if text.len() > MAX_TEXT_BYTES => Err(too_large()),
        Value::String(text) => Ok(text),
        _ => Err(wrong()),
    };
    match value {
        Value::Bool(value) => Ok(MetadataValue::Bool(value)),
        // An engine keeps integers with a sign.
        Value::Number(value) if value.as_i64().is_some() || value.is_f64() => Ok(MetadataValue::Number(value)),
        Value::String(_) => Ok(MetadataValue::Text(text(value)?)),
        Value::Array(values) if values.len() > MAX_TEXTS => Err(too_large()),
        Value::Array(values) => Ok(MetadataValue::Texts(values.into_iter().map(text).collect::<Result<_, _>>()?)),
        _ => Err(wrong()),
    }
}

fn size(value: &MetadataValue) -> usize {
    match value {
        MetadataValue::Bool(_) | MetadataValue::Number(_) => 8,
        MetadataValue::Text(text) => text.len(),
        MetadataValue::Texts(texts) => texts.iter().map(String::len).sum(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Metadata, String> {
        serde_json::from_str(json).map_err(|error| error.to_string().split(" at line").next().unwrap_or_default().to_owned())
    }

    #[test]
    fn scalars_and_lists_of_texts_are_kept() {
        let given = r#"{"tags":["a","b"],"rank":-3,"share":0.5,"lang":"de","old":null,"open":true}"#;
        let metadata = read(given).unwrap_or_default();
        let expect = r#"{"lang":"de","open":true,"rank":-3,"share":0.5,"tags":["a","b"]}"#;
        assert_eq!(metadata.to_json(), expect);
        assert_eq!(serde_json::to_string(&metadata).unwrap_or_default(), expect, "serde writes the same");
        assert_eq!(read(expect), Ok(metadata));
        assert_eq!(Metadata::default().to_json(), "{}");
    }

    #[test]
    fn everything_else_is_refused_with_its_key() {
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1_001));
        let many = format!("{{{}}}", (0..33).map(|n| format!(r#""k{n}":1"#)).collect::<Vec<_>>().join(","));
        let cases = [
            (r#"{"a":{"b":1}}"#, "`metadata.a` is not a text, a number, a truth value or a list of texts"),
            (r#"{"a":["b",1]}"#, "`metadata.a` is not a text, a number, a truth value or a list of texts"),
            (r#"{"a":18446744073709551615}"#, "`metadata.a` is not a text, a number, a truth value or a list of texts"),
            (r#"{"a.b":1}"#, r#"`metadata` has the key "a.b"; a key is 1 to 64 letters, digits, `_` or `-`"#),
            (&long, "`metadata.a` is too large;"),
            (&many, "`metadata` is too large;"),
        ];
        for (json, expect) in cases {
            let error = read(json).err().unwrap_or_default();
            assert!(error.starts_with(expect), "{error}");
        }
    }
}
