//! The one renderer: snippets and conversation in, messages and citation map out.

mod message;
mod tokens;

pub use message::{PromptMessage, Role};
pub use tokens::{CountTokens, OpenAiTokens};
