use super::{Parsed, Shape};
use crate::chunk::first_heading;

/// Takes the front matter off; the title is `title:` in it, else the first heading.
pub(crate) fn parse(source: &str) -> Result<Parsed, String> {
    let (front, body) = split_front_matter(source);
    let from_front =
        front.lines().find_map(|line| line.strip_prefix("title:")).map(|title| title.trim().trim_matches(['"', '\'']).to_owned());
    let title = from_front.filter(|title| !title.is_empty()).or_else(|| first_heading(body));
    Ok(Parsed { title, text: body.to_owned(), shape: Shape::Markdown, pages: Vec::new() })
}

/// YAML between `---` lines at the very start; without an end there is none.
fn split_front_matter(source: &str) -> (&str, &str) {
    let Some(rest) = source.strip_prefix("---\n").or_else(|| source.strip_prefix("---\r\n")) else { return ("", source) };
    let mut offset = 0;
    for line in rest.split_inclusive('\n') {
        if line.trim_end() == "---" {
            return (&rest[..offset], &rest[offset + line.len()..]);
        }
        offset += line.len();
    }
    ("", source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_gives_the_title_and_is_not_text() {
        let parsed = parse("---\ntitle: \"Returns\"\ntags: [a]\n---\n# Other\nBody").unwrap();
        assert_eq!((parsed.title.as_deref(), parsed.text.as_str()), (Some("Returns"), "# Other\nBody"));
        let parsed = parse("# Care *guide*\nBody").unwrap();
        assert_eq!(parsed.title.as_deref(), Some("Care guide"));
        let parsed = parse("---\nnot front matter\n").unwrap();
        assert_eq!((parsed.title, parsed.text.as_str()), (None, "---\nnot front matter\n"));
    }
}
