//! Trace set-up and the catalogue of span and field names.
