//! Word and PowerPoint, by `undoc`.

use super::{Limits, PageStart, Parsed, Shape, archive, one_line};
use std::collections::HashMap;
use undoc::render::{RenderOptions, render_section_to_string, to_markdown};
use undoc::{Document, Error, FormatType};

/// Headings from styles, lists, and tables as Markdown tables; deleted text of tracked changes left out. The title is the document's own, if it says one.
pub(super) fn parse_word(bytes: &[u8], limits: &Limits) -> Result<Parsed, String> {
    let document = open(bytes, "Word document", FormatType::Docx, limits)?;
    let text = to_markdown(&document, &options()).map_err(|error| unreadable("Word document", &error))?;
    Ok(Parsed { title: title(&document), text, shape: Shape::Markdown, pages: Vec::new() })
}

/// One section for each slide, `## Slide 3: Prices`, with its tables and its notes; a slide is a page.
pub(super) fn parse_powerpoint(bytes: &[u8], limits: &Limits) -> Result<Parsed, String> {
    let document = open(bytes, "PowerPoint presentation", FormatType::Pptx, limits)?;
    limits.check_pages(document.sections.len(), "slides")?;
    let (mut text, mut pages) = (String::new(), Vec::new());
    for (at, section) in document.sections.iter().enumerate() {
        let number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let slide = render_section_to_string(section, at, document.format, &options(), &HashMap::new());
        pages.push(PageStart { number, start: text.len() });
        push_slide(&mut text, number, &slide);
        limits.check_text(&text)?;
    }
    Ok(Parsed { title: title(&document), text, shape: Shape::Markdown, pages })
}

/// The slide's first heading becomes part of its own heading; the others go below it.
fn push_slide(text: &mut String, number: u32, slide: &str) {
    let furniture = |line: &&str| line.trim().is_empty() || *line == "---" || line.starts_with("## Slide ");
    let mut lines = slide.lines().skip_while(furniture).peekable();
    let heading = lines.next_if(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim()).unwrap_or_default();
    let separator = if heading.is_empty() { "" } else { ": " };
    text.push_str(&format!("## Slide {number}{separator}{heading}\n"));
    for line in lines.filter(|line| *line != "---") {
        if line.is_empty() && text.ends_with("\n\n") {
            continue;
        }
        if line.starts_with('#') {
            text.push_str("##");
        }
        text.push_str(line);
        text.push('\n');
    }
    let end = text.trim_end().len();
    text.truncate(end);
    text.push_str("\n\n");
}

fn options() -> RenderOptions {
    RenderOptions { include_images: false, ..RenderOptions::default() }
}

fn open(bytes: &[u8], wanted: &str, format: FormatType, limits: &Limits) -> Result<Document, String> {
    archive::check(bytes, wanted, limits)?;
    let document = undoc::parse_bytes(bytes).map_err(|error| unreadable(wanted, &error))?;
    if document.format == format { Ok(document) } else { Err(format!("is no {wanted}; inside it is another kind of Office file")) }
}

fn unreadable(wanted: &str, error: &Error) -> String {
    match error {
        Error::Encrypted => "is encrypted".to_owned(),
        error => format!("is a damaged {wanted}: {}", one_line(&error.to_string())),
    }
}

fn title(document: &Document) -> Option<String> {
    document.metadata.title.as_deref().map(one_line).filter(|title| !title.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::fixture;

    #[test]
    fn a_word_document_becomes_markdown() {
        let parsed = parse_word(&fixture("returns.docx"), &Limits::default()).unwrap();
        assert_eq!(parsed.title.as_deref(), Some("Returns"));
        insta::assert_snapshot!(parsed.text, @"
        # Returns

        ## Window

        You can send your grinder back within 45 days of delivery.

        Keep the box.

        Keep the receipt.

        ## Cost

        | Country | Label |
        | --- | --- |
        | Austria | free |
        ");
    }

    #[test]
    fn slides_are_sections_and_pages() {
        let parsed = parse_powerpoint(&fixture("deck.pptx"), &Limits::default()).unwrap();
        assert_eq!(parsed.title.as_deref(), Some("Shop deck"));
        insta::assert_snapshot!(parsed.text, @"
        ## Slide 1: Opening hours

        The workshop opens at nine on Saturdays.

        > **Notes:**
        > Mention the holiday.

        ## Slide 2: Prices

        | Product | Price |
        | --- | --- |
        | Alder | 89 |
        ");
        assert!(parsed.text[parsed.pages[1].start..].starts_with("## Slide 2: Prices"));
    }

    #[test]
    fn what_is_something_else_says_so() {
        let reason = |name: &str| parse_word(&fixture(name), &Limits::default()).unwrap_err();
        assert_eq!(reason("deck.pptx"), "is no Word document; inside it is another kind of Office file");
        assert_eq!(reason("manual.pdf"), "is no Word document; it looks like a PDF");
        assert_eq!(reason("prices.xls"), "is no Word document; it looks like a file of Office 97 to 2003");
        assert!(reason("care.epub").starts_with("is "));
    }
}
