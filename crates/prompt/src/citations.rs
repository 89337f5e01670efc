//! What is known about the citations of an answer.

use crate::reader::{AnswerReader, ReadingRules, Step};
use crate::support::Doubt;
use groundtone_types::Snippet;
use serde::Serialize;

/// On what a citation rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The model wrote the source's number.
    Marker,
    /// The model wrote no number in this sentence, but most of its telling words stand in this source and in no better one.
    Overlap,
}

/// Whether the source of a citation says what the answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CitationStatus {
    /// Numbers, names, quotations and enough of the words stand in it.
    Supported,
    /// The model named another source; this one supports the claim.
    Repaired,
    /// The claim says something that the source does not.
    Unsupported,
    /// The claim holds nothing that could be compared (a bare "Yes").
    Unchecked,
}

/// A stretch of the answer and the source it rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Citation {
    /// The source's number in the prompt, from 1.
    pub number: usize,
    /// First character (not byte) of the marker, or of the sentence where there is none.
    pub start: usize,
    /// One past the last character.
    pub end: usize,
    /// Why this source.
    pub basis: Basis,
    /// Whether it says so.
    pub status: CitationStatus,
    /// What it does not say; `None` unless it is unsupported.
    pub doubt: Option<Doubt>,
}

/// A citation that was taken out of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedCitation {
    /// The source's number in the prompt, from 1.
    pub number: usize,
    /// What the source does not say.
    pub doubt: Doubt,
}

/// Everything that was read out of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CitationReport {
    /// Citations in the order of the text. Every number resolves to a source of the prompt.
    pub citations: Vec<Citation>,
    /// Numbers that the model wrote although there is no such source. They are never emitted as citations.
    pub unresolved: Vec<usize>,
    /// Citations of sources that do not say what was claimed, and that the policy took out.
    pub removed: Vec<RemovedCitation>,
    /// Links and pictures whose address was taken out.
    pub links_removed: usize,
}

impl CitationReport {
    /// Every citation is supported (or holds nothing to check), none was taken out, and there is at least one.
    pub fn is_sound(&self) -> bool {
        let good = |citation: &Citation| citation.status != CitationStatus::Unsupported;
        !self.citations.is_empty() && self.citations.iter().all(good) && self.unresolved.is_empty() && self.removed.is_empty()
    }
}

/// Reads the citations of a whole answer as it stands. A pure function of the text and the prompt's sources.
pub fn read_citations(answer: &str, sources: &[Snippet]) -> CitationReport {
    let mut reader = AnswerReader::new("", sources, ReadingRules::default());
    reader.push(answer);
    reader.end();
    while let Some(step) = reader.step() {
        if matches!(step, Step::Check { .. }) {
            reader.resolve(false);
        }
    }
    reader.report()
}
