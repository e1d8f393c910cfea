//! Products whose inputs are dealt to several workgroups, as GPUs with many cores do: against the twin, and row by row the same bits.

use crate::common::{Bench, assert_close, gpu, noise, spread};
use crate::matmul::matrix;
use weblora::gpu::device::Facts;
use weblora::gpu::{Gpu, Recorder, Tuner};
use weblora::kernels::matmul::{self, Direction, Rows, matmul_backward_twin, matmul_twin};
use weblora::quant::{self, QuantFormat};

const SENTINEL: f32 = -77.0;
const GAP: usize = 8;

/// What is multiplied: rows, outputs, inputs of W; where W is split; whether y is added to.
struct Case {
    format: &'static QuantFormat,
    direction: Direction,
    sizes: (usize, usize, usize),
    split: usize,
    accumulate: bool,
}

/// The result on an adapter that passes for a card, how many dispatches it took, and the twin's.
fn run(gpu: &Gpu, case: &Case, t: usize) -> (Vec<f32>, usize, Vec<f32>) {
    let (_, n, k) = case.sizes;
    let forward = case.direction == Direction::Forward;
    let mut bench = Bench::new();
    let (w, decoded) = matrix(&mut bench, case.format, n, k, case.split);
    let (inner, width) = if forward { (k, n) } else { (n, k) };
    let (x_host, before) = (noise(3, t * inner), noise(4, t * width));
    let x = Rows {
        tensor: bench.put("x", &spread(&x_host, inner, if forward { 0 } else { GAP }, f32::NAN)),
        stride: inner + if forward { 0 } else { GAP },
    };
    let y = Rows {
        tensor: bench.put("y", &spread(&before, width, if forward { GAP } else { 0 }, SENTINEL)),
        stride: width + if forward { GAP } else { 0 },
    };
    let card = Tuner::assuming(Facts { is_cpu: false, is_discrete: true, ..gpu.facts().clone() });
    let mut dispatches = 0;
    let got = bench.run(gpu, &card, &[y.tensor], |rec: &mut Recorder| {
        if forward {
            matmul::forward_rows(rec, "product", x.tensor, t, &w, y, case.accumulate);
        } else {
            matmul::backward_rows(rec, "product", x, t, &w, y.tensor, case.accumulate);
        }
        dispatches = rec.commands().len();
    });
    let mut want = before;
    match case.direction {
        Direction::Forward => matmul_twin(&x_host, &decoded, (t, n, k), &mut want, case.accumulate),
        Direction::Backward => matmul_backward_twin(&x_host, &decoded, (t, n, k), &mut want, case.accumulate),
    }
    (got.into_iter().next().expect("y"), dispatches, spread(&want, width, y.stride - width, SENTINEL))
}

#[test]
fn deep_products_are_summed_in_parts() {
    let Some(gpu) = gpu() else { return };
    let mut cases = Vec::new();
    for accumulate in [false, true] {
        // Few inputs for so many parts; a last part that is shorter, and one whose last inputs are no whole stage.
        for (format, n, k) in [(&quant::Q4_0, 72, 1536), (&quant::F32, 68, 1180), (&quant::Q4_0, 64, 576)] {
            cases.push(Case { format, direction: Direction::Forward, sizes: (70, n, k), split: usize::MAX, accumulate });
        }
        cases.push(Case { format: &quant::Q8_0, direction: Direction::Forward, sizes: (40, 72, 1024), split: 24, accumulate });
        for (format, n, k) in [(&quant::Q4_0, 1536, 96), (&quant::F32, 1180, 68), (&quant::Q4_0, 576, 64)] {
            cases.push(Case { format, direction: Direction::Backward, sizes: (70, n, k), split: usize::MAX, accumulate });
        }
        cases.push(Case { format: &quant::Q4_1, direction: Direction::Backward, sizes: (40, 1600, 64), split: 1024, accumulate });
    }
    for case in cases {
        let name = format!("{:?} {:?} {:?} {}", case.format, case.direction, case.sizes, case.accumulate);
        let (got, dispatches, want) = run(gpu, &case, case.sizes.0);
        assert!(dispatches >= 2, "{name}: {dispatches} dispatches");
        assert_close(&name, &got, &want, 5e-5, 2e-5);
        // A job's rows have the same bits alone.
        let (few, _, _) = run(gpu, &case, 20);
        if !case.accumulate {
            assert!(few[..] == got[..few.len()], "{name}: bits depend on the number of rows");
        }
    }
}

#[test]
fn a_processor_and_a_shallow_product_are_not_split() {
    let Some(gpu) = gpu() else { return };
    let case = Case { format: &quant::Q4_0, direction: Direction::Forward, sizes: (40, 96, 256), split: usize::MAX, accumulate: false };
    assert_eq!(run(gpu, &case, 40).1, 1);
    let mut bench = Bench::new();
    let (w, _) = matrix(&mut bench, &quant::Q4_0, 96, 1536, usize::MAX);
    let tuner = Tuner::assuming(Facts { is_cpu: true, ..gpu.facts().clone() });
    let mut rec = Recorder::new(&tuner);
    let (x, y) = (rec.transient("x", 40 * 1536), rec.transient("y", 40 * 96));
    matmul::forward(&mut rec, "product", x, 40, &w, y, false);
    assert_eq!(rec.commands().len(), 1);
}
