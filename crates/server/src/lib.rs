//! The HTTP surface: thin handlers around use-cases.
