//! How much of a difference is chance, before, during and after a run. Pure: seeds and observations come in, numbers go out.
//!
//! Before: [`minimum_detectable_effect`]. After: [`Resamples`] (paired bootstrap over clusters), [`mcnemar`], [`wilcoxon`], [`holm`], [`non_inferior`].
//! During: [`CanaryTest`], which may be looked at after every observation.

mod bootstrap;
mod canary;
mod paired;
mod power;
mod resample;

pub use bootstrap::{Difference, Estimate, paired_differences, resampled_means};
pub use canary::{CanarySettings, CanaryTest, Decision, Side, Signal, SignalRule, Standing};
pub use paired::{Discordant, holm, mcnemar, wilcoxon};
pub use power::{minimum_detectable_effect, non_inferior, rows_needed};
pub use resample::{Part, Resamples, Scores};
