//! Starts the binary and talks to it.

pub use groundtone_testkit::small_shop;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The binary with a data directory below `folder` and nothing of the caller's settings.
pub fn groundtone(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundtone"));
    command.current_dir(folder).env("GROUNDTONE_DATA_DIRECTORY", folder.join("data")).env("GROUNDTONE_OFFLINE", "1").args(arguments);
    command
}

/// Runs to the end.
pub fn run(folder: &Path, arguments: &[&str]) -> Output {
    groundtone(folder, arguments).output().unwrap()
}

/// Runs and gives the last line of standard output as JSON.
pub fn run_json(folder: &Path, arguments: &[&str]) -> Value {
    let output = run(folder, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

/// Standard error and the exit code of a command that fails.
pub fn run_failing(folder: &Path, arguments: &[&str]) -> (String, i32) {
    let output = run(folder, arguments);
    assert!(!output.status.success(), "{arguments:?} passed");
    let text = String::from_utf8_lossy(&output.stderr).replace(&folder.display().to_string(), "FOLDER");
    (text, output.status.code().unwrap())
}

/// A server that stops when dropped.
pub struct Server {
    child: Child,
    pub address: String,
    pub log: std::path::PathBuf,
}

impl Server {
    /// Starts `groundtone` with these arguments and waits for its address.
    pub fn start(folder: &Path, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// The same with variables of the environment.
    pub fn start_with(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let log = folder.join("server.log");
        let mut command = groundtone(folder, arguments);
        command
            .envs(variables.iter().copied())
            .args(["--port", "0", "-v"])
            .env("GROUNDTONE_LOG_FORMAT", "json")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.contains("http://")));
        let line = line.unwrap_or_else(|| panic!("{arguments:?} did not start: {}", std::fs::read_to_string(&log).unwrap()));
        let start = line.find("http://").unwrap();
        let address =
            line[start..].trim_end_matches(|c: char| !c.is_ascii_digit()).split(' ').next().unwrap().trim_end_matches('/').to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address, log }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn kill_hard(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop, and waits until it has.
    pub fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success() && self.child.wait().unwrap().success(), "it did not stop in order");
    }

    /// A connection that has sent a request.
    pub fn connect(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let host = self.address.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| *name == "host") {
            head.push_str(&format!("host: {host}\r\n"));
        }
        head.push_str("content-type: application/json\r\n");
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        stream.write_all(format!("{head}\r\n{body}").as_bytes()).unwrap();
        stream
    }

    /// Status, headers and body of a whole exchange.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String, String) {
        let mut text = Vec::new();
        self.connect(method, path, headers, body).read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        (status, head.to_lowercase(), if chunked { unchunk(body) } else { body.to_owned() })
    }

    /// The JSON that a route answers.
    pub fn json(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, _, text) = self.request(method, path, &[], &body);
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    out
}

/// Waits for a condition.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The prompt of a training row as serving would send it, and its answer. In the row the prompt's replies have `weight: 0`, which servers are not told.
pub fn read_and_said(messages: &Value) -> (Value, Value) {
    let mut prompt = messages.as_array().unwrap().clone();
    let answer = prompt.pop().unwrap();
    prompt.iter_mut().filter_map(Value::as_object_mut).for_each(|message| drop(message.shift_remove("weight")));
    (Value::Array(prompt), answer)
}
