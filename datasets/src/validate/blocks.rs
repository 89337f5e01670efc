//! A file in blocks of whole lines, so that several threads can read it and memory does not grow with it.

use memchr::{memchr, memrchr};
use std::io::Read;

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// A piece of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block {
    /// Whole lines with their ends; the last line of a file may have none.
    Lines(Vec<u8>),
    /// One line that is longer than the limit, with its length without its end; its bytes are gone.
    TooLong(usize),
}

/// The blocks of a file.
pub(super) struct Blocks<R> {
    source: R,
    max_line_bytes: usize,
    /// What was read behind the last line end.
    carry: Vec<u8>,
    over: bool,
}

impl<R: Read> Blocks<R> {
    pub(super) fn new(source: R, max_line_bytes: usize) -> Self {
        Self { source, max_line_bytes, carry: Vec::new(), over: false }
    }

    /// The next block, in `buffer`, whose contents are thrown away. `on_long` is given the bytes of a line that is too long, piece by piece.
    pub(super) fn next(
        &mut self,
        mut buffer: Vec<u8>,
        on_long: &mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<Option<Block>> {
        buffer.clear();
        buffer.append(&mut self.carry);
        while !self.over {
            let read = self.source.by_ref().take(BLOCK as u64).read_to_end(&mut buffer)?;
            self.over = read < BLOCK;
            if self.over {
                break;
            }
            if let Some(end) = memrchr(b'\n', &buffer) {
                self.carry.extend_from_slice(&buffer[end + 1..]);
                buffer.truncate(end + 1);
                return Ok(Some(Block::Lines(buffer)));
            }
            if buffer.len() > self.max_line_bytes {
                return self.skip_line(&buffer, on_long).map(Some);
            }
        }
        Ok(if buffer.is_empty() { None } else { Some(Block::Lines(buffer)) })
    }

    /// What is left of the file, behind the blocks that were taken.
    pub(super) fn into_source(self) -> impl Read {
        std::io::Cursor::new(self.carry).chain(self.source)
    }

    fn skip_line(&mut self, begun: &[u8], on_long: &mut dyn FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<Block> {
        on_long(begun)?;
        let mut length = begun.len();
        let mut piece = Vec::with_capacity(BLOCK);
        loop {
            piece.clear();
            let read = self.source.by_ref().take(BLOCK as u64).read_to_end(&mut piece)?;
            self.over = read < BLOCK;
            if let Some(end) = memchr(b'\n', &piece) {
                on_long(&piece[..=end])?;
                self.carry.extend_from_slice(&piece[end + 1..]);
                return Ok(Block::TooLong(length + end));
            }
            on_long(&piece)?;
            length += read;
            if self.over {
                return Ok(Block::TooLong(length));
            }
        }
    }
}

/// The lines of a block, each with its end.
pub(super) fn lines(block: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = block;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let (line, behind) = rest.split_at(end);
        rest = behind;
        Some(line)
    })
}

/// A line without `\n` or `\r\n`.
pub(super) fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks(text: &[u8], max: usize) -> (Vec<Block>, Vec<u8>) {
        let (mut reader, mut found, mut long) = (Blocks::new(text, max), Vec::new(), Vec::new());
        while let Some(block) = reader
            .next(Vec::new(), &mut |piece| {
                long.extend_from_slice(piece);
                Ok(())
            })
            .unwrap()
        {
            found.push(block);
        }
        (found, long)
    }

    #[test]
    fn a_line_that_is_too_long_costs_itself_only() {
        let long = "x".repeat(3 * BLOCK);
        let text = format!("a\n{long}\nb\n");
        let (found, skipped) = blocks(text.as_bytes(), BLOCK);
        assert_eq!(found, [Block::Lines(b"a\n".to_vec()), Block::TooLong(long.len()), Block::Lines(b"b\n".to_vec())]);
        assert_eq!(skipped, format!("{long}\n").into_bytes());
        assert_eq!(blocks(b"", 9).0, []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn blocks_and_skipped_lines_are_the_file(lengths in proptest::collection::vec(prop_oneof![0usize..50, Just(BLOCK), Just(2 * BLOCK + 7)], 0..6), ends in any::<bool>()) {
            let mut text: Vec<u8> = lengths.iter().flat_map(|length| std::iter::repeat_n(b'y', *length).chain([b'\n'])).collect();
            if !ends {
                text.pop();
            }
            let (found, skipped) = blocks(&text, BLOCK);
            let total: usize = found.iter().map(|block| match block { Block::Lines(lines) => lines.len(), Block::TooLong(_) => 0 }).sum();
            prop_assert_eq!(total + skipped.len(), text.len());
        }
    }
}
