//! Whatever a model server does, a request ends in a complete answer or in one of OpenAI's errors, in time; and a client that leaves takes its request along.

use super::fault_cases::{Case, End, cases, good, stream};
use super::support::{Server, run_json, small_shop, wait_for};
use groundtone_testkit::{RawServer, Step};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::Shutdown;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Longest time that a request of the matrix may take: total limit, one pause, and what a busy machine adds.
const PATIENCE: Duration = Duration::from_secs(15);

/// A server of the small shop in front of this upstream.
fn serve(folder: &Path, upstream: &RawServer, chat: &str) -> Server {
    let documents = small_shop(folder);
    run_json(folder, &["ingest", documents.to_str().unwrap(), "--json"]);
    let settings = format!(
        "[chat]\nkind = \"openai\"\nmodel = \"gpt-4o-mini\"\nurl = \"{}\"\ncontext_tokens = 8000\n{chat}\n[assistant]\nname = \"shop\"\n[gate]\nthreshold = 0.0\n",
        upstream.base_url
    );
    std::fs::write(folder.join("groundtone.toml"), settings).unwrap();
    Server::start(folder, &["serve"])
}

fn body(question: &str, streamed: bool) -> String {
    json!({"model": "shop", "stream": streamed, "messages": [{"role": "user", "content": question}]}).to_string()
}

/// The word behind `FAULT:` in a request's body.
fn fault(body: &str) -> &str {
    let rest = body.rsplit("FAULT:").next().unwrap();
    &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(rest.len())]
}

/// Plays the table: the word in the question says which case, and each case counts its tries.
fn upstream(cases: &[Case]) -> RawServer {
    let table: HashMap<String, Vec<Vec<Step>>> = cases.iter().map(|case| (case.name.to_owned(), case.tries.clone())).collect();
    let tried: Mutex<HashMap<String, usize>> = Mutex::default();
    RawServer::start(move |body| {
        let word = fault(body);
        let mut tried = tried.lock().unwrap();
        let count = tried.entry(word.to_owned()).or_default();
        let tries = &table[word.trim_end_matches("-streamed")];
        let steps = tries[(*count).min(tries.len() - 1)].clone();
        *count += 1;
        steps
    })
}

/// Why an answer is not what a client can read; `None` if it is.
fn wrong(case: &Case, streamed: bool, (status, head, text): &(u16, String, String)) -> Option<String> {
    let error_is_openais = |body: &Value| {
        let error = &body["error"];
        let has = |name: &str| error.get(name).is_some();
        error["message"].as_str().is_some_and(|m| !m.is_empty()) && error["type"].is_string() && has("param") && has("code")
    };
    let complain = |what: &str| Some(format!("{} {}: {what}: {status} {text}", case.name, if streamed { "streamed" } else { "whole" }));
    if !head.contains("x-request-id: ") {
        return complain("no x-request-id");
    }
    if *status >= 400 {
        let (End::Refused(expected) | End::Broken(expected)) = case.end else { return complain("no answer") };
        let Ok(body) = serde_json::from_str::<Value>(text) else { return complain("no JSON") };
        let busy = *status != 429 || head.contains("retry-after: ");
        let in_time = streamed && matches!(case.end, End::Broken(_));
        return if error_is_openais(&body) && *status == expected && busy && !in_time {
            None
        } else {
            complain("not the error that was expected")
        };
    }
    if !streamed {
        let End::Answer(expected) = case.end else { return complain("an answer") };
        let Ok(body) = serde_json::from_str::<Value>(text) else { return complain("no JSON") };
        let choice = &body["choices"][0];
        return if choice["message"]["content"] == expected && choice["finish_reason"].is_string() {
            None
        } else {
            complain("another answer")
        };
    }
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let parsed: Vec<Value> = events.iter().filter_map(|event| serde_json::from_str(event).ok()).collect();
    let said: String = parsed.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    let finished = parsed.iter().any(|event| event["choices"][0]["finish_reason"].is_string());
    match case.end {
        End::Answer(expected) if said == expected && finished && events.last() == Some(&"[DONE]") => None,
        End::Broken(_) if parsed.last().is_some_and(error_is_openais) && events.last() != Some(&"[DONE]") => None,
        _ => complain("another stream"),
    }
}

#[test]
fn every_misbehaviour_of_a_model_server_ends_in_an_answer_or_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let cases = cases();
    assert!(cases.len() >= 40);
    let upstream = upstream(&cases);
    let limits = "first_token_timeout_seconds = 1\nidle_timeout_seconds = 1\ntotal_timeout_seconds = 4\nretries = 1\nretry_pause_seconds = 1\nbreaker_failures = 0";
    let server = serve(folder.path(), &upstream, limits);
    let (server, failures) = (&server, Mutex::new(Vec::new()));
    let jobs: Vec<(&Case, bool)> = cases.iter().flat_map(|case| [(case, false), (case, true)]).collect();
    let next = Mutex::new(jobs.iter());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                loop {
                    let Some((case, streamed)) = next.lock().unwrap().next() else { return };
                    let question = format!("How long can I return it? FAULT:{}{}", case.name, if *streamed { "-streamed" } else { "" });
                    let began = Instant::now();
                    let answer = server.request("POST", "/v1/chat/completions", &[], &body(&question, *streamed));
                    let took = began.elapsed();
                    let found = wrong(case, *streamed, &answer);
                    let late = (took > PATIENCE).then(|| format!("{}: it took {took:?}", case.name));
                    failures.lock().unwrap().extend(found.into_iter().chain(late));
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {} requests:\n{}", failures.len(), jobs.len(), failures.join("\n"));
    println!("{} misbehaviours, streamed and not: every request ended in an answer or an error of OpenAI's shape", cases.len());
}

#[test]
fn a_client_that_leaves_takes_its_request_along() {
    const ROUNDS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let silence = Step::Pause(Duration::from_secs(600));
    let upstream = RawServer::start(move |body| match fault(body) {
        "silent" => vec![silence.clone()],
        _ => vec![stream(&[&super::fault_cases::piece("Half")]), silence.clone()],
    });
    let server = serve(folder.path(), &upstream, "");
    let mut waits = Vec::new();
    for round in 0..ROUNDS {
        // Before the first token and after it, streamed and not.
        let (streamed, fault) = (round % 2 == 0, if round % 4 < 2 { "silent" } else { "half" });
        let client = server.connect("POST", "/v1/chat/completions", &[], &body(&format!("How long? FAULT:{fault}"), streamed));
        wait_for("the request at the upstream", || upstream.requests() == round + 1);
        std::thread::sleep(Duration::from_millis(20));
        let left = Instant::now();
        client.shutdown(Shutdown::Both).unwrap();
        drop(client);
        wait_for("the upstream's client leaving", || upstream.gone().len() == round + 1);
        waits.push(upstream.gone()[round].duration_since(left));
    }
    waits.sort();
    let (median, p99, most) = (waits[ROUNDS / 2], waits[ROUNDS * 99 / 100 - 1], waits[ROUNDS - 1]);
    println!("from the client's leaving to the upstream's, {ROUNDS} times: median {median:?}, p99 {p99:?}, most {most:?}");
    assert!(median < Duration::from_millis(100) && most < Duration::from_secs(2), "median {median:?}, p99 {p99:?}, most {most:?}");
}

#[test]
fn a_model_server_that_is_ill_is_left_alone_and_a_full_one_sheds_load() {
    let folder = tempfile::tempdir().unwrap();
    let ill = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let now_ill = ill.clone();
    let upstream = RawServer::start(move |body| {
        if fault(body) == "silent" {
            return vec![Step::Pause(Duration::from_secs(600))];
        }
        if now_ill.load(std::sync::atomic::Ordering::SeqCst) { vec![Step::Reset] } else { good() }
    });
    let limits = "retries = 0\nbreaker_failures = 3\nbreaker_rest_seconds = 1\nremote_parallel = 1\nqueue = 1\nqueue_timeout_seconds = 1";
    let server = serve(folder.path(), &upstream, limits);
    let ask = || server.request("POST", "/v1/chat/completions", &[], &body("How long?", false));
    (0..3).for_each(|_| assert_eq!(ask().0, 502));
    let (status, head, text) = ask();
    assert!(status == 503 && head.contains("retry-after: ") && text.contains("upstream_unavailable"), "{status} {head} {text}");
    assert_eq!(upstream.requests(), 3, "nothing is sent while it rests");
    ill.store(false, std::sync::atomic::Ordering::SeqCst);
    wait_for("its recovery", || ask().0 == 200);
    // One request is at the server, one waits; the next one is refused at once, and the one that waits after its time.
    let before = upstream.requests();
    let _running = server.connect("POST", "/v1/chat/completions", &[], &body("FAULT:silent", false));
    wait_for("the running request", || upstream.requests() == before + 1);
    let waiting = std::thread::scope(|scope| {
        let waiting = scope.spawn(ask);
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        let (status, head, text) = ask();
        assert!(status == 429 && head.contains("retry-after: ") && text.contains("rate_limit_exceeded"), "{status} {head} {text}");
        assert!(began.elapsed() < Duration::from_millis(700), "{:?}", began.elapsed());
        waiting.join().unwrap()
    });
    assert_eq!(waiting.0, 429, "{waiting:?}");
    assert_eq!(upstream.requests(), before + 1);
}
