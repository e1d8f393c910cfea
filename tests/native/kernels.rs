//! The small kernels on the GPU against their CPU twins, and the twins' backward passes against finite differences in f64.

use crate::common::{Bench, assert_close, close, gpu, gradcheck, noise, spread};
use weblora::gpu::Tuner;
use weblora::kernels::matmul::Rows;
use weblora::kernels::optimizer::{Block, Group, Hyper, Page, State};
use weblora::kernels::rope::{Heads, Turn};
use weblora::kernels::sum_parts::{Place, sum_parts, sum_parts_twin};
use weblora::kernels::{cross_entropy, elementwise, norm, optimizer, rope, rows};

const SIZES: [(usize, usize); 6] = [(1, 1), (3, 63), (7, 64), (2, 65), (5, 576), (130, 37)];

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

#[test]
fn rmsnorm_matches_its_twin() {
    let Some(gpu) = gpu() else { return };
    for (t, d) in SIZES {
        let (x, w, dy, start) = (noise(1, t * d), noise(2, d), noise(3, t * d), noise(4, t * d));
        let (y_want, rstd_want) = norm::forward_twin(&x, &w, 1e-5);
        let dx_want = norm::backward_twin(&x, &w, &rstd_want, &dy);
        for accumulate in [false, true] {
            let mut b = Bench::new();
            let (xt, wt, dyt, dxt) = (b.put("x", &x), b.put("w", &w), b.put("dy", &dy), b.put("dx", &start));
            let (yt, rt) = (b.put("y", &vec![0f32; t * d]), b.put("rstd", &vec![0f32; t]));
            let got = b.run(gpu, &Tuner::none(), &[yt, rt, dxt], |rec| {
                norm::forward(rec, "n", xt, wt, yt, rt, 1e-5);
                norm::backward(rec, "n", xt, wt, rt, dyt, dxt, accumulate);
            });
            let want: Vec<f32> = dx_want.iter().zip(&start).map(|(d, s)| if accumulate { d + s } else { *d }).collect();
            assert_close("rmsnorm y", &got[0], &y_want, 1e-6, 1e-5);
            assert_close("rmsnorm rstd", &got[1], &rstd_want, 0.0, 1e-5);
            assert_close("rmsnorm dx", &got[2], &want, 1e-5, 1e-4);
        }
    }
}

/// The residual and the norm of the sum in one dispatch: the twin's numbers, and the bits of the two apart.
#[test]
fn residual_and_rmsnorm_are_those_apart() {
    let Some(gpu) = gpu() else { return };
    for (t, d) in SIZES {
        let (x, w, residual) = (noise(1, t * d), noise(2, d), noise(3, t * d));
        let sum: Vec<f32> = x.iter().zip(&residual).map(|(x, r)| x + r).collect();
        let (y_want, rstd_want) = norm::forward_twin(&sum, &w, 1e-5);
        let mut b = Bench::new();
        let (xt, wt, bt) = (b.put("x", &x), b.put("w", &w), b.put("residual", &residual));
        let [sum_apart, y, y_apart] = ["sum", "y", "y"].map(|name| b.put(name, &vec![9f32; t * d]));
        let [rstd, rstd_apart] = ["rstd", "rstd"].map(|name| b.put(name, &vec![9f32; t]));
        let got = b.run(gpu, &Tuner::none(), &[xt, y, rstd, sum_apart, y_apart, rstd_apart], |rec| {
            elementwise::add(rec, "add", bt, xt, sum_apart);
            norm::forward(rec, "norm", sum_apart, wt, y_apart, rstd_apart, 1e-5);
            norm::add_forward(rec, "both", bt, xt, wt, y, rstd, 1e-5);
        });
        assert_eq!(got[0], sum, "sum of {t} x {d}");
        assert_close("norm of the sum", &got[1], &y_want, 1e-6, 1e-5);
        assert_close("rstd of the sum", &got[2], &rstd_want, 0.0, 1e-5);
        assert_eq!(got[..3], got[3..], "bits of {t} x {d}");
    }
}

#[test]
fn rmsnorm_gradient_is_the_derivative() {
    let (t, d) = (3, 7);
    let (x, w, dy) = (f64s(&noise(1, t * d)), f64s(&noise(2, d)), f64s(&noise(3, t * d)));
    let (_, rstd) = norm::forward_twin(&x, &w, 1e-5);
    let dx = norm::backward_twin(&x, &w, &rstd, &dy);
    gradcheck("rmsnorm", &x, &dx, 1, |x| norm::forward_twin(x, &w, 1e-5).0.iter().zip(&dy).map(|(a, b)| a * b).sum());
}

#[test]
#[should_panic(expected = "finite differences say")]
fn gradcheck_sees_a_wrong_gradient() {
    gradcheck("square", &[2.0], &[3.0], 1, |x| x[0] * x[0]);
}

#[test]
fn rope_matches_its_twin_and_turns_back() {
    let Some(gpu) = gpu() else { return };
    for (t, heads, kv_heads, hd) in [(1, 1, 1, 2), (5, 3, 1, 64), (33, 2, 2, 12), (7, 9, 3, 16)] {
        let positions = 40;
        let table: Vec<[f32; 2]> = (0..positions * hd / 2).map(|i| [(i as f32 * 0.37).cos(), (i as f32 * 0.37).sin()]).collect();
        let position: Vec<u32> = (0..t).map(|i| ((i * 7) % positions) as u32).collect();
        let (q, k) = (noise(5, t * heads * hd), noise(6, t * kv_heads * hd));
        let (mut q_want, mut k_want) = (q.clone(), k.clone());
        rope::rotate_twin(&table, &position, &mut q_want, heads, hd, Turn::Forward);
        rope::rotate_twin(&table, &position, &mut k_want, kv_heads, hd, Turn::Forward);
        let mut b = Bench::new();
        let (tt, pt) = (b.put("table", &table), b.put("position", &position));
        let [once, there_and_back] = ["x", "y"].map(|name| Heads { q: b.put(name, &q), k: b.put(name, &k), heads, kv_heads, head_dim: hd });
        let got = b.run(gpu, &Tuner::none(), &[once.q, once.k, there_and_back.q, there_and_back.k], |rec| {
            rope::rotate(rec, "rope", tt, pt, once, Turn::Forward);
            rope::rotate(rec, "rope", tt, pt, there_and_back, Turn::Forward);
            rope::rotate(rec, "back", tt, pt, there_and_back, Turn::Back);
        });
        for (name, i, want, x) in [("q", 0, &q_want, &q), ("k", 1, &k_want, &k)] {
            assert_close(&format!("rope of {name}"), &got[i], want, 1e-6, 1e-5);
            assert_close(&format!("rope and back of {name}"), &got[2 + i], x, 1e-6, 1e-5);
            assert!(t == 1 || crate::common::close(&got[i], x, 1e-6, 1e-5).is_err(), "rope of {name} did nothing");
        }
    }
}

#[test]
fn swiglu_matches_its_twin() {
    let Some(gpu) = gpu() else { return };
    for len in [1, 63, 64, 65, 4099] {
        let scale = |seed| noise(seed, len).iter().map(|v| v * 8.0).collect::<Vec<f32>>();
        let (g, u, da) = (scale(1), scale(2), scale(3));
        let want = elementwise::swiglu_twin(&g, &u);
        let (dg, du) = elementwise::swiglu_backward_twin(&g, &u, &da);
        let mut b = Bench::new();
        let (gt, ut, at, dat, ct) =
            (b.put("g", &g), b.put("u", &u), b.put("a", &vec![0f32; len]), b.put("da", &da), b.put("c", &vec![0f32; len]));
        let got = b.run(gpu, &Tuner::none(), &[at, gt, ut, ct], |rec| {
            elementwise::swiglu(rec, "act", gt, ut, at);
            elementwise::add(rec, "add", at, dat, ct);
            elementwise::swiglu_backward(rec, "act", gt, ut, dat);
        });
        assert_close("swiglu", &got[0], &want, 1e-6, 1e-5);
        assert_close("swiglu dgate", &got[1], &dg, 1e-5, 1e-4);
        assert_close("swiglu dup", &got[2], &du, 1e-5, 1e-5);
        let sum: Vec<f32> = want.iter().zip(&da).map(|(a, b)| a + b).collect();
        assert_close("add", &got[3], &sum, 1e-5, 1e-5);
    }
}

#[test]
fn swiglu_gradient_is_the_derivative() {
    let (g, u, da) = (f64s(&noise(1, 9)), f64s(&noise(2, 9)), f64s(&noise(3, 9)));
    let (dg, du) = elementwise::swiglu_backward_twin(&g, &u, &da);
    let dot = |y: Vec<f64>| y.iter().zip(&da).map(|(a, b)| a * b).sum::<f64>();
    gradcheck("swiglu gate", &g, &dg, 1, |g| dot(elementwise::swiglu_twin(g, &u)));
    gradcheck("swiglu up", &u, &du, 1, |u| dot(elementwise::swiglu_twin(&g, u)));
}

#[test]
fn rows_gather_and_scatter() {
    let Some(gpu) = gpu() else { return };
    let cols = 70;
    let full = noise(1, 9 * cols);
    let (list, targets): (Vec<u32>, Vec<i32>) = (vec![3, 8, 0, 0], vec![5, 0, 2, -1]);
    let mut b = Bench::new();
    let (lt, tt, ft) = (b.put("rows", &list), b.put("targets", &targets), b.put("full", &full));
    let (ct, bt) = (b.put("compact", &vec![0f32; 4 * cols]), b.put("back", &vec![7f32; 9 * cols]));
    let got = b.run(gpu, &Tuner::none(), &[ct, bt], |rec| {
        rows::gather(rec, "gather", lt, tt, ft, ct);
        rows::scatter(rec, "scatter", lt, tt, ct, bt);
    });
    for (i, row) in list.iter().enumerate() {
        let from = *row as usize * cols;
        assert_eq!(got[0][i * cols..(i + 1) * cols], full[from..from + cols], "gathered row {i}");
    }
    for row in 0..9 {
        let want: Vec<f32> = if [3, 8, 0].contains(&row) { full[row * cols..(row + 1) * cols].to_vec() } else { vec![7.0; cols] };
        assert_eq!(got[1][row * cols..(row + 1) * cols], want, "scattered row {row}");
    }
}

#[test]
fn cross_entropy_matches_its_twin() {
    let Some(gpu) = gpu() else { return };
    for (n, vocab) in [(1, 1), (3, 255), (4, 256), (5, 1031)] {
        let logits: Vec<f32> = noise(1, n * vocab).iter().map(|v| v * 60.0).collect();
        let targets: Vec<i32> = (0..n).map(|i| if i % 3 == 2 { -1 } else { (i * 17 % vocab) as i32 }).collect();
        let weight: Vec<f32> = (0..n).map(|i| 1.0 / (i + 1) as f32).collect();
        let (loss, gradient) = cross_entropy::cross_entropy_twin(&targets, &weight, &logits);
        let mut b = Bench::new();
        let ids = b.put("targets", &targets);
        // Between rows lies what would win every maximum.
        let (gap, fill) = (n, 1e9);
        let spaced = spread(&logits, vocab, gap, fill);
        let (weight, lost, z, kept) =
            (b.put("weight", &weight), b.put("loss", &vec![9f32; n]), b.put("logits", &spaced), b.put("kept", &spaced));
        let t = cross_entropy::Targets { ids, weight, loss: lost };
        let rows = |tensor| Rows { tensor, stride: vocab + gap };
        let got = b.run(gpu, &Tuner::none(), &[lost, z, kept], |rec| {
            cross_entropy::cross_entropy(rec, "ce", t, rows(z), vocab, (0, n), true);
            cross_entropy::cross_entropy(rec, "ce", t, rows(kept), vocab, (0, n), false);
        });
        assert_close("loss", &got[0], &loss, 1e-4, 1e-5);
        assert_close("dlogits", &got[1], &spread(&gradient, vocab, gap, fill), 1e-6, 1e-4);
        assert_eq!(got[2], spaced, "without backward the logits stay");
    }
}

#[test]
fn cross_entropy_gradient_is_the_derivative() {
    let (z, targets, weight) = (f64s(&noise(1, 15)), [2, -1, 4], [0.5, 1.0, 0.25]);
    let (_, gradient) = cross_entropy::cross_entropy_twin(&targets, &weight, &z);
    gradcheck("cross-entropy", &z, &gradient, 1, |z| {
        cross_entropy::cross_entropy_twin(&targets, &weight, z).0.iter().zip(&weight).map(|(l, w)| l * w).sum()
    });
}

#[test]
fn adamw_matches_its_twin_with_clipping_and_groups() {
    let Some(gpu) = gpu() else { return };
    let n = 9001;
    let (x, g) = (noise(1, n + 64), noise(2, n));
    let clip = 0.5;
    let length = f64s(&g).iter().map(|v| v * v).sum::<f64>().sqrt();
    let factor = (clip / (length + 1e-6)).min(1.0);
    let (betas, eps, lr, decay) = ((0.9, 0.999), 1e-8, 1e-2, 0.1);
    let groups = [
        Group { begin: 64, grad_begin: 0, len: 5000, lr_multiplier: 1.0, decay: 1.0 },
        Group { begin: 5064, grad_begin: 5000, len: n - 5000, lr_multiplier: 4.0, decay: 0.0 },
    ];
    let mut want = f64s(&x);
    let clipped: Vec<f64> = f64s(&g).iter().map(|v| v * factor).collect();
    for group in groups {
        let (a, b) = (group.begin..group.begin + group.len, group.grad_begin..group.grad_begin + group.len);
        let (mut m, mut v) = (vec![0.0; group.len], vec![0.0; group.len]);
        let (lr, decay) = (lr * f64::from(group.lr_multiplier), decay * f64::from(group.decay));
        optimizer::adamw_twin(&mut want[a], &mut m, &mut v, &clipped[b], lr, betas, eps, decay, 1);
    }
    // Job 1 has the middle of the table, as if jobs had come and gone; job 0 accumulates on, and rows at the end are not used.
    let waiting = Group { begin: 0, grad_begin: n, len: 64, lr_multiplier: 1.0, decay: 1.0 };
    let first = optimizer::blocks(0, 0, &[waiting]);
    let own = optimizer::blocks(1, first.len(), &groups);
    let table = [&first[..], &own, &[Block::default(); 3]].concat();
    let (begin, end) = (first.len() as u32, (first.len() + own.len()) as u32);
    let hyper = Hyper { first_block: begin, end_block: end, ..Hyper::new(lr, betas, eps, decay, clip, 1) };
    let run = |g: &[f32]| {
        let mut b = Bench::new();
        let kept = [g, &[5f32; 64]].concat();
        let page = Page {
            values: b.put("x", &x),
            grads: b.put("g", &kept),
            m: b.put("m", &vec![0f32; n + 64]),
            v: b.put("v", &vec![0f32; n + 64]),
            rows: 0..table.len(),
        };
        let state = State {
            pages: vec![page.clone()],
            blocks: b.put("blocks", &table),
            hyper: b.put("hyper", &[Hyper::default(), hyper]),
            norms: b.put("norms", &[7f32; 4]),
            sums: end as usize,
            carries: 0,
        };
        let got = b.run(gpu, &Tuner::none(), &[page.values, state.norms, page.grads], |rec| optimizer::step(rec, &state));
        assert!(got[2][..n].iter().all(|g| *g == 0.0), "gradients that were looked at are cleared");
        assert_eq!(got[2][n..], [5.0; 64], "the gradients of a job that does not step stay");
        assert_eq!(got[1][..2], [7.0; 2], "and so does its norm");
        got
    };
    let got = run(&g);
    assert_close("norm and factor", &got[1][2..], &[length as f32, factor as f32], 0.0, 1e-5);
    let want: Vec<f32> = want.iter().map(|v| *v as f32).collect();
    assert_close("updated parameters", &got[0], &want, 1e-6, 1e-5);
    assert_eq!(got[0][..64], x[..64], "parameters outside the groups stay");
    let mut broken = g.clone();
    broken[7777] = f32::NAN;
    let got = run(&broken);
    assert!(!got[1][2].is_finite(), "the norm shows the NaN");
    assert_eq!(got[0], x, "a step with a NaN changes nothing");
}

/// Parts of a block of rows and columns, into rows that are wider than it.
#[test]
fn parts_are_summed_in_order() {
    let Some(gpu) = gpu() else { return };
    let (count, rows, width, row, column, stride) = (5, 7, 12, 2, 8, 24);
    let parts = noise(1, count * rows * width);
    for accumulate in [false, true] {
        let before = noise(2, (row + rows) * stride);
        let mut bench = Bench::new();
        let (from, y) = (bench.put("parts", &parts), bench.put("y", &before));
        let got = bench.run(gpu, &Tuner::none(), &[y], |rec| {
            let to = Place { y: Rows { tensor: y, stride }, row, column };
            sum_parts(rec, "sum", from, (rows, width), to, accumulate);
        });
        let mut want = before.clone();
        let own = |t: usize| (row + t) * stride + column..(row + t) * stride + column + width;
        let mut block: Vec<f32> = (0..rows).flat_map(|t| before[own(t)].to_vec()).collect();
        sum_parts_twin(&parts, &mut block, accumulate);
        (0..rows).for_each(|t| want[own(t)].copy_from_slice(&block[t * width..(t + 1) * width]));
        assert_close("sum of parts", &got[0], &want, 1e-6, 1e-6);
        // Parts in another place are noticed.
        assert!(close(&got[0], &before, 1e-3, 1e-3).is_err());
    }
}
