//! A question of the past, asked again with other settings.

use groundtone_answer::{Answer, Answerer, Error, Question};
use groundtone_catalog::{TraceRecord, TracedSnippet};
use groundtone_prompt::PromptMessage;
use groundtone_provider::Sampling;
use groundtone_types::{Snippet, Tenant, TokenUsage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most snippets of a replay.
const MOST_SNIPPETS: usize = 50;

/// What is to be otherwise. What is not given is as it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplayBody {
    /// How many snippets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Sampling temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Most tokens of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Seed of the sampler.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
}

impl ReplayBody {
    /// Whether it can be done.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.top_k.is_some_and(|top_k| !(1..=MOST_SNIPPETS).contains(&top_k)) {
            return Err(("top_k", format!("`top_k` must be between 1 and {MOST_SNIPPETS}")));
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err(("temperature", "`temperature` must be between 0 and 2".to_owned()));
        }
        if self.max_tokens == Some(0) {
            return Err(("max_tokens", "send at least 1".to_owned()));
        }
        Ok(())
    }
}

/// One of the two answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replayed {
    /// The text.
    pub answer: String,
    /// The model that wrote it.
    pub model: String,
    /// Whether it says that it knows none.
    pub abstained: bool,
    /// Which prompt contract rendered it.
    pub prompt_fingerprint: String,
    /// What was in the prompt, by number.
    pub snippets: Vec<TracedSnippet>,
    /// The citations.
    pub citations: Value,
    /// Tokens.
    pub usage: Option<TokenUsage>,
    /// Where the time went, in milliseconds.
    pub timings: Value,
}

/// What differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The text is another one.
    pub answer: bool,
    /// Titles and documents of snippets that were in the prompt then and are not now.
    pub snippets_gone: Vec<String>,
    /// And of those that are now and were not then.
    pub snippets_new: Vec<String>,
    /// The prompt contract is another one.
    pub prompt_fingerprint: bool,
    /// The model is another one.
    pub model: bool,
    /// One of the two abstained.
    pub abstained: bool,
}

/// Then and now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Which answer.
    pub trace_id: String,
    /// What was asked. Personal data that was taken out of the trace is not in it, and the answer may differ for that.
    pub question: String,
    /// As the trace has it.
    pub then: Replayed,
    /// As it is answered now.
    pub now: Replayed,
    /// What differs.
    pub difference: Difference,
}

/// A snippet as it is kept and shown.
pub(crate) fn traced(number: usize, snippet: &Snippet) -> TracedSnippet {
    TracedSnippet {
        number,
        point: snippet.id.to_string(),
        document: snippet.chunk.document.to_string(),
        title: snippet.chunk.breadcrumb(),
        url: snippet.chunk.url.clone(),
        score: snippet.score,
        text: snippet.chunk.shown_text().to_owned(),
    }
}

impl Replayed {
    fn then(trace: TraceRecord) -> Self {
        Self {
            answer: trace.answer,
            model: trace.model,
            abstained: trace.outcome == groundtone_catalog::Outcome::Abstained,
            prompt_fingerprint: trace.prompt_fingerprint,
            snippets: trace.snippets,
            citations: trace.citations,
            usage: trace.usage,
            timings: trace.timings,
        }
    }

    fn now(answer: Answer) -> Self {
        let summary = answer.summary;
        Self {
            answer: answer.text,
            abstained: summary.abstained,
            snippets: (1..).zip(&summary.sources).map(|(number, snippet)| traced(number, snippet)).collect(),
            citations: serde_json::to_value(&summary.citations).unwrap_or(Value::Null),
            usage: summary.usage,
            timings: serde_json::to_value(summary.timings).unwrap_or(Value::Null),
            prompt_fingerprint: summary.prompt_fingerprint,
            model: summary.model,
        }
    }

    fn difference(&self, now: &Self) -> Difference {
        let missing = |of: &Self, from: &Self| {
            let missing = of.snippets.iter().filter(|snippet| from.snippets.iter().all(|other| other.point != snippet.point));
            missing.map(|snippet| format!("{} ({})", snippet.title, snippet.document)).collect()
        };
        Difference {
            answer: self.answer != now.answer,
            snippets_gone: missing(self, now),
            snippets_new: missing(now, self),
            prompt_fingerprint: self.prompt_fingerprint != now.prompt_fingerprint,
            model: self.model != now.model,
            abstained: self.abstained != now.abstained,
        }
    }
}

impl Replay {
    /// Asks the trace's question again.
    pub async fn run(answerer: &Answerer, tenant: &Tenant, trace: TraceRecord, body: &ReplayBody) -> Result<Self, Error> {
        let messages: Vec<PromptMessage> = serde_json::from_value(trace.messages.clone())
            .map_err(|_| Error::Conversation("the trace has no conversation that can be asked again"))?;
        let was = &trace.sampling;
        let number = |name: &str| was[name].as_f64().map(|number| number as f32);
        let sampling = Sampling {
            temperature: body.temperature.or_else(|| number("temperature")),
            top_p: number("top_p"),
            max_tokens: body.max_tokens.or_else(|| was["max_tokens"].as_u64().and_then(|tokens| u32::try_from(tokens).ok())),
            seed: body.seed.or_else(|| was["seed"].as_u64()),
            stop: serde_json::from_value(was["stop"].clone()).unwrap_or_default(),
            ..Sampling::default()
        };
        let question = Question { sampling, ..Question::new(tenant.clone(), messages) };
        // It is for no customer: it says nothing about a canary.
        let answerer = answerer.unwatched();
        let answer = match body.top_k {
            None => answerer.answer(question).await?,
            Some(top_k) => {
                let retriever = answerer.retriever();
                let mut settings = retriever.settings();
                settings.top_k = top_k;
                settings.candidates = settings.candidates.max(top_k);
                answerer.searching(retriever.with_settings(settings)).answer(question).await?
            }
        };
        let (trace_id, asked) = (trace.id.clone(), trace.question.clone());
        let (then, now) = (Replayed::then(trace), Replayed::now(answer));
        let difference = then.difference(&now);
        Ok(Self { trace_id, question: asked, then, now, difference })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_named() {
        let snippet = |point: &str| TracedSnippet {
            number: 1,
            point: point.to_owned(),
            document: format!("{point}.md"),
            title: point.to_uppercase(),
            url: String::new(),
            score: 1.0,
            text: String::new(),
        };
        let then = Replayed {
            answer: "a".into(),
            model: "m".into(),
            abstained: false,
            prompt_fingerprint: "f".into(),
            snippets: vec![snippet("x"), snippet("y")],
            citations: Value::Null,
            usage: None,
            timings: Value::Null,
        };
        let now = Replayed { answer: "b".into(), snippets: vec![snippet("y"), snippet("z")], ..then.clone() };
        let difference = then.difference(&now);
        assert!(difference.answer && !difference.model && !difference.prompt_fingerprint && !difference.abstained);
        assert_eq!((difference.snippets_gone, difference.snippets_new), (vec!["X (x.md)".to_owned()], vec!["Z (z.md)".to_owned()]));
    }

    #[test]
    fn a_replay_that_cannot_be_done_is_refused() {
        let refused = |body: ReplayBody| body.check().map_err(|(field, _)| field);
        assert_eq!(refused(ReplayBody { top_k: Some(0), ..ReplayBody::default() }), Err("top_k"));
        assert_eq!(refused(ReplayBody { temperature: Some(f32::NAN), ..ReplayBody::default() }), Err("temperature"));
        assert_eq!(refused(ReplayBody::default()), Ok(()));
    }
}
