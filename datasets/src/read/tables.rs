use super::columns::{Field, documents};
use super::lines::{Line, Lines};
use super::shapes::finish;
use super::{ReadOptions, Record};
use crate::{Error, Example};
use std::io::BufRead;

/// A CSV file (RFC 4180) with a header, cut into records line by line, so that a quote that is never closed costs its own record and not the rest of the file.
pub(super) struct Table<R> {
    lines: Lines<R>,
    delimiter: u8,
    width: usize,
    places: Places,
    /// Lines that a record with an open quote had taken; they are records of their own.
    again: std::collections::VecDeque<(u64, Line)>,
}

/// Which column holds what.
struct Places {
    question: usize,
    answer: usize,
    id: Option<usize>,
    documents: Option<usize>,
    label: Option<usize>,
    group: Option<usize>,
}

/// Most lines that one record may have: an open quote is noticed before it has eaten a large file.
const MOST_LINES: usize = 1000;

impl<R: BufRead> Table<R> {
    pub(super) fn open(mut lines: Lines<R>, options: &ReadOptions) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Header { path: "the table".into(), reason };
        let header = loop {
            match lines.next().map_err(|error| wrong(error.to_string()))? {
                Some((_, Line::Text(text))) if text.iter().all(u8::is_ascii_whitespace) => {}
                Some((_, Line::Text(text))) => break text,
                Some((_, Line::TooLong)) => return Err(wrong("its header line is too long".to_owned())),
                None => return Err(wrong("it is empty".to_owned())),
            }
        };
        let count = |delimiter: u8| header.iter().filter(|byte| **byte == delimiter).count();
        let delimiter = [b',', b'\t', b';'].into_iter().max_by_key(|delimiter| (count(*delimiter), *delimiter == b',')).unwrap_or(b',');
        let names = cells(&header, delimiter).map_err(wrong)?;
        let there: Vec<&str> = names.iter().map(|name| name.trim()).collect();
        let place = |field: Field| match options.columns.find(field, &there) {
            None => Ok(None),
            Some(name) => match there.iter().position(|column| column.eq_ignore_ascii_case(name)) {
                Some(at) => Ok(Some(at)),
                None => Err(wrong(format!("there is no column `{name}`; there are: {}", there.join(", ")))),
            },
        };
        let need = |field: Field, what: &str| {
            place(field)?.ok_or_else(|| wrong(format!("no column is named like {what}; name one of: {}", there.join(", "))))
        };
        let places = Places {
            question: need(Field::Question, "a question")?,
            answer: need(Field::Answer, "an answer")?,
            id: place(Field::Id)?,
            documents: place(Field::Documents)?,
            label: place(Field::Label)?,
            group: place(Field::Group)?,
        };
        if places.question == places.answer {
            return Err(wrong(format!("column `{}` cannot be both question and answer", there[places.question])));
        }
        Ok(Self { lines, delimiter, width: names.len(), places, again: Default::default() })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.lines.bytes()
    }

    fn line(&mut self) -> std::io::Result<Option<(u64, Line)>> {
        match self.again.pop_front() {
            Some(line) => Ok(Some(line)),
            None => self.lines.next(),
        }
    }

    pub(super) fn next(&mut self) -> std::io::Result<Option<Record>> {
        let (line, mut record) = loop {
            match self.line()? {
                None => return Ok(None),
                Some((_, Line::Text(text))) if text.iter().all(u8::is_ascii_whitespace) => {}
                Some((line, Line::Text(text))) => break (line, text),
                Some((line, Line::TooLong)) => {
                    return Ok(Some(Record { line, outcome: Err(format!("has more than {} bytes", self.lines.max_bytes())) }));
                }
            }
        };
        let mut taken = Vec::new();
        let mut open = opens_quote(&record, false, self.delimiter);
        while open {
            let next = if taken.len() < MOST_LINES { self.line()? } else { None };
            match next {
                Some((number, Line::Text(text))) if record.len() + text.len() < self.lines.max_bytes() => {
                    open = opens_quote(&text, true, self.delimiter);
                    record.push(b'\n');
                    record.extend_from_slice(&text);
                    taken.push((number, Line::Text(text)));
                }
                other => {
                    taken.extend(other);
                    for line in taken.into_iter().rev() {
                        self.again.push_front(line);
                    }
                    return Ok(Some(Record { line, outcome: Err("a quote is opened and never closed".to_owned()) }));
                }
            }
        }
        Ok(Some(Record { line, outcome: self.example(&record, line).map(|example| vec![example]) }))
    }

    fn example(&self, record: &[u8], line: u64) -> Result<Example, String> {
        let cells = cells(record, self.delimiter)?;
        if cells.len() != self.width {
            return Err(format!("has {} fields where the header has {}", cells.len(), self.width));
        }
        let cell = |at: Option<usize>| at.map(|at| cells[at].trim().to_owned()).filter(|text| !text.is_empty());
        let example = Example {
            id: cell(self.places.id).unwrap_or_else(|| format!("line-{line}")),
            question: cells[self.places.question].clone(),
            answer: cells[self.places.answer].clone(),
            documents: cell(self.places.documents).map(|text| documents(&text)).unwrap_or_default(),
            label: cell(self.places.label),
            group: cell(self.places.group),
            ..Example::default()
        };
        finish(example)
    }
}

/// Whether a quoted field is still open at the end of this line. A quote opens a field only where the field begins; anywhere else it is a letter.
fn opens_quote(line: &[u8], mut open: bool, delimiter: u8) -> bool {
    let mut begins = !open;
    let mut at = 0;
    while at < line.len() {
        let byte = line[at];
        if open {
            if byte == b'"' {
                if line.get(at + 1) == Some(&b'"') {
                    at += 1;
                } else {
                    open = false;
                }
            }
            begins = false;
        } else {
            open = begins && byte == b'"';
            begins = byte == delimiter;
        }
        at += 1;
    }
    open
}

/// The fields of one record.
fn cells(record: &[u8], delimiter: u8) -> Result<Vec<String>, String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .buffer_capacity(record.len().max(64))
        .from_reader(record);
    let mut row = csv::StringRecord::new();
    match reader.read_record(&mut row) {
        Ok(_) => Ok(row.iter().map(str::to_owned).collect()),
        Err(error) => match error.kind() {
            csv::ErrorKind::Utf8 { err, .. } => Err(format!("field {} is not UTF-8", err.field() + 1)),
            _ => Err(error.to_string()),
        },
    }
}
