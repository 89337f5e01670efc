//! What is found in a line: problems with their places, and the edits that repair the mechanical ones.

use super::Options;
use super::json::{Cursor, diagnose};
use super::row::Shape;
use super::rules::{Rule, Severity};
use serde::Serialize;
use std::ops::Range;

/// Problems of one line that are listed; all are counted.
const LISTED_IN_A_LINE: usize = 50;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where, from 1.
    pub line: u64,
    /// Where in the line, in characters from 1.
    pub column: u64,
    /// [`Rule::id`].
    pub rule: &'static str,
    /// How bad it is for this target.
    pub severity: Severity,
    /// What is wrong here.
    pub message: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do.
    pub fix: &'static str,
}

/// A replacement of bytes in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    pub(super) range: Range<usize>,
    pub(super) text: String,
}

impl Edit {
    pub(super) fn remove(range: Range<usize>) -> Self {
        Self { range, text: String::new() }
    }

    /// Removes a key with its value, and one comma.
    pub(super) fn remove_member(line: &[u8], key: usize, end: usize) -> Self {
        let blank = |byte: &u8| byte.is_ascii_whitespace();
        let behind = line[end..].iter().position(|byte| !blank(byte)).map_or(line.len(), |length| end + length);
        if line.get(behind) == Some(&b',') {
            let next = line[behind + 1..].iter().position(|byte| !blank(byte)).map_or(line.len(), |length| behind + 1 + length);
            return Self::remove(key..next);
        }
        let before = line[..key].iter().rposition(|byte| !blank(byte)).unwrap_or(key);
        Self::remove(if line.get(before) == Some(&b',') { before..end } else { key..end })
    }
}

/// Collects what is found, line after line.
pub(super) struct Checker<'o> {
    pub(super) options: &'o Options,
    pub(super) problems: Vec<Problem>,
    /// Breaches by rule, listed or not.
    pub(super) counts: Vec<u64>,
    /// Edits of the line at hand, with their rules; `None` where nobody repairs.
    pub(super) edits: Option<Vec<(Rule, Edit)>>,
}

impl<'o> Checker<'o> {
    pub(super) fn new(options: &'o Options) -> Self {
        Self { options, problems: Vec::new(), counts: vec![0; Rule::ALL.len()], edits: None }
    }

    /// Notes a problem of a line that is not looked into.
    pub(super) fn note(&mut self, rule: Rule, line: u64, column: u64, message: impl FnOnce() -> String) {
        self.counts[rule as usize] += 1;
        if self.problems.len() < self.options.max_problems {
            let (severity, why, fix) = (self.options.target.severity(rule), rule.why(), rule.fix());
            self.problems.push(Problem { line, column, rule: rule.id(), severity, message: message(), why, fix });
        }
    }

    /// Checks one line without its end. Returns the shape of its row; `None` where it has none.
    pub(super) fn check(&mut self, number: u64, bytes: &[u8]) -> Option<Shape> {
        let before = self.problems.len();
        let mut line = Line { checker: self, cursor: Cursor::new(bytes), bytes, number, listed: 0 };
        let shape = line.check();
        self.problems[before..].sort_by_key(|problem| problem.column);
        shape
    }
}

/// The line at hand.
pub(super) struct Line<'c, 'o, 'j> {
    pub(super) checker: &'c mut Checker<'o>,
    pub(super) cursor: Cursor<'j>,
    pub(super) bytes: &'j [u8],
    number: u64,
    listed: usize,
}

impl<'j> Line<'_, '_, 'j> {
    fn check(&mut self) -> Option<Shape> {
        let options = self.checker.options;
        if self.bytes.len() > options.max_line_bytes {
            let (length, most) = (self.bytes.len(), options.max_line_bytes);
            self.report(Rule::LineTooLong, 0, || format!("{length} bytes; rows of up to {most} are checked"));
            return None;
        }
        if let Err(error) = std::str::from_utf8(self.bytes) {
            let at = error.valid_up_to();
            let byte = self.bytes.get(at).copied().unwrap_or_default();
            self.report(Rule::Utf8, at, || format!("the byte 0x{byte:02x} is no UTF-8"));
            return None;
        }
        match self.row() {
            Ok(shape) => shape,
            Err(error) => {
                let syntax = diagnose(self.bytes, &error);
                if let Some(edit) = syntax.edit {
                    self.edit(syntax.rule, edit);
                }
                self.report(syntax.rule, syntax.at, || syntax.message);
                None
            }
        }
    }

    /// Notes a problem at a byte of the line. The message is only made where it is listed.
    pub(super) fn report(&mut self, rule: Rule, at: usize, message: impl FnOnce() -> String) {
        if self.listed >= LISTED_IN_A_LINE || self.checker.problems.len() >= self.checker.options.max_problems {
            self.checker.counts[rule as usize] += 1;
            return;
        }
        self.listed += 1;
        let before = &self.bytes[..at.min(self.bytes.len())];
        // Bytes that go on with a character do not count; what is no UTF-8 stands at the end of what was counted.
        let column = before.iter().filter(|byte| **byte & 0xc0 != 0x80).count() as u64 + 1;
        self.checker.note(rule, self.number, column, message);
    }

    /// Notes what would repair a problem.
    pub(super) fn edit(&mut self, rule: Rule, edit: Edit) {
        if let Some(edits) = &mut self.checker.edits {
            edits.push((rule, edit));
        }
    }

    pub(super) fn fixing(&self) -> bool {
        self.checker.edits.is_some()
    }

    pub(super) fn slice(&self, range: &Range<usize>) -> &'j [u8] {
        &self.bytes[range.clone()]
    }
}
