//! Documents: source, extract, chunk, embed, publish.
