//! One module for each subcommand.

pub(crate) mod ask;
pub(crate) mod dataset;
pub(crate) mod demo;
pub(crate) mod eval;
pub(crate) mod extract;
pub(crate) mod extract_worker;
pub(crate) mod fsck;
pub(crate) mod generations;
pub(crate) mod ingest;
pub(crate) mod models;
pub(crate) mod release;
pub(crate) mod runs;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod tune;
