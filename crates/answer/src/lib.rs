//! Question in, cited answer out: resolve, retrieve, gate, render, generate, read.
//!
//! What the model writes passes a reader that checks citations and takes unknown links out while it is written. A reply without streaming is the stream read to its end,
//! so both always say the same. Where too little is found no model is asked, and the answer is the abstain text. An assistant answers as one of its variants; [`route`] decides as which. This crate never knows about HTTP.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod answerer;
mod condense;
mod error;
mod evidence;
mod plain;
mod question;
mod release;
mod route;
mod semantic;
mod shadow;
mod summary;
mod variant;
mod watch;
mod writing;

pub use answerer::{Answerer, Assistant, RAG};
pub use error::Error;
pub use evidence::Found;
pub use plain::stream_plain;
pub use question::Question;
pub use release::{Change, Refused, ReleaseState};
pub use route::{Canary, Decision, Live, route};
pub use semantic::Semantics;
pub use shadow::{ShadowAnswer, ShadowSink};
pub use summary::{AbstainReason, Answer, AnswerEvent, AnswerStream, CitedSource, EvidenceScore, Summary, Timings, collect};
pub use variant::Variant;
pub use watch::{Ended, Ending, Watch};
