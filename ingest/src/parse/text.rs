use super::{Parsed, Shape};

/// Longest first line that passes for a title.
const TITLE_CHARS: usize = 80;

/// The title is the first line, if it stands alone and is short.
pub(crate) fn parse(source: &str) -> Result<Parsed, String> {
    let mut lines = source.lines().skip_while(|line| line.trim().is_empty());
    let first = lines.next().map(str::trim).unwrap_or_default();
    let alone = lines.next().is_none_or(|second| second.trim().is_empty() || second.trim().chars().all(|c| matches!(c, '=' | '-')));
    let title = (alone && !first.is_empty() && first.chars().count() <= TITLE_CHARS && !first.ends_with('.')).then(|| first.to_owned());
    Ok(Parsed { title, text: source.to_owned(), shape: Shape::Text, pages: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_first_line_is_the_title() {
        assert_eq!(parse("\nOpening hours\n=====\nMonday").unwrap().title.as_deref(), Some("Opening hours"));
        assert_eq!(parse("This is a letter that\ngoes on.").unwrap().title, None);
    }
}
