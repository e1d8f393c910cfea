//! Norms that jobs train for themselves: kernels against twins, twins against finite differences, bits that do not depend on the place.

use std::ops::Range;

use crate::common::{Bench, assert_close, close, gpu, gradcheck, noise};
use weblora::gpu::{Gpu, Tuner};
use weblora::kernels::lowrank::Segment;
use weblora::kernels::norm::{self, OwnRow, OwnWeights, Weight};

const EPS: f32 = 1e-5;

/// Three norms in the table, of which this is the middle one.
const NORM: usize = 1;

/// Jobs' rows, one after the other; job 1 has the base's weights, rows past the last job are nobody's.
struct Case {
    d: usize,
    rows: usize,
    jobs: Vec<Range<usize>>,
}

/// Where the weights of a job lie, and their gradients.
fn places(job: usize, d: usize) -> (usize, usize) {
    let stride = d.next_multiple_of(64);
    ((2 - job) * stride, job * stride)
}

impl Case {
    /// y, rstd, dx, gradients of all jobs, and y and rstd once more, of a sum whose other part is 0; `x` and `dy` are the whole batch's.
    fn run(&self, gpu: &Gpu, x: &[f32], dy: &[f32], frozen: Option<usize>) -> Vec<Vec<f32>> {
        let (d, count) = (self.d, self.jobs.len());
        let mut row_job = vec![u32::MAX; self.rows];
        for (job, rows) in self.jobs.iter().enumerate() {
            row_job[rows.clone()].fill(job as u32);
        }
        let mut table = vec![OwnRow::BASE; 3 * count];
        let mut values = vec![f32::NAN; 3 * d.next_multiple_of(64)];
        for job in (0..count).filter(|job| *job != 1) {
            let (value, grad) = places(job, d);
            values[value..value + d].copy_from_slice(&own(job, d));
            let grads = if frozen == Some(job) { u32::MAX } else { grad as u32 };
            table[NORM * count + job] = OwnRow { values: value as u32, grads };
        }
        let jobs: Vec<Segment> = self.jobs.iter().map(|rows| Segment::new(rows.clone())).collect();
        let mut b = Bench::new();
        let (xt, wt, dyt) = (b.put("x", x), b.put("w", &base(d)), b.put("dy", dy));
        let [y, dx] = ["y", "dx"].map(|name| b.put(name, &vec![0f32; self.rows * d]));
        let [rstd, rstd_sum] = ["rstd", "rstd_sum"].map(|name| b.put(name, &vec![0f32; self.rows]));
        let [sum, y_sum] = ["sum", "y_sum"].map(|name| b.put(name, &vec![0f32; self.rows * d]));
        let grads = b.put("grads", &vec![1f32; values.len()]);
        let weights = OwnWeights {
            row_job: b.put("row_job", &row_job),
            jobs: b.put("jobs", &jobs),
            table: b.put("table", &table),
            values: b.put("values", &values),
            grads,
            norm: NORM,
            count,
        };
        let w = Weight { base: wt, own: Some(weights) };
        b.run(gpu, &Tuner::none(), &[y, rstd, dx, grads, y_sum, rstd_sum], |rec| {
            norm::add_forward(rec, "residual_norm", xt, sum, w, y_sum, rstd_sum, EPS);
            norm::forward(rec, "norm", xt, w, y, rstd, EPS);
            norm::backward(rec, "norm_backward", xt, w, rstd, dyt, dx, false);
            norm::own_gradient(rec, "norm_gradient", xt, w, rstd, dyt);
        })
    }
}

fn base(d: usize) -> Vec<f32> {
    noise(2, d)
}

fn own(job: usize, d: usize) -> Vec<f32> {
    noise(20 + job as u64, d)
}

#[test]
fn each_row_has_its_jobs_weights() {
    let Some(gpu) = gpu() else { return };
    for (d, lengths) in [(1, [1, 1, 1]), (63, [7, 2, 9]), (64, [8, 0, 1]), (36, [33, 5, 17]), (576, [3, 1, 20])] {
        let mut end = 0;
        let jobs: Vec<Range<usize>> = lengths.iter().map(|n| (end, end += n).0..end).collect();
        let case = Case { d, rows: end + 2, jobs };
        let (x, dy) = (noise(1, case.rows * d), noise(3, case.rows * d));
        let got = case.run(gpu, &x, &dy, None);
        let mut gradient = vec![1f32; got[3].len()];
        for (job, rows) in case.jobs.iter().cloned().enumerate().chain([(1, end..end + 2)]) {
            let w = if job == 1 { base(d) } else { own(job, d) };
            let part = |t: &[f32]| t[rows.start * d..rows.end * d].to_vec();
            let (y, rstd) = norm::forward_twin(&part(&x), &w, f64::from(EPS));
            let what = format!("job {job}, rows of {d}");
            assert_close(&format!("y, {what}"), &part(&got[0]), &y, 1e-6, 1e-5);
            let dx = norm::backward_twin(&part(&x), &w, &rstd, &part(&dy));
            assert_close(&format!("dx, {what}"), &part(&got[2]), &dx, 1e-5, 1e-4);
            if job != 1 && !rstd.is_empty() {
                let dw = norm::weight_gradient_twin(&part(&x), &rstd, &part(&dy));
                let at = places(job, d).1;
                gradient[at..at + d].iter_mut().zip(dw).for_each(|(g, dw)| *g += dw);
            }
        }
        assert_close(&format!("dw, rows of {d}"), &got[3], &gradient, 1e-5, 1e-5);
        assert_eq!(got[4..], got[..2], "residual and norm in one dispatch, rows of {d}");
        // The base's weights everywhere would be seen.
        let wrong = norm::forward_twin(&x, &base(d), f64::from(EPS)).0;
        assert!(close(&got[0], &wrong, 1e-6, 1e-5).is_err(), "own weights change nothing, rows of {d}");
        // Weights that do not train get no gradient.
        let frozen = case.run(gpu, &x, &dy, Some(0));
        assert!(frozen[0] == got[0] && frozen[3][places(0, d).1..][..d].iter().all(|g| *g == 1.0), "rows of {d}");
    }
}

#[test]
fn a_jobs_bits_do_not_depend_on_where_its_rows_lie() {
    let Some(gpu) = gpu() else { return };
    let (d, length) = (40, 29);
    let (x, dy) = (noise(1, length * d), noise(3, length * d));
    let at = |before: usize, rest: f32| {
        let rows = before + length + 3;
        let place = |part: &[f32]| {
            let mut all = vec![rest; rows * d];
            all[before * d..(before + length) * d].copy_from_slice(part);
            all
        };
        let case = Case { d, rows, jobs: vec![0..0, 0..before, before..before + length] };
        let got = case.run(gpu, &place(&x), &place(&dy), None);
        let own = |t: &[f32]| t[before * d..(before + length) * d].to_vec();
        let grad = places(2, d).1;
        [own(&got[0]), own(&got[2]), got[3][grad..grad + d].to_vec()]
    };
    let alone = at(0, 0.0);
    for before in [1, 5, 8, 64] {
        assert!(at(before, 0.5) == alone && at(before, f32::NAN) == alone, "behind {before} rows");
    }
}

#[test]
fn the_twin_is_the_derivative() {
    let (t, d) = (5, 7);
    let wide = |seed, len| noise(seed, len).iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (x, w, dy) = (wide(1, t * d), wide(2, d), wide(3, t * d));
    let (_, rstd) = norm::forward_twin(&x, &w, 1e-5);
    let dw = norm::weight_gradient_twin(&x, &rstd, &dy);
    gradcheck("norm weights", &w, &dw, 1, |w| norm::forward_twin(&x, w, 1e-5).0.iter().zip(&dy).map(|(a, b)| a * b).sum());
}
