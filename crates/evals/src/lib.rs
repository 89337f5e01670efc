//! What is good enough, decided with evidence.
//!
//! Held-out rows go in ([`CaseSet`]), several arms are asked through the real serving path ([`run`]), answers are measured ([`metrics`]), differences are held against chance ([`stats`]),
//! and a verdict with a report comes out ([`decide`]). [`Material::advise`] says before any training whether there is a reason for it.
//! Beside that: a folder in BEIR's layout goes in ([`Dataset`]), its documents are indexed once ([`Corpus`]), and retrieval is measured ([`RetrievalReport`]);
//! or labelled questions go in and a calibrated gate comes out ([`Calibration`]). This crate never prints; dates and seeds are passed in.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking"))]

mod advise;
mod beir;
mod calibrate;
mod case;
mod corpus;
pub mod decide;
mod error;
mod logistic;
pub mod metrics;
mod retrieval;
pub mod run;
pub mod stats;
mod unmet;

pub use advise::{Advice, Check, Logged, Material, Points};
pub use beir::{Dataset, Document, Labelled, Question, read_labelled};
pub use calibrate::{Calibration, Quality, Row, Share, calibrate, held_out};
pub use case::{Case, CaseSet, Cited, Reply, Source};
pub use corpus::{Corpus, CorpusProgress, Remembered};
pub use error::Error;
pub use logistic::{auc, fit, wilson};
pub use retrieval::{Arm, ArmReport, Pair, RetrievalReport, evaluate};
pub use stats::{Difference, Estimate};
pub use unmet::{MOST_UNMET, Remedy, SAME_SUBJECT, Subject, Unmet, read_unmet, subjects};
