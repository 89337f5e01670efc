//! The one renderer: snippets and conversation in, messages and citation map out.
