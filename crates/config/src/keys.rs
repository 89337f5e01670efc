//! Which keys there are, from the defaults themselves.

use crate::settings::Variant;
use crate::{DEFAULTS, Error};
use figment::value::Value;

const PREFIX: &str = "GROUNDTONE_";
/// The section whose keys are names that the operator gives.
const VARIANTS: &str = "variants";
/// Variables of our own that are no settings: the file's path, and what tests use.
const OTHER_VARIABLES: &[&str] = &["GROUNDTONE_CONFIG", "GROUNDTONE_CACHE"];
const TEST_PREFIX: &str = "GROUNDTONE_TEST_";
/// Short or foreign names of settings.
const ALIASES: &[(&str, &str)] = &[("GROUNDTONE_OFFLINE", "models.offline"), ("HF_ENDPOINT", "models.hub")];

pub(crate) struct KnownKeys {
    defaults: toml::Table,
    keys: Vec<String>,
}

impl KnownKeys {
    pub(crate) fn of_defaults() -> Result<Self, Error> {
        let broken =
            |error: toml::de::Error| Error::Value { key: String::new(), origin: "the defaults".to_owned(), reason: error.to_string() };
        let defaults: toml::Table = DEFAULTS.parse().map_err(broken)?;
        let section = |(name, value): (&String, &toml::Value)| {
            let keys = value.as_table().map(|table| table.keys().map(|key| format!("{name}.{key}")).collect()).unwrap_or_default();
            let keys: Vec<String> = keys;
            keys
        };
        let keys = defaults.iter().flat_map(section).collect();
        Ok(Self { defaults, keys })
    }

    /// Every key of a file must be one of ours.
    pub(crate) fn check_table(&self, table: &toml::Table, origin: &str) -> Result<(), Error> {
        for (name, value) in table {
            let Some(section) = self.defaults.get(name).and_then(toml::Value::as_table) else {
                // A key that stands outside its section is told its section; a misspelt section its right name.
                let inside = self.keys.iter().find(|key| key.rsplit('.').next() == Some(name));
                let nearest = inside.cloned().unwrap_or_else(|| nearest(name, self.defaults.keys().map(String::as_str)));
                return Err(Error::UnknownKey { key: name.clone(), origin: origin.to_owned(), nearest });
            };
            if name == VARIANTS {
                check_variants(value, origin)?;
                continue;
            }
            let keys = value.as_table().into_iter().flat_map(toml::Table::keys);
            if let Some(unknown) = keys.into_iter().find(|key| !section.contains_key(*key)) {
                let key = format!("{name}.{unknown}");
                let nearest = nearest(&key, self.keys.iter().map(String::as_str));
                return Err(Error::UnknownKey { key, origin: origin.to_owned(), nearest });
            }
        }
        Ok(())
    }

    /// The key that an environment variable sets; `None` if it is not ours; an error if it looks like ours but is none.
    pub(crate) fn key_of_variable(&self, variable: &str) -> Result<Option<String>, Error> {
        if let Some((_, key)) = ALIASES.iter().find(|(name, _)| *name == variable) {
            return Ok(Some((*key).to_owned()));
        }
        if !variable.starts_with(PREFIX) || OTHER_VARIABLES.contains(&variable) || variable.starts_with(TEST_PREFIX) {
            return Ok(None);
        }
        let names: Vec<String> = self.keys.iter().map(|key| variable_of(key)).collect();
        match names.iter().position(|name| name == variable) {
            Some(at) => Ok(Some(self.keys[at].clone())),
            None => {
                let nearest = nearest(variable, names.iter().map(String::as_str));
                Err(Error::UnknownKey { key: variable.to_owned(), origin: "the environment".to_owned(), nearest })
            }
        }
    }

    /// A value from outside a file: as the default's type where it can be, else as text, so that the type error names it.
    pub(crate) fn parse(&self, key: &str, text: &str) -> Value {
        let default = key.split_once('.').and_then(|(section, name)| self.defaults.get(section)?.get(name));
        match default {
            Some(toml::Value::String(_)) => Value::from(text),
            Some(toml::Value::Boolean(_)) => match text {
                "1" | "true" => Value::from(true),
                "0" | "false" | "" => Value::from(false),
                other => Value::from(other),
            },
            Some(toml::Value::Float(_)) => text.parse::<f64>().map_or_else(|_| Value::from(text), Value::from),
            Some(toml::Value::Integer(_)) => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
            _ => {
                let list: Result<toml::Table, _> = format!("list = {text}").parse();
                let items = list.ok().and_then(|table| table.get("list")?.as_array().cloned());
                items.map_or_else(
                    || Value::from(text),
                    |items| Value::from(items.iter().filter_map(toml::Value::as_str).map(Value::from).collect::<Vec<_>>()),
                )
            }
        }
    }
}

/// Each variant is a section below `variants`, with keys of its own.
fn check_variants(value: &toml::Value, origin: &str) -> Result<(), Error> {
    for (name, variant) in value.as_table().into_iter().flatten() {
        let wrong = |reason: &str| Error::Value { key: format!("{VARIANTS}.{name}"), origin: origin.to_owned(), reason: reason.to_owned() };
        let Some(keys) = variant.as_table() else { return Err(wrong("is a section of its own: [variants.NAME]")) };
        if let Some(unknown) = keys.keys().find(|key| !Variant::KEYS.contains(&key.as_str())) {
            let nearest = format!("{VARIANTS}.{name}.{}", nearest(unknown, Variant::KEYS.into_iter()));
            return Err(Error::UnknownKey { key: format!("{VARIANTS}.{name}.{unknown}"), origin: origin.to_owned(), nearest });
        }
    }
    Ok(())
}

fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn nearest<'a>(wrong: &str, right: impl Iterator<Item = &'a str>) -> String {
    right.min_by_key(|candidate| strsim::damerau_levenshtein(wrong, candidate)).unwrap_or_default().to_owned()
}
