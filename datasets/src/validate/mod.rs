//! A training file checked before anybody pays for it: every problem with its line and column, why it matters and what to do.
//!
//! The file is read once, in blocks of whole lines that several threads check; memory does not grow with it. Rules are in [`Rule`], what targets differ in
//! is in [`Target`]. The reference is OpenAI's schema of training rows (openai-openapi, 2025-03-21) and the documentation of the other targets.

mod blocks;
mod check;
mod conversation;
mod fix;
mod json;
mod message;
mod row;
mod rules;
mod target;
mod tools;

pub use check::Problem;
pub use fix::{Fixed, fix};
pub use rules::{Rule, Severity, rule_table};
pub use target::{Method, Target};

use blocks::{Block, Blocks, lines, without_end};
use check::Checker;
use groundtone_prompt::{CountTokens, OpenAiTokens};
use row::Shape;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Read;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How long a block may take before somebody looks whether its thread still lives.
const PATIENCE: Duration = Duration::from_secs(5);
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What to check for.
#[derive(Clone)]
pub struct Options {
    /// Who is to train on the file.
    pub target: Target,
    /// How.
    pub method: Method,
    /// Tokens of a row that are read; the target's own limit where not given.
    pub max_tokens: Option<usize>,
    /// Longest line that is checked, in bytes. Memory is a few times this.
    pub max_line_bytes: usize,
    /// Problems that are listed; all are counted.
    pub max_problems: usize,
    /// Threads that check; as many as the machine has cores where 0.
    pub threads: usize,
    /// What counts tokens.
    pub tokens: Arc<dyn CountTokens>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            target: Target::default(),
            method: Method::default(),
            max_tokens: None,
            max_line_bytes: 8 << 20,
            max_problems: 1_000,
            threads: 0,
            tokens: Arc::new(Gpt41::default()),
        }
    }
}

/// The tokenizer of today's OpenAI models, read when the first row is long enough to be counted: it takes more memory than everything else here.
struct Gpt41(LazyLock<Arc<OpenAiTokens>>);

impl Default for Gpt41 {
    fn default() -> Self {
        Self(LazyLock::new(|| OpenAiTokens::for_model("gpt-4.1")))
    }
}

impl CountTokens for Gpt41 {
    fn id(&self) -> &str {
        self.0.id()
    }

    fn token_starts(&self, text: &str) -> Vec<u32> {
        self.0.token_starts(text)
    }

    fn count(&self, text: &str) -> usize {
        self.0.count(text)
    }
}

impl Options {
    fn max_tokens(&self) -> Option<usize> {
        self.max_tokens.or_else(|| self.target.max_tokens())
    }
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// For whom it was checked.
    pub target: Target,
    /// For which method.
    pub method: Method,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its lines.
    pub lines: u64,
    /// Lines that hold a row, well-formed or not.
    pub rows: u64,
    /// Problems that make the target refuse the file.
    pub errors: u64,
    /// Problems that it takes.
    pub warnings: u64,
    /// Problems by rule.
    pub counts: BTreeMap<&'static str, u64>,
    /// The first ones, in the file's order.
    pub problems: Vec<Problem>,
    /// Problems that are counted and not listed.
    pub unlisted: u64,
}

impl Report {
    /// Whether the target would take the file.
    pub fn is_valid(&self) -> bool {
        self.errors == 0
    }
}

/// What one block came to.
#[derive(Default)]
struct Outcome {
    lines: u64,
    rows: u64,
    problems: Vec<Problem>,
    counts: Vec<u64>,
    /// The first row of each shape, with its line in the block.
    shapes: Vec<(Shape, u64)>,
    /// Blank lines behind the block's last row.
    blank_at_end: u64,
    buffer: Vec<u8>,
}

fn outcome(options: &Options, block: Block) -> Outcome {
    let mut checker = Checker::new(options);
    let mut outcome = Outcome::default();
    match block {
        Block::TooLong(length) => {
            (outcome.lines, outcome.rows) = (1, 1);
            checker.note(Rule::LineTooLong, 1, 1, || format!("{length} bytes; rows of up to {} are checked", options.max_line_bytes));
        }
        Block::Lines(bytes) => {
            for line in lines(&bytes) {
                outcome.lines += 1;
                let line = without_end(line);
                if line.iter().all(u8::is_ascii_whitespace) {
                    outcome.blank_at_end += 1;
                    checker.note(Rule::BlankLine, outcome.lines, 1, || "the line is blank".to_owned());
                    continue;
                }
                outcome.rows += 1;
                outcome.blank_at_end = 0;
                if let Some(shape) = checker.check(outcome.lines, line)
                    && outcome.shapes.iter().all(|(known, _)| *known != shape)
                {
                    outcome.shapes.push((shape, outcome.lines));
                }
            }
            outcome.buffer = bytes;
        }
    }
    outcome.problems = checker.problems;
    outcome.counts = checker.counts;
    outcome
}

/// Puts outcomes together, in the file's order.
struct Merge<'o> {
    options: &'o Options,
    report: Report,
    counts: Vec<u64>,
    shape: Option<Shape>,
    mixed: bool,
    blank_at_end: u64,
}

impl<'o> Merge<'o> {
    fn new(options: &'o Options) -> Self {
        let report = Report {
            target: options.target,
            method: options.method,
            bytes: 0,
            lines: 0,
            rows: 0,
            errors: 0,
            warnings: 0,
            counts: BTreeMap::new(),
            problems: Vec::new(),
            unlisted: 0,
        };
        Self { options, report, counts: vec![0; Rule::ALL.len()], shape: None, mixed: false, blank_at_end: 0 }
    }

    fn note(&mut self, rule: Rule, line: u64, message: String) {
        self.counts[rule as usize] += 1;
        let severity = self.options.target.severity(rule);
        let problem = Problem { line, column: 1, rule: rule.id(), severity, message, why: rule.why(), fix: rule.fix() };
        let at = self.report.problems.partition_point(|known| known.line < line);
        self.report.problems.insert(at, problem);
        self.report.problems.truncate(self.options.max_problems);
    }

    fn add(&mut self, outcome: Outcome) {
        let before = self.report.lines;
        self.report.lines += outcome.lines;
        self.report.rows += outcome.rows;
        self.blank_at_end = if outcome.rows == 0 { self.blank_at_end + outcome.blank_at_end } else { outcome.blank_at_end };
        self.counts.iter_mut().zip(outcome.counts).for_each(|(all, count)| *all += count);
        let room = self.options.max_problems - self.report.problems.len();
        self.report
            .problems
            .extend(outcome.problems.into_iter().take(room).map(|problem| Problem { line: problem.line + before, ..problem }));
        for (shape, line) in outcome.shapes {
            let first = *self.shape.get_or_insert(shape);
            if first != shape && !self.mixed {
                self.mixed = true;
                self.note(
                    Rule::MixedShapes,
                    before + line,
                    format!("the row has {}; the rows before it have {}", shape.name(), first.name()),
                );
            }
        }
    }

    /// Blank lines at the end are another matter than those between rows.
    fn part_blank_lines(&mut self) {
        let from = self.report.lines - self.blank_at_end;
        let rule = Rule::BlankLineAtEnd;
        self.counts[Rule::BlankLine as usize] -= self.blank_at_end;
        self.counts[rule as usize] += self.blank_at_end;
        for problem in self.report.problems.iter_mut().filter(|problem| problem.line > from && problem.rule == Rule::BlankLine.id()) {
            (problem.rule, problem.severity, problem.why, problem.fix) =
                (rule.id(), self.options.target.severity(rule), rule.why(), rule.fix());
        }
    }

    fn finish(mut self, bytes: u64, whole: bool) -> Report {
        self.report.bytes = bytes;
        let target = self.options.target;
        if whole {
            if self.report.rows > 0 {
                self.part_blank_lines();
            }
            let (rows, least) = (self.report.rows, target.minimum_rows());
            if rows == 0 {
                self.note(Rule::EmptyFile, 1, "the file has no rows".to_owned());
            } else if rows < least {
                self.note(Rule::TooFewRows, 1, format!("{rows} rows; {} takes {least} or more", target.as_str()));
            }
        }
        if let Some(most) = target.max_bytes().filter(|most| bytes > *most) {
            self.note(Rule::FileTooLarge, 1, format!("{bytes} bytes; one upload takes {most}"));
        }
        let mut report = self.report;
        for rule in Rule::ALL {
            let count = self.counts[*rule as usize];
            if count == 0 {
                continue;
            }
            report.counts.insert(rule.id(), count);
            match target.severity(*rule) {
                Severity::Error => report.errors += count,
                Severity::Warning => report.warnings += count,
            }
        }
        report.unlisted = report.errors + report.warnings - report.problems.len() as u64;
        report
    }
}

/// Counts what passes.
struct Counted<R> {
    source: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.source.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

/// What the beginning of a file says about all of it.
enum Beginning {
    Rows { bom: bool },
    Utf16,
    Array,
}

fn beginning(first: &[u8]) -> Beginning {
    if first.starts_with(b"\xff\xfe") || first.starts_with(b"\xfe\xff") {
        return Beginning::Utf16;
    }
    let text = first.strip_prefix(BOM);
    match text.unwrap_or(first).iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Beginning::Array,
        _ => Beginning::Rows { bom: text.is_some() },
    }
}

/// Checks a training file. Errors are those of reading; whatever is wrong with the file is in the report.
///
/// Blocking: from asynchronous code, call it on a thread for blocking work.
pub fn validate(source: impl Read, options: &Options) -> std::io::Result<Report> {
    let mut counted = Counted { source, bytes: 0 };
    let mut merge = Merge::new(options);
    let mut blocks = Blocks::new(&mut counted, options.max_line_bytes);
    let first = blocks.next(Vec::new(), &mut |_| Ok(()))?;
    if !options.target.knows(options.method) {
        merge.note(Rule::MethodUnsupported, 1, format!("{} does not train by {}", options.target.as_str(), options.method.as_str()));
    }
    let Some(mut first) = first else {
        return Ok(merge.finish(0, true));
    };
    if let Block::Lines(bytes) = &mut first {
        match beginning(bytes) {
            Beginning::Rows { bom } => {
                if bom {
                    bytes.drain(..BOM.len());
                }
                match (bom, options.target.wants_bom()) {
                    (true, false) => merge.note(Rule::Bom, 1, "the file begins with EF BB BF".to_owned()),
                    (false, true) => merge.note(Rule::BomMissing, 1, "the file does not begin with EF BB BF".to_owned()),
                    _ => {}
                }
            }
            Beginning::Utf16 => {
                merge.note(Rule::Utf16, 1, "the file begins with the mark of UTF-16; nothing else was checked".to_owned());
                return Ok(merge.finish(std::io::copy(&mut counted, &mut std::io::sink()).map(|_| counted.bytes)?, false));
            }
            Beginning::Array => {
                merge.note(Rule::JsonArray, 1, "the file begins with `[`; nothing else was checked".to_owned());
                return Ok(merge.finish(std::io::copy(&mut counted, &mut std::io::sink()).map(|_| counted.bytes)?, false));
            }
        }
    }
    check_blocks(first, &mut blocks, &mut merge)?;
    Ok(merge.finish(counted.bytes, true))
}

/// Checks the blocks on several threads, and merges what they find in order. Small files are checked on this one.
fn check_blocks<R: Read>(first: Block, blocks: &mut Blocks<R>, merge: &mut Merge<'_>) -> std::io::Result<()> {
    let options = merge.options;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = if options.threads == 0 { cores } else { options.threads };
    let Some(second) = blocks.next(Vec::new(), &mut |_| Ok(()))? else {
        merge.add(outcome(options, first));
        return Ok(());
    };
    std::thread::scope(|scope| {
        let (results, finished) = channel::<(u64, Outcome)>();
        let (workers, handles): (Vec<Sender<(u64, Block)>>, Vec<_>) = (0..threads)
            .map(|_| {
                let (work, todo) = channel::<(u64, Block)>();
                let results = results.clone();
                let handle = scope.spawn(move || {
                    for (number, block) in todo {
                        if results.send((number, outcome(options, block))).is_err() {
                            return;
                        }
                    }
                });
                (work, handle)
            })
            .unzip();
        drop(results);
        // At most two blocks for each thread are in memory: one that it checks, one that waits.
        let most = threads as u64 * 2;
        let (mut sent, mut merged, mut waiting, mut buffers) = (0u64, 0u64, BTreeMap::new(), Vec::new());
        let mut next = Some(first);
        let mut ahead = Some(second);
        loop {
            while let Some(block) = next.take_if(|_| sent - merged < most) {
                if workers[(sent % threads as u64) as usize].send((sent, block)).is_err() {
                    return Ok(());
                }
                sent += 1;
                next = match ahead.take() {
                    Some(block) => Some(block),
                    None => blocks.next(buffers.pop().unwrap_or_default(), &mut |_| Ok(()))?,
                };
            }
            if sent == merged {
                return Ok(());
            }
            let (number, outcome) = match finished.recv_timeout(PATIENCE) {
                Ok(outcome) => outcome,
                // A thread that is gone has panicked; the scope says so when it ends.
                Err(_) if handles.iter().any(|handle| handle.is_finished()) => return Ok(()),
                Err(_) => continue,
            };
            waiting.insert(number, outcome);
            while let Some(mut outcome) = waiting.remove(&merged) {
                buffers.push(std::mem::take(&mut outcome.buffer));
                merge.add(outcome);
                merged += 1;
            }
        }
    })
}

#[cfg(test)]
mod tests;
