use super::{Parsed, Shape};
use htmd::HtmlToMarkdown;
use std::sync::LazyLock;

/// Parts of a page that say nothing about its subject.
const FURNITURE: &[&str] =
    &["script", "style", "noscript", "template", "nav", "footer", "aside", "form", "iframe", "svg", "head", "button"];
/// Deepest nesting of tags that is read; deeper ones exhaust the stack of any recursive converter.
const DEPTH: usize = 256;

static CONVERTER: LazyLock<HtmlToMarkdown> = LazyLock::new(|| HtmlToMarkdown::builder().skip_tags(FURNITURE.to_vec()).build());

/// The page's text as Markdown without navigation, forms and scripts; the title is `<title>`.
pub(crate) fn parse(source: &str) -> Result<Parsed, String> {
    let depth = nesting(source);
    if depth > DEPTH {
        return Err(format!("nests its tags {depth} deep; at most {DEPTH} are read"));
    }
    let text = CONVERTER.convert(source).map_err(|error| format!("is not readable HTML: {error}"))?;
    Ok(Parsed { title: title(source), text, shape: Shape::Markdown, pages: Vec::new() })
}

/// An upper bound of how deep tags are nested: open tags less closing tags, void tags left out.
fn nesting(source: &str) -> usize {
    const VOID: &[&str] = &[
        "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "p", "li", "td", "tr", "th",
        "dt", "dd", "option",
    ];
    let (mut depth, mut deepest) = (0usize, 0usize);
    for tag in source.split('<').skip(1) {
        let name: String =
            tag.trim_start_matches('/').chars().take_while(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
        if name.is_empty() || VOID.contains(&name.as_str()) {
            continue;
        }
        if tag.starts_with('/') {
            depth = depth.saturating_sub(1);
        } else if !tag.split('>').next().is_some_and(|inside| inside.ends_with('/')) {
            depth += 1;
            deepest = deepest.max(depth);
        }
    }
    deepest
}

/// The text of `<title>`, converted like the rest so that entities are read.
fn title(source: &str) -> Option<String> {
    let lower = source.to_ascii_lowercase();
    let open = lower.find("<title")?;
    let start = open + lower[open..].find('>')? + 1;
    let end = start + lower[start..].find("</title")?;
    let text = htmd::convert(&source[start..end]).ok()?;
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_becomes_its_text() {
        let page = "<!doctype html><html><head><title>Store &amp; hours</title><style>p{}</style></head><body><nav><a href='/'>Home</a></nav>\
            <main><h1>Store</h1><h2>Hours</h2><p>Open <b>9</b> to 5.</p><ul><li>Graz</li></ul></main><footer>(c)</footer><script>x()</script></body></html>";
        let parsed = parse(page).unwrap();
        assert_eq!(parsed.title.as_deref(), Some("Store & hours"));
        insta::assert_snapshot!(parsed.text, @"
        # Store

        ## Hours

        Open **9** to 5.

        *   Graz
        ");
    }

    #[test]
    fn a_tower_of_tags_is_refused_not_climbed() {
        let error = parse(&"<div>".repeat(100_000)).unwrap_err();
        assert!(error.contains("100000 deep"), "{error}");
        assert!(parse(&"<p>x".repeat(1_000)).is_ok());
    }
}
