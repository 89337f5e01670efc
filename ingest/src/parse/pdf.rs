//! PDF text, by `pdf_oxide`.

use super::magic::{self, Kind};
use super::{Limits, PageStart, Parsed, Shape, one_line};
use pdf_oxide::PdfDocument;

/// The text of every page, in reading order. Passwords are not asked for, and pictures are not read.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Parsed, String> {
    if magic::kind(bytes) != Kind::Pdf {
        return Err(magic::mismatch(bytes, "PDF"));
    }
    let damaged = |error: pdf_oxide::Error| format!("is a damaged PDF: {}", one_line(&error.to_string()));
    let document = PdfDocument::from_bytes(bytes.to_vec()).map_err(damaged)?;
    if document.is_encrypted() && !document.is_authenticated() {
        return Err("is encrypted".to_owned());
    }
    let count = document.page_count().map_err(damaged)?;
    limits.check_pages(count, "pages")?;
    let (mut text, mut pages) = (String::new(), Vec::new());
    for page in 0..count {
        let found = document.extract_text(page).map_err(|error| format!("page {}: {}", page + 1, one_line(&error.to_string())))?;
        pages.push(PageStart { number: u32::try_from(page + 1).unwrap_or(u32::MAX), start: text.len() });
        push_page(&mut text, &found);
        limits.check_text(&text)?;
    }
    if text.trim().is_empty() {
        return Err("holds no text: its pages are images".to_owned());
    }
    Ok(Parsed { title: None, text, shape: Shape::Text, pages })
}

/// Lines without the blanks at their ends; a blank line between two pages.
fn push_page(text: &mut String, page: &str) {
    for line in page.trim().lines() {
        text.extend(line.trim_end().chars().filter(|c| !c.is_control() || *c == '\t'));
        text.push('\n');
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::fixture;

    #[test]
    fn pages_are_found_again_in_the_text() {
        let parsed = parse(&fixture("manual.pdf"), &Limits::default()).unwrap();
        insta::assert_snapshot!(parsed.text, @"
        Grinder manual
        Turn the crank clockwise.

        Descale the boiler every three months.
        ");
        assert_eq!(parsed.pages.iter().map(|page| page.number).collect::<Vec<_>>(), [1, 2]);
        assert!(parsed.text[parsed.pages[1].start..].starts_with("Descale"));
    }

    #[test]
    fn what_holds_no_text_says_why() {
        let reason = |name: &str| parse(&fixture(name), &Limits::default()).unwrap_err();
        assert_eq!(reason("encrypted.pdf"), "is encrypted");
        assert_eq!(reason("scan.pdf"), "holds no text: its pages are images");
        assert_eq!(reason("returns.docx"), "is no PDF; it looks like a zip file");
        let one = Limits { max_pages: 1, ..Limits::default() };
        assert_eq!(parse(&fixture("manual.pdf"), &one).unwrap_err(), "has 2 pages; at most 1 are read");
    }
}
