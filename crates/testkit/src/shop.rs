//! The small shop that clients are tested on: its documents, its settings, and the model server behind it.

use crate::Step;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The base model of the shop's trainings: the name that a client of OpenAI's would send.
pub const SHOP_BASE: &str = "gpt-4o-mini-2024-07-18";
/// The local model behind that name.
pub const SHOP_TRAINED: &str = "smollm2-135m-instruct-q4_1";
/// An adapter of one layer: trainings take seconds.
pub const SHOP_QUICK: &str = "trained_layers = 1\nrank = 2\n";

/// Settings of a server that answers with the model server at `url`.
pub fn answering_shop(url: &str) -> String {
    format!(
        "[chat]\nkind = \"openai\"\nmodel = \"gpt-4o-mini\"\nurl = \"{url}\"\ncontext_tokens = 8000\nretries = 0\nbreaker_failures = 0\n[assistant]\nname = \"shop\"\n[files]\nquota_mb = 1\n[gate]\nthreshold = 0.0\n"
    )
}

/// Settings of a server that trains; `more` are lines of `[tuning]`.
pub fn tuning_shop(more: &str) -> String {
    format!(
        "[assistant]\nname = \"shop\"\n[files]\nquota_mb = 4\n[tuning]\nbase_models = [\"{SHOP_BASE}={SHOP_TRAINED}\"]\nmax_file_mb = 1\nmax_row_tokens = 128\ncheckpoint_every = 2\n{more}"
    )
}

/// Lines of `[tuning]`: the shop is told of its trainings at this port, signed with what the variable `HOOK_SECRET` holds.
pub fn shop_webhook(port: u16) -> String {
    format!("{SHOP_QUICK}webhook_url = \"http://127.0.0.1:{port}/hook\"\nwebhook_secret_env = \"HOOK_SECRET\"\n")
}

/// Writes the documents of a small shop below `folder`, and says where they are.
pub fn small_shop(folder: &Path) -> PathBuf {
    let documents = folder.join("documents");
    std::fs::create_dir_all(documents.join("policies")).unwrap();
    let files = [
        (
            "policies/returns.md",
            "# Returns\n\n## Window\n\nYou can send your grinder back within 45 days of delivery.\n\n## Cost\n\nThe return label costs 6 euro outside Austria.\n",
        ),
        ("policies/warranty.md", "# Warranty\n\nThe burr set is covered for 12 years. The motor is covered for 4 years.\n"),
        ("hours.txt", "Opening hours\n\nThe workshop in Graz opens at nine on Saturdays and is closed on Mondays.\n"),
        ("prices.csv", "sku,product,price_eur\nG1,Alder hand grinder,89\nG2,Birch electric grinder,249\n"),
        (
            "about.html",
            "<html><head><title>About us</title></head><body><nav>Home</nav><main><h1>About us</h1><p>We have made grinders in Graz since 1987.</p></main></body></html>",
        ),
    ];
    for (name, text) in files {
        std::fs::write(documents.join(name), text).unwrap();
    }
    documents
}

// --- the model server ---

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

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
    vec![send(&text)]
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
    vec![send(&(head + &body))]
}

/// A model server that does what the question's words ask for; it is given the body of a request.
pub fn shop_model(body: &str) -> Vec<Step> {
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
        return vec![send(&format!("{STREAM}{}", event(&choice(&json!({"content": "Half"}), &Value::Null))))];
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
        return vec![send(&format!("{STREAM}{}data: [DONE]\n\n", event(&chunk)))];
    }
    say("You can send it back within 45 days [1].")
}
