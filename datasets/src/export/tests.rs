use super::*;
use crate::validate::{Method, Options, validate};
use crate::{ReadOptions, Records};
use serde_json::json;

const ALL: [ExportFormat; 8] = [
    ExportFormat::For(Target::OpenAi),
    ExportFormat::For(Target::Azure),
    ExportFormat::For(Target::Together),
    ExportFormat::For(Target::Fireworks),
    ExportFormat::For(Target::Mistral),
    ExportFormat::For(Target::Trl),
    ExportFormat::ShareGpt,
    ExportFormat::Alpaca,
];

fn exported(text: &str, to: ExportFormat, preferences: bool) -> (ExportReport, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("rows.jsonl"), folder.path().join("out.jsonl"));
    std::fs::write(&data, text).unwrap();
    let settings = ExportSettings { data, out: out.clone(), to, preferences, max_line_bytes: 1 << 20, overwrite: false };
    let report = export(&settings).unwrap();
    assert_eq!(report.rows, report.written + report.left_out);
    assert!(matches!(export(&settings), Err(Error::Exists { .. })));
    (report, std::fs::read(&out).unwrap())
}

fn talk(at: usize) -> Value {
    json!({"messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": format!("Question {at} é\n🚲")},
        {"role": "assistant", "content": "First \"answer\""},
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": format!("Answer {at}")},
    ]})
}

fn file(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

#[test]
fn what_is_written_for_a_target_is_what_it_takes() {
    let rows: Vec<Value> = (0..12).map(talk).collect();
    for to in ALL {
        let (report, bytes) = exported(&file(&rows), to, false);
        assert_eq!((report.written, report.left_out), (12, 0), "{to:?}");
        let ExportFormat::For(target) = to else { continue };
        let found = validate(&bytes[..], &Options { target, ..Options::default() }).unwrap();
        assert_eq!(found.problems, [], "{to:?}");
        assert_eq!(bytes.starts_with(b"\xef\xbb\xbf"), target == Target::Azure);
    }
}

#[test]
fn sharegpt_and_alpaca_come_back_as_the_same_rows() {
    let rows: Vec<Value> = (0..3).map(talk).collect();
    for to in [ExportFormat::ShareGpt, ExportFormat::Alpaca] {
        let (_, bytes) = exported(&file(&rows), to, false);
        let (_, back) = exported(std::str::from_utf8(&bytes).unwrap(), ExportFormat::For(Target::OpenAi), false);
        assert_eq!(String::from_utf8(back).unwrap(), file(&rows), "{to:?}");
        let options = ReadOptions { max_record_bytes: 1 << 20, ..ReadOptions::default() };
        let records: Vec<_> =
            Records::new(Box::new(std::io::Cursor::new(bytes)), Some("jsonl"), &options).unwrap().map(Result::unwrap).collect();
        let example = &records[1].outcome.as_ref().unwrap()[0];
        assert_eq!((example.question.as_str(), example.answer.as_str(), example.history.len()), ("And then?", "Answer 1", 2));
    }
}

fn called() -> Value {
    json!({"messages": [
        {"role": "user", "content": "Price?"},
        {"role": "assistant", "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "price", "arguments": "{\"sku\": 1}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "5"},
        {"role": "assistant", "content": "Five."},
    ], "tools": [{"type": "function", "function": {"name": "price"}}], "parallel_tool_calls": false})
}

#[test]
fn calls_of_tools_are_adapted_or_refused() {
    let text = file(&[called()]);
    let first = |to| {
        let (report, bytes) = exported(&text, to, false);
        (report, serde_json::from_slice::<Value>(&bytes).unwrap_or_default())
    };
    let (_, mistral) = first(ExportFormat::For(Target::Mistral));
    let id = mistral["messages"][1]["tool_calls"][0]["id"].as_str().unwrap();
    assert!(id.len() == 9 && mistral["messages"][2]["tool_call_id"] == id && mistral.get("parallel_tool_calls").is_none());
    let found = validate(mistral.to_string().as_bytes(), &Options { target: Target::Mistral, ..Options::default() }).unwrap();
    assert_eq!(found.problems, []);
    let (_, trl) = first(ExportFormat::For(Target::Trl));
    assert_eq!(trl["messages"][1]["tool_calls"][0]["function"]["arguments"], json!({"sku": 1}));
    let (report, _) = first(ExportFormat::ShareGpt);
    assert_eq!(report.named, [(1, "has tools, which this shape cannot say".to_owned())]);
}

#[test]
fn replies_that_are_not_learned_become_prompts_for_trl() {
    let mut row = talk(1);
    row["messages"][2]["weight"] = 0.into();
    row["messages"][4]["weight"] = 1.into();
    let (report, bytes) = exported(&file(&[row, talk(2)]), ExportFormat::For(Target::Trl), false);
    assert_eq!((report.written, report.left_out), (1, 1));
    let written: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(written["prompt"].as_array().unwrap().len(), 4);
    assert_eq!(written["completion"], json!([{"role": "assistant", "content": "Answer 1"}]));
    assert_eq!(validate(&bytes[..], &Options { target: Target::Trl, ..Options::default() }).unwrap().problems, []);
}

#[test]
fn what_a_trainer_must_be_told_is_said() {
    let mut row = talk(1);
    row["messages"][2]["weight"] = 0.into();
    let mut unlearned = row.clone();
    unlearned["messages"][4]["weight"] = 0.into();
    for to in [ExportFormat::ShareGpt, ExportFormat::Alpaca] {
        let (report, bytes) = exported(&file(&[row.clone(), talk(2), unlearned.clone()]), to, false);
        assert_eq!((report.written, report.left_out, report.last_reply_only), (1, 2, true), "{to:?}");
        assert!(!String::from_utf8(bytes).unwrap().contains("weight"), "{to:?}");
        let (report, _) = exported(&file(&[talk(1), talk(2)]), to, false);
        assert_eq!((report.written, report.last_reply_only), (2, false), "{to:?}");
    }
}

#[test]
fn preference_pairs_are_written_for_every_trainer() {
    let row = json!({"input": {"messages": [{"role": "user", "content": "Q"}]},
        "preferred_completion": [{"role": "assistant", "content": "good"}], "non_preferred_completion": [{"role": "assistant", "content": "bad"}]});
    let text = file(&vec![row; 10]) + &file(&[talk(1)]);
    for to in ALL.into_iter().filter(|to| *to != ExportFormat::For(Target::Mistral)) {
        let (report, bytes) = exported(&text, to, true);
        assert_eq!((report.written, &report.named[0].1[..]), (10, "nobody turned down another answer to it"), "{to:?}");
        let ExportFormat::For(target) = to else { continue };
        let found = validate(&bytes[..], &Options { target, method: Method::Dpo, ..Options::default() }).unwrap();
        assert_eq!(found.problems, [], "{to:?}");
    }
    let (_, alpaca) = exported(&text, ExportFormat::Alpaca, true);
    let first: Value = serde_json::from_slice(alpaca.split(|byte| *byte == b'\n').next().unwrap()).unwrap();
    assert_eq!(first, json!({"instruction": "Q", "input": "", "chosen": "good", "rejected": "bad"}));
}

#[test]
fn an_answer_that_was_turned_down_is_the_other_half() {
    let pair = pairs::pair(&talk(3), Some(&"Go away".to_owned())).unwrap();
    let written = pairs::write(&pair, &Style { to: ExportFormat::For(Target::OpenAi), last_only: false }).unwrap();
    assert_eq!(written["input"]["messages"].as_array().unwrap().len(), 4);
    assert_eq!(written["preferred_output"][0]["content"], "Answer 3");
    assert_eq!(written["non_preferred_output"][0]["content"], "Go away");
    assert!(pairs::pair(&talk(3), Some(&" Answer 3".to_owned())).is_err());
}

#[test]
fn turns_that_together_refuses_are_named() {
    let row =
        json!({"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]});
    let (report, _) = exported(&format!("{row}\nno json\n"), ExportFormat::For(Target::Together), false);
    assert_eq!(report.named, [(1, "user and assistant do not speak in turn".to_owned()), (2, "is no JSON".to_owned())]);
}
