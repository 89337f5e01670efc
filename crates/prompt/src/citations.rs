use crate::overlap::{SourceWords, best_source};
use groundtone_types::Snippet;
use serde::Serialize;
use unicode_segmentation::UnicodeSegmentation;

/// On what a citation rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// The model wrote the source's number.
    Marker,
    /// The model wrote no number in this sentence, but most of its telling words stand in this source and in no better one.
    Overlap,
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
}

/// Everything that was read out of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CitationReport {
    /// Citations in the order of the text. Every number resolves to a source of the prompt.
    pub citations: Vec<Citation>,
    /// Numbers that the model wrote although there is no such source. They are never emitted as citations.
    pub unresolved: Vec<usize>,
}

/// A marker's numbers and the bytes that it takes.
pub(crate) struct Marker {
    pub(crate) start: usize,
    pub(crate) end: usize,
    numbers: Vec<usize>,
}

/// Reads the citations of a whole answer. A pure function of the text and the prompt's sources, so a stream and a single reply give the same.
pub fn read_citations(answer: &str, sources: &[Snippet]) -> CitationReport {
    let words: Vec<SourceWords> = sources.iter().map(SourceWords::of_snippet).collect();
    let markers = scan_markers(answer);
    let mut report = CitationReport::default();
    let mut position = CharPosition::default();
    for (start, end) in sentences(answer, &markers) {
        let inside: Vec<&Marker> = markers.iter().filter(|marker| marker.start >= start && marker.end <= end).collect();
        let mut resolved = false;
        for marker in &inside {
            let (first, last) = (position.of(answer, marker.start), position.of(answer, marker.end));
            for &number in &marker.numbers {
                if (1..=sources.len()).contains(&number) {
                    resolved = true;
                    report.citations.push(Citation { number, start: first, end: last, basis: Basis::Marker });
                } else {
                    report.unresolved.push(number);
                }
            }
        }
        if resolved {
            continue;
        }
        let sentence = &answer[start..end];
        if let Some(source) = best_source(sentence, &words) {
            let (lead, trail) = (sentence.len() - sentence.trim_start().len(), sentence.trim_end().len());
            let (first, last) = (position.of(answer, start + lead), position.of(answer, start + trail));
            report.citations.push(Citation { number: source + 1, start: first, end: last, basis: Basis::Overlap });
        }
    }
    report
}

/// `[1]`, `[1, 2]`, `[12]`: one to three digits each, at most eight numbers.
pub(crate) fn scan_markers(text: &str) -> Vec<Marker> {
    let mut markers = Vec::new();
    let mut from = 0;
    while let Some(open) = text[from..].find('[').map(|at| at + from) {
        from = open + 1;
        let Some(close) = text[from..].find([']', '[', '\n']).map(|at| at + from) else { break };
        if !text[close..].starts_with(']') {
            continue;
        }
        let numbers: Option<Vec<usize>> = text[from..close]
            .split(',')
            .map(|part| {
                Some(part.trim())
                    .filter(|p| (1..=3).contains(&p.len()) && p.bytes().all(|b| b.is_ascii_digit()))
                    .and_then(|p| p.parse().ok())
            })
            .collect();
        if let Some(numbers) = numbers.filter(|numbers| numbers.len() <= 8) {
            markers.push(Marker { start: open, end: close + 1, numbers });
            from = close + 1;
        }
    }
    markers
}

/// Sentences as byte ranges (UAX #29 and line ends); a marker right behind a full stop belongs to the sentence before it.
pub(crate) fn sentences(text: &str, markers: &[Marker]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (start, sentence) in text.split_sentence_bound_indices() {
        let end = start + sentence.len();
        let only_markers = {
            let mut rest = sentence.to_owned();
            for marker in markers.iter().rev().filter(|marker| marker.start >= start && marker.end <= end) {
                rest.replace_range(marker.start - start..marker.end - start, "");
            }
            rest.chars().all(|c| !c.is_alphanumeric())
        };
        let leading = markers
            .iter()
            .take_while(|m| m.start < end)
            .filter(|m| m.start >= start && text[start..m.start].trim().is_empty())
            .map(|m| m.end)
            .next();
        let splits_marker = markers.iter().any(|marker| marker.start < start && start < marker.end);
        match ranges.last_mut() {
            Some(last) if only_markers || splits_marker => last.1 = end,
            Some(last) if leading.is_some() => {
                let cut = leading.unwrap_or(start);
                last.1 = cut;
                ranges.push((cut, end));
            }
            _ => ranges.push((start, end)),
        }
    }
    ranges
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
mod tests {
    use super::*;
    use crate::render::tests::snippet;
    use proptest::prelude::*;

    fn check(answer: &str, expect: &[(usize, &str, Basis)], unresolved: &[usize]) {
        let sources = [
            snippet("returns.md", "Window", "You have 45 days to send your grinder back."),
            snippet("fees.md", "Fees", "Postage for a return costs 4.90 euro within Austria."),
            snippet("hours.md", "Hours", "The workshop in Graz opens at nine on Saturdays."),
        ];
        let report = read_citations(answer, &sources);
        let cut = |c: &Citation| answer.chars().skip(c.start).take(c.end - c.start).collect::<String>();
        let found: Vec<(usize, String, Basis)> = report.citations.iter().map(|c| (c.number, cut(c), c.basis)).collect();
        let expected: Vec<(usize, String, Basis)> = expect.iter().map(|(n, t, b)| (*n, (*t).to_owned(), *b)).collect();
        assert_eq!(found, expected, "{answer:?}");
        assert_eq!(report.unresolved, unresolved, "{answer:?}");
    }

    #[test]
    fn citations_are_read_out_of_answers() {
        use Basis::{Marker, Overlap};
        check("You have 45 days [1].", &[(1, "[1]", Marker)], &[]);
        check("Für Österreich: 4.90 [2] … 🚲 and [1, 3]", &[(2, "[2]", Marker), (1, "[1, 3]", Marker), (3, "[1, 3]", Marker)], &[]);
        check("You have 45 days. [1] It opens at nine. [3]", &[(1, "[1]", Marker), (3, "[3]", Marker)], &[]);
        check("Nothing to cite here.", &[], &[]);
        check("See [7].", &[], &[7]);
        check("An array a[i], a [link](x) and [1234] are no markers.", &[], &[]);
        check("The postage costs 4.90 euro.", &[(2, "The postage costs 4.90 euro.", Overlap)], &[]);
        check(
            "You have 45 days to send it back [9]. The workshop opens at nine.",
            &[(1, "You have 45 days to send it back [9].", Overlap), (3, "The workshop opens at nine.", Overlap)],
            &[9],
        );
        check("", &[], &[]);
    }

    proptest! {
        #[test]
        fn whatever_the_model_writes_every_citation_resolves_and_lies_inside(answer in "[a-z0-9 \\[\\],.äß🚲\n]{0,120}") {
            let sources = [snippet("a", "A", "alpha beta 12"), snippet("b", "B", "gamma delta 34")];
            let report = read_citations(&answer, &sources);
            for citation in &report.citations {
                prop_assert!((1..=2).contains(&citation.number));
                prop_assert!(citation.start < citation.end && citation.end <= answer.chars().count());
            }
        }
    }
}
