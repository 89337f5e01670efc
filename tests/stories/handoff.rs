//! Questions that are not answered go to people by webhook: signed, sent again, and in the end kept where somebody sees them.

use super::support::{Server, run_json, small_shop, wait_for};
use groundtone_testkit::{Reply, ScriptedServer};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

const ABSTAIN: &str = "I don't have that in our guides.";
const ON_TOPIC: &str = "Within how many days of delivery can I send my grinder back?";
const OFF_TOPIC: &str = "Who won the football championship yesterday? Write to ann@example.org";

fn configure(folder: &Path, upstream: &str, hook: &str, more: &str) {
    let settings = format!(
        "[chat]\nkind = \"openai\"\nmodel = \"m\"\nurl = \"{upstream}\"\ncontext_tokens = 8000\nretries = 0\n[assistant]\nname = \"shop\"\n\
         [handoff]\nwebhook_url = \"{hook}/hook\"\nwebhook_secret_env = \"HOOK_SECRET\"\ntimeout_seconds = 1\npause_seconds = 1\n{more}"
    );
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
}

fn serve(folder: &Path) -> Server {
    Server::start_with(folder, &["serve"], &[("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")])
}

fn ask(server: &Server, model: &str, question: &str) -> Value {
    let body = json!({"model": model, "messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}, {"role": "user", "content": question}]});
    let (status, _, text) = server.request("POST", "/v1/chat/completions", &[("x-groundtone-conversation", "c-7")], &body.to_string());
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn status(code: u16) -> Reply {
    Reply::Raw(code, "text/plain", String::new())
}

fn kept(folder: &Path, state: &str) -> Vec<Value> {
    run_json(folder, &["handoffs", "list", "--state", state, "--json"])["handoffs"].as_array().unwrap().clone()
}

#[test]
fn a_question_without_an_answer_goes_to_people_however_often_they_do_not_listen() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = runtime.block_on(ScriptedServer::start([Reply::Stream(vec![ABSTAIN.to_owned()])]));
    let hook = runtime.block_on(ScriptedServer::start([status(503), status(500), status(204)]));
    configure(folder, &upstream.base_url, hook.root(), "attempts = 3\n");
    let server = serve(folder);
    // Found nothing: the receiver refuses twice and then takes it.
    let answer = ask(&server, "shop", OFF_TOPIC);
    assert_eq!(answer["groundtone"]["abstained_because"], "no_evidence");
    wait_for("the third attempt", || hook.requests().len() == 3);
    wait_for("the end of it", || kept(folder, "waiting").is_empty());
    let got = hook.requests();
    let ids: Vec<&Value> = got.iter().map(|message| &message["id"]).collect();
    assert!(ids[0].as_str().unwrap().starts_with("evt_") && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert!(got.iter().all(|message| message["signature"].as_str().unwrap().starts_with("v1,")));
    let body: Value = serde_json::from_str(got[2]["body"].as_str().unwrap()).unwrap();
    let data = &body["data"];
    assert_eq!((&body["type"], &body["id"]), (&json!("groundtone.handoff"), ids[0]));
    assert_eq!((&data["reason"], &data["conversation"], &data["assistant"]), (&json!("no_evidence"), &json!("c-7"), &json!("shop")));
    assert_eq!((&data["trace_id"], &data["answer"]), (&answer["groundtone"]["trace_id"], &json!(ABSTAIN)));
    assert_eq!(data["question"], "Who won the football championship yesterday? Write to [email]");
    assert_eq!(
        (data["transcript"].as_array().unwrap().len(), &data["transcript"][1]),
        (3, &json!({"role": "assistant", "content": "Hello!"}))
    );
    assert!(data["evidence"]["score"].as_f64().unwrap() < data["evidence"]["threshold"].as_f64().unwrap());
    // The model's own abstention, with what it had before it. A pinned variant is a test, and nobody is called.
    assert_eq!(ask(&server, "shop", ON_TOPIC)["groundtone"]["abstained_because"], "model");
    ask(&server, "shop:rag", OFF_TOPIC);
    wait_for("the second message", || hook.requests().len() == 4);
    let body: Value = serde_json::from_str(hook.requests()[3]["body"].as_str().unwrap()).unwrap();
    assert_eq!((&body["data"]["reason"], &body["data"]["snippets"][0]["document"]), (&json!("model"), &json!("policies/returns.md")));
    let metrics = server.request("GET", "/metrics", &[], "").2;
    for line in ["groundtone_handoffs_total{result=\"retried\"} 2", "groundtone_handoffs_total{result=\"delivered\"} 2"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
    server.stop();
    // A receiver that never answers holds nobody up; in the end somebody finds the message.
    let deaf = runtime.block_on(ScriptedServer::start([Reply::Silence]));
    configure(folder, &upstream.base_url, deaf.root(), "attempts = 2\n");
    let server = serve(folder);
    let began = Instant::now();
    ask(&server, "shop", OFF_TOPIC);
    assert!(began.elapsed() < Duration::from_secs(1), "the answer waited {:?}", began.elapsed());
    wait_for("the dead letter", || kept(folder, "dead").len() == 1);
    let dead = kept(folder, "dead").remove(0);
    assert_eq!((deaf.requests().len(), &dead["attempts"]), (2, &json!(2)));
    assert!(dead["error"].as_str().unwrap().contains("1 s"), "{dead}");
    // It outlives the server, and is sent again when it is asked for.
    server.kill_hard();
    let id = dead["id"].as_str().unwrap();
    assert_eq!(kept(folder, "dead")[0]["id"], dead["id"]);
    let good = runtime.block_on(ScriptedServer::start([status(200)]));
    configure(folder, &upstream.base_url, good.root(), "reasons = [\"no_evidence\"]\n");
    let server = serve(folder);
    run_json(folder, &["handoffs", "retry", id, "--json"]);
    wait_for("the message", || good.requests().iter().any(|message| message["id"] == id));
    wait_for("the end of it", || kept(folder, "dead").is_empty() && kept(folder, "waiting").is_empty());
    let (code, refused) = server.json("POST", &format!("/v1/groundtone/handoffs/{id}/retry"), &Value::Null);
    assert_eq!(code, 404, "{refused}");
    // For other reasons nobody is called, and without an address nobody ever is.
    ask(&server, "shop", ON_TOPIC);
    ask(&server, "shop", OFF_TOPIC);
    wait_for("the last message", || good.requests().len() == 2);
    server.stop();
    configure(folder, &upstream.base_url, "", "");
    let settings =
        std::fs::read_to_string(folder.join("groundtone.toml")).unwrap().replace("webhook_url = \"/hook\"", "webhook_url = \"\"");
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
    let server = serve(folder);
    ask(&server, "shop", OFF_TOPIC);
    assert_eq!(server.json("GET", "/v1/groundtone/handoffs", &Value::Null).1, json!({"handoffs": []}));
}
