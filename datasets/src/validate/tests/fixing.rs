//! Repairs: what is mechanical is repaired, everything else keeps its bytes.

use super::*;

fn repaired(text: &[u8], target: Target) -> (String, Fixed) {
    let mut out = Vec::new();
    let fixed = fix(text, &mut out, &options(target, Method::Sft)).unwrap();
    (String::from_utf8_lossy(&out).into_owned(), fixed)
}

#[test]
fn what_is_mechanical_is_repaired() {
    let row = |message: &str| format!(r#"{{"messages":[{{"role":"user","content":"q"}},{message}]}}"#);
    let good = row(r#"{"role":"assistant","content":"a"}"#);
    let cases = [
        (format!("\u{feff}{good}\n"), format!("{good}\n")),
        (format!("{good}\n\n  \n{good}"), format!("{good}\n{good}\n")),
        (format!("{good},\n"), format!("{good}\n")),
        (format!("{good} {good}, {good}\n"), format!("{good} \n{good}\n{good}\n")),
        (row(r#"{"role":"assistant","content":"a",}"#), format!("{good}\n")),
        (row("{\"role\":\"assistant\",\"content\":\"a\tb\tc\"}"), row(r#"{"role":"assistant","content":"a\tb\tc"}"#) + "\n"),
        (row(r#"{"role":"gpt","content":"a"}"#), format!("{good}\n")),
        (row(r#"{"role":"assistant","content":"a","tool_calls":None}"#), format!("{good}\n")),
        (good.replace(r#""content":"q""#, r#""content":"q", "weight": 0"#), format!("{good}\n")),
        (row(r#"{"role":"assistant","weight":true,"content":"a"}"#), row(r#"{"role":"assistant","weight":1,"content":"a"}"#) + "\n"),
        (
            row(r#"{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":{"a": 1}}}]}"#),
            row(r#"{"role":"assistant","tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]}"#)
                + "\n",
        ),
    ];
    for (broken, whole) in cases {
        let (text, fixed) = repaired(broken.as_bytes(), Target::OpenAi);
        assert_eq!(text, whole, "{broken}");
        assert!(!fixed.repaired.is_empty(), "{broken}");
        assert_eq!(fixed.lines, text.lines().count() as u64);
        let again = repaired(text.as_bytes(), Target::OpenAi);
        assert_eq!((again.0, again.1.repaired.len()), (text, 0), "a repaired file stays as it is");
    }
}

#[test]
fn the_mark_follows_the_target() {
    let row = format!("{}\n", plain_rows()[0]);
    assert_eq!(repaired(row.as_bytes(), Target::Azure).0, format!("\u{feff}{row}"));
    let marked = format!("\u{feff}{row}");
    assert_eq!(repaired(marked.as_bytes(), Target::Azure), (marked.clone(), Fixed { lines: 1, repaired: BTreeMap::new() }));
}

#[test]
fn what_needs_a_decision_keeps_its_bytes() {
    let long = format!("{{\"messages\":\"{}\"}}", "x".repeat(3 << 20));
    let lines = ["{'messages': []}", r#"{"messages":[{"role":"user","content":"q"}]}"#, "not json", &long, r#"{"messages":[]}"#];
    let text = lines.join("\r\n") + "\r\n";
    let mut out = Vec::new();
    let small = Options { max_line_bytes: 1 << 20, ..Options::default() };
    let fixed = fix(text.as_bytes(), &mut out, &small).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), text);
    assert_eq!(fixed, Fixed { lines: 5, repaired: BTreeMap::new() });
    // A reply that is not to be learned is not quietly made one that is.
    let row = r#"{"messages":[{"role":"assistant","content":"a","weight":0},{"role":"assistant","content":"a","weight":1}]}"#;
    let (text, _) = repaired(row.as_bytes(), Target::Trl);
    assert_eq!(text.trim_end(), r#"{"messages":[{"role":"assistant","content":"a","weight":0},{"role":"assistant","content":"a"}]}"#);
}
