//! Question in, ranked snippets out.
