//! Block formats against the reference decoders and encoders (`tests/golden/make_quant.py`), and the encoders' error bounds.

use proptest::prelude::*;
use safetensors::SafeTensors;
use weblora::quant::{self, FORMATS, NF4, NF4_CODE, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, QuantFormat};

const GOLDEN: &[u8] = include_bytes!("../golden/quant.safetensors");

fn golden(file: &SafeTensors<'_>, name: &str) -> Vec<u8> {
    file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")).data().to_vec()
}

fn golden_f32(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    golden(file, name).as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

/// The first place where two vectors differ in any bit (so -0 is not 0), with both values.
fn first_difference(got: &[f32], expected: &[f32]) -> Option<String> {
    if got.len() != expected.len() {
        return Some(format!("{} values, {} expected", got.len(), expected.len()));
    }
    let at = got.iter().zip(expected).position(|(a, b)| a.to_bits() != b.to_bits())?;
    Some(format!("weight {at}: {} ({:08x}), {} ({:08x}) expected", got[at], got[at].to_bits(), expected[at], expected[at].to_bits()))
}

/// bitsandbytes' codes (weight 2k in the high nibble) and scales as blocks of our layout.
fn nf4_blocks(file: &SafeTensors<'_>) -> Vec<u8> {
    let (codes, absmax) = (golden(file, "nf4.codes"), golden(file, "nf4.absmax"));
    let mut blocks = Vec::new();
    for (codes, absmax) in codes.chunks_exact(32).zip(absmax.chunks_exact(4)) {
        blocks.extend_from_slice(absmax);
        blocks.extend(codes.iter().map(|b| b.rotate_left(4)));
    }
    blocks
}

#[test]
fn decoding_is_bit_exact() {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    for format in FORMATS {
        let blocks = if *format == &NF4 { nf4_blocks(&file) } else { golden(&file, &format!("{}.blocks", format.name)) };
        let expected = golden_f32(&file, &format!("{}.values", format.name));
        assert!(!expected.is_empty());
        assert_eq!(first_difference(&format.decode_vec(&blocks), &expected), None, "{}", format.name);
    }
}

#[test]
fn the_comparator_sees_one_flipped_bit() {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    for format in FORMATS.iter().filter(|f| **f != &NF4) {
        let mut blocks = golden(&file, &format!("{}.blocks", format.name));
        blocks[0] ^= 1; // a scale, a code or the lowest bit of a float, by format: all must show
        let expected = golden_f32(&file, &format!("{}.values", format.name));
        assert_ne!(first_difference(&format.decode_vec(&blocks), &expected), None, "{}", format.name);
    }
    assert_ne!(first_difference(&[0.0], &[-0.0]), None);
}

#[test]
fn encoding_matches_the_reference_byte_for_byte() {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let later = SafeTensors::deserialize(include_bytes!("../golden/encode.safetensors")).unwrap();
    for name in ["q4_0", "q8_0", "f16", "bf16", "nf4", "q4_1", "q5_0", "q5_1"] {
        let format = quant::by_name(name).unwrap();
        let file = if later.tensor(&format!("{name}.encode_input")).is_ok() { &later } else { &file };
        let expected = if name == "nf4" { nf4_blocks(file) } else { golden(file, &format!("{name}.encode_blocks")) };
        let weights = golden_f32(file, &format!("{name}.encode_input"));
        let mut blocks = Vec::new();
        (format.encode.unwrap())(&weights, &mut blocks);
        let bad = blocks.chunks(format.block_bytes).zip(expected.chunks(format.block_bytes)).position(|(a, b)| a != b);
        assert_eq!((bad, blocks.len()), (None, expected.len()), "{name}: first differing block, length");
    }
}

#[test]
fn smollm2_blocks() {
    let q8 = hex("3219d60d13f7e5ee08d02aa801de56818608fd21dbee104fe81efaf9e21128391fb1");
    let q4 = hex("5530d0b8020765315462559637256352f3964348");
    let d = half::f16::from_bits(0x1932).to_f32();
    assert_eq!(quant::by_name("q8_0").unwrap().decode_vec(&q8)[..2], [-42.0 * d, 13.0 * d]);
    let y = quant::by_name("q4_1").unwrap().decode_vec(&q4);
    for (i, expected) in [(0, -0.3308105), (1, 0.3460693), (2, 0.0753174), (3, -0.4661865), (16, -0.6015625), (18, 0.2106934)] {
        assert!((y[i] - expected).abs() < 6e-8, "weight {i}: {} instead of {expected}", y[i]); // the golden has seven decimals
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

#[test]
fn nf4_published_example_and_zeros() {
    let mut weights = [0.0f32; 64];
    weights[..4].copy_from_slice(&[-1.0, 1.0, 0.0, 0.08]);
    let mut block = Vec::new();
    (NF4.encode.unwrap())(&weights, &mut block);
    assert_eq!(block[..6], [0, 0, 0x80, 0x3f, 0xf0, 0x87], "absmax 1.0, codes 0 15 7 8 (bitsandbytes: 0f 78)");
    assert_eq!(NF4.decode_vec(&block)[..4], [-1.0, 1.0, 0.0, NF4_CODE[8]]);

    let mut zeros = Vec::new();
    (NF4.encode.unwrap())(&[0.0; 64], &mut zeros);
    assert_eq!(NF4.decode_vec(&zeros), [0.0; 64]);
}

#[test]
fn table_is_consistent() {
    for (i, f) in FORMATS.iter().enumerate() {
        assert_eq!(quant::by_name(f.name), Some(*f));
        for other in &FORMATS[..i] {
            assert!(other.ggml_id.is_none() || other.ggml_id != f.ggml_id, "{} and {}", f.name, other.name);
        }
        assert_eq!(f.row_bytes(f.block * 3), Some(f.block_bytes * 3));
        assert_eq!(f.row_bytes(f.block * 3 + 1).is_some(), f.block == 1);
        assert_eq!(f.row_bytes(usize::MAX / f.block * f.block).is_some(), f.block_bytes < f.block, "{} must not overflow", f.name);
        assert!(!f.floats.is_empty());
    }
    assert_eq!(quant::by_ggml_id(3).map(|f| f.name), Some("q4_1"));
    assert_eq!(quant::by_ggml_id(16), None);
    assert_eq!(quant::by_safetensors_dtype("BF16").map(|f| f.name), Some("bf16"));
    assert_eq!(quant::by_safetensors_dtype("I64"), None);
}

#[test]
fn every_float_field_is_watched() {
    for f in FORMATS {
        let clean = vec![0u8; f.block_bytes * 3];
        assert_eq!(f.first_non_finite(&clean), None, "{}", f.name);
        for field in f.floats {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut bytes = clean.clone();
                let at = f.block_bytes + field.offset;
                match field.kind {
                    quant::FloatKind::F32 => bytes[at..at + 4].copy_from_slice(&bad.to_le_bytes()),
                    quant::FloatKind::F16 => bytes[at..at + 2].copy_from_slice(&half::f16::from_f32(bad).to_le_bytes()),
                    quant::FloatKind::Bf16 => bytes[at..at + 2].copy_from_slice(&half::bf16::from_f32(bad).to_le_bytes()),
                }
                assert_eq!(f.first_non_finite(&bytes), Some(1), "{} {field:?} {bad}", f.name);
            }
        }
    }
}

/// Largest error of `format` on `weights`, in units of each block's largest magnitude.
fn worst_error(format: &QuantFormat, weights: &[f32]) -> f32 {
    let mut bytes = Vec::new();
    (format.encode.unwrap())(weights, &mut bytes);
    assert_eq!(bytes.len(), weights.len() / format.block * format.block_bytes);
    assert_eq!(format.first_non_finite(&bytes), None);
    let back = format.decode_vec(&bytes);
    let blocks = weights.chunks(format.block).zip(back.chunks(format.block));
    blocks
        .flat_map(|(x, y)| {
            let largest = x.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            x.iter().zip(y).map(move |(a, b)| (a - b).abs() / largest.max(1e-2)) // below 1e-2, q8_0's f16 scales turn subnormal
        })
        .fold(0.0, f32::max)
}

/// Half a step of the range (at most two of the largest magnitude) for the affine formats, and for q5_0 a sixteenth, as for q4_0:
/// an eighth for the side of q4_0 that ends at code 15 (7 steps of 1/8), half of nf4's widest gap (-1 to -0.696), half of 1/127; each with one
/// part in two thousand for the rounding of the f16 scale.
const BOUNDS: [(&QuantFormat, f32); 6] =
    [(&Q4_0, 0.1255), (&NF4, 0.1521), (&Q8_0, 0.0045), (&Q4_1, 0.0677), (&Q5_0, 0.0629), (&Q5_1, 0.0333)];

proptest! {
    #[test]
    fn encoders_stay_within_half_a_step(weights in prop::collection::vec(-1000.0f32..1000.0, 128), scale in -3i32..2) {
        let weights: Vec<f32> = weights.iter().map(|w| w * 10f32.powi(scale)).collect();
        for (format, bound) in BOUNDS {
            let error = worst_error(format, &weights);
            prop_assert!(error <= bound, "{}: {error} > {bound}", format.name);
        }
    }

    #[test]
    fn encoding_decoded_blocks_again_changes_nothing(codes in prop::collection::vec(any::<u8>(), 32), absmax in 1e-3f32..1e3) {
        let mut block = absmax.to_le_bytes().to_vec();
        block.extend(&codes);
        block[4] = 0xf0; // the extremes are there, so absmax is what it says
        let mut again = Vec::new();
        (NF4.encode.unwrap())(&NF4.decode_vec(&block), &mut again);
        prop_assert_eq!(again, block);
    }
}

#[test]
fn the_bounds_can_be_broken() {
    let mut weights = [0.0f32; 128];
    weights[0] = 1.0;
    for (format, bound) in BOUNDS {
        let mut bytes = Vec::new();
        (format.encode.unwrap())(&weights, &mut bytes);
        let last = format.block_bytes - 1;
        bytes[last] ^= 0x40; // one wrong code
        let back = format.decode_vec(&bytes);
        let error = weights.iter().zip(back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error > bound, "{}: a wrong code gives only {error}", format.name);
    }
}
