//! Arms asked through the real serving path, and what comes of it: a report, a verdict, a stored evaluation.

use super::support::{Server, groundtone, run_failing, run_json, small_shop};
use groundtone_testkit::{Reply, ScriptedServer};
use serde_json::{Value, json};
use std::path::Path;

const ROWS: [(&str, &str, &str); 5] = [
    ("How long can I send my grinder back?", "policies/returns.md", "45"),
    ("What does the return label cost?", "policies/returns.md", "6"),
    ("For how many years is the motor covered?", "policies/warranty.md", "4"),
    ("Since when have you made grinders?", "about.html", "1987"),
    ("What does the Birch electric grinder cost?", "prices.csv", "249"),
];

/// A shop that is indexed, and a set of so many rows.
fn shop(rows: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let line = |at: usize| {
        let (question, document, fact) = ROWS[at % ROWS.len()];
        let question = if at < ROWS.len() { question.to_owned() } else { format!("{question} ({at})") };
        format!(
            "{}\n",
            json!({"id": format!("r{at}"), "question": question, "documents": [document], "must_contain": [fact], "group": format!("g{at}")})
        )
    };
    std::fs::write(folder.path().join("set.jsonl"), (0..rows).map(line).collect::<String>()).unwrap();
    folder
}

/// Two arms at model servers of ours, and one at the Groundtone under test.
fn arms_file(folder: &Path, first: &ScriptedServer, second: &ScriptedServer) {
    let arms = format!(
        "[[arm]]\nname = \"rag\"\nmodel = \"groundtone\"\nmax_tokens = 24\n\n[[arm]]\nname = \"prompted\"\nmodel = \"scripted\"\nurl = \"{}\"\n\n[[arm]]\nname = \"tuned\"\nrole = \"tuned\"\nmodel = \"ft:scripted\"\nurl = \"{}\"\n",
        first.base_url, second.base_url
    );
    std::fs::write(folder.join("arms.toml"), arms).unwrap();
}

fn stream(text: &str) -> Reply {
    Reply::Stream(vec![text.to_owned()])
}

#[test]
fn a_run_through_the_real_path_is_reported_stored_and_not_paid_twice() {
    let folder = shop(5);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (prompted, tuned) = runtime.block_on(async {
        (ScriptedServer::start([stream("I <b>cannot</b> say.")]).await, ScriptedServer::start([stream("45, 6, 4, 1987 and 249.")]).await)
    });
    arms_file(folder.path(), &prompted, &tuned);
    std::fs::write(
        folder.path().join("prices.toml"),
        "[default]\nprompt_per_million = 100.0\n[tuned]\ncompletion_per_million = 1.0\nfixed = 3.0\n",
    )
    .unwrap();
    let command = [
        "eval",
        "run",
        "--set",
        "set.jsonl",
        "--arms",
        "prompted,rag,tuned",
        "--arms-file",
        "arms.toml",
        "--prices",
        "prices.toml",
        "--out",
        "out",
        "--json",
    ];
    let report = run_json(folder.path(), &command);
    let arm = |name: &str| report["arms"].as_array().unwrap().iter().find(|arm| arm["name"] == name).unwrap().clone();
    assert_eq!((&arm("prompted")["metrics"]["facts"]["value"], &arm("tuned")["metrics"]["facts"]["value"]), (&json!(0.0), &json!(1.0)));
    let rag = arm("rag");
    assert!(
        rag["metrics"]["citation_recall"]["of"] == 5
            && rag["tokens"]["prompt"].as_f64().unwrap() > 100.0
            && rag["latency"]["p50_ms"].as_f64().unwrap() > 1.0,
        "{rag}"
    );
    assert_eq!(rag["prompt_fingerprint"].as_str().unwrap().len(), 64);
    assert!(rag["metrics"]["facts"]["low"].as_f64() <= rag["metrics"]["facts"]["value"].as_f64(), "{rag}");
    // Five rows decide nothing, whatever the figures.
    assert_eq!((&report["verdict"]["decision"], &report["verdict"]["rows_needed"]), (&json!("need_more_rows"), &json!(10)));
    assert_eq!(report["pairs"].as_array().unwrap().len(), 3);
    let html = std::fs::read_to_string(folder.path().join("out/report.html")).unwrap();
    assert!(
        html.contains("I &lt;b&gt;cannot&lt;/b&gt; say.") && html.contains("<svg") && !html.contains("<script") && !html.contains("http"),
        "{html}"
    );
    // The same command again asks nobody.
    assert_eq!((prompted.requests().len(), tuned.requests().len()), (5, 5));
    let again = run_json(folder.path(), &command);
    assert_eq!((prompted.requests().len(), tuned.requests().len()), (5, 5));
    assert_eq!(again["arms"], report["arms"]);
    // A server finds both in the catalog.
    let server = Server::start(folder.path(), &["serve"]);
    let (status, list) = server.json("GET", "/v1/groundtone/evaluations", &Value::Null);
    assert_eq!((status, list["data"].as_array().unwrap().len()), (200, 2), "{list}");
    let id = report["id"].as_str().unwrap();
    let (status, stored) = server.json("GET", &format!("/v1/groundtone/evaluations/{id}"), &Value::Null);
    let stored_report: Value = serde_json::from_str(stored["report"].as_str().unwrap()).unwrap();
    assert_eq!((status, &stored["decision"], &stored_report["arms"]), (200, &json!("need_more_rows"), &report["arms"]));
    assert_eq!(server.json("POST", "/v1/groundtone/evaluations", &stored).0, 400, "an evaluation is never replaced");
    // While it runs it is the one that is asked, and that keeps the evaluation.
    let third = run_json(
        folder.path(),
        &[
            "eval",
            "run",
            "--set",
            "set.jsonl",
            "--arms",
            "groundtone,prompted",
            "--arms-file",
            "arms.toml",
            "--limit",
            "2",
            "--max-tokens",
            "8",
            "--json",
        ],
    );
    let (_, list) = server.json("GET", "/v1/groundtone/evaluations", &Value::Null);
    assert_eq!((list["data"].as_array().unwrap().len(), &list["data"][0]["id"]), (3, &third["id"]));
}

#[test]
fn a_run_that_is_killed_goes_on_where_it_was() {
    let folder = shop(40);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let slow = || Reply::Slow(vec!["45".into()], std::time::Duration::from_millis(15));
    let (prompted, tuned) = runtime.block_on(async { (ScriptedServer::start([slow()]).await, ScriptedServer::start([slow()]).await) });
    arms_file(folder.path(), &prompted, &tuned);
    let command = ["eval", "run", "--set", "set.jsonl", "--arms", "prompted,tuned", "--arms-file", "arms.toml", "--json"];
    let mut child =
        groundtone(folder.path(), &command).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    super::support::wait_for("some answers", || prompted.requests().len() + tuned.requests().len() > 20);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = prompted.requests().len() + tuned.requests().len();
    assert!(before < 80, "the run was over before it could be killed");
    let report = run_json(folder.path(), &command);
    let asked = prompted.requests().len() + tuned.requests().len();
    // Two answers at the same time were cut off, no more are paid again.
    assert!(asked <= 80 + 2, "{asked} calls for 80 answers, {before} of them before the kill");
    assert_eq!((report["set"]["rows"].as_u64(), report["arms"][0]["errors"].as_u64()), (Some(40), Some(0)));
    assert_eq!(report["verdict"]["decision"], "need_more_rows", "equal arms, and 40 rows are too few to say so: {}", report["verdict"]);
}

#[test]
fn what_cannot_be_decided_is_refused_with_its_reason() {
    let folder = shop(5);
    let failing = |arguments: &[&str]| run_failing(folder.path(), &[&["eval", "run", "--set", "set.jsonl"], arguments].concat()).0;
    std::fs::write(folder.path().join("train.jsonl"), "{\"question\": \"what does the RETURN LABEL cost?!\", \"answer\": \"6 euro\"}\n")
        .unwrap();
    insta::assert_snapshot!(failing(&["--train", "train.jsonl"]), @r"
    error: 1 of 5 rows of set.jsonl are in the training data, so they would measure memory:
      row r1 `What does the return label cost?` is in train.jsonl as `what does the RETURN LABEL cost?!`
    hint: split before you build (`groundtone dataset split`), or leave these rows out with --drop-leaked
    ");
    let unknown = failing(&["--arms", "ft:nobody"]);
    assert!(unknown.contains("the server has no model `ft:nobody` for the arm ft:nobody; it has groundtone"), "{unknown}");
    insta::assert_snapshot!(failing(&["--arms", "few-shot"]), @r"
    error: the arm few-shot has no examples
    hint: name a file of them with --shots
    ");
    std::fs::write(folder.path().join("set.jsonl"), "{\"answer\": \"x\"}\n").unwrap();
    insta::assert_snapshot!(failing(&[]), @r"
    error: set.jsonl:1: there is no question: `question`, or `messages` with one of the user's
    hint: each line is a JSON object with `question` and `answer`, or OpenAI chat messages
    ");
}
