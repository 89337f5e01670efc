//! Messages to tokens, by the model's own chat template, so that nothing a customer writes can end a turn.

use groundtone_prompt::PromptMessage;
use llama_cpp_2::model::{LlamaChatMessage, LlamaChatTemplate, LlamaModel};
use llama_cpp_2::token::LlamaToken;

/// Stands in for a message's content while the template is applied; a private-use character that no template holds.
const MARK: char = '\u{E0F7}';
/// Text is tokenized in pieces of at most so many bytes: llama.cpp's time grows faster than linearly on one long word.
const PIECE_BYTES: usize = 8 * 1024;

/// A piece of a chat: the template's own text, or a message's content.
pub(super) enum Piece {
    Template(Vec<LlamaToken>),
    /// The message's number, and its tokens.
    Content(usize, Vec<LlamaToken>),
}

impl Piece {
    pub(super) fn into_tokens(self) -> Vec<LlamaToken> {
        match self {
            Self::Template(tokens) | Self::Content(_, tokens) => tokens,
        }
    }
}

/// The template is applied to stand-ins; its own text is read with special tokens, the contents without. `open` leaves the chat where the model's answer begins.
pub(super) fn tokenize_chat(
    model: &LlamaModel,
    template: &LlamaChatTemplate,
    messages: &[PromptMessage],
    open: bool,
) -> Result<Vec<Piece>, String> {
    let marked =
        |(at, message): (usize, &PromptMessage)| LlamaChatMessage::new(message.role.as_str().to_owned(), format!("{MARK}{at}{MARK}"));
    let chat = messages.iter().enumerate().map(marked).collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    let text = model.apply_chat_template(template, &chat, open).map_err(|error| format!("its chat template cannot be applied: {error}"))?;
    let vocabulary = model.vocab();
    // Odd pieces stand between two marks: they are the numbers of messages.
    let piece = |(at, piece): (usize, &str)| {
        if at % 2 == 0 {
            return Ok(Piece::Template(vocabulary.tokenize(piece.as_bytes(), at == 0, true)));
        }
        let number = piece.parse::<usize>().ok().filter(|&number| number < messages.len());
        let number = number.ok_or("its chat template changes what it is given")?;
        Ok(Piece::Content(number, tokenize_plain(model, &messages[number].content)))
    };
    text.split(MARK).enumerate().map(piece).collect()
}

/// Tokens of plain text, without special tokens, in linear time.
pub(super) fn tokenize_plain(model: &LlamaModel, text: &str) -> Vec<LlamaToken> {
    let vocabulary = model.vocab();
    pieces(text).flat_map(|piece| vocabulary.tokenize(piece.as_bytes(), false, false)).collect()
}

/// Cuts text at white space where there is some, else at a character, so that no piece is longer than [`PIECE_BYTES`].
pub(super) fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut cut = rest.floor_char_boundary(PIECE_BYTES);
        if cut < rest.len() {
            let window = &rest[..cut];
            cut = window.rfind([' ', '\n']).filter(|&space| space > PIECE_BYTES / 2).unwrap_or(cut);
        }
        let (piece, tail) = rest.split_at(cut);
        rest = tail;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_to_the_text() {
        for text in [String::new(), "a".repeat(50_000), "word ".repeat(10_000), "検索".repeat(9_000), "x".repeat(PIECE_BYTES)] {
            assert_eq!(pieces(&text).collect::<String>(), text);
            assert!(pieces(&text).all(|piece| !piece.is_empty() && piece.len() <= PIECE_BYTES));
        }
    }
}
