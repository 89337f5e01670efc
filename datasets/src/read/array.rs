use std::io::BufRead;

/// The elements of one JSON array, cut apart without reading the array whole: ShareGPT and Alpaca files come like this.
pub(super) struct Elements<R> {
    source: R,
    max_bytes: usize,
    line: u64,
    bytes: u64,
    over: bool,
    opened: bool,
}

/// Where an element stands in its text.
#[derive(Default)]
struct Depth {
    open: u32,
    quoted: bool,
    escaped: bool,
}

impl Depth {
    /// Whether this byte is outside the element: a comma or the array's own end.
    fn ends(&mut self, byte: u8) -> bool {
        if self.quoted {
            let escaped = std::mem::take(&mut self.escaped);
            match byte {
                b'\\' if !escaped => self.escaped = true,
                b'"' if !escaped => self.quoted = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.quoted = true,
            b'{' | b'[' => self.open += 1,
            b'}' | b']' if self.open > 0 => self.open -= 1,
            b',' | b']' if self.open == 0 => return true,
            _ => {}
        }
        false
    }
}

/// The line that an element begins on, and its bytes or what is wrong with it.
pub(super) type Element = (u64, Result<Vec<u8>, String>);

impl<R: BufRead> Elements<R> {
    pub(super) fn new(source: R, max_bytes: usize) -> Self {
        Self { source, max_bytes, line: 1, bytes: 0, over: false, opened: false }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn byte(&mut self) -> std::io::Result<Option<u8>> {
        let Some(&byte) = self.source.fill_buf()?.first() else { return Ok(None) };
        self.source.consume(1);
        self.bytes += 1;
        self.line += u64::from(byte == b'\n');
        Ok(Some(byte))
    }

    fn skip_blank(&mut self) -> std::io::Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                other => return Ok(other),
            }
        }
    }

    pub(super) fn next(&mut self) -> std::io::Result<Option<Element>> {
        if self.over {
            return Ok(None);
        }
        if !std::mem::replace(&mut self.opened, true) {
            self.skip_blank()?;
        }
        let Some(first) = self.skip_blank()? else { return Ok(self.end("the file ends before its array does")) };
        let line = self.line;
        if first == b']' {
            self.over = true;
            return Ok(match self.skip_blank()? {
                None => None,
                Some(_) => Some((self.line, Err("something follows the array; it is not read".to_owned()))),
            });
        }
        let (mut text, mut too_long, mut depth) = (Vec::new(), false, Depth::default());
        let mut byte = first;
        while !depth.ends(byte) {
            if text.len() >= self.max_bytes {
                too_long = true;
            } else {
                text.push(byte);
            }
            let Some(next) = self.byte()? else { return Ok(self.end("the file ends in the middle of this record")) };
            byte = next;
        }
        if byte == b']' {
            // The end of the array was read with its last element.
            self.over = true;
        }
        Ok(Some((line, if too_long { Err(format!("has more than {} bytes", self.max_bytes)) } else { Ok(text) })))
    }

    fn end(&mut self, reason: &str) -> Option<Element> {
        self.over = true;
        Some((self.line, Err(reason.to_owned())))
    }
}
