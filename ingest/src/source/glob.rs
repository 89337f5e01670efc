//! Patterns for files: `docs/**/*.md` is the folder `docs` and what in it matches `**/*.md`.

use globset::{GlobBuilder, GlobMatcher};
use std::path::{Path, PathBuf};

/// What makes a path a pattern. A backslash does too: it escapes, so the path is not literal.
const SPECIAL: &[char] = &['*', '?', '[', '{', '\\'];

/// A pattern, cut in front of the first part that is not literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    /// The folder above everything that can match.
    pub(super) root: PathBuf,
    /// What matches in it.
    pub(super) rest: String,
}

/// Cuts a pattern; `None` where nothing in the path is special.
pub(super) fn split(path: &Path) -> Option<Pattern> {
    let text = path.to_str()?;
    let special = text.find(SPECIAL)?;
    let cut = text[..special].rfind('/').map_or(0, |slash| slash + 1);
    let root = match &text[..cut] {
        "" => PathBuf::from("."),
        "/" => PathBuf::from("/"),
        folder => PathBuf::from(folder.trim_end_matches('/')),
    };
    Some(Pattern { root, rest: text[cut..].to_owned() })
}

impl Pattern {
    /// `*` and `?` stay in their folder, `**` goes down.
    pub(super) fn matcher(&self) -> Result<GlobMatcher, String> {
        let glob = GlobBuilder::new(&self.rest).literal_separator(true).build();
        glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("the pattern is not valid: {}", error.kind()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> Option<(String, String)> {
        split(Path::new(text)).map(|pattern| (pattern.root.display().to_string(), pattern.rest))
    }

    fn cut(root: &str, rest: &str) -> Option<(String, String)> {
        Some((root.to_owned(), rest.to_owned()))
    }

    #[test]
    fn a_pattern_is_cut_in_front_of_its_first_special_part() {
        assert_eq!(pattern("docs/**/*.md"), cut("docs", "**/*.md"));
        assert_eq!(pattern("*.md"), cut(".", "*.md"));
        assert_eq!(pattern("/*.md"), cut("/", "*.md"));
        assert_eq!(pattern("/a/b-{x/y,z}/c"), cut("/a", "b-{x/y,z}/c"));
        assert_eq!(pattern("a/b\\*c/d"), cut("a", "b\\*c/d"));
        assert_eq!(pattern("docs/guide.md"), None);
    }

    #[test]
    fn stars_stay_in_their_folder() {
        let matches = |text: &str, id: &str| split(Path::new(text)).unwrap().matcher().unwrap().is_match(id);
        assert!(matches("docs/*.md", "a.md") && !matches("docs/*.md", "x/a.md"));
        assert!(matches("docs/**/*.md", "a.md") && matches("docs/**/*.md", "x/y/a.md"));
        assert!(split(Path::new("docs/[a")).unwrap().matcher().unwrap_err().starts_with("the pattern is not valid"));
    }

    proptest! {
        /// A file below the root matches the rest exactly when its whole path matches the whole pattern.
        #[test]
        fn ids_match_the_rest_as_paths_match_the_whole(
            folders in proptest::collection::vec("[a-c]{1,2}", 1..3),
            rest in "(\\*\\*/|[ab*?]{1,3}/){0,2}[*?][ab*?]{0,2}",
            id in "([a-c]{1,2}/){0,2}[a-c]{1,3}",
        ) {
            let folder = folders.join("/");
            let text = format!("{folder}/{rest}");
            let pattern = split(Path::new(&text)).unwrap();
            prop_assert_eq!(&format!("{}/{}", pattern.root.display(), pattern.rest), &text);
            prop_assert!(!pattern.root.to_str().unwrap().contains(SPECIAL));
            let whole = GlobBuilder::new(&text).literal_separator(true).build().unwrap().compile_matcher();
            let below = Path::new(&folder).join(&id);
            // The root itself is a folder and never a document.
            if let Ok(id) = below.strip_prefix(&pattern.root) && id != Path::new("") {
                prop_assert_eq!(pattern.matcher().unwrap().is_match(id), whole.is_match(&below));
            }
        }
    }
}
