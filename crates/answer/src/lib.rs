//! Question in, cited answer out: resolve, retrieve, gate, render, generate, read.
//!
//! What the model writes passes a reader that checks citations and takes unknown links out while it is written. A reply without streaming is the stream read to its end,
//! so both always say the same. Where too little is found no model is asked, and the answer is the abstain text. This crate never knows about HTTP.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod answerer;
mod error;
mod evidence;
mod question;
mod summary;
mod writing;

pub use answerer::{Answerer, Assistant};
pub use error::Error;
pub use evidence::Found;
pub use question::Question;
pub use summary::{AbstainReason, Answer, AnswerEvent, AnswerStream, CitedSource, EvidenceScore, Summary, Timings};
