//! Markers put into an answer that a model is to learn, and taken out of one.

use crate::marker::markers_in;
use crate::overlap::best_source;
use crate::sentences::sentences;
use crate::support::Facts;
use groundtone_types::Snippet;

/// A stretch of a source, word for word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// The source's number in the prompt, from 1.
    pub number: usize,
    /// The words.
    pub text: String,
}

/// The answer without its markers: they name the sources of some other prompt. A space before a marker goes with it.
pub fn strip_citations(answer: &str) -> String {
    let mut out = String::with_capacity(answer.len());
    let mut from = 0;
    for marker in markers_in(answer) {
        out.push_str(answer[from..marker.start].trim_end_matches(' '));
        from = marker.end;
    }
    out.push_str(&answer[from..]);
    out.trim().to_owned()
}

/// Puts the number of its source behind every sentence that rests on one, before the full stop, as the template's worked example does.
///
/// A sentence's source is found as [`read_citations`](crate::read_citations) finds it where a model wrote no marker. Where no sentence has one,
/// the sentence that has most in common with `fallback` (a number, from 1) is given that one; without a fallback the answer stays as it is.
pub fn write_citations(answer: &str, sources: &[Snippet], fallback: Option<usize>) -> String {
    let words: Vec<Facts> = sources.iter().map(Facts::of_snippet).collect();
    let ranges = sentences(answer, &[]);
    let mut marks: Vec<(usize, usize)> =
        ranges.iter().filter_map(|&(start, end)| Some((end, best_source(&answer[start..end], &words)? + 1))).collect();
    if marks.is_empty()
        && let Some(number) = fallback
        && let Some(source) = number.checked_sub(1).and_then(|at| words.get(at))
    {
        let best = ranges.iter().rev().max_by(|a, b| source.share(&answer[a.0..a.1]).total_cmp(&source.share(&answer[b.0..b.1])));
        marks.extend(best.map(|&(_, end)| (end, number)));
    }
    let mut out = answer.to_owned();
    for (end, number) in marks.into_iter().rev() {
        let sentence = answer[..end].trim_end();
        let at = sentence.trim_end_matches(['.', '!', '?', '…', '。', ':', ';']).trim_end().len();
        let at = if at == 0 { sentence.len() } else { at };
        out.insert_str(at, &format!(" [{number}]"));
    }
    out
}

/// Quotes first, each with its source's number, then the answer (chain of thought with quotes, Zhang et al., "RAFT", 2024, in this template's own form).
pub fn quote_then_answer(quotes: &[Quote], answer: &str) -> String {
    if quotes.is_empty() {
        return answer.to_owned();
    }
    let lines: Vec<String> = quotes
        .iter()
        .map(|quote| format!("\"{}\" [{}]", quote.text.split_whitespace().collect::<Vec<_>>().join(" "), quote.number))
        .collect();
    format!("{}\n\n{answer}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::snippet;
    use crate::{Basis, TemplateVersion, read_citations};
    use proptest::prelude::*;

    fn sources() -> [Snippet; 3] {
        [
            snippet("returns.md", "Window", "You have 45 days to send your grinder back."),
            snippet("fees.md", "Fees", "Postage for a return costs 4.90 euro within Austria."),
            snippet("hours.md", "Hours", "The workshop in Graz opens at nine on Saturdays."),
        ]
    }

    fn check(answer: &str, fallback: Option<usize>, expect: &str) {
        assert_eq!(write_citations(answer, &sources(), fallback), expect);
    }

    #[test]
    fn markers_are_written_as_the_worked_example_writes_them() {
        check("You have 45 days.", None, "You have 45 days [1].");
        check("You have 45 days. Postage costs 4.90 euro.", None, "You have 45 days [1]. Postage costs 4.90 euro [2].");
        check("Postage costs 4.90 euro", None, "Postage costs 4.90 euro [2]");
        check("Hello there!\nThe workshop opens at nine on Saturdays!", None, "Hello there!\nThe workshop opens at nine on Saturdays [3]!");
        check("Sure. Just ship it home, any grinder will do.", None, "Sure. Just ship it home, any grinder will do.");
        check("Sure. Just ship it home, any grinder will do.", Some(1), "Sure. Just ship it home, any grinder will do [1].");
        check("Sure. Just ship it home.", Some(9), "Sure. Just ship it home.");
        check("", Some(1), "");
    }

    #[test]
    fn markers_are_taken_out() {
        assert_eq!(strip_citations("You have 45 days [1]. It opens at nine [2, 3]."), "You have 45 days. It opens at nine.");
        assert_eq!(strip_citations("An array a[i] stays.[12]"), "An array a[i] stays.");
    }

    #[test]
    fn quotes_come_first() {
        let quotes = [Quote { number: 2, text: "costs\n4.90 euro".into() }, Quote { number: 1, text: "45 days".into() }];
        let text = quote_then_answer(&quotes, "It costs 4.90 euro [2].");
        insta::assert_snapshot!(text, @r#"
        "costs 4.90 euro" [2]
        "45 days" [1]

        It costs 4.90 euro [2].
        "#);
        assert!(TemplateVersion::V1.stops().iter().all(|stop| !text.contains(stop)), "a stop string would end the answer after its quotes");
        assert_eq!(quote_then_answer(&[], "x"), "x");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_what_is_taken_out_is_the_answer(
            parts in proptest::collection::vec(prop_oneof![
                Just("You have 45 days to send it back."), Just("Postage costs 4.90 euro."), Just("It opens at nine on Saturdays!"), Just("All the best."), Just("Hi 🚲"), Just("7"),
            ], 1..6), fallback in proptest::option::of(1usize..4),
        ) {
            let answer = parts.join(" ");
            let cited = write_citations(&answer, &sources(), fallback);
            prop_assert_eq!(strip_citations(&cited), answer);
            let report = read_citations(&cited, &sources());
            prop_assert!(report.unresolved.is_empty());
            prop_assert!(report.citations.iter().all(|citation| citation.basis == Basis::Marker), "{}", cited);
        }
    }
}
