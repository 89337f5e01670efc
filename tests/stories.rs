//! Stories that see only the binary and the wire: the real embedder, the real store, the real local chat model.
//!
//! Model files come from `groundtone models pull`, which `./gt test` has run. `GROUNDTONE_TEST_PYTHONPATH` names the folder of the official openai package.
#![allow(unreachable_pub, reason = "the modules of one test binary use each other")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking and print what they measured"
)]

mod stories {
    pub mod adapters;
    pub mod architecture;
    pub mod bad_input;
    pub mod beside_server;
    pub mod conformance;
    pub mod datasets;
    pub mod docs;
    pub mod evaluations;
    pub mod fault_cases;
    pub mod faults;
    pub mod feedback;
    pub mod first_answer;
    pub mod formats;
    pub mod full_disk;
    pub mod generations;
    pub mod handoff;
    pub mod ingest;
    pub mod operations;
    pub mod releases;
    pub mod reports;
    pub mod retrieval;
    pub mod spans;
    pub mod support;
    pub mod tuning;
}
