//! Bytes of tokens to text that may be sent: whole characters, and nothing that a stop string could still begin.

/// Holds back what is not certain yet.
#[derive(Debug, Default)]
pub(crate) struct TextBuffer {
    bytes: Vec<u8>,
    stops: Vec<String>,
    stopped: bool,
}

impl TextBuffer {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { bytes: Vec::new(), stops, stopped: false }
    }

    /// Whether a stop string was met; nothing comes out any more.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped
    }

    /// Takes a token's bytes and gives the text that is certain.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        if self.stopped {
            return String::new();
        }
        self.bytes.extend_from_slice(bytes);
        let whole = whole_characters(&self.bytes);
        let text = String::from_utf8_lossy(&self.bytes[..whole]).into_owned();
        if let Some(at) = self.stops.iter().filter_map(|stop| text.find(stop.as_str())).min() {
            self.stopped = true;
            self.bytes.clear();
            return text[..at].to_owned();
        }
        let held = self.stops.iter().map(|stop| longest_beginning(&text, stop)).max().unwrap_or(0);
        let certain = text[..text.len() - held].to_owned();
        let rest = [&text.as_bytes()[text.len() - held..], &self.bytes[whole..]].concat();
        self.bytes = rest;
        certain
    }

    /// What was held back, at the end of the answer.
    pub(crate) fn finish(&mut self) -> String {
        if self.stopped { String::new() } else { String::from_utf8_lossy(&std::mem::take(&mut self.bytes)).into_owned() }
    }
}

/// How many bytes are whole characters (or can never become one).
fn whole_characters(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        Err(error) => {
            let bad = error.valid_up_to() + error.error_len().unwrap_or(1);
            bad + whole_characters(&bytes[bad..])
        }
    }
}

/// Length of the longest end of `text` that `stop` begins with.
fn longest_beginning(text: &str, stop: &str) -> usize {
    let most = stop.len().saturating_sub(1).min(text.len());
    (1..=most).rev().find(|&length| stop.is_char_boundary(length) && text.ends_with(&stop[..length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&[u8]], stops: &[&str]) -> (Vec<String>, bool) {
        let mut buffer = TextBuffer::new(stops.iter().map(|stop| (*stop).to_owned()).collect());
        let mut out: Vec<String> = pieces.iter().map(|piece| buffer.push(piece)).collect();
        out.push(buffer.finish());
        (out, buffer.stopped())
    }

    #[test]
    fn characters_come_whole_and_stop_strings_never() {
        assert_eq!(run(&[b"Gr\xc3", b"\xb6\xc3\x9fe"], &[]), (vec!["Gr".into(), "öße".into(), String::new()], false));
        assert_eq!(run(&[b"one EN", b"D two"], &["END"]), (vec!["one ".into(), String::new(), String::new()], true));
        assert_eq!(run(&[b"one EN", b"ough"], &["END"]), (vec!["one ".into(), "ENough".into(), String::new()], false));
        assert_eq!(run(&[b"one EN"], &["END"]), (vec!["one ".into(), "EN".into()], false));
        assert_eq!(run(&[b"a\n", b"\nb"], &["\n\n", "b"]), (vec!["a".into(), String::new(), String::new()], true));
        assert_eq!(run(&[b"bad \xff byte \xf0\x9f"], &[]), (vec!["bad \u{fffd} byte ".into(), "\u{fffd}".into()], false));
    }
}
