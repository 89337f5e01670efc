//! What a client asks for when it makes a job, checked field by field so that the error names the field.

use crate::error::ApiError;
use groundtone_catalog::HyperparameterChoice;
use groundtone_openai_api::FineTuningJobRequest;
use groundtone_tuning::jobs::NewJob;
use serde_json::{Map, Value};

/// Longest suffix, in characters.
const SUFFIX_CHARS: usize = 64;
/// Highest seed.
const MOST_SEED: u64 = 2_147_483_647;
/// Pairs of notes, and how long they may be.
const MOST_PAIRS: usize = 16;
const KEY_CHARS: usize = 64;
const VALUE_CHARS: usize = 512;

/// Largest values of the numbers, as OpenAI has them. They fit the small integers of every client.
const MOST_BATCH: u64 = 256;
const MOST_EPOCHS: u64 = 50;
const MOST_BETA: f64 = 2.0;
/// No learning rate makes sense beyond it.
const MOST_MULTIPLIER: f64 = 1e4;

pub(super) fn new_job(request: FineTuningJobRequest) -> Result<NewJob, ApiError> {
    if let Some(field) = request.rest.keys().next() {
        return Err(ApiError::invalid(field, format!("Unknown parameter: '{field}'.")).code("unknown_parameter"));
    }
    if request.model.is_empty() {
        return Err(ApiError::invalid("model", "send the name of a base model"));
    }
    let suffix = request.suffix.filter(|suffix| !suffix.is_empty());
    if suffix.as_ref().is_some_and(|suffix| suffix.chars().count() > SUFFIX_CHARS || suffix.chars().any(char::is_control)) {
        return Err(ApiError::invalid("suffix", format!("`suffix` must be 1 to {SUFFIX_CHARS} characters")));
    }
    let seed = match present(request.seed) {
        None => None,
        Some(value) => match value.as_u64() {
            Some(seed) if seed <= MOST_SEED => Some(seed as u32),
            _ => return Err(ApiError::invalid("seed", format!("`seed` must be a whole number between 0 and {MOST_SEED}"))),
        },
    };
    match present(request.integrations) {
        None => {}
        Some(Value::Array(list)) if list.is_empty() => {}
        Some(_) => {
            return Err(ApiError::invalid(
                "integrations",
                "this server sends metrics nowhere else; leave `integrations` out, and read the job's events",
            ));
        }
    }
    let (method, hyperparameters) = method(present(request.method).as_ref(), present(request.hyperparameters).as_ref())?;
    Ok(NewJob {
        model: request.model,
        training_file: request.training_file,
        validation_file: request.validation_file.filter(|file| !file.is_empty()),
        method,
        hyperparameters,
        suffix,
        seed,
        metadata: metadata(present(request.metadata))?,
    })
}

/// `null` is as if it was not sent.
fn present(value: Option<Value>) -> Option<Value> {
    value.filter(|value| !value.is_null())
}

/// No method means supervised. The deprecated `hyperparameters` belong to it; sent beside a method's own they are refused, because nobody could say which count.
fn method(method: Option<&Value>, older: Option<&Value>) -> Result<(String, HyperparameterChoice), ApiError> {
    let Some(method) = method else { return Ok(("supervised".to_owned(), numbers(older, "hyperparameters", false)?)) };
    let kind = match method.get("type").and_then(Value::as_str) {
        Some(kind @ ("supervised" | "dpo")) => kind.to_owned(),
        Some("reinforcement") => {
            let message = "`reinforcement` is not supported by this server; it trains with `supervised` and `dpo`";
            return Err(ApiError::invalid("method.type", message).code("unsupported_method"));
        }
        _ => return Err(ApiError::invalid("method.type", "`method.type` must be `supervised` or `dpo`")),
    };
    let own = method.get(&kind).and_then(|settings| settings.get("hyperparameters")).filter(|value| !value.is_null());
    if own.is_some_and(is_filled) && older.is_some_and(is_filled) {
        return Err(ApiError::invalid("hyperparameters", "send hyperparameters inside `method` only"));
    }
    let place = format!("method.{kind}.hyperparameters");
    let (given, place) = match own {
        Some(own) => (Some(own), place.as_str()),
        None => (older, "hyperparameters"),
    };
    let numbers = numbers(given, place, kind == "dpo")?;
    Ok((kind, numbers))
}

fn is_filled(value: &Value) -> bool {
    value.as_object().is_none_or(|fields| !fields.is_empty())
}

fn numbers(given: Option<&Value>, place: &str, with_beta: bool) -> Result<HyperparameterChoice, ApiError> {
    let Some(given) = given else { return Ok(HyperparameterChoice::default()) };
    let Some(fields) = given.as_object() else { return Err(ApiError::invalid(place, format!("`{place}` must be an object"))) };
    let known = ["batch_size", "learning_rate_multiplier", "n_epochs"];
    if let Some(field) = fields.keys().find(|field| !(known.contains(&field.as_str()) || (with_beta && *field == "beta"))) {
        return Err(ApiError::invalid(format!("{place}.{field}"), format!("`{field}` is no hyperparameter of this method")));
    }
    let whole = |name: &str, most: u64| match chosen(fields, name) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) if (1..=most).contains(&number) => Ok(Some(number as u32)),
            _ => Err(ApiError::invalid(
                format!("{place}.{name}"),
                format!("`{name}` must be \"auto\" or a whole number between 1 and {most}"),
            )),
        },
    };
    let real = |name: &str, most: f64| match chosen(fields, name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) if number > 0.0 && number <= most => Ok(Some(number)),
            _ => {
                Err(ApiError::invalid(format!("{place}.{name}"), format!("`{name}` must be \"auto\" or a number above 0, at most {most}")))
            }
        },
    };
    Ok(HyperparameterChoice {
        batch_size: whole("batch_size", MOST_BATCH)?,
        learning_rate_multiplier: real("learning_rate_multiplier", MOST_MULTIPLIER)?,
        n_epochs: whole("n_epochs", MOST_EPOCHS)?,
        beta: real("beta", MOST_BETA)?,
    })
}

/// A number that the client chose.
fn chosen<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null() && value.as_str() != Some("auto"))
}

fn metadata(given: Option<Value>) -> Result<Option<Map<String, Value>>, ApiError> {
    let Some(given) = given else { return Ok(None) };
    let Value::Object(pairs) = given else { return Err(ApiError::invalid("metadata", "`metadata` must be an object of strings")) };
    let fits = |(key, value): (&String, &Value)| {
        key.chars().count() <= KEY_CHARS && value.as_str().is_some_and(|value| value.chars().count() <= VALUE_CHARS)
    };
    if pairs.len() > MOST_PAIRS || !pairs.iter().all(fits) {
        let message =
            format!("`metadata` may have {MOST_PAIRS} pairs of strings: keys up to {KEY_CHARS} characters, values up to {VALUE_CHARS}");
        return Err(ApiError::invalid("metadata", message));
    }
    Ok(Some(pairs).filter(|pairs| !pairs.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(mut body: Value) -> Result<NewJob, (String, String)> {
        for (name, value) in [("model", "small"), ("training_file", "file-1")] {
            if body.get(name).is_none() {
                body[name] = json!(value);
            }
        }
        let error = |error: ApiError| {
            let error = error.body().error;
            (error.param.unwrap_or_default(), error.message)
        };
        new_job(serde_json::from_value(body).unwrap()).map_err(error)
    }

    #[test]
    fn hyperparameters_are_found_wherever_clients_put_them() {
        let chosen = HyperparameterChoice { n_epochs: Some(4), learning_rate_multiplier: Some(0.5), ..HyperparameterChoice::default() };
        let numbers = json!({"n_epochs": 4, "learning_rate_multiplier": 0.5, "batch_size": "auto"});
        for body in [
            json!({"hyperparameters": numbers}),
            json!({"method": {"type": "supervised", "supervised": {"hyperparameters": numbers}}}),
            json!({"method": {"type": "supervised"}, "hyperparameters": numbers}),
            json!({"method": {"type": "supervised", "supervised": {"hyperparameters": numbers}}, "hyperparameters": {}}),
            json!({"method": null, "seed": null, "suffix": null, "metadata": null, "integrations": null, "validation_file": null, "hyperparameters": numbers}),
        ] {
            let job = of(body.clone()).unwrap_or_else(|error| panic!("{body}: {error:?}"));
            assert_eq!((job.method.as_str(), job.hyperparameters), ("supervised", chosen), "{body}");
        }
        let dpo = of(json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2}}}})).unwrap();
        assert_eq!((dpo.method.as_str(), dpo.hyperparameters.beta), ("dpo", Some(0.2)));
    }

    #[test]
    fn every_refusal_names_its_field() {
        let cases = [
            (json!({"suffix": "x".repeat(65)}), "suffix", "1 to 64 characters"),
            (json!({"seed": 2_147_483_648_u64}), "seed", "between 0 and 2147483647"),
            (json!({"seed": -1}), "seed", "between 0 and"),
            (json!({"seed": "7"}), "seed", "between 0 and"),
            (json!({"hyperparameters": {"n_epochs": 51}}), "hyperparameters.n_epochs", "between 1 and 50"),
            (json!({"hyperparameters": {"n_epochs": 0}}), "hyperparameters.n_epochs", "between 1 and 50"),
            (json!({"hyperparameters": {"batch_size": 257}}), "hyperparameters.batch_size", "between 1 and 256"),
            (json!({"hyperparameters": {"batch_size": 1.5}}), "hyperparameters.batch_size", "whole number"),
            (json!({"hyperparameters": {"learning_rate_multiplier": 0}}), "hyperparameters.learning_rate_multiplier", "above 0"),
            (json!({"hyperparameters": {"beta": 1}}), "hyperparameters.beta", "no hyperparameter"),
            (json!({"hyperparameters": []}), "hyperparameters", "an object"),
            (json!({"method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": 2.5}}}}), "method.dpo.hyperparameters.beta", "at most 2"),
            (json!({"method": {"type": "reinforcement", "reinforcement": {"grader": {}}}}), "method.type", "not supported"),
            (json!({"method": {"type": "magic"}}), "method.type", "must be"),
            (json!({"method": {}}), "method.type", "must be"),
            (
                json!({"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}, "hyperparameters": {"n_epochs": 2}}),
                "hyperparameters",
                "inside `method` only",
            ),
            (json!({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}), "integrations", "leave `integrations` out"),
            (json!({"metadata": {"a": 1}}), "metadata", "pairs of strings"),
            (json!({"metadata": {"k".repeat(65): "v"}}), "metadata", "keys up to 64"),
            (json!({"metadata": {"k": "v".repeat(513)}}), "metadata", "values up to 512"),
            (json!({"metadata": (0..17).map(|n| (n.to_string(), json!("v"))).collect::<Map<_, _>>()}), "metadata", "16 pairs"),
            (json!({"model": ""}), "model", "base model"),
            (json!({"n_epochs": 3}), "n_epochs", "Unknown parameter"),
        ];
        for (body, param, words) in cases {
            let (found, message) = of(body.clone()).map(|_| ()).expect_err("it was accepted");
            assert!(found == param && message.contains(words), "{body}: {found}: {message}");
        }
    }
}
