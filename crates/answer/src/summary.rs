use crate::Error;
use futures::StreamExt;
use futures::stream::BoxStream;
use groundtone_prompt::{Basis, CitationReport, CitationStatus, Doubt, RemovedCitation};
use groundtone_provider::{Beside, FinishReason};
use groundtone_types::{Snippet, TokenUsage};
use serde::{Deserialize, Serialize};

/// A source of the answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CitedSource {
    /// First character of the answer that rests on it.
    pub start: usize,
    /// One past the last.
    pub end: usize,
    /// Its number in the prompt.
    pub number: usize,
    /// Whether the model named it or the words gave it away.
    pub basis: Basis,
    /// Whether it says what the answer says.
    pub status: CitationStatus,
    /// What it does not say; `None` unless it is unsupported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doubt: Option<Doubt>,
    /// The document.
    pub document: String,
    /// Title and headings.
    pub title: String,
    /// Where a reader finds it.
    pub url: String,
}

/// Where the time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Timings {
    /// Embedding the question and searching.
    pub retrieve_ms: f64,
    /// Rendering and packing.
    pub render_ms: f64,
    /// From the model's call to its first text.
    pub first_token_ms: f64,
    /// From the question to the end.
    pub total_ms: f64,
}

/// Why an answer is the abstain text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AbstainReason {
    /// The evidence gate: too little was found, and no model was asked.
    NoEvidence,
    /// The model wrote it.
    Model,
    /// The model wrote an answer that its sources do not support, and the policy refuses those.
    Citations,
}

impl AbstainReason {
    /// Its name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEvidence => "no_evidence",
            Self::Model => "model",
            Self::Citations => "citations",
        }
    }
}

/// What the evidence gate saw.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct EvidenceScore {
    /// How likely the question can be answered from what was found, 0 to 1.
    pub score: f64,
    /// From here on the model is asked.
    pub threshold: f64,
}

/// What is known when the answer is complete.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Citations in the order of the text.
    pub citations: Vec<CitedSource>,
    /// Numbers the model wrote that are no source; never shown as citations.
    pub unresolved_markers: Vec<usize>,
    /// Citations that the policy took out, and why.
    pub removed_citations: Vec<RemovedCitation>,
    /// Links and pictures whose address was taken out.
    pub links_removed: usize,
    /// Every snippet that was in the prompt, by number; what was found where no model was asked.
    pub sources: Vec<Snippet>,
    /// Why the model stopped.
    #[serde(skip)]
    pub finish: FinishReason,
    /// Tokens; `None` where the model server did not say.
    pub usage: Option<TokenUsage>,
    /// The variant that answered.
    pub variant: String,
    /// The release that it answered for; `None` for a pinned variant, and before anything was released.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Whether that release is on trial.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
    /// The variant that should have answered and failed before its first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fell_back_from: Option<String>,
    /// The prompt's fingerprint.
    pub prompt_fingerprint: String,
    /// The model that wrote it.
    pub model: String,
    /// Whether it is the abstain text.
    pub abstained: bool,
    /// Why it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abstained_because: Option<AbstainReason>,
    /// What the evidence gate saw; `None` where there is none, or it does not apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<EvidenceScore>,
    /// What was searched for, where it is not what was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten_query: Option<String>,
    /// Where the time went.
    pub timings: Timings,
    /// Under which id a trace of it is kept; the server says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

impl Summary {
    /// Puts what was read out of the answer into it; `sources` are the prompt's.
    pub(crate) fn cite(&mut self, report: CitationReport, sources: &[Snippet]) {
        let cited = report.citations.into_iter().filter_map(|citation| {
            let chunk = &sources.get(citation.number - 1)?.chunk;
            Some(CitedSource {
                start: citation.start,
                end: citation.end,
                number: citation.number,
                basis: citation.basis,
                status: citation.status,
                doubt: citation.doubt,
                document: chunk.document.to_string(),
                title: chunk.breadcrumb(),
                url: chunk.url.clone(),
            })
        });
        self.citations = cited.collect();
        self.unresolved_markers = report.unresolved;
        self.removed_citations = report.removed;
        self.links_removed = report.links_removed;
    }
}

/// One step of an answer.
#[derive(Debug, Clone)]
pub enum AnswerEvent {
    /// More text.
    Delta(String),
    /// Something that the model server sent beside text: calls of tools, log probabilities.
    Beside(Beside),
    /// The end; exactly one, unless the stream ends with an error.
    Done(Box<Summary>),
}

/// An answer being written. Dropping it stops the model.
pub type AnswerStream = BoxStream<'static, Result<AnswerEvent, Error>>;

/// A complete answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The text.
    pub text: String,
    /// What the model server sent beside it, in order.
    pub beside: Vec<Beside>,
    /// And what is known about it.
    pub summary: Summary,
}

/// Waits for the end of an answer that `model` writes.
pub async fn collect(mut events: AnswerStream, model: &str) -> Result<Answer, Error> {
    let (mut text, mut all_beside) = (String::new(), Vec::new());
    while let Some(event) = events.next().await {
        match event? {
            AnswerEvent::Delta(delta) => text.push_str(&delta),
            AnswerEvent::Beside(beside) => all_beside.push(beside),
            AnswerEvent::Done(summary) => return Ok(Answer { text, beside: all_beside, summary: *summary }),
        }
    }
    Err(Error::Unfinished { model: model.to_owned() })
}
