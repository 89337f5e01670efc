//! From documents to a cited, streamed answer, through the real binary and the official SDK.

use super::support::{Server, groundtone, run, run_json, small_shop, wait_for};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The sample brand's server, once for all the stories of this file that only read.
fn demo(folder: &Path) -> Server {
    Server::start(folder, &["demo"])
}

fn python(script: &str, server: &Server, arguments: &[&str]) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let packages = std::env::var("GROUNDTONE_TEST_PYTHONPATH")
        .expect("GROUNDTONE_TEST_PYTHONPATH names the folder of the openai package: run ./gt test");
    let output = Command::new("python3")
        .arg(path)
        .arg(format!("{}/v1", server.address))
        .args(arguments)
        .env("PYTHONPATH", packages)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_official_sdk_gets_equal_citations_streamed_and_not() {
    let folder = tempfile::tempdir().unwrap();
    let server = demo(folder.path());
    println!("{}", python("sdk.py", &server, &[]));
}

#[test]
fn twenty_questions_cite_the_right_document() {
    let folder = tempfile::tempdir().unwrap();
    let server = demo(folder.path());
    let questions = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/kettlewren/questions.jsonl");
    let printed = python("twenty_questions.py", &server, &[questions.to_str().unwrap()]);
    println!("{printed}");
    let result: Value = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
    assert_eq!(result["questions"], 20);
    assert!(result["cited"].as_u64().unwrap() >= 18, "the right document is cited for fewer than 18 of 20 questions");
    // The sample's own adapter answers beside it, in the form that it was trained on: with markers.
    let body = json!({"model": "kettlewren:tuned-rag", "messages": [{"role": "user", "content": "How many days do I have to send an order back?"}]});
    let (status, answer) = server.json("POST", "/v1/chat/completions", &body);
    let details = &answer["groundtone"];
    assert_eq!(
        (status, details["variant"].as_str(), details["citations"][0]["basis"].as_str()),
        (200, Some("tuned-rag"), Some("marker")),
        "{answer}"
    );
}

#[test]
fn the_wire_is_openais() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    std::fs::write(folder.path().join("groundtone.toml"), "[gate]\nthreshold = 0.0\n").unwrap();
    let server = Server::start(folder.path(), &["serve"]);
    let ask = |extra: Value| {
        let mut body = json!({"model": "groundtone", "max_tokens": 24, "messages": [{"role": "user", "content": "How long can I send my grinder back?"}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        server.json("POST", "/v1/chat/completions", &body)
    };
    let (status, answer) = ask(json!({}));
    assert_eq!((status, answer["object"].as_str()), (200, Some("chat.completion")));
    assert_eq!(answer["groundtone"]["sources"][0]["document"], "policies/returns.md");
    assert!(answer["usage"]["prompt_tokens"].as_u64().unwrap() > 100);
    // A second question shares the system text: its keys and values were kept.
    let (_, again) = ask(json!({"messages": [{"role": "user", "content": "Is the motor covered?"}]}));
    assert!(again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 20, "{}", again["usage"]);
    // The client's own history is honoured.
    let history = json!({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": [{"type": "text", "text": "Is the motor covered?"}]}]});
    assert!(ask(history).1["usage"]["prompt_tokens"].as_u64() > again["usage"]["prompt_tokens"].as_u64());
    // Two answers of one request; what asks for nothing is ignored.
    let (status, two) = ask(json!({"n": 2, "user": "ann", "metadata": {"a": "b"}, "tools": [], "store": false, "max_tokens": 4}));
    assert_eq!((status, two["choices"].as_array().unwrap().len(), &two["choices"][1]["index"]), (200, 2, &json!(1)), "{two}");
    for (extra, param, words) in [
        (json!({"model": "gpt-4o"}), Value::Null, "there is no model `gpt-4o`; this server has `groundtone`"),
        (json!({"temperature": 3}), json!("temperature"), "between 0 and 2"),
        (json!({"n": 99}), json!("n"), "between 1 and 16"),
        (json!({"messages": []}), json!("messages"), "there are no messages"),
        (json!({"messages": [{"role": "assistant", "content": "x"}]}), json!("messages"), "must be the user's"),
        (json!({"messages": [{"role": "user", "content": "word ".repeat(4000)}]}), json!("messages"), "tokens"),
        (json!({"tools": [{"type": "function"}]}), json!("tools"), "not supported"),
        (json!({"response_format": {"type": "json_schema"}}), json!("response_format"), "`response_format` is not supported by smollm2"),
        (json!({"top_k": 5}), json!("top_k"), "`top_k` is not supported"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}),
            json!("messages"),
            "image_url",
        ),
    ] {
        let (status, body) = ask(extra.clone());
        assert!(status == 400 || status == 404, "{extra}: {status}");
        assert_eq!(body["error"]["param"], param, "{extra}: {body}");
        assert!(body["error"]["message"].as_str().unwrap().contains(words), "{extra}: {body}");
    }
    for (method, path, body, expected) in [
        ("POST", "/v1/chat/completions", "{nonsense", 400),
        ("PUT", "/v1/chat/completions", "{}", 405),
        ("GET", "/v1/nothing", "", 404),
        ("POST", "/v1/chat/completions", "{}", 400),
    ] {
        let (status, head, body) = server.request(method, path, &[], body);
        assert!(
            status == expected && head.contains("x-request-id: ") && body.starts_with("{\"error\":{\"message\":"),
            "{path}: {status} {body}"
        );
    }
    assert_eq!(server.request("POST", "/v1/chat/completions", &[], &format!("\"{}\"", "x".repeat(2_000_000))).0, 413);
    assert_eq!(server.json("GET", "/v1/nothing", &Value::Null).0, 404);
    assert_eq!(server.json("GET", "/v1/models", &Value::Null).1["data"][0]["id"], "groundtone");
    assert_eq!(server.json("GET", "/v1/models/nobody", &Value::Null).1["error"]["code"], "model_not_found");
    assert_eq!(server.json("GET", "/healthz", &Value::Null).1["status"], "ok");
    assert_eq!(server.json("GET", "/readyz", &Value::Null).1["status"], "ready");
    let (_, vectors) = server.json("POST", "/v1/embeddings", &json!({"model": "all-minilm-l6-v2-int8", "input": ["a", "b"]}));
    assert_eq!((vectors["data"].as_array().unwrap().len(), vectors["data"][1]["embedding"].as_array().unwrap().len()), (2, 384));
    // A page elsewhere that points its own name at this machine is refused.
    assert_eq!(server.request("GET", "/v1/models", &[("host", "evil.example")], "").0, 403);
    let (status, head, page) = server.request("GET", "/", &[], "");
    assert!(status == 200 && head.contains("content-security-policy") && page.contains("/chat.js"), "{head}");
}

#[test]
fn a_request_id_is_in_the_answer_and_in_every_step_of_the_log() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let server = Server::start(folder.path(), &["serve"]);
    let body =
        json!({"model": "groundtone", "max_tokens": 8, "messages": [{"role": "user", "content": "Is the motor covered?"}]}).to_string();
    let (_, head, _) = server.request("POST", "/v1/chat/completions", &[], &body);
    let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap().to_owned();
    wait_for("the log", || {
        std::fs::read_to_string(&server.log)
            .unwrap()
            .lines()
            .any(|line| line.contains(&id) && line.contains("\"name\":\"request\"") && line.contains("time.busy"))
    });
    let log = std::fs::read_to_string(&server.log).unwrap();
    for step in ["answer.retrieve", "answer.render", "answer.generate", "answer.cite"] {
        assert!(
            log.lines().any(|line| line.contains(&id) && line.contains(step) && line.contains("time.busy")),
            "no span {step} with {id} in\n{log}"
        );
    }
    assert!(!log.contains("motor"), "the log holds the customer's words");
    let (_, head, _) = server.request("POST", "/v1/chat/completions", &[("x-request-id", "mine-7")], &body);
    assert!(head.contains("x-request-id: mine-7"));
}

#[test]
fn a_full_queue_answers_429_and_a_client_that_leaves_stops_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    std::fs::write(folder.path().join("groundtone.toml"), "[chat]\nparallel = 1\nqueue = 1\n[gate]\nthreshold = 0.0\n").unwrap();
    let server = Server::start(folder.path(), &["serve"]);
    let body = |stream: bool, most: u32| {
        json!({"model": "groundtone", "stream": stream, "temperature": 1.5, "max_tokens": most, "messages": [{"role": "user", "content": "Tell me a very long story about grinders."}]}).to_string()
    };
    // One runs. Of three more, one waits and two are refused at once; which one waits is nobody's business.
    let mut streamed = BufReader::new(server.connect("POST", "/v1/chat/completions", &[], &body(true, 900)));
    let mut event = || streamed.by_ref().lines().map(Result::unwrap).find(|line| line.starts_with("data: ")).unwrap();
    event();
    let began = Instant::now();
    (0..10).for_each(|_| drop(event()));
    let of_one_token = began.elapsed() / 10;
    let others: Vec<TcpStream> = (0..3).map(|_| server.connect("POST", "/v1/chat/completions", &[], &body(false, 900))).collect();
    let (heard, answers) = std::sync::mpsc::channel();
    for mut stream in others.iter().map(|stream| stream.try_clone().unwrap()) {
        let heard = heard.clone();
        std::thread::spawn(move || {
            let mut text = String::new();
            // The one that waits is hung up on below.
            if stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
                heard.send(text).unwrap_or_default();
            }
        });
    }
    for _ in 0..2 {
        let text = answers.recv_timeout(Duration::from_secs(60)).expect("nothing was refused");
        assert!(
            text.starts_with("HTTP/1.1 429 ") && text.to_lowercase().contains("retry-after: ") && text.contains("rate_limit_error"),
            "{text}"
        );
    }
    // All leave, one in the middle of a stream and one without one: the next question has the model for itself.
    drop(streamed);
    others.iter().for_each(|stream| stream.shutdown(Shutdown::Both).unwrap_or_default());
    let left = Instant::now();
    wait_for("an answer", || server.request("POST", "/v1/chat/completions", &[], &body(false, 4)).0 == 200);
    let took = left.elapsed();
    println!("after both clients left, the next answer was complete in {took:?}; a token takes {of_one_token:?}");
    // An answer in this time means that neither of the two was written to its end.
    assert!(took < of_one_token * 600 + Duration::from_secs(2), "{took:?} with {of_one_token:?} a token");
}

#[test]
fn the_terminal_gets_a_cited_answer_with_and_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    let question = "How long can I send my grinder back?";
    let alone = run_json(folder.path(), &["ask", question, "--json"]);
    let server = Server::start(folder.path(), &["serve"]);
    let served = run_json(folder.path(), &["ask", question, "--json"]);
    for key in ["answer", "citations", "prompt_fingerprint", "abstained"] {
        assert_eq!(alone[key], served[key], "{key}");
    }
    assert!(served["citations"].as_array().unwrap().iter().any(|citation| citation["document"] == "policies/returns.md"), "{served}");
    let shown = String::from_utf8(run(folder.path(), &["ask", question]).stdout).unwrap();
    assert!(shown.contains("Returns › Window") && shown.contains("policies/returns.md"), "{shown}");
    let found = run_json(folder.path(), &["search", question, "--json"]);
    assert_eq!(found["hits"][0]["document"], "policies/returns.md");
    drop(server);
}

#[test]
fn keys_are_wanted_where_they_are_configured() {
    let folder = tempfile::tempdir().unwrap();
    let documents = small_shop(folder.path());
    run_json(folder.path(), &["ingest", documents.to_str().unwrap(), "--json"]);
    // printf %s sesame | sha256sum
    let hash = "d0c04f4b1951e4aeaaec8223ed2039e542f3aae805a6fa7f6d794e5afff5d272";
    std::fs::write(
        folder.path().join("groundtone.toml"),
        format!("[server]\napi_key_sha256 = [\"{hash}\"]\napi_key_env = \"GROUNDTONE_TEST_KEY\"\n"),
    )
    .unwrap();
    let server = Server::start(folder.path(), &["serve"]);
    let (status, _, body) = server.request("GET", "/v1/models", &[], "");
    assert!(status == 401 && body.contains("authentication_error"), "{body}");
    assert_eq!(server.request("GET", "/v1/models", &[("authorization", "Bearer wrong")], "").0, 401);
    assert_eq!(server.request("GET", "/v1/models", &[("authorization", "Bearer sesame")], "").0, 200);
    assert_eq!(server.request("GET", "/healthz", &[], "").0, 200);
    let ask = |key: &str| groundtone(folder.path(), &["search", "grinder", "--json"]).env("GROUNDTONE_TEST_KEY", key).output().unwrap();
    assert!(ask("sesame").status.success());
    assert!(ask("wrong").status.success(), "who can read the data directory needs no key");
    let log = std::fs::read_to_string(&server.log).unwrap();
    assert!(!log.contains("sesame"), "the log holds a key");
}
