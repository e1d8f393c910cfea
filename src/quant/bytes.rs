//! Helpers that the decoders and encoders share.

use half::f16;

/// Calls `decode` on each block of `BYTES` bytes with its `WEIGHTS` outputs.
pub(super) fn decode_blocks<const BYTES: usize, const WEIGHTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; WEIGHTS]),
) {
    let (blocks, rest) = bytes.as_chunks::<BYTES>();
    let (outs, out_rest) = out.as_chunks_mut::<WEIGHTS>();
    assert!(
        rest.is_empty() && out_rest.is_empty() && blocks.len() == outs.len(),
        "decode: {} bytes for {} weights",
        bytes.len(),
        out.len()
    );
    for (block, y) in blocks.iter().zip(outs) {
        decode(block, y);
    }
}

/// Calls `encode` on each block of `WEIGHTS` weights and appends the bytes it returns.
pub(super) fn encode_blocks<const BYTES: usize, const WEIGHTS: usize>(
    weights: &[f32],
    out: &mut Vec<u8>,
    encode: impl Fn(&[f32; WEIGHTS]) -> [u8; BYTES],
) {
    let (blocks, rest) = weights.as_chunks::<WEIGHTS>();
    assert!(rest.is_empty(), "encode: {} weights are no whole number of blocks of {WEIGHTS}", weights.len());
    out.reserve(blocks.len() * BYTES);
    for block in blocks {
        out.extend_from_slice(&encode(block));
    }
}

/// The little-endian half at `offset`, exactly as f32.
pub(super) fn half_at(block: &[u8], offset: usize) -> f32 {
    f16::from_le_bytes([block[offset], block[offset + 1]]).to_f32()
}

/// Scale of a symmetric block as a half, and the codes below `2 half`: the weight of largest magnitude (the first of equals) becomes code 0, that
/// is `-half d`; the others round to nearest with the f32 scale, as the reference does, although decoding will use the scale rounded to f16.
pub(super) fn symmetric(x: &[f32; 32], half: u8) -> ([u8; 2], [u8; 32]) {
    let extreme = x.iter().fold(0.0f32, |best, &v| if v.abs() > best.abs() { v } else { best });
    let d = extreme / -f32::from(half);
    let inverse = 1.0 / d;
    // A zero or subnormal scale has no finite inverse, and is zero in f16 anyway.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    let code = |v: f32| ((v * inverse + f32::from(half) + 0.5) as u8).min(2 * half - 1);
    (f16::from_f32(d).to_le_bytes(), x.map(code))
}

/// Scale and minimum of an affine block as two halves, and the codes from 0 to `most`: rounded to nearest with the f32 scale, as the reference
/// does, although decoding will use the scale rounded to f16.
pub(super) fn affine(x: &[f32; 32], most: u8) -> ([u8; 4], [u8; 32]) {
    let (low, high) = x.iter().fold((f32::MAX, f32::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    let d = (high - low) / f32::from(most);
    let inverse = 1.0 / d;
    // A zero or subnormal scale has no finite inverse, and is zero in f16 anyway.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    let mut head = [0; 4];
    head[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
    head[2..].copy_from_slice(&f16::from_f32(low).to_le_bytes());
    (head, x.map(|v| (((v - low) * inverse + 0.5) as u8).min(most)))
}

/// The inverse of [`split_nibbles`], for codes below 16.
pub(super) fn join_nibbles(codes: &[u8; 32], qs: &mut [u8]) {
    let (low, high) = codes.split_at(codes.len() / 2);
    for ((q, lo), hi) in qs.iter_mut().zip(low).zip(high) {
        *q = lo | hi << 4;
    }
}

/// Sixteen bytes of codes to 32 weights: low nibbles first, then high nibbles (the order of every 32-wide ggml block).
pub(super) fn split_nibbles(qs: &[u8], y: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = y.split_at_mut(qs.len());
    for ((&q, lo), hi) in qs.iter().zip(low).zip(high) {
        *lo = value(q & 15);
        *hi = value(q >> 4);
    }
}
