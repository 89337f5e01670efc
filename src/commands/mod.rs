//! One module for each subcommand.

pub(crate) mod ask;
pub(crate) mod dataset;
pub(crate) mod demo;
pub(crate) mod eval;
pub(crate) mod extract;
pub(crate) mod extract_worker;
pub(crate) mod fsck;
pub(crate) mod generations;
pub(crate) mod handoffs;
pub(crate) mod ingest;
pub(crate) mod keys;
pub(crate) mod models;
pub(crate) mod release;
pub(crate) mod runs;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod traces;
pub(crate) mod tune;

/// Seconds since 1970 as people write them, in UTC.
pub(crate) fn when(seconds: i64) -> String {
    chrono::DateTime::from_timestamp(seconds, 0).map_or_else(|| seconds.to_string(), |at| at.format("%Y-%m-%d %H:%M:%S").to_string())
}
