//! Embedder and chat model in process; model files and where they come from.
