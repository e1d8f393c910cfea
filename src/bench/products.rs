//! Products with frozen matrices at the shapes of SmolLM2-135M, in every format that matters, both ways.

use super::probe::Probe;
use super::record::{MatmulRecord, Record};
use super::scene::{Scene, blocks, noise};
use super::setup::Bench;
use crate::gpu::{Recorder, Tensor};
use crate::kernels::matmul;
use crate::kernels::matrix::Matrix;
use crate::quant::{F32, NF4, Q4_0, Q4_1, Q4_K, Q8_0, QuantFormat};
use crate::{Error, Result};

/// Rows of the blocks' products, and of one chunk of the head's.
const BLOCK_ROWS: usize = 512;
const HEAD_ROWS: usize = 128;
/// (outputs, inputs): gate and up, down, q and o, k and v.
const BLOCK_SHAPES: [(usize, usize); 4] = [(1536, 576), (576, 1536), (576, 576), (192, 576)];
const HEAD_SHAPE: (usize, usize) = (49_152, 576);
/// f32 sums of up to 50,000 products, in any order, stay within this of the exact one relative to the sum of magnitudes: about 170 roundings.
const TOLERANCE: f64 = 1e-5;
/// The same where operands are rounded to f16.
const MIXED_TOLERANCE: f64 = 2e-3;
/// Rows and columns of the output that are checked, spread over it.
const CHECKED: usize = 8;

/// One product.
pub(super) struct Case {
    pub backward: bool,
    pub format: &'static QuantFormat,
    pub t: usize,
    pub n: usize,
    pub k: usize,
}

pub(super) async fn run(bench: &mut Bench<'_>) -> Result<()> {
    let quick = bench.options.quick;
    let formats: &[&'static QuantFormat] = if quick { &[&F32, &Q4_1, &Q8_0] } else { &[&F32, &Q4_1, &Q4_0, &Q8_0, &Q4_K, &NF4] };
    let shapes = if quick { &BLOCK_SHAPES[..1] } else { &BLOCK_SHAPES[..] };
    let mut cases: Vec<(usize, (usize, usize), &'static QuantFormat)> = Vec::new();
    for format in formats {
        cases.extend(shapes.iter().map(|shape| (BLOCK_ROWS, *shape, *format)));
    }
    let head: &[&'static QuantFormat] = if quick { &[&Q8_0] } else { &[&F32, &Q4_1, &Q8_0] };
    cases.extend(head.iter().map(|format| (HEAD_ROWS, HEAD_SHAPE, *format)));
    for (t, (n, k), format) in cases {
        if format.row_bytes(k).is_none() {
            continue; // k is no whole number of blocks
        }
        for backward in [false, true] {
            measure(bench, &Case { backward, format, t, n, k }).await?;
        }
    }
    Ok(())
}

async fn measure(bench: &mut Bench<'_>, case: &Case) -> Result<()> {
    let Case { backward, format, t, n, k } = *case;
    let (inputs, outputs) = if backward { (n, k) } else { (k, n) };
    let mut scene = Scene::default();
    let w = scene.matrix(format, n, k)?;
    let x = scene.noise("x", t * inputs)?;
    let y = scene.zeros("y", t * outputs)?;
    let body = |rec: &mut Recorder| record(rec, backward, t, &w, x, y);
    bench.tune(&body).await?;
    let store = scene.allocate(bench.gpu).await?;
    let mut probe = Probe::new(bench.gpu, bench.tuner, store, &body).await?;
    probe.seconds(bench.gpu).await?;
    let error = check(case, &w, &bench.gpu.read::<f32>(&probe.store, y).await?, bench.gpu.facts().mixed)?;
    probe.repeat(bench.gpu, bench.tuner, &body).await?;
    let count = bench.rounds();
    let rounds = bench.peak.rounds(bench.gpu, &mut probe, count).await?;
    (bench.report)(&Record::Matmul(MatmulRecord {
        direction: case.direction(),
        format: format.name,
        t,
        n,
        k,
        ms: rounds.seconds * 1e3,
        gflops: probe.flops as f64 / rounds.seconds / 1e9,
        of_peak: rounds.of_peak,
        kernel: probe.kernels.join(", "),
        error,
    }))
}

pub(super) fn record(rec: &mut Recorder, backward: bool, t: usize, w: &Matrix, x: Tensor, y: Tensor) {
    if backward {
        matmul::backward(rec, "backward", x, t, w, y, false);
    } else {
        matmul::forward(rec, "forward", x, t, w, y, false);
    }
}

impl Case {
    pub(super) fn direction(&self) -> &'static str {
        if self.backward { "backward" } else { "forward" }
    }
}

/// Computes some outputs in f64 from the stored bytes and returns the largest error relative to the sum of the magnitudes.
pub(super) fn check(case: &Case, w: &Matrix, y: &[f32], mixed: bool) -> Result<f64> {
    let tolerance = if mixed { MIXED_TOLERANCE } else { TOLERANCE };
    let Case { backward, t, n, k, .. } = *case;
    let (inputs, outputs) = if backward { (n, k) } else { (k, n) };
    let x = noise("x", t * inputs);
    let pick = |len: usize| -> Vec<usize> { (0..CHECKED).map(|i| i * (len - 1) / (CHECKED - 1)).collect() };
    let (rows, columns) = (pick(t), pick(outputs));
    let mut sums = vec![(0.0f64, 0.0f64); CHECKED * CHECKED];
    for part in &w.parts {
        let bytes = blocks(w, part);
        for (i, row) in bytes.chunks_exact(bytes.len() / part.rows).enumerate() {
            let out = part.row_start + i;
            if !backward && !columns.contains(&out) {
                continue;
            }
            let weights = w.format.decode_vec(row);
            for (at, (sum, size)) in sums.iter_mut().enumerate() {
                let (line, column) = (&x[rows[at / CHECKED] * inputs..], columns[at % CHECKED]);
                let mut add = |a: f32, b: f32| {
                    *sum += f64::from(a) * f64::from(b);
                    *size += (f64::from(a) * f64::from(b)).abs();
                };
                if backward {
                    add(line[out], weights[column]);
                } else if column == out {
                    weights.iter().zip(line).for_each(|(b, a)| add(*a, *b));
                }
            }
        }
    }
    let mut worst = 0.0f64;
    for (at, (sum, size)) in sums.iter().enumerate() {
        let (row, column) = (rows[at / CHECKED], columns[at % CHECKED]);
        let got = f64::from(y[row * outputs + column]);
        let error = (got - sum).abs() / size.max(f64::MIN_POSITIVE);
        if error.partial_cmp(&tolerance).is_none_or(|o| o.is_gt()) {
            let what = format!("the {} product of {} [{n}, {k}] with {t} rows", case.direction(), case.format.name);
            return Err(Error::Gpu { what, message: format!("output [{row}, {column}] is {got} where {sum} was expected") });
        }
        worst = worst.max(error);
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::matmul::{matmul_backward_twin, matmul_twin};

    #[test]
    fn the_check_accepts_the_twin_and_notices_one_wrong_output() {
        for (backward, format) in [(false, &Q4_1), (true, &Q4_1), (false, &F32), (true, &Q8_0)] {
            let (t, n, k) = (9, 70, 64);
            let mut scene = Scene::default();
            let w = scene.matrix(format, n, k).expect("declared");
            let weights = format.decode_vec(&blocks(&w, &w.parts[0]));
            let case = Case { backward, format, t, n, k };
            let (inputs, outputs) = if backward { (n, k) } else { (k, n) };
            let x = noise("x", t * inputs);
            let mut y = vec![0.0; t * outputs];
            let twin = if backward { matmul_backward_twin } else { matmul_twin };
            twin(&x, &weights, (t, n, k), &mut y, false);
            assert!(check(&case, &w, &y, false).expect("right") < TOLERANCE);
            for wrong in [y[0] + 0.01, f32::NAN] {
                y[0] = wrong;
                let error = check(&case, &w, &y, false).expect_err("wrong").to_string();
                assert!(error.contains("output [0, 0]"), "{error}");
            }
        }
    }
}
