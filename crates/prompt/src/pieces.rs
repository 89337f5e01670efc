//! The pieces of a text that a tokenizer never joins - words, mostly - and the tokens of each, remembered.
//!
//! A corpus has few different words, so nearly every piece is a look-up; and where a piece and what follows it are ASCII its end is found without the pre-tokenizer's regex.
//! Both are short cuts only: whatever is not plain goes the long way, and a property test compares the two.

use ahash::AHashMap;
use bpe_openai::Tokenizer;
use std::sync::{Mutex, PoisonError};

/// Longest piece that is remembered, in bytes: its length and its bytes are one number, compared in one step.
const PIECE_BYTES: usize = 15;
/// Most pieces that one map remembers; then it begins anew. About 2 MB.
const MAP_PIECES: usize = 1 << 16;
/// Most tokens of a remembered piece: their lengths share eight bytes.
const PACKED: usize = 8;

/// `cl100k_base`: a word is a run of letters.
pub(crate) static CL100K: Pieces = Pieces { words: Words::Letters, idle: Mutex::new(Vec::new()) };
/// `o200k_base`: a word ends where a small letter is followed by a capital.
pub(crate) static O200K: Pieces = Pieces { words: Words::Cased, idle: Mutex::new(Vec::new()) };

/// For each piece the lengths of its tokens, a byte each, the first one lowest.
type Known = AHashMap<u128, u64>;

/// What is remembered of one tokenizer. A thread takes a map for as long as it needs it, so there are as many as threads that count at the same time.
pub(crate) struct Pieces {
    words: Words,
    idle: Mutex<Vec<Known>>,
}

#[derive(Clone, Copy, PartialEq)]
enum Words {
    Letters,
    Cased,
}

impl Pieces {
    /// Adds the byte offset of each token of `text`.
    pub(crate) fn starts(&self, tokenizer: &Tokenizer, text: &str, starts: &mut Vec<u32>) {
        let mut known = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        let mut at = 0;
        while at < text.len() {
            let rest = &text.as_bytes()[at..];
            let length = match self.words.plain(rest) {
                Some(length) => length,
                // The pre-tokenizer looks ahead, never back, so it can begin anywhere.
                None => tokenizer.split(&text[at..]).next().filter(|piece| !piece.is_empty()).map_or(rest.len(), str::len),
            };
            push(&mut known, tokenizer, &rest[..length], at as u32, starts);
            at += length;
        }
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(known);
    }
}

fn push(known: &mut Known, tokenizer: &Tokenizer, piece: &[u8], at: u32, starts: &mut Vec<u32>) {
    let Some(key) = key(piece) else { return encode(tokenizer, piece, at, |start| starts.push(start)) };
    if let Some(&packed) = known.get(&key) {
        let (mut packed, mut start) = (packed, at);
        while packed > 0 {
            starts.push(start);
            start += (packed & 0xff) as u32;
            packed >>= 8;
        }
        return;
    }
    let from = starts.len();
    encode(tokenizer, piece, at, |start| starts.push(start));
    let tokens = &starts[from..];
    if tokens.len() <= PACKED {
        let ends = tokens.iter().skip(1).copied().chain([at + piece.len() as u32]);
        let packed =
            tokens.iter().zip(ends).enumerate().fold(0u64, |packed, (nth, (start, end))| packed | u64::from(end - start) << (8 * nth));
        if known.len() >= MAP_PIECES {
            known.clear();
        }
        known.insert(key, packed);
    }
}

/// A short piece as a number.
fn key(piece: &[u8]) -> Option<u128> {
    let mut bytes = [0; PIECE_BYTES + 1];
    bytes.get_mut(1..=piece.len())?.copy_from_slice(piece);
    bytes[0] = piece.len() as u8;
    Some(u128::from_le_bytes(bytes))
}

fn encode(tokenizer: &Tokenizer, piece: &[u8], at: u32, mut push: impl FnMut(u32)) {
    let mut start = at;
    for token in tokenizer.bpe.encode_via_backtracking(piece) {
        push(start);
        start += tokenizer.bpe.token_len(token) as u32;
    }
}

impl Words {
    /// Length of the piece at the start of `text`, where it and what follows it are ASCII; `None` asks the regex:
    /// a letter of another script would belong to the word, and a contraction has rules of its own.
    fn plain(self, text: &[u8]) -> Option<usize> {
        let first = *text.first()?;
        if first.is_ascii_digit() {
            let digits = text.iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
            return ends_plainly(text, digits, digits < 3);
        }
        if matches!(first, b'\r' | b'\n') {
            return space(text);
        }
        // One sign or space may lead a word; an apostrophe may be the start of a contraction.
        let lead = usize::from(!first.is_ascii_alphabetic());
        if lead == 1 && (!first.is_ascii() || first == b'\'') {
            return None;
        }
        let run = |from: usize, is: fn(&u8) -> bool| from + text[from..].iter().take_while(|byte| is(byte)).count();
        let end = match self {
            Self::Letters => run(lead, u8::is_ascii_alphabetic),
            Self::Cased => run(run(lead, u8::is_ascii_uppercase), u8::is_ascii_lowercase),
        };
        if end == lead {
            return if is_space(first) && !text.get(1).is_some_and(is_sign) { space(text) } else { self.signs(text) };
        }
        if self == Self::Cased && text.get(end) == Some(&b'\'') {
            return None;
        }
        ends_plainly(text, end, true)
    }

    /// A run of signs, with one space before it and the line ends behind it.
    fn signs(self, text: &[u8]) -> Option<usize> {
        let lead = usize::from(text[0] == b' ');
        let end = lead + text[lead..].iter().take_while(|byte| is_sign(byte)).count();
        if end == lead || text.get(end).is_some_and(|byte| !is_known(*byte)) {
            return None;
        }
        let is_behind = |byte: &&u8| matches!(byte, b'\r' | b'\n') || (self == Self::Cased && **byte == b'/');
        Some(end + text[end..].iter().take_while(is_behind).count())
    }
}

fn is_sign(byte: &u8) -> bool {
    byte.is_ascii_punctuation()
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// A letter, a digit, a sign or a space of ASCII.
fn is_known(byte: u8) -> bool {
    byte.is_ascii_graphic() || is_space(byte)
}

/// White space: up to its last line end; without one all of it but the last character, which leads what follows.
fn space(text: &[u8]) -> Option<usize> {
    let length = text.iter().take_while(|byte| is_space(**byte)).count();
    if text.get(length).is_some_and(|byte| !is_known(*byte)) {
        return None;
    }
    let line_end = text[..length].iter().rposition(|byte| matches!(byte, b'\r' | b'\n'));
    Some(match line_end {
        Some(last) => last + 1,
        None if length == text.len() => length,
        None => (length - 1).max(1),
    })
}

/// `end`, unless the byte there may belong to the piece.
fn ends_plainly(text: &[u8], end: usize, could_go_on: bool) -> Option<usize> {
    if could_go_on && text.get(end).is_some_and(|byte| !byte.is_ascii()) { None } else { Some(end) }
}
