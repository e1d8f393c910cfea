//! The one generator behind initialisation, shuffling and splits: counter-based, so any element can be computed alone.
//!
//! ```text
//! seed  = FNV-1a 64 of the UTF-8 key
//! z_i   = splitmix64 finaliser of (seed + i * 0x9E3779B97F4A7C15),  i = 1, 2, …
//! k     = z_i >> 41                                     (the top 23 bits)
//! value = (2k + 1 - 2^23) * 2^-23 * bound               (in f64, rounded once to f32)
//! normal = sqrt(-2 ln u) cos(2 pi w) * deviation,  u and w = ((z >> 11) + 1) * 2^-53 of z_{2i-1} and z_{2i}
//! index = (z_i * n) >> 64                               (an integer below n, from the 128-bit product)
//! ```
//!
//! Ten lines of NumPy reproduce it: `tests/golden/text_rng.py`.

/// Where FNV-1a, 64 bits, starts.
pub const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;

/// Takes more bytes into an FNV-1a hash that began with [`FNV_OFFSET`].
pub fn fnv1a_bytes(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3))
}

/// The key's seed: FNV-1a, 64 bits, over its UTF-8 bytes.
pub fn fnv1a(key: &str) -> u64 {
    fnv1a_bytes(FNV_OFFSET, key.as_bytes())
}

/// The 64 random bits of element `i` (counted from 1) of the sequence that starts at `seed`.
pub fn bits(seed: u64, i: u64) -> u64 {
    let z = seed.wrapping_add(i.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Element `i` (counted from 1) of the tensor named by `seed_key`, uniform in the open interval `(-bound, bound)`.
///
/// To fill a tensor, use [`fill_uniform`], which hashes the key once.
pub fn uniform(seed_key: &str, i: u64, bound: f64) -> f32 {
    uniform_from(fnv1a(seed_key), i, bound)
}

/// The first `n` elements of the tensor named by `seed_key`, row-major.
pub fn fill_uniform(seed_key: &str, n: usize, bound: f64) -> Vec<f32> {
    let seed = fnv1a(seed_key);
    (1..=n as u64).map(|i| uniform_from(seed, i, bound)).collect()
}

fn uniform_from(seed: u64, i: u64, bound: f64) -> f32 {
    let k = (bits(seed, i) >> 41) as i64;
    ((2 * k + 1 - (1 << 23)) as f64 * (0.5f64).powi(23) * bound) as f32
}

/// The first `n` elements of the tensor named by `seed_key`, normal around zero with that deviation.
///
/// Logarithm and cosine are the platform's: across platforms the last bit may differ.
pub fn fill_normal(seed_key: &str, n: usize, deviation: f64) -> Vec<f32> {
    let seed = fnv1a(seed_key);
    let unit = |i: u64| ((bits(seed, i) >> 11) + 1) as f64 * (0.5f64).powi(53);
    let value = |i: u64| (-2.0 * unit(2 * i - 1).ln()).sqrt() * (std::f64::consts::TAU * unit(2 * i)).cos() * deviation;
    (1..=n as u64).map(|i| value(i) as f32).collect()
}

/// The numbers `0..n` in the order of a Fisher–Yates shuffle keyed by `seed_key`.
///
/// Draw `t` (from 1) is the integer `index` of the module's formula below `n + 1 - t`, and swaps that place with the last one
/// not yet fixed.
///
/// # Panics
/// If `n` does not fit in 32 bits.
pub fn shuffled(seed_key: &str, n: usize) -> Vec<u32> {
    assert!(u32::try_from(n).is_ok(), "at most 2^32 - 1 rows can be shuffled");
    let seed = fnv1a(seed_key);
    let mut order: Vec<u32> = (0..n as u32).collect();
    for (t, last) in (1..n).rev().enumerate() {
        let draw = u128::from(bits(seed, t as u64 + 1)) * (last as u128 + 1);
        order.swap((draw >> 64) as usize, last);
    }
    order
}
