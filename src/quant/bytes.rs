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

/// Sixteen bytes of codes to 32 weights: low nibbles first, then high nibbles (the order of every 32-wide ggml block).
pub(super) fn split_nibbles(qs: &[u8], y: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = y.split_at_mut(qs.len());
    for ((&q, lo), hi) in qs.iter().zip(low).zip(high) {
        *lo = value(q & 15);
        *hi = value(q >> 4);
    }
}
