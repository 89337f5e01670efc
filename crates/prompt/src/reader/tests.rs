use super::*;
use crate::citations::read_citations;
use crate::render::tests::snippet;
use proptest::prelude::*;

fn sources() -> [Snippet; 3] {
    [
        snippet("returns.md", "Window", "You have 45 days to send your grinder back."),
        snippet("fees.md", "Fees", "Postage for a return costs 4.90 euro within Austria."),
        snippet("hours.md", "Hours", "The workshop in Graz opens at nine on Saturdays."),
    ]
}

fn cut(text: &str, citation: &Citation) -> String {
    text.chars().skip(citation.start).take(citation.end - citation.start).collect()
}

/// Reads an answer that comes in these pieces; `says` answers questions about the wording.
fn read(pieces: &[&str], rules: ReadingRules, says: bool) -> (String, CitationReport) {
    let mut reader = AnswerReader::new("", &sources(), rules);
    let mut shown = String::new();
    let mut drain = |reader: &mut AnswerReader| {
        while let Some(step) = reader.step() {
            match step {
                Step::Text(text) => {
                    assert!(!text.is_empty());
                    shown.push_str(&text);
                }
                Step::Check { .. } => reader.resolve(says),
            }
        }
    };
    for piece in pieces {
        reader.push(piece);
        drain(&mut reader);
    }
    reader.end();
    drain(&mut reader);
    assert_eq!(shown, reader.text());
    (shown, reader.report())
}

fn check(answer: &str, expect: &[(usize, &str, Basis)], unresolved: &[usize]) {
    let report = read_citations(answer, &sources());
    let found: Vec<(usize, String, Basis)> = report.citations.iter().map(|c| (c.number, cut(answer, c), c.basis)).collect();
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
    check("An array a[i], a [link](x), [1](x), `a[1]` and [1234] are no markers.", &[], &[]);
    check("```\na[1]\n``` and `b[2]` but [3]", &[(3, "[3]", Marker)], &[]);
    check("The postage costs 4.90 euro.", &[(2, "The postage costs 4.90 euro.", Overlap)], &[]);
    check(
        "You have 45 days to send it back [9]. The workshop opens at nine.",
        &[(1, "You have 45 days to send it back [9].", Overlap), (3, "The workshop opens at nine.", Overlap)],
        &[9],
    );
    check("", &[], &[]);
}

#[test]
fn what_becomes_of_a_citation_is_the_policys_choice() {
    use CitationPolicy::{Remove, Repair, Report};
    let run = |answer: &str, policy| {
        let (text, report) = read(&[answer], ReadingRules { policy, ..ReadingRules::default() }, false);
        let statuses: Vec<String> = report.citations.iter().map(|c| format!("{} {:?} {:?}", c.number, c.basis, c.status)).collect();
        format!(
            "{text} | {} | removed {:?} unresolved {:?}",
            statuses.join(", "),
            report.removed.iter().map(|r| r.number).collect::<Vec<_>>(),
            report.unresolved
        )
    };
    let lines: Vec<String> = [
        "You have 45 days to send it back [1].",
        "You have 30 days to send it back [1].",
        "Postage costs 4.90 euro [3] within Austria.",
        "You have 45 days to send it back [1] and postage costs 4.90 euro [2][3].",
        "The workshop opens at nine [8].",
        "It was built by monks in 1702 [2]!",
        "Yes [1].",
    ]
    .iter()
    .flat_map(|answer| {
        [(Report, answer), (Remove, answer), (Repair, answer)].map(|(policy, answer)| format!("{policy:?}: {}", run(answer, policy)))
    })
    .collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
Report: You have 45 days to send it back [1]. | 1 Marker Supported | removed [] unresolved []
Remove: You have 45 days to send it back [1]. | 1 Marker Supported | removed [] unresolved []
Repair: You have 45 days to send it back [1]. | 1 Marker Supported | removed [] unresolved []
Report: You have 30 days to send it back [1]. | 1 Marker Unsupported | removed [] unresolved []
Remove: You have 30 days to send it back. |  | removed [1] unresolved []
Repair: You have 30 days to send it back. |  | removed [1] unresolved []
Report: Postage costs 4.90 euro [3] within Austria. | 3 Marker Unsupported | removed [] unresolved []
Remove: Postage costs 4.90 euro within Austria. | 2 Overlap Supported | removed [3] unresolved []
Repair: Postage costs 4.90 euro [2] within Austria. | 2 Marker Repaired | removed [] unresolved []
Report: You have 45 days to send it back [1] and postage costs 4.90 euro [2][3]. | 1 Marker Supported, 2 Marker Supported, 3 Marker Unsupported | removed [] unresolved []
Remove: You have 45 days to send it back [1] and postage costs 4.90 euro [2]. | 1 Marker Supported, 2 Marker Supported | removed [3] unresolved []
Repair: You have 45 days to send it back [1] and postage costs 4.90 euro [2]. | 1 Marker Supported, 2 Marker Supported | removed [3] unresolved []
Report: The workshop opens at nine [8]. | 3 Overlap Supported | removed [] unresolved [8]
Remove: The workshop opens at nine. | 3 Overlap Supported | removed [] unresolved [8]
Repair: The workshop opens at nine. | 3 Overlap Supported | removed [] unresolved [8]
Report: It was built by monks in 1702 [2]! | 2 Marker Unsupported | removed [] unresolved []
Remove: It was built by monks in 1702! |  | removed [2] unresolved []
Repair: It was built by monks in 1702! |  | removed [2] unresolved []
Report: Yes [1]. | 1 Marker Unchecked | removed [] unresolved []
Remove: Yes [1]. | 1 Marker Unchecked | removed [] unresolved []
Repair: Yes [1]. | 1 Marker Unchecked | removed [] unresolved []
");
}

#[test]
fn a_question_about_the_wording_is_asked_only_where_the_facts_agree() {
    let rules = ReadingRules { semantic: true, policy: CitationPolicy::Remove, ..ReadingRules::default() };
    let reworded = "Anything ordered may be handed in again during 45 days [1].";
    let status = |answer: &str, says: bool| read(&[answer], rules.clone(), says).1.citations.first().map(|citation| citation.status);
    assert_eq!(status(reworded, true), Some(CitationStatus::Supported));
    assert_eq!(status(reworded, false), None);
    assert_eq!(status("Anything ordered may be handed in again during 50 days [1].", true), None, "a wrong number is no matter of wording");
}

#[test]
fn unknown_links_lose_their_address_and_keep_their_text() {
    let links = LinkRule::Known(vec!["kettlewren.example".into()]);
    let rules = ReadingRules { links, ..ReadingRules::default() };
    let (text, report) = read(
        &[
            "See [the shop](https://kettlewren.example/a), [this](https://evil.test/?q=45) ![p](https://evil.test/p.png) and <img src='//evil.test/x'>45 days [1].",
        ],
        rules,
        false,
    );
    assert_eq!(text, "See [the shop](https://kettlewren.example/a), this p and 45 days [1].");
    assert_eq!((report.links_removed, report.citations.len()), (3, 1));
}

#[test]
fn no_more_is_held_back_than_a_marker_needs() {
    let mut reader = AnswerReader::new("", &sources(), ReadingRules { policy: CitationPolicy::Repair, ..ReadingRules::default() });
    let mut shown = |piece: &str| {
        reader.push(piece);
        let mut text = String::new();
        while let Some(Step::Text(more)) = reader.step() {
            text.push_str(&more);
        }
        text
    };
    assert_eq!(shown("You have"), "You have");
    assert_eq!(shown(" 45 days "), " 45 days");
    assert_eq!(shown("["), "");
    assert_eq!(shown("1"), "");
    assert_eq!(shown("]"), "");
    assert_eq!(shown("."), " [1].");
    assert_eq!(shown(" An [a"), " An [a");
}

/// Every kind of thing that the reader knows, whole and broken.
const PIECES: &[&str] = &[
    "You have 45 days",
    " to send it back",
    " 30 days",
    " Postage costs 4.90 euro",
    " in Graz",
    ".",
    ". ",
    "\n",
    "\n\n",
    " ",
    "   ",
    "[1]",
    " [2]",
    "[1, 3]",
    "[9]",
    "[",
    "]",
    "(",
    ")",
    "[12",
    "`",
    "``",
    "```",
    "```\n",
    "code[1]",
    "[x](https://evil.test/a)",
    "[x](https://kettlewren.example/a)",
    "![p](//evil.test)",
    "<",
    "<img src=",
    ">",
    "<b>",
    "!",
    "[r]: http://evil.test",
    "ä🚲",
    "\"free of charge\"",
];

fn rules() -> impl Strategy<Value = ReadingRules> {
    use CitationPolicy::{Refuse, Remove, Repair, Report};
    let policy = prop_oneof![Just(Report), Just(Repair), Just(Remove), Just(Refuse)];
    let links = prop_oneof![Just(LinkRule::Any), Just(LinkRule::Known(vec!["kettlewren.example".into()]))];
    (policy, links, any::<bool>()).prop_map(|(policy, links, semantic)| ReadingRules { policy, links, semantic })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_stream_reads_like_the_whole(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..16), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        rules in rules(), says in any::<bool>(),
    ) {
        let answer = pieces.concat();
        let whole = read(&[&answer], rules.clone(), says);
        let mut at: Vec<usize> = cuts.iter().map(|cut| answer.floor_char_boundary(cut.index(answer.len() + 1))).collect();
        at.extend([0, answer.len()]);
        at.sort_unstable();
        let parts: Vec<&str> = at.windows(2).map(|pair| &answer[pair[0]..pair[1]]).collect();
        prop_assert_eq!(&read(&parts, rules.clone(), says), &whole);
        let chars: Vec<String> = answer.chars().map(String::from).collect();
        prop_assert_eq!(&read(&chars.iter().map(String::as_str).collect::<Vec<_>>(), rules, says), &whole);
    }

    #[test]
    fn every_citation_resolves_and_lies_inside(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..16), rules in rules()) {
        let answer = pieces.concat();
        let policy = rules.policy;
        let (text, report) = read(&[&answer], rules, false);
        for citation in &report.citations {
            prop_assert!((1..=3).contains(&citation.number));
            prop_assert!(citation.start < citation.end && citation.end <= text.chars().count());
            prop_assert_eq!(citation.status == CitationStatus::Unsupported, citation.doubt.is_some());
            if citation.basis == Basis::Marker {
                prop_assert!(cut(&text, citation).contains(&citation.number.to_string()));
            }
            if policy != CitationPolicy::Report {
                prop_assert_ne!(citation.status, CitationStatus::Unsupported);
            }
        }
        if policy == CitationPolicy::Report && report.links_removed == 0 {
            prop_assert_eq!(text, answer);
        }
    }
}
