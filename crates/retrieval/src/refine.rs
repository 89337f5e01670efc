//! What happens to a fused ranking before it is shown: newer and more trusted documents first, no text twice, variety, neighbours as one. Pure.

use crate::Explained;
use crate::fusion::sort;
use groundtone_index::date_of;
use groundtone_types::{Metadata, MetadataValue, Parent, Span, cosine};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use uuid::Uuid;

/// Most chunks that become one snippet: a longer one would not fit where several shorter ones do.
pub(crate) const MOST_MERGED: usize = 4;
const SECONDS_PER_DAY: f64 = 86_400.0;

/// Newer documents first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recency {
    /// The metadata key that holds a document's date, as text or in seconds since 1970.
    pub field: String,
    /// After so many days half of the boost is gone.
    pub half_life_days: f64,
    /// How much of the score depends on the age, 0 to 1: score x (1 - weight + weight x 0.5^(age / half-life)).
    pub weight: f32,
}

/// How far a source is trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trust {
    /// Beginning of a document's id or address; the longest that fits counts.
    pub prefix: String,
    /// The score is multiplied with it.
    pub weight: f32,
}

/// How a ranking is refined. The default changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Refinement {
    /// Newer documents first.
    pub recency: Option<Recency>,
    /// Sources that count for more, or for less.
    pub trust: Vec<Trust>,
    /// Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998): 1 is relevance alone, 0 is variety alone.
    pub mmr_lambda: Option<f32>,
    /// Chunks that follow one another under the same heading are shown as one snippet.
    pub merge_neighbours: bool,
}

/// A document's date in microseconds since 1970.
fn date(metadata: &Metadata, field: &str) -> Option<i64> {
    match metadata.get(field)? {
        MetadataValue::Text(text) => date_of(text),
        MetadataValue::Number(seconds) => seconds.as_f64().map(|seconds| (seconds * 1e6) as i64),
        _ => None,
    }
}

impl Recency {
    /// What a document's score is multiplied with at `now`, in seconds since 1970. One without a date is taken to be one half-life old; one from the future is new.
    fn factor(&self, metadata: &Metadata, now: i64) -> f32 {
        let age = date(metadata, &self.field).map(|date| (now as f64 - date as f64 / 1e6).max(0.0) / SECONDS_PER_DAY);
        let freshness = age.map_or(0.5, |days| 0.5f64.powf(days / self.half_life_days.max(f64::MIN_POSITIVE)));
        1.0 - self.weight + self.weight * freshness as f32
    }
}

impl Refinement {
    /// Weighs by age and trust, and puts the hits in order again. Scores must not be negative: a weight below 1 would lift them.
    pub fn weigh(&self, hits: &mut [Explained], now: i64) {
        if self.recency.is_none() && self.trust.is_empty() {
            return;
        }
        for hit in hits.iter_mut() {
            let chunk = &hit.snippet.chunk;
            let age = self.recency.as_ref().map_or(1.0, |recency| recency.factor(&chunk.metadata, now));
            let fits = |trust: &&Trust| chunk.document.as_str().starts_with(&trust.prefix) || chunk.url.starts_with(&trust.prefix);
            let trust = self.trust.iter().filter(fits).max_by_key(|trust| trust.prefix.len()).map_or(1.0, |trust| trust.weight);
            hit.snippet.score = hit.snippet.score.max(0.0) * age * trust;
        }
        sort(hits);
    }
}

/// The first `count` hits without what a better one shows already: the same text, but for white space, or a part of it.
pub fn without_repetition(hits: Vec<Explained>, count: usize) -> Vec<Explained> {
    let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (mut kept, mut shown): (Vec<Explained>, Vec<String>) = (Vec::new(), Vec::new());
    for hit in hits {
        if kept.len() == count {
            break;
        }
        let text = plain(hit.snippet.chunk.shown_text());
        if !shown.iter().any(|seen| seen.contains(&text)) {
            shown.push(text);
            kept.push(hit);
        }
    }
    kept
}

/// Picks `count` hits one after the other, each for its relevance (as a share of the best one's) and for being unlike those picked before. A hit without a vector is like none.
pub fn diversify(hits: Vec<Explained>, vectors: &HashMap<Uuid, Vec<f32>>, lambda: f32, count: usize) -> Vec<Explained> {
    let best = hits.iter().map(|hit| hit.snippet.score).fold(f32::MIN_POSITIVE, f32::max);
    let mut rest: Vec<(Explained, f32)> = hits.into_iter().map(|hit| (hit, 0.0)).collect();
    let mut picked: Vec<Explained> = Vec::new();
    while picked.len() < count {
        let value = |(hit, likeness): &(Explained, f32)| lambda * hit.snippet.score / best - (1.0 - lambda) * likeness;
        // The first of equals: the order of the ranking decides.
        let next = (0..rest.len()).reduce(|most, at| if value(&rest[at]) > value(&rest[most]) { at } else { most });
        let Some(next) = next else { break };
        let (hit, _) = rest.remove(next);
        if let Some(vector) = vectors.get(&hit.snippet.id) {
            for (other, likeness) in &mut rest {
                let like = vectors.get(&other.snippet.id).map_or(0.0, |other| cosine(vector, other));
                *likeness = likeness.max(like);
            }
        }
        picked.push(hit);
    }
    picked
}

/// Chunks that follow one another.
struct Run {
    /// In the order of the document; the best hit is `parts[best]`.
    parts: Vec<Explained>,
    best: usize,
}

impl Run {
    /// Whether this hit stands directly before or behind the run, in the same section, and there is room. A hit that shows its parent is whole already.
    fn takes(&self, hit: &Explained) -> bool {
        let (first, last) = (&self.parts[0].snippet.chunk, &self.parts[self.parts.len() - 1].snippet.chunk);
        let chunk = &hit.snippet.chunk;
        let same = chunk.document == first.document && chunk.heading_path == first.heading_path && chunk.metadata == first.metadata;
        let beside = chunk.ordinal + 1 == first.ordinal || chunk.ordinal == last.ordinal + 1;
        same && beside && self.parts.len() < MOST_MERGED && chunk.parent.is_none() && first.parent.is_none()
    }

    fn add(&mut self, hit: Explained) {
        if hit.snippet.chunk.ordinal < self.parts[0].snippet.chunk.ordinal {
            self.parts.insert(0, hit);
            self.best += 1;
        } else {
            self.parts.push(hit);
        }
    }

    /// The best hit, showing the text of the whole run as its parent: what is cited is still the stored chunk.
    fn merged(mut self) -> Explained {
        let (mut text, mut span) = (String::new(), Span { start: usize::MAX, end: 0 });
        for part in &self.parts {
            let chunk = &part.snippet.chunk;
            // Chunks may overlap: what both hold is written once.
            let shared = span.end.saturating_sub(chunk.span.start);
            match chunk.text.get(..shared) {
                _ if text.is_empty() => text.push_str(&chunk.text),
                Some(begin) if shared > 0 && text.ends_with(begin) => text.push_str(&chunk.text[shared..]),
                _ => {
                    text.push('\n');
                    text.push_str(&chunk.text);
                }
            }
            span = Span { start: span.start.min(chunk.span.start), end: span.end.max(chunk.span.end) };
        }
        let page = self.parts[0].snippet.chunk.page;
        let is_run = self.parts.len() > 1;
        let mut best = self.parts.swap_remove(self.best);
        if is_run {
            best.snippet.chunk.page = page;
            best.snippet.chunk.parent = Some(Parent { span, text });
        }
        best
    }
}

/// Takes hits in order and merges those that follow one another, up to `count` snippets. Looks no further than the first hit that has no place.
pub fn merge_neighbours(hits: Vec<Explained>, count: usize) -> Vec<Explained> {
    let mut runs: Vec<Run> = Vec::new();
    for hit in hits {
        match runs.iter().position(|run| run.takes(&hit)) {
            Some(at) => runs[at].add(hit),
            None if runs.len() < count => runs.push(Run { parts: vec![hit], best: 0 }),
            None => break,
        }
    }
    runs.into_iter().map(Run::merged).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::hit;
    use proptest::prelude::*;

    fn with(mut hit: Explained, score: f32, metadata: &str) -> Explained {
        hit.snippet.score = score;
        hit.snippet.chunk.metadata = serde_json::from_str(metadata).unwrap();
        hit
    }

    fn order(hits: &[Explained]) -> Vec<(&str, u32)> {
        hits.iter().map(|hit| (hit.snippet.chunk.document.as_str(), hit.snippet.chunk.ordinal)).collect()
    }

    const NOW: i64 = 1_767_225_600; // 2026-01-01

    #[test]
    fn newer_documents_come_first_and_the_undated_stand_in_the_middle() {
        let refinement =
            Refinement { recency: Some(Recency { field: "date".into(), half_life_days: 100.0, weight: 0.5 }), ..Refinement::default() };
        let mut hits = vec![
            with(hit("old", 0, "a"), 1.0, r#"{"date":"2024-01-01"}"#),
            with(hit("undated", 0, "b"), 1.0, "{}"),
            with(hit("new", 0, "c"), 1.0, r#"{"date":"2026-01-01"}"#),
            with(hit("half", 0, "d"), 0.9, r#"{"date":1758585600}"#),
        ];
        refinement.weigh(&mut hits, NOW);
        assert_eq!(order(&hits), [("new", 0), ("undated", 0), ("half", 0), ("old", 0)]);
        let scores: Vec<f32> = hits.iter().map(|hit| hit.snippet.score).collect();
        assert!((scores[0] - 1.0).abs() < 1e-6 && (scores[1] - 0.75).abs() < 1e-6 && (scores[2] - 0.675).abs() < 1e-4, "{scores:?}");
        assert!(scores[3] > 0.5 && scores[3] < 0.51, "{scores:?}");
    }

    #[test]
    fn the_longest_prefix_says_how_far_a_source_is_trusted() {
        let trust = |prefix: &str, weight| Trust { prefix: prefix.to_owned(), weight };
        let refinement = Refinement {
            trust: vec![trust("forum/", 0.5), trust("forum/staff/", 2.0), trust("https://example.test/blog", 0.1)],
            ..Refinement::default()
        };
        let mut hits = vec![
            with(hit("forum/a", 0, "a"), 1.0, "{}"),
            with(hit("guide", 0, "b"), 0.9, "{}"),
            with(hit("forum/staff/b", 0, "c"), 0.6, "{}"),
        ];
        hits.push(with(hit("blog", 0, "d"), 0.9, "{}"));
        refinement.weigh(&mut hits, NOW);
        assert_eq!(order(&hits), [("forum/staff/b", 0), ("guide", 0), ("forum/a", 0), ("blog", 0)]);
    }

    #[test]
    fn nothing_is_shown_twice() {
        let mut child = hit("c", 1, "two");
        child.snippet.chunk.parent = Some(Parent { span: Span { start: 0, end: 9 }, text: "one two\nthree".into() });
        let mut sibling = hit("c", 2, "three");
        sibling.snippet.chunk.parent = child.snippet.chunk.parent.clone();
        let hits = vec![child, sibling, hit("d", 0, "one  two three"), hit("e", 0, "two three"), hit("f", 0, "four")];
        assert_eq!(order(&without_repetition(hits, 9)), [("c", 1), ("f", 0)]);
    }

    #[test]
    fn variety_takes_the_other_one() {
        let hits = vec![with(hit("a", 0, "a"), 1.0, "{}"), with(hit("b", 0, "b"), 0.9, "{}"), with(hit("c", 0, "c"), 0.5, "{}")];
        let directions = [[1.0, 0.0], [0.99, 0.1], [0.0, 1.0]];
        let vectors = hits.iter().zip(directions).map(|(hit, vector)| (hit.snippet.id, vector.to_vec())).collect();
        assert_eq!(order(&diversify(hits.clone(), &vectors, 1.0, 2)), [("a", 0), ("b", 0)]);
        assert_eq!(order(&diversify(hits.clone(), &vectors, 0.5, 2)), [("a", 0), ("c", 0)]);
        assert_eq!(diversify(hits, &vectors, 0.5, 9).len(), 3);
    }

    fn at(ordinal: u32, start: usize, text: &str) -> Explained {
        let mut hit = hit("doc", ordinal, text);
        hit.snippet.chunk.span = Span { start, end: start + text.len() };
        hit
    }

    #[test]
    fn neighbours_become_one_snippet_and_what_they_share_is_written_once() {
        let hits = vec![at(2, 10, "klm nop"), hit("other", 0, "x"), at(1, 4, "efg hij klm"), at(4, 40, "far"), at(3, 20, "qrs")];
        let merged = merge_neighbours(hits, 2);
        assert_eq!(order(&merged), [("doc", 2), ("other", 0)]);
        // `far` had no place, so the list ends there.
        assert_eq!(merged[0].snippet.chunk.shown_text(), "efg hij klm\nklm nop");
        let touching = vec![at(2, 12, "klm nop"), at(1, 4, "efg hij klm"), at(3, 20, "qrs")];
        let merged = merge_neighbours(touching, 2);
        assert_eq!(merged[0].snippet.chunk.shown_text(), "efg hij klm nop\nqrs");
        assert_eq!(merged[0].snippet.chunk.parent.as_ref().map(|parent| parent.span), Some(Span { start: 4, end: 23 }));
        assert_eq!(merged[0].snippet.chunk.text, "klm nop");
    }

    #[test]
    fn sections_and_documents_stay_apart() {
        let mut elsewhere = at(3, 20, "qrs");
        elsewhere.snippet.chunk.heading_path = vec!["Another".into()];
        let merged = merge_neighbours(vec![at(2, 10, "a"), elsewhere, hit("other", 1, "b")], 5);
        assert_eq!(order(&merged), [("doc", 2), ("doc", 3), ("other", 1)]);
    }

    proptest! {
        #[test]
        fn refining_never_invents_or_repeats(ordinals in proptest::collection::btree_set(0u32..20, 1..12), count in 1usize..6, lambda in 0f32..1.0) {
            let hits: Vec<Explained> = ordinals.iter().rev().map(|ordinal| at(*ordinal, *ordinal as usize * 10, &format!("text {ordinal}."))).collect();
            let merged = merge_neighbours(hits.clone(), count);
            prop_assert!(merged.len() <= count);
            for ordinal in 0..20u32 {
                let holders = merged.iter().filter(|hit| hit.snippet.chunk.shown_text().lines().any(|line| line == format!("text {ordinal}."))).count();
                prop_assert!(holders <= usize::from(ordinals.contains(&ordinal)));
            }
            let picked = diversify(hits.clone(), &HashMap::new(), lambda, count);
            prop_assert_eq!(picked.len(), count.min(hits.len()));
            prop_assert_eq!(without_repetition(hits.clone(), count).len(), count.min(hits.len()));
        }
    }
}
