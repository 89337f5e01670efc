//! Seeded choices that depend on nothing but the seed and the place of a row, so that concurrency and resuming cannot change them.

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): every seed gives a sequence of its own.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    /// The sequence of one thing (`place`) under a seed.
    pub(crate) fn new(seed: u64, place: u64) -> Self {
        Self(mix(seed) ^ mix(place.wrapping_add(0x5851_F42D_4C95_7F2D)))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
    }
}

pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// The `place`th number of a sequence in [0, 1) that fills the interval evenly from the beginning (multiples of the golden ratio, Weyl 1916), so that
/// shares are kept by every prefix and not only on average.
pub(crate) fn even(seed: u64, place: u64) -> f64 {
    let at = mix(seed ^ 0xA5A5_5A5A_0F0F_F0F0).wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    (at >> 11) as f64 / (1u64 << 53) as f64
}
