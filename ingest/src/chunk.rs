//! Text to chunks, sized in the embedder's own tokens.

use crate::parse::{CodeLanguage, PageStart, Parsed, Shape};
use groundtone_prompt::CountTokens;
use groundtone_types::{Chunk, ContentHash, DocumentId, Metadata, Parent, Span};
use pulldown_cmark::{Event, HeadingLevel, Parser, Tag, TagEnd};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use text_splitter::{ChunkConfig, ChunkSizer, CodeSplitter, MarkdownSplitter, TextSplitter};
use uuid::Uuid;

/// Changed whenever the rules below change, so that documents are cut again.
const RULES: &str = "chunk-4";

/// Rows share a chunk only while they are short: a row is looked up alone, and its neighbours mislead.
const ROW_TOKENS: usize = 60;

/// A row that is longer than a chunk is searched in pieces, and shown whole while it is no longer than this many chunks.
const ROW_SHOWN_CHUNKS: usize = 4;

/// How documents are cut, and what is embedded of a chunk. Part of a collection's fingerprint: a change cuts every document again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunkSettings {
    /// Most tokens of a chunk, by the embedder's tokenizer, breadcrumb not counted.
    pub max_tokens: usize,
    /// Tokens that a chunk repeats of the one before it, in running text; fewer than half of `max_tokens`.
    pub overlap_tokens: usize,
    /// Tokens of the longer piece that is shown in a chunk's place; 0 shows the chunk itself.
    pub parent_tokens: usize,
    /// Whether title and headings are embedded with the text.
    pub breadcrumb: bool,
}

impl ChunkSettings {
    /// Two settings with the same fingerprint cut the same document the same way and embed the same texts.
    pub fn fingerprint(&self, tokenizer: &str) -> String {
        let Self { max_tokens, overlap_tokens, parent_tokens, breadcrumb } = self;
        let rules = format!("{RULES} {max_tokens} {overlap_tokens} {parent_tokens} {breadcrumb} {tokenizer}");
        ContentHash::of(rules.as_bytes()).as_str()[..16].to_owned()
    }

    /// What is embedded and indexed of a chunk: the headings say what a short piece is about. The page is left out: it moves when nothing else does.
    pub fn embedded_text(&self, chunk: &Chunk) -> String {
        if self.breadcrumb { format!("{}\n{}", chunk.path(), chunk.text) } else { chunk.text.clone() }
    }
}

/// A chunk and its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The chunk.
    pub chunk: Chunk,
    /// [`Chunk::point_id`].
    pub id: Uuid,
    /// Tokens of its text, by the embedder's tokenizer.
    pub tokens: usize,
}

/// How many bytes are looked at first for a title.
const FIRST_LOOK: usize = 2048;

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

/// The first heading. The text is parsed no further than it stands.
pub(crate) fn first_heading(text: &str) -> Option<String> {
    let mut until = FIRST_LOOK;
    loop {
        let whole = until >= text.len();
        let part =
            if whole { text } else { &text[..text.as_bytes()[..until].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)] };
        // One that ends where the part ends might go on, and a link's address may stand at the end of the text.
        let certain = |heading: &Heading| heading.span.end + 1 < part.len() && !part[heading.span.clone()].contains('[');
        if let Some(heading) = headings(part).into_iter().next().filter(|heading| whole || certain(heading)) {
            return Some(heading.text);
        }
        if whole {
            return None;
        }
        until *= 8;
    }
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

/// What a document's chunks say of it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Its id.
    pub document: &'a DocumentId,
    /// Its title.
    pub title: &'a str,
    /// Where a reader finds it.
    pub url: &'a str,
    /// What else the source says of it.
    pub metadata: &'a Metadata,
}

/// A stretch of the text that becomes a chunk.
struct Piece {
    span: Range<usize>,
    heading_path: Vec<String>,
    parent: Option<Range<usize>>,
}

/// Cuts a document. Chunks come in the order of the text; `text[chunk.span]` is the chunk's text.
pub fn chunk_document(origin: Origin<'_>, parsed: &Parsed, settings: ChunkSettings, tokens: &dyn CountTokens) -> Vec<Cut> {
    let text = parsed.text.as_str();
    let sizer = IndexedSizer { text, starts: tokens.token_starts(text), tokens };
    let cutter = Cutter { text, sizer: &sizer, settings };
    let pieces = match parsed.shape {
        Shape::Markdown => {
            let of_section = |section: Section| cutter.pieces(Splitting::Markdown, section.span, &section.heading_path);
            sections(text).into_iter().flat_map(of_section).collect()
        }
        Shape::Text => cutter.pieces(Splitting::Text, 0..text.len(), &[]),
        Shape::Code(language) => cutter.pieces(Splitting::Code(language), 0..text.len(), &[]),
        Shape::Rows => rows(text, settings.max_tokens, &sizer),
    };
    let cut = |(ordinal, piece): (usize, Piece)| {
        let Piece { span, heading_path, parent } = piece;
        let parent = parent.filter(|parent| *parent != span);
        let chunk = Chunk {
            document: origin.document.clone(),
            ordinal: ordinal as u32,
            text: text[span.clone()].to_owned(),
            span: Span { start: span.start, end: span.end },
            heading_path,
            title: origin.title.to_owned(),
            url: origin.url.to_owned(),
            page: page_at(&parsed.pages, span.start),
            parent: parent.map(|span| Parent { text: text[span.clone()].to_owned(), span: Span { start: span.start, end: span.end } }),
            metadata: origin.metadata.clone(),
        };
        Cut { id: chunk.point_id(), chunk, tokens: sizer.size(&text[span]) }
    };
    pieces.into_iter().filter(|piece: &Piece| !text[piece.span.clone()].trim().is_empty()).enumerate().map(cut).collect()
}

/// The page on which a byte of the text stands.
fn page_at(pages: &[PageStart], at: usize) -> Option<u32> {
    let after = pages.partition_point(|page| page.start <= at);
    Some(pages.get(after.checked_sub(1)?)?.number)
}

/// How a stretch is split.
#[derive(Clone, Copy)]
enum Splitting {
    Markdown,
    Text,
    Code(CodeLanguage),
}

struct Cutter<'a> {
    text: &'a str,
    sizer: &'a IndexedSizer<'a>,
    settings: ChunkSettings,
}

impl Cutter<'_> {
    /// Parents first where they are wanted, then the chunks of each.
    fn pieces(&self, splitting: Splitting, span: Range<usize>, heading_path: &[String]) -> Vec<Piece> {
        let ChunkSettings { max_tokens, overlap_tokens, parent_tokens, .. } = self.settings;
        let piece = |span: Range<usize>, parent: Option<Range<usize>>| Piece { span, heading_path: heading_path.to_vec(), parent };
        if parent_tokens <= max_tokens {
            return self.split(splitting, span, max_tokens, overlap_tokens).into_iter().map(|span| piece(span, None)).collect();
        }
        let parents = self.split(splitting, span, parent_tokens, 0).into_iter();
        let children = |parent: Range<usize>| {
            let spans = self.split(splitting, parent.clone(), max_tokens, overlap_tokens).into_iter();
            spans.map(|span| piece(span, Some(parent.clone()))).collect::<Vec<_>>()
        };
        parents.flat_map(children).collect()
    }

    fn split(&self, splitting: Splitting, span: Range<usize>, max_tokens: usize, overlap: usize) -> Vec<Range<usize>> {
        let plain = ChunkConfig::new(max_tokens).with_sizer(self.sizer);
        // The settings are checked before; an overlap that does not fit is none.
        let config = match plain.with_overlap(overlap.min(max_tokens / 2)) {
            Ok(config) => config,
            Err(_) => ChunkConfig::new(max_tokens).with_sizer(self.sizer),
        };
        let (start, text) = (span.start, &self.text[span]);
        // What fits is one chunk: the splitter would come to the same end, after it has parsed the text.
        if matches!(splitting, Splitting::Markdown)
            && let Some(whole) = trimmed(text)
            && self.sizer.size(&text[whole.clone()]) <= max_tokens
        {
            return std::iter::once(start + whole.start..start + whole.end).collect();
        }
        let place = |(at, piece): (usize, &str)| start + at..start + at + piece.len();
        match splitting {
            Splitting::Markdown => MarkdownSplitter::new(config).chunk_indices(text).map(place).collect(),
            Splitting::Text => TextSplitter::new(config).chunk_indices(text).map(place).collect(),
            Splitting::Code(language) => match CodeSplitter::new(language.grammar(), config) {
                Ok(splitter) => splitter.chunk_indices(text).map(place).collect(),
                // A grammar older than the parser; a test holds that there is none.
                Err(_) => self.split(Splitting::Text, start..start + text.len(), max_tokens, overlap),
            },
        }
    }
}

/// What [`MarkdownSplitter`] leaves of a chunk: no blank lines around it, and its indentation where it has several lines. `None` for blank text.
fn trimmed(text: &str) -> Option<Range<usize>> {
    let end = text.trim_end().len();
    let within = text.trim_start().len();
    let first = text.len() - within;
    if first >= end {
        return None;
    }
    let several_lines = text[first..end].contains(['\n', '\r']);
    let start = if several_lines { text.len() - text.trim_start_matches(['\n', '\r']).len() } else { first };
    Some(start..end)
}

/// Whole lines: short ones together, a longer one alone. Only a line of more than `max_tokens` is cut, and its pieces show the line.
fn rows(text: &str, max_tokens: usize, sizer: &IndexedSizer<'_>) -> Vec<Piece> {
    let splitter = TextSplitter::new(ChunkConfig::new(max_tokens).with_sizer(sizer));
    let together = max_tokens.min(ROW_TOKENS);
    let piece = |span: Range<usize>, parent: Option<Range<usize>>| Piece { span, heading_path: Vec::new(), parent };
    let mut pieces = Vec::new();
    let mut offset = 0;
    let mut open: Option<Range<usize>> = None;
    for line in text.split_inclusive('\n') {
        let span = offset..offset + line.trim_end().len();
        offset += line.len();
        if span.is_empty() {
            continue;
        }
        if let Some(current) = open.take() {
            if sizer.size(&text[current.start..span.end]) <= together {
                open = Some(current.start..span.end);
                continue;
            }
            pieces.push(piece(current, None));
        }
        let tokens = sizer.size(&text[span.clone()]);
        if tokens <= max_tokens {
            open = Some(span);
        } else {
            let shown = (tokens <= max_tokens * ROW_SHOWN_CHUNKS).then(|| span.clone());
            let cuts = splitter.chunk_indices(&text[span.clone()]);
            pieces.extend(cuts.map(|(at, cut)| piece(span.start + at..span.start + at + cut.len(), shown.clone())));
        }
    }
    pieces.extend(open.map(|span| piece(span, None)));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use groundtone_prompt::OpenAiTokens;
    use proptest::prelude::*;

    fn cut_with(text: &str, shape: Shape, settings: ChunkSettings) -> Vec<Chunk> {
        let parsed = Parsed { title: None, text: text.to_owned(), shape, pages: Vec::new() };
        let id = DocumentId::new("a.md").unwrap();
        let origin = Origin { document: &id, title: "A", url: "file:///a.md", metadata: &Metadata::default() };
        let cuts = chunk_document(origin, &parsed, settings, &*OpenAiTokens::for_model("gpt-4o"));
        cuts.into_iter().map(|cut| cut.chunk).collect()
    }

    fn cut(text: &str, shape: Shape, max_tokens: usize) -> Vec<Chunk> {
        cut_with(text, shape, ChunkSettings { max_tokens, overlap_tokens: 0, parent_tokens: 0, breadcrumb: true })
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
        let long = "word ".repeat(100);
        assert_eq!(cut(&long, Shape::Rows, 200).len(), 1, "longer than rows that share a chunk, but it fits");
        let pieces = cut(&long, Shape::Rows, 60);
        assert!(pieces.len() > 1, "longer than a chunk");
        assert!(pieces.iter().all(|piece| piece.shown_text() == long.trim_end()), "its pieces show the row");
        let pieces = cut(&"word ".repeat(500), Shape::Rows, 60);
        assert!(pieces.len() > 5 && pieces.iter().all(|piece| piece.parent.is_none()), "too long to be shown whole");
    }

    #[test]
    fn overlap_repeats_the_end_of_the_chunk_before() {
        let text = (0..60).map(|n| format!("Sentence number {n} is here. ")).collect::<String>();
        let settings = ChunkSettings { max_tokens: 40, overlap_tokens: 12, parent_tokens: 0, breadcrumb: true };
        let chunks = cut_with(&text, Shape::Text, settings);
        assert!(chunks.len() > 5);
        for pair in chunks.windows(2) {
            assert!(pair[1].span.start < pair[0].span.end && pair[1].span.end > pair[0].span.end, "{:?} {:?}", pair[0].span, pair[1].span);
        }
    }

    #[test]
    fn a_small_chunk_is_searched_and_its_parent_is_shown() {
        let text = (0..60).map(|n| format!("Sentence number {n} is here. ")).collect::<String>();
        let settings = ChunkSettings { max_tokens: 16, overlap_tokens: 0, parent_tokens: 80, breadcrumb: true };
        let chunks = cut_with(&format!("# H\n\n{text}\n\n# Short\n\nOne line."), Shape::Markdown, settings);
        for chunk in &chunks[..chunks.len() - 1] {
            let parent = chunk.parent.as_ref().unwrap();
            assert!(parent.span.start <= chunk.span.start && chunk.span.end <= parent.span.end);
            assert!(parent.text.contains(&chunk.text) && parent.text.len() > chunk.text.len());
        }
        assert_eq!(chunks.last().unwrap().parent, None, "a section that is one chunk is its own parent");
    }

    #[test]
    fn a_chunk_says_on_which_page_it_begins() {
        let pages = vec![PageStart { number: 1, start: 0 }, PageStart { number: 2, start: 30 }, PageStart { number: 3, start: 60 }];
        let seen: Vec<Option<u32>> = [0, 29, 30, 59, 60, 900].iter().map(|&at| page_at(&pages, at)).collect();
        assert_eq!(seen, [Some(1), Some(1), Some(2), Some(2), Some(3), Some(3)]);
        assert_eq!(page_at(&[], 5), None);
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
        fn short_cuts_cut_as_the_long_way_does(text in "([a-zß ]{0,12}|[.\n#]|\n\n|\r\n|# |- |    |> |🚲|```|\\||===\n|[0-9]){0,60}", max_tokens in 4usize..60) {
            prop_assert_eq!(first_heading(&text), headings(&text).into_iter().next().map(|heading| heading.text));
            let long = [&"word ".repeat(600), "\n", &text].concat();
            prop_assert_eq!(first_heading(&long), headings(&long).into_iter().next().map(|heading| heading.text));
            let tokens = OpenAiTokens::for_model("gpt-4o");
            let sizer = IndexedSizer { text: &text, starts: tokens.token_starts(&text), tokens: &*tokens };
            for section in sections(&text) {
                let part = &text[section.span];
                if let Some(whole) = trimmed(part).filter(|whole| sizer.size(&part[whole.clone()]) <= max_tokens) {
                    let splitter = MarkdownSplitter::new(ChunkConfig::new(max_tokens).with_sizer(&sizer));
                    prop_assert_eq!(splitter.chunks(part).collect::<Vec<_>>(), [&part[whole]], "{:?}", part);
                }
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
