use super::{Answered, Aspect, Metric, yes};
use crate::Error;
use crate::stats::Part;
use std::path::Path;

/// Where the compiler keeps the schema; nothing is fetched from it.
const PLACE: &str = "urn:groundtone:answer";

/// The answer is JSON of a schema (drafts 4 to 2020-12).
pub struct JsonSchema {
    schemas: boon::Schemas,
    index: boon::SchemaIndex,
}

impl JsonSchema {
    /// Reads a schema. References to other files or hosts are refused: nothing is fetched.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Rules { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(format!("is no JSON: {error}")))?;
        Self::new(value).map_err(wrong)
    }

    fn new(value: serde_json::Value) -> Result<Self, String> {
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.use_loader(Box::new(boon::SchemeUrlLoader::new()));
        compiler.add_resource(PLACE, value).map_err(|error| error.to_string())?;
        let index = compiler.compile(PLACE, &mut schemas).map_err(|error| error.to_string())?;
        Ok(Self { schemas, index })
    }

    /// Whether a text is JSON that the schema allows. Nothing around it is forgiven.
    pub fn allows(&self, text: &str) -> bool {
        serde_json::from_str(text.trim()).is_ok_and(|value| self.schemas.validate(&value, self.index).is_ok())
    }
}

impl Metric for JsonSchema {
    fn name(&self) -> String {
        "json_schema".to_owned()
    }
    fn meaning(&self) -> String {
        "the whole answer is JSON that the schema allows".to_owned()
    }
    fn aspect(&self) -> Aspect {
        Aspect::Form
    }
    fn score(&self, answered: &Answered<'_>) -> Vec<Part> {
        yes(self.allows(&answered.reply.text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_of_the_schema_and_nothing_else() {
        let schema = JsonSchema::new(json!({"type": "object", "required": ["queue"], "properties": {"queue": {"enum": ["billing", "repair"]}}, "additionalProperties": false})).unwrap();
        for (text, expected) in [
            ("{\"queue\": \"billing\"}\n", true),
            ("{\"queue\": \"sales\"}", false),
            ("{\"queue\": \"billing\", \"why\": 1}", false),
            ("Sure! {\"queue\": \"billing\"}", false),
            ("", false),
        ] {
            assert_eq!(schema.allows(text), expected, "{text}");
        }
        assert!(JsonSchema::new(json!({"type": "objekt"})).is_err());
        assert!(JsonSchema::new(json!({"$ref": "https://example.com/schema.json"})).is_err(), "nothing is fetched");
    }
}
