use std::io::BufRead;

/// A line without its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Text(Vec<u8>),
    TooLong,
}

/// Lines of at most so many bytes; a longer one is read over without being kept.
pub(super) struct Lines<R> {
    source: R,
    max_bytes: usize,
    number: u64,
    bytes: u64,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(source: R, max_bytes: usize) -> Self {
        Self { source, max_bytes, number: 0, bytes: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// The next line and its number, from 1.
    pub(super) fn next(&mut self) -> std::io::Result<Option<(u64, Line)>> {
        let (mut text, mut too_long, mut any) = (Vec::new(), false, false);
        loop {
            let buffer = self.source.fill_buf()?;
            if buffer.is_empty() {
                break;
            }
            any = true;
            let (part, used, ends) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(at) => (&buffer[..at], at + 1, true),
                None => (buffer, buffer.len(), false),
            };
            if text.len() + part.len() > self.max_bytes {
                too_long = true;
                text = Vec::new();
            } else if !too_long {
                text.extend_from_slice(part);
            }
            self.source.consume(used);
            self.bytes += used as u64;
            if ends {
                break;
            }
        }
        if !any {
            return Ok(None);
        }
        self.number += 1;
        if text.last() == Some(&b'\r') {
            text.pop();
        }
        Ok(Some((self.number, if too_long { Line::TooLong } else { Line::Text(text) })))
    }
}
