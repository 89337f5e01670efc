//! Qdrant Edge, embedded: the default index.
