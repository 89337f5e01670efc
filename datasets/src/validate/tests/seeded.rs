//! Every rule finds what it is for, at its place, and nothing else is found around it.

use super::*;

struct Defect {
    rule: Rule,
    target: Target,
    method: Method,
    line: Vec<u8>,
    /// What stands at the reported column.
    at: &'static str,
}

const SFT: (Target, Method) = (Target::OpenAi, Method::Sft);
const DPO: (Target, Method) = (Target::OpenAi, Method::Dpo);

fn defect(rule: Rule, (target, method): (Target, Method), line: impl Into<Vec<u8>>, at: &'static str) -> Defect {
    Defect { rule, target, method, line: line.into(), at }
}

/// A row around messages.
fn row(messages: &str) -> String {
    format!(r#"{{"messages":[{messages}]}}"#)
}

/// A row whose question is this message.
fn asked(message: &str) -> String {
    row(&format!(r#"{message},{{"role":"assistant","content":"a"}}"#))
}

/// A row whose answer is this message.
fn answered(message: &str) -> String {
    row(&format!(r#"{{"role":"user","content":"q é"}},{message}"#))
}

fn called(call: &str) -> String {
    let row = answered(&format!(r#"{{"role":"assistant","tool_calls":[{call}]}}"#));
    row.replace("]}]}", r#"]}],"tools":[{"type":"function","function":{"name":"f"}}]}"#)
}

fn with_tools(tools: &str) -> String {
    plain_rows()[0].replace("]}", &format!(r#"],{tools}}}"#))
}

const CALL: &str = r#"{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}"#;
const F: &str = r#""tools":[{"type":"function","function":{"name":"f"}}]"#;

fn syntax() -> Vec<Defect> {
    use Rule::*;
    let good = &plain_rows()[0];
    vec![
        defect(
            Utf8,
            SFT,
            good.replace("Answer", "~").bytes().map(|byte| if byte == b'~' { 0xff } else { byte }).collect::<Vec<u8>>(),
            "\u{fffd}",
        ),
        defect(JsonSyntax, SFT, r#"{"messages":[,]}"#, ",]"),
        defect(JsonSyntax, SFT, "hello", "hello"),
        defect(JsonUnclosed, SFT, good[..good.len() - 1].to_owned(), ""),
        defect(JsonUnclosed, SFT, good[..good.len() - 9].to_owned(), ""),
        defect(JsonTrailingComma, SFT, good.replace("}]}", "},]}"), ",]}"),
        defect(JsonTrailingComma, SFT, good.replace("]}", "],}"), ",}"),
        defect(JsonMissingComma, SFT, good.replace("},{", "} {"), r#"{"role":"assistant""#),
        defect(JsonMissingComma, SFT, good.replace("Answer", r#"An "answer""#), "answer\""),
        defect(JsonMissingColon, SFT, good.replace(r#""role":"user""#, r#""role" "user""#), r#""user""#),
        defect(JsonSingleQuotes, SFT, good.replace('"', "'"), "'messages'"),
        defect(JsonSingleQuotes, SFT, good.replace(r#""user""#, "'user'"), "'user'"),
        defect(JsonUnquotedKey, SFT, good.replacen(r#""role""#, "role", 1), "role:"),
        defect(JsonPythonLiteral, SFT, good.replace(r#""Question 0""#, "None"), "None"),
        defect(JsonPythonLiteral, SFT, with_tools(r#""parallel_tool_calls":True"#), "True"),
        defect(JsonNan, SFT, good.replace(r#""Question 0""#, "NaN"), "NaN"),
        defect(JsonNan, SFT, good.replace(r#""Question 0""#, "-Infinity"), "Infinity"),
        defect(JsonControlCharacter, SFT, good.replace("Answer 0", "Ans\twer"), "\twer"),
        defect(JsonEscape, SFT, good.replace("Answer", r"An\swer"), r"\swer"),
        defect(JsonEscape, SFT, good.replace("Answer", r"An\u12g4wer"), r"\u12g4"),
        defect(JsonSurrogate, SFT, good.replace("Answer", r"An\ud83dwer"), r"\ud83d"),
        defect(JsonSurrogate, SFT, good.replace("Answer", r"An\ude00wer"), r"\ude00"),
        defect(JsonNumber, SFT, good.replace(r#""Question 0""#, "012"), ""),
        defect(JsonNumber, SFT, good.replace(r#""Question 0""#, "+1"), "+1"),
        defect(JsonComment, SFT, format!("{good} // old"), "// old"),
        defect(JsonComment, SFT, "# comment", "# comment"),
        defect(JsonTwoValues, SFT, format!("{good}{good}"), ""),
        defect(JsonTwoValues, SFT, format!("{good}, {good}"), ","),
        defect(JsonTrailingCharacters, SFT, format!("{good},"), ","),
        defect(JsonTrailingCharacters, SFT, format!("{good}]"), "]"),
        defect(JsonDepth, SFT, format!(r#"{{"x":{}{}}}"#, "[".repeat(300), "]".repeat(300)), ""),
        defect(DuplicateKey, SFT, good.replacen(r#""role":"user""#, r#""role":"user","role":"user""#, 1), r#""role":"user","content""#),
        defect(RowNotObject, SFT, r#""text""#, "\"text"),
        defect(RowNotObject, SFT, "[1]", "["),
        defect(BlankLine, SFT, "  ", ""),
    ]
}

fn rows() -> Vec<Defect> {
    use Rule::*;
    let dpo = preference("good", "bad");
    vec![
        defect(OtherFormat, SFT, r#"{"conversations":[{"from":"human","value":"q"}]}"#, "{"),
        defect(OtherFormat, SFT, r#"{"instruction":"q","output":"a"}"#, "{"),
        defect(OtherFormat, SFT, r#"{"prompt":"q","completion":"a"}"#, "{"),
        defect(OtherFormat, SFT, r#"{"custom_id":"1","method":"POST","url":"/v1/chat/completions","body":{}}"#, "{"),
        defect(WrongMethod, SFT, dpo.clone(), "{"),
        defect(WrongMethod, DPO, plain_rows()[0].clone(), "{"),
        defect(UnknownKey, SFT, plain_rows()[0].replace(r#"{"messages""#, r#"{"id":7,"messages""#), "\"id\""),
        defect(MessagesMissing, SFT, "{}", "{"),
        defect(MessagesMissing, SFT, r#"{"mesages":[]}"#, "{"),
        defect(MessagesType, SFT, r#"{"messages":{"role":"user"}}"#, r#"{"role""#),
        defect(MessagesEmpty, SFT, r#"{"messages":[]}"#, "[]"),
        defect(MessageType, SFT, row(r#""hello""#), "\"hello"),
        defect(ParallelType, SFT, with_tools(r#""parallel_tool_calls":"no""#), "\"no"),
        defect(PromptMissing, (Target::Together, Method::Sft), r#"{"prompt":"q"}"#, "{"),
        defect(PromptMissing, (Target::Trl, Method::Sft), r#"{"prompt":"q","completion":" "}"#, "\" \""),
        defect(PromptType, (Target::Together, Method::Sft), r#"{"prompt":5,"completion":"a"}"#, "5"),
        defect(InputMissing, DPO, dpo.replace(r#""input""#, r#""inputs""#), "{"),
        defect(
            InputType,
            DPO,
            r#"{"input":"q","preferred_output":[{"role":"assistant","content":"a"}],"non_preferred_output":[{"role":"assistant","content":"b"}]}"#,
            "\"q\"",
        ),
        defect(
            InputEnds,
            DPO,
            dpo.replace(r#"{"role":"user","content":"Hi"}"#, r#"{"role":"user","content":"Hi"},{"role":"assistant","content":"x"}"#),
            r#"{"role":"assistant","content":"x""#,
        ),
        defect(PreferredMissing, DPO, dpo.replace(r#""preferred_output":[{"role":"assistant","content":"good"}],"#, ""), "{"),
        defect(NonPreferredMissing, DPO, dpo.replace(r#","non_preferred_output":[{"role":"assistant","content":"bad"}]"#, ""), "{"),
        defect(
            OutputTwice,
            DPO,
            dpo.replace(r#""non_pref"#, r#""preferred_completion":[{"role":"assistant","content":"z"}],"non_pref"#),
            r#"[{"role":"assistant","content":"z"#,
        ),
        defect(OutputType, DPO, dpo.replace(r#"[{"role":"assistant","content":"good"}]"#, r#""good""#), "\"good"),
        defect(OutputType, DPO, dpo.replace(r#"[{"role":"assistant","content":"good"}]"#, "[]"), "[]"),
        defect(
            OutputType,
            DPO,
            dpo.replace(
                r#"[{"role":"assistant","content":"good"}]"#,
                r#"[{"role":"assistant","content":"good"},{"role":"assistant","content":"more"}]"#,
            ),
            r#"[{"role":"assistant","content":"good"#,
        ),
        defect(
            OutputRole,
            DPO,
            dpo.replace(r#"{"role":"assistant","content":"bad"}"#, r#"{"role":"user","content":"bad"}"#),
            r#"{"role":"user","content":"bad"#,
        ),
        defect(OutputsEqual, DPO, preference("same", "same"), r#"[{"role":"assistant","content":"same"}]}"#),
        defect(
            MessagesMissing,
            DPO,
            dpo.replace(r#""messages""#, r#""mesages""#)
                .replace(r#"{"mesages":[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}]}"#, "{}"),
            "{},",
        ),
        defect(AssistantEmpty, DPO, preference("", "bad"), "\"\""),
        defect(OtherFormat, (Target::Trl, Method::Dpo), dpo, "{"),
    ]
}

fn messages() -> Vec<Defect> {
    use Rule::*;
    vec![
        defect(RoleMissing, SFT, asked(r#"{"content":"q"}"#), r#"{"content":"q"#),
        defect(RoleType, SFT, asked(r#"{"role":null,"content":"q"}"#), "null"),
        defect(RoleUnknown, SFT, asked(r#"{"role":"human","content":"q"}"#), "\"human"),
        defect(RoleUnknown, SFT, answered(r#"{"role":"asistant","content":"q"}"#), "\"asistant"),
        defect(
            RoleUnsupported,
            (Target::Together, Method::Sft),
            row(r#"{"role":"developer","content":"d"},{"role":"user","content":"q"},{"role":"assistant","content":"a"}"#),
            r#"{"role":"developer"#,
        ),
        defect(ContentMissing, SFT, asked(r#"{"role":"user"}"#), r#"{"role":"user"}"#),
        defect(ContentNull, SFT, asked(r#"{"role":"user","content":null}"#), "null"),
        defect(ContentType, SFT, asked(r#"{"role":"user","content":5}"#), "5"),
        defect(ContentType, SFT, answered(r#"{"role":"assistant","content":{"text":"a"}}"#), r#"{"text""#),
        defect(ContentBlank, SFT, asked(r#"{"role":"user","content":" \n"}"#), "\" \\n\""),
        defect(ContentPartsEmpty, SFT, asked(r#"{"role":"user","content":[]}"#), "[]"),
        defect(AssistantEmpty, SFT, answered(r#"{"role":"assistant"}"#), r#"{"role":"assistant"}"#),
        defect(AssistantEmpty, SFT, answered(r#"{"role":"assistant","content":""}"#), "\"\""),
        defect(AssistantEmpty, SFT, answered(r#"{"role":"assistant","content":null}"#), "null"),
        defect(MessageUnknownKey, SFT, answered(r#"{"role":"assistant","content":"a","wieght":1}"#), "\"wieght"),
        defect(MessageLeftover, SFT, answered(r#"{"role":"assistant","content":"a","annotations":[]}"#), "\"annotations"),
        defect(PartType, SFT, asked(r#"{"role":"user","content":["q"]}"#), "\"q\""),
        defect(PartType, SFT, asked(r#"{"role":"user","content":[{"type":"image","url":"x"}]}"#), r#"{"type":"image""#),
        defect(
            PartRole,
            SFT,
            row(
                r#"{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"image_url","image_url":{"url":"https://x.org/a.png"}}]}"#,
            ),
            r#"{"type":"image_url""#,
        ),
        defect(PartText, SFT, asked(r#"{"role":"user","content":[{"type":"text"}]}"#), r#"{"type":"text"}"#),
        defect(ImageUrl, SFT, asked(r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"C:\\a.png"}}]}"#), "\"C:"),
        defect(
            ImageUrl,
            SFT,
            asked(r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/gif;base64,R0"}}]}"#),
            "\"data:",
        ),
        defect(ImageUrl, SFT, asked(r#"{"role":"user","content":[{"type":"image_url","image_url":"https://x.org/a.png"}]}"#), "\"https"),
        defect(
            ImageDetail,
            SFT,
            asked(r#"{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x.org/a.png","detail":"max"}}]}"#),
            "\"max",
        ),
        defect(
            TooManyImages,
            SFT,
            asked(&format!(
                r#"{{"role":"user","content":[{}]}}"#,
                [r#"{"type":"image_url","image_url":{"url":"https://x.org/a.png"}}"#; 11].join(",")
            )),
            r#"[{"type":"image_url""#,
        ),
        defect(NameType, SFT, asked(r#"{"role":"user","content":"q","name":7}"#), "7}"),
        defect(NameFormat, SFT, asked(r#"{"role":"user","content":"q","name":"Ann Lee"}"#), "\"Ann Lee"),
        defect(RefusalType, SFT, answered(r#"{"role":"assistant","content":"a","refusal":true}"#), "true"),
        defect(WeightValue, SFT, answered(r#"{"role":"assistant","content":"a","weight":0.5}"#), "0.5"),
        defect(WeightValue, SFT, answered(r#"{"role":"assistant","content":"a","weight":"1"}"#), "\"1\""),
        defect(WeightRole, SFT, asked(r#"{"role":"user","content":"q","weight":0}"#), "\"weight"),
        defect(WeightUnsupported, (Target::Trl, Method::Sft), answered(r#"{"role":"assistant","content":"a","weight":1}"#), "\"weight"),
        defect(NoAssistant, SFT, row(r#"{"role":"system","content":"s"},{"role":"user","content":"q"}"#), r#"[{"role":"system"#),
        defect(NoLearnedReply, SFT, answered(r#"{"role":"assistant","content":"a","weight":0}"#), r#"[{"role":"user"#),
        defect(
            LastNotAssistant,
            SFT,
            answered(r#"{"role":"assistant","content":"a"},{"role":"user","content":"thanks"}"#),
            r#"{"role":"user","content":"thanks"#,
        ),
        defect(NoUser, SFT, row(r#"{"role":"system","content":"s"},{"role":"assistant","content":"a"}"#), r#"[{"role":"system"#),
        defect(
            FirstRole,
            (Target::Mistral, Method::Sft),
            row(r#"{"role":"assistant","content":"Hi"},{"role":"user","content":"q"},{"role":"assistant","content":"a"}"#),
            r#"{"role":"assistant","content":"Hi"#,
        ),
        defect(
            Alternation,
            (Target::Together, Method::Sft),
            asked(r#"{"role":"user","content":"q"},{"role":"user","content":"r"}"#),
            r#"{"role":"user","content":"r"#,
        ),
        defect(
            SystemLate,
            (Target::Together, Method::Sft),
            asked(r#"{"role":"user","content":"q"},{"role":"system","content":"s"}"#),
            r#"{"role":"system"#,
        ),
        defect(
            RowTooLong,
            SFT,
            answered(&format!(r#"{{"role":"assistant","content":"{}"}}"#, "word ".repeat(70_000))),
            r#"{"role":"assistant"#,
        ),
        defect(ReplyCutOff, SFT, asked(&format!(r#"{{"role":"user","content":"{}"}}"#, "word ".repeat(70_000))), r#"{"role":"assistant"#),
        defect(ToolCallsType, SFT, answered(r#"{"role":"assistant","content":"a","tool_calls":{}}"#), "{}"),
        defect(ToolCallsType, SFT, answered(r#"{"role":"assistant","content":"a","tool_calls":[]}"#), "[]"),
        defect(ToolCallsNull, SFT, answered(r#"{"role":"assistant","content":"a","tool_calls":null}"#), "null"),
        defect(
            ToolCallsRole,
            SFT,
            format!(
                r#"{{"messages":[{{"role":"user","content":"q","tool_calls":[{CALL}]}},{{"role":"tool","tool_call_id":"c1","content":"x"}},{{"role":"assistant","content":"a"}}],{F}}}"#
            ),
            "\"tool_calls",
        ),
        defect(ToolCallShape, SFT, called(&CALL.replace(r#""id":"c1","#, "")), r#"{"type":"function","function":{"name":"f","arguments"#),
        defect(ToolCallShape, SFT, called(&CALL.replace(r#""type":"function","#, "")), r#"{"id""#),
        defect(ToolCallShape, SFT, called(&CALL.replace(r#","arguments":"{}""#, "")), r#"{"name":"f"}}]}]"#),
        defect(ToolCallArguments, SFT, called(&CALL.replace(r#""{}""#, "{}")), "{}"),
        defect(ToolCallArgumentsJson, SFT, called(&CALL.replace(r#""{}""#, r#""sku=1""#)), "\"sku"),
        defect(ToolCallIdFormat, (Target::Mistral, Method::Sft), called(CALL), "\"c1"),
        defect(
            ToolCallIdDuplicate,
            SFT,
            called(&format!("{CALL},{CALL}")),
            r#""c1","type":"function","function":{"name":"f","arguments":"{}"}}]"#,
        ),
        defect(ToolUndeclared, SFT, called(&CALL.replace(r#""name":"f""#, r#""name":"g""#)), "\"g\""),
        defect(ToolUndeclared, SFT, answered(r#"{"role":"assistant","function_call":{"name":"f","arguments":"{}"}}"#), "\"f\""),
        defect(ToolCallIdMissing, SFT, tool(r#"{"role":"tool","content":"5"}"#), r#"{"role":"tool""#),
        defect(
            ToolCallIdUnknown,
            SFT,
            tool(r#"{"role":"tool","tool_call_id":"c1","content":"5"},{"role":"tool","tool_call_id":"c9","content":"5"}"#),
            "\"c9",
        ),
        defect(ToolAnswerMissing, SFT, tool(r#"{"role":"user","content":"well?"}"#), r#"{"id""#),
        defect(
            FunctionName,
            SFT,
            tool(r#"{"role":"tool","tool_call_id":"c1","content":"5"},{"role":"function","content":"5"}"#),
            r#"{"role":"function"#,
        ),
        defect(FunctionCallShape, SFT, answered(r#"{"role":"assistant","function_call":"f"}"#), "\"f\""),
        defect(ToolsType, SFT, with_tools(r#""tools":{}"#), "{}"),
        defect(ToolsType, SFT, with_tools(r#""functions":[]"#), "[]"),
        defect(ToolShape, SFT, with_tools(r#""tools":[{"name":"f"}]"#), r#"{"name":"f"#),
        defect(ToolShape, SFT, with_tools(r#""tools":[{"type":"function","function":{"parameters":{}}}]"#), r#"{"parameters""#),
        defect(ToolName, SFT, with_tools(r#""tools":[{"type":"function","function":{"name":"get price"}}]"#), "\"get price"),
        defect(ToolParameters, SFT, with_tools(r#""functions":[{"name":"f","parameters":["sku"]}]"#), "[\"sku"),
        defect(ToolParameters, SFT, with_tools(r#""functions":[{"name":"f","parameters":{"type":"string"}}]"#), "\"string"),
        defect(ToolDuplicate, SFT, with_tools(r#""functions":[{"name":"f"},{"name":"f"}]"#), r#""f"}]"#),
    ]
}

/// A call, these messages, and an answer.
fn tool(messages: &str) -> String {
    let call = format!(r#"{{"role":"assistant","tool_calls":[{CALL}]}}"#);
    format!(r#"{{"messages":[{{"role":"user","content":"q"}},{call},{messages},{{"role":"assistant","content":"a"}}],{F}}}"#)
}

/// The file with the defect in its eighth line.
fn seeded(defect: &Defect) -> Vec<u8> {
    let mut rows = match defect.method {
        Method::Sft if defect.rule == Rule::PromptMissing || defect.rule == Rule::PromptType => {
            vec![r#"{"prompt":"q","completion":"a"}"#.to_owned(); 12]
        }
        Method::Sft => plain_rows(),
        Method::Dpo if defect.target == Target::Trl => vec![r#"{"prompt":"q","chosen":"a","rejected":"b"}"#.to_owned(); 12],
        Method::Dpo => preference_rows(),
    };
    let after = file(&rows.split_off(7));
    [file(&rows), defect.line.clone(), b"\n".to_vec(), after].concat()
}

/// What is wrong with how a defect was found.
fn complaint(defect: &Defect) -> Option<String> {
    let line = String::from_utf8_lossy(&defect.line).into_owned();
    let report = check(&seeded(defect), defect.target, defect.method);
    let Some(problem) = report.problems.iter().find(|problem| problem.rule == defect.rule.id() && problem.line == 8) else {
        return Some(format!("missed: {:?}", report.problems));
    };
    let other = report.problems.iter().find(|problem| problem.rule != defect.rule.id() && !follows(defect.rule, problem.rule));
    if let Some(other) = other {
        return Some(format!("also found: {other:?}"));
    }
    let rest: String = line.chars().skip(problem.column as usize - 1).collect();
    let at_end = defect.rule != Rule::JsonUnclosed || problem.column as usize == line.chars().count() + 1;
    if !rest.starts_with(defect.at) || !at_end {
        return Some(format!("column {} is at {}", problem.column, rest.chars().take(60).collect::<String>()));
    }
    (problem.severity != defect.target.severity(defect.rule)).then(|| "has another severity".to_owned())
}

#[test]
fn every_seeded_defect_is_found_at_its_place_and_nothing_else_is() {
    let defects = [syntax(), rows(), messages()].concat_all();
    let complaints: Vec<String> = defects
        .iter()
        .filter_map(|defect| {
            let line: String = String::from_utf8_lossy(&defect.line).chars().take(300).collect();
            complaint(defect).map(|complaint| format!("{:?} in {line}\n    {complaint}", defect.rule))
        })
        .collect();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(defects.len() >= 100, "{}", defects.len());
}

trait ConcatAll<T> {
    fn concat_all(self) -> Vec<T>;
}

impl<T, const N: usize> ConcatAll<T> for [Vec<T>; N] {
    fn concat_all(self) -> Vec<T> {
        self.into_iter().flatten().collect()
    }
}

/// What one defect entails: both are worth saying.
fn follows(rule: Rule, other: &str) -> bool {
    match rule {
        Rule::InputMissing => other == Rule::UnknownKey.id(),
        Rule::OtherFormat | Rule::PromptMissing => other == Rule::MixedShapes.id() || other == Rule::PreferredMissing.id(),
        Rule::FunctionName => other == Rule::ToolAnswerMissing.id(),
        _ => false,
    }
}

#[test]
fn defects_of_a_whole_file_are_found() {
    let rows = file(&plain_rows());
    let text = |text: &[u8], target| check(text, target, Method::Sft).counts;
    let only = |rule: Rule| BTreeMap::from([(rule.id(), 1)]);
    assert_eq!(text(b"", Target::OpenAi), only(Rule::EmptyFile));
    assert_eq!(text(b"\n\n", Target::Trl), BTreeMap::from([("empty-file", 1), ("blank-line", 2)]));
    assert_eq!(text(&[BOM, &rows].concat(), Target::OpenAi), only(Rule::Bom));
    assert_eq!(text(&rows, Target::Azure), only(Rule::BomMissing));
    assert_eq!(text(b"\xff\xfe{\0", Target::OpenAi), only(Rule::Utf16));
    assert_eq!(text(&[b"[", &rows[..]].concat(), Target::OpenAi), only(Rule::JsonArray));
    assert_eq!(text(&file(&plain_rows()[..9]), Target::OpenAi), only(Rule::TooFewRows));
    assert_eq!(text(&file(&plain_rows()[..2]), Target::Fireworks), only(Rule::TooFewRows));
    assert_eq!(text(&[&rows[..], b"\n \n\n"].concat(), Target::OpenAi), BTreeMap::from([("blank-line-at-end", 3)]));
    assert_eq!(text(&[&rows[..], b"\n", &rows[..]].concat(), Target::OpenAi), only(Rule::BlankLine));
    let mixed = [&rows[..], b"{\"prompt\":\"q\",\"completion\":\"a\"}\n"].concat();
    let report = check(&mixed, Target::Together, Method::Sft);
    assert_eq!((report.counts, report.problems[0].line), (only(Rule::MixedShapes), 13));
    let preferences = file(&preference_rows());
    assert_eq!(check(&preferences, Target::Mistral, Method::Dpo).counts, only(Rule::MethodUnsupported));
    let large = Options { threads: 2, ..options(Target::OpenAi, Method::Sft) };
    let source = std::io::Read::chain(&rows[..], std::io::Read::take(std::io::repeat(b'x'), 513 << 20));
    let report = validate(source, &large).unwrap();
    assert_eq!(report.counts, BTreeMap::from([("file-too-large", 1), ("line-too-long", 1)]));
}

/// Every rule that can be broken is broken by some test above.
#[test]
fn no_rule_goes_untested() {
    let mut broken: Vec<Rule> = [syntax(), rows(), messages()].concat_all().iter().map(|defect| defect.rule).collect();
    broken.extend([Rule::EmptyFile, Rule::Bom, Rule::BomMissing, Rule::Utf16, Rule::JsonArray, Rule::TooFewRows, Rule::BlankLineAtEnd]);
    broken.extend([Rule::MixedShapes, Rule::MethodUnsupported, Rule::FileTooLarge, Rule::LineTooLong]);
    let missing: Vec<&Rule> = Rule::ALL.iter().filter(|rule| !broken.contains(rule)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
