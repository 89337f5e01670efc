//! Repairs that need no decision, written into a new file. What cannot be repaired is copied as it is: nothing is lost.

use super::blocks::{Block, Blocks, lines, without_end};
use super::check::{Checker, Edit};
use super::{BOM, Options, Rule};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{Read, Write};

/// Rounds for one line: a parser finds one error of syntax at a time.
const ROUNDS: usize = 1_000;

/// What was repaired.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Fixed {
    /// Lines of the new file.
    pub lines: u64,
    /// Repairs by rule.
    pub repaired: BTreeMap<&'static str, u64>,
}

impl Fixed {
    fn count(&mut self, rule: Rule) {
        *self.repaired.entry(rule.id()).or_default() += 1;
    }
}

/// Applies edits from behind; of two that overlap the later one waits for the next round. Returns the rules that were applied.
fn apply(line: &mut Vec<u8>, mut edits: Vec<(Rule, Edit)>) -> Vec<Rule> {
    edits.sort_by_key(|(_, edit)| edit.range.start);
    let (mut end, mut kept) = (0, Vec::new());
    for (rule, edit) in edits {
        if edit.range.start >= end {
            end = edit.range.end.max(edit.range.start + 1);
            kept.push((rule, edit));
        }
    }
    for (_, edit) in kept.iter().rev() {
        line.splice(edit.range.clone(), edit.text.bytes());
    }
    kept.into_iter().map(|(rule, _)| rule).collect()
}

/// Repairs one line; several where two rows stood in it.
fn repair(line: &[u8], options: &Options, fixed: &mut Fixed) -> Vec<u8> {
    let mut text = line.to_vec();
    for _ in 0..ROUNDS {
        let mut edits = Vec::new();
        let mut at = 0;
        for part in lines(&text) {
            let mut checker = Checker::new(options);
            checker.edits = Some(Vec::new());
            checker.check(1, without_end(part));
            let found = checker.edits.take().unwrap_or_default();
            edits.extend(found.into_iter().map(|(rule, edit)| (rule, Edit { range: edit.range.start + at..edit.range.end + at, ..edit })));
            at += part.len();
        }
        if edits.is_empty() {
            break;
        }
        apply(&mut text, edits).into_iter().for_each(|rule| fixed.count(rule));
    }
    text
}

/// Writes the file with its mechanical problems repaired ([`Rule::mechanical`]); every other byte is as it was.
pub fn fix(source: impl Read, mut out: impl Write, options: &Options) -> std::io::Result<Fixed> {
    let mut fixed = Fixed::default();
    let mut blocks = Blocks::new(source, options.max_line_bytes);
    let (mut first, mut buffer) = (true, Vec::new());
    loop {
        let mut long = 0u64;
        let block = {
            let out = &mut out;
            let long = &mut long;
            blocks.next(std::mem::take(&mut buffer), &mut |piece| {
                *long = 1;
                out.write_all(piece)
            })?
        };
        fixed.lines += long;
        let Some(block) = block else { break };
        let Block::Lines(bytes) = block else {
            first = false;
            continue;
        };
        let mut rest = bytes.as_slice();
        if std::mem::take(&mut first) {
            if rest.starts_with(b"\xff\xfe") || rest.starts_with(b"\xfe\xff") {
                out.write_all(rest)?;
                std::io::copy(&mut blocks.into_source(), &mut out)?;
                return Ok(fixed);
            }
            let has_bom = rest.starts_with(BOM);
            rest = rest.strip_prefix(BOM).unwrap_or(rest);
            match (has_bom, options.target.wants_bom()) {
                (true, false) => fixed.count(Rule::Bom),
                (has, true) => {
                    out.write_all(BOM)?;
                    if !has {
                        fixed.count(Rule::BomMissing);
                    }
                }
                (false, false) => {}
            }
        }
        for line in lines(rest) {
            let text = without_end(line);
            if text.iter().all(u8::is_ascii_whitespace) {
                fixed.count(Rule::BlankLine);
                continue;
            }
            let text_end = text.len();
            let repaired = repair(text, options, &mut fixed);
            fixed.lines += 1 + repaired.iter().filter(|byte| **byte == b'\n').count() as u64;
            out.write_all(&repaired)?;
            out.write_all(if text_end == line.len() { b"\n" } else { &line[text_end..] })?;
        }
        buffer = bytes;
    }
    out.flush()?;
    Ok(fixed)
}
