//! The two ends of `./gt bench proxy`: a model server that costs nothing, and a client that counts.
//!
//! `load mock` prints its port and answers chat completions at once, whole or streamed; header and body go out in one write, with Nagle off.
//! `load fire` sends at a fixed rate, or as fast as so many connections can, and prints what it saw as JSON; `load hold` opens streams and keeps them open.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measuring tool stops at what it does not expect, and prints what it measured"
)]

use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const WORDS: usize = 8;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let pairs: Vec<String> = arguments.collect();
    let options: HashMap<String, String> =
        pairs.chunks(2).map(|pair| (pair[0].trim_start_matches("--").to_owned(), pair[1].clone())).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        match command.as_str() {
            "mock" => mock().await,
            "fire" => fire(&options).await,
            "hold" => hold(&options).await,
            _ => panic!("load mock | load fire --url U --model M --rate N --seconds N --stream 0|1 [--connections N] | load hold --url U --model M --count N"),
        }
    });
}

// --- the model server ---

async fn mock() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap().port());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(serve(stream));
    }
}

fn event(delta: &Value, finish: &Value) -> String {
    let chunk = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]});
    format!("data: {chunk}\n\n")
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

async fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let mut bytes = Vec::new();
    while let Some(body) = read_request(&mut stream, &mut bytes).await {
        let whole = !body.contains("\"stream\":true") && !body.contains("\"stream\": true");
        let answer = if whole {
            let message = json!({"role": "assistant", "content": "word ".repeat(WORDS)});
            let usage = json!({"prompt_tokens": 100, "completion_tokens": WORDS, "total_tokens": 100 + WORDS});
            let body = json!({"id": "c", "object": "chat.completion", "created": 1, "model": "mock", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}).to_string();
            format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        } else {
            let mut answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
            answer.push_str(&chunk(&event(&json!({"role": "assistant", "content": ""}), &Value::Null)));
            if body.contains("HOLD") {
                answer.push_str(&chunk(&event(&json!({"content": "word "}), &Value::Null)));
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
                // A word now and then, until the client leaves.
                loop {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    if stream.write_all(chunk(&event(&json!({"content": "word "}), &Value::Null)).as_bytes()).await.is_err() {
                        return;
                    }
                }
            }
            (0..WORDS).for_each(|_| answer.push_str(&chunk(&event(&json!({"content": "word "}), &Value::Null))));
            let usage = json!({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock", "choices": [], "usage": {"prompt_tokens": 100, "completion_tokens": WORDS, "total_tokens": 100 + WORDS}});
            answer.push_str(&chunk(&event(&json!({}), &json!("stop"))));
            answer.push_str(&chunk(&format!("data: {usage}\n\n")));
            answer.push_str(&chunk("data: [DONE]\n\n"));
            answer.push_str("0\r\n\r\n");
            answer
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The body of the next request; what came after it stays in `bytes`.
async fn read_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    let head = read_head(stream, bytes).await?;
    let length = header(&head, "content-length").map_or(0, |value| value.parse().unwrap());
    fill(stream, bytes, length).await?;
    Some(String::from_utf8(bytes.drain(..length).collect()).unwrap())
}

// --- HTTP, as little of it as both ends need ---

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut buffer = [0; 16 * 1024];
    let read = stream.read(&mut buffer).await.ok().filter(|&read| read > 0)?;
    bytes.extend_from_slice(&buffer[..read]);
    Some(())
}

async fn fill(stream: &mut TcpStream, bytes: &mut Vec<u8>, length: usize) -> Option<()> {
    while bytes.len() < length {
        more(stream, bytes).await?;
    }
    Some(())
}

async fn read_head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes.drain(..end + 4).collect()).unwrap();
            return Some(head.to_lowercase());
        }
        more(stream, bytes).await?;
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

async fn read_line(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
            let line: Vec<u8> = bytes.drain(..end + 2).collect();
            return Some(String::from_utf8(line[..end].to_vec()).unwrap());
        }
        more(stream, bytes).await?;
    }
}

// --- the client ---

/// Seconds of one exchange.
struct Took {
    /// To the first word of the answer; to its end where it is not streamed.
    first: f64,
    all: f64,
    ok: bool,
}

struct Target {
    host: String,
    request: Vec<u8>,
}

impl Target {
    fn new(options: &HashMap<String, String>, stream: bool, question: &str) -> Self {
        let url = &options["url"];
        let rest = url.strip_prefix("http://").expect("an http address");
        let (host, path) = rest.split_once('/').expect("a path");
        let body = json!({"model": options["model"], "stream": stream, "messages": [{"role": "user", "content": question}]}).to_string();
        let key = options.get("key").map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
        let head = format!(
            "POST /{path} HTTP/1.1\r\nhost: {host}\r\n{key}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self { host: host.to_owned(), request: (head + &body).into_bytes() }
    }

    async fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.host).await.expect("a connection");
        stream.set_nodelay(true).unwrap();
        stream
    }
}

/// One exchange; `None` when the connection broke.
async fn exchange(stream: &mut TcpStream, target: &Target) -> Option<Took> {
    let began = Instant::now();
    let mut bytes = Vec::new();
    stream.write_all(&target.request).await.ok()?;
    let head = read_head(stream, &mut bytes).await?;
    let ok = head.starts_with("http/1.1 200");
    let mut first = None;
    if header(&head, "transfer-encoding") == Some("chunked") {
        loop {
            let size = usize::from_str_radix(read_line(stream, &mut bytes).await?.trim(), 16).ok()?;
            fill(stream, &mut bytes, size + 2).await?;
            let chunk: Vec<u8> = bytes.drain(..size + 2).collect();
            if first.is_none() && chunk.windows(4).any(|window| window == b"word") {
                first = Some(began.elapsed().as_secs_f64());
            }
            if size == 0 {
                break;
            }
        }
    } else {
        let length = header(&head, "content-length")?.parse().ok()?;
        fill(stream, &mut bytes, length).await?;
    }
    let all = began.elapsed().as_secs_f64();
    Some(Took { first: first.unwrap_or(all), all, ok })
}

async fn fire(options: &HashMap<String, String>) {
    let number = |name: &str, otherwise: f64| options.get(name).map_or(otherwise, |value| value.parse().unwrap());
    let (rate, seconds, streamed) = (number("rate", 0.0), number("seconds", 5.0), number("stream", 0.0) > 0.0);
    let target = Arc::new(Target::new(options, streamed, "How long can I send my grinder back?"));
    let results: Arc<Mutex<Vec<Option<Took>>>> = Arc::default();
    let began = Instant::now();
    let mut latest = Duration::ZERO;
    if rate > 0.0 {
        let pool: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        for count in 0..(rate * seconds) as u64 {
            let due = began + Duration::from_secs_f64(count as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
            latest = latest.max(due.elapsed());
            let (pool, target, results) = (pool.clone(), target.clone(), results.clone());
            tasks.spawn(async move {
                let pooled = pool.lock().unwrap().pop();
                let mut stream = match pooled {
                    Some(stream) => stream,
                    None => target.connect().await,
                };
                let took = exchange(&mut stream, &target).await;
                if took.is_some() {
                    pool.lock().unwrap().push(stream);
                }
                results.lock().unwrap().push(took);
            });
        }
        while tasks.join_next().await.is_some() {}
    } else {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..number("connections", 16.0) as usize {
            let (target, results) = (target.clone(), results.clone());
            tasks.spawn(async move {
                let mut stream = target.connect().await;
                while began.elapsed().as_secs_f64() < seconds {
                    let took = exchange(&mut stream, &target).await;
                    if took.is_none() {
                        stream = target.connect().await;
                    }
                    results.lock().unwrap().push(took);
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }
    let elapsed = began.elapsed().as_secs_f64();
    report(&results.lock().unwrap(), elapsed, latest);
}

fn report(results: &[Option<Took>], elapsed: f64, latest: Duration) {
    let good: Vec<&Took> = results.iter().flatten().filter(|took| took.ok).collect();
    let percentile = |of: fn(&Took) -> f64, share: f64| {
        let mut values: Vec<f64> = good.iter().map(|took| of(took)).collect();
        values.sort_by(f64::total_cmp);
        values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1))).map(|seconds| seconds * 1e3)
    };
    let spread =
        |of: fn(&Took) -> f64| json!({"p50_ms": percentile(of, 0.5), "p95_ms": percentile(of, 0.95), "p99_ms": percentile(of, 0.99)});
    let printed = json!({
        "requests": results.len(), "failed": results.len() - good.len(), "per_second": good.len() as f64 / elapsed,
        "all": spread(|took| took.all), "first": spread(|took| took.first), "latest_start_ms": latest.as_secs_f64() * 1e3,
    });
    println!("{printed}");
}

/// Opens streams until `count` have their first word, says so, and keeps them until standard input ends; then it says how many were cut meanwhile.
async fn hold(options: &HashMap<String, String>) {
    let count: usize = options["count"].parse().unwrap();
    let target = Target::new(options, true, "HOLD: how long can I send my grinder back?");
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = target.connect().await;
        stream.write_all(&target.request).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.windows(4).any(|window| window == b"word") {
            more(&mut stream, &mut bytes)
                .await
                .unwrap_or_else(|| panic!("stream {} broke: {}", streams.len(), String::from_utf8_lossy(&bytes)));
        }
        streams.push(stream);
    }
    println!("{}", streams.len());
    let mut nothing = Vec::new();
    tokio::io::stdin().read_to_end(&mut nothing).await.unwrap();
    let cut = streams.iter().filter(|stream| is_over(stream)).count();
    println!("{cut}");
}

/// Whether the server ended the stream, or said in it that something failed.
fn is_over(stream: &TcpStream) -> bool {
    let (mut text, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.try_read(&mut buffer) {
            Ok(0) => return true,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(_) => return true,
        }
    }
    text.windows(9).any(|window| window == b"\"error\":{")
}
