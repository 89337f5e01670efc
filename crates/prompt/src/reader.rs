//! The way back from text to sources, while the text is being written.

use crate::citations::{Basis, Citation, CitationReport, CitationStatus, RemovedCitation};
use crate::links::{AllowedLinks, Found, LinkRule, link_at};
use crate::marker::{GroupAt, Marker, group_at};
use crate::overlap::best_source;
use crate::sentences::{last_claim, sentences};
use crate::support::{Claim, Doubt, Facts};
use groundtone_types::Snippet;
use serde::{Deserialize, Serialize};

/// A run of blanks is held back until it is known what follows it, up to so many bytes.
const LONGEST_BLANKS: usize = 64;

/// What becomes of a citation whose source does not say what the answer says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CitationPolicy {
    /// It stays, and its status says so.
    #[default]
    Report,
    /// Another source of the prompt that says it takes its place; if there is none, the marker is removed.
    Repair,
    /// The marker is removed.
    Remove,
    /// As `Remove`, and whoever shows the answer withholds all of it.
    Refuse,
}

/// How an answer is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadingRules {
    /// For citations.
    pub policy: CitationPolicy,
    /// For links.
    pub links: LinkRule,
    /// Whether [`Step::Check`] is asked where only the wording is in doubt.
    pub semantic: bool,
}

/// One step of reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More of the text as it may be shown; never empty.
    Text(String),
    /// Numbers, names and quotations of `claim` stand in the sources, but too few of its words do: does one of these sources say it? Answer with [`AnswerReader::resolve`].
    Check {
        /// The stretch of the answer, without markers.
        claim: String,
        /// Numbers of the sources that are named for it, from 1.
        sources: Vec<usize>,
    },
}

/// Reads an answer piece by piece: finds markers, checks what they are put behind, and lets pass what may be shown.
///
/// What comes out depends on the whole text only, never on the pieces: a stream and a single reply give the same. No more is held back than a marker or a link needs.
/// Text inside code spans and fences is not touched.
pub struct AnswerReader {
    facts: Vec<Facts>,
    question: Facts,
    rules: ReadingRules,
    allowed: AllowedLinks,
    shown: String,
    /// So much of `shown` has left in steps.
    given: usize,
    pending: String,
    ended: bool,
    code: Code,
    waiting: Option<Group>,
    ask: Option<Step>,
    /// Where the text behind the last group of markers begins, and the claim before it.
    after_markers: usize,
    claim: String,
    placed: Vec<Placed>,
    report: CitationReport,
}

/// Where in code the text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    Outside,
    /// Behind so many backticks; fewer than three end with their line.
    Inside(usize),
}

/// Markers that stand together, and the claim before them.
struct Group {
    blanks: String,
    text: String,
    markers: Vec<Marker>,
    numbers: Vec<usize>,
    unresolved: bool,
    claim: Claim,
}

/// A marker in the text that is shown, in bytes.
struct Placed {
    start: usize,
    end: usize,
    cited: Vec<(usize, CitationStatus, Option<Doubt>)>,
}

/// What is known of one number of a group.
type Verdict = (usize, CitationStatus, Option<Doubt>);

impl AnswerReader {
    /// Reads an answer to `question` from `sources`; number `n` is `sources[n - 1]`.
    pub fn new(question: &str, sources: &[Snippet], rules: ReadingRules) -> Self {
        let allowed = AllowedLinks::new(rules.links.clone(), sources.iter().map(|source| source.chunk.url.clone()));
        Self {
            facts: sources.iter().map(Facts::of_snippet).collect(),
            question: Facts::of(question),
            rules,
            allowed,
            shown: String::new(),
            given: 0,
            pending: String::new(),
            ended: false,
            code: Code::Outside,
            waiting: None,
            ask: None,
            after_markers: 0,
            claim: String::new(),
            placed: Vec::new(),
            report: CitationReport::default(),
        }
    }

    /// The next piece of the model's text.
    pub fn push(&mut self, delta: &str) {
        self.pending.push_str(delta);
    }

    /// Nothing follows.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// What can be shown or must be asked now; `None` until there is more text, or an answer to the last [`Step::Check`].
    pub fn step(&mut self) -> Option<Step> {
        while self.waiting.is_none() {
            match self.advance() {
                None => break,
                Some(ask) => self.ask = ask,
            }
        }
        if self.shown.len() > self.given {
            // What comes before a question is shown before it is asked.
            let text = self.shown[self.given..].to_owned();
            self.given = self.shown.len();
            return Some(Step::Text(text));
        }
        self.ask.take()
    }

    /// Answers the last [`Step::Check`]: whether one of the sources says it.
    pub fn resolve(&mut self, supported: bool) {
        if let Some(group) = self.waiting.take() {
            let doubt = if supported { None } else { Some(Doubt::Words) };
            self.place(&group, doubt);
        }
    }

    /// The text as it is shown so far.
    pub fn text(&self) -> &str {
        &self.shown
    }

    /// What was read. Sentences without a marker are cited to the source that holds most of their words.
    pub fn report(mut self) -> CitationReport {
        let mut report = std::mem::take(&mut self.report);
        let spans: Vec<(usize, usize)> = self.placed.iter().map(|placed| (placed.start, placed.end)).collect();
        let mut position = CharPosition::default();
        for (start, end) in sentences(&self.shown, &spans) {
            let mut resolved = false;
            for placed in self.placed.iter().filter(|placed| placed.start >= start && placed.end <= end) {
                let (first, last) = (position.of(&self.shown, placed.start), position.of(&self.shown, placed.end));
                for (number, status, doubt) in &placed.cited {
                    resolved = true;
                    report.citations.push(Citation {
                        number: *number,
                        start: first,
                        end: last,
                        basis: Basis::Marker,
                        status: *status,
                        doubt: doubt.clone(),
                    });
                }
            }
            if !resolved {
                self.cite_by_words(start, end, &mut position, &mut report);
            }
        }
        report
    }

    fn cite_by_words(&self, start: usize, end: usize, position: &mut CharPosition, report: &mut CitationReport) {
        let sentence = &self.shown[start..end];
        let Some(source) = best_source(sentence, &self.facts) else { return };
        let doubt = Claim::of(&without_markers(sentence, start, &self.placed)).doubt(&[&self.facts[source]], &self.question);
        let status = if doubt.is_some() { CitationStatus::Unsupported } else { CitationStatus::Supported };
        if doubt.is_some() && self.rules.policy != CitationPolicy::Report {
            return;
        }
        let (lead, trail) = (sentence.len() - sentence.trim_start().len(), sentence.trim_end().len());
        let (first, last) = (position.of(&self.shown, start + lead), position.of(&self.shown, start + trail));
        report.citations.push(Citation { number: source + 1, start: first, end: last, basis: Basis::Overlap, status, doubt });
    }

    /// Moves what is certain from `pending` to `shown`. `None`: nothing is, before more text comes. `Some(Some(_))`: a question.
    fn advance(&mut self) -> Option<Option<Step>> {
        if self.pending.is_empty() {
            return None;
        }
        if let Code::Inside(ticks) = self.code {
            return self.in_code(ticks);
        }
        let special = self.pending.find(['`', '[', '!', '<']).unwrap_or(self.pending.len());
        let blanks = self.pending[..special].trim_end().len();
        let hold = special - blanks <= LONGEST_BLANKS && !(self.ended && special == self.pending.len());
        let plain = if hold { blanks } else { special };
        if plain > 0 {
            self.show(plain);
            return Some(None);
        }
        match self.pending[special..].bytes().next() {
            None => None,
            Some(b'`') => self.backticks(special),
            Some(b'[') => self.bracket(special),
            Some(_) => self.link(special),
        }
    }

    /// Shows the first `length` bytes of what is pending.
    fn show(&mut self, length: usize) {
        self.shown.push_str(&self.pending[..length]);
        self.pending.drain(..length);
    }

    fn backticks(&mut self, at: usize) -> Option<Option<Step>> {
        let run = self.pending[at..].len() - self.pending[at..].trim_start_matches('`').len();
        if at + run == self.pending.len() && !self.ended {
            return None;
        }
        self.show(at + run);
        self.code = Code::Inside(run);
        Some(None)
    }

    fn in_code(&mut self, ticks: usize) -> Option<Option<Step>> {
        let mut from = 0;
        loop {
            let Some(next) = self.pending[from..].find(['`', '\n']).map(|at| at + from) else {
                self.show(self.pending.len());
                return Some(None);
            };
            if self.pending[next..].starts_with('\n') {
                if ticks < 3 {
                    self.show(next + 1);
                    self.code = Code::Outside;
                    return Some(None);
                }
                from = next + 1;
                continue;
            }
            let run = self.pending[next..].len() - self.pending[next..].trim_start_matches('`').len();
            if next + run == self.pending.len() && !self.ended {
                if next == 0 {
                    return None;
                }
                self.show(next);
                return Some(None);
            }
            if run == ticks || (ticks >= 3 && run > ticks) {
                self.show(next + run);
                self.code = Code::Outside;
                return Some(None);
            }
            from = next + run;
        }
    }

    fn link(&mut self, at: usize) -> Option<Option<Step>> {
        match link_at(&self.pending[at..], self.ended, &self.allowed) {
            Found::NeedMore => None,
            Found::Nothing => {
                self.show(at + 1);
                Some(None)
            }
            Found::Link(length, replacement, cut) => {
                self.shown.push_str(&self.pending[..at]);
                self.shown.push_str(&replacement);
                self.pending.drain(..at + length);
                self.report.links_removed += usize::from(cut);
                Some(None)
            }
        }
    }

    fn bracket(&mut self, at: usize) -> Option<Option<Step>> {
        match link_at(&self.pending[at..], self.ended, &self.allowed) {
            Found::Nothing => {}
            Found::NeedMore | Found::Link(..) => return self.link(at),
        }
        let (length, markers) = match group_at(&self.pending[at..], self.ended) {
            GroupAt::NeedMore => return None,
            GroupAt::Nothing => {
                self.show(at + 1);
                return Some(None);
            }
            GroupAt::Group(length, markers) => (length, markers),
        };
        let text = self.pending[at..at + length].to_owned();
        let blanks = self.pending[..at].to_owned();
        self.pending.drain(..at + length);
        if let Some(claim) = last_claim(&self.shown, self.after_markers) {
            self.claim = claim.to_owned();
        }
        let mut numbers: Vec<usize> = Vec::new();
        let mut unresolved = false;
        for number in markers.iter().flat_map(|marker| marker.numbers.iter().copied()) {
            if !(1..=self.facts.len()).contains(&number) {
                unresolved = true;
                self.report.unresolved.push(number);
            } else if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        let group = Group { blanks, text, markers, numbers, unresolved, claim: Claim::of(&self.claim) };
        let doubt = group.claim.doubt(&self.cited(&group.numbers), &self.question);
        if doubt == Some(Doubt::Words) && self.rules.semantic && !group.numbers.is_empty() {
            let ask = Step::Check { claim: self.claim.clone(), sources: group.numbers.clone() };
            self.waiting = Some(group);
            return Some(Some(ask));
        }
        self.place(&group, doubt);
        Some(None)
    }

    fn cited(&self, numbers: &[usize]) -> Vec<&Facts> {
        numbers.iter().map(|number| &self.facts[number - 1]).collect()
    }

    /// Decides over a group and shows what is left of it.
    fn place(&mut self, group: &Group, doubt: Option<Doubt>) {
        let verdicts = self.judge(group, doubt);
        let kept: Vec<Verdict> = match self.rules.policy {
            CitationPolicy::Report => verdicts,
            _ => {
                let (kept, gone): (Vec<_>, Vec<_>) =
                    verdicts.into_iter().partition(|(_, status, _)| *status != CitationStatus::Unsupported);
                let removed = gone.into_iter().filter_map(|(number, _, doubt)| Some(RemovedCitation { number, doubt: doubt? }));
                self.report.removed.extend(removed);
                kept
            }
        };
        let as_written = self.rules.policy == CitationPolicy::Report
            || (!group.unresolved
                && kept.len() == group.numbers.len()
                && kept.iter().all(|(_, status, _)| *status != CitationStatus::Repaired));
        if as_written {
            self.shown.push_str(&group.blanks);
            let base = self.shown.len();
            self.shown.push_str(&group.text);
            for marker in &group.markers {
                let cited = marker.numbers.iter().filter_map(|number| kept.iter().find(|(kept, ..)| kept == number).cloned()).collect();
                self.placed.push(Placed { start: base + marker.start, end: base + marker.end, cited });
            }
        } else if kept.is_empty() {
            // Blanks that were shown already stay; the others go with the marker, unless they separate lines.
            if self.shown.ends_with(char::is_whitespace) || self.shown.is_empty() || group.blanks.contains('\n') {
                self.shown.push_str(&group.blanks);
            }
        } else {
            self.shown.push_str(&group.blanks);
            for verdict in kept {
                let start = self.shown.len();
                self.shown.push_str(&format!("[{}]", verdict.0));
                self.placed.push(Placed { start, end: self.shown.len(), cited: vec![verdict] });
            }
        }
        self.after_markers = self.shown.len();
    }

    fn judge(&self, group: &Group, doubt: Option<Doubt>) -> Vec<Verdict> {
        let each =
            |status: CitationStatus, doubt: Option<Doubt>| group.numbers.iter().map(|number| (*number, status, doubt.clone())).collect();
        if group.numbers.is_empty() {
            return Vec::new();
        }
        if group.claim.is_empty() {
            return each(CitationStatus::Unchecked, None);
        }
        let Some(doubt) = doubt else {
            // Together they say it; one that adds nothing to it is named in vain.
            let alone = group.numbers.len() == 1;
            let judge = |number: &usize| match alone || self.facts[number - 1].holds(&group.claim) > 0 {
                true => (*number, CitationStatus::Supported, None),
                false => (*number, CitationStatus::Unsupported, Some(Doubt::Words)),
            };
            return group.numbers.iter().map(judge).collect();
        };
        if self.rules.policy == CitationPolicy::Repair {
            let others = (1..=self.facts.len()).filter(|number| !group.numbers.contains(number));
            let mut best: Option<(usize, f32)> = None;
            for number in others {
                let facts = &self.facts[number - 1];
                let share = group.claim.share(&[facts]);
                if group.claim.doubt(&[facts], &self.question).is_none() && best.is_none_or(|(_, most)| share > most) {
                    best = Some((number, share));
                }
            }
            if let Some((number, _)) = best {
                return vec![(number, CitationStatus::Repaired, None)];
            }
        }
        each(CitationStatus::Unsupported, Some(doubt))
    }
}

/// A sentence without its markers.
fn without_markers(sentence: &str, start: usize, placed: &[Placed]) -> String {
    let mut text = sentence.to_owned();
    for marker in placed.iter().rev().filter(|marker| marker.start >= start && marker.end <= start + sentence.len()) {
        text.replace_range(marker.start - start..marker.end - start, "");
    }
    text
}

/// Counts characters up to growing byte offsets without starting over each time.
#[derive(Default)]
struct CharPosition {
    byte: usize,
    chars: usize,
}

impl CharPosition {
    fn of(&mut self, text: &str, byte: usize) -> usize {
        if byte < self.byte {
            *self = Self::default();
        }
        self.chars += text[self.byte..byte].chars().count();
        self.byte = byte;
        self.chars
    }
}

#[cfg(test)]
mod tests;
