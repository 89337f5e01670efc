//! Blocks of quantized numbers, as ggml lays them out.

use half::{bf16, f16};

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    F32,
    F16,
    Bf16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

fn half_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

impl Format {
    /// By ggml's number of the type; `None` for one that is not read.
    pub(super) fn new(kind: u32) -> Option<Self> {
        Some(match kind {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Numbers in a block.
    pub(super) fn block_values(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub(super) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// ggml's number of the type; the inverse of [`Self::new`].
    pub(super) fn kind(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    /// One block, of [`Self::block_bytes`] into [`Self::block_values`].
    pub(super) fn expand(self, block: &[u8], out: &mut [f32]) {
        match self {
            Self::F32 => out[0] = f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
            Self::F16 => out[0] = half_at(block, 0),
            Self::Bf16 => out[0] = bf16::from_le_bytes([block[0], block[1]]).to_f32(),
            Self::Q4_0 => small(out, &block[2..], None, half_at(block, 0), -8.0 * half_at(block, 0)),
            Self::Q4_1 => small(out, &block[4..], None, half_at(block, 0), half_at(block, 2)),
            Self::Q5_0 => small(out, &block[6..], Some(&block[2..6]), half_at(block, 0), -16.0 * half_at(block, 0)),
            Self::Q5_1 => small(out, &block[8..], Some(&block[4..8]), half_at(block, 0), half_at(block, 2)),
            Self::Q8_0 => {
                let scale = half_at(block, 0);
                for (value, &byte) in out.iter_mut().zip(&block[2..]) {
                    *value = scale * f32::from(byte as i8);
                }
            }
            Self::Q4K => large(out, block, &block[16..], None),
            Self::Q5K => large(out, block, &block[48..], Some(&block[16..48])),
            Self::Q6K => sixes(out, block),
        }
    }
}

/// Numbers in half precision, two bytes each.
pub(super) fn halves(values: &[f32], out: &mut Vec<u8>) {
    out.extend(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()));
}

/// Whole blocks of 32 numbers in eight bits, as ggml's `quantize_row_q8_0_ref` rounds them: the largest one becomes 127.
pub(super) fn eights(values: &[f32], out: &mut Vec<u8>) {
    for block in values.chunks_exact(32) {
        let scale = block.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
        let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
        out.extend_from_slice(&f16::from_f32(scale).to_le_bytes());
        out.extend(block.iter().map(|value| ((value * inverse).round() as i8).cast_unsigned()));
    }
}

/// 32 numbers of four bits (a fifth one in `fifth`): the lower halves of the bytes come first. `scale · number + least`.
fn small(out: &mut [f32], bytes: &[u8], fifth: Option<&[u8]>, scale: f32, least: f32) {
    let fifth = fifth.map_or(0, |bits| u32::from_le_bytes([bits[0], bits[1], bits[2], bits[3]]));
    for at in 0..16 {
        let low = u32::from(bytes[at] & 15) | ((fifth >> at) & 1) << 4;
        let high = u32::from(bytes[at] >> 4) | ((fifth >> (at + 16)) & 1) << 4;
        out[at] = scale * low as f32 + least;
        out[at + 16] = scale * high as f32 + least;
    }
}

/// 256 numbers of four bits (a fifth one in `fifth`), in eight groups with a scale and a minimum of six bits each.
fn large(out: &mut [f32], block: &[u8], bytes: &[u8], fifth: Option<&[u8]>) {
    let (scale, least) = (half_at(block, 0), half_at(block, 2));
    let packed = &block[4..16];
    for group in 0..8 {
        let (s, m) = if group < 4 {
            (packed[group] & 63, packed[group + 4] & 63)
        } else {
            (packed[group + 4] & 15 | (packed[group - 4] >> 6) << 4, packed[group + 4] >> 4 | (packed[group] >> 6) << 4)
        };
        let (s, m) = (scale * f32::from(s), least * f32::from(m));
        for at in 0..32 {
            let byte = bytes[group / 2 * 32 + at];
            let four = if group % 2 == 0 { byte & 15 } else { byte >> 4 };
            let bit = fifth.map_or(0, |bits| (bits[at] >> group) & 1);
            out[group * 32 + at] = s * f32::from(four | bit << 4) - m;
        }
    }
}

/// 256 numbers of six bits, in sixteen groups with a scale of eight bits each.
fn sixes(out: &mut [f32], block: &[u8]) {
    let (low, high, scales, scale) = (&block[..128], &block[128..192], &block[192..208], half_at(block, 208));
    for half in 0..2 {
        for at in 0..32 {
            let (first, second, bits) = (low[half * 64 + at], low[half * 64 + at + 32], high[half * 32 + at]);
            let numbers = [
                first & 15 | (bits & 3) << 4,
                second & 15 | (bits >> 2 & 3) << 4,
                first >> 4 | (bits >> 4 & 3) << 4,
                second >> 4 | (bits >> 6) << 4,
            ];
            for (quarter, number) in numbers.into_iter().enumerate() {
                let group = scales[half * 8 + quarter * 2 + at / 16] as i8;
                out[half * 128 + quarter * 32 + at] = scale * f32::from(group) * (f32::from(number) - 32.0);
            }
        }
    }
}
