//! Which snippets a row shows: pure decisions over what retrieval brought.

use super::controls::RowKind;
use crate::Example;
use groundtone_prompt::Support;
use groundtone_types::{Chunk, Snippet};
use uuid::Uuid;

/// A chunk that holds an example's answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Oracle {
    pub(super) snippet: Snippet,
    /// Whether words show that it holds the answer; else the example's author said so, by naming the document.
    pub(super) shown: bool,
}

/// What a snippet shows the model.
fn shown(chunk: &Chunk) -> [String; 2] {
    [chunk.breadcrumb(), chunk.shown_text().to_owned()]
}

fn support(example: &Example, chunks: &[&Chunk]) -> Support {
    let texts: Vec<String> = chunks.iter().flat_map(|chunk| shown(chunk)).collect();
    Support::of(&example.question, &example.answer, &texts.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Every number of the answer is there, and most of its words; fewer words do where a number does.
fn holds(support: &Support) -> bool {
    let least = if support.numbers > 0 { 0.34 } else { 0.5 };
    support.words > 0 && support.numbers_matched == support.numbers && support.share() >= least
}

/// So much is there that a reader might find the answer: a snippet like this is no proof that there is none.
fn may_hold(support: &Support) -> bool {
    if support.numbers > 0 {
        support.numbers_matched > 0 && support.share() >= 0.15 || support.share() >= 0.4
    } else {
        support.share() >= 0.3
    }
}

/// Whether an example names this document: by its id, or by the end of it.
fn names(example: &Example, chunk: &Chunk) -> bool {
    let id = chunk.document.as_str();
    example.documents.iter().any(|name| id == name || id.strip_suffix(name.as_str()).is_some_and(|before| before.ends_with('/')))
}

/// The chunks among `pool` that hold the answer: for each document that the example names the best one, or else the best one of all that does so by its words.
pub(super) fn oracles(example: &Example, pool: &[Snippet]) -> Vec<Oracle> {
    let judged: Vec<(&Snippet, Support)> = pool.iter().map(|snippet| (snippet, support(example, &[&snippet.chunk]))).collect();
    // The first of the best: retrieval ranks what words leave equal.
    let best = |among: &mut dyn Iterator<Item = &(&Snippet, Support)>| -> Option<Oracle> {
        let mut found: Option<&(&Snippet, Support)> = None;
        for one in among {
            let weight = |judged: &(&Snippet, Support)| (judged.1.numbers_matched, judged.1.matched);
            if found.is_none_or(|known| weight(one) > weight(known)) {
                found = Some(one);
            }
        }
        found.map(|(snippet, support)| Oracle { snippet: (*snippet).clone(), shown: holds(support) })
    };
    if example.documents.is_empty() {
        return best(&mut judged.iter().filter(|(_, support)| holds(support))).into_iter().collect();
    }
    let inside = |chunk: &Chunk| example.span.is_none_or(|span| chunk.span.start < span.end && span.start < chunk.span.end);
    let mut found: Vec<Oracle> = Vec::new();
    for name in &example.documents {
        let one = Example { documents: vec![name.clone()], ..Example::default() };
        let oracle = best(&mut judged.iter().filter(|(snippet, _)| names(&one, &snippet.chunk) && inside(&snippet.chunk)));
        found.extend(oracle.filter(|oracle| found.iter().all(|known| known.snippet.id != oracle.snippet.id)));
    }
    found
}

/// Near misses for an example, best first: what is left of the pool when everything is gone that holds the answer, or may.
///
/// Gone are the oracles, what shows the same text, their neighbours in the document, whatever shares numbers or many words with the answer, and, where
/// an oracle does not show the answer by its words, its whole document, because then words cannot tell which of its parts say it too.
/// What is left does not hold the answer together either.
pub(super) fn near_misses(example: &Example, pool: &[Snippet], oracles: &[Oracle], count: usize) -> Vec<Snippet> {
    let apart = |snippet: &&Snippet| {
        let chunk = &snippet.chunk;
        let beside = |oracle: &Oracle| {
            let other = &oracle.snippet.chunk;
            other.shown_text() == chunk.shown_text()
                || other.document == chunk.document && (!oracle.shown || other.ordinal.abs_diff(chunk.ordinal) <= 1)
        };
        !oracles.iter().any(beside) && !may_hold(&support(example, &[chunk]))
    };
    let mut left: Vec<Snippet> = pool.iter().filter(apart).cloned().collect();
    left.truncate(count);
    while left.len() > 1 && holds(&support(example, &left.iter().map(|snippet| &snippet.chunk).collect::<Vec<_>>())) {
        left.pop();
    }
    left
}

/// The snippets of an oracle row, in retrieval's order: the oracles and, up to `count`, the best of the others.
pub(super) fn with_oracles(pool: &[Snippet], oracles: &[Oracle], count: usize) -> Vec<Snippet> {
    let oracles = &oracles[..oracles.len().min(count)];
    let is_oracle = |id: Uuid| oracles.iter().any(|oracle| oracle.snippet.id == id);
    let mut room = count - oracles.len();
    let mut chosen: Vec<Snippet> = Vec::with_capacity(count);
    for snippet in pool {
        let same = oracles.iter().any(|oracle| oracle.snippet.chunk.shown_text() == snippet.chunk.shown_text());
        if is_oracle(snippet.id) {
            chosen.push(snippet.clone());
        } else if room > 0 && !same {
            room -= 1;
            chosen.push(snippet.clone());
        }
    }
    // What retrieval did not find at all stands behind what it found.
    for oracle in oracles {
        if chosen.iter().all(|snippet| snippet.id != oracle.snippet.id) {
            chosen.push(oracle.snippet.clone());
        }
    }
    chosen
}

/// Whether a kind can be made of an example whose oracles are these, and if not, why.
pub(super) fn possible(kind: RowKind, oracles: &[Oracle], misses: usize) -> Result<(), &'static str> {
    match kind {
        RowKind::Served | RowKind::Plain => Ok(()),
        _ if oracles.is_empty() => Err("no chunk is known to hold the answer"),
        RowKind::Oracle => Ok(()),
        RowKind::Distractors | RowKind::NoAnswer if misses == 0 => Err("every snippet near the question may hold the answer"),
        RowKind::Distractors | RowKind::NoAnswer => Ok(()),
    }
}

/// The sentence of a source that has most of the answer, word for word.
pub(super) fn quote(example: &Example, source: &Snippet) -> Option<String> {
    let text = source.chunk.shown_text();
    let sentences = text.split_inclusive(['.', '!', '?', '\n']).map(str::trim).filter(|sentence| !sentence.is_empty());
    let mut best: Option<(Support, &str)> = None;
    for sentence in sentences {
        let support = Support::of(&example.question, &example.answer, &[sentence]);
        let weight = |support: &Support| (support.numbers_matched, support.matched);
        if support.matched > 0 && best.as_ref().is_none_or(|(known, _)| weight(&support) > weight(known)) {
            best = Some((support, sentence));
        }
    }
    best.map(|(_, sentence)| sentence.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundtone_types::{DocumentId, Span};

    fn snippet(document: &str, ordinal: u32, text: &str) -> Snippet {
        let chunk = Chunk {
            document: DocumentId::new(document).unwrap(),
            ordinal,
            span: Span { start: ordinal as usize * 100, end: ordinal as usize * 100 + text.len() },
            heading_path: vec![],
            title: "T".into(),
            url: "u".into(),
            text: text.into(),
            page: None,
            parent: None,
            metadata: Default::default(),
        };
        Snippet { id: chunk.point_id(), chunk, score: 1.0 }
    }

    fn example(answer: &str, documents: &[&str]) -> Example {
        Example {
            id: "x".into(),
            question: "How long is the return window?".into(),
            answer: answer.into(),
            documents: documents.iter().map(|name| (*name).to_owned()).collect(),
            ..Example::default()
        }
    }

    fn pool() -> Vec<Snippet> {
        vec![
            snippet("returns.md", 0, "Returns are sent to our workshop."),
            snippet("returns.md", 3, "You can send it back within 45 days of delivery."),
            snippet("faq.md", 0, "Send it back up to 45 days after delivery."),
            snippet("labels.md", 0, "The return label costs 6 euro."),
            snippet("returns.md", 9, "The window for exchanges is printed on the note."),
        ]
    }

    fn texts(snippets: &[Snippet]) -> Vec<&str> {
        snippets.iter().map(|snippet| snippet.chunk.text.as_str()).collect()
    }

    #[test]
    fn the_oracle_is_found_by_its_words_or_by_its_document() {
        let found = |example: &Example| oracles(example, &pool()).iter().map(|o| (o.snippet.chunk.ordinal, o.shown)).collect::<Vec<_>>();
        assert_eq!(found(&example("You have 45 days from delivery.", &[])), [(3, true)]);
        assert_eq!(found(&example("You have 45 days from delivery.", &["faq.md"])), [(0, true)]);
        // A paraphrase: the author's word counts.
        assert_eq!(found(&example("Plenty of time, a month and a half.", &["returns.md"])), [(0, false)]);
        assert_eq!(found(&example("Plenty of time, a month and a half.", &[])), []);
        let spanned = Example { span: Some(Span { start: 910, end: 915 }), ..example("Plenty of time.", &["returns.md"]) };
        assert_eq!(found(&spanned), [(9, false)]);
    }

    #[test]
    fn near_misses_hold_no_answer_although_a_second_document_repeats_it() {
        let example = example("You have 45 days from delivery.", &["returns.md"]);
        let found = oracles(&example, &pool());
        let misses = near_misses(&example, &pool(), &found, 4);
        assert_eq!(
            texts(&misses),
            ["Returns are sent to our workshop.", "The return label costs 6 euro.", "The window for exchanges is printed on the note."]
        );
        assert!(misses.iter().all(|miss| !may_hold(&support(&example, &[&miss.chunk]))));
    }

    #[test]
    fn a_paraphrase_takes_its_whole_document_along() {
        let example = example("Plenty of time, a month and a half.", &["returns.md"]);
        let misses = near_misses(&example, &pool(), &oracles(&example, &pool()), 4);
        assert!(misses.iter().all(|miss| miss.chunk.document.as_str() != "returns.md"), "{:?}", texts(&misses));
    }

    #[test]
    fn snippets_that_hold_the_answer_only_together_are_not_left_together() {
        let example = Example {
            question: "Who makes it?".into(),
            ..example("Anna paints, Bert fires, Clara glazes, Dora ships, Emil sells.", &["x.md"])
        };
        let pool = [
            snippet("a.md", 0, "Anna often paints."),
            snippet("b.md", 0, "Bert likes to fire."),
            snippet("c.md", 0, "Clara used to glaze."),
            snippet("d.md", 0, "Dora is new."),
        ];
        let misses = near_misses(&example, &pool, &[], 4);
        assert!(!misses.is_empty() && misses.len() < 4 && !holds(&support(&example, &misses.iter().map(|s| &s.chunk).collect::<Vec<_>>())));
    }

    #[test]
    fn an_oracle_row_keeps_retrievals_order_and_its_number_of_snippets() {
        let example = example("You have 45 days from delivery.", &[]);
        let found = oracles(&example, &pool());
        assert_eq!(
            texts(&with_oracles(&pool(), &found, 2)),
            ["Returns are sent to our workshop.", "You can send it back within 45 days of delivery."]
        );
        assert_eq!(
            texts(&with_oracles(&pool()[2..], &found, 2)),
            ["Send it back up to 45 days after delivery.", "You can send it back within 45 days of delivery."]
        );
        assert_eq!(texts(&with_oracles(&[], &found, 2)), ["You can send it back within 45 days of delivery."]);
    }

    #[test]
    fn the_quote_is_the_sentence_that_says_it() {
        let source = snippet("a.md", 0, "Kettles are made in Graz. You can send it back within 45 days of delivery. Keep the box!");
        assert_eq!(
            quote(&example("You have 45 days from delivery.", &[]), &source).as_deref(),
            Some("You can send it back within 45 days of delivery.")
        );
        assert_eq!(quote(&example("Nothing alike.", &[]), &source), None);
    }
}
