//! A model's own way of reading chats, without its weights.

use super::template::{self, Piece};
use groundtone_prompt::{CountTokens, PromptMessage, Role};
use groundtone_provider::Error;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaChatTemplate, LlamaModel};
use std::ops::Range;
use std::path::Path;

/// Used where a GGUF brings no chat template.
const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// A whole chat as the model reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatTokens {
    /// All of it, from the first token to the one that ends the last answer.
    pub tokens: Vec<u32>,
    /// What the model itself would write, for each message of the assistant.
    pub answers: Vec<Answer>,
}

/// A message of the assistant in [`ChatTokens`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its place among the messages.
    pub message: usize,
    /// Its tokens, with the one that ends it. What stands before them is, token for token, the prompt that this answer would be written for.
    pub tokens: Range<usize>,
}

/// Reads chats as the model does; only its vocabulary is loaded.
pub struct ChatTokenizer {
    id: String,
    model: LlamaModel,
    template: LlamaChatTemplate,
}

impl ChatTokenizer {
    /// Reads the vocabulary and the chat template of a GGUF file.
    ///
    /// # Errors
    /// A file that cannot be read or is no GGUF model.
    pub fn load(path: &Path, model_id: &str) -> Result<Self, Error> {
        let failed = |reason: String| Error::Model { model: model_id.to_owned(), reason };
        let shown = path.display();
        std::fs::File::open(path).map_err(|error| failed(format!("{shown} cannot be read: {error}")))?;
        let backend = super::BACKEND.as_ref().map_err(|error| failed(error.clone()))?;
        let model = LlamaModel::load_from_file(backend, path, &LlamaModelParams::default().with_vocab_only(true))
            .map_err(|_| failed(format!("{shown} is no GGUF model that llama.cpp can load")))?;
        let template = match model.chat_template(None) {
            Ok(template) => template,
            Err(_) => {
                tracing::warn!(model = model_id, "this GGUF has no chat template; ChatML is used");
                LlamaChatTemplate::new(CHATML).map_err(|error| failed(error.to_string()))?
            }
        };
        Ok(Self { id: format!("gguf:{model_id}"), model, template })
    }

    /// The prompt for the next answer.
    ///
    /// # Errors
    /// A template that cannot be applied.
    pub fn prompt(&self, messages: &[PromptMessage]) -> Result<Vec<u32>, String> {
        let pieces = template::tokenize_chat(&self.model, &self.template, messages, true)?;
        let tokens = pieces.into_iter().flat_map(Piece::into_tokens);
        Ok(tokens.map(|token| token.0.cast_unsigned()).collect())
    }

    /// A chat with its answers, to learn from: what stands before an answer is the prompt that the served model would get.
    ///
    /// # Errors
    /// A template that cannot be applied, or that does not end an answer with a token of its own.
    pub fn chat(&self, messages: &[PromptMessage]) -> Result<ChatTokens, String> {
        let vocabulary = self.model.vocab();
        let mut tokens: Vec<u32> = Vec::new();
        let mut answers: Vec<Answer> = Vec::new();
        let mut begun: Option<(usize, usize)> = None;
        let mut end = 0;
        for piece in template::tokenize_chat(&self.model, &self.template, messages, false)? {
            let (Piece::Template(read) | Piece::Content(_, read)) = &piece;
            if let (Piece::Template(read), Some((message, start))) = (&piece, begun.take()) {
                let last = read.iter().position(|&token| vocabulary.is_eog(token)).ok_or("its chat template does not end an answer")?;
                end = tokens.len() + last + 1;
                answers.push(Answer { message, tokens: start..end });
            }
            if let Piece::Content(number, _) = piece
                && messages[number].role == Role::Assistant
            {
                begun = Some((number, tokens.len()));
            }
            tokens.extend(read.iter().map(|token| token.0.cast_unsigned()));
        }
        tokens.truncate(end);
        Ok(ChatTokens { tokens, answers })
    }
}

impl CountTokens for ChatTokenizer {
    fn id(&self) -> &str {
        &self.id
    }

    fn token_starts(&self, text: &str) -> Vec<u32> {
        let vocabulary = self.model.vocab();
        let mut offset = 0u32;
        let mut starts = Vec::new();
        for token in template::tokenize_plain(&self.model, text) {
            starts.push(offset);
            offset += vocabulary.token_to_piece(token, false, None).len() as u32;
        }
        starts
    }

    fn count(&self, text: &str) -> usize {
        template::tokenize_plain(&self.model, text).len()
    }
}
