//! What is known about an answer, in OpenAI's words.

use groundtone_answer::{CitedSource, Summary};
use groundtone_openai_api::{Annotation, CompletionTokensDetails, PromptTokensDetails, UrlCitation, Usage};
use groundtone_types::TokenUsage;
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn annotations(summary: &Summary) -> Vec<Annotation> {
    let annotation = |citation: &CitedSource| Annotation {
        kind: "url_citation".to_owned(),
        url_citation: UrlCitation {
            start_index: citation.start,
            end_index: citation.end,
            url: citation.url.clone(),
            title: citation.title.clone(),
        },
    };
    summary.citations.iter().map(annotation).collect()
}

pub(crate) fn usage(usage: Option<TokenUsage>) -> Option<Usage> {
    usage.map(|usage| Usage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.total(),
        prompt_tokens_details: Some(PromptTokensDetails { cached_tokens: usage.cached_tokens }),
        completion_tokens_details: Some(CompletionTokensDetails { reasoning_tokens: usage.reasoning_tokens }),
    })
}

/// The `groundtone` object beside the answer: what was retrieved, what was cited and why, and where the time went.
pub(crate) fn extension(summary: &Summary) -> Value {
    let sources: Vec<Value> = summary
        .sources
        .iter()
        .enumerate()
        .map(|(at, source)| {
            let chunk = &source.chunk;
            json!({"number": at + 1, "document": chunk.document, "title": chunk.breadcrumb(), "url": chunk.url, "text": chunk.shown_text(), "score": source.score})
        })
        .collect();
    let mut object = json!({
        "trace_id": summary.trace_id,
        "model": summary.model,
        "variant": summary.variant,
        "prompt_fingerprint": summary.prompt_fingerprint,
        "abstained": summary.abstained,
        "citations": summary.citations,
        "unresolved_markers": summary.unresolved_markers,
        "removed_citations": summary.removed_citations,
        "links_removed": summary.links_removed,
        "sources": sources,
        "timings": summary.timings,
    });
    // Only where there is something to say.
    if let Some(because) = summary.abstained_because {
        object["abstained_because"] = json!(because);
    }
    if let Some(release) = &summary.release {
        object["release"] = json!(release);
        object["canary"] = json!(summary.canary);
    }
    if let Some(failed) = &summary.fell_back_from {
        object["fell_back_from"] = json!(failed);
    }
    if let Some(evidence) = summary.evidence {
        object["evidence"] = json!(evidence);
    }
    if let Some(query) = &summary.rewritten_query {
        object["rewritten_query"] = json!(query);
    }
    object
}

pub(crate) fn unix_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}
