//! What the program says: JSON objects, one a line. What is no such object is for people, and goes to the log.

use serde::Deserialize;

/// Longest reason that is passed on, in characters.
const REASON: usize = 500;

/// A line of progress. Every field may be missing.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Told {
    pub(super) step: Option<u64>,
    pub(super) total_steps: Option<u64>,
    /// As trainers count them: 0.5 is the middle of the first.
    pub(super) epoch: Option<f64>,
    pub(super) loss: Option<f64>,
    #[serde(alias = "mean_token_accuracy")]
    pub(super) accuracy: Option<f64>,
    pub(super) learning_rate: Option<f64>,
    #[serde(alias = "grad_norm")]
    pub(super) gradient_norm: Option<f64>,
    pub(super) seconds: Option<f64>,
    /// Of this step's rows.
    pub(super) tokens: Option<u64>,
    #[serde(alias = "eval_loss")]
    pub(super) valid_loss: Option<f64>,
    #[serde(alias = "eval_mean_token_accuracy")]
    pub(super) valid_accuracy: Option<f64>,
    pub(super) cut_rows: Option<u64>,
    pub(super) parameters: Option<u64>,
    /// Of the whole training.
    pub(super) trained_tokens: Option<u64>,
    adapter: Option<String>,
    error: Option<String>,
}

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Line {
    /// How it goes.
    Told(Box<Told>),
    /// Where the adapter is, below the output folder: a folder as PEFT saves one, or a GGUF file.
    Done { adapter: String, trained_tokens: u64 },
    /// Why there will be none.
    Failed { message: String },
    /// A loss that is no number. Python's JSON has `NaN`, JSON has not.
    NotFinite { step: Option<u64> },
    /// Something else.
    Note,
}

/// Reads one line.
pub(super) fn read(line: &[u8]) -> Line {
    let Ok(text) = std::str::from_utf8(line) else { return Line::Note };
    let text = text.trim();
    if !text.starts_with('{') {
        return Line::Note;
    }
    let told = match serde_json::from_str::<Told>(text) {
        Ok(told) => told,
        Err(_) => {
            let plain = text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null");
            return match serde_json::from_str::<Told>(&plain) {
                Ok(told) if plain != text && told.loss.is_none() => Line::NotFinite { step: told.step },
                Ok(told) if plain != text => Line::Told(Box::new(told)),
                _ => Line::Note,
            };
        }
    };
    if let Some(error) = told.error {
        return Line::Failed { message: error.chars().take(REASON).collect() };
    }
    match told.adapter {
        Some(adapter) => Line::Done { adapter, trained_tokens: told.trained_tokens.unwrap_or_default() },
        None if told.step.is_none() && told.total_steps.is_none() => Line::Note,
        None => Line::Told(Box::new(told)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_trainers_write_them() {
        let told = |told: Told| Line::Told(Box::new(told));
        let step = |step, loss| Told { step: Some(step), loss: Some(loss), ..Told::default() };
        for (text, line) in [
            (r#"{"step": 3, "loss": 1.5}"#, told(step(3, 1.5))),
            (r#"{"step": 3, "loss": 1.5, "grad_norm": 2.0, "flops": 1e12}"#, told(Told { gradient_norm: Some(2.0), ..step(3, 1.5) })),
            (r#"{"total_steps": 9}"#, told(Told { total_steps: Some(9), ..Told::default() })),
            (r#"{"step": 3, "eval_loss": 2.5}"#, told(Told { step: Some(3), valid_loss: Some(2.5), ..Told::default() })),
            (r#"{"adapter": "a", "trained_tokens": 7}"#, Line::Done { adapter: "a".into(), trained_tokens: 7 }),
            (r#"{"error": "no GPU"}"#, Line::Failed { message: "no GPU".into() }),
            (r#"{"step": 4, "loss": NaN}"#, Line::NotFinite { step: Some(4) }),
            (r#"{"step": 4, "loss": Infinity}"#, Line::NotFinite { step: Some(4) }),
            (r#"{"step": 4, "loss": 1.0, "grad_norm": NaN}"#, told(step(4, 1.0))),
            // What the trainer of transformers prints by itself, and other talk.
            ("{'loss': 2.31, 'grad_norm': 1.1, 'epoch': 0.5}", Line::Note),
            ("loading weights: 100%", Line::Note),
            ("{}", Line::Note),
            ("[1, 2]", Line::Note),
            (r#"{"step": -1}"#, Line::Note),
            ("", Line::Note),
        ] {
            assert_eq!(read(text.as_bytes()), line, "{text}");
        }
        assert_eq!(read(b"\xff{}"), Line::Note);
    }
}
