//! Products with frozen matrices: packing and decoding on the GPU bit for bit, every kernel form against its twin over awkward sizes, the twin's
//! gradient against finite differences.

use std::collections::BTreeMap;

use crate::common::{Bench, assert_close, close, gpu, gradcheck, noise, spread};
use weblora::gpu::{Candidate, Gpu, Recorder, Tensor, Tuner};
use weblora::kernels::embed;
use weblora::kernels::matmul::{self, Direction, Rows, matmul_backward_twin, matmul_twin};
use weblora::kernels::matrix::{Matrix, Part};
use weblora::quant::{self, FORMATS, FloatKind, QuantFormat};

/// Sums of a few hundred products of numbers below one in f32.
const ABSOLUTE: f32 = 2e-5;
const RELATIVE: f32 = 2e-5;

/// Random blocks with scales of both signs below 0.05, so that weights stay near one.
fn stored(format: &QuantFormat, rows: usize, cols: usize, seed: u64) -> Vec<u8> {
    let blocks = rows * cols / format.block;
    let mut bytes: Vec<u8> = noise(seed, blocks * format.block_bytes).iter().map(|v| (v.to_bits() >> 7) as u8).collect();
    let scales = noise(seed + 1, blocks * format.floats.len());
    let size = if format.block == 1 { 1.0 } else { 0.05 / if format.block == 256 { 30.0 } else { 1.0 } };
    for (b, block) in bytes.chunks_mut(format.block_bytes).enumerate() {
        for (f, field) in format.floats.iter().enumerate() {
            let v = scales[b * format.floats.len() + f] * size;
            match field.kind {
                FloatKind::F32 => block[field.offset..][..4].copy_from_slice(&v.to_le_bytes()),
                FloatKind::F16 => block[field.offset..][..2].copy_from_slice(&half::f16::from_f32(v).to_le_bytes()),
                FloatKind::Bf16 => block[field.offset..][..2].copy_from_slice(&half::bf16::from_f32(v).to_le_bytes()),
            }
        }
    }
    bytes
}

/// A matrix whose rows are split at `split` (a multiple of four), and its decoded weights.
pub(crate) fn matrix(bench: &mut Bench, format: &'static QuantFormat, rows: usize, cols: usize, split: usize) -> (Matrix, Vec<f32>) {
    let bytes = stored(format, rows, cols, (rows * 1000 + cols) as u64);
    let row_bytes = format.row_bytes(cols).unwrap();
    let mut parts = Vec::new();
    for (start, end) in [(0, split.min(rows)), (split.min(rows), rows)] {
        if start < end {
            let tensor = bench.put("w", &format.repack(end - start, cols, &bytes[start * row_bytes..end * row_bytes]));
            parts.push(Part { tensor, row_start: start, rows: end - start });
        }
    }
    (Matrix { format, rows, cols, parts, members: Vec::new() }, format.decode_vec(&bytes))
}

/// Elements between rows of x and y: vectors stay aligned.
const GAP: usize = 4;
const SENTINEL: f32 = -77.0;

/// One product by one form: GPU result and twin.
struct Case {
    format: &'static QuantFormat,
    direction: Direction,
    sizes: (usize, usize, usize),
    accumulate: bool,
    split: usize,
}

impl Case {
    /// `pick` chooses among the forms for each part.
    fn run(&self, gpu: &Gpu, pick: &dyn Fn(&[Candidate]) -> usize) -> (Vec<f32>, Vec<f32>) {
        let (t, n, k) = self.sizes;
        let mut bench = Bench::new();
        let (w, decoded) = matrix(&mut bench, self.format, n, k, self.split);
        let (inner, width) = if self.direction == Direction::Forward { (k, n) } else { (n, k) };
        let (x_host, before) = (noise(3, t * inner), noise(4, t * width));
        // Rows are spaced out by what must not be read and must stay.
        let x = Rows { tensor: bench.put("x", &spread(&x_host, inner, GAP, f32::NAN)), stride: inner + GAP };
        let y = Rows { tensor: bench.put("y", &spread(&before, width, GAP, SENTINEL)), stride: width + GAP };
        let got = bench.run(gpu, &Tuner::for_device(gpu), &[y.tensor], |rec: &mut Recorder| {
            for (i, part) in w.parts.iter().enumerate() {
                let adds = self.accumulate || (self.direction == Direction::Backward && i > 0);
                let mut all = matmul::forms(rec, self.direction, t, &w, part, adds);
                let form = all.swap_remove(pick(&all));
                rec.dispatch(form.spec, form.variant, form.grid, matmul::product("product", self.direction, (x, y), t, &w, part));
            }
        });
        let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let mut want = wide(&before);
        match self.direction {
            Direction::Forward => matmul_twin(&wide(&x_host), &wide(&decoded), self.sizes, &mut want, self.accumulate),
            Direction::Backward => matmul_backward_twin(&wide(&x_host), &wide(&decoded), self.sizes, &mut want, self.accumulate),
        }
        let want: Vec<f32> = want.iter().map(|&v| v as f32).collect();
        (got.into_iter().next().unwrap(), spread(&want, width, GAP, SENTINEL))
    }

    fn check(&self, gpu: &Gpu, pick: &dyn Fn(&[Candidate]) -> usize) -> Vec<f32> {
        let (got, want) = self.run(gpu, pick);
        let (format, direction, sizes, accumulate) = (self.format, self.direction, self.sizes, self.accumulate);
        assert_close(&format!("{format:?} {direction:?} {sizes:?} accumulate {accumulate}"), &got, &want, ABSOLUTE, RELATIVE);
        got
    }
}

const BOTH: [Direction; 2] = [Direction::Forward, Direction::Backward];

/// Widths of whole vectors, which have pipelines of their own.
fn vectors((_, n, k): (usize, usize, usize)) -> bool {
    n.is_multiple_of(4) && k.is_multiple_of(4)
}

/// All forms in turn, also those that are not worth measuring on this adapter.
fn every_form(gpu: &Gpu, format: &'static QuantFormat, sizes: &[(usize, usize, usize)], accumulate: fn((usize, usize, usize)) -> bool) {
    for direction in BOTH {
        for &sizes in sizes {
            let mut index = 0;
            let mut first: BTreeMap<&str, Vec<f32>> = BTreeMap::new();
            loop {
                let more = std::cell::Cell::new(false);
                let order = std::cell::Cell::new("");
                let case = Case { format, direction, sizes, accumulate: accumulate(sizes), split: usize::MAX };
                let got = case.check(gpu, &|all| {
                    more.set(index + 1 < all.len());
                    order.set(all[index].order());
                    index
                });
                let known = first.entry(order.get()).or_insert_with(|| got.clone());
                assert!(*known == got, "form {index} of {format:?} {direction:?} {sizes:?}: other bits in the order {}", order.get());
                if !more.get() {
                    break;
                }
                index += 1;
            }
        }
    }
}

#[test]
fn every_form_matches_the_twin_on_f32_of_any_size() {
    let Some(gpu) = gpu() else { return };
    let sizes = [(1, 7, 1), (7, 65, 37), (9, 31, 7), (31, 9, 33), (65, 1, 31), (33, 65, 8), (65, 36, 68), (33, 64, 96), (8, 8, 8)];
    every_form(gpu, &quant::F32, &sizes, vectors);
}

#[test]
fn every_form_matches_the_twin_on_q4_1() {
    let Some(gpu) = gpu() else { return };
    let sizes = [(1, 65, 64), (7, 8, 32), (9, 31, 96), (33, 33, 64), (65, 72, 288), (16, 12, 32), (4, 1, 32)];
    every_form(gpu, &quant::Q4_1, &sizes, |sizes| !vectors(sizes));
}

#[test]
fn every_form_matches_the_twin_on_q8_0() {
    let Some(gpu) = gpu() else { return };
    every_form(gpu, &quant::Q8_0, &[(65, 68, 64)], |_| false);
}

#[test]
fn every_format_is_multiplied_both_ways() {
    let Some(gpu) = gpu() else { return };
    for &format in FORMATS {
        let k = if format.block == 1 { 40 } else { 2 * format.block };
        for direction in BOTH {
            // The smallest register tile: formats differ only in how a unit is decoded, which the embedding test sees bit for bit.
            let case = Case { format, direction, sizes: (3, 20, k), accumulate: false, split: usize::MAX };
            case.check(gpu, &|all| all.len() - 1);
        }
    }
}

#[test]
fn parts_write_their_own_columns_and_gradients_add_up() {
    let Some(gpu) = gpu() else { return };
    for direction in BOTH {
        for accumulate in [false, true] {
            let case = Case { format: &quant::Q4_1, direction, sizes: (5, 148, 64), accumulate, split: 64 };
            case.check(gpu, &|_| 0);
            case.check(gpu, &|all| all.len() - 1);
        }
    }
}

#[test]
fn recorded_products_walk_the_parts() {
    let Some(gpu) = gpu() else { return };
    let (t, n, k) = (9, 36, 32);
    let mut bench = Bench::new();
    let (w, decoded) = matrix(&mut bench, &quant::Q4_1, n, k, 32);
    let (x_host, dx_host) = (noise(1, t * k), noise(2, t * k));
    let (x, y, dx) = (bench.put("x", &x_host), bench.put("y", &vec![0.0f32; t * n]), bench.put("dx", &dx_host));
    let results = bench.run(gpu, &Tuner::for_device(gpu), &[y, dx], |rec| {
        matmul::forward(rec, "y", x, t, &w, y, false);
        matmul::backward(rec, "dx", y, t, &w, dx, true);
    });
    let mut want = vec![0.0f32; t * n];
    matmul_twin(&x_host, &decoded, (t, n, k), &mut want, false);
    assert_close("forward", &results[0], &want, ABSOLUTE, RELATIVE);
    let mut want_dx = dx_host.clone();
    matmul_backward_twin(&want, &decoded, (t, n, k), &mut want_dx, true);
    assert_close("backward", &results[1], &want_dx, 2.0 * ABSOLUTE, 2.0 * RELATIVE);
}

/// `[t, n]` with all members' columns beside each other, as the members' outputs one after the other, `fill` between them.
fn apart(values: &[f32], w: &Matrix, t: usize, fill: f32) -> Vec<f32> {
    let mut out = vec![fill; w.output_words(t)];
    let mut first = 0;
    for (place, &n) in w.outputs(t).into_iter().zip(&w.members) {
        for (row, to) in out[place].chunks_exact_mut(n).enumerate() {
            to.copy_from_slice(&values[row * w.rows + first..][..n]);
        }
        first += n;
    }
    out
}

/// One product for several matrices of one input, whose outputs are apart: GPU result and twin. `split` need not be where a member begins.
fn joint(
    gpu: &Gpu,
    direction: Direction,
    members: &[usize],
    t: usize,
    split: usize,
    pick: &dyn Fn(&[Candidate]) -> usize,
) -> [Vec<f32>; 2] {
    let (n, k) = (members.iter().sum(), 64);
    let mut bench = Bench::new();
    let (mut w, decoded) = matrix(&mut bench, &quant::Q4_1, n, k, split);
    w.members = members.to_vec();
    let forward = direction == Direction::Forward;
    let (inner, width) = if forward { (k, n) } else { (n, k) };
    let (x_host, before) = (noise(3, t * inner), noise(4, t * width));
    let (x, y) = match forward {
        true => (x_host.clone(), apart(&before, &w, t, SENTINEL)),
        false => (apart(&x_host, &w, t, f32::NAN), before.clone()),
    };
    let (x, y) = (Rows { tensor: bench.put("x", &x), stride: inner }, Rows { tensor: bench.put("y", &y), stride: width });
    let got = bench.run(gpu, &Tuner::for_device(gpu), &[y.tensor], |rec: &mut Recorder| {
        for (i, part) in w.parts.iter().enumerate() {
            let mut all = matmul::forms(rec, direction, t, &w, part, forward || i > 0);
            let form = all.swap_remove(pick(&all));
            rec.dispatch(form.spec, form.variant, form.grid, matmul::product("joint", direction, (x, y), t, &w, part));
        }
    });
    let mut want = before;
    match forward {
        true => matmul_twin(&x_host, &decoded, (t, n, k), &mut want, true),
        false => matmul_backward_twin(&x_host, &decoded, (t, n, k), &mut want, false),
    }
    [got.into_iter().next().unwrap(), if forward { apart(&want, &w, t, SENTINEL) } else { want }]
}

/// y of a product that is dispatched for so many rows at once, and how many forms there are.
fn in_pieces(gpu: &Gpu, direction: Direction, at_once: usize, form: usize) -> (Vec<f32>, usize) {
    let (members, t, k) = ([20, 8, 16], 150, 64);
    let n = members.iter().sum();
    let mut bench = Bench::new();
    let (mut w, _) = matrix(&mut bench, &quant::Q4_1, n, k, usize::MAX);
    w.members = members.to_vec();
    let forward = direction == Direction::Forward;
    let (inner, width) = if forward { (k, n) } else { (n, k) };
    let (x, y) = match forward {
        true => (noise(3, t * k), vec![SENTINEL; w.output_words(t)]),
        false => (apart(&noise(3, t * n), &w, t, f32::NAN), vec![SENTINEL; t * k]),
    };
    let (x, y) = (Rows { tensor: bench.put("x", &x), stride: inner }, Rows { tensor: bench.put("y", &y), stride: width });
    let mut count = 0;
    let got = bench.run(gpu, &Tuner::for_device(gpu), &[y.tensor], |rec: &mut Recorder| {
        for first in (0..t).step_by(at_once) {
            let rows = first..(first + at_once).min(t);
            let of = |rows: usize| matmul::forms(rec, direction, rows, &w, &w.parts[0], false);
            let whole = of(t).swap_remove(form);
            count = of(t).len();
            // Forms for many rows are not offered for few.
            let form = of(at_once.min(t)).into_iter().find(|piece| piece.key() == whole.key()).unwrap_or(whole);
            let what = matmul::product_of_rows("piece", direction, (x, y), t, rows, &w, &w.parts[0]);
            rec.dispatch(form.spec, form.variant, form.grid, what);
        }
    });
    (got.into_iter().next().unwrap(), count)
}

#[test]
fn rows_in_several_dispatches_have_the_same_bits() {
    let Some(gpu) = gpu() else { return };
    for direction in BOTH {
        let (mut form, mut forms) = (0, 1);
        while form < forms {
            let (whole, count) = in_pieces(gpu, direction, 150, form);
            assert!(in_pieces(gpu, direction, 64, form) == (whole.clone(), count), "{direction:?}, form {form}");
            (form, forms) = (form + 1, count);
        }
    }
}

#[test]
fn matrices_of_one_input_are_multiplied_together() {
    let Some(gpu) = gpu() else { return };
    for direction in BOTH {
        for (members, t, split) in [(&[20, 8, 16][..], 9, usize::MAX), (&[36, 12], 33, 24), (&[68, 64, 64], 3, 64)] {
            let mut forms = std::cell::Cell::new(1);
            let mut form = 0;
            while form < *forms.get_mut() {
                let [got, want] = joint(gpu, direction, members, t, split, &|all| {
                    forms.set(all.len());
                    form
                });
                assert_close(&format!("{direction:?} {members:?}, {t} rows, form {form}"), &got, &want, ABSOLUTE, RELATIVE);
                form += 1;
            }
        }
    }
    // The comparison can fail: the members' outputs are not those of one matrix.
    let [got, _] = joint(gpu, Direction::Forward, &[20, 8, 16], 9, usize::MAX, &|_| 0);
    let [_, other] = joint(gpu, Direction::Forward, &[8, 20, 16], 9, usize::MAX, &|_| 0);
    assert!(close(&got, &other, ABSOLUTE, RELATIVE).is_err());
}

#[test]
fn a_wrong_weight_is_seen() {
    let Some(gpu) = gpu() else { return };
    let case = Case { format: &quant::Q4_1, direction: Direction::Forward, sizes: (9, 12, 64), accumulate: false, split: usize::MAX };
    let (mut got, want) = case.run(gpu, &|_| 0);
    assert!(close(&got, &want, ABSOLUTE, RELATIVE).is_ok());
    got.swap(3, 5);
    assert!(close(&got, &want, ABSOLUTE, RELATIVE).is_err(), "two exchanged outputs are not seen");
    let backward = Case { direction: Direction::Backward, ..case };
    let (got, _) = backward.run(gpu, &|_| 0);
    let (_, plain) = Case { accumulate: true, ..backward }.run(gpu, &|_| 0);
    assert!(close(&got, &plain, ABSOLUTE, RELATIVE).is_err(), "a lost accumulation is not seen");
}

#[test]
fn two_runs_agree_bit_for_bit() {
    let Some(gpu) = gpu() else { return };
    for direction in BOTH {
        let case = Case { format: &quant::Q4_1, direction, sizes: (33, 68, 96), accumulate: true, split: usize::MAX };
        let (first, second) = (case.run(gpu, &|_| 0).0, case.run(gpu, &|_| 0).0);
        assert!(first.iter().zip(&second).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn embedding_rows_equal_the_decoder_bit_for_bit_in_every_format() {
    let Some(gpu) = gpu() else { return };
    for &format in FORMATS {
        let cols = if format.block == 1 { 37 } else { 3 * format.block };
        let rows = 11;
        let mut bench = Bench::new();
        let (w, decoded) = matrix(&mut bench, format, rows, cols, 8);
        let tokens: Vec<u32> = [10u32, 0, 0, 9, 8, 7].into_iter().chain(0..rows as u32).collect();
        let ids = bench.put("tokens", &tokens);
        let y: Tensor = bench.put("y", &vec![f32::NAN; tokens.len() * cols]);
        let got = bench.run(gpu, &Tuner::for_device(gpu), &[y], |rec| embed::gather(rec, "embed", ids, &w, y)).remove(0);
        let want = embed::embed_twin(&tokens, &decoded, cols);
        for (i, (g, v)) in got.iter().zip(&want).enumerate() {
            let (t, c) = (i / cols, i % cols);
            assert!(g.to_bits() == v.to_bits(), "{format:?}: weight {c} of row {} is {g:e}, the decoder says {v:e}", tokens[t]);
        }
    }
}

#[test]
fn packing_costs_at_most_a_tenth() {
    for &format in FORMATS {
        for (rows, cols) in [(576, 1536), (1024, 256), (32000, 4096)] {
            let file = rows * format.row_bytes(cols).unwrap();
            let packed = 4 * format.packed_words(rows, cols);
            assert!(packed >= file && packed * 10 <= file * 11, "{format:?}: {packed} bytes for {file}");
        }
    }
}

#[test]
fn the_backward_twin_is_the_gradient_of_the_forward_twin() {
    let wide = |seed, len| noise(seed, len).iter().map(|&v| f64::from(v)).collect::<Vec<f64>>();
    let (t, n, k) = (3, 5, 7);
    let (x, w, dy) = (wide(1, t * k), wide(2, n * k), wide(3, t * n));
    let loss = |x: &[f64]| {
        let mut y = vec![0.0; t * n];
        matmul_twin(x, &w, (t, n, k), &mut y, false);
        y.iter().zip(&dy).map(|(y, g)| y * g + 0.5 * y * y * g).sum::<f64>()
    };
    let mut y = vec![0.0; t * n];
    matmul_twin(&x, &w, (t, n, k), &mut y, false);
    let slope: Vec<f64> = y.iter().zip(&dy).map(|(y, g)| g * (1.0 + y)).collect();
    let mut dx = vec![0.0; t * k];
    matmul_backward_twin(&slope, &w, (t, n, k), &mut dx, false);
    gradcheck("matmul", &x, &dx, 1, loss);
}
