//! The ledger: which documents are indexed, and the runs that indexed them.
