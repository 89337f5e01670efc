//! Which variant answers: pinned, released, on trial, fallen back to, rolled back; under load, and through kill -9.

use super::support::{Server, groundtone, run_failing, run_json, small_shop, wait_for};
use groundtone_testkit::{Reply, ScriptedServer};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// The settings of a shop with two model servers: `rag` asks the first one, `prompted` and `tuned` the second.
fn configure(folder: &Path, first: &str, second: &str, extra: &str) {
    std::fs::write(folder.join("brand.md"), "You are the shop's own voice.\n").unwrap();
    let settings = format!(
        "[chat]\nkind = \"openai\"\nmodel = \"first\"\nurl = \"{first}\"\ncontext_tokens = 8000\nretries = 0\n[assistant]\nname = \"shop\"\n[gate]\nthreshold = 0.0\n\
         [variants.prompted]\nprompt_file = \"brand.md\"\nurl = \"{second}\"\nmodel = \"second\"\n[variants.tuned-rag]\nurl = \"{second}\"\nmodel = \"second\"\n{extra}"
    );
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
}

fn shop(folder: &Path) {
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
}

fn says(text: &str) -> Reply {
    Reply::Stream(vec![text.to_owned()])
}

fn ask(server: &Server, model: &str, headers: &[(&str, &str)], question: &str) -> Value {
    let body = json!({"model": model, "messages": [{"role": "user", "content": question}]}).to_string();
    let (status, _, text) = server.request("POST", "/v1/chat/completions", headers, &body);
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    answer["status"] = json!(status);
    answer
}

/// Text, variant and release of an answer.
fn told(answer: &Value) -> (&str, &str, Option<&str>) {
    let about = &answer["groundtone"];
    (answer["choices"][0]["message"]["content"].as_str().unwrap(), about["variant"].as_str().unwrap(), about["release"].as_str())
}

const QUESTION: &str = "How long can I send my grinder back?";

#[test]
fn a_variant_is_pinned_released_tried_and_rolled_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shop(folder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = runtime.block_on(ScriptedServer::start([says("from the first")]));
    let second = runtime.block_on(ScriptedServer::start([says("from the second")]));
    configure(folder, &first.base_url, &second.base_url, "");
    let server = Server::start(folder, &["serve"]);
    let names = server.json("GET", "/v1/models", &Value::Null).1;
    let names: Vec<&str> = names["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["shop", "all-minilm-l6-v2-int8", "shop:rag", "shop:prompted", "shop:tuned-rag"]);
    // By name and by header; the prompted variant gets its own text and no documents.
    assert_eq!(told(&ask(&server, "shop", &[], QUESTION)), ("from the first", "rag", None));
    let prompted = ask(&server, "shop:prompted", &[], QUESTION);
    assert_eq!(told(&prompted), ("from the second", "prompted", None));
    assert_eq!(prompted["groundtone"]["sources"], json!([]));
    let sent = second.requests().pop().unwrap();
    assert_eq!(
        sent["messages"],
        json!([{"role": "system", "content": "You are the shop's own voice."}, {"role": "user", "content": QUESTION}])
    );
    assert_eq!(told(&ask(&server, "shop", &[("x-groundtone-variant", "tuned-rag")], QUESTION)), ("from the second", "tuned-rag", None));
    assert_eq!(ask(&server, "shop:nobody", &[], QUESTION)["status"], 404);
    assert_eq!(ask(&server, "shop", &[("x-groundtone-variant", "nobody")], QUESTION)["error"]["param"], "x-groundtone-variant");
    // Nothing is released without an evaluation, unless by its name and with a reason.
    let refused = |arguments: &[&str]| run_failing(folder, arguments).0;
    insta::assert_snapshot!(refused(&["release", "promote", "tuned-rag"]).replace(&server.address, "SERVER"), @r"
    error: SERVER/v1 answered 409: `tuned-rag` is not released: no evaluation speaks for it
    ");
    assert!(refused(&["release", "promote", "tuned-rag", "--force", "rag", "--reason", "x"]).contains("to force it, name it: `tuned-rag`"));
    assert!(refused(&["release", "promote", "nobody"]).contains("there is no variant `nobody`"));
    assert!(refused(&["release", "rollback"]).contains("nothing to roll back to"));
    // One that passed under another prompt speaks for another prompt.
    let evaluation = |id: &str, passed: bool, fingerprint: &Value| {
        let arm = json!({"name": "tuned-rag", "model": "shop:tuned-rag", "passed": passed, "reason": "as good", "prompt_fingerprint": fingerprint, "answered_by": "second"});
        let record = json!({"id": id, "name": "held-out", "set_sha256": "ab", "cases": 40, "decision": "combine", "reason": "better", "arms": [arm], "report": "{}", "created_at": 7});
        assert_eq!(server.json("POST", "/v1/groundtone/evaluations", &record).0, 201);
    };
    let fingerprint = ask(&server, "shop:tuned-rag", &[], QUESTION)["groundtone"]["prompt_fingerprint"].clone();
    let evaluated = |id: &'static str| ["release", "promote", "tuned-rag", "--evaluation", id, "--json"];
    assert!(refused(&evaluated("eval-0")).contains("there is no evaluation `eval-0`"));
    evaluation("eval-1", false, &fingerprint);
    assert!(refused(&evaluated("eval-1")).contains("its evaluation did not pass: as good"));
    evaluation("eval-2", true, &json!("another"));
    assert!(refused(&evaluated("eval-2")).contains("it was evaluated with the prompt another, but would answer with "));
    evaluation("eval-3", true, &fingerprint);
    let status = run_json(folder, &evaluated("eval-3"));
    assert_eq!((&status["releases"][0]["evaluation"]["id"], &status["releases"][0]["forced"]), (&json!("eval-3"), &Value::Null));
    run_json(folder, &["release", "rollback", "--json"]);
    let status = run_json(folder, &["release", "promote", "tuned-rag", "--force", "tuned-rag", "--reason", "a story", "--json"]);
    let tuned = status["live"]["release"].as_str().unwrap().to_owned();
    assert_eq!(
        (&status["live"]["variant"], &status["releases"][1]["forced"]),
        (&json!("tuned-rag"), &json!("no evaluation speaks for it"))
    );
    assert_eq!(told(&ask(&server, "shop", &[], QUESTION)), ("from the second", "tuned-rag", Some(tuned.as_str())));
    // A canary gets its share of the conversations, and a conversation stays where it is.
    let status = run_json(folder, &["release", "canary", "rag", "--percent", "50", "--json"]);
    let canary = status["live"]["canary"]["release"].as_str().unwrap().to_owned();
    let mut shares = [0, 0];
    for number in 0..24 {
        let of = |question: &str| {
            let answer = ask(&server, "shop", &[("x-groundtone-conversation", &format!("c{number}"))], question);
            usize::from(told(&answer).2 == Some(canary.as_str()))
        };
        let tried = of(QUESTION);
        assert_eq!(tried, of("And the motor?"));
        shares[tried] += 1;
    }
    assert!(shares[0] >= 4 && shares[1] >= 4, "{shares:?}");
    run_json(folder, &["release", "rollback", "--reason", "enough", "--json"]);
    assert_eq!(told(&ask(&server, "shop", &[("x-groundtone-conversation", "c1")], QUESTION)).2, Some(tuned.as_str()));
    // What was released answers after a restart, and without a server the command line sees the same.
    drop(server);
    let status = run_json(folder, &["release", "status", "--json"]);
    assert_eq!((&status["live"]["release"], &status["drift"]), (&json!(tuned), &json!([])));
    std::fs::write(folder.join("brand.md"), "You are somebody else.").unwrap();
    let server = Server::start(folder, &["serve"]);
    assert_eq!(told(&ask(&server, "shop", &[], QUESTION)).2, Some(tuned.as_str()));
    let status = run_json(folder, &["release", "rollback", "--json"]);
    assert_eq!((&status["live"]["release"], &status["live"]["variant"]), (&Value::Null, &json!("rag")));
    let actions: Vec<&str> = status["history"].as_array().unwrap().iter().map(|event| event["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["promote", "rollback", "promote", "canary", "rollback", "rollback"]);
    // An earlier release can come back by its id.
    let status = run_json(folder, &["release", "promote", &tuned, "--json"]);
    assert_eq!((&status["live"]["release"], status["releases"].as_array().unwrap().len()), (&json!(tuned), 3));
}

#[test]
fn another_variant_answers_where_the_first_one_fails_before_its_first_token() {
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ill = Reply::Raw(500, "text/plain", "broken".to_owned());
    let refused = Reply::Raw(400, "application/json", json!({"error": {"message": "no", "type": "invalid_request_error"}}).to_string());
    let first = runtime.block_on(ScriptedServer::start([ill.clone(), ill, refused, Reply::Cut(vec!["Half".into()])]));
    let second = runtime.block_on(ScriptedServer::start([says("from the second")]));
    configure(folder.path(), &first.base_url, &second.base_url, "[release]\nfallbacks = [\"tuned-rag\"]\nshadow = \"prompted\"\n");
    let server = Server::start(folder.path(), &["serve"]);
    let answer = ask(&server, "shop", &[], &format!("{QUESTION} I am ann@example.org."));
    assert_eq!((told(&answer), &answer["groundtone"]["fell_back_from"]), (("from the second", "tuned-rag", None), &json!("rag")));
    assert_eq!(answer["groundtone"]["sources"][0]["document"], "policies/returns.md");
    // The shadow gets a copy, which nobody is shown.
    let shadow = |request: &Value| request["messages"][0]["content"] == "You are the shop's own voice.";
    wait_for("the shadow's copy", || second.requests().iter().any(shadow));
    let kept = folder.path().join("data/shadow.jsonl");
    wait_for("the shadow's record", || std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("from the second")));
    let kept = std::fs::read_to_string(&kept).unwrap();
    assert!(kept.contains("I am [email].") && !kept.contains("ann@"), "{kept}");
    // A pinned variant is that variant or an error; a request that is wrong is wrong for all; and after the first token nobody takes over.
    assert_eq!(ask(&server, "shop:rag", &[], QUESTION)["status"], 502);
    assert_eq!(ask(&server, "shop", &[], QUESTION)["status"], 400);
    assert_eq!(ask(&server, "shop", &[], QUESTION)["status"], 502);
    assert_eq!(first.requests().len(), 4);
}

/// A model server whose answers take a while.
fn slow(runtime: &tokio::runtime::Runtime, word: &str) -> ScriptedServer {
    runtime.block_on(ScriptedServer::start([Reply::Slow(vec![format!("{word} "); 10], Duration::from_millis(30))]))
}

#[test]
fn a_switch_under_load_cuts_no_stream_and_fails_no_request() {
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (first, second) = (slow(&runtime, "one"), slow(&runtime, "two"));
    configure(folder.path(), &first.base_url, &second.base_url, "");
    let server = Server::start(folder.path(), &["serve"]);
    let (stop, whole, mixed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let body = json!({"model": "shop", "stream": true, "messages": [{"role": "user", "content": QUESTION}]}).to_string();
    let stream = || {
        let answer = BufReader::new(server.connect("POST", "/v1/chat/completions", &[], &body));
        let lines: Vec<String> = answer.lines().map(Result::unwrap).filter(|line| line.starts_with("data: ")).collect();
        let said: String = lines
            .iter()
            .filter_map(|line| {
                serde_json::from_str::<Value>(&line[6..]).ok()?["choices"][0]["delta"]["content"].as_str().map(str::to_owned)
            })
            .collect();
        (lines.last().map(String::as_str) == Some("data: [DONE]"), said)
    };
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let (complete, said) = stream();
                    assert!(complete, "a stream was cut: {said}");
                    let words: std::collections::HashSet<&str> = said.split_whitespace().collect();
                    whole.fetch_add(1, Ordering::SeqCst);
                    mixed.fetch_add(usize::from(words.len() != 1), Ordering::SeqCst);
                }
            });
        }
        for round in 0..6 {
            let before = whole.load(Ordering::SeqCst);
            wait_for("answers in between", || whole.load(Ordering::SeqCst) > before + 3);
            let (path, body, word) = if round % 2 == 0 {
                ("promote", json!({"variant": "tuned-rag", "force": "tuned-rag", "reason": "load"}), "two")
            } else {
                ("rollback", json!({}), "one")
            };
            let began = Instant::now();
            let (status, answer) = server.json("POST", &format!("/v1/groundtone/releases/{path}"), &body);
            assert_eq!(status, 200, "{answer}");
            println!("{path} took {:?}", began.elapsed());
            // The next question is answered by the other one.
            let (complete, said) = stream();
            assert!(complete && said.starts_with(word), "{said}");
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(mixed.load(Ordering::SeqCst), 0, "an answer changed its writer");
}

#[test]
fn a_server_that_is_killed_while_it_promotes_has_the_old_release_or_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    shop(folder.path());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = runtime.block_on(ScriptedServer::start([says("ok")]));
    configure(folder.path(), &upstream.base_url, &upstream.base_url, "");
    let mut known = 0;
    for round in 0..5u64 {
        let server = Server::start(folder.path(), &["serve"]);
        let variant = if round % 2 == 0 { "tuned-rag" } else { "prompted" };
        let body = json!({"variant": variant, "force": variant, "reason": "killed"}).to_string();
        let mut sent: Vec<_> = (0..3).map(|_| server.connect("POST", "/v1/groundtone/releases/promote", &[], &body)).collect();
        std::thread::sleep(Duration::from_millis(5 * round));
        if round == 4 {
            // What has been answered is there, the others may be on their way.
            sent[0].read_exact(&mut [0; 12]).unwrap();
        }
        server.kill_hard();
        drop(sent);
        let status: Value = run_json(folder.path(), &["release", "status", "--json"]);
        let (history, releases) = (status["history"].as_array().unwrap(), status["releases"].as_array().unwrap());
        // Each change has its release, each release its change, and the last one answers.
        assert_eq!(history.len(), releases.len(), "{status}");
        assert!(history.len() >= known && history.iter().zip(1..).all(|(event, number)| event["number"] == number), "{status}");
        for (event, release) in history.iter().zip(releases) {
            assert_eq!(event["release"], release["id"], "{status}");
        }
        assert_eq!(history.last().map(|event| &event["release"]).unwrap_or(&Value::Null), &status["live"]["release"], "{status}");
        known = history.len();
    }
    assert!(known > 0, "no promotion came through");
    let child = groundtone(folder.path(), &["release", "history"]).output().unwrap();
    assert!(child.status.success() && String::from_utf8_lossy(&child.stdout).lines().count() == known);
}

/// A server whose release is `rag`, with variants that are tried on half of the conversations.
fn with_canaries(folder: &Path, first: &str, variants: &[(&str, &str)]) -> (Server, String) {
    let variants: String = variants.iter().map(|(name, url)| format!("[variants.{name}]\nurl = \"{url}\"\nmodel = \"{name}\"\n")).collect();
    configure(folder, first, first, &variants);
    let server = Server::start(folder, &["serve"]);
    let status = run_json(folder, &["release", "promote", "rag", "--force", "rag", "--reason", "a story", "--json"]);
    let release = status["live"]["release"].as_str().unwrap().to_owned();
    (server, release)
}

fn try_on_half(folder: &Path, variant: &str) -> String {
    let status = run_json(folder, &["release", "canary", variant, "--percent", "50", "--json"]);
    status["live"]["canary"]["release"].as_str().unwrap().to_owned()
}

fn release_status(server: &Server) -> Value {
    server.json("GET", "/v1/groundtone/releases", &Value::Null).1
}

#[test]
fn a_canary_that_is_worse_is_stopped_by_itself_and_one_that_is_the_same_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    shop(folder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let first = runtime.block_on(ScriptedServer::start([says("You can send your grinder back within 45 days [1].")]));
    let broken = runtime.block_on(ScriptedServer::start([Reply::Raw(500, "text/plain", "broken".to_owned())]));
    let mute = runtime.block_on(ScriptedServer::start([says("Whenever it suits, my friend.")]));
    let variants = [("broken", broken.base_url.as_str()), ("mute", &mute.base_url), ("twin", &first.base_url)];
    let (server, released) = with_canaries(folder, &first.base_url, &variants);
    for (variant, signal) in [("broken", "error"), ("mute", "citation_failure")] {
        let canary = try_on_half(folder, variant);
        let mut asked = 0;
        while release_status(&server)["live"]["canary"] != Value::Null {
            assert!(asked < 300, "{variant} was not stopped: {}", release_status(&server)["trial"]);
            for _ in 0..10 {
                asked += 1;
                let answer = ask(&server, "shop", &[("x-groundtone-conversation", &format!("{variant} {asked}"))], QUESTION);
                assert_eq!(answer["status"], 200, "nobody is shown an error: {answer}");
            }
        }
        println!("{variant} was stopped within {asked} conversations");
        let status = release_status(&server);
        let last = status["history"].as_array().unwrap().last().unwrap();
        assert_eq!(
            (&status["live"]["release"], &last["action"], &last["actor"]),
            (&json!(released), &json!("rollback"), &json!("canary watch"))
        );
        let reason = last["reason"].as_str().unwrap();
        assert!(reason.starts_with(&format!("stopped by itself: {signal} 1.000 over ")), "{reason}");
        assert_eq!(status["trial"], Value::Null);
        let stopped = |entry: &Value| entry["action"] == format!("stop canary {canary}") && entry["origin"] == "canary watch";
        let audit = || server.json("GET", "/v1/groundtone/audit", &Value::Null).1["entries"].as_array().unwrap().clone();
        wait_for("the audit log's entry", || audit().iter().any(stopped));
        let metrics = server.request("GET", "/metrics", &[], "").2;
        let line = format!("groundtone_canary_decisions_total{{decision=\"stop\",signal=\"{signal}\"}} 1");
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    // One that is the same goes on; what was seen of it outlives the server.
    let canary = try_on_half(folder, "twin");
    let mut traces = Vec::new();
    for number in 0..40 {
        let answer = ask(&server, "shop", &[("x-groundtone-conversation", &format!("twin {number}"))], QUESTION);
        if answer["groundtone"]["release"] == json!(canary) {
            traces.push(answer["groundtone"]["trace_id"].as_str().unwrap().to_owned());
        }
    }
    for _ in 0..2 {
        let (status, _) = server.json("POST", "/v1/groundtone/feedback", &json!({"trace_id": traces[0], "thumb": "down"}));
        assert_eq!(status, 200);
    }
    // Asked again in one conversation, and pinned: neither counts.
    ask(&server, "shop", &[("x-groundtone-conversation", "twin 1")], QUESTION);
    ask(&server, "shop:twin", &[("x-groundtone-conversation", "twin 41")], QUESTION);
    let seen = |status: &Value| {
        let trial = &status["trial"];
        let of = |signal: &str, side: &str| trial["signals"][signal][side].as_u64().unwrap();
        (
            trial["decision"].clone(),
            of("error", "canary_count") + of("error", "baseline_count"),
            of("error", "canary_count"),
            of("feedback", "canary_count"),
        )
    };
    let expected = (json!("continue"), 40, traces.len() as u64, 1);
    assert_eq!(seen(&release_status(&server)), expected);
    server.stop();
    let server = Server::start(folder, &["serve"]);
    assert_eq!(seen(&release_status(&server)), expected);
    let shown = String::from_utf8(super::support::run(folder, &["release", "status"]).stdout).unwrap();
    assert!(shown.contains("nothing is shown yet") && shown.contains("citation_failure"), "{shown}");
    // Another percentage is the same trial, and another trial begins anew.
    run_json(folder, &["release", "canary", &canary, "--percent", "60", "--json"]);
    assert_eq!(seen(&release_status(&server)), expected);
    run_json(folder, &["release", "rollback", "--json"]);
    run_json(folder, &["release", "canary", &canary, "--percent", "60", "--json"]);
    assert_eq!(seen(&release_status(&server)).1, 0);
}
