//! Where sentences begin and end (UAX #29 and line ends).

use unicode_segmentation::UnicodeSegmentation;

/// Sentences as byte ranges; a marker (`markers`: byte ranges, in order) right behind a full stop belongs to the sentence before it.
pub(crate) fn sentences(text: &str, markers: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (start, sentence) in text.split_sentence_bound_indices() {
        let end = start + sentence.len();
        let inside = || markers.iter().filter(move |(first, last)| *first >= start && *last <= end);
        let only_markers = {
            let mut rest = sentence.to_owned();
            for (first, last) in inside().rev() {
                rest.replace_range(first - start..last - start, "");
            }
            rest.chars().all(|c| !c.is_alphanumeric())
        };
        let leading = inside().find(|(first, _)| text[start..*first].trim().is_empty()).map(|(_, last)| *last);
        let splits_marker = markers.iter().any(|(first, last)| *first < start && start < *last);
        match ranges.last_mut() {
            Some(last) if only_markers || splits_marker => last.1 = end,
            Some(last) if leading.is_some() => {
                let cut = leading.unwrap_or(start);
                last.1 = cut;
                ranges.push((cut, end));
            }
            _ => ranges.push((start, end)),
        }
    }
    ranges
}

/// The sentences of a text that say something.
pub fn statements(text: &str) -> Vec<String> {
    let found = sentences(text, &[]).into_iter().map(|(start, end)| text[start..end].trim().to_owned());
    found.filter(|sentence| sentence.chars().any(char::is_alphanumeric)).collect()
}

/// What stands before a marker at the end of `text`: its last sentence, but nothing from before `from`, the end of the markers before; `None` where that holds no word.
pub(crate) fn last_claim(text: &str, from: usize) -> Option<&str> {
    let line = text.trim_end().rfind('\n').map_or(0, |at| at + 1).max(from);
    let rest = text.get(line..)?;
    let wordy = |sentence: &&str| sentence.chars().any(char::is_alphanumeric);
    rest.split_sentence_bounds().filter(wordy).last().map(str::trim)
}
