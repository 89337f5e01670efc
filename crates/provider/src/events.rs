//! Server-sent events out of bytes (WHATWG HTML, 9.2.6), bounded, and only what chat needs of them: the data.
//!
//! A model server may send anything, so this is not left to a library: `eventsource-stream` panics on a byte order mark, reads a long line again for each
//! piece of it, and keeps a line without an end for ever.

/// Why bytes are no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventError {
    #[error("an event of more than {0} bytes")]
    TooLong(usize),
    #[error("an event that is not UTF-8")]
    NotUtf8,
}

/// Takes bytes as they come, in pieces of any size, and gives the data of each complete event.
#[derive(Debug)]
pub(crate) struct EventDecoder {
    most: usize,
    line: Vec<u8>,
    data: Option<Vec<u8>>,
    /// The last line ended with a carriage return: a line feed right behind it belongs to it.
    after_return: bool,
    first_line: bool,
    /// Bytes since the last event.
    since_event: usize,
}

impl EventDecoder {
    /// No more than `most` bytes stand between two events, comments included.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, line: Vec::new(), data: None, after_return: false, first_line: true, since_event: 0 }
    }

    /// Appends the data of every event that these bytes complete.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], events: &mut Vec<String>) -> Result<(), EventError> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let taken = end.unwrap_or(bytes.len());
            self.since_event += taken + usize::from(end.is_some());
            if self.since_event > self.most {
                return Err(EventError::TooLong(self.most));
            }
            self.line.extend_from_slice(&bytes[..taken]);
            let Some(end) = end else { return Ok(()) };
            self.after_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            events.extend(self.take_line(&line)?);
            // The memory of the line serves the next one.
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    fn take_line(&mut self, line: &[u8]) -> Result<Option<String>, EventError> {
        let line = if std::mem::take(&mut self.first_line) { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        if line.is_empty() {
            let Some(data) = self.data.take() else { return Ok(None) };
            self.since_event = 0;
            return String::from_utf8(data).map(Some).map_err(|_| EventError::NotUtf8);
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            // Comments, and fields that chat does not use.
            _ => return Ok(None),
        };
        match &mut self.data {
            Some(data) => {
                data.push(b'\n');
                data.extend_from_slice(value);
            }
            none => *none = Some(value.to_vec()),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(pieces: &[&[u8]]) -> Result<Vec<String>, EventError> {
        let (mut decoder, mut events) = (EventDecoder::new(64), Vec::new());
        pieces.iter().try_for_each(|piece| decoder.feed(piece, &mut events)).map(|()| events)
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        for (bytes, expected) in [
            ("data: a\n\ndata: b\n\n", &["a", "b"][..]),
            ("data:a\r\n\r\ndata:  b\r\rdata: c\n\r\n", &["a", " b", "c"]),
            ("\u{feff}data: a\n\n", &["a"]),
            (": comment\n\nid: 7\nevent: x\ndata: a\nretry: 5\n\n", &["a"]),
            ("data: a\ndata: b\ndata\n\n", &["a\nb\n"]),
            ("datax: a\n\n\n\n", &[]),
            ("data: unfinished\n", &[]),
            ("data\n\n", &[""]),
        ] {
            assert_eq!(decode(&[bytes.as_bytes()]).unwrap(), expected, "{bytes:?}");
        }
        assert_eq!(decode(&[b"data: \xff\n\n"]), Err(EventError::NotUtf8));
        assert_eq!(decode(&[&[b'x'; 65]]), Err(EventError::TooLong(64)));
        assert_eq!(decode(&[b": ping\n\n".repeat(9).as_slice()]), Err(EventError::TooLong(64)), "comments fill the room too");
        assert_eq!(decode(&[b"data: x\n\n".repeat(99).as_slice()]).unwrap().len(), 99);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(text in "(data: ?|: |\u{feff}|[a-zä🚲]|\r\n|\r|\n|\n\n){0,40}", cuts in proptest::collection::vec(0usize..200, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(decode(&pieces), decode(&[bytes]));
        }
    }
}
