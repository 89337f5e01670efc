mod fixing;
mod seeded;
mod valid;

use super::*;

pub(super) fn options(target: Target, method: Method) -> Options {
    Options { target, method, ..Options::default() }
}

pub(super) fn check(text: &[u8], target: Target, method: Method) -> Report {
    validate(text, &options(target, method)).unwrap()
}

/// Rows that every target's server takes, of every kind that OpenAI's schema knows.
pub(super) fn valid_rows() -> Vec<String> {
    let call = r#"{"id":"call_1","type":"function","function":{"name":"price","arguments":"{\"sku\": \"A1\"}"}}"#;
    let tools = r#""tools":[{"type":"function","function":{"name":"price","description":"Price","parameters":{"type":"object","properties":{"sku":{"type":"string"}},"required":["sku"]}}}]"#;
    [
        r#"{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello!"}]}"#.to_owned(),
        r#"{"messages":[{"role":"user","content":"Grüße 🚲 \ud83d\ude00 \"quoted\" \\ \n"},{"role":"assistant","content":"Ja","weight":1}]}"#.to_owned(),
        r#"{ "messages" : [ { "role" : "user" , "content" : "spaced" } , { "content" : "Role last" , "role" : "assistant" } ] }"#.to_owned(),
        r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"b","weight":0},{"role":"user","content":"c"},{"role":"assistant","content":"d","weight":1}]}"#.to_owned(),
        r#"{"messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":"x","name":"Ann_1"},{"role":"assistant","refusal":"I cannot."}]}"#.to_owned(),
        r#"{"messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},{"type":"image_url","image_url":{"url":"https://example.com/a.png","detail":"low"}}]},{"role":"assistant","content":[{"type":"text","text":"A cat"}]}]}"#.to_owned(),
        format!(r#"{{"messages":[{{"role":"user","content":"Price?"}},{{"role":"assistant","content":null,"tool_calls":[{call}]}}],"parallel_tool_calls":false,{tools}}}"#),
        format!(r#"{{"messages":[{{"role":"user","content":"Price?"}},{{"role":"assistant","tool_calls":[{call}]}},{{"role":"tool","tool_call_id":"call_1","content":"5"}},{{"role":"assistant","content":"Five."}}],{tools}}}"#),
        r#"{"messages":[{"role":"user","content":"Price?"},{"role":"assistant","content":null,"function_call":{"name":"price","arguments":"{}"}},{"role":"function","name":"price","content":"5"},{"role":"assistant","content":"Five."}],"functions":[{"name":"price","parameters":{"type":"object","properties":{}}}]}"#.to_owned(),
        r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/jpeg;base64,/9j/4AAQ"}}]},{"role":"assistant","content":"A dog.","refusal":null}]}"#.to_owned(),
        r#"{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Multi\nline"},{"role":"assistant","content":" ok "}]}"#.to_owned(),
        "{\"messages\":[{\"role\":\"user\",\"content\":\"crlf\"},{\"role\":\"assistant\",\"content\":\"ok\"}]}\r".to_owned(),
    ]
    .to_vec()
}

/// Rows that every target takes.
pub(super) fn plain_rows() -> Vec<String> {
    let row = |at: usize| {
        format!(r#"{{"messages":[{{"role":"user","content":"Question {at}"}},{{"role":"assistant","content":"Answer {at}"}}]}}"#)
    };
    (0..12).map(row).collect()
}

pub(super) fn preference(preferred: &str, other: &str) -> String {
    let input = r#"{"messages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}]}"#;
    let output = |text: &str| format!(r#"[{{"role":"assistant","content":"{text}"}}]"#);
    format!(r#"{{"input":{input},"preferred_output":{},"non_preferred_output":{}}}"#, output(preferred), output(other))
}

pub(super) fn preference_rows() -> Vec<String> {
    let mut rows: Vec<String> = (0..10).map(|at| preference(&format!("Hello {at}"), "Go away")).collect();
    rows.push(preference("Hello", "Go").replace("_output", "_completion"));
    rows
}

pub(super) fn file(rows: &[String]) -> Vec<u8> {
    rows.iter().flat_map(|row| row.bytes().chain([b'\n'])).collect()
}
