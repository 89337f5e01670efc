//! Every rule of the validator: what it looks for, why it matters, what to do. The table in `docs/reference/dataset-rules.md` is made of this one.

use serde::Serialize;

/// How bad a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The target takes the file, and the result is likely not what was meant.
    Warning,
    /// The target refuses the file, or the row teaches nothing.
    Error,
}

macro_rules! rules {
    ($($name:ident, $id:literal, $severity:ident, $mechanical:literal, $what:literal, $why:literal, $fix:literal;)+) => {
        /// What the validator looks for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = $what] $name,)+
        }

        impl Rule {
            /// Every rule, in the order of the reference.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in reports.
            pub fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)+ }
            }

            /// How bad it is, where the target does not say otherwise ([`super::Target::severity`]).
            pub fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)+ }
            }

            /// Whether `--fix` can repair it without a decision.
            pub fn mechanical(self) -> bool {
                match self { $(Self::$name => $mechanical,)+ }
            }

            /// What is wrong.
            pub fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)+ }
            }

            /// Why it matters.
            pub fn why(self) -> &'static str {
                match self { $(Self::$name => $why,)+ }
            }

            /// What to do.
            pub fn fix(self) -> &'static str {
                match self { $(Self::$name => $fix,)+ }
            }
        }
    };
}

rules! {
    EmptyFile, "empty-file", Error, false, "the file has no rows", "there is nothing to train on", "write one JSON object in each line";
    Utf16, "utf-16", Error, false, "the file is UTF-16", "targets read UTF-8 only", "save it as UTF-8";
    Bom, "bom", Error, true, "the file begins with a byte order mark", "the first line is no JSON to the target's parser", "save it as UTF-8 without BOM";
    BomMissing, "bom-missing", Warning, true, "the file has no byte order mark", "Azure documents UTF-8 with BOM", "save it as UTF-8 with BOM";
    FileTooLarge, "file-too-large", Warning, false, "the file is larger than a single upload may be", "the upload is refused", "upload it in parts (`/v1/uploads`), or take rows out";
    JsonArray, "json-array", Error, false, "the file is one JSON array", "a training file has one row in each line", "write each element of the array into its own line";
    TooFewRows, "too-few-rows", Error, false, "there are fewer rows than the target takes", "the job fails after the upload", "add rows; 50 to 100 consistent ones are where gains begin";
    MixedShapes, "mixed-shapes", Error, false, "the row has another shape than the first one", "the target decides by the first row how to read the file", "use one shape for all rows";
    MethodUnsupported, "method-unsupported", Error, false, "the target does not train by this method", "the job cannot be created", "choose another target or method";
    BlankLine, "blank-line", Error, true, "a line without a row", "each line must be a JSON object; one bad line fails the whole job", "remove the line";
    BlankLineAtEnd, "blank-line-at-end", Warning, true, "blank lines behind the last row", "some parsers stumble over them", "remove them";
    LineTooLong, "line-too-long", Error, false, "the line is longer than what is checked", "nothing else about it was checked", "shorten the row, or raise the limit";
    Utf8, "utf-8", Error, false, "bytes that are not UTF-8", "the target refuses the file", "save the file as UTF-8; look at the text at this place, it may be damaged";

    JsonSyntax, "json-syntax", Error, false, "the line is no JSON", "one bad line fails the whole job", "correct the line";
    JsonUnclosed, "json-unclosed", Error, false, "the row is cut off, or goes on in the next line", "each line must be a whole JSON object", "write the row into one line, and close its quotation marks and brackets";
    JsonTrailingComma, "json-trailing-comma", Error, true, "a comma behind the last element", "JSON does not allow it", "remove the comma";
    JsonMissingComma, "json-missing-comma", Error, false, "a comma is missing, or a quotation mark inside a text is not escaped", "JSON does not allow it", "put a comma between the elements, or a backslash before the quotation mark";
    JsonMissingColon, "json-missing-colon", Error, false, "a key without a colon", "JSON does not allow it", "write \"key\": value";
    JsonSingleQuotes, "json-single-quotes", Error, false, "single quotation marks", "JSON knows double ones only; this is how Python prints a dict", "write the file with json.dumps, not with str or print";
    JsonUnquotedKey, "json-unquoted-key", Error, false, "a key without quotation marks", "JSON does not allow it", "put the key into double quotation marks";
    JsonPythonLiteral, "json-python-literal", Error, true, "None, True or False", "JSON writes null, true and false", "write the file with json.dumps";
    JsonNan, "json-nan", Error, false, "NaN, Infinity or undefined", "JSON has no such value", "leave the key out, or write null";
    JsonControlCharacter, "json-control-character", Error, true, "a control character inside a text", "tabs and line ends must be escaped in JSON", "write \\t, \\n or \\u00XX";
    JsonEscape, "json-escape", Error, false, "a backslash that begins no known escape", "JSON knows \\\" \\\\ \\/ \\b \\f \\n \\r \\t and \\uXXXX", "write the backslash twice";
    JsonSurrogate, "json-surrogate", Error, false, "half of a surrogate pair", "it stands for no character; the text was cut inside an emoji", "write both halves, or the character itself";
    JsonNumber, "json-number", Error, false, "a number that JSON does not know", "JSON does not allow it", "write it as 12, -0.5 or 1e6";
    JsonComment, "json-comment", Error, false, "a comment", "JSON has none", "remove it";
    JsonTwoValues, "json-two-values", Error, true, "two rows in one line", "each line must be one JSON object", "put a line end between them";
    JsonTrailingCharacters, "json-trailing-characters", Error, true, "something follows the row", "each line must be one JSON object and nothing else", "remove what follows; `--fix` removes a comma only";
    JsonDepth, "json-depth", Error, false, "objects or lists inside each other deeper than 200 levels", "parsers give up", "flatten the value";
    DuplicateKey, "duplicate-key", Error, false, "a key stands twice in one object", "parsers keep one of the two values, and the other text is lost", "keep one of them";

    RowNotObject, "row-not-object", Error, false, "the row is no JSON object", "a row is {\"messages\": [...]}", "wrap it";
    OtherFormat, "other-format", Error, false, "the row has another tool's shape", "the target does not read it", "convert the file with `groundtone dataset export`";
    WrongMethod, "wrong-method", Error, false, "the row belongs to another training method", "the job fails", "choose the method with --method, or another file";
    UnknownKey, "unknown-key", Warning, false, "a key of the row that the target does not know", "targets ignore it or refuse the file", "remove it, or correct its name";
    MessagesMissing, "messages-missing", Error, false, "the row has no messages", "a row is {\"messages\": [...]}", "add them";
    MessagesType, "messages-type", Error, false, "the messages are no list", "a row is {\"messages\": [...]}", "write a list of objects";
    MessagesEmpty, "messages-empty", Error, false, "the list of messages is empty", "there is nothing to learn", "add messages, or remove the row";
    MessageType, "message-type", Error, false, "a message is no object", "a message is {\"role\": ..., \"content\": ...}", "write an object";
    MessageUnknownKey, "message-unknown-key", Error, false, "a key of a message that nobody knows", "the target refuses the message, or ignores what was meant", "remove it, or correct its name";
    MessageLeftover, "message-leftover", Warning, false, "a key that only a server's reply has", "targets ignore it or refuse the file", "remove it";

    RoleMissing, "role-missing", Error, false, "a message without a role", "the target cannot tell who speaks", "add \"role\"";
    RoleType, "role-type", Error, false, "the role is no text", "the target cannot tell who speaks", "write one of system, developer, user, assistant, tool";
    RoleUnknown, "role-unknown", Error, true, "a role that nobody knows", "the target refuses the message", "write one of system, developer, user, assistant, tool; `--fix` knows human, gpt, bot and the like";
    RoleUnsupported, "role-unsupported", Error, false, "a role that this target does not know", "the target refuses the message", "use a role that it knows (developer is system elsewhere)";
    ContentMissing, "content-missing", Error, false, "a message without content", "the target refuses the message", "add \"content\"";
    ContentNull, "content-null", Error, false, "the content is null", "only an assistant's message with a tool call may have none", "write the text";
    ContentType, "content-type", Error, false, "the content is neither a text nor a list of parts", "the target refuses the message", "write a text";
    ContentBlank, "content-blank", Warning, false, "the content is blank", "the model learns from an empty message", "write the text, or remove the message";
    ContentPartsEmpty, "content-parts-empty", Error, false, "the list of content parts is empty", "the target refuses the message", "write the text";
    AssistantEmpty, "assistant-empty", Error, false, "the assistant says nothing", "it needs one of content, tool_calls, function_call and refusal", "write the reply";
    PartType, "part-type", Error, false, "a content part that is no object, or of an unknown type", "the target refuses the message", "write {\"type\": \"text\", \"text\": ...}";
    PartRole, "part-role", Error, false, "a content part that this role may not have", "pictures, sound and files are the user's, refusals the assistant's", "move it, or remove it";
    PartText, "part-text", Error, false, "a text part without its text", "the target refuses the message", "write {\"type\": \"text\", \"text\": ...}";
    ImageUrl, "image-url", Error, false, "a picture without a usable address", "the target cannot fetch it", "write {\"type\": \"image_url\", \"image_url\": {\"url\": \"https://...\"}}, or a data URL of a JPEG, PNG or WEBP";
    ImageDetail, "image-detail", Error, false, "an unknown detail of a picture", "the target refuses the message", "write auto, low or high";
    TooManyImages, "too-many-images", Warning, false, "more than 10 pictures in a row", "OpenAI documents 10 as the limit of a training row", "take pictures out";
    NameType, "name-type", Error, false, "a name that is no text", "the target refuses the message", "write a text";
    NameFormat, "name-format", Warning, false, "a name with other characters than letters, digits, _ and -, or longer than 64", "targets refuse it or change it", "write up to 64 letters, digits, _ and -";
    RefusalType, "refusal-type", Error, false, "a refusal that is no text", "the target refuses the message", "write a text";

    WeightValue, "weight-value", Error, true, "a weight that is neither 0 nor 1", "the target refuses the file", "write 0 (read only) or 1 (learn)";
    WeightRole, "weight-role", Error, true, "a weight on a message that is not the assistant's", "only the assistant's messages are learned; the target refuses the file", "remove it";
    WeightUnsupported, "weight-unsupported", Error, true, "a weight, which this target does not know", "it is ignored: every reply is learned", "remove it; a reply of weight 0 must become part of the prompt (`--fix` removes weights of 1 only)";
    NoAssistant, "no-assistant", Error, false, "no message of the assistant", "there is nothing to learn", "add the right answer as the last message";
    NoLearnedReply, "no-learned-reply", Error, false, "every reply has weight 0", "there is nothing to learn", "give at least one reply weight 1";
    LastNotAssistant, "last-not-assistant", Error, false, "the last message is not the assistant's", "the last message is the answer to learn", "add the answer, or remove what follows it";
    NoUser, "no-user", Warning, false, "no message of the user", "the model learns to speak unasked", "add the question";
    FirstRole, "first-role", Error, false, "the conversation begins with the wrong role", "the target wants a system or user message first", "begin with one of them";
    Alternation, "alternation", Error, false, "two turns of the same side follow each other", "the target wants user and assistant in turn", "join the two messages, or put the missing one between them";
    SystemLate, "system-late", Error, false, "a system message behind the beginning", "the target wants it first", "move it to the beginning";
    RowTooLong, "row-too-long", Warning, false, "the row has more tokens than are read", "its tail is cut off, which is where the answer stands", "shorten it: fewer snippets, fewer turns";
    ReplyCutOff, "reply-cut-off", Error, false, "the last reply begins behind the token limit", "all of it is cut off: the row teaches nothing", "shorten what stands before it";

    ToolCallsType, "tool-calls-type", Error, false, "tool_calls is no list, or an empty one", "the target refuses the message", "write a list of calls, or leave the key out";
    ToolCallsNull, "tool-calls-null", Warning, true, "a call key that is null", "targets that check the schema refuse it", "leave the key out";
    ToolCallsRole, "tool-calls-role", Error, false, "a call in a message that is not the assistant's", "only the assistant calls tools", "move it";
    ToolCallShape, "tool-call-shape", Error, false, "a call that is not {\"id\", \"type\": \"function\", \"function\": {\"name\", \"arguments\"}}", "the target refuses the message", "write all of them";
    ToolCallArguments, "tool-call-arguments", Error, true, "arguments that are no text", "arguments are JSON written as a text", "write them as a text: json.dumps(arguments)";
    ToolCallArgumentsJson, "tool-call-arguments-json", Warning, false, "arguments that are no JSON object", "the model learns to call with what nobody can read", "write a JSON object as a text";
    ToolCallIdFormat, "tool-call-id-format", Error, false, "an id that is not nine letters and digits", "Mistral wants exactly that", "number the calls with nine characters";
    ToolCallIdDuplicate, "tool-call-id-duplicate", Warning, false, "two calls of one message have the same id", "answers cannot be told apart", "give each call its own id";
    ToolUndeclared, "tool-undeclared", Warning, false, "a call of a function that the row does not declare", "the model learns to call what it was not shown", "add it to tools";
    ToolCallIdMissing, "tool-call-id-missing", Error, false, "a tool's message without tool_call_id", "the target cannot tell which call it answers", "add the id of the call";
    ToolCallIdUnknown, "tool-call-id-unknown", Error, false, "a tool's message that answers no call before it", "the target refuses the row", "correct the id, or add the call";
    ToolAnswerMissing, "tool-answer-missing", Error, false, "a call without its answer before the conversation goes on", "the target refuses the row", "add a tool message for each call";
    FunctionName, "function-name", Error, false, "a function's message without its name", "the target refuses the message", "add \"name\"";
    FunctionCallShape, "function-call-shape", Error, false, "function_call is not {\"name\", \"arguments\"}", "the target refuses the message", "write both as texts";
    ToolsType, "tools-type", Error, false, "tools or functions is no list of 1 to 128", "the target refuses the row", "write a list, or leave the key out";
    ToolShape, "tool-shape", Error, false, "a tool that is not {\"type\": \"function\", \"function\": {\"name\": ...}}", "the target refuses the row", "write all of them";
    ToolName, "tool-name", Error, false, "a function's name with other characters than letters, digits, _ and -, or longer than 64", "the target refuses the row", "write up to 64 letters, digits, _ and -";
    ToolParameters, "tool-parameters", Error, false, "parameters that are no JSON schema object", "the target refuses the row", "write {\"type\": \"object\", \"properties\": {...}}";
    ToolDuplicate, "tool-duplicate", Warning, false, "two tools of one name", "the model cannot tell them apart", "rename one";
    ParallelType, "parallel-type", Error, false, "parallel_tool_calls is neither true nor false", "the target refuses the row", "write true or false";

    PromptType, "prompt-type", Error, false, "prompt, completion or text is no text", "the target refuses the row", "write a text";
    PromptMissing, "prompt-missing", Error, false, "prompt or completion is missing or blank", "there is nothing to learn", "write both";

    InputMissing, "input-missing", Error, false, "a preference row without its input", "a row is {\"input\": {\"messages\": ...}, \"preferred_output\": ..., \"non_preferred_output\": ...}", "add it";
    InputType, "input-type", Error, false, "the input is no object", "the input is {\"messages\": [...]}", "write an object";
    InputEnds, "input-ends", Warning, false, "the input ends with the assistant", "the outputs are the assistant's next turn", "end it with the user";
    PreferredMissing, "preferred-missing", Error, false, "no preferred output", "there is nothing to prefer", "add \"preferred_output\"";
    NonPreferredMissing, "non-preferred-missing", Error, false, "no non-preferred output", "there is nothing to prefer it to", "add \"non_preferred_output\"";
    OutputTwice, "output-twice", Error, false, "an output in both spellings", "nobody knows which one counts", "keep preferred_output and non_preferred_output";
    OutputType, "output-type", Error, false, "an output that is no list of exactly one message", "the target refuses the row", "write [{\"role\": \"assistant\", \"content\": ...}]";
    OutputRole, "output-role", Error, false, "an output that is not the assistant's", "only the assistant's messages are compared", "write role assistant";
    OutputsEqual, "outputs-equal", Error, false, "both outputs are the same", "there is nothing to prefer", "remove the row";
}

/// The rules as a page of Markdown: `docs/reference/dataset-rules.md`.
pub fn rule_table() -> String {
    let mut page = String::from(
        "# Rules of training files\n\nWhat `groundtone dataset validate` looks for; this page is what `groundtone dataset validate --rules` prints. \
         An error is what the target refuses or what teaches nothing; a warning is what it takes.\n\n\
         | rule | | wrong | why it matters | what to do | `--fix` |\n|---|---|---|---|---|---|\n",
    );
    for rule in Rule::ALL {
        let severity = match rule.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let cell = |text: &str| text.replace('|', "\\|");
        let fixed = if rule.mechanical() { "yes" } else { "" };
        page.push_str(&format!(
            "| `{}` | {severity} | {} | {} | {} | {fixed} |\n",
            rule.id(),
            cell(rule.what()),
            cell(rule.why()),
            cell(rule.fix())
        ));
    }
    page.push_str(
        "\n`message-unknown-key` is a warning for together, fireworks and trl, `role-unsupported` for trl. Least rows: 10 for openai and azure, 3 for fireworks, 1 elsewhere. \
         Token limit without `--max-tokens`: 65,536 for openai and azure, none elsewhere.\n",
    );
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_page_is_this_table() {
        assert_eq!(
            include_str!("../../../docs/reference/dataset-rules.md"),
            rule_table(),
            "`groundtone dataset validate --rules` prints the page"
        );
    }

    #[test]
    fn every_rule_has_a_name_of_its_own_and_says_everything() {
        let mut ids: Vec<&str> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Rule::ALL.len());
        assert!(Rule::ALL.iter().all(|rule| !rule.what().is_empty() && !rule.why().is_empty() && !rule.fix().is_empty()));
    }
}
