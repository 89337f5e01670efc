use super::{Limits, Parsed, Shape, archive, html, one_line};
use rbook::Epub;
use std::io::Cursor;

/// The chapters in reading order, each read as the web page that it is. The title is the book's.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, String> {
    archive::check(bytes, "EPUB", limits)?;
    let damaged = |error: &dyn std::fmt::Display| format!("is a damaged EPUB: {}", one_line(&error.to_string()));
    let book = Epub::read(Cursor::new(bytes.to_vec())).map_err(|error| damaged(&error))?;
    let title = book.metadata().title().map(|title| one_line(title.value())).filter(|title| !title.is_empty());
    let chapters = book.reader();
    limits.check_pages(chapters.len(), "chapters")?;
    let mut text = String::new();
    for chapter in chapters {
        let chapter = chapter.map_err(|error| damaged(&error))?;
        let parsed = html::parse(chapter.content())?;
        if !parsed.text.trim().is_empty() {
            text.push_str(parsed.text.trim());
            text.push_str("\n\n");
        }
        limits.check_text(&text)?;
    }
    Ok(Parsed { title, text, shape: Shape::Markdown, pages: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::fixture;

    #[test]
    fn chapters_come_in_reading_order() {
        let parsed = parse(&fixture("care.epub"), &Limits::default()).unwrap();
        assert_eq!(parsed.title.as_deref(), Some("Grinder care"));
        insta::assert_snapshot!(parsed.text, @"
        # Cleaning

        Brush the burrs every month.

        # Storing

        Keep it dry & cool.
        ");
        assert!(parse(&fixture("returns.docx"), &Limits::default()).unwrap_err().starts_with("is a damaged EPUB: "));
    }
}
