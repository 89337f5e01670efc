//! Arms asked the same questions, through the real serving path: an arm is a model name on an OpenAI-compatible address.

mod arm;
mod ask;
mod journal;
mod judge;

pub use arm::{ArmSpec, Shot, read_arms};
pub use ask::{Progress, RunSettings, Target, ask_all};
pub use journal::Journal;
pub use judge::{Judge, judge_pair};
