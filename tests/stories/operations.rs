//! Keys, limits, page tokens, the audit log, traces, feedback, replay, metrics and what is never written to disk: the real binary in front of a scripted model server.

use super::fault_cases::{STREAM, send};
use super::support::{Server, run_failing, run_json, small_shop, wait_for};
use groundtone_server::{Need, ROUTES};
use groundtone_testkit::{RawServer, Step};
use groundtone_types::Scope;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// A model server that says how often it was asked, and what one answer costs.
fn model(body: &str) -> Vec<Step> {
    let request: Value = serde_json::from_str(body).expect("a JSON request");
    let question = request["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
    let chunk =
        |delta: Value, finish: Value| event(&json!({"id": "up", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}));
    if question.contains("SLOW") {
        return vec![
            send(STREAM),
            send(chunk(json!({"content": "It "}), Value::Null)),
            Step::Forever(chunk(json!({"content": "more "}), Value::Null).into_bytes(), Duration::from_millis(20)),
        ];
    }
    if question.contains("FAIL") {
        return vec![send("HTTP/1.1 500 No\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno")];
    }
    let text = if question.contains("ECHO") {
        format!("You wrote {question}")
    } else if question.contains("UNKNOWN") {
        "I don't have that in our guides.".to_owned()
    } else {
        "You can send it back within 45 days [1].".to_owned()
    };
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 400, "completion_tokens": 100, "total_tokens": 500}});
    vec![send(format!(
        "{STREAM}{}{}{}data: [DONE]\n\n",
        chunk(json!({"content": text}), Value::Null),
        chunk(json!({}), json!("stop")),
        event(&usage)
    ))]
}

/// Settings of a shop in front of the model server.
fn shop(folder: &Path, upstream: &RawServer, more: &str) {
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    let settings = format!(
        "[chat]\nkind = \"openai\"\nmodel = \"gpt-4o-mini\"\nurl = \"{}\"\ncontext_tokens = 8000\nretries = 0\nbreaker_failures = 0\n[assistant]\nname = \"shop\"\n{more}",
        upstream.base_url
    );
    let settings = format!("{settings}[gate]\nthreshold = 0.0\n");
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
}

/// `groundtone keys create` before the server runs.
fn key(folder: &Path, arguments: &[&str]) -> (String, String) {
    let created = run_json(folder, &[&["keys", "create", "--json"], arguments].concat());
    (created["key"].as_str().unwrap().to_owned(), created["id"].as_str().unwrap().to_owned())
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// Status, headers and JSON of a request with a key.
fn call(server: &Server, key: &str, method: &str, path: &str, body: &Value) -> (u16, String, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let (status, head, text) = server.request(method, path, &[("authorization", &bearer(key))], &body);
    (status, head, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn question(text: &str) -> Value {
    json!({"model": "shop", "messages": [{"role": "user", "content": text}]})
}

fn ask(server: &Server, key: &str, text: &str) -> (u16, String, Value) {
    call(server, key, "POST", "/v1/chat/completions", &question(text))
}

#[test]
fn every_route_wants_its_scope_and_a_revoked_key_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RawServer::start(model);
    shop(folder.path(), &upstream, "");
    let keys: Vec<(Scope, String, String)> = Scope::ALL
        .iter()
        .map(|scope| {
            let (secret, id) = key(folder.path(), &["--name", scope.as_str(), "--scope", scope.as_str()]);
            (*scope, secret, id)
        })
        .collect();
    let (other_admin, _) = key(folder.path(), &["--name", "other", "--scope", "admin", "--tenant", "other"]);
    let (ended, _) = key(folder.path(), &["--name", "short", "--scope", "chat", "--expires-in", "1"]);
    let server = Server::start(folder.path(), &["serve"]);
    for (method, route, need) in ROUTES {
        let path =
            route.replace("{*id}", "nothing.md").replace("{id}", "nothing").replace("{file_id}", "nothing").replace("{prefix}", "nothing");
        let denied = |key: &str| {
            let (status, _, body) = call(&server, key, method, &path, &Value::Null);
            assert_ne!(status, 401, "{method} {path}: {body}");
            status == 403 && body["error"]["code"] == "missing_scope"
        };
        assert_eq!(server.request(method, &path, &[], "").0, 401, "{method} {path} without a key");
        assert_eq!(server.request(method, &path, &[("authorization", "Bearer gt-000000000000-00")], "").0, 401);
        for (scope, secret, _) in &keys {
            let allowed = (*scope == Scope::Admin && *need != Need::Owner)
                || match need {
                    Need::Key => true,
                    Need::Scope(scopes) => scopes.contains(scope),
                    Need::Operator | Need::Owner => false,
                };
            assert_eq!(denied(secret), !allowed, "{method} {path} with {scope}");
        }
        assert_eq!(denied(&other_admin), matches!(need, Need::Operator | Need::Owner), "{method} {path} with another tenant's admin");
    }
    // Each tenant has its own documents, and its own keys.
    let (admin, chat) = (&keys[4].1, &keys[0]);
    let found =
        |key: &str| call(&server, key, "POST", "/v1/groundtone/search", &json!({"query": "grinder"})).2["hits"].as_array().unwrap().len();
    assert!(found(admin) > 0 && found(&other_admin) == 0, "another tenant finds nothing of ours");
    let listed = |key: &str| call(&server, key, "GET", "/v1/groundtone/keys", &Value::Null).2["keys"].as_array().unwrap().len();
    assert_eq!((listed(admin), listed(&other_admin)), (7, 1));
    let stolen =
        call(&server, &other_admin, "POST", "/v1/groundtone/keys", &json!({"name": "x", "scopes": ["admin"], "tenant": "default"}));
    assert_eq!(stolen.0, 403, "{}", stolen.2);
    assert_eq!(call(&server, &other_admin, "DELETE", &format!("/v1/groundtone/keys/{}", chat.2), &Value::Null).0, 404);
    // A key that ends: now, not later.
    assert_eq!(ask(&server, &chat.1, "How long?").0, 200);
    assert_eq!(ask(&server, &ended, "How long?").0, 200);
    assert_eq!(call(&server, admin, "DELETE", &format!("/v1/groundtone/keys/{}", chat.2), &Value::Null).0, 200);
    let (status, _, body) = ask(&server, &chat.1, "How long?");
    assert_eq!((status, &body["error"]["code"], &body["error"]["type"]), (401, &json!("invalid_api_key"), &json!("authentication_error")));
    // Who did that, from where.
    let (_, _, audit) = call(&server, admin, "GET", "/v1/groundtone/audit?limit=1000", &Value::Null);
    let entries = audit["entries"].as_array().unwrap();
    let revoked =
        entries.iter().find(|entry| entry["action"] == format!("DELETE /v1/groundtone/keys/{}", chat.2) && entry["status"] == 200);
    let revoked = revoked.unwrap_or_else(|| panic!("{audit}"));
    assert_eq!((&revoked["key"], &revoked["origin"]), (&json!(keys[4].2), &json!("127.0.0.1")));
    assert!(
        entries
            .iter()
            .any(|entry| entry["action"].as_str().unwrap().starts_with("groundtone keys create") && entry["origin"] == "command line")
    );
    assert!(entries.iter().any(|entry| entry["status"] == 403), "who tried what they may not");
    let answered = |entry: &&Value| entry["status"] != 403;
    assert!(entries.iter().filter(answered).all(|entry| !entry["action"].as_str().unwrap().contains("/v1/chat")), "questions have traces");
    // After a restart it is refused still, and the last key's end does not open the server.
    drop(server);
    for (_, _, id) in &keys {
        run_json(folder.path(), &["keys", "revoke", id, "--json"]);
    }
    let server = Server::start(folder.path(), &["serve"]);
    assert_eq!(ask(&server, &chat.1, "How long?").0, 401);
    assert_eq!(server.request("GET", "/v1/models", &[], "").0, 401);
}

#[test]
fn limits_answer_429_and_say_when_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RawServer::start(model);
    shop(folder.path(), &upstream, "[limits]\nprices = [\"gpt-4o-mini=1000/2000\"]\n");
    let (few, few_id) = key(folder.path(), &["--name", "few", "--scope", "chat", "--requests-per-day", "2"]);
    let (tokens, _) = key(folder.path(), &["--name", "tokens", "--scope", "chat", "--tokens-per-day", "900"]);
    let (money, _) = key(folder.path(), &["--name", "money", "--scope", "chat", "--money-per-day", "0.5"]);
    let (admin, _) = key(folder.path(), &["--name", "admin", "--scope", "admin"]);
    let refused = |(status, head, body): (u16, String, Value), what: &str| {
        assert_eq!(
            (status, &body["error"]["type"], &body["error"]["code"]),
            (429, &json!("rate_limit_error"), &json!("rate_limit_exceeded")),
            "{body}"
        );
        assert!(body["error"]["message"].as_str().unwrap().contains(what), "{body}");
        let wait: u64 = head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap().trim().parse().unwrap();
        assert!((1..=86_400).contains(&wait), "{head}");
        head
    };
    let server = Server::start(folder.path(), &["serve"]);
    let (status, head, _) = ask(&server, &few, "How long?");
    assert!(
        status == 200 && head.contains("x-ratelimit-limit-requests: 2") && head.contains("x-ratelimit-remaining-requests: 1"),
        "{head}"
    );
    assert_eq!(ask(&server, &few, "How long?").0, 200);
    let head = refused(ask(&server, &few, "How long?"), "2 requests a day");
    assert!(head.contains("x-ratelimit-remaining-requests: 0"), "{head}");
    // Each answer takes 500 tokens and 0.6: the one before the limit may pass it.
    for _ in 0..2 {
        assert_eq!(ask(&server, &tokens, "How long?").0, 200);
    }
    refused(ask(&server, &tokens, "How long?"), "900 tokens a day");
    assert_eq!(ask(&server, &money, "How long?").0, 200);
    refused(ask(&server, &money, "How long?"), "0.5 money a day");
    let used = |server: &Server| {
        let (_, _, list) = call(server, &admin, "GET", "/v1/groundtone/keys", &Value::Null);
        list["keys"].as_array().unwrap().iter().find(|key| key["id"] == few_id).unwrap()["used_today"].clone()
    };
    let before = used(&server);
    assert_eq!((&before["requests"], &before["tokens"], &before["micros"]), (&json!(2), &json!(1000), &json!(1_200_000)));
    // A stop forgets nothing of the day.
    server.stop();
    let server = Server::start(folder.path(), &["serve"]);
    assert_eq!(used(&server), before);
    refused(ask(&server, &few, "How long?"), "2 requests a day");
}

#[test]
fn a_web_page_calls_with_a_token_that_is_its_own_and_short_lived() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RawServer::start(model);
    shop(
        folder.path(),
        &upstream,
        "[server]\ncors_origins = [\"https://shop.example\", \"https://other.example\"]\npage_token_seconds = 60\n",
    );
    let (chat, id) = key(folder.path(), &["--name", "page", "--scope", "chat,ingest"]);
    let (admin, _) = key(folder.path(), &["--name", "admin", "--scope", "admin"]);
    let server = Server::start(folder.path(), &["serve"]);
    let mint = |key: &str, body: Value| call(&server, key, "POST", "/v1/groundtone/page_tokens", &body);
    for (body, param) in [
        (json!({"origin": "https://shop.example/"}), "origin"),
        (json!({"origin": "https://evil.example"}), "origin"),
        (json!({"origin": "null"}), "origin"),
        (json!({"origin": "https://shop.example", "ttl_seconds": 61}), "ttl_seconds"),
    ] {
        let (status, _, refused) = mint(&chat, body.clone());
        assert_eq!((status, refused["error"]["param"].as_str()), (400, Some(param)), "{body}: {refused}");
    }
    let (status, _, minted) = mint(&chat, json!({"origin": "https://shop.example"}));
    assert_eq!(status, 200, "{minted}");
    let token = minted["token"].as_str().unwrap();
    let from = |token: &str, origin: Option<&str>, method: &str, path: &str, body: &str| {
        let bearer = bearer(token);
        let mut headers = vec![("authorization", bearer.as_str())];
        headers.extend(origin.map(|origin| ("origin", origin)));
        server.request(method, path, &headers, body)
    };
    let body = question("How long?").to_string();
    let (status, head, _) = from(token, Some("https://shop.example"), "POST", "/v1/chat/completions", &body);
    assert!(status == 200 && head.contains("access-control-allow-origin: https://shop.example"), "{status} {head}");
    for origin in [Some("https://other.example"), Some("https://evil.example"), None] {
        assert_eq!(from(token, origin, "POST", "/v1/chat/completions", &body).0, 401, "{origin:?}");
    }
    // It chats, whatever else its key may do, and it makes no other token.
    assert_eq!(from(token, Some("https://shop.example"), "GET", "/v1/files", "").0, 403);
    let again = json!({"origin": "https://shop.example"}).to_string();
    assert_eq!(from(token, Some("https://shop.example"), "POST", "/v1/groundtone/page_tokens", &again).0, 403);
    // It expires, and it ends with its key.
    let (_, _, short) = mint(&chat, json!({"origin": "https://shop.example", "ttl_seconds": 1}));
    let short = short["token"].as_str().unwrap();
    wait_for("the token's end", || from(short, Some("https://shop.example"), "GET", "/v1/models", "").0 == 401);
    assert_eq!(from(token, Some("https://shop.example"), "GET", "/v1/models", "").0, 200);
    assert_eq!(call(&server, &admin, "DELETE", &format!("/v1/groundtone/keys/{id}"), &Value::Null).0, 200);
    assert_eq!(from(token, Some("https://shop.example"), "GET", "/v1/models", "").0, 401);
    // A browser asks first, without a key; a stranger's page gets no permission.
    let preflight = |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,x-stainless-lang"),
        ];
        server.request("OPTIONS", "/v1/chat/completions", &headers, "")
    };
    let (status, head, _) = preflight("https://shop.example");
    assert!(
        status == 200 && head.contains("access-control-allow-origin: https://shop.example") && head.contains("x-stainless-lang"),
        "{status} {head}"
    );
    assert!(!preflight("https://evil.example").1.contains("access-control-allow-origin"));
}

#[test]
fn an_answer_leaves_a_trace_takes_feedback_and_can_be_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RawServer::start(model);
    shop(folder.path(), &upstream, "[limits]\nprices = [\"gpt-4o-mini=1000/2000\"]\n[retrieval]\ntop_k = 1\n");
    let server = Server::start(folder.path(), &["serve"]);
    let asked = |text: &str| {
        let (status, answer) = server.json("POST", "/v1/chat/completions", &question(text));
        assert_eq!(status, 200, "{answer}");
        answer["groundtone"]["trace_id"].as_str().unwrap_or_else(|| panic!("no trace id: {answer}")).to_owned()
    };
    let (good, unknown) = (asked("How long can I send my grinder back?"), asked("UNKNOWN: Do you mend bicycles?"));
    let mut streamed = question("Is the motor covered?");
    streamed["stream"] = json!(true);
    let (_, _, events) = server.request("POST", "/v1/chat/completions", &[], &streamed.to_string());
    let in_stream = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .find_map(|event| event["groundtone"]["trace_id"].as_str().map(str::to_owned));
    let in_stream = in_stream.expect("a trace id in the last delta");
    assert_eq!(server.json("POST", "/v1/chat/completions", &question("FAIL now")).0, 502);
    // What is kept of an answer.
    let (_, trace) = server.json("GET", &format!("/v1/groundtone/traces/{good}"), &Value::Null);
    assert_eq!(
        (&trace["question"], &trace["answer"]),
        (&json!("How long can I send my grinder back?"), &json!("You can send it back within 45 days [1]."))
    );
    assert_eq!(
        (&trace["snippets"][0]["document"], &trace["model"], &trace["outcome"]),
        (&json!("policies/returns.md"), &json!("gpt-4o-mini"), &json!("answered"))
    );
    assert_eq!(
        (&trace["usage"]["prompt_tokens"], &trace["money"], &trace["citations"][0]["number"]),
        (&json!(400), &json!(0.6), &json!(1))
    );
    assert!(
        trace["prompt_fingerprint"].as_str().unwrap().len() == 64
            && trace["timings"]["total_ms"].as_f64().unwrap() > 0.0
            && trace["request_id"].is_string(),
        "{trace}"
    );
    // What people said of it.
    let feedback = |body: Value| server.json("POST", "/v1/groundtone/feedback", &body);
    assert_eq!(feedback(json!({"trace_id": in_stream, "thumb": "up"})).0, 200, "right after the answer");
    assert_eq!(feedback(json!({"trace_id": good, "thumb": "down", "text": "wrong", "correction": "Within 45 days of delivery."})).0, 200);
    assert_eq!(feedback(json!({"trace_id": "tr_nothing", "thumb": "up"})).0, 404);
    assert_eq!(feedback(json!({"trace_id": good, "thumb": "sideways"})).0, 400);
    let ids = |query: &str| {
        let (status, list) = server.json("GET", &format!("/v1/groundtone/traces{query}"), &Value::Null);
        assert_eq!(status, 200, "{list}");
        list["traces"].as_array().unwrap().iter().map(|trace| trace["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids("?thumb=down"), [good.as_str()]);
    assert_eq!(ids("?abstained=true"), [unknown.as_str()]);
    assert_eq!((ids("").len(), ids("?outcome=failed").len(), ids("?limit=1").len()), (4, 1, 1));
    let (status, refused) = server.json("GET", "/v1/groundtone/traces?limit=many", &Value::Null);
    assert_eq!((status, &refused["error"]["type"]), (400, &json!("invalid_request_error")));
    assert!(refused["error"]["message"].as_str().unwrap().starts_with("the query has the wrong shape: "), "{refused}");
    assert_eq!(ids(&format!("?before={unknown}")), [good.as_str()]);
    assert_eq!(server.request("GET", "/v1/groundtone/traces?thumbs=down", &[], "").0, 400);
    // A client that leaves leaves a trace too.
    let mut slow = question("SLOW, please");
    slow["stream"] = json!(true);
    let client = server.connect("POST", "/v1/chat/completions", &[], &slow.to_string());
    wait_for("the model's first words", || upstream.requests() >= 5);
    drop(client);
    wait_for("the trace of a client that left", || ids("?outcome=cancelled").len() == 1);
    // Asked again, with more snippets: beside the server and without it.
    let replayed = |arguments: &[&str]| run_json(folder.path(), &[&["replay", &good, "--json"], arguments].concat());
    let beside = replayed(&["--top-k", "3"]);
    assert_eq!((beside["then"]["snippets"].as_array().unwrap().len(), beside["now"]["snippets"].as_array().unwrap().len()), (1, 3));
    assert_eq!((&beside["difference"]["answer"], beside["difference"]["snippets_new"].as_array().unwrap().len()), (&json!(false), 2));
    let (error, _) = run_failing(folder.path(), &["replay", &good, "--model", "gpt-5"]);
    assert!(error.contains("answers with its own model"), "{error}");
    let listed = run_json(folder.path(), &["traces", "list", "--thumb", "down", "--json"]);
    assert_eq!(listed["traces"][0]["feedback"]["correction"], "Within 45 days of delivery.");
    // What Prometheus reads.
    let (status, head, text) = server.request("GET", "/metrics", &[], "");
    assert!(status == 200 && head.contains("openmetrics-text"), "{head}");
    for line in [
        "groundtone_answers_total{model=\"gpt-4o-mini\",outcome=\"abstained\",variant=\"rag\"} 1",
        "groundtone_answers_total{model=\"gpt-4o-mini\",outcome=\"failed\",variant=\"rag\"} 1",
        "groundtone_answers_total{model=\"gpt-4o-mini\",outcome=\"cancelled\",variant=\"rag\"} 1",
        "groundtone_tokens_total{kind=\"completion\",model=\"gpt-4o-mini\"}",
        "groundtone_money_total{model=\"gpt-4o-mini\"}",
        "groundtone_answer_stage_duration_seconds_count{stage=\"retrieve\",variant=\"rag\"} 3",
        "groundtone_http_requests_total{method=\"POST\",route=\"/v1/chat/completions\",status=\"200\"}",
        "groundtone_feedback_total{reason=\"down\"} 1",
        "groundtone_cache_total{cache=\"queries\",result=\"hit\"}",
    ] {
        assert!(text.lines().any(|found| found.starts_with(line)), "{line} is not in\n{text}");
    }
    drop(server);
    let alone = replayed(&["--model", "gpt-5", "--set", "retrieval.top_k=2"]);
    assert_eq!((&alone["now"]["model"], &alone["difference"]["model"]), (&json!("gpt-5"), &json!(true)));
    assert_eq!(run_json(folder.path(), &["traces", "show", &good, "--json"])["feedback"]["thumb"], "down");
}

/// Every file below a folder that holds one of these texts.
fn holding(folder: &Path, secrets: &[&str], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            holding(&path, secrets, found);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            let holds = |secret: &&&str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            found.extend(secrets.iter().filter(holds).map(|secret| format!("{}: {secret}", path.display())));
        }
    }
}

#[test]
fn neither_keys_nor_personal_data_are_found_anywhere_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RawServer::start(model);
    shop(
        folder.path(),
        &upstream,
        "[privacy]\npatterns = [\"order=ORD-[0-9]{6}\"]\n[server]\ncors_origins = [\"https://shop.example\"]\n[log]\nlevel = \"debug\"\n",
    );
    let (secret, _) = key(folder.path(), &["--name", "k", "--scope", "admin"]);
    let server = Server::start(folder.path(), &["serve", "-vv"]);
    let personal = ["ann.lee@mail.example", "+43 660 1234567", "4111 1111 1111 1111", "AT61 1904 3002 3457 3201", "ORD-123456"];
    let told = format!(
        "ECHO I am {} and {}, card {} or {}, about {}, my key is {secret}",
        personal[0], personal[1], personal[2], personal[3], personal[4]
    );
    let (status, _, answer) = ask(&server, &secret, &told);
    assert_eq!(status, 200, "{answer}");
    assert!(answer["choices"][0]["message"]["content"].as_str().unwrap().contains(personal[0]), "the client gets its own words back");
    let id = answer["groundtone"]["trace_id"].as_str().unwrap();
    let text = format!("write to {}", personal[0]);
    assert_eq!(
        call(
            &server,
            &secret,
            "POST",
            "/v1/groundtone/feedback",
            &json!({"trace_id": id, "thumb": "down", "text": text, "correction": text})
        )
        .0,
        200
    );
    assert_eq!(ask(&server, &secret, &format!("FAIL {told}")).0, 502);
    assert_eq!(call(&server, &secret, "PUT", &format!("/v1/groundtone/search?q={}", personal[0]), &Value::Null).0, 405);
    let (_, _, minted) = call(&server, &secret, "POST", "/v1/groundtone/page_tokens", &json!({"origin": "https://shop.example"}));
    let token = minted["token"].as_str().unwrap().to_owned();
    let (_, _, trace) = call(&server, &secret, "GET", &format!("/v1/groundtone/traces/{id}"), &Value::Null);
    assert_eq!(trace["question"], "ECHO I am [email] and [phone], card [card] or [iban], about [order], my key is [secret]");
    assert_eq!(trace["feedback"]["text"], "write to [email]");
    let mut secrets = personal.to_vec();
    // The secret half of the key: its id is public.
    secrets.extend([&secret[16..], &token[4..60]]);
    let mut found = Vec::new();
    holding(folder.path(), &secrets, &mut found);
    assert!(found.is_empty(), "{found:?}");
    server.stop();
    holding(folder.path(), &secrets, &mut found);
    assert!(found.is_empty(), "after the stop: {found:?}");
}

#[test]
fn a_server_without_keys_stays_at_home() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RawServer::start(model);
    shop(folder.path(), &upstream, "");
    let (error, _) = run_failing(folder.path(), &["serve", "--host", "0.0.0.0", "--port", "0"]);
    assert!(error.contains("needs a key") && error.contains("groundtone keys create"), "{error}");
    // The first key is made beside the running server, and wanted from then on.
    let server = Server::start(folder.path(), &["serve"]);
    assert_eq!(server.request("GET", "/v1/models", &[], "").0, 200);
    let created = run_json(folder.path(), &["keys", "create", "--name", "first", "--scope", "admin", "--json"]);
    assert_eq!(server.request("GET", "/v1/models", &[], "").0, 401);
    let secret = created["key"].as_str().unwrap();
    assert_eq!(call(&server, secret, "GET", "/v1/models", &Value::Null).0, 200);
    // Who can read the data directory needs no key for its commands.
    assert_eq!(run_json(folder.path(), &["keys", "list", "--json"])["keys"].as_array().unwrap().len(), 1);
}

#[test]
fn an_equal_question_is_answered_from_memory_where_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = RawServer::start(model);
    shop(folder.path(), &upstream, "[cache]\nanswers_mb = 1\n");
    let server = Server::start(folder.path(), &["serve"]);
    let ask = |text: &str| server.json("POST", "/v1/chat/completions", &question(text)).1;
    let (first, second) = (ask("How long?"), ask("How long?"));
    assert_eq!((&first["choices"][0]["message"], upstream.requests()), (&second["choices"][0]["message"], 1));
    assert_eq!(second["usage"]["prompt_tokens_details"]["cached_tokens"], 400);
    assert_eq!(ask("How long, please?")["choices"][0]["finish_reason"], "stop");
    assert_eq!(upstream.requests(), 2);
    // Another generation answers: nothing of the old one is said again.
    drop(server);
    run_json(folder.path(), &["ingest", "--generation", "documents", "--json"]);
    let server = Server::start(folder.path(), &["serve"]);
    let ask = |text: &str| server.json("POST", "/v1/chat/completions", &question(text)).1;
    ask("How long?");
    ask("How long?");
    assert_eq!(upstream.requests(), 3);
    assert_eq!(server.json("POST", "/v1/groundtone/generations/switch", &json!({})).0, 200);
    ask("How long?");
    assert_eq!(upstream.requests(), 4);
}
