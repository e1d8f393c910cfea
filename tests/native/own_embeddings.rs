//! Embeddings that jobs train for themselves: kernels against twins, twins against finite differences, bits that do not depend on the place.

use std::ops::Range;

use crate::common::{Bench, assert_close, close, gpu, gradcheck, noise};
use weblora::gpu::{Gpu, Tuner};
use weblora::kernels::embed::{self, NO_ROW, OwnEmbeddings};

const VOCAB: usize = 23;

/// The tokens that a job trains; job 1 trains none.
fn trained(job: usize) -> Vec<u32> {
    (0..VOCAB as u32).filter(|token| job != 1 && !(token + job as u32).is_multiple_of(3)).collect()
}

/// Each token's place among those that a job trains.
fn places(job: usize) -> Vec<u32> {
    let own = trained(job);
    (0..VOCAB as u32).map(|token| own.iter().position(|t| *t == token).map_or(NO_ROW, |place| place as u32)).collect()
}

fn delta(job: usize, d: usize) -> Vec<f32> {
    noise(20 + job as u64, trained(job).len() * d)
}

/// Tokens of a job's rows; few, so that they repeat.
fn tokens(job: usize, rows: usize) -> Vec<u32> {
    (0..rows as u32).map(|row| (row * row + 5 * job as u32) % VOCAB as u32).collect()
}

/// Jobs' rows, one after the other; rows past the last job are nobody's.
struct Case {
    d: usize,
    rows: usize,
    jobs: Vec<Range<usize>>,
}

impl Case {
    /// Where the embeddings of a job lie.
    fn place(&self, job: usize) -> usize {
        (self.jobs.len() - 1 - job) * (VOCAB * self.d).next_multiple_of(64)
    }

    /// Tokens of the whole batch, their jobs.
    fn batch(&self) -> (Vec<u32>, Vec<u32>) {
        let (mut all, mut row_job) = (vec![4; self.rows], vec![u32::MAX; self.rows]);
        for (job, rows) in self.jobs.iter().enumerate() {
            all[rows.clone()].copy_from_slice(&tokens(job, rows.len()));
            row_job[rows.clone()].fill(job as u32);
        }
        (all, row_job)
    }

    /// y with what jobs add, and gradients of all jobs, which were 1.
    fn run(&self, gpu: &Gpu, y: &[f32], dx: &[f32], frozen: Option<usize>) -> Vec<Vec<f32>> {
        let (d, count) = (self.d, self.jobs.len());
        let (all, row_job) = self.batch();
        let words = count * (VOCAB * d).next_multiple_of(64);
        let mut values = vec![f32::NAN; words];
        let mut table = Vec::new();
        for job in 0..count {
            let own = delta(job, d);
            values[self.place(job)..][..own.len()].copy_from_slice(&own);
            table.extend([self.place(job) as u32, if frozen == Some(job) { u32::MAX } else { self.place(job) as u32 }]);
        }
        (0..count).for_each(|job| table.extend(places(job)));
        let mut b = Bench::new();
        let (yt, dxt) = (b.put("y", y), b.put("dx", dx));
        let tokens = b.put("tokens", &all);
        let order: Vec<u32> = embed::order(&all, &row_job).into_iter().flatten().collect();
        let order = b.put("order", &order);
        let grads = b.put("grads", &vec![1f32; words]);
        let own = OwnEmbeddings {
            row_job: b.put("row_job", &row_job),
            table: b.put("table", &table),
            values: b.put("values", &values),
            grads,
            vocab: VOCAB,
            jobs: count,
        };
        b.run(gpu, &Tuner::none(), &[yt, grads], |rec| {
            embed::add_own(rec, "own", tokens, own, d, yt);
            embed::own_gradient(rec, "own_gradient", tokens, own, order, d, dxt);
        })
    }
}

#[test]
fn each_row_has_its_jobs_embedding() {
    let Some(gpu) = gpu() else { return };
    for (d, lengths) in [(1, [4, 2, 5]), (63, [7, 2, 9]), (64, [8, 0, 1]), (36, [33, 5, 67]), (130, [3, 1, 20])] {
        let mut end = 0;
        let jobs: Vec<Range<usize>> = lengths.iter().map(|n| (end, end += n).0..end).collect();
        let case = Case { d, rows: end + 2, jobs };
        let (y, dx) = (noise(1, case.rows * d), noise(3, case.rows * d));
        let got = case.run(gpu, &y, &dx, None);
        let (mut want, mut gradient) = (y.clone(), vec![1f32; got[1].len()]);
        for (job, rows) in case.jobs.iter().enumerate() {
            let part = rows.start * d..rows.end * d;
            let own = tokens(job, rows.len());
            want[part.clone()].copy_from_slice(&embed::add_own_twin(&own, &places(job), &delta(job, d), &y[part.clone()], d));
            let sums = embed::own_gradient_twin(&own, &places(job), trained(job).len(), &dx[part], d);
            gradient[case.place(job)..].iter_mut().zip(sums).for_each(|(g, sum)| *g += sum);
        }
        assert!(got[0] == want, "y, rows of {d}");
        assert_close(&format!("dΔE, rows of {d}"), &got[1], &gradient, 1e-6, 1e-6);
        // The base's embeddings everywhere, or no gradient, would be seen.
        assert!(close(&got[0], &y, 1e-6, 1e-5).is_err() && close(&got[1], &vec![1.0; gradient.len()], 1e-6, 1e-6).is_err(), "rows of {d}");
        let frozen = case.run(gpu, &y, &dx, Some(2));
        let of_job = case.place(2)..case.place(2) + trained(2).len() * d;
        assert!(frozen[0] == got[0] && frozen[1][of_job].iter().all(|g| *g == 1.0), "rows of {d}");
    }
}

#[test]
fn a_jobs_bits_do_not_depend_on_where_its_rows_lie() {
    let Some(gpu) = gpu() else { return };
    let (d, length) = (40, 29);
    let (y, dx) = (noise(1, length * d), noise(3, length * d));
    let at = |before: usize, rest: f32| {
        let rows = before + length + 3;
        let place = |part: &[f32]| {
            let mut all = vec![rest; rows * d];
            all[before * d..(before + length) * d].copy_from_slice(part);
            all
        };
        let case = Case { d, rows, jobs: vec![0..before, before..before, before..before + length] };
        let got = case.run(gpu, &place(&y), &place(&dx), None);
        let grads = got[1][case.place(2)..][..trained(2).len() * d].to_vec();
        [got[0][before * d..(before + length) * d].to_vec(), grads]
    };
    let alone = at(0, 0.0);
    for before in [1, 5, 64, 200] {
        assert!(at(before, 0.5) == alone && at(before, f32::NAN) == alone, "behind {before} rows");
    }
}

#[test]
fn rows_of_one_job_and_token_are_side_by_side() {
    let order = embed::order(&[7, 3, 7, 7, 3, 3], &[0, 0, 0, 1, u32::MAX, 0]);
    assert_eq!(order, [[1, 2], [5, 0], [0, 2], [2, 0], [3, 1], [4, 0]]);
    assert!(embed::order(&[], &[]).is_empty());
}

#[test]
fn the_twin_is_the_derivative() {
    let (t, d) = (9, 5);
    let wide = |seed, len| noise(seed, len).iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (own, places, count) = (tokens(0, t), places(0), trained(0).len());
    let (y, delta, dy) = (wide(1, t * d), wide(2, count * d), wide(3, t * d));
    let gradient = embed::own_gradient_twin(&own, &places, count, &dy, d);
    gradcheck("embeddings", &delta, &gradient, 1, |delta| {
        embed::add_own_twin(&own, &places, delta, &y, d).iter().zip(&dy).map(|(a, b)| a * b).sum()
    });
}
