//! What model servers do wrong, one line each: the table of the fault matrix.

use groundtone_testkit::Step;
use std::time::Duration;

/// How a request must end.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// A complete answer with this text.
    Answer(&'static str),
    /// An error with this status, streamed or not: nothing of an answer had come.
    Refused(u16),
    /// An error after a part of the answer: in a stream an error event, else this status.
    Broken(u16),
}

/// One misbehaviour: what each try gets (the last one is repeated), and how the request must end.
pub struct Case {
    pub name: &'static str,
    pub tries: Vec<Vec<Step>>,
    pub end: End,
}

pub const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
const SILENCE: Step = Step::Pause(Duration::from_secs(600));
const FINISH: &str = r#"data: {"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"data: {"id":"x","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}"#;
const DONE: &str = "data: [DONE]";

pub fn send(text: impl AsRef<[u8]>) -> Step {
    Step::Send(text.as_ref().to_vec())
}

/// An event with a piece of text.
pub fn piece(text: &str) -> String {
    format!(r#"data: {{"id":"x","choices":[{{"index":0,"delta":{{"content":"{text}"}}}}]}}"#)
}

/// Events behind the head of a stream.
pub fn stream(events: &[&str]) -> Step {
    send(format!("{STREAM}{}\n\n", events.join("\n\n")))
}

pub fn good() -> Vec<Step> {
    vec![stream(&[&piece("Fine"), FINISH, USAGE, DONE])]
}

fn response(head: &str, body: &str) -> Step {
    send(format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()))
}

fn json(status: &str, body: &str) -> Step {
    response(&format!("{status}\r\ncontent-type: application/json"), body)
}

fn case(name: &'static str, steps: Vec<Step>, end: End) -> Case {
    Case { name, tries: vec![steps], end }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Every misbehaviour.
pub fn cases() -> Vec<Case> {
    [statuses(), connections(), slowness(), bodies(), oddities(), second_tries()].into_iter().flatten().collect()
}

fn statuses() -> Vec<Case> {
    use End::Refused;
    let error = r#"{"error":{"message":"no","type":"t","param":"tools","code":"c"}}"#;
    let plain = |name, status, end| case(name, vec![json(status, error)], end);
    vec![
        case("429-retry-after-0", vec![json("429 Too Many Requests\r\nretry-after: 0", error)], Refused(429)),
        case("429-retry-after-30", vec![json("429 Too Many Requests\r\nretry-after: 30", error)], Refused(429)),
        case(
            "429-retry-after-a-date",
            vec![json("429 Too Many Requests\r\nretry-after: Wed, 25 Nov 2099 10:00:00 GMT", error)],
            Refused(429),
        ),
        case("429-retry-after-nonsense", vec![json("429 Too Many Requests\r\nretry-after: soon", error)], Refused(429)),
        plain("429-without-retry-after", "429 Too Many Requests", Refused(429)),
        plain("400-openai", "400 Bad Request", Refused(400)),
        case("400-html", vec![response("400 Bad Request\r\ncontent-type: text/html", "<html>bad</html>")], Refused(400)),
        plain("401", "401 Unauthorized", Refused(502)),
        plain("403", "403 Forbidden", Refused(502)),
        plain("404-model", "404 Not Found", Refused(502)),
        plain("408", "408 Request Timeout", Refused(502)),
        plain("413", "413 Payload Too Large", Refused(400)),
        plain("418", "418 I'm a teapot", Refused(502)),
        plain("422", "422 Unprocessable Entity", Refused(400)),
        plain("500-json", "500 Internal Server Error", Refused(502)),
        case("500-empty", vec![response("500 Internal Server Error", "")], Refused(502)),
        case("502-html", vec![response("502 Bad Gateway\r\ncontent-type: text/html", "<html><h1>502</h1></html>")], Refused(502)),
        case("503-retry-after", vec![json("503 Service Unavailable\r\nretry-after: 0", error)], Refused(502)),
        plain("504", "504 Gateway Timeout", Refused(502)),
        case("500-endless-body", vec![send("HTTP/1.1 500 Oops\r\n\r\n"), Step::Forever(vec![b'x'; 4096], ms(1))], Refused(502)),
        case("500-dripping-body", vec![send("HTTP/1.1 500 Oops\r\n\r\n"), Step::Forever(b"x".to_vec(), ms(50))], Refused(502)),
        case("301-redirect", vec![response("301 Moved Permanently\r\nlocation: /elsewhere", "")], Refused(502)),
        case("307-redirect-to-itself", vec![response("307 Temporary Redirect\r\nlocation: /v1/chat/completions", "")], Refused(502)),
        case("204-nothing", vec![send("HTTP/1.1 204 No Content\r\n\r\n")], Refused(502)),
        case("status-without-a-number", vec![send("HTTP/1.1 OK 200\r\n\r\n")], Refused(502)),
    ]
}

fn connections() -> Vec<Case> {
    use End::{Broken, Refused};
    let begun = || stream(&[&piece("Half")]);
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let long = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 100000\r\n\r\n";
    let event = format!("{}\n\n", piece("Half"));
    vec![
        case("reset-before-the-head", vec![Step::Reset], Refused(502)),
        case("close-before-the-head", vec![], Refused(502)),
        case("close-in-the-head", vec![send("HTTP/1.1 200 OK\r\ncontent-ty")], Refused(502)),
        case("reset-in-the-head", vec![send("HTTP/1.1 200 OK\r\ncontent-ty"), Step::Reset], Refused(502)),
        case("reset-behind-the-head", vec![send(STREAM), Step::Pause(ms(50)), Step::Reset], Refused(502)),
        case("reset-in-the-stream", vec![begun(), Step::Pause(ms(50)), Step::Reset], Broken(502)),
        case("close-in-the-stream", vec![begun()], Broken(502)),
        case("half-a-line", vec![stream(&[&piece("Half"), "data: {\"id\":\"x\",\"cho"])], Broken(502)),
        case("half-a-line-without-an-end", vec![send(format!("{STREAM}{event}data: {{\"id\""))], Broken(502)),
        case("shorter-than-its-length", vec![send(format!("{long}{event}"))], Broken(502)),
        case("wrong-chunk-size", vec![send(format!("{chunked}{:x}\r\n{event}\r\nzz\r\n", event.len()))], Broken(502)),
        case("close-in-a-chunk", vec![send(format!("{chunked}{:x}\r\n{event}\r\nffff\r\ndata", event.len()))], Broken(502)),
        case("tls-on-a-plain-port", vec![send([0x15, 3, 1, 0, 2, 2, 70])], Refused(502)),
        case("http2-on-an-http1-port", vec![send([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 100])], Refused(502)),
        case("garbage-for-http", vec![send([0xde, 0xad, 0xbe, 0xef].repeat(100))], Refused(502)),
        case("flood-of-headers", vec![send(format!("HTTP/1.1 200 OK\r\n{}\r\n", "x-flood: 1\r\n".repeat(5_000)))], Refused(502)),
        case("one-huge-header", vec![send(format!("HTTP/1.1 200 OK\r\nx-huge: {}\r\n\r\n", "x".repeat(2 << 20)))], Refused(502)),
        case("endless-head", vec![send("HTTP/1.1 200 OK\r\n"), Step::Forever(b"x-more: 1\r\n".to_vec(), ms(20))], Refused(504)),
    ]
}

fn slowness() -> Vec<Case> {
    use End::{Answer, Broken, Refused};
    let begun = || stream(&[&piece("Half")]);
    let forever = |bytes: &str, pause| Step::Forever(bytes.as_bytes().to_vec(), ms(pause));
    let rest = format!("{}\n\n{FINISH}\n\n{DONE}\n\n", piece("Fine"));
    vec![
        case("no-bytes", vec![SILENCE], Refused(504)),
        case("silence-behind-the-head", vec![send(STREAM), SILENCE], Refused(504)),
        case(
            "silence-behind-the-role",
            vec![stream(&[r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#]), SILENCE],
            Refused(504),
        ),
        case("silence-behind-the-first-token", vec![begun(), SILENCE], Broken(504)),
        case("dripping-head", vec![Step::Drip(STREAM.as_bytes().to_vec(), ms(50))], Refused(504)),
        case("dripping-event", vec![send(STREAM), send("data: "), forever("x", 50)], Refused(504)),
        case("dripping-event-behind-the-first-token", vec![begun(), send("data: "), forever("x", 50)], Broken(504)),
        case("nothing-but-comments", vec![send(STREAM), forever(": still there\n\n", 50)], Refused(504)),
        case("nothing-but-comments-behind-the-first-token", vec![begun(), forever(": still there\n\n", 50)], Broken(504)),
        case("endless-answer", vec![send(STREAM), forever(&format!("{}\n\n", piece("more ")), 50)], Broken(504)),
        case("endless-empty-events", vec![send(STREAM), forever("data: {\"id\":\"x\",\"choices\":[]}\n\n", 50)], Refused(504)),
        case("byte-by-byte-but-complete", vec![send(STREAM), Step::Drip(rest.into_bytes(), ms(1))], Answer("Fine")),
        case("no-done-and-no-end", vec![stream(&[&piece("Fine"), FINISH]), SILENCE], Answer("Fine")),
        case("finished-and-then-endless", vec![stream(&[&piece("Fine"), FINISH]), forever(": still there\n\n", 20)], Answer("Fine")),
        case("100-continue-for-ever", vec![forever("HTTP/1.1 100 Continue\r\n\r\n", 20)], Refused(504)),
    ]
}

fn bodies() -> Vec<Case> {
    use End::{Answer, Broken, Refused};
    let json_ok = "200 OK";
    let whole = r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"Fine"},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":1,"total_tokens":8}}"#;
    let invalid = [STREAM.as_bytes(), piece("Half").as_bytes(), b"\n\ndata: {\"x\":\"\xff\xfe\"}\n\n"].concat();
    vec![
        case("html-with-200", vec![response("200 OK\r\ncontent-type: text/html", "<html>login</html>")], Refused(502)),
        case("no-content-type", vec![response("200 OK", "data: {}\n\n")], Refused(502)),
        case("json-where-a-stream-was-asked", vec![json(json_ok, whole)], Answer("Fine")),
        case("a-stream-called-json", vec![json(json_ok, &format!("{}\n\n{FINISH}\n\n{DONE}\n\n", piece("Fine")))], Refused(502)),
        case("json-of-something-else", vec![json(json_ok, r#"{"hello":"world"}"#)], Refused(502)),
        case("json-cut-off", vec![json(json_ok, &whole[..60])], Refused(502)),
        case("json-error-with-200", vec![json(json_ok, r#"{"error":{"message":"out of memory"}}"#)], Refused(502)),
        case(
            "json-without-an-end",
            vec![send("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"), Step::Forever(vec![b' '; 1 << 18], ms(0))],
            Refused(502),
        ),
        case("empty-stream", vec![send(STREAM)], Refused(502)),
        case("stream-of-length-0", vec![response("200 OK\r\ncontent-type: text/event-stream", "")], Refused(502)),
        case("nothing-but-done", vec![stream(&[DONE])], Refused(502)),
        case("garbage-event", vec![stream(&["data: {nonsense"])], Refused(502)),
        case("garbage-event-behind-the-first-token", vec![stream(&[&piece("Half"), "data: {nonsense"])], Broken(502)),
        case("invalid-utf-8", vec![send(invalid)], Broken(502)),
        case("line-without-an-end", vec![send(STREAM), send("data: "), Step::Forever(vec![b'x'; 1 << 16], ms(0))], Refused(502)),
        case(
            "event-without-an-end",
            vec![send(STREAM), Step::Forever(format!("data: {}\n", "x".repeat(1 << 16)).into_bytes(), ms(0))],
            Refused(502),
        ),
        case(
            "gzip-garbage",
            vec![send(
                [
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\n\r\n".as_slice(),
                    &[0x1f, 0x8b, 8, 0, 0xff, 0xff, 0xff],
                ]
                .concat(),
            )],
            Refused(502),
        ),
        case("error-event-first", vec![stream(&[r#"data: {"error":{"message":"gpu fell off"}}"#])], Refused(502)),
        case("error-event-with-status-429", vec![stream(&[r#"data: {"error":{"message":"slow down","code":429}}"#])], Refused(429)),
        case(
            "error-event-with-status-400",
            vec![stream(&[r#"data: {"error":{"message":"too long","code":"400","param":"messages"}}"#])],
            Refused(400),
        ),
        case(
            "error-event-behind-the-first-token",
            vec![stream(&[&piece("Half"), r#"data: {"error":{"message":"gpu fell off"}}"#])],
            Broken(502),
        ),
        case(
            "finish-reason-error",
            vec![stream(&[&piece("Half"), r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"error"}]}"#, DONE])],
            Broken(502),
        ),
        case(
            "only-another-choice",
            vec![stream(&[r#"data: {"choices":[{"index":1,"delta":{"content":"x"},"finish_reason":"stop"}]}"#, DONE])],
            Refused(502),
        ),
    ]
}

fn oddities() -> Vec<Case> {
    use End::Answer;
    let odd = |name, events: &[&str], text| case(name, vec![stream(events)], Answer(text));
    let fine = piece("Fine");
    let crlf = format!("{STREAM}{}", format!("{fine}\n\n{FINISH}\n\n{DONE}\n\n").replace('\n', "\r\n"));
    vec![
        odd("no-done", &[&fine, FINISH], "Fine"),
        odd("two-finish-reasons", &[&fine, FINISH, r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#, DONE], "Fine"),
        odd("text-behind-the-finish-reason", &[&fine, FINISH, &piece("More"), DONE], "Fine"),
        odd("events-behind-done", &[&fine, FINISH, DONE, &piece("More"), "data: {nonsense"], "Fine"),
        odd("garbage-behind-the-finish-reason", &[&fine, FINISH, "data: {nonsense"], "Fine"),
        odd("empty-choices", &[r#"data: {"id":"x","choices":[]}"#, &fine, FINISH, DONE], "Fine"),
        odd("choices-null", &[r#"data: {"id":"x","choices":null}"#, &fine, FINISH, DONE], "Fine"),
        odd("no-choices", &[r#"data: {"id":"x"}"#, &fine, FINISH, DONE], "Fine"),
        odd("content-null", &[r#"data: {"choices":[{"index":0,"delta":{"content":null}}]}"#, &fine, FINISH, DONE], "Fine"),
        odd("delta-null", &[&fine, r#"data: {"choices":[{"index":0,"delta":null,"finish_reason":"stop"}]}"#, DONE], "Fine"),
        odd("no-delta", &[&fine, r#"data: {"choices":[{"index":0,"finish_reason":"stop"}]}"#, DONE], "Fine"),
        odd("negative-usage", &[&fine, FINISH, r#"data: {"choices":[],"usage":{"prompt_tokens":-5,"completion_tokens":1}}"#, DONE], "Fine"),
        odd("usage-of-another-shape", &[&fine, FINISH, r#"data: {"choices":[],"usage":"many"}"#, DONE], "Fine"),
        odd("no-usage", &[&fine, FINISH, DONE], "Fine"),
        odd("the-same-delta-twice", &[&fine, &fine, FINISH, DONE], "FineFine"),
        odd("unknown-finish-reason", &[&fine, r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"because"}]}"#, DONE], "Fine"),
        odd(
            "finish-reason-with-the-text",
            &[r#"data: {"choices":[{"index":0,"delta":{"content":"Fine"},"finish_reason":"stop"}]}"#, DONE],
            "Fine",
        ),
        odd("comments-ids-and-names", &[": hello", "id: 7\nevent: message\nretry: 5", &fine, ": ping", FINISH, DONE], "Fine"),
        odd(
            "unknown-fields",
            &[r#"data: {"choices":[{"index":0,"delta":{"content":"Fine","x":[1]},"y":{}}],"z":null}"#, FINISH, DONE],
            "Fine",
        ),
        case("carriage-returns", vec![send(crlf)], Answer("Fine")),
        case("byte-order-mark", vec![send(format!("{STREAM}\u{feff}{fine}\n\n{FINISH}\n\n{DONE}\n\n"))], Answer("Fine")),
        case("no-space-behind-data", vec![stream(&[&fine.replacen("data: ", "data:", 1), FINISH, DONE])], Answer("Fine")),
        case("100-continue-and-then-the-answer", [vec![send("HTTP/1.1 100 Continue\r\n\r\n".repeat(3))], good()].concat(), Answer("Fine")),
        case(
            "content-type-in-capitals",
            vec![
                send(STREAM.replace("text/event-stream", "Text/Event-Stream; charset=UTF-8")),
                send(format!("{fine}\n\n{FINISH}\n\n{DONE}\n\n")),
            ],
            Answer("Fine"),
        ),
    ]
}

/// What a second try heals; nothing is tried twice once a token has come.
fn second_tries() -> Vec<Case> {
    let then_good = |name, first: Vec<Step>| Case { name, tries: vec![first, good()], end: End::Answer("Fine") };
    vec![
        then_good("500-and-then-fine", vec![json("500 Oops", "{}")]),
        then_good("429-and-then-fine", vec![json("429 Too Many Requests\r\nretry-after: 0", "{}")]),
        then_good("reset-and-then-fine", vec![Step::Reset]),
        then_good("close-and-then-fine", vec![]),
        then_good("empty-stream-and-then-fine", vec![send(STREAM)]),
        Case { name: "half-an-answer-and-then-fine", tries: vec![vec![stream(&[&piece("Half")])], good()], end: End::Broken(502) },
    ]
}
