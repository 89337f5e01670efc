use super::{Parsed, Shape};
use serde::{Deserialize, Serialize};
use tree_sitter::Language;

/// A language with a grammar. C is read as C++, whose grammar accepts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "their names say what they are")]
pub enum CodeLanguage {
    Rust,
    Python,
    JavaScript,
    TypeScript,
    Tsx,
    Go,
    Java,
    Cpp,
}

impl CodeLanguage {
    /// Where its pieces begin and end, for the splitter.
    pub fn grammar(self) -> Language {
        match self {
            Self::Rust => tree_sitter_rust::LANGUAGE.into(),
            Self::Python => tree_sitter_python::LANGUAGE.into(),
            Self::JavaScript => tree_sitter_javascript::LANGUAGE.into(),
            Self::TypeScript => tree_sitter_typescript::LANGUAGE_TYPESCRIPT.into(),
            Self::Tsx => tree_sitter_typescript::LANGUAGE_TSX.into(),
            Self::Go => tree_sitter_go::LANGUAGE.into(),
            Self::Java => tree_sitter_java::LANGUAGE.into(),
            Self::Cpp => tree_sitter_cpp::LANGUAGE.into(),
        }
    }
}

/// Code is kept as it is; a file says no title, its name is one.
pub(super) fn parse(source: &str, language: CodeLanguage) -> Parsed {
    Parsed { title: None, text: source.to_owned(), shape: Shape::Code(language), pages: Vec::new() }
}

/// Code of a language whose grammar is not compiled in: kept as it is, cut like text.
pub(super) fn parse_without_grammar(source: &str) -> Parsed {
    Parsed { title: None, text: source.to_owned(), shape: Shape::Text, pages: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grammar_loads_and_reads_its_language() {
        let cases = [
            (CodeLanguage::Rust, "fn main() { let x = 1; }"),
            (CodeLanguage::Python, "def main():\n    return 1\n"),
            (CodeLanguage::JavaScript, "const main = () => <b>1</b>;"),
            (CodeLanguage::TypeScript, "const main = (x: number): number => x;"),
            (CodeLanguage::Tsx, "const main = (x: number) => <b>{x}</b>;"),
            (CodeLanguage::Go, "package main\nfunc main() { println(1) }\n"),
            (CodeLanguage::Java, "class Main { int one() { return 1; } }"),
            (CodeLanguage::Cpp, "struct a { int b; }; int main(void) { return sizeof(struct a); }"),
        ];
        for (language, source) in cases {
            let mut parser = tree_sitter::Parser::new();
            parser.set_language(&language.grammar()).unwrap();
            let tree = parser.parse(source, None).unwrap();
            assert!(!tree.root_node().has_error(), "{language:?}");
        }
    }
}
