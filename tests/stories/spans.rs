//! Spans by OTLP: what a collector is sent of an answer, under which names, and that nobody waits for it.

use super::support::{Server, run_json, small_shop, wait_for};
use groundtone_testkit::{Reply, ScriptedServer};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// The caller's trace and span, and whether it wants the spans.
const WANTED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNWANTED: &str = "00-11111111111111111111111111111111-2222222222222222-00";

fn configure(folder: &Path, upstream: &str, traces: &str) {
    let settings = format!(
        "[chat]\nkind = \"openai\"\nmodel = \"ann@example.org\"\nurl = \"{upstream}\"\ncontext_tokens = 8000\nretries = 0\nmax_tokens = 99\n\
         [assistant]\nname = \"shop\"\n[gate]\nthreshold = 0.0\n\
         [telemetry]\notlp_url = \"{traces}\"\notlp_api_key_env = \"COLLECTOR_KEY\"\notlp_timeout_seconds = 2\n"
    );
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
}

fn serve(folder: &Path) -> Server {
    Server::start_with(folder, &["serve"], &[("COLLECTOR_KEY", "a-key-of-the-collector")])
}

/// Asks, and gives the status and how long it took.
fn ask(server: &Server, stream: bool, traceparent: &str) -> (u16, Duration) {
    let question = "How long can I send my grinder back, says bob@example.org?";
    let body = json!({"model": "shop", "stream": stream, "messages": [{"role": "user", "content": question}]});
    let began = Instant::now();
    let (status, ..) = server.request("POST", "/v1/chat/completions", &[("traceparent", traceparent)], &body.to_string());
    (status, began.elapsed())
}

/// The trace of the request whose spans have `trace`, by the span's operation, or its name where it has none.
struct Trace(Vec<Value>);

impl Trace {
    fn span(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|span| span["attributes"]["gen_ai.operation.name"] == name || span["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {:#?}", self.0))
    }

    /// Both lie where they should, and the inner one ends first.
    fn holds(&self, outer: &str, inner: &str) {
        let (outer, inner) = (self.span(outer), self.span(inner));
        assert_eq!(inner["parent"], outer["id"], "{inner} is not in {outer}");
        let at = |span: &Value, end: &str| span[end].as_u64().unwrap();
        assert!(at(outer, "start") <= at(inner, "start") && at(inner, "end") <= at(outer, "end"), "{inner} lasts longer than {outer}");
    }
}

#[test]
fn a_collector_is_sent_the_spans_of_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = || Reply::Stream(vec!["45 days".to_owned(), " [1].".to_owned()]);
    let ill = Reply::Raw(500, "application/json", r#"{"error": {"message": "the grinder is ill"}}"#.to_owned());
    let upstream = runtime.block_on(ScriptedServer::start([answer(), answer(), answer(), ill]));
    let collector = runtime.block_on(ScriptedServer::start([Reply::Raw(200, "application/x-protobuf", String::new())]));
    configure(folder, &upstream.base_url, &format!("{}/v1/traces", collector.root()));
    let server = serve(folder);
    assert_eq!(ask(&server, false, WANTED).0, 200);
    assert_eq!(ask(&server, true, &WANTED.replace("0af7", "0bf7")).0, 200);
    assert_eq!(ask(&server, false, UNWANTED).0, 200);
    assert_eq!(ask(&server, false, &WANTED.replace("0af7", "0cf7")).0, 502);
    // What is left is sent before the process ends.
    server.stop();

    let batches = collector.requests();
    for batch in &batches {
        assert_eq!(batch["content-type"], "application/x-protobuf");
        assert_eq!(batch["authorization"], "a-key-of-the-collector");
        assert_eq!(batch["resource"]["service.name"], "groundtone");
    }
    let all: Vec<Value> = batches.iter().flat_map(|batch| batch["spans"].as_array().unwrap().clone()).collect();
    let trace = |id: &str| Trace(all.iter().filter(|span| span["trace"].as_str().unwrap().starts_with(id)).cloned().collect());
    let (whole, streamed, failed) = (trace("0af7"), trace("0bf7"), trace("0cf7"));
    assert!(trace("1111").0.is_empty(), "its caller did not want it");

    let request = whole.span("POST /v1/chat/completions");
    assert_eq!((&request["kind"], &request["parent"]), (&json!("server"), &json!("b7ad6b7169203331")));
    for (outer, inner) in [
        ("POST /v1/chat/completions", "invoke_agent"),
        ("invoke_agent", "answer.retrieve"),
        ("answer.retrieve", "retrieval"),
        ("retrieval", "embeddings"),
        ("invoke_agent", "answer.render"),
        ("invoke_agent", "chat"),
        ("chat", "answer.cite"),
    ] {
        whole.holds(outer, inner);
        // The response has begun before a streamed answer ends, so its request may end first; and a question is not embedded twice.
        if inner != "invoke_agent" && inner != "embeddings" {
            streamed.holds(outer, inner);
        }
    }
    assert_eq!(streamed.span("invoke_agent")["parent"], streamed.span("POST /v1/chat/completions")["id"]);

    let port: u16 = upstream.root().rsplit(':').next().unwrap().parse().unwrap();
    for (name, kind, attributes) in [
        (
            "POST /v1/chat/completions",
            "server",
            json!({"http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200}),
        ),
        (
            "invoke_agent",
            "internal",
            json!({"gen_ai.agent.name": "shop", "gen_ai.provider.name": "groundtone", "groundtone.variant": "rag"}),
        ),
        ("retrieval", "internal", json!({"gen_ai.data_source.id": "documents", "gen_ai.retrieval.top_k": 2, "groundtone.hits": 2})),
        (
            "embeddings",
            "internal",
            json!({"gen_ai.provider.name": "groundtone", "gen_ai.embeddings.dimension.count": 384, "groundtone.texts": 1}),
        ),
        (
            "chat",
            "client",
            json!({
                "gen_ai.provider.name": "openai",
                "server.address": "127.0.0.1",
                "server.port": port,
                "gen_ai.request.model": "[email]",
                "gen_ai.request.max_tokens": 99,
                "gen_ai.request.stream": true,
                "gen_ai.response.model": "scripted",
                "gen_ai.response.id": "chatcmpl-scripted",
                "gen_ai.response.finish_reasons": ["stop"],
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.output_tokens": 2,
            }),
        ),
    ] {
        let span = whole.span(name);
        assert_eq!(span["kind"], kind, "{span}");
        for (key, value) in attributes.as_object().unwrap() {
            assert_eq!(&span["attributes"][key], value, "{key} of {span:#}");
        }
        assert_eq!(span["failed"], false);
    }
    let chat = whole.span("chat");
    assert_eq!(chat["name"], "chat [email]");
    assert!(chat["attributes"]["gen_ai.response.time_to_first_chunk"].is_f64(), "{chat:#}");

    for (name, error) in [("chat", "unavailable"), ("invoke_agent", "unavailable"), ("POST /v1/chat/completions", "502")] {
        let span = failed.span(name);
        assert_eq!((&span["failed"], &span["attributes"]["error.type"]), (&json!(true), &json!(error)), "{span:#}");
    }
    // Numbers and names alone.
    let text = json!(all).to_string();
    for part in ["ann@example.org", "bob@", "rinder", "45 days", "a-key-of"] {
        assert!(!text.contains(part), "{part} is in {text}");
    }
    assert!(all.iter().all(|span| span["events"] == 0), "{text}");
}

#[test]
fn nobody_waits_for_a_collector() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upstream = runtime.block_on(ScriptedServer::start([Reply::Stream(vec!["45 days [1].".to_owned()])]));
    let deaf = runtime.block_on(ScriptedServer::start([Reply::Silence]));
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/v1/traces", listener.local_addr().unwrap())
    };
    for traces in [format!("{}/v1/traces", deaf.root()), gone] {
        configure(folder, &upstream.base_url, &traces);
        let server = serve(folder);
        assert_eq!(ask(&server, false, WANTED).0, 200);
        let lost = || {
            let (_, _, metrics) = server.request("GET", "/metrics", &[], "");
            let line = metrics.lines().find_map(|line| line.strip_prefix("groundtone_spans_lost_total ").map(str::to_owned));
            line.unwrap().parse::<u64>().unwrap()
        };
        wait_for("a batch that is lost", || lost() > 0);
        // The first batch is on its way for two seconds, and so is the next one.
        let (status, took) = ask(&server, false, WANTED);
        assert!(status == 200 && took < Duration::from_secs(2), "{took:?}");
        let said = std::fs::read_to_string(&server.log).unwrap().matches("the collector does not take spans").count();
        assert_eq!(said, 1, "once, not for each batch");
        let began = Instant::now();
        server.stop();
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    assert!(!deaf.requests().is_empty());
}
