//! Every setting, with its default and its documentation in one file: `groundtone.default.toml`.
//!
//! Defaults, then a file, then the environment, then flags. A wrong key or value is an error that names the key, where it came from, and the nearest right one.
//! This is the only crate that reads the environment.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod check;
mod keys;
mod settings;

pub use settings::*;

use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use keys::KnownKeys;
use secrecy::SecretString;
use std::path::{Path, PathBuf};

/// The defaults, which are also the documentation.
pub const DEFAULTS: &str = include_str!("../groundtone.default.toml");
/// Looked for in the working directory where no file is named.
pub const FILE_NAME: &str = "groundtone.toml";

/// A setting that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {reason}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A key that does not exist.
    #[error("unknown key `{key}` in {origin}; did you mean `{nearest}`?")]
    UnknownKey {
        /// The key as it was written.
        key: String,
        /// File or environment.
        origin: String,
        /// The nearest key there is.
        nearest: String,
    },
    /// A value that does not fit its key.
    #[error("`{key}` in {origin}: {reason}")]
    Value {
        /// Which key.
        key: String,
        /// File, environment, flag or defaults.
        origin: String,
        /// Why.
        reason: String,
    },
    /// A variable that should hold a key is not set.
    #[error("`{key}` says that the environment variable {variable} holds a key, but it is not set")]
    NoSecret {
        /// Which setting.
        key: &'static str,
        /// Which variable.
        variable: String,
    },
}

/// Settings from everywhere.
pub fn load(file: Option<&Path>, flags: &[(&str, String)]) -> Result<Config, Error> {
    let environment: Vec<(String, String)> =
        std::env::vars_os().filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?))).collect();
    let found = match file {
        Some(path) => Some(path.to_owned()),
        None => match environment.iter().find(|(key, value)| key == "GROUNDTONE_CONFIG" && !value.is_empty()) {
            Some((_, path)) => Some(PathBuf::from(path)),
            None => Some(PathBuf::from(FILE_NAME)).filter(|path| path.is_file()),
        },
    };
    let mut config = merge(found.as_deref(), &environment, flags)?;
    if config.models.directory.as_os_str().is_empty() {
        config.models.directory = cache_folder(&environment).join("groundtone").join("models");
    }
    Ok(config)
}

/// The same with the environment passed in.
fn merge(file: Option<&Path>, environment: &[(String, String)], flags: &[(&str, String)]) -> Result<Config, Error> {
    let known = KnownKeys::of_defaults()?;
    let mut figment = Figment::from(Toml::string(DEFAULTS));
    // Which layer set a key last, so that a problem is blamed on the place where it can be mended.
    let mut origins = Origins::default();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?;
        let origin = path.display().to_string();
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| Error::File { path: path.to_owned(), reason: error.to_string().trim().replace('\n', " ") })?;
        known.check_table(&table, &origin)?;
        for (section, keys) in &table {
            keys.as_table().into_iter().flat_map(toml::Table::keys).for_each(|key| origins.set(format!("{section}.{key}"), &origin));
        }
        figment = figment.merge(Toml::string(&text));
    }
    for (variable, value) in environment {
        if let Some(key) = known.key_of_variable(variable)? {
            figment = figment.merge(Serialized::default(&key, known.parse(&key, value)));
            origins.set(key, &format!("the environment variable {variable}"));
        }
    }
    for (key, value) in flags {
        figment = figment.merge(Serialized::default(key, known.parse(key, value)));
        origins.set((*key).to_owned(), "the command line");
    }
    let config: Config = figment.extract().map_err(|error| {
        let key = error.path.join(".");
        Error::Value { origin: origins.of(&key), key, reason: error.kind.to_string() }
    })?;
    check::check(&config).map_err(|(key, reason)| Error::Value { key: key.to_owned(), origin: origins.of(key), reason })?;
    Ok(config)
}

/// Where each key's value comes from.
#[derive(Default)]
struct Origins {
    keys: std::collections::HashMap<String, String>,
    last: Option<String>,
}

impl Origins {
    fn set(&mut self, key: String, origin: &str) {
        self.keys.insert(key, origin.to_owned());
        self.last = Some(origin.to_owned());
    }

    /// A key that nobody set is wrong because of another one; the last layer is the best guess.
    fn of(&self, key: &str) -> String {
        self.keys.get(key).or(self.last.as_ref()).cloned().unwrap_or_else(|| "the defaults".to_owned())
    }
}

fn cache_folder(environment: &[(String, String)]) -> PathBuf {
    let value =
        |name: &str| environment.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| PathBuf::from(value));
    value("XDG_CACHE_HOME").or_else(|| value("HOME").map(|home| home.join(".cache"))).unwrap_or_else(std::env::temp_dir)
}

/// The key in the environment variable that a setting names; `None` where it names none.
pub fn secret(key: &'static str, variable: &str) -> Result<Option<SecretString>, Error> {
    if variable.is_empty() {
        return Ok(None);
    }
    match std::env::var(variable) {
        Ok(value) if !value.is_empty() => Ok(Some(value.into())),
        _ => Err(Error::NoSecret { key, variable: variable.to_owned() }),
    }
}

/// Variables of this process's environment by name, for a program that is started with these and no others. One that is not set, or is no UTF-8, is left out.
pub fn variables(names: &[String]) -> Vec<(String, String)> {
    names.iter().filter_map(|name| std::env::var(name).ok().map(|value| (name.clone(), value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("groundtone.toml");
        std::fs::write(&path, text).unwrap();
        merge(Some(&path), &[], &[]).map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
    }

    fn environment(variables: &[(&str, &str)]) -> Result<Config, String> {
        let variables: Vec<(String, String)> = variables.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        merge(None, &variables, &[]).map_err(|error| error.to_string())
    }

    #[test]
    fn wrong_settings_are_sentences_that_name_the_place_and_the_way_out() {
        let cases = [
            ("[retrieval]\ntopk = 3", "unknown key `retrieval.topk` in groundtone.toml; did you mean `retrieval.top_k`?"),
            ("[retreival]\ntop_k = 3", "unknown key `retreival` in groundtone.toml; did you mean `retrieval`?"),
            ("port = 1", "unknown key `port` in groundtone.toml; did you mean `server.port`?"),
            ("[server]\nport = \"eighty\"", "`server.port` in groundtone.toml: invalid type: found string \"eighty\", expected u16"),
            ("[retrieval]\ntop_k = 0", "`retrieval.top_k` in groundtone.toml: must be between 1 and 50"),
            (
                "[server]\ncors_origins = [\"https://shop.example/\"]",
                "`server.cors_origins` in groundtone.toml: `https://shop.example/` is not an origin; write it as browsers send it: `https://shop.example`",
            ),
            (
                "[limits]\nprices = [\"gpt=1\"]",
                "`limits.prices` in groundtone.toml: `gpt=1` must be a model, `=`, and its prices read/written: `gpt-4o-mini=0.15/0.60`",
            ),
            ("[chat]\nkind = \"openai\"", "`chat.url` in groundtone.toml: `chat.kind = \"openai\"` needs the server's base URL"),
            (
                "[sources]\ns3_endpoint = \"http://minio:9000\"",
                "`sources.s3_endpoint` in groundtone.toml: http:// needs `sources.s3_allow_http = true`",
            ),
            (
                "[sources]\ns3_access_key_env = \"KEY\"",
                "`sources.s3_access_key_env` in groundtone.toml: goes with `sources.s3_secret_key_env`; set both or none",
            ),
            (
                "[sources]\nallow_private_hosts = [\"http://wiki\"]",
                "`sources.allow_private_hosts` in groundtone.toml: `http://wiki` is not a host; write it as `wiki.internal` or `10.1.2.3`, without scheme and path",
            ),
            (
                "[ingest]\nextractor_kind = \"tika\"",
                "`ingest.extractor_url` in groundtone.toml: `ingest.extractor_kind` needs the server's base URL",
            ),
            (
                "[ingest]\nextractor_kind = \"tika\"\nextractor_url = \"http://t\"\nextractor_endings = [\".doc\"]",
                "`ingest.extractor_endings` in groundtone.toml: `.doc` must be a file ending in lower case without its dot",
            ),
            (
                "[ingest]\nextractor_endings = [\"doc\"]",
                "`ingest.extractor_kind` in groundtone.toml: must be \"tika\" or \"docling\" where a server or its endings are named",
            ),
            (
                "[retrieval]\ntrust = [\"policies/=11\"]",
                "`retrieval.trust` in groundtone.toml: `policies/=11` must be a prefix, `=` and a weight between 0 and 10: `policies/=1.5`",
            ),
            (
                "[reranker]\nkind = \"local\"",
                "`reranker.path` in groundtone.toml: `reranker.kind = \"local\"` and a folder in `reranker.path` go together",
            ),
            (
                "[tuning]\ntrainer = \"command\"\ncommand = [\"x\"]\nvllm_url = \"http://127.0.0.1:8000/v1\"\nmerged_models = [\"ft:x\"]",
                "`tuning.merged_models` in groundtone.toml: with `tuning.vllm_url` adapters are the other server's, and nothing is merged here",
            ),
            ("[reranker]\nkind = \"tei\"", "`reranker.url` in groundtone.toml: `reranker.kind` needs the server's base URL"),
            (
                "[variants.tuned]\nmodle = \"m\"",
                "unknown key `variants.tuned.modle` in groundtone.toml; did you mean `variants.tuned.model`?",
            ),
            ("[variants]\ntuned = 3", "`variants.tuned` in groundtone.toml: is a section of its own: [variants.NAME]"),
            (
                "[variants.tuned]\nkind = \"openai\"",
                "`variants` in groundtone.toml: `tuned`: `kind = \"openai\"` needs the server's base URL",
            ),
            (
                "[release]\nfallbacks = [\"prompted\"]",
                "`release.fallbacks` in groundtone.toml: there is no variant `prompted`; add [variants.prompted]",
            ),
            (
                "[tuning]\ntrainer = \"command\"",
                "`tuning.command` in groundtone.toml: `tuning.trainer = \"command\"` and a program in `tuning.command` go together",
            ),
            (
                "[tuning]\nvllm_url = \"http://127.0.0.1:8000/v1\"",
                "`tuning.vllm_url` in groundtone.toml: the local trainer's adapters are served in this process; `tuning.vllm_url` needs `tuning.trainer = \"command\"`",
            ),
            (
                "[telemetry]\notlp_url = \"http://127.0.0.1:4318\"",
                "`telemetry.otlp_url` in groundtone.toml: `http://127.0.0.1:4318` must be the whole address of traces: `http://127.0.0.1:4318/v1/traces`",
            ),
            (
                "[telemetry]\notlp_api_key_header = \"x key\"",
                "`telemetry.otlp_api_key_header` in groundtone.toml: `x key` is not a header's name",
            ),
            ("[store]\nurl = \"localhost:6334\"", "`store.url` in groundtone.toml: must begin with http:// or https://"),
        ];
        for (text, sentence) in cases {
            assert_eq!(file(text).map(|_| ()), Err(sentence.to_owned()));
        }
        assert!(file("[server\nport=1").unwrap_err().starts_with("cannot read groundtone.toml: TOML parse error at line 1"));
        assert_eq!(
            environment(&[("GROUNDTONE_RETREIVAL_TOP_K", "3")]).map(|_| ()),
            Err("unknown key `GROUNDTONE_RETREIVAL_TOP_K` in the environment; did you mean `GROUNDTONE_RETRIEVAL_TOP_K`?".to_owned())
        );
        assert_eq!(
            environment(&[("GROUNDTONE_SERVER_PORT", "x")]).map(|_| ()),
            Err("`server.port` in the environment variable GROUNDTONE_SERVER_PORT: invalid type: found string \"x\", expected u16"
                .to_owned())
        );
    }

    #[test]
    fn later_layers_win_and_every_key_is_a_variable() {
        let config = environment(&[
            ("GROUNDTONE_RETRIEVAL_TOP_K", "7"),
            ("GROUNDTONE_ASSISTANT_NAME", "123"),
            ("GROUNDTONE_OFFLINE", "1"),
            ("HF_ENDPOINT", "http://mirror"),
            ("GROUNDTONE_SERVER_API_KEY_SHA256", "[\"ab\"]"),
            ("GROUNDTONE_TEST_ANYTHING", "x"),
            ("HOME", "/h"),
        ]);
        assert_eq!(
            config.as_ref().map(|_| ()),
            Err(&"`server.api_key_sha256` in the environment variable GROUNDTONE_SERVER_API_KEY_SHA256: `ab` is not 64 hexadecimal digits"
                .to_owned())
        );
        let config = environment(&[
            ("GROUNDTONE_RETRIEVAL_TOP_K", "7"),
            ("GROUNDTONE_ASSISTANT_NAME", "123"),
            ("GROUNDTONE_OFFLINE", "1"),
            ("HF_ENDPOINT", "http://mirror"),
        ])
        .unwrap();
        assert_eq!(
            (config.retrieval.top_k, config.assistant.name.as_str(), config.models.offline, config.models.hub.as_str()),
            (7, "123", true, "http://mirror")
        );
        let flagged = merge(None, &[("GROUNDTONE_SERVER_PORT".into(), "1".into())], &[("server.port", "2".to_owned())]).unwrap();
        assert_eq!(flagged.server.port, 2);
    }

    #[test]
    fn a_variant_takes_over_what_it_does_not_say() {
        let text = "[chat]\npath = \"own.gguf\"\nmax_tokens = 99\n[variants.prompted]\nsystem = \"Be kind.\"\n[variants.tuned-rag]\nmodel = \"ft:1\"\nurl = \"http://m\"\nkind = \"openai\"\n";
        let config = file(text).unwrap();
        let (prompted, tuned) = (&config.variants["prompted"], &config.variants["tuned-rag"]);
        assert_eq!(
            (prompted.looks_up("prompted"), tuned.looks_up("tuned-rag"), prompted.chat(&config.chat).is_none()),
            (false, true, true)
        );
        let chat = tuned.chat(&config.chat).unwrap();
        assert_eq!((chat.model.as_str(), chat.max_tokens, chat.path.as_os_str().is_empty()), ("ft:1", 99, true));
    }

    #[test]
    fn the_defaults_document_every_key() {
        let mut last = "";
        for line in DEFAULTS.lines().filter(|line| !line.trim().is_empty()) {
            assert!(line.starts_with(['#', '[']) || last.starts_with('#'), "no comment above {line}");
            last = line;
        }
        merge(None, &[], &[]).unwrap();
    }
}
