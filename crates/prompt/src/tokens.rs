use crate::pieces::{CL100K, O200K, Pieces};
use std::sync::Arc;

/// Counts tokens the way one model does.
///
/// Implementations are linear in the length of the text, whatever the text: counting runs on unbounded input.
pub trait CountTokens: Send + Sync {
    /// Name of the tokenizer; part of the prompt's fingerprint.
    fn id(&self) -> &str;

    /// The byte offset in `text` at which each token starts, ascending. Its length is the token count.
    ///
    /// Chunkers size by this index instead of tokenizing every candidate again (measured: 6 to 8 times faster).
    fn token_starts(&self, text: &str) -> Vec<u32>;

    /// Number of tokens of `text`, without special tokens.
    fn count(&self, text: &str) -> usize {
        self.token_starts(text).len()
    }
}

/// The tokenizers of OpenAI's models, by `bpe-openai`.
///
/// The same tokens as tiktoken (a test compares them with `tiktoken-rs`), in linear time on hostile input, where tiktoken-rs does not finish
/// (docs/decisions/0003-token-counting.md).
pub struct OpenAiTokens {
    id: &'static str,
    tokenizer: &'static bpe_openai::Tokenizer,
    pieces: &'static Pieces,
}

impl OpenAiTokens {
    /// The tokenizer that `model` uses: `cl100k_base` for GPT-4, GPT-3.5 and the ada embedders, `o200k_base` for everything since, and for unknown names.
    pub fn for_model(model: &str) -> Arc<Self> {
        let base = model.strip_prefix("ft:").unwrap_or(model);
        let older = base.starts_with("gpt-3.5") || base.starts_with("text-embedding") || base == "gpt-4" || base.starts_with("gpt-4-");
        Arc::new(if older {
            Self { id: "cl100k_base", tokenizer: bpe_openai::cl100k_base(), pieces: &CL100K }
        } else {
            Self { id: "o200k_base", tokenizer: bpe_openai::o200k_base(), pieces: &O200K }
        })
    }
}

impl CountTokens for OpenAiTokens {
    fn id(&self) -> &str {
        self.id
    }

    fn token_starts(&self, text: &str) -> Vec<u32> {
        let mut starts = Vec::with_capacity(text.len() / 3);
        self.pieces.starts(self.tokenizer, text, &mut starts);
        starts
    }

    fn count(&self, text: &str) -> usize {
        self.tokenizer.count(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tokens_are_tiktokens() {
        let texts = [
            "",
            "Hello, world",
            "30-day returns: €49.90 [1]",
            "Fahrräder für Übermorgen",
            "検索拡張生成",
            "a\n\n\n  b\t\tc",
            "🚲🚲 don't WON'T I'll",
            "x = {\"k\": [1, 2]}",
        ];
        let judges = [("gpt-4", tiktoken_rs::cl100k_base_singleton()), ("gpt-4.1-mini", tiktoken_rs::o200k_base_singleton())];
        for (model, judge) in judges {
            let ours = OpenAiTokens::for_model(model);
            for text in texts {
                assert_eq!(ours.count(text), judge.encode_ordinary(text).len(), "{model}: {text:?}");
                assert_eq!(ours.token_starts(text).len(), ours.count(text), "{model}: {text:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_short_cuts_change_no_token(text in prop_oneof![
            "[a-zA-Z0-9 '.,(\n\r\té中́ǅ_-]{0,60}",
            "([ \t\n\r\u{b}\u{85}\u{3000}/'*.]{0,4}(a|Zü|9|é|\u{301}|\u{0}|/|\\.\\.|don't)){0,16}",
            "([A-Z]{0,3}[a-z]{0,4}('s|'LL|'x| |\n|  |9{0,5}|é|\u{301}|\u{212a})){0,12}",
            any::<String>(),
        ]) {
            for model in ["gpt-4", "gpt-4o"] {
                let ours = OpenAiTokens::for_model(model);
                let (mut plain, mut offset) = (Vec::new(), 0);
                for token in ours.tokenizer.encode(text.as_str()) {
                    plain.push(offset);
                    offset += ours.tokenizer.bpe.token_len(token) as u32;
                }
                prop_assert_eq!(ours.token_starts(&text), plain, "{} {:?}", model, text);
            }
        }
    }

    #[test]
    fn the_tokenizer_follows_the_model() {
        for (model, id) in [
            ("gpt-4", "cl100k_base"),
            ("gpt-4-0613", "cl100k_base"),
            ("gpt-3.5-turbo", "cl100k_base"),
            ("gpt-4o-mini", "o200k_base"),
            ("ft:gpt-4.1-nano:acme::x", "o200k_base"),
            ("ft:gpt-3.5-turbo:acme::x", "cl100k_base"),
        ] {
            assert_eq!(OpenAiTokens::for_model(model).id(), id, "{model}");
        }
    }

    #[test]
    fn hostile_text_is_counted_at_all() {
        // tiktoken-rs does not finish on these (FINDINGS); a hang here fails the run's time limit.
        let ours = OpenAiTokens::for_model("gpt-4o");
        for text in ["a".repeat(160_000), " ".repeat(160_000), "検索拡張生成".repeat(9_000)] {
            assert!(ours.count(&text) > 100);
        }
    }
}
