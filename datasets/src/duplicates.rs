//! Near duplicates among texts: MinHash signatures, banded (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, chapter 3).

use rayon::prelude::*;
use std::collections::HashMap;

/// Hash functions of a signature: the estimate's standard error is at most 1 / (2 * sqrt(128)) = 0.044.
const HASHES: usize = 128;
/// Rows of a band; 32 bands of 4 find a pair of similarity 0.8 with probability 1 - (1 - 0.8^4)^32 > 0.9999.
const BAND: usize = 4;
/// Bytes of a shingle, over lower-cased letters, digits and single spaces.
const SHINGLE: usize = 4;

/// The similarity of shingle sets (Jaccard) from which two texts count as near duplicates.
pub const NEAR_DUPLICATE_SIMILARITY: f64 = 0.8;

fn mix(mut x: u64) -> u64 {
    // splitmix64's finaliser (Steele, Lea and Flood 2014).
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// 64-bit FNV-1a, mixed: the same on every machine and in every version.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Lower case, letters and digits only, one space between words: what a copy with other punctuation shares with its original.
pub(crate) fn normalised(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() {
            out.extend(c.to_lowercase());
        } else if !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// The set of a text's shingles, sorted.
fn shingles(text: &str) -> Vec<u64> {
    let text = normalised(text);
    let bytes = text.as_bytes();
    let mut shingles: Vec<u64> =
        if bytes.len() < SHINGLE { vec![hash_bytes(bytes)] } else { bytes.windows(SHINGLE).map(hash_bytes).collect() };
    shingles.sort_unstable();
    shingles.dedup();
    shingles
}

/// The Jaccard similarity of two texts' shingle sets, counted.
pub(crate) fn jaccard(one: &str, other: &str) -> f64 {
    let (one, other) = (shingles(one), shingles(other));
    let (mut a, mut b, mut shared) = (0, 0, 0usize);
    while let (Some(left), Some(right)) = (one.get(a), other.get(b)) {
        shared += usize::from(left == right);
        a += usize::from(left <= right);
        b += usize::from(right <= left);
    }
    shared as f64 / (one.len() + other.len() - shared) as f64
}

fn signature(text: &str) -> [u32; HASHES] {
    let shingles = shingles(text);
    let mut lowest = [u32::MAX; HASHES];
    for shingle in shingles {
        // A family of pairwise independent functions out of one hash: a + i * b (Kirsch and Mitzenmacher 2006).
        let (a, b) = (shingle as u32, (shingle >> 32) as u32 | 1);
        for (at, low) in lowest.iter_mut().enumerate() {
            let value = a.wrapping_add((at as u32).wrapping_mul(b)).wrapping_mul(0x9e37_79b1);
            *low = (*low).min(value ^ (value >> 15));
        }
    }
    lowest
}

fn estimate(a: &[u32; HASHES], b: &[u32; HASHES]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / HASHES as f64
}

/// Whether two texts are near duplicates: by their signatures where these are clear (three standard errors), else counted.
fn near<T: AsRef<str>>(texts: &[T], signatures: &[[u32; HASHES]], a: usize, b: usize) -> bool {
    let estimate = estimate(&signatures[a], &signatures[b]);
    match estimate - NEAR_DUPLICATE_SIMILARITY {
        above if above >= 0.13 => true,
        below if below <= -0.13 => false,
        _ => jaccard(texts[a].as_ref(), texts[b].as_ref()) >= NEAR_DUPLICATE_SIMILARITY,
    }
}

fn find(parents: &mut [usize], mut at: usize) -> usize {
    while parents[at] != at {
        parents[at] = parents[parents[at]];
        at = parents[at];
    }
    at
}

/// Groups of near duplicates: for each text the index of the first text of its group, its own where it stands alone.
///
/// Two texts are joined where the Jaccard similarity of their 4-byte shingles is at least [`NEAR_DUPLICATE_SIMILARITY`]; groups are the connected
/// components. Deterministic. Memory: 512 bytes a text for signatures, 16 bytes a text for the band at hand.
pub fn near_duplicate_groups<T: AsRef<str> + Sync>(texts: &[T]) -> Vec<usize> {
    let signatures: Vec<[u32; HASHES]> = texts.par_iter().map(|text| signature(text.as_ref())).collect();
    let mut parents: Vec<usize> = (0..texts.len()).collect();
    for band in 0..HASHES / BAND {
        // Within a bucket each text is compared with the bucket's representatives; a bucket keeps at most 16 of them, so that a hot band stays linear.
        let mut buckets: HashMap<u64, Vec<usize>> = HashMap::with_capacity(texts.len());
        for (at, signature) in signatures.iter().enumerate() {
            let part = &signature[band * BAND..(band + 1) * BAND];
            let key = part.iter().fold(band as u64, |key, value| mix(key ^ u64::from(*value)));
            let bucket = buckets.entry(key).or_default();
            let mut joined = false;
            for &other in bucket.iter() {
                let (a, b) = (find(&mut parents, at), find(&mut parents, other));
                if a == b {
                    joined = true;
                } else if near(texts, &signatures, at, other) {
                    parents[a.max(b)] = a.min(b);
                    joined = true;
                }
            }
            if !joined && bucket.len() < 16 {
                bucket.push(at);
            }
        }
    }
    (0..texts.len()).map(|at| find(&mut parents, at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text of `words` made-up words, the same for the same seed.
    fn text(seed: u64, words: usize) -> Vec<String> {
        let mut state = seed;
        (0..words)
            .map(|_| {
                state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
                (0..5 + state % 5).map(|at| char::from(b'a' + (mix(state ^ at) % 26) as u8)).collect()
            })
            .collect()
    }

    #[test]
    fn planted_near_duplicates_are_found_and_nothing_else() {
        let (mut texts, mut expected) = (Vec::new(), Vec::new());
        for seed in 0..2_000u64 {
            let original = text(seed, 40);
            expected.push(texts.len());
            texts.push(original.join(" "));
            if seed % 4 == 0 {
                let mut copy = original;
                copy[(seed % 40) as usize] = "changed".to_owned();
                expected.push(texts.len() - 1);
                texts.push(copy.join(", ").to_uppercase());
            }
        }
        let groups = near_duplicate_groups(&texts);
        let planted: Vec<usize> = (0..texts.len()).filter(|at| expected[*at] != *at).collect();
        let found: Vec<usize> = (0..texts.len()).filter(|at| groups[*at] != *at).collect();
        let right = found.iter().filter(|at| groups[**at] == expected[**at]).count() as f64;
        assert!(planted.len() == 500);
        assert!(right / planted.len() as f64 >= 0.98, "recall {}", right / planted.len() as f64);
        assert!(right / found.len() as f64 >= 0.95, "precision {}", right / found.len() as f64);
    }

    #[test]
    fn short_and_empty_texts_have_groups_too() {
        assert_eq!(near_duplicate_groups(&["", "Hi", "hi!", "no", ""]), [0, 1, 1, 3, 0]);
        assert_eq!(near_duplicate_groups::<&str>(&[]), Vec::<usize>::new());
    }
}
