//! Retrieval measured on labelled questions, and the evidence gate fitted on them.
//!
//! A folder in BEIR's layout goes in ([`Dataset`]), its documents are indexed once ([`Corpus`]), each arm answers each question, and metrics with bootstrap intervals come
//! out ([`RetrievalReport`]); or labelled questions go in and a calibrated gate comes out ([`Calibration`]). It never prints and never reads the clock; seeds are passed in.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod beir;
mod bootstrap;
mod calibrate;
mod corpus;
mod error;
mod logistic;
pub mod metrics;
mod retrieval;

pub use beir::{Dataset, Document, Labelled, Question, read_labelled};
pub use bootstrap::{Difference, Estimate, paired_differences, resampled_means};
pub use calibrate::{Calibration, Quality, Row, Share, calibrate, held_out};
pub use corpus::{Corpus, CorpusProgress, Remembered};
pub use error::Error;
pub use logistic::{auc, fit, wilson};
pub use retrieval::{Arm, ArmReport, Pair, RetrievalReport, evaluate};
