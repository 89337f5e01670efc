use super::*;
use proptest::prelude::*;

fn read(text: &str, ending: &str, options: &ReadOptions) -> Vec<Record> {
    let options = ReadOptions { max_record_bytes: 2_000, ..options.clone() };
    let stream = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
    Records::new(stream, Some(ending), &options).unwrap().collect::<std::io::Result<_>>().unwrap()
}

/// One line for each record: its place, and question, answer and whatever else, or the reason.
fn shown(records: &[Record]) -> String {
    let example = |example: &Example| {
        let mut text = format!("{}: {} -> {}", example.id, example.question.replace('\n', "\\n"), example.answer);
        let extra = [
            ("documents", example.documents.join("+")),
            ("label", example.label.clone().unwrap_or_default()),
            ("group", example.group.clone().unwrap_or_default()),
            ("rejected", example.rejected.clone().unwrap_or_default()),
            ("history", example.history.iter().map(|turn| format!("<{}>{}", turn.role.as_str(), turn.content)).collect()),
        ];
        extra.iter().filter(|(_, value)| !value.is_empty()).for_each(|(name, value)| text.push_str(&format!(" {name}={value}")));
        text
    };
    let record = |record: &Record| match &record.outcome {
        Ok(examples) => format!("{} {}", record.line, examples.iter().map(example).collect::<Vec<_>>().join(" | ")),
        Err(reason) => format!("{} ! {reason}", record.line),
    };
    records.iter().map(record).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_table_finds_its_columns_and_a_bad_record_costs_only_itself() {
    let text = "\u{feff}id,Question,answer,source,topic\n\
        a,How long?,45 days,returns.md;faq.md,returns\n\
        b,\"Two\nlines, and a \"\"quote\"\"\",Yes,,\n\
        c,A 5\" pipe?,No,,\n\
        d,too,few\n\
        \n\
        e,,x,,\n\
        f,\"never closed,No,,\n\
        g,Still read?,Yes,,\n";
    insta::assert_snapshot!(shown(&read(text, "csv", &ReadOptions::default())), @r#"
    2 a: How long? -> 45 days documents=returns.md+faq.md label=returns
    3 b: Two\nlines, and a "quote" -> Yes
    5 c: A 5" pipe? -> No
    6 ! has 3 fields where the header has 5
    8 ! the question is empty
    9 ! a quote is opened and never closed
    10 g: Still read? -> Yes
    "#);
    // A file of labelled texts, as banking77 comes; and one whose columns must be named.
    insta::assert_snapshot!(shown(&read("text,category\nwhere is my card,card_arrival\n", "csv", &ReadOptions::default())), @"2 line-2: where is my card -> card_arrival label=card_arrival");
    let columns = Columns { question: Some("a".into()), answer: Some("b".into()), ..Columns::default() };
    let named = ReadOptions { columns, ..ReadOptions::default() };
    insta::assert_snapshot!(shown(&read("a;b\nx;y\n", "csv", &named)), @"2 line-2: x -> y");
    let open = |text: &'static str, options: &ReadOptions| {
        Records::new(Box::new(text.as_bytes()), Some("csv"), &ReadOptions { max_record_bytes: 99, ..options.clone() })
            .err()
            .unwrap()
            .to_string()
    };
    insta::assert_snapshot!(open("a,b\n", &ReadOptions::default()), @"the table: no column is named like a question; name one of: a, b");
    insta::assert_snapshot!(open("x,b\n", &named), @"the table: there is no column `a`; there are: x, b");
}

#[test]
fn chat_logs_of_every_kind_are_read() {
    let text = r#"{"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": [{"type": "text", "text": "Price?"}]}, {"role": "assistant", "content": "89 euro."}]}
{"conversations": [{"from": "human", "value": "Price?"}, {"from": "gpt", "value": "89 euro."}]}
{"instruction": "Shorten.", "input": "A long text", "output": "Text", "history": [["a", "b"]]}
{"prompt": "Price?", "completion": " 89 euro."}
{"item": {"question": "Price?", "answer": "89 euro."}}
{"query": "Price?", "ground_truth": "89 euro.", "response": "90 euro."}
{"messages": [{"role": "user", "content": "Hi"}]}
{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null, "tool_calls": []}]}
{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "x", "weight": 0}]}
{"messages": [{"role": "assistant", "content": "Hi"}]}
{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]}
{"messages": [{"role": "poet", "content": "Hi"}]}
{"question": "Price?"}
{"question": "Price?", "answer": 7}
[1]
{nonsense
"#;
    let text = format!("{text}{{\"question\": \"{}\", \"answer\": \"x\"}}\n", "x".repeat(3_000));
    insta::assert_snapshot!(shown(&read(&text, "jsonl", &ReadOptions::default())), @r#"
    1 line-1: Price? -> 89 euro. history=<user>Hi<assistant>Hello.
    2 line-2: Price? -> 89 euro.
    3 line-3: Shorten.\n\nA long text -> Text history=<user>a<assistant>b
    4 line-4: Price? -> 89 euro.
    5 line-5: Price? -> 89 euro.
    6 line-6: Price? -> 89 euro.
    7 ! has no reply of the assistant that is to be learned
    8 ! message 2: calls a tool; conversations with tools are not trained on
    9 ! has no reply of the assistant that is to be learned
    10 ! the assistant speaks first
    11 ! a reply of the assistant does not follow a message of the user
    12 ! message 1: `poet` is no role
    13 ! has no answer; its keys are: question
    14 ! its answer is no text
    15 ! is no JSON object
    16 ! is no JSON: key must be a string at column 2
    17 ! has more than 2000 bytes
    "#);
    let every = ReadOptions { turns: Turns::Every, keep_system: true, ..ReadOptions::default() };
    let first = text.lines().next().unwrap();
    insta::assert_snapshot!(shown(&read(first, "jsonl", &every)), @"1 line-1#1: Hi -> Hello. group=line-1 history=<system>Be kind. | line-1#2: Price? -> 89 euro. group=line-1 history=<system>Be kind.<user>Hi<assistant>Hello.");
}

#[test]
fn traces_teach_what_people_said_about_them() {
    let text = r#"{"trace_id": "t1", "question": "Price?", "answer": "90 euro.", "correction": "89 euro.", "thumb": "down"}
{"trace_id": "t2", "question": "Price?", "answer": "89 euro.", "thumb": "up"}
{"trace_id": "t3", "question": "Price?", "answer": "90 euro.", "thumb": -1}
{"trace_id": "t4", "question": "Price?", "answer": "90 euro."}
{"trace_id": "t5", "question": "Price?", "answer": "89 euro.", "correction": "89 euro."}
{"trace_id": "t6", "question": "Price?", "answer": "89 euro.", "thumb": "sideways"}
"#;
    insta::assert_snapshot!(shown(&read(text, "jsonl", &ReadOptions::default())), @r#"
    1 t1: Price? -> 89 euro. rejected=90 euro.
    2 t2: Price? -> 89 euro.
    3 ! was turned down and has no correction: there is nothing to learn from it
    4 ! nobody judged it: it has neither a thumb nor a correction
    5 t5: Price? -> 89 euro.
    6 ! its thumb is `"sideways"`, neither "up" nor "down"
    "#);
}

#[test]
fn an_array_is_read_one_element_at_a_time() {
    let text =
        "[\n {\"instruction\": \"a, ] }\", \"output\": \"b \\\" ]\"},\n 7,\n {bad},\n {\"instruction\": \"c\",\n  \"output\": \"d\"}\n]\n";
    insta::assert_snapshot!(shown(&read(text, "json", &ReadOptions::default())), @r#"
    2 line-2: a, ] } -> b " ]
    3 ! is no JSON object
    4 ! is no JSON: key must be a string at column 2
    5 line-5: c -> d
    "#);
    insta::assert_snapshot!(shown(&read("[{\"question\": \"a\", \"answer\": \"b\"}, {\"question\"", "json", &ReadOptions::default())), @r"
    1 line-1: a -> b
    1 ! the file ends in the middle of this record
    ");
    assert_eq!(read("[]", "json", &ReadOptions::default()), []);
}

#[test]
fn the_sample_brands_examples_are_all_good() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../samples/kettlewren/voice/voice-examples.jsonl");
    let options = ReadOptions { max_record_bytes: 10_000, ..ReadOptions::default() };
    let records: Vec<Record> = Records::open(Path::new(file), &options).unwrap().collect::<std::io::Result<_>>().unwrap();
    assert_eq!(records.len(), 120);
    assert!(
        records
            .iter()
            .all(|record| record.outcome.as_ref().is_ok_and(|examples| examples[0].label.is_some() && !examples[0].id.starts_with("line")))
    );
}

proptest! {
    #[test]
    fn every_line_is_an_example_or_a_reason(lines in proptest::collection::vec("[^\r\n]{0,60}", 0..20)) {
        let records = read(&lines.join("\n"), "jsonl", &ReadOptions { format: Format::Qa, ..ReadOptions::default() });
        let filled = lines.iter().filter(|line| !line.bytes().all(|byte| byte.is_ascii_whitespace())).count();
        // A file that begins with a bracket is an array.
        if lines.iter().find(|line| !line.trim().is_empty()).is_none_or(|line| !line.trim_start().starts_with('[')) {
            prop_assert_eq!(records.len(), filled);
        }
    }

    #[test]
    fn what_is_written_to_a_table_is_read(cells in proptest::collection::vec(("[a-z\" ,\n;]{1,20}x", "[a-z\" ,\n]{1,20}x"), 1..10)) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["question", "answer"]).unwrap();
        cells.iter().for_each(|(question, answer)| writer.write_record([question, answer]).unwrap());
        let text = String::from_utf8(writer.into_inner().unwrap()).unwrap();
        let found: Vec<(String, String)> = read(&text, "csv", &ReadOptions::default())
            .into_iter()
            .map(|record| record.outcome.unwrap().remove(0))
            .map(|example| (example.question, example.answer))
            .collect();
        let expect: Vec<(String, String)> = cells.iter().map(|(q, a)| (q.trim().to_owned(), a.trim().to_owned())).collect();
        prop_assert_eq!(found, expect);
    }
}
