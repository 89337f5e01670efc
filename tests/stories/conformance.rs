//! The official SDKs against the binary: real retrieval, and a scripted model server behind it that shows what it was sent.
//!
//! docs/reference/conformance.md lists every case; this test holds the list.

use super::fault_cases::{STREAM, send};
use super::support::{Server, run_json, small_shop};
use groundtone_testkit::{RawServer, Step};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn choice(delta: &Value, finish: &Value) -> Value {
    json!({"id": "up-1", "object": "chat.completion.chunk", "system_fingerprint": "fp_mock", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
}

/// A stream of these deltas, a finish reason, and usage with its details.
fn answer(deltas: &[Value], finish: &str) -> Vec<Step> {
    let mut text = STREAM.to_owned();
    deltas.iter().for_each(|delta| text.push_str(&event(&choice(delta, &Value::Null))));
    text.push_str(&event(&choice(&json!({}), &json!(finish))));
    let usage = json!({"prompt_tokens": 40, "completion_tokens": 9, "total_tokens": 49, "prompt_tokens_details": {"cached_tokens": 8}, "completion_tokens_details": {"reasoning_tokens": 3}});
    text.push_str(&event(&json!({"choices": [], "usage": usage})));
    text.push_str("data: [DONE]\n\n");
    vec![send(text)]
}

/// The text in several pieces.
fn say(text: &str) -> Vec<Step> {
    let pieces: Vec<char> = text.chars().collect();
    answer(&pieces.chunks(7).map(|piece| json!({"content": piece.iter().collect::<String>()})).collect::<Vec<_>>(), "stop")
}

fn tool_calls() -> Vec<Step> {
    let call = |fields: Value| json!({"tool_calls": [fields]});
    let deltas = [
        call(json!({"index": 0, "id": "call_1", "type": "function", "function": {"name": "price", "arguments": ""}})),
        call(json!({"index": 0, "function": {"arguments": "{\"sku\":"}})),
        call(json!({"index": 0, "function": {"arguments": "\"G1\"}"}})),
        call(json!({"index": 1, "id": "call_2", "type": "function", "function": {"name": "price", "arguments": "{\"sku\":\"G2\"}"}})),
    ];
    answer(&deltas, "tool_calls")
}

fn refuse(status: &str) -> Vec<Step> {
    let body = json!({"error": {"message": "the mock says no", "type": "invalid_request_error", "param": "messages", "code": "mock_code"}})
        .to_string();
    let head = format!(
        "HTTP/1.1 {status} Mock\r\ncontent-type: application/json\r\nretry-after: 0\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    vec![send(head + &body)]
}

/// A model server that does what the question's words ask for.
fn model(body: &str) -> Vec<Step> {
    let request: Value = serde_json::from_str(body).expect("a JSON request");
    let messages = request["messages"].as_array().expect("messages");
    let last = messages.last().expect("a message");
    let question = messages.iter().rfind(|message| message["role"] == "user").expect("a question");
    let parts = question["content"].as_array().cloned().unwrap_or_default();
    let text = question["content"].as_str().or_else(|| parts.first()?["text"].as_str()).unwrap_or_default().to_owned();
    let image = parts.iter().find(|part| part["type"] == "image_url");
    let asks = |word: &str| text.contains(word);
    if last["role"] == "tool" {
        let call = messages.iter().rev().nth(1).is_some_and(|message| !message["tool_calls"].is_null() || message["role"] == "tool");
        return say(if call { "It costs 89 euro." } else { "A tool's answer without its call" });
    }
    if let Some(status) = text.split("FAIL:").nth(1) {
        return refuse(&status[..3]);
    }
    if asks("CUT") {
        return vec![send(format!("{STREAM}{}", event(&choice(&json!({"content": "Half"}), &Value::Null))))];
    }
    if asks("SLOW") {
        return vec![
            send(STREAM),
            Step::Forever(event(&choice(&json!({"content": "more "}), &Value::Null)).into_bytes(), Duration::from_millis(20)),
        ];
    }
    if asks("ECHO") {
        let mut sent = request.clone();
        sent.as_object_mut().unwrap().remove("messages");
        return say(&sent.to_string());
    }
    if asks("HISTORY") {
        let roles: Vec<&Value> = messages.iter().map(|message| &message["role"]).collect();
        return say(&json!({"roles": roles, "messages": messages}).to_string());
    }
    if asks("SHORT") {
        return answer(&[json!({"content": "It is"})], "length");
    }
    if asks("REFUSE") {
        return answer(&[json!({"refusal": "I cannot "}), json!({"refusal": "do that."})], "stop");
    }
    if asks("THINK") {
        return answer(&[json!({"reasoning_content": "Let me see."}), json!({"content": "Yes."})], "stop");
    }
    if let Some(image) = image {
        return say(&format!("A picture: {} ({})", image["image_url"]["url"], asks("45 days")));
    }
    if request["tools"].as_array().is_some_and(|tools| !tools.is_empty()) {
        return tool_calls();
    }
    if request["response_format"]["type"] == "json_schema" {
        return say(r#"{"days": 45, "sure": true}"#);
    }
    if request["logprobs"] == true {
        let mut chunk = choice(&json!({"content": "Yes"}), &json!("stop"));
        chunk["choices"][0]["logprobs"] =
            json!({"content": [{"token": "Yes", "logprob": -0.25, "bytes": [89, 101, 115], "top_logprobs": []}], "refusal": null});
        return vec![send(format!("{STREAM}{}data: [DONE]\n\n", event(&chunk)))];
    }
    say("You can send it back within 45 days [1].")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The shop's server in front of the mock.
fn serve(folder: &Path) -> (Server, RawServer) {
    let upstream = RawServer::start(model);
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    let settings = format!(
        "[chat]\nkind = \"openai\"\nmodel = \"gpt-4o-mini\"\nurl = \"{}\"\ncontext_tokens = 8000\nretries = 0\nbreaker_failures = 0\n[assistant]\nname = \"shop\"\n[files]\nquota_mb = 1\n[gate]\nthreshold = 0.0\n",
        upstream.base_url
    );
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
    (Server::start(folder, &["serve"]), upstream)
}

/// Every case passed, every one stands on the page, and there are at least so many.
pub fn held_by_the_page(output: &Output, client: &str, least: usize) {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    let page = std::fs::read_to_string(root().join("docs/reference/conformance.md")).unwrap();
    let passed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("ok ")).collect();
    let missing: Vec<String> = passed.iter().map(|case| format!("| {client} | {case} |")).filter(|row| !page.contains(row)).collect();
    assert!(missing.is_empty(), "docs/reference/conformance.md does not list\n{}", missing.join("\n"));
    let listed = page.lines().filter(|line| line.starts_with(&format!("| {client} |"))).count();
    assert_eq!(listed, passed.len(), "docs/reference/conformance.md lists cases of {client} that did not run");
    assert!(passed.len() >= least, "only {} cases of {client}", passed.len());
}

#[test]
fn openai_python_finds_what_it_knows() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _upstream) = serve(folder.path());
    let packages = std::env::var("GROUNDTONE_TEST_PYTHONPATH").expect("GROUNDTONE_TEST_PYTHONPATH names the openai package: run ./gt test");
    let script = root().join("tests/python/conformance.py");
    let output = Command::new("python3").arg(script).arg(format!("{}/v1", server.address)).env("PYTHONPATH", packages).output().unwrap();
    held_by_the_page(&output, "openai-python", 45);
}

#[test]
fn langchain_and_llamaindex_find_what_they_know() {
    let folder = tempfile::tempdir().unwrap();
    let (server, _upstream) = serve(folder.path());
    let packages = std::env::var("GROUNDTONE_TEST_CLIENTSPATH").expect("GROUNDTONE_TEST_CLIENTSPATH names their packages: run ./gt test");
    let script = root().join("tests/python/conformance_clients.py");
    let output = Command::new("python3").arg(script).arg(format!("{}/v1", server.address)).env("PYTHONPATH", packages).output().unwrap();
    held_by_the_page(&output, "LangChain, LlamaIndex", 17);
}

#[test]
fn openai_node_finds_what_it_knows() {
    // `./gt test` sets it where node is on the machine.
    let Some(packages) = std::env::var_os("GROUNDTONE_TEST_NODEPATH").map(PathBuf::from) else {
        println!("skipped: GROUNDTONE_TEST_NODEPATH is not set, because node is not on this machine");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (server, _upstream) = serve(folder.path());
    let script = root().join("tests/node/conformance.mjs");
    let output = Command::new("node").arg(script).arg(packages).arg(format!("{}/v1", server.address)).output().unwrap();
    held_by_the_page(&output, "openai-node", 20);
}
