//! What customers said of answers, and what becomes of it: training rows, preference pairs, evaluation cases, drafts of documents. Beside the running server, and after it.

use super::support::{Server, read_and_said, run, run_failing, run_json, small_shop};
use groundtone_testkit::{RawServer, Step};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

const ABSTAIN: &str = "I don't have that in our guides.";

/// A model server that knows how long returns take, wrongly, and no lamps.
fn model(body: &str) -> Vec<Step> {
    let request: Value = serde_json::from_str(body).expect("a JSON request");
    let question = request["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    let asked = question.rsplit("Question:").next().unwrap();
    let text = match asked {
        asked if asked.contains("lamp") => ABSTAIN.to_owned(),
        asked if asked.contains("Write") => "Write to shop@example.org.".to_owned(),
        asked if asked.contains("motor") => "The motor is covered for 4 years [1].".to_owned(),
        _ => "Within 30 days [1].".to_owned(),
    };
    let event = |delta: Value, finish: Value| {
        format!("data: {}\n\n", json!({"id": "up", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}))
    };
    vec![Step::Send(
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{}{}data: [DONE]\n\n",
            event(json!({"content": text}), Value::Null),
            event(json!({}), json!("stop"))
        )
        .into_bytes(),
    )]
}

fn shop(folder: &Path, upstream: &RawServer) {
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    let settings = format!(
        "[chat]\nkind = \"openai\"\nmodel = \"gpt-4o-mini\"\nurl = \"{}\"\nretries = 0\n[assistant]\nname = \"shop\"\nabstain = \"{ABSTAIN}\"\n[gate]\nthreshold = 0.0\n[privacy]\nredact = [\"email\"]\n",
        upstream.base_url
    );
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
}

fn lines(folder: &Path, name: &str) -> Vec<Value> {
    std::fs::read_to_string(folder.join(name)).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asks, and says what somebody thought of it.
fn judged(server: &Server, messages: &Value, feedback: &Value) -> String {
    let (status, answer) = server.json("POST", "/v1/chat/completions", &json!({"model": "shop", "messages": messages}));
    assert_eq!(status, 200, "{answer}");
    let trace = answer["groundtone"]["trace_id"].as_str().unwrap().to_owned();
    if !feedback.is_null() {
        let mut body = feedback.clone();
        body["trace_id"] = json!(trace);
        assert_eq!(server.json("POST", "/v1/groundtone/feedback", &body).0, 200);
    }
    trace
}

#[test]
fn what_customers_said_becomes_rows_pairs_cases_and_drafts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = sent.clone();
    let upstream = RawServer::start(move |body| {
        kept.lock().unwrap().push(serde_json::from_str::<Value>(body).unwrap()["messages"].clone());
        model(body)
    });
    shop(path, &upstream);
    let server = Server::start(path, &["serve"]);
    let asked = |text: &str| json!([{"role": "user", "content": text}]);
    let window = "How long can I send my grinder back?";
    let corrected = judged(&server, &asked(window), &json!({"thumb": "down", "correction": "You have 45 days from delivery."}));
    let follow_up = json!([{"role": "user", "content": "Is the burr set covered?"}, {"role": "assistant", "content": "Yes, for 12 years."}, {"role": "user", "content": "And the motor?"}]);
    let liked = judged(&server, &follow_up, &json!({"thumb": "up"}));
    judged(&server, &asked("Write me your address, please"), &json!({"thumb": "up"}));
    judged(&server, &asked("What does the Birch cost?"), &json!({"thumb": "down"}));
    let lamp = judged(&server, &asked("Do you sell lamps?"), &Value::Null);
    judged(&server, &asked("Do you sell any lamps?"), &Value::Null);

    // The list, from the server that has the answers; afterwards from its data directory.
    let unmet = |arguments: &[&str]| run_json(path, &[&["eval", "unmet", "--json"], arguments].concat());
    let list = unmet(&[]);
    let found: Vec<(&str, u64, &str)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|subject| (subject["question"].as_str().unwrap(), subject["count"].as_u64().unwrap(), subject["remedy"].as_str().unwrap()))
        .collect();
    assert_eq!(found[0].1, 2, "{found:?}");
    assert!(found[0].0.contains("lamps") && found[0].2 == "document", "{found:?}");
    let others: BTreeSet<(&str, &str)> = found[1..].iter().map(|(question, _, remedy)| (*question, *remedy)).collect();
    assert_eq!(others, BTreeSet::from([(window, "training_row"), ("What does the Birch cost?", "evaluation_case")]));

    // Chosen ones become each of the three.
    let made = unmet(&["--take", &lamp, "--as", "documents", "--out", "drafts"]);
    assert_eq!(made["made"], 1);
    let draft = std::fs::read_dir(path.join("drafts")).unwrap().next().unwrap().unwrap().path();
    let draft = std::fs::read_to_string(draft).unwrap();
    assert!(draft.contains("- Do you sell any lamps?\n- Do you sell lamps?\n"), "{draft}");
    assert!(run_failing(path, &["eval", "unmet", "--take", "1", "--as", "documents", "--out", "drafts"]).0.contains("is there already"));
    unmet(&["--take", "1,2,3", "--as", "cases", "--out", "cases.jsonl"]);
    unmet(&["--take", &corrected, "--as", "rows", "--out", "rows.jsonl"]);
    unmet(&["--take", "1", "--as", "cases", "--out", "cases.jsonl"]);
    let cases = lines(path, "cases.jsonl");
    assert_eq!((cases.len(), &cases[0]["answerable"]), (4, &json!(false)), "{cases:?}");
    assert!(cases.iter().any(|case| case["question"] == window && case["answer"] == "You have 45 days from delivery."), "{cases:?}");
    let row = json!({"question": window, "answer": "You have 45 days from delivery.", "id": corrected, "rejected": "Within 30 days [1]."});
    assert_eq!(lines(path, "rows.jsonl"), [row]);
    let (text, _) = run_failing(path, &["eval", "unmet", "--take", "9", "--as", "cases", "--out", "cases.jsonl"]);
    assert!(text.contains("there is no subject `9`; the list has 3"), "{text}");
    // The set is one that arms can be asked.
    let report = run_json(path, &["eval", "run", "--set", "cases.jsonl", "--arms", "shop", "--out", "report", "--json"]);
    assert_eq!(report["set"]["rows"], 4, "{report}");

    // Training rows: by the server that has the data directory open, and by the command alone. The same bytes.
    let build = |out: &str| run_json(path, &["dataset", "build", "--from-traces", "--out", out, "--json"]);
    let beside = build("beside.jsonl");
    assert_eq!(
        (&beside["traces"]["judged"], &beside["traces"]["corrected"], &beside["counts"]["rows"], &beside["counts"]["rejected"]),
        (&json!(4), &json!(1), &json!(2), &json!(2)),
        "{beside}"
    );
    let (text, _) = run_failing(path, &["dataset", "build", "--from-traces", "--out", "beside.jsonl"]);
    assert!(text.contains("beside.jsonl is there already"), "{text}");
    let from_file = run_json(path, &["dataset", "build", "rows.jsonl", "--out", "row.jsonl", "--json"]);
    assert_eq!(from_file["counts"]["rows"], 1, "{from_file}");
    server.stop();
    assert_eq!(unmet(&[]), list);
    build("alone.jsonl");
    let file = |name: &str| std::fs::read(path.join(name)).unwrap();
    assert!(file("beside.jsonl") == file("alone.jsonl") && file("beside.rows.jsonl") == file("alone.rows.jsonl"));
    let records = lines(path, "alone.rows.jsonl");
    let rejected: Vec<&str> = records.iter().filter_map(|record| record["reason"].as_str()).collect();
    assert!(
        rejected.len() == 2
            && rejected.iter().any(|reason| reason.starts_with("personal data was taken out of its answer"))
            && rejected.iter().any(|reason| reason.starts_with("was turned down and has no correction")),
        "{rejected:?}"
    );
    // A follow-up is trained on with the conversation that it was asked in, as serving would send it.
    let at = records.iter().filter(|record| record["outcome"] == "row").position(|record| record["example"] == liked.as_str()).unwrap();
    let messages = lines(path, "alone.jsonl").remove(at)["messages"].clone();
    let (prompt, answer) = read_and_said(&messages);
    assert!(sent.lock().unwrap().contains(&prompt), "{prompt}");
    assert_eq!(answer["content"], "The motor is covered for 4 years [1].");

    // The pairs: what was wanted against what was said, for the same prompt.
    let report = run_json(path, &["dataset", "export", "alone.jsonl", "--dpo", "--to", "openai", "--out", "pairs.jsonl", "--json"]);
    assert_eq!((&report["written"], &report["left_out"]), (&json!(1), &json!(1)), "{report}");
    let pair = lines(path, "pairs.jsonl").remove(0);
    let text = |key: &str| pair[key][0]["content"].as_str().unwrap().to_owned();
    assert!(text("preferred_output").starts_with("You have 45 days from delivery"), "{pair}");
    assert!(text("non_preferred_output").starts_with("Within 30 days"), "{pair}");
    // One pair is too few for a job, and nothing else is wrong with it.
    let checked = run(path, &["dataset", "validate", "pairs.jsonl", "--method", "dpo", "--json"]);
    let checked: Value = serde_json::from_slice(&checked.stdout).unwrap();
    assert_eq!(checked["counts"], json!({"too-few-rows": 1}));
}

#[test]
fn nobody_elses_answers_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let upstream = RawServer::start(model);
    shop(path, &upstream);
    let (text, code) = run_failing(path, &["dataset", "build", "--from-traces", "--out", "rows.jsonl"]);
    assert!(code == 1 && text.contains("nobody has judged a stored answer yet") && !path.join("rows.examples.jsonl").exists(), "{text}");
    let key = |tenant: &str, scope: &str| {
        let created = run_json(path, &["keys", "create", "--name", tenant, "--scope", scope, "--tenant", tenant, "--json"]);
        format!("Bearer {}", created["key"].as_str().unwrap())
    };
    let theirs = key("theirs", "chat");
    let server = Server::start(path, &["serve"]);
    let ask = json!({"model": "shop", "messages": [{"role": "user", "content": "How long can I send it back?"}]}).to_string();
    let (status, _, answer) = server.request("POST", "/v1/chat/completions", &[("authorization", &theirs)], &ask);
    let trace = serde_json::from_str::<Value>(&answer).unwrap()["groundtone"]["trace_id"].clone();
    assert_eq!(status, 200, "{answer}");
    let feedback = json!({"trace_id": trace, "thumb": "up"}).to_string();
    assert_eq!(server.request("POST", "/v1/groundtone/feedback", &[("authorization", &theirs)], &feedback).0, 200);
    server.stop();
    assert!(run_failing(path, &["dataset", "build", "--from-traces", "--out", "rows.jsonl"]).0.contains("nobody has judged"));
    let dry = run_json(
        path,
        &["dataset", "build", "--from-traces", "--tenant", "theirs", "--missed", "keep", "--out", "rows.jsonl", "--dry-run", "--json"],
    );
    assert_eq!((&dry["traces"]["liked"], path.join("rows.examples.jsonl").exists()), (&json!(1), false), "{dry}");
}
