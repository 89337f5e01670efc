//! Text to chunks, sized in the embedder's own tokens.

use crate::parse::{Parsed, Shape};
use groundtone_prompt::CountTokens;
use groundtone_types::{Chunk, ContentHash, DocumentId, Span};
use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use text_splitter::{ChunkConfig, ChunkSizer, CodeSplitter, MarkdownSplitter, TextSplitter};

/// Changed whenever the rules below change, so that documents are cut again.
const RULES: &str = "chunk-3";

/// Rows share a chunk only while they are short: a row is looked up alone, and its neighbours mislead.
const ROW_TOKENS: usize = 60;

/// How documents are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSettings {
    /// Most tokens of a chunk, by the embedder's tokenizer, breadcrumb not counted.
    pub max_tokens: usize,
}

impl ChunkSettings {
    /// Two settings with the same fingerprint cut the same document the same way.
    pub fn fingerprint(&self, tokenizer: &str) -> String {
        ContentHash::of(format!("{RULES} {} {tokenizer}", self.max_tokens).as_bytes()).as_str()[..16].to_owned()
    }
}

/// A Markdown heading.
pub(crate) struct Heading {
    level: HeadingLevel,
    /// Without markup.
    pub(crate) text: String,
    span: Range<usize>,
}

/// The headings of a Markdown text, in order; those in code blocks and block quotes' code are none.
pub(crate) fn headings(text: &str) -> Vec<Heading> {
    let mut found = Vec::new();
    let mut open: Option<Heading> = None;
    for (event, span) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { level, .. }) => open = Some(Heading { level, text: String::new(), span }),
            Event::End(TagEnd::Heading(_)) => found.extend(open.take().map(|mut heading| {
                heading.text = heading.text.trim().to_owned();
                heading
            })),
            Event::Text(piece) | Event::Code(piece) => open.iter_mut().for_each(|heading| heading.text.push_str(&piece)),
            Event::SoftBreak | Event::HardBreak => open.iter_mut().for_each(|heading| heading.text.push(' ')),
            _ => {}
        }
    }
    found
}

/// A stretch of a document under one heading.
struct Section {
    span: Range<usize>,
    heading_path: Vec<String>,
}

/// Cuts at every heading; the heading's own line is in the path, not in the text.
fn sections(text: &str) -> Vec<Section> {
    let mut found = Vec::new();
    let mut path: Vec<(HeadingLevel, String)> = Vec::new();
    let mut start = 0;
    let names =
        |path: &[(HeadingLevel, String)]| path.iter().map(|(_, name)| name.clone()).filter(|name| !name.is_empty()).collect::<Vec<_>>();
    for heading in headings(text) {
        found.push(Section { span: start..heading.span.start, heading_path: names(&path) });
        path.retain(|(level, _)| *level < heading.level);
        path.push((heading.level, heading.text));
        start = heading.span.end;
    }
    found.push(Section { span: start..text.len(), heading_path: names(&path) });
    found.retain(|section| !text[section.span.clone()].trim().is_empty());
    found
}

/// Sizes pieces of one text by an index of its tokens' starts: a look-up instead of tokenizing each candidate again.
struct IndexedSizer<'a> {
    text: &'a str,
    starts: Vec<u32>,
    tokens: &'a dyn CountTokens,
}

impl ChunkSizer for IndexedSizer<'_> {
    fn size(&self, piece: &str) -> usize {
        let offset = (piece.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        if offset > self.text.len() {
            // Not a piece of the text: a copy that the splitter made.
            return self.tokens.count(piece);
        }
        let (first, last) = (offset as u32, (offset + piece.len()) as u32);
        self.starts.partition_point(|&start| start < last) - self.starts.partition_point(|&start| start < first)
    }
}

/// Cuts a document. Chunks come in the order of the text; `text[chunk.span]` is the chunk's text.
pub fn chunk_document(
    document: &DocumentId,
    title: &str,
    url: &str,
    parsed: &Parsed,
    settings: ChunkSettings,
    tokens: &dyn CountTokens,
) -> Vec<Chunk> {
    let text = parsed.text.as_str();
    let sizer = IndexedSizer { text, starts: tokens.token_starts(text), tokens };
    let pieces: Vec<(Range<usize>, Vec<String>)> = match parsed.shape {
        Shape::Markdown => {
            let splitter = MarkdownSplitter::new(ChunkConfig::new(settings.max_tokens).with_sizer(&sizer));
            let split = |section: Section| {
                let start = section.span.start;
                let cut: Vec<_> = splitter
                    .chunk_indices(&text[section.span])
                    .map(|(at, piece)| (start + at..start + at + piece.len(), section.heading_path.clone()))
                    .collect();
                cut
            };
            sections(text).into_iter().flat_map(split).collect()
        }
        Shape::Text => prose(text, settings.max_tokens, &sizer),
        Shape::Code(language) => match CodeSplitter::new(language.grammar(), ChunkConfig::new(settings.max_tokens).with_sizer(&sizer)) {
            Ok(splitter) => splitter.chunk_indices(text).map(|(at, piece)| (at..at + piece.len(), Vec::new())).collect(),
            // A grammar older than the parser; a test holds that there is none.
            Err(_) => prose(text, settings.max_tokens, &sizer),
        },
        Shape::Rows => rows(text, settings.max_tokens.min(ROW_TOKENS), &sizer).into_iter().map(|span| (span, Vec::new())).collect(),
    };
    let chunk = |(ordinal, (span, heading_path)): (usize, (Range<usize>, Vec<String>))| Chunk {
        document: document.clone(),
        ordinal: ordinal as u32,
        text: text[span.clone()].to_owned(),
        span: Span { start: span.start, end: span.end },
        heading_path,
        title: title.to_owned(),
        url: url.to_owned(),
    };
    pieces.into_iter().filter(|(span, _)| !text[span.clone()].trim().is_empty()).enumerate().map(chunk).collect()
}

/// Running text, without headings.
fn prose(text: &str, max_tokens: usize, sizer: &IndexedSizer<'_>) -> Vec<(Range<usize>, Vec<String>)> {
    let splitter = TextSplitter::new(ChunkConfig::new(max_tokens).with_sizer(sizer));
    splitter.chunk_indices(text).map(|(at, piece)| (at..at + piece.len(), Vec::new())).collect()
}

/// Whole lines up to the limit; only a line that is too long alone is cut.
fn rows(text: &str, max_tokens: usize, sizer: &IndexedSizer<'_>) -> Vec<Range<usize>> {
    let splitter = TextSplitter::new(ChunkConfig::new(max_tokens).with_sizer(sizer));
    let mut spans: Vec<Range<usize>> = Vec::new();
    let mut offset = 0;
    let mut open: Option<Range<usize>> = None;
    for line in text.split_inclusive('\n') {
        let span = offset..offset + line.trim_end().len();
        offset += line.len();
        if span.is_empty() {
            continue;
        }
        if let Some(current) = open.take() {
            if sizer.size(&text[current.start..span.end]) <= max_tokens {
                open = Some(current.start..span.end);
                continue;
            }
            spans.push(current);
        }
        if sizer.size(&text[span.clone()]) <= max_tokens {
            open = Some(span);
        } else {
            spans.extend(splitter.chunk_indices(&text[span.clone()]).map(|(at, piece)| span.start + at..span.start + at + piece.len()));
        }
    }
    spans.extend(open);
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::CodeLanguage;
    use groundtone_prompt::OpenAiTokens;
    use proptest::prelude::*;

    fn cut(text: &str, shape: Shape, max_tokens: usize) -> Vec<Chunk> {
        let parsed = Parsed { title: None, text: text.to_owned(), shape, pages: Vec::new() };
        let id = DocumentId::new("a.md").unwrap();
        chunk_document(&id, "A", "file:///a.md", &parsed, ChunkSettings { max_tokens }, &*OpenAiTokens::for_model("gpt-4o"))
    }

    #[test]
    fn chunks_carry_the_headings_above_them() {
        let text = "intro\n\n# Returns\n\nWithin 30 days.\n\n## Refund *times*\n\nFive days.\n\n```\n# not a heading\n```\n\n# Fees\n\nNone.\n\n### Deep\n\nx";
        let seen: Vec<(String, String)> =
            cut(text, Shape::Markdown, 100).into_iter().map(|c| (c.heading_path.join(" > "), c.text)).collect();
        let expect = [
            ("", "intro"),
            ("Returns", "Within 30 days."),
            ("Returns > Refund times", "Five days.\n\n```\n# not a heading\n```"),
            ("Fees", "None."),
            ("Fees > Deep", "x"),
        ];
        assert_eq!(seen, expect.map(|(path, text)| (path.to_owned(), text.to_owned())));
    }

    #[test]
    fn rows_are_never_cut_while_they_fit() {
        let text = (0..40).map(|i| format!("sku: K{i}; product: Kettle; price: {i}.50\n")).collect::<String>();
        let chunks = cut(&text, Shape::Rows, 60);
        assert!(chunks.len() > 5);
        let lines: Vec<&str> = chunks.iter().flat_map(|chunk| chunk.text.lines()).collect();
        assert_eq!(lines, text.lines().collect::<Vec<_>>());
        assert!(cut(&"word ".repeat(500), Shape::Rows, 60).len() > 5, "one long row is cut after all");
    }

    #[test]
    fn code_is_cut_between_its_functions() {
        let function = |name: &str| format!("fn {name}(price: u32) -> u32 {{\n    let tax = price / 5;\n    price + tax\n}}");
        let text = ["first", "second", "third"].map(function).join("\n\n");
        let chunks = cut(&text, Shape::Code(CodeLanguage::Rust), 40);
        let seen: Vec<&str> = chunks.iter().map(|chunk| chunk.text.as_str()).collect();
        assert_eq!(seen, ["first", "second", "third"].map(function));
    }

    proptest! {
        #[test]
        fn spans_give_the_text_back_and_chunks_fit(text in "([a-zäß ]{0,12}|[.\n#]|\n\n|# |- |検索|🚲|`|\\||[0-9]){0,60}", max_tokens in 4usize..40, shape in 0..4) {
            let shape = [Shape::Markdown, Shape::Text, Shape::Rows, Shape::Code(CodeLanguage::Python)][shape as usize];
            let tokens = OpenAiTokens::for_model("gpt-4o");
            for (ordinal, chunk) in cut(&text, shape, max_tokens).iter().enumerate() {
                prop_assert_eq!(&text[chunk.span.start..chunk.span.end], chunk.text.as_str());
                prop_assert_eq!(chunk.ordinal as usize, ordinal);
                prop_assert!(!chunk.text.trim().is_empty());
                // A piece tokenized alone may differ by the tokens at its two ends.
                prop_assert!(tokens.count(&chunk.text) <= max_tokens + 4, "{} tokens: {:?}", tokens.count(&chunk.text), chunk.text);
            }
        }

        #[test]
        fn no_letter_is_lost(text in "([a-z ]{0,12}|[.\n#]|\n\n|- |[0-9]){0,60}", shape in 1..4) {
            let shape = [Shape::Markdown, Shape::Text, Shape::Rows, Shape::Code(CodeLanguage::Rust)][shape as usize];
            let letters = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let together: String = cut(&text, shape, 16).iter().map(|chunk| letters(&chunk.text)).collect();
            prop_assert_eq!(together, letters(&text));
        }
    }
}
