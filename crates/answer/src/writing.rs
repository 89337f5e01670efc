//! An answer between its first and its last token: what the model writes is read, checked, and let pass.

use crate::semantic::Comparison;
use crate::{AbstainReason, AnswerEvent, Error, Summary, Timings};
use futures::StreamExt;
use groundtone_prompt::{AnswerReader, CitationPolicy, CitationReport, ReadingRules, Step};
use groundtone_provider::{Beside, ChatEvent, ChatStream, FinishReason};
use groundtone_types::{Snippet, TokenUsage};
use std::collections::VecDeque;
use std::time::Instant;
use tracing::{Instrument, Span, field, info_span};

/// What is written, by whom, and from what.
pub(crate) struct Writing {
    pub(crate) events: ChatStream,
    pub(crate) sources: Vec<Snippet>,
    /// Judges claims whose wording alone is in doubt; without it they stay in doubt.
    pub(crate) comparison: Option<Comparison>,
    /// A claim that waits for it, and the sources that are named.
    pub(crate) check: Option<(String, Vec<usize>)>,
    /// How the model ended, until everything is read.
    pub(crate) finished: Option<(FinishReason, Option<TokenUsage>)>,
    /// What is known already; the rest is filled in at the end.
    pub(crate) summary: Summary,
    pub(crate) abstain: String,
    pub(crate) reader: AnswerReader,
    /// Nothing is shown before the whole answer has been read.
    pub(crate) withholds: bool,
    pub(crate) ready: VecDeque<AnswerEvent>,
    pub(crate) timings: Timings,
    pub(crate) started: Instant,
    pub(crate) called: Instant,
    /// The spans of the whole answer and of its writing; both last until it is written.
    pub(crate) answer: Span,
    pub(crate) span: Span,
    pub(crate) over: bool,
}

/// How an answer of these sources is read: by the assistant's rules where it is text over documents.
/// With tools or pictures the sources are not all that it rests on, so citations are reported only; of a format of the client's own nothing is changed.
pub(crate) fn rules_for(rules: &ReadingRules, extras: &groundtone_provider::ChatExtras) -> ReadingRules {
    if extras.is_formatted() {
        ReadingRules::default()
    } else if extras.is_plain() {
        rules.clone()
    } else {
        ReadingRules { policy: CitationPolicy::Report, semantic: false, ..rules.clone() }
    }
}

impl Writing {
    /// The next event, for [`futures::stream::unfold`].
    pub(crate) async fn next(mut self) -> Option<(Result<AnswerEvent, Error>, Self)> {
        loop {
            if self.over || !self.withholds {
                if let Some(event) = self.ready.pop_front() {
                    return Some((Ok(event), self));
                }
                if self.over {
                    return None;
                }
            }
            let (answer, span) = (self.answer.clone(), self.span.clone());
            if let Some((claim, numbers)) = self.check.take() {
                self.compare(&claim, &numbers).instrument(span).instrument(answer).await;
                continue;
            }
            let failed: Error = match self.events.next().instrument(span.clone()).instrument(answer.clone()).await {
                Some(Ok(event)) => {
                    answer.in_scope(|| span.in_scope(|| self.take(event)));
                    continue;
                }
                Some(Err(error)) => error.into(),
                None => Error::Unfinished { model: self.summary.model.clone() },
            };
            self.over = true;
            self.ready.clear();
            for span in [answer, span] {
                span.record("error", failed.kind().as_str());
            }
            return Some((Err(failed), self));
        }
    }

    fn take(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Delta(delta) => {
                if self.timings.first_token_ms == 0.0 {
                    self.timings.first_token_ms = milliseconds(self.called);
                    self.span.record("first_token_seconds", self.timings.first_token_ms / 1e3);
                }
                self.reader.push(&delta);
                self.read();
            }
            ChatEvent::Beside(beside) => self.ready.push_back(AnswerEvent::Beside(beside)),
            ChatEvent::Finished { reason, usage } => {
                self.reader.end();
                self.finished = Some((reason, usage));
                self.read();
            }
        }
    }

    /// Lets pass what is certain.
    fn read(&mut self) {
        while let Some(step) = self.reader.step() {
            match step {
                Step::Text(text) => self.ready.push_back(AnswerEvent::Delta(text)),
                Step::Check { claim, sources } if self.comparison.is_some() => {
                    // What was certain before it is shown first.
                    self.check = Some((claim, sources));
                    return;
                }
                Step::Check { .. } => self.reader.resolve(false),
            }
        }
        if let Some((reason, usage)) = self.finished.take() {
            self.finish(reason, usage);
        }
    }

    /// Asks the embedder whether these sources say the claim, and reads on.
    async fn compare(&mut self, claim: &str, numbers: &[usize]) {
        let span = info_span!(parent: &self.span, "answer.compare", supported = field::Empty);
        let supported = match &mut self.comparison {
            Some(comparison) => comparison.supports(claim, numbers, &self.sources).instrument(span.clone()).await,
            None => false,
        };
        span.record("supported", supported);
        self.reader.resolve(supported);
        self.read();
    }

    fn finish(&mut self, finish: FinishReason, usage: Option<TokenUsage>) {
        if let Some(usage) = usage {
            self.span.record("prompt_tokens", usage.prompt_tokens);
            self.span.record("cached_tokens", usage.cached_tokens);
            self.span.record("completion_tokens", usage.completion_tokens);
            self.span.record("reasoning_tokens", usage.reasoning_tokens);
        }
        self.span.record("finish", finish.as_str());
        let sources = std::mem::take(&mut self.sources);
        let span = info_span!(parent: &self.span, "answer.cite", citations = field::Empty);
        let says_so = self.reader.text().trim().starts_with(self.abstain.trim());
        let empty = AnswerReader::new("", &[], ReadingRules::default());
        let report = span.in_scope(|| std::mem::replace(&mut self.reader, empty).report());
        // An invented number is as unsupported as a wrong one.
        let refused = self.withholds && !says_so && !(report.removed.is_empty() && report.unresolved.is_empty());
        let because = if refused { Some(AbstainReason::Citations) } else { says_so.then_some(AbstainReason::Model) };
        if refused {
            self.withhold();
        }
        // The abstain text rests on nothing.
        let report = if because.is_some() { CitationReport { citations: Vec::new(), ..report } } else { report };
        let mut summary = self.summary.clone();
        summary.cite(report, &sources);
        span.record("citations", summary.citations.len());
        self.timings.total_ms = milliseconds(self.started);
        summary.sources = sources;
        summary.finish = finish;
        summary.usage = usage;
        summary.abstained = because.is_some();
        summary.abstained_because = because;
        summary.timings = self.timings;
        self.ready.push_back(AnswerEvent::Done(Box::new(summary)));
        self.over = true;
    }

    /// The abstain text in place of everything that was written; what came beside it may repeat it.
    fn withhold(&mut self) {
        let fields = self.ready.drain(..).filter_map(|event| match event {
            AnswerEvent::Beside(beside) if !beside.answer.is_empty() => Some(Beside { answer: beside.answer, ..Beside::default() }),
            _ => None,
        });
        self.ready = fields.map(AnswerEvent::Beside).collect();
        self.ready.push_back(AnswerEvent::Delta(self.abstain.trim().to_owned()));
    }
}

pub(crate) fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
