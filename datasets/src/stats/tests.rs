use super::*;
use groundtone_prompt::OpenAiTokens;
use serde_json::{Value, json};
use std::path::Path;

fn settings(parts: &[(&str, &Path)]) -> StatsSettings {
    StatsSettings {
        parts: parts.iter().map(|(name, path)| ((*name).to_owned(), path.to_path_buf())).collect(),
        max_tokens: 65_536,
        max_line_bytes: 1 << 22,
        tokens: OpenAiTokens::for_model("gpt-4.1"),
        frame: Frame::OPENAI,
        prices: PriceTable::read(None).unwrap(),
        listed: 100,
        epochs: None,
        untuned_prompt_tokens: None,
    }
}

fn row(question: &str, answer: &str) -> Value {
    json!({"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]})
}

fn write(path: &Path, rows: &[Value]) {
    std::fs::write(path, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
}

/// The cookbook's count, written anew over tiktoken itself.
fn tiktoken(row: &Value) -> usize {
    let tokens = tiktoken_rs::o200k_base_singleton();
    let messages = row["messages"].as_array().unwrap().iter();
    let count = messages.map(|message| {
        let values = message.as_object().unwrap().iter().filter_map(|(key, value)| Some((key, value.as_str()?)));
        3 + values.map(|(key, value)| tokens.encode_ordinary(value).len() + usize::from(key == "name")).sum::<usize>()
    });
    count.sum::<usize>() + 3
}

#[test]
fn tokens_of_ten_thousand_rows_are_tiktokens() {
    let words = [
        "kettle",
        "Grüße",
        "30-day",
        "🚲",
        "検索",
        "can't",
        "€49.90",
        "\n\n",
        "{\"a\": 1}",
        "naïve",
        "  ",
        "RETURN",
        "don’t",
        "x²",
        "Ελλάδα",
    ];
    let mut state = 7u64;
    let mut word = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        words[(state >> 33) as usize % words.len()]
    };
    for at in 0..10_000 {
        let text: Vec<&str> = (0..12).map(|_| word()).collect();
        let mut row = row(&text[..8].join(" "), &text[8..].join(if at % 2 == 0 { " " } else { "" }));
        if at % 3 == 0 {
            row["messages"][1]["name"] = "Ann_1".into();
        }
        let ours = crate::tokens::row_tokens(&row, &*OpenAiTokens::for_model("gpt-4.1"), &Frame::OPENAI);
        assert_eq!(ours.total(), tiktoken(&row), "{row}");
    }
}

#[test]
fn every_finding_is_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let (train, test) = (folder.path().join("train.jsonl"), folder.path().join("test.jsonl"));
    let mut rows: Vec<Value> = (0..30)
        .map(|at| {
            row(
                &format!("Tell me about {} number {at}, please?", "abcdefghijklmnopqrstuvwxyzäöüß".chars().nth(at).unwrap()),
                "We are glad to help you!",
            )
        })
        .collect();
    rows.push(rows[3].clone());
    rows.push(row("Can I return the blue kettle after three weeks?", "Yes, within 30 days of delivery."));
    rows.push(row("can i return the blue kettle after three weeks", "No, only within 14 days of delivery."));
    rows.push(row("Where do I write to when the lid is broken?", "Write to ann.lee@example.org <script>alert(1)</script>"));
    rows.push(row(
        "Was kostet der Versand nach Irland, wenn ich heute noch bestelle und die Lieferung schon am nächsten Freitag brauche, weil wir danach in den Urlaub fahren?",
        "Shipping to Ireland is free of charge for every order that you place today, and the parcel will be with you by Thursday, so that you can leave for your holidays without having to wait for it.",
    ));
    write(&train, &rows);
    std::fs::write(&train, std::fs::read_to_string(&train).unwrap() + "no json\n").unwrap();
    write(&test, &[row("Can I return the blue kettle after three weeks!", "Yes."), row("Something else entirely, isn't it?", "Yes.")]);
    let settings = StatsSettings { max_tokens: 60, ..settings(&[("train", &train), ("test", &test)]) };
    let found = stats(&settings).unwrap();
    let part = &found.parts[0];
    assert_eq!((part.rows, part.unreadable.lines.as_slice()), (35, &[36][..]));
    assert_eq!(part.exact_duplicates.lines, [vec![4, 31]]);
    assert_eq!(part.conflicts.examples[0].lines, [32, 33]);
    assert_eq!(part.personal["email"].lines, [34]);
    assert_eq!(part.language_switches.lines, [35]);
    assert_eq!((found.leakage[0].by_text, &found.leakage[0].lines), (1, &vec![(1, 32)]));
    assert_eq!(part.over_limit.rows.lines, [35]);
    assert_eq!(part.tokens.by_role.values().sum::<u64>(), part.tokens.row.total);
    assert_eq!(part.tokens.row.bars.iter().sum::<u64>(), 35);
    let page = html(&found);
    for text in ["Contradictions", "personal data: email", "Between the parts", "pays after requests", "<svg"] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains("<script") && !page.contains("http"), "the page loads nothing and runs nothing");
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
}

#[test]
fn labels_are_told_from_answers_that_are_few_and_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.jsonl");
    let rows: Vec<Value> =
        (0..40).map(|at| row(&format!("message {at} {}", "x".repeat(at)), ["lost_card", "refund", "refund", "refund"][at % 4])).collect();
    write(&path, &rows);
    let labels = stats(&settings(&[("train", &path)])).unwrap().parts.remove(0).labels.unwrap();
    assert_eq!((labels.from, labels.labels, labels.most, labels.least), ("answers", 2, 30, 10));
    assert!((labels.balance - 0.811).abs() < 0.001);
    write(&path, &[row("q", "a long answer that is no label")]);
    assert!(stats(&settings(&[("train", &path)])).unwrap().parts[0].labels.is_none());
}

#[test]
fn an_empty_file_has_no_rows_and_no_cost() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.jsonl");
    std::fs::write(&path, "").unwrap();
    let found = stats(&settings(&[("train", &path)])).unwrap();
    assert_eq!((found.parts[0].rows, found.cost.billed_tokens, found.parts[0].tokens.row.bars.len()), (0, 0, 0));
    assert!(html(&found).contains("train: 0 rows"));
    assert!(stats(&settings(&[])).is_err());
}
