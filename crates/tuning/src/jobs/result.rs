//! The result file of a job: what every step measured, as OpenAI writes it.

use groundtone_catalog::StepRecord;
use std::fmt::Write;

const HEADER: &str = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy";

/// `step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy`, a line for each step; empty cells where nothing was measured. At the end of an epoch the cells of
/// `valid` are of the whole validation file.
pub fn result_csv(steps: &[StepRecord]) -> String {
    let mut csv = format!("{HEADER}\n");
    let cell = |value: Option<f64>| value.map(|value| format!("{value:.5}")).unwrap_or_default();
    for step in steps {
        let valid_loss = cell(step.full_valid_loss.or(step.valid_loss));
        let valid_accuracy = cell(step.full_valid_accuracy.or(step.valid_accuracy));
        // Writing to a string does not fail.
        let _ = writeln!(csv, "{},{:.5},{:.5},{valid_loss},{valid_accuracy}", step.step, step.train_loss, step.train_accuracy);
    }
    csv
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_without_a_measurement_are_empty() {
        let plain = StepRecord { step: 1, train_loss: 2.5, train_accuracy: 0.5, ..StepRecord::default() };
        let measured = StepRecord { step: 2, valid_loss: Some(3.0), full_valid_loss: Some(2.0), valid_accuracy: Some(0.25), ..plain };
        assert_eq!(
            result_csv(&[plain, measured]),
            "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,2.50000,0.50000,,\n2,2.50000,0.50000,2.00000,0.25000\n"
        );
    }
}
