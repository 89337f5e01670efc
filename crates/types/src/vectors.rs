/// The cosine of two vectors of the same length, from -1 to 1; 0 where one of them is all zeros.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::cosine;

    #[test]
    fn cosine_is_of_directions() {
        for (a, b, expected) in
            [([3.0, 4.0], [6.0, 8.0], 1.0), ([1.0, 0.0], [0.0, 2.0], 0.0), ([1.0, 1.0], [-2.0, -2.0], -1.0), ([0.0, 0.0], [1.0, 2.0], 0.0)]
        {
            assert!((cosine(&a, &b) - expected).abs() < 1e-6, "{a:?} {b:?}");
        }
    }
}
