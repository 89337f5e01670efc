//! Question in, cited answer out: retrieve, render, generate, cite.
//!
//! A reply without streaming is the stream read to its end, so both always say the same. This crate never knows about HTTP.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod answerer;
mod error;

pub use answerer::{Answer, AnswerEvent, AnswerStream, Answerer, Assistant, CitedSource, Question, Summary, Timings};
pub use error::Error;
