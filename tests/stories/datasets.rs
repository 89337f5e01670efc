//! From examples to training rows, through the real binary: what is trained is what is served.

use super::support::{Server, groundtone, read_and_said, run, run_failing, run_json, small_shop};
use groundtone_testkit::{Reply, ScriptedServer};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const QUESTIONS: [(&str, &str); 6] = [
    ("How long can I send my grinder back?", "You have 45 days from delivery."),
    ("What does the return label cost?", "The label costs 6 euro outside Austria."),
    ("Is the motor covered?", "Yes, the motor is covered for 4 years."),
    ("Wann öffnet ihr am Samstag? 🚲 {{sources}} [1]", "The workshop opens at nine on Saturdays."),
    ("What does the Birch cost?", "The Birch electric grinder is 249 euro."),
    ("Who was the first customer?", "Aunt Resi, a long time ago."),
];

fn examples(folder: &Path, copies: usize) -> std::path::PathBuf {
    let file = folder.join("examples.jsonl");
    let line = |at: usize| {
        let (question, answer) = QUESTIONS[at % QUESTIONS.len()];
        let question = if at < QUESTIONS.len() { question.to_owned() } else { format!("{question} ({at})") };
        format!("{}\n", json!({"id": format!("e{at}"), "question": question, "answer": answer}))
    };
    std::fs::write(&file, (0..copies * QUESTIONS.len()).map(line).collect::<String>()).unwrap();
    file
}

/// A folder with the small shop in its index.
fn shop(copies: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    examples(folder.path(), copies);
    folder
}

/// Points `chat` at a model server of ours, in the settings file that every command of the folder reads.
fn upstream(folder: &Path) -> (tokio::runtime::Runtime, ScriptedServer) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(ScriptedServer::start([Reply::Stream(vec!["ok".into()])]));
    let settings = format!("[chat]\nkind = \"openai\"\nmodel = \"gpt-4o-mini\"\nurl = \"{}\"\n[retrieval]\ntop_k = 3\n", server.base_url);
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
    (runtime, server)
}

#[test]
fn the_prompt_of_a_row_is_byte_for_byte_what_serving_sends_upstream() {
    let folder = shop(1);
    let (_runtime, upstream) = upstream(folder.path());
    // Beside the questions a follow-up, which is searched for with what it leans on, and one that serving asks no model.
    let lines = [
        json!({"question": "And the motor?", "answer": "The motor is covered for 4 years.",
            "history": [{"role": "user", "content": "Is the burr set covered?"}, {"role": "assistant", "content": "Yes, for 12 years."}]}),
        json!({"question": "Who won the football championship?", "answer": "Nobody here follows football.", "history": []}),
    ];
    let conversations = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    std::fs::write(folder.path().join("conversations.jsonl"), conversations).unwrap();
    let mut rows = Vec::new();
    for (file, out) in [("examples.jsonl", "train"), ("conversations.jsonl", "more")] {
        let report = run_json(folder.path(), &["dataset", "build", file, "--out", &format!("{out}.jsonl"), "--json"]);
        let lines = |name: String| -> Vec<Value> {
            let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let (made, records) = (lines(format!("{out}.jsonl")), lines(format!("{out}.rows.jsonl")));
        assert_eq!(report["counts"]["rows"], made.len(), "{report}");
        rows.extend(made.into_iter().zip(records));
    }
    let server = Server::start(folder.path(), &["serve"]);
    let asked: Vec<Value> = QUESTIONS
        .iter()
        .map(|(question, _)| json!([{"role": "user", "content": question}]))
        .chain(lines.iter().map(|line| {
            let mut turns = line["history"].as_array().unwrap().clone();
            turns.push(json!({"role": "user", "content": line["question"]}));
            Value::Array(turns)
        }))
        .collect();
    assert!(rows.len() >= 8 && asked.len() == rows.len(), "{rows:?}");
    let (mut gated, mut rewritten) = (0, 0);
    for (messages, (row, record)) in asked.iter().zip(rows) {
        let before = upstream.requests().len();
        let (status, answer) = server.json("POST", "/v1/chat/completions", &json!({"model": "groundtone", "messages": messages}));
        assert_eq!(status, 200, "{answer}");
        let (read, said) = read_and_said(&row["messages"]);
        let requests = upstream.requests();
        if answer["groundtone"]["abstained_because"] == "no_evidence" {
            gated += 1;
            assert_eq!((requests.len(), &record["gated"]), (before, &json!(true)), "{messages}: {record}");
            assert!(record["oracle"] != json!([]) || said["content"] == answer["choices"][0]["message"]["content"], "{record}");
            continue;
        }
        rewritten += usize::from(answer["groundtone"]["rewritten_query"].is_string());
        assert_eq!(record["gated"], Value::Null);
        assert_eq!(requests.last().unwrap()["messages"].to_string(), read.to_string(), "{messages}");
    }
    assert!(gated >= 1 && rewritten >= 1, "{gated} without a model, {rewritten} rewritten");
}

#[test]
fn a_build_that_is_killed_goes_on_and_ends_with_the_same_bytes() {
    let folder = shop(40);
    let (_runtime, _upstream) = upstream(folder.path());
    let flags = ["--oracle-share", "0.7", "--no-answer-share", "0.2", "--order", "shuffled", "--seed", "5", "--json"];
    let build = |out: &'static str| [&["dataset", "build", "examples.jsonl", "--out", out][..], &flags].concat();
    run_json(folder.path(), &build("whole.jsonl"));
    let again = build("killed.jsonl");
    let part = folder.path().join("killed.rows.jsonl.part");
    let mut seen = 0;
    for _ in 0..3 {
        let mut child =
            groundtone(folder.path(), &again).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        let length = || std::fs::metadata(&part).map_or(0, |file| file.len());
        while length() <= seen && child.try_wait().unwrap().is_none() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        seen = length();
    }
    assert!(seen > 0, "the build was over before it could be killed");
    let report = run_json(folder.path(), &again);
    assert!(report["resumed"].as_u64().unwrap() > 0, "{report}");
    for ending in ["jsonl", "rows.jsonl"] {
        let file = |name: &str| std::fs::read(folder.path().join(format!("{name}.{ending}"))).unwrap();
        assert!(file("whole") == file("killed"), "{ending} differs");
    }
}

#[test]
fn a_dataset_is_split_and_what_cannot_be_done_is_said() {
    let folder = shop(5);
    let (_runtime, _upstream) = upstream(folder.path());
    let report = run_json(folder.path(), &["dataset", "build", "examples.jsonl", "--out", "all.jsonl", "--json"]);
    assert_eq!(report["counts"]["rows"], 30);
    let report =
        run_json(folder.path(), &["dataset", "split", "all.jsonl", "--train", "0.5", "--validation", "0.5", "--test", "0", "--json"]);
    let rows: Vec<u64> = report["parts"].as_array().unwrap().iter().map(|part| part["rows"].as_u64().unwrap()).collect();
    assert_eq!((rows.len(), rows.iter().sum::<u64>()), (2, 30), "{report}");
    let failing = |arguments: &[&str]| run_failing(folder.path(), arguments).0;
    insta::assert_snapshot!(failing(&["dataset", "build", "examples.jsonl", "--out", "all.jsonl"]), @r"
    error: all.jsonl is there already
    hint: name another one with --out, or replace it with --overwrite
    ");
    insta::assert_snapshot!(failing(&["dataset", "build", "missing.jsonl", "--out", "x.jsonl"]), @"error: missing.jsonl: No such file or directory (os error 2)");
    std::fs::write(folder.path().join("table.csv"), "a,b\nx,y\n").unwrap();
    insta::assert_snapshot!(failing(&["dataset", "build", "table.csv", "--out", "x.jsonl"]), @r"
    error: table.csv: no column is named like a question; name one of: a, b
    hint: say which column is which: --question-column NAME --answer-column NAME
    ");
    insta::assert_snapshot!(failing(&["dataset", "build", "examples.jsonl", "--out", "x.jsonl", "--no-answer-share", "2"]), @"error: the no-answer share is 2, not between 0 and 1");
    assert!(!run(folder.path(), &["dataset", "split", "missing.jsonl"]).status.success());
}

fn chat_rows(count: usize) -> String {
    let row = |at: usize| json!({"messages": [{"role": "user", "content": format!("Question {at}")}, {"role": "assistant", "content": format!("Answer {at}")}]});
    (0..count).map(|at| format!("{}\n", row(at))).collect()
}

#[test]
fn a_bad_row_is_named_by_line_and_column_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let bad = "{\"messages\": [{\"role\": \"human\", \"content\": \"Grüße\"}, {\"role\": \"assistant\", \"content\": null}]}\n";
    std::fs::write(folder.path().join("rows.jsonl"), chat_rows(10) + bad).unwrap();
    let output = run(folder.path(), &["dataset", "validate", "rows.jsonl", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = report["problems"].as_array().unwrap();
    let places: Vec<_> = problems
        .iter()
        .map(|problem| (problem["rule"].as_str().unwrap(), problem["line"].as_u64().unwrap(), problem["column"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [("role-unknown", 11, 24), ("assistant-empty", 11, 87)]);
    assert!(problems.iter().all(|problem| ["severity", "message", "why", "fix"].iter().all(|key| problem[key].is_string())));
    assert_eq!((&report["errors"], &report["rows"], &report["counts"]["role-unknown"]), (&json!(2), &json!(11), &json!(1)));
    let text = run(folder.path(), &["dataset", "validate", "rows.jsonl"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.starts_with("rows.jsonl:11:24: error role-unknown: `human` is no role; user is meant\n"), "{text}");
    let repaired = run(folder.path(), &["dataset", "validate", "rows.jsonl", "--fix", "repaired.jsonl", "--json"]);
    let repaired: Value = serde_json::from_slice(&repaired.stdout).unwrap();
    assert_eq!((&repaired["errors"], &repaired["fixed"]["repaired"]), (&json!(1), &json!({"role-unknown": 1})));
    let (error, code) = run_failing(folder.path(), &["dataset", "validate", "rows.jsonl", "--fix", "rows.jsonl", "--overwrite"]);
    assert!(code == 1 && error.contains("rows.jsonl is there already"), "{error}");
}

#[test]
fn parts_are_compared_and_rows_are_written_for_other_trainers() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("train.jsonl"), chat_rows(12)).unwrap();
    std::fs::write(folder.path().join("test.jsonl"), chat_rows(2)).unwrap();
    let stats =
        run_json(folder.path(), &["dataset", "stats", "--train", "train.jsonl", "--test", "test.jsonl", "--html", "report.html", "--json"]);
    assert_eq!((&stats["parts"][0]["rows"], &stats["leakage"][0]["by_text"], &stats["cost"]["epochs"]), (&json!(12), &json!(2), &json!(8)));
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("same question"));
    for (to, target) in [
        ("azure", "azure"),
        ("together", "together"),
        ("trl", "trl"),
        ("mistral", "mistral"),
        ("fireworks", "fireworks"),
        ("openai", "openai"),
    ] {
        let out = format!("{to}.out.jsonl");
        let report = run_json(folder.path(), &["dataset", "export", "train.jsonl", "--to", to, "--out", &out, "--json"]);
        assert_eq!((&report["written"], &report["left_out"]), (&json!(12), &json!(0)));
        assert_eq!(run_json(folder.path(), &["dataset", "validate", &out, "--target", target, "--json"])["counts"], json!({}));
    }
    let (error, _) = run_failing(folder.path(), &["dataset", "export", "train.jsonl", "--to", "trl", "--out", "trl.out.jsonl"]);
    assert!(error.contains("trl.out.jsonl is there already"), "{error}");
}
