//! Citation markers: `[1]`, `[1, 2]`, `[12]`.

/// Most digits of a number.
const MOST_DIGITS: usize = 3;
/// Most numbers in one marker.
const MOST_NUMBERS: usize = 8;
/// What may be the beginning of a marker is waited for up to so many bytes.
const LONGEST: usize = 64;

/// A marker, in bytes of its group.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) numbers: Vec<usize>,
}

/// What stands at a bracket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum GroupAt {
    /// No marker.
    Nothing,
    /// It cannot be told yet.
    NeedMore,
    /// Markers with nothing but blanks between them, and the bytes that they take.
    Group(usize, Vec<Marker>),
}

/// The markers at the beginning of `text`, which begins with `[`; `ended` says that nothing follows `text`.
pub(crate) fn group_at(text: &str, ended: bool) -> GroupAt {
    let mut markers: Vec<Marker> = Vec::new();
    let mut from = 0;
    loop {
        let blanks = text[from..].len() - text[from..].trim_start_matches(' ').len();
        let start = from + blanks;
        let end = markers.last().map_or(0, |marker: &Marker| marker.end);
        let more = !ended && text.len() - from <= LONGEST;
        match one_at(&text[start..]) {
            One::Marker(length, numbers) => {
                markers.push(Marker { start, end: start + length, numbers });
                from = start + length;
            }
            One::Begun if more => return GroupAt::NeedMore,
            _ if markers.is_empty() => return GroupAt::Nothing,
            _ => return GroupAt::Group(end, markers),
        }
    }
}

/// All markers of a text, in its bytes.
pub(crate) fn markers_in(text: &str) -> Vec<Marker> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(at) = text[from..].find('[').map(|at| at + from) {
        from = at + 1;
        if let GroupAt::Group(length, markers) = group_at(&text[at..], true) {
            found.extend(markers.into_iter().map(|marker| Marker { start: marker.start + at, end: marker.end + at, ..marker }));
            from = at + length;
        }
    }
    found
}

enum One {
    Marker(usize, Vec<usize>),
    Begun,
    Nothing,
}

fn one_at(text: &str) -> One {
    if text.is_empty() {
        return One::Begun;
    }
    let Some(inside) = text.strip_prefix('[') else { return One::Nothing };
    let Some(close) = inside.find(|c: char| !(c.is_ascii_digit() || c == ',' || c == ' ')) else { return One::Begun };
    if !inside[close..].starts_with(']') {
        return One::Nothing;
    }
    let number = |part: &str| {
        let part = part.trim();
        if (1..=MOST_DIGITS).contains(&part.len()) { part.parse().ok() } else { None }
    };
    let numbers: Option<Vec<usize>> = inside[..close].split(',').map(number).collect();
    let length = close + 2;
    match (numbers, text[length..].chars().next()) {
        // `[1](address)` is a link.
        (_, Some('(')) => One::Nothing,
        (Some(numbers), _) if numbers.len() <= MOST_NUMBERS => One::Marker(length, numbers),
        _ => One::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_told_from_other_brackets() {
        let group = |text: &str| match group_at(text, true) {
            GroupAt::Group(length, markers) => Some((length, markers.into_iter().map(|marker| marker.numbers).collect::<Vec<_>>())),
            _ => None,
        };
        assert_eq!(group("[1]."), Some((3, vec![vec![1]])));
        assert_eq!(group("[1] [2, 3][12] x"), Some((14, vec![vec![1], vec![2, 3], vec![12]])));
        assert_eq!(group("[1] [x]"), Some((3, vec![vec![1]])));
        assert_eq!(group("[1] [2](x)"), Some((3, vec![vec![1]])));
        for text in ["[1](x)", "[1234]", "[i]", "[]", "[1,]", "[1", "[1,2,3,4,5,6,7,8,9]"] {
            assert_eq!(group(text), None, "{text}");
        }
        for begun in ["[", "[1", "[1,", "[1]", "[1] ", "[1] ["] {
            assert_eq!(group_at(begun, false), GroupAt::NeedMore, "{begun}");
        }
    }
}
