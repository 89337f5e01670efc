//! Nothing is found where nothing is wrong.

use super::super::json::Cursor;
use super::*;

const DRONE: &str = include_str!("fixtures/drone_training.jsonl");
const TOY: &str = include_str!("fixtures/toy_chat_fine_tuning.jsonl");
const COQA: &str = include_str!("fixtures/small_coqa_10.jsonl");
const ZAVA: &str = include_str!("fixtures/zava_basic_training.jsonl");
const SUITE: &str = include_str!("fixtures/jsontestsuite.tsv");

#[track_caller]
fn clean(text: &[u8], target: Target, method: Method) {
    let report = check(text, target, method);
    assert_eq!(report.problems, [], "{target:?}");
    assert_eq!((report.errors, report.warnings, report.unlisted), (0, 0, 0));
    assert_eq!(report.bytes, text.len() as u64);
}

#[test]
fn rows_of_every_kind_pass() {
    let text = file(&valid_rows());
    clean(&text, Target::OpenAi, Method::Sft);
    clean(&text, Target::Fireworks, Method::Sft);
    clean(&[BOM, &text].concat(), Target::Azure, Method::Sft);
    for target in Target::ALL.into_iter().filter(|target| *target != Target::Azure) {
        clean(&file(&plain_rows()), target, Method::Sft);
    }
    for target in [Target::OpenAi, Target::Together, Target::Fireworks] {
        clean(&file(&preference_rows()), target, Method::Dpo);
    }
}

#[test]
fn rows_of_the_targets_own_shapes_pass() {
    let pairs = [r#"{"prompt":"Q","completion":"A"}"#.to_owned()];
    clean(&file(&pairs), Target::Together, Method::Sft);
    clean(&file(&pairs), Target::Trl, Method::Sft);
    clean(br#"{"text":"Once upon a time"}"#, Target::Together, Method::Sft);
    clean(br#"{"prompt":[{"role":"user","content":"Q"}],"completion":[{"role":"assistant","content":"A"}]}"#, Target::Trl, Method::Sft);
    clean(br#"{"prompt":"Q","chosen":"A","rejected":"B"}"#, Target::Trl, Method::Dpo);
    clean(
        br#"{"chosen":[{"role":"user","content":"Q"},{"role":"assistant","content":"A"}],"rejected":[{"role":"user","content":"Q"},{"role":"assistant","content":"B"}]}"#,
        Target::Trl,
        Method::Dpo,
    );
    let calls = r#"{"messages":[{"role":"user","content":"Q"},{"role":"assistant","content":"","tool_calls":[{"id":"abcDEF123","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"abcDEF123","content":"1"},{"role":"assistant","content":"A"}],"tools":[{"type":"function","function":{"name":"f"}}]}"#;
    clean(calls.as_bytes(), Target::Mistral, Method::Sft);
}

#[test]
fn files_that_projects_train_on_pass() {
    for target in [Target::OpenAi, Target::Fireworks, Target::Mistral, Target::Trl, Target::Together] {
        clean(ZAVA.as_bytes(), target, Method::Sft);
        clean(COQA.as_bytes(), target, Method::Sft);
    }
    clean(DRONE.as_bytes(), Target::OpenAi, Method::Sft);
    clean(DRONE.as_bytes(), Target::Fireworks, Method::Sft);
    // Five rows: fewer than OpenAI takes. One begins with the assistant.
    let toy = check(TOY.as_bytes(), Target::OpenAi, Method::Sft);
    assert_eq!(toy.counts, BTreeMap::from([("too-few-rows", 1), ("no-user", 1)]), "{toy:?}");
    assert_eq!(check(TOY.as_bytes(), Target::Fireworks, Method::Sft).errors, 0);
}

fn parses(text: &[u8]) -> bool {
    if std::str::from_utf8(text).is_err() {
        return false;
    }
    let mut cursor = Cursor::new(text);
    cursor.peek().and_then(|next| cursor.skip(next)).and_then(|()| cursor.finish()).is_ok()
}

#[test]
fn json_is_what_the_test_suite_says() {
    let (mut yes, mut no) = (0, 0);
    for line in SUITE.lines().skip(1) {
        let (name, bytes) = line.split_once('\t').unwrap();
        let bytes = hex::decode(bytes).unwrap();
        match &name[..1] {
            "y" => {
                yes += 1;
                assert!(parses(&bytes), "{name}");
            }
            "n" => {
                no += 1;
                assert!(!parses(&bytes), "{name}");
                // As a row of a file, too, it is found, and nothing panics.
                let report = check(&bytes, Target::Trl, Method::Sft);
                assert!(report.errors > 0, "{name}");
            }
            _ => {
                check(&bytes, Target::Trl, Method::Sft);
            }
        }
    }
    assert!(yes > 90 && no > 180, "{yes} {no}");
    assert!(!parses("[".repeat(100_000).as_bytes()));
}

#[test]
fn threads_change_nothing() {
    let rows = plain_rows().join("\n");
    let bad = r#"{"messages":[{"role":"user","content":"q"}]}"#;
    let text = (0..3_000).map(|at| if at % 500 == 7 { format!("{rows}\n{bad}\n") } else { format!("{rows}\n") }).collect::<String>();
    assert!(text.len() > 3 << 20);
    let with = |threads| validate(text.as_bytes(), &Options { threads, ..Options::default() }).unwrap();
    let one = with(1);
    assert_eq!(one.counts, BTreeMap::from([("no-assistant", 6)]));
    assert_eq!(one.problems[1].line, 12 * 508 + 2);
    assert_eq!(one, with(2));
    assert_eq!(one, with(5));
}

#[test]
fn problems_are_bounded_and_all_counted() {
    let text = "{}\n".repeat(5_000);
    let report = validate(text.as_bytes(), &Options { max_problems: 10, ..Options::default() }).unwrap();
    assert_eq!((report.problems.len(), report.errors, report.unlisted), (10, 5_000, 4_990));
    let long = format!("{}\n{{}}\n", "x".repeat(5 << 20));
    let report = validate(long.as_bytes(), &Options { max_line_bytes: 1 << 20, target: Target::Trl, ..Options::default() }).unwrap();
    assert_eq!(report.counts, BTreeMap::from([("line-too-long", 1), ("messages-missing", 1)]));
    assert_eq!((report.lines, report.problems[1].line), (2, 2));
}
