//! How many rows are enough.

use super::Estimate;
use statrs::distribution::{ContinuousCDF, Normal};

/// Two-sided level of every test.
const LEVEL: f64 = 0.05;
/// The chance to see a difference that is there.
const POWER: f64 = 0.8;

fn quantiles() -> (f64, f64) {
    let normal = Normal::standard();
    (normal.inverse_cdf(1.0 - LEVEL / 2.0), normal.inverse_cdf(POWER))
}

/// The smallest difference of two arms' shares of right answers that `rows` paired rows show with 80 % power at the 5 % level, where the arms disagree on the share `discordance`
/// of them (Connor, Biometrics 43, 1987, solved for the difference). `None` where even the largest possible difference, the discordance itself, would not be seen.
pub fn minimum_detectable_effect(rows: f64, discordance: f64) -> Option<f64> {
    let (level, power) = quantiles();
    let needed =
        |effect: f64| (level * discordance.sqrt() + power * (discordance - effect * effect).max(0.0).sqrt()).powi(2) / (effect * effect);
    if !(rows > 0.0 && discordance > 0.0 && discordance <= 1.0) || needed(discordance) > rows {
        return None;
    }
    let (mut small, mut large) = (0.0, discordance);
    for _ in 0..60 {
        let middle = (small + large) / 2.0;
        if needed(middle) > rows { small = middle } else { large = middle }
    }
    Some(large)
}

/// How many rows like these `rows` would show that a difference is at least `distance` away from what it is held against, with 80 % power: the standard error, read off the
/// interval, shrinks with the root of the rows. Never fewer than there are; `None` where `distance` is zero.
pub fn rows_needed(rows: usize, difference: &Estimate, distance: f64) -> Option<usize> {
    let (level, power) = quantiles();
    let error = (difference.high - difference.low) / (2.0 * level);
    let times = ((level + power) * error / distance.abs()).powi(2);
    times.is_finite().then(|| ((rows as f64 * times).ceil() as usize).max(rows))
}

/// Whether one arm is at most `margin` worse than another: the whole interval of its difference (first minus second, more is better) lies above `-margin`.
/// With a 95 % interval that is a one-sided test at 2.5 %.
pub fn non_inferior(difference: &Estimate, margin: f64) -> bool {
    difference.low > -margin
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_visible_difference_is_connors() {
        // Connor's formula solved with scipy.optimize.brentq, SciPy 1.17.1.
        for (rows, discordance, expected) in
            [(100.0, 0.2, 0.123_819_331_484_413_75), (500.0, 0.2, 0.055_899_692_822_084_77), (1000.0, 0.3, 0.048_467_694_219_231_49)]
        {
            let found = minimum_detectable_effect(rows, discordance).unwrap();
            assert!((found - expected).abs() < 1e-9, "{rows} {discordance}: {found}");
        }
        assert_eq!(minimum_detectable_effect(5.0, 0.1), None);
        assert_eq!(minimum_detectable_effect(0.0, 0.1), None);
    }

    #[test]
    fn half_the_distance_needs_four_times_the_rows() {
        let difference = Estimate { value: 0.05, low: -0.05, high: 0.15 };
        let (far, near) = (rows_needed(100, &difference, 0.1).unwrap(), rows_needed(100, &difference, 0.05).unwrap());
        assert!(far > 100 && near.abs_diff(4 * far) <= 4, "{far} {near}");
        assert_eq!(rows_needed(100, &difference, 10.0), Some(100));
        assert_eq!(rows_needed(100, &difference, 0.0), None);
        assert!(non_inferior(&difference, 0.06) && !non_inferior(&difference, 0.05));
    }
}
