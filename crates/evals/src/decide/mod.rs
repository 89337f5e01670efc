//! From answers to a decision: metrics with intervals, arms held against each other, a verdict, a report.

mod compute;
mod html;
mod report;
mod verdict;

pub use compute::decide;
pub use report::{
    ArmReport, ArmRun, BreakEven, Cost, DecideSettings, DecisionReport, Disagreement, JudgedPair, MetricInfo, PairReport, PairTest,
    SetInfo, Value,
};
pub use verdict::{Decision, Evidence, Measured, Passing, Role, Standing, Verdict, verdict};
