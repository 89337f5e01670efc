//! The clients against a scripted server over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use futures::StreamExt;
use groundtone_prompt::{PromptMessage, Role};
use groundtone_provider::{
    Batcher, CallLimits, ChatEvent, ChatModel, ChatRequest, EmbedFor, Embedder, Endpoint, Error, FinishReason, OpenAiChat,
    OpenAiEmbeddings, Pace, Sampling, SendWebhook, SignedWebhook, WebhookMessage, sign,
};
use groundtone_testkit::{EmbedRules, Reply, ScriptedServer};
use groundtone_types::{ErrorKind, TokenUsage};
use std::time::{Duration, Instant};

const LIMITS: CallLimits = CallLimits { texts: 2, tokens: 8191, parallel: 1 };

fn endpoint(url: &str) -> Endpoint {
    let limit = Duration::from_millis(500);
    Endpoint::new(url, Some("sk-test".to_owned().into()), limit, limit, limit).unwrap()
}

fn pieces(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn request() -> ChatRequest {
    let sampling = Sampling { temperature: Some(0.0), stop: vec!["END".into()], seed: Some(7), max_tokens: Some(9), ..Sampling::default() };
    ChatRequest { messages: vec![PromptMessage::new(Role::User, "hi")], sampling, extras: Default::default() }
}

async fn ask(url: &str) -> Result<Vec<Result<ChatEvent, Error>>, Error> {
    let stream = OpenAiChat::new(endpoint(url), "gpt-4o-mini", 8000).chat(request()).await?;
    Ok(stream.collect().await)
}

#[tokio::test]
async fn a_streamed_answer_arrives_piece_by_piece_with_its_usage() {
    let server = ScriptedServer::start([Reply::Stream(pieces(&["Hel", "lo"]))]).await;
    let events: Vec<ChatEvent> = ask(&server.base_url).await.unwrap().into_iter().map(Result::unwrap).collect();
    let usage = TokenUsage { prompt_tokens: 10, cached_tokens: 0, completion_tokens: 2, reasoning_tokens: 0 };
    assert_eq!(
        events,
        [
            ChatEvent::Delta("Hel".into()),
            ChatEvent::Delta("lo".into()),
            ChatEvent::Finished { reason: FinishReason::Stop, usage: Some(usage) }
        ]
    );
    let sent = &server.requests()[0];
    assert_eq!(sent["messages"], serde_json::json!([{"role": "user", "content": "hi"}]));
    assert_eq!((&sent["stop"][0], &sent["seed"], &sent["max_completion_tokens"]), (&"END".into(), &7.into(), &9.into()));
}

#[tokio::test]
async fn every_misbehaviour_is_one_typed_error() {
    let cases = [
        (
            Reply::Raw(429, "application/json", r#"{"error":{"message":"slow down"}}"#.into()),
            ErrorKind::Overloaded,
            "answered 429: slow down",
        ),
        (
            Reply::Raw(400, "application/json", r#"{"error":{"message":"too long"}}"#.into()),
            ErrorKind::InvalidRequest,
            "answered 400: too long",
        ),
        (Reply::Raw(500, "text/plain", "boom".into()), ErrorKind::Unavailable, "answered 500: boom"),
        (Reply::Raw(200, "text/html", "<html>".into()), ErrorKind::Unavailable, "`text/html` instead of `text/event-stream`"),
        (Reply::Raw(200, "text/event-stream", "data: {nonsense\n\n".into()), ErrorKind::Unavailable, "something unexpected"),
        (
            Reply::Raw(200, "text/event-stream", "data: {\"error\":{\"message\":\"gpu fell off\"}}\n\n".into()),
            ErrorKind::Unavailable,
            "gpu fell off",
        ),
        (Reply::Raw(200, "text/event-stream", "data: [DONE]\n\n".into()), ErrorKind::Unavailable, "ended before the answer did"),
        (Reply::Cut(pieces(&["a"])), ErrorKind::Unavailable, "did not answer"),
        (Reply::Silence, ErrorKind::Timeout, "did not answer within"),
        (Reply::Slow(pieces(&["a"]), Duration::from_secs(5)), ErrorKind::Timeout, "did not answer within"),
    ];
    for (reply, kind, sentence) in cases {
        let server = ScriptedServer::start([reply.clone()]).await;
        let started = Instant::now();
        let error = match ask(&server.base_url).await {
            Err(error) => error,
            Ok(mut events) => events.pop().unwrap().unwrap_err(),
        };
        assert_eq!(error.kind(), kind, "{reply:?}: {error}");
        assert!(error.to_string().contains(sentence), "{reply:?}: {error}");
        assert!(started.elapsed() < Duration::from_secs(3), "{reply:?}");
    }
    let error = ask("http://127.0.0.1:9/v1").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(!error.to_string().contains("sk-test"));
}

#[tokio::test]
async fn dropping_the_stream_hangs_up() {
    let server = ScriptedServer::start([Reply::Slow(pieces(&["a"; 1000]), Duration::from_millis(10))]).await;
    let mut stream = OpenAiChat::new(endpoint(&server.base_url), "m", 8000).chat(request()).await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    let deadline = Instant::now() + Duration::from_secs(3);
    while server.clients_gone() == 0 {
        assert!(Instant::now() < deadline, "the server never noticed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn vectors_come_back_in_order_and_of_length_one() {
    let server = ScriptedServer::start([]).await;
    let texts: Vec<String> = (0..5).map(|i| "word ".repeat(i + 1)).collect();
    let embedder = OpenAiEmbeddings::new(endpoint(&server.base_url), "text-embedding-3-small", 4, 8191, LIMITS);
    let together = embedder.embed(&texts, EmbedFor::Document).await.unwrap();
    assert_eq!(server.requests().len(), 3, "five texts in batches of two");
    for (text, vector) in texts.iter().zip(&together) {
        assert_eq!(&embedder.embed(std::slice::from_ref(text), EmbedFor::Query).await.unwrap()[0], vector);
        assert!((vector.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5);
    }
    let wrong = OpenAiEmbeddings::new(endpoint(&server.base_url), "m", 384, 8191, LIMITS).embed(&texts, EmbedFor::Query).await.unwrap_err();
    assert_eq!(wrong.to_string(), "m made a vector of 4 numbers where 384 were expected");
}

const BATCHES: CallLimits = CallLimits { texts: 16, tokens: 100, parallel: 3 };

/// Embeds `count` texts under these rules; gives the batcher, the server, and each text's result.
async fn embed_under(rules: EmbedRules, count: usize, pace: Pace) -> (Batcher, ScriptedServer, Result<Vec<Option<Vec<f32>>>, Error>) {
    let server = ScriptedServer::start_embedder(rules).await;
    let embedder = OpenAiEmbeddings::new(endpoint(&server.base_url), "m", 4, 8191, BATCHES);
    let batcher = Batcher::new(std::sync::Arc::new(embedder), pace);
    let texts: Vec<String> = (0..count).map(|n| format!("text number {n} {}", "word ".repeat(n % 7))).collect();
    let sizes: Vec<usize> = texts.iter().map(|text| text.split(' ').count()).collect();
    let mut found = vec![None; count];
    let mut failure = None;
    let mut batches = batcher.documents(&texts, &sizes);
    while let Some(batch) = batches.next().await {
        match batch {
            Ok(batch) => match batch.result {
                Ok(vectors) => batch.positions.iter().zip(vectors).for_each(|(&at, vector)| {
                    assert!(found[at].replace(vector).is_none(), "text {at} came twice");
                }),
                Err(_) => assert_eq!(batch.positions.len(), 1),
            },
            Err(error) => failure = Some(error),
        }
    }
    drop(batches);
    (batcher, server, failure.map_or(Ok(found), Err))
}

#[tokio::test]
async fn batches_keep_to_the_embedders_limits() {
    let (batcher, server, found) =
        embed_under(EmbedRules { delay: Duration::from_millis(30), ..EmbedRules::default() }, 100, Pace::default()).await;
    assert!(found.unwrap().iter().all(Option::is_some));
    let sizes: Vec<usize> = server.requests().iter().map(|request| request["input"].as_array().unwrap().len()).collect();
    assert!(sizes.iter().all(|&size| size <= 16) && sizes.iter().sum::<usize>() == 100, "{sizes:?}");
    assert_eq!((batcher.calls(), server.most_parallel()), (sizes.len(), 3));
}

#[tokio::test]
async fn a_storm_of_429_is_sat_out_and_costs_only_the_refused_calls() {
    let (batcher, _server, found) = embed_under(EmbedRules { storm: Some((1, 4)), ..EmbedRules::default() }, 60, Pace::default()).await;
    assert!(found.unwrap().iter().all(Option::is_some));
    let useful = embed_under(EmbedRules::default(), 60, Pace::default()).await.0.calls();
    assert_eq!(batcher.calls(), useful + 4);
}

#[tokio::test]
async fn a_stall_and_a_connection_reset_cost_one_call_each() {
    let rules = EmbedRules { stall: Some(1), reset: Some(3), ..EmbedRules::default() };
    let (batcher, _server, found) = embed_under(rules, 100, Pace::default()).await;
    assert!(found.unwrap().iter().all(Option::is_some));
    let useful = embed_under(EmbedRules::default(), 100, Pace::default()).await.0.calls();
    assert_eq!(batcher.calls(), useful + 2);
}

#[tokio::test]
async fn what_is_too_large_is_halved_and_what_is_refused_alone_costs_itself() {
    let (batcher, server, found) = embed_under(EmbedRules { most_texts: Some(3), ..EmbedRules::default() }, 64, Pace::default()).await;
    assert!(found.unwrap().iter().all(Option::is_some));
    let last: Vec<usize> = server.requests().iter().rev().take(5).map(|request| request["input"].as_array().unwrap().len()).collect();
    assert!(last.iter().all(|&size| size <= 3), "it goes on with small batches: {last:?}, {} calls", batcher.calls());
    let (_, _, found) = embed_under(EmbedRules { poison: Some("number 17 "), ..EmbedRules::default() }, 64, Pace::default()).await;
    let lost: Vec<usize> = found.unwrap().iter().enumerate().filter(|(_, vector)| vector.is_none()).map(|(at, _)| at).collect();
    assert_eq!(lost, [17]);
}

#[tokio::test]
async fn a_wrong_configuration_is_given_up_at_once_and_an_outage_after_its_tries() {
    let (batcher, _, found) = embed_under(EmbedRules { poison: Some("text"), ..EmbedRules::default() }, 64, Pace::default()).await;
    assert!(matches!(found, Err(Error::Refused { status: 400, .. })));
    assert!(batcher.calls() <= 3, "{} calls", batcher.calls());
    let patience = Pace { attempts: 2, ..Pace::default() };
    let (batcher, _, found) = embed_under(EmbedRules { storm: Some((0, 1000)), ..EmbedRules::default() }, 10, patience).await;
    assert!(matches!(found, Err(Error::Refused { status: 429, .. })));
    assert_eq!(batcher.calls(), 2);
}

#[tokio::test]
async fn budgets_hold_the_pace() {
    // Two calls a minute: two at once, and the third after half a minute.
    let pace = Pace { requests_per_minute: 2, ..Pace::default() };
    let server = ScriptedServer::start_embedder(EmbedRules::default()).await;
    let embedder = OpenAiEmbeddings::new(endpoint(&server.base_url), "m", 4, 8191, CallLimits { texts: 1, tokens: 100, parallel: 4 });
    let batcher = Batcher::new(std::sync::Arc::new(embedder), pace);
    let texts: Vec<String> = (0..3).map(|n| format!("text {n}")).collect();
    let mut batches = batcher.documents(&texts, &[2, 2, 2]);
    assert!(batches.next().await.is_some() && batches.next().await.is_some());
    let third = tokio::time::timeout(Duration::from_millis(700), batches.next()).await;
    assert!(third.is_err(), "the third call came within the minute's budget of two");
}

#[tokio::test]
async fn a_webhook_is_signed_and_what_is_not_taken_is_told() {
    let status = |code: u16| Reply::Raw(code, "text/plain", "busy".into());
    let server = ScriptedServer::start([status(204), status(503), Reply::Silence]).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let hook = SignedWebhook::new(&format!("{}/hook", server.root()), secret.to_owned().into(), Duration::from_millis(300)).unwrap();
    let message = WebhookMessage { id: "evt_1".into(), timestamp: 1_614_265_330, body: "{\"a\":1}".into() };
    hook.send(&message).await.unwrap();
    let got = server.requests().remove(0);
    assert_eq!((&got["id"], &got["timestamp"], &got["body"]), (&"evt_1".into(), &"1614265330".into(), &"{\"a\":1}".into()));
    assert_eq!((&got["signature"], &got["content-type"]), (&sign(secret, &message).into(), &"application/json".into()));
    assert!(hook.send(&message).await.unwrap_err().contains("503"));
    let began = Instant::now();
    hook.send(&message).await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(!format!("{hook:?}").contains("MfKQ9r8GKYqrTwj"), "a secret is not shown");
}
