//! Logistic regression for a handful of features, and what goes with it: AUC and Wilson's interval.

/// Rounds of Newton's method; it converges in fewer than ten.
const ROUNDS: usize = 50;
/// Pulls the weights of standardised features towards zero, so that separable data has an answer.
const RIDGE: f64 = 1.0;

/// Solves `a x = b` by elimination with pivoting. A row that vanishes leaves its unknown at 0.
fn solve(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Vec<f64> {
    let n = b.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|x, y| a[*x][column].abs().total_cmp(&a[*y][column].abs())).unwrap_or(column);
        a.swap(column, pivot);
        b.swap(column, pivot);
        if a[column][column].abs() < 1e-12 {
            continue;
        }
        for row in column + 1..n {
            let factor = a[row][column] / a[column][column];
            let (above, below) = a.split_at_mut(row);
            below[0][column..].iter_mut().zip(&above[column][column..]).for_each(|(x, y)| *x -= factor * y);
            b[row] -= factor * b[column];
        }
    }
    let mut x = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|column| a[row][column] * x[column]).sum();
        x[row] = if a[row][row].abs() < 1e-12 { 0.0 } else { (b[row] - known) / a[row][row] };
    }
    x
}

/// Intercept and weights that make `1 / (1 + exp(-(intercept + weights . features)))` the probability of `true`: the maximum of the likelihood with a ridge on the weights
/// of the standardised features, by Newton's method (Hastie et al., The Elements of Statistical Learning, 4.4). Both labels weigh the same, however many there are of each.
pub fn fit<const N: usize>(rows: &[([f64; N], bool)]) -> (f64, [f64; N]) {
    let count = rows.len().max(1) as f64;
    let mean: [f64; N] = std::array::from_fn(|at| rows.iter().map(|(x, _)| x[at]).sum::<f64>() / count);
    let deviation: [f64; N] = std::array::from_fn(|at| {
        let variance = rows.iter().map(|(x, _)| (x[at] - mean[at]).powi(2)).sum::<f64>() / count;
        if variance > 1e-12 { variance.sqrt() } else { 1.0 }
    });
    let positives = rows.iter().filter(|(_, label)| *label).count().max(1) as f64;
    let negatives = (rows.len() as f64 - positives).max(1.0);
    let weight_of = |label: bool| count / 2.0 / if label { positives } else { negatives };
    let mut beta = vec![0.0; N + 1];
    for _ in 0..ROUNDS {
        let (mut gradient, mut hessian) = (vec![0.0; N + 1], vec![vec![0.0; N + 1]; N + 1]);
        for (features, label) in rows {
            let x: Vec<f64> = std::iter::once(1.0).chain((0..N).map(|at| (features[at] - mean[at]) / deviation[at])).collect();
            let p = 1.0 / (1.0 + (-x.iter().zip(&beta).map(|(x, b)| x * b).sum::<f64>()).exp());
            let weight = weight_of(*label);
            for i in 0..=N {
                gradient[i] += weight * (f64::from(u8::from(*label)) - p) * x[i];
                for j in 0..=N {
                    hessian[i][j] += weight * p * (1.0 - p) * x[i] * x[j];
                }
            }
        }
        for at in 1..=N {
            gradient[at] -= RIDGE * beta[at];
            hessian[at][at] += RIDGE;
        }
        let step = solve(hessian, gradient);
        beta.iter_mut().zip(&step).for_each(|(b, s)| *b += s);
        if step.iter().all(|s| s.abs() < 1e-9) {
            break;
        }
    }
    let weights: [f64; N] = std::array::from_fn(|at| beta[at + 1] / deviation[at]);
    let intercept = beta[0] - weights.iter().zip(mean).map(|(weight, mean)| weight * mean).sum::<f64>();
    (intercept, weights)
}

/// The area under the ROC curve: how likely a `true` row has a higher score than a `false` one, ties count half (Mann and Whitney). 0.5 is chance.
pub fn auc(scores: &[(f64, bool)]) -> f64 {
    let mut sorted = scores.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = sorted.iter().filter(|(_, label)| *label).count();
    let negatives = sorted.len() - positives;
    let (mut rank_sum, mut start) = (0.0, 0);
    while start < sorted.len() {
        let end = start + sorted[start..].iter().take_while(|(score, _)| *score == sorted[start].0).count();
        // Equal scores share the mean of their ranks.
        let rank = (start + 1 + end) as f64 / 2.0;
        rank_sum += rank * sorted[start..end].iter().filter(|(_, label)| *label).count() as f64;
        start = end;
    }
    if positives == 0 || negatives == 0 {
        return 0.5;
    }
    (rank_sum - (positives * (positives + 1)) as f64 / 2.0) / (positives * negatives) as f64
}

/// Wilson's 95 % interval of a share (JASA 1927): `(low, high)`.
pub fn wilson(hits: usize, of: usize) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, p, z) = (of as f64, hits as f64 / of as f64, 1.959_964);
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_curve_is_found_again() {
        // Probabilities of 1 / (1 + exp(-(1 + 2 x))), as shares of 1,000 at each of 41 places.
        let mut rows = Vec::new();
        for place in -20..=20 {
            let x = f64::from(place) / 10.0;
            let share = (1_000.0 / (1.0 + (-(1.0 + 2.0 * x)).exp())).round() as usize;
            rows.extend((0..1_000).map(|at| ([x, 5.0], at < share)));
        }
        let (intercept, weights) = fit(&rows);
        assert!((weights[0] - 2.0).abs() < 0.05, "{weights:?}");
        assert!(weights[1].abs() < 1e-6, "a constant says nothing");
        // Both labels weigh the same, which moves the intercept by the logarithm of their odds.
        let positives = rows.iter().filter(|(_, label)| *label).count() as f64;
        let odds = (positives / (rows.len() as f64 - positives)).ln();
        assert!((intercept - (1.0 - odds)).abs() < 0.1, "{intercept} {odds}");
    }

    #[test]
    fn data_without_overlap_has_an_answer_too() {
        let rows: Vec<([f64; 1], bool)> = (0..40).map(|at| ([f64::from(at)], at >= 20)).collect();
        let (intercept, [weight]) = fit(&rows);
        let probability = |x: f64| 1.0 / (1.0 + (-(intercept + weight * x)).exp());
        assert!(weight.is_finite() && probability(10.0) < 0.2 && probability(30.0) > 0.8);
    }

    #[test]
    fn areas_and_intervals_are_the_textbooks() {
        assert_eq!(auc(&[(0.1, false), (0.4, false), (0.35, true), (0.8, true)]), 0.75);
        assert_eq!(auc(&[(0.5, false), (0.5, true)]), 0.5);
        assert_eq!(auc(&[(0.5, true)]), 0.5);
        let (low, high) = wilson(8, 10);
        assert!((low - 0.4902).abs() < 1e-3 && (high - 0.9433).abs() < 1e-3, "{low} {high}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
    }
}
