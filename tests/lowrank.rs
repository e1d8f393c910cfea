//! Segmented low-rank products: twins against finite differences, kernels against twins, jobs alone against jobs together.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod common;

use common::{Bench, assert_close, close, gradcheck, noise};
use weblora::gpu::{Candidate, Gpu, Recorder, Tensor, Tuner};
use weblora::kernels::lowrank::{self, JobRow, LowrankSite, LowrankTables, NO_GRADIENT, SiteRow, half_stride};
use weblora::kernels::lowrank_twin::{TwinGrads, TwinSite, lowrank_backward_twin, lowrank_forward_twin};
use weblora::kernels::real::Real;

/// One job of a case.
#[derive(Clone)]
struct JobSpec {
    rows: usize,
    rank: usize,
    train: std::ops::Range<usize>,
    dropout: f32,
    seed: u32,
    /// Ranks at the end that are stored as f16.
    half: usize,
}

fn job(rows: usize, rank: usize) -> JobSpec {
    JobSpec { rows, rank, train: 0..rank, dropout: 0.0, seed: 7, half: 0 }
}

/// The last `count` numbers as f16 has them.
fn rounded(mut numbers: Vec<f32>, count: usize) -> Vec<f32> {
    let begin = numbers.len() - count;
    numbers[begin..].iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
    numbers
}

/// Tables and data of one site number among `SITES`, so that indexing by site is exercised.
const SITES: usize = 3;
const SITE: usize = 2;

struct Case {
    k: usize,
    n: usize,
    r_max: usize,
    /// Rows before, between and after the jobs belong to nobody.
    pad: usize,
    jobs: Vec<JobRow>,
    /// As the twins see them: all of f32.
    sites: Vec<SiteRow>,
    row_job: Vec<u32>,
    adapter: Vec<f32>,
    /// Of each job, the ranks at the end that the kernels see as f16.
    half: Vec<usize>,
    grads_len: usize,
    x: Vec<f32>,
    dy: Vec<f32>,
}

impl Case {
    /// Jobs one after the other; each job's numbers depend on its seed and sizes only, not on its place.
    fn new(specs: &[JobSpec], (k, n): (usize, usize), pad: usize) -> Case {
        // Offsets are whole vectors where widths are, and anything else where they are not.
        let (start, gap) = if k % 4 == 0 && n % 4 == 0 { (4, 4) } else { (3, 1) };
        let mut case = Case {
            k,
            n,
            r_max: specs.iter().map(|s| s.rank).max().unwrap().max(1),
            pad,
            jobs: vec![],
            sites: vec![],
            row_job: vec![],
            half: specs.iter().map(|s| s.half).collect(),
            adapter: vec![0.5; start],
            grads_len: start + 2 * gap,
            x: vec![],
            dy: vec![],
        };
        for (i, s) in specs.iter().enumerate() {
            case.nobody(pad);
            let begin = case.row_job.len();
            case.row_job.extend(std::iter::repeat_n(i as u32, s.rows));
            case.x.extend(noise(u64::from(s.seed), s.rows * k));
            case.dy.extend(noise(u64::from(s.seed) + 100, s.rows * n));
            case.jobs.push(JobRow::new(begin..begin + s.rows).with_dropout(s.dropout, s.seed, 4));
            let a_offset = case.adapter.len();
            case.adapter.extend(rounded(noise(u64::from(s.seed) + 200, s.rank * k), s.half * k));
            let b_offset = case.adapter.len() + gap;
            case.adapter.extend(vec![9.0; gap]);
            case.adapter.extend(rounded(noise(u64::from(s.seed) + 300, s.rank * n), s.half * n));
            let grad_b_offset = case.grads_len + s.train.len() * k;
            case.sites.push(SiteRow {
                rank: s.rank as u16,
                half: 0,
                a_offset: a_offset as u32,
                b_offset: b_offset as u32,
                grad_a_offset: case.grads_len as u32,
                grad_b_offset: grad_b_offset as u32,
                train_begin: s.train.start as u32,
                train_end: s.train.end as u32,
                scale: 0.5 + 0.25 * s.seed as f32,
            });
            case.grads_len = grad_b_offset + s.train.len() * n + 2 * gap;
        }
        case.nobody(pad);
        case
    }
    /// Factors and sites as the kernels see them: the last ranks packed.
    fn packed(&self) -> (Vec<f32>, Vec<SiteRow>) {
        let (mut words, mut sites) = (vec![7.0; 4], self.sites.clone());
        for (site, half) in sites.iter_mut().zip(&self.half) {
            site.half = *half as u16;
            for (offset, width) in [(&mut site.a_offset, self.k), (&mut site.b_offset, self.n)] {
                let whole = *offset as usize + (site.rank as usize - half) * width;
                let rows = &self.adapter[whole..whole + half * width];
                let begin = words.len();
                words.extend(&self.adapter[*offset as usize..whole]);
                *offset = begin as u32;
                for row in rows.chunks_exact(width) {
                    let mut bits: Vec<u16> = row.iter().map(|x| half::f16::from_f32(*x).to_bits()).collect();
                    bits.resize(2 * half_stride(width), 0x7e00);
                    words.extend(bits.chunks_exact(2).map(|two| f32::from_bits(u32::from(two[0]) | u32::from(two[1]) << 16)));
                }
                words.resize(words.len().next_multiple_of(4), 9.0);
            }
        }
        (words, sites)
    }
    fn nobody(&mut self, rows: usize) {
        self.row_job.extend(std::iter::repeat_n(u32::MAX, rows));
        self.x.extend(noise(41, rows * self.k));
        self.dy.extend(noise(42, rows * self.n));
    }
    fn t_max(&self) -> usize {
        self.sites.iter().map(|s| (s.train_end - s.train_begin) as usize).max().unwrap().max(1)
    }
    fn rows(&self) -> usize {
        self.row_job.len()
    }
    /// Of `h`.
    fn stride(&self) -> usize {
        self.r_max.next_multiple_of(4)
    }
    fn dropout(&self) -> bool {
        self.jobs.iter().any(|j| j.dropout_threshold > 0)
    }
    fn twin<'a, R>(&'a self, adapter: &'a [R]) -> TwinSite<'a, R> {
        let sizes = [self.rows(), self.k, self.n, self.stride()];
        TwinSite { sizes, site: SITE as u32, jobs: &self.jobs, sites: &self.sites, adapter }
    }
    fn expected(&self) -> (Vec<f32>, Vec<f32>, TwinGrads<f32>) {
        let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
        let narrow = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
        let (adapter, x, dy) = (wide(&self.adapter), wide(&self.x), wide(&self.dy));
        let site = self.twin(&adapter);
        let (h, y) = lowrank_forward_twin(&site, &x);
        let g = lowrank_backward_twin(&site, &x, &dy, &h, self.grads_len);
        (narrow(h), narrow(y), TwinGrads { dh: narrow(g.dh), dx: narrow(g.dx), grads: narrow(g.grads) })
    }
}

/// What every accumulated buffer starts from: accumulation must add, not overwrite.
const START: f32 = 0.25;

struct Found {
    h: Vec<f32>,
    y: Vec<f32>,
    grads: TwinGrads<f32>,
}

/// Declares a case's tensors and records forward and backward.
fn run(gpu: &Gpu, case: &Case, tuner: &Tuner) -> Found {
    let (mut bench, site, [x, dy, h, dh, y, dx]) = prepare(case);
    let outputs = [h, y, dh, dx, site.tables.grads];
    let mut found = std::mem::replace(&mut bench, Bench::new()).run(gpu, tuner, &outputs, |rec| {
        record(rec, &site, [x, dy, h, dh, y, dx]);
    });
    let grads = found.pop().unwrap();
    let (dx, dh) = (found.pop().unwrap(), found.pop().unwrap());
    let (y, h) = (found.pop().unwrap(), found.pop().unwrap());
    Found { h, y, grads: TwinGrads { dh, dx, grads } }
}

fn prepare(case: &Case) -> (Bench, LowrankSite, [Tensor; 6]) {
    let mut bench = Bench::new();
    let mut sites = vec![SiteRow { rank: 1, a_offset: u32::MAX, ..SiteRow::default() }; SITES * case.jobs.len()];
    let half = case.half.iter().any(|n| *n > 0);
    let (adapter, own) = if half { case.packed() } else { (case.adapter.clone(), case.sites.clone()) };
    sites[SITE * case.jobs.len()..(SITE + 1) * case.jobs.len()].copy_from_slice(&own);
    let tables = LowrankTables {
        row_job: bench.put("row_job", &case.row_job),
        jobs: bench.put("jobs", bytemuck::cast_slice::<JobRow, u32>(&case.jobs)),
        sites: bench.put("sites", bytemuck::cast_slice::<SiteRow, u32>(&sites)),
        adapter: bench.put("adapter", &adapter),
        grads: bench.put("grads", &vec![START; case.grads_len]),
    };
    let rows = case.rows();
    let site = LowrankSite {
        rows,
        k: case.k,
        n: case.n,
        r_max: case.r_max,
        t_max: case.t_max(),
        site: SITE,
        jobs: case.jobs.len(),
        dropout: case.dropout(),
        half,
        tables,
    };
    let x = bench.put("x", &case.x);
    let dy = bench.put("dy", &case.dy);
    // h and dh must be written wholly, whatever was there.
    let h = bench.put("h", &vec![-8.0f32; rows * site.stride()]);
    let dh = bench.put("dh", &vec![-8.0f32; rows * site.stride()]);
    let y = bench.put("y", &vec![START; rows * case.n]);
    let dx = bench.put("dx", &vec![START; rows * case.k]);
    (bench, site, [x, dy, h, dh, y, dx])
}

fn record(rec: &mut Recorder, site: &LowrankSite, [x, dy, h, dh, y, dx]: [Tensor; 6]) {
    lowrank::forward(rec, "site", site, x, h, y);
    lowrank::backward(rec, "site", site, x, dy, h, dh, Some(dx));
}

/// All tunable dispatches of a case with their candidates on this device.
fn candidates(gpu: &Gpu, case: &Case) -> Vec<(String, Vec<Candidate>)> {
    let tuner = Tuner::for_device(gpu);
    let mut rec = Recorder::new(&tuner);
    let (_, site, tensors) = prepare(case);
    record(&mut rec, &site, tensors);
    rec.untuned().iter().map(|u| (u.key.clone(), u.candidates.clone())).collect()
}

/// A tuner that takes candidate `i` (or the last one) everywhere.
fn forced(gpu: &Gpu, case: &Case, i: usize) -> Tuner {
    let mut tuner = Tuner::for_device(gpu);
    for (key, all) in candidates(gpu, case) {
        tuner.force(&key, &all[i.min(all.len() - 1)]);
    }
    tuner
}

fn most_candidates(gpu: &Gpu, case: &Case) -> usize {
    candidates(gpu, case).iter().map(|(_, all)| all.len()).max().unwrap()
}

/// Sums of up to `terms` products of numbers in (-1, 1), rounded at each step: a few ulps of the sum's size.
fn tolerance(terms: usize) -> f32 {
    1e-6 * (terms as f32).sqrt() * 8.0
}

fn check(what: &str, case: &Case, found: &Found) {
    let (h, y, grads) = case.expected();
    let add = |v: Vec<f32>| v.into_iter().map(|x| x + START).collect::<Vec<f32>>();
    let through = tolerance(case.k.max(case.n) * case.r_max);
    assert_close(&format!("{what} h"), &found.h, &h, tolerance(case.k), 1e-5);
    assert_close(&format!("{what} y"), &found.y, &add(y), through, 1e-5);
    assert_close(&format!("{what} dh"), &found.grads.dh, &grads.dh, 4.0 * tolerance(case.n), 1e-5);
    assert_close(&format!("{what} dx"), &found.grads.dx, &add(grads.dx), 4.0 * through, 1e-5);
    let over_rows = tolerance(case.rows() * case.k.max(case.n));
    assert_close(&format!("{what} grads"), &found.grads.grads, &add(grads.grads), 4.0 * over_rows, 1e-5);
}

fn three_jobs() -> Vec<JobSpec> {
    vec![
        JobSpec { dropout: 0.25, train: 2..3, seed: 1, ..job(9, 3) },
        JobSpec { seed: 2, ..job(5, 0) },
        JobSpec { dropout: 0.0, train: 8..17, seed: 3, ..job(19, 17) },
    ]
}

#[test]
fn backward_twin_matches_finite_differences() {
    let case = Case::new(
        &[JobSpec { dropout: 0.3, seed: 5, ..job(4, 3) }, JobSpec { dropout: 0.5, train: 1..2, seed: 6, ..job(3, 2) }],
        (6, 5),
        1,
    );
    let wide = |v: &[f32]| v.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
    let (adapter, x, dy) = (wide(&case.adapter), wide(&case.x), wide(&case.dy));
    let loss =
        |adapter: &[f64], x: &[f64]| -> f64 { lowrank_forward_twin(&case.twin(adapter), x).1.iter().zip(&dy).map(|(y, d)| y * d).sum() };
    let (h, _) = lowrank_forward_twin(&case.twin(&adapter), &x);
    let found = lowrank_backward_twin(&case.twin(&adapter), &x, &dy, &h, case.grads_len);
    gradcheck("dx", &x, &found.dx, 1, |x| loss(&adapter, x));
    for site in &case.sites {
        let trained = (site.train_end - site.train_begin) as usize;
        for (width, values, grads) in [(case.k, site.a_offset, site.grad_a_offset), (case.n, site.b_offset, site.grad_b_offset)] {
            let at = values as usize + site.train_begin as usize * width;
            let part = &found.grads[grads as usize..grads as usize + trained * width];
            gradcheck("factor", &adapter[at..at + trained * width], part, 1, |part| {
                let mut moved = adapter.clone();
                moved[at..at + part.len()].copy_from_slice(part);
                loss(&moved, &x)
            });
        }
    }
}

#[test]
fn dropout_drops_as_often_as_asked_and_differently_per_key() {
    let mask = |job: &JobRow, site: u32, first: u32| -> Vec<bool> {
        (0..100u32 * 100).map(|i| lowrank::dropout_factor(job, site, first + i / 100, i % 100) == 0.0).collect()
    };
    let base = JobRow::new(0..100).with_dropout(0.25, 11, 3);
    let dropped = mask(&base, 4, 0).iter().filter(|d| **d).count();
    assert!((2370..2630).contains(&dropped), "{dropped} of 10000 dropped at p 0.25");
    assert_eq!(lowrank::dropout_factor(&JobRow::new(0..1), 0, 0, 0), 1.0);
    let moved = JobRow { row_begin: 37, row_end: 137, ..base };
    assert_eq!(mask(&base, 4, 0), mask(&moved, 4, 37), "the mask must not depend on the place in the batch");
    let others = [(JobRow::new(0..100).with_dropout(0.25, 12, 3), 4), (JobRow::new(0..100).with_dropout(0.25, 11, 4), 4), (base, 5)];
    for (other, site) in others {
        let same = mask(&base, 4, 0).iter().zip(mask(&other, site, 0)).filter(|(a, b)| **a == *b).count();
        assert!((6000..6500).contains(&same), "{same} of 10000 equal: masks of different keys are related");
    }
}

#[test]
fn kernels_match_twins_over_awkward_sizes() {
    let Some(gpu) = common::gpu() else { return };
    let tuner = Tuner::for_device(gpu);
    for (rows, k, n, rank) in
        [(1, 4, 4, 1), (7, 5, 36, 3), (33, 64, 7, 8), (65, 200, 199, 8), (33, 31, 68, 17), (65, 12, 130, 64), (3, 9, 8, 256)]
    {
        let case = Case::new(&[job(rows, rank)], (k, n), 0);
        check(&format!("T {rows} K {k} N {n} r {rank}"), &case, &run(gpu, &case, &tuner));
    }
}

#[test]
fn every_candidate_matches_the_twin_with_jobs_that_straddle_tiles() {
    let Some(gpu) = common::gpu() else { return };
    for (specs, sizes, pad) in [
        (three_jobs(), (44, 37), 2),
        (vec![JobSpec { dropout: 0.1, seed: 4, ..job(70, 8) }, JobSpec { dropout: 0.5, train: 3..8, seed: 5, ..job(3, 8) }], (129, 66), 0),
    ] {
        let case = Case::new(&specs, sizes, pad);
        for i in 0..most_candidates(gpu, &case) {
            check(&format!("candidate {i}"), &case, &run(gpu, &case, &forced(gpu, &case, i)));
        }
    }
}

/// Row-local results: every candidate gives the same bits, and a job's bits are the same alone and among others.
#[test]
fn rows_have_the_same_bits_alone_and_together() {
    let Some(gpu) = common::gpu() else { return };
    let specs = three_jobs();
    let together = Case::new(&specs, (44, 36), 1);
    let all = run(gpu, &together, &forced(gpu, &together, 0));
    for i in 0..most_candidates(gpu, &together) {
        let other = run(gpu, &together, &forced(gpu, &together, i));
        assert_eq!(all.h, other.h, "h of candidate {i}");
        assert_eq!(all.y, other.y, "y of candidate {i}");
        assert_eq!(all.grads.dx, other.grads.dx, "dx of candidate {i}");
    }
    for (j, spec) in specs.iter().enumerate() {
        let alone = Case::new(std::slice::from_ref(spec), (44, 36), 0);
        let begin = together.jobs[j].row_begin as usize;
        for i in 0..most_candidates(gpu, &alone) {
            let one = run(gpu, &alone, &forced(gpu, &alone, i));
            let rows = begin..begin + spec.rows;
            assert_eq!(one.y, all.y[rows.start * 36..rows.end * 36], "y of job {j}, candidate {i}");
            assert_eq!(one.grads.dx, all.grads.dx[rows.start * 44..rows.end * 44], "dx of job {j}, candidate {i}");
            let stride = alone.stride();
            for t in 0..spec.rows {
                let at = (begin + t) * together.stride();
                assert_eq!(one.h[t * stride..][..spec.rank], all.h[at..at + spec.rank], "h of job {j}, row {t}");
                assert!(all.h[at + spec.rank..at + together.stride()].iter().all(|v| *v == 0.0), "h past the rank of job {j}");
            }
            let same = forced(gpu, &together, i);
            let fused = run(gpu, &together, &same);
            let (a, b) = (&alone.sites[0], &together.sites[j]);
            let len = spec.train.len() * (44 + 36);
            assert_eq!(
                one.grads.grads[a.grad_a_offset as usize..][..len],
                fused.grads.grads[b.grad_a_offset as usize..][..len],
                "gradients of job {j}, candidate {i}"
            );
        }
    }
}

/// Dropout of a link that trains leaves the frozen links of its chain alone: what they add, forward and back, is what they add without it.
#[test]
fn frozen_ranks_see_all_inputs_and_have_no_gradient() {
    let Some(gpu) = common::gpu() else { return };
    let spec = JobSpec { dropout: 0.5, train: 0..3, seed: 9, ..job(40, 21) };
    let dropping = Case::new(std::slice::from_ref(&spec), (52, 44), 1);
    // Without the trainable ranks' factors only the frozen ones count.
    let silent = |mut case: Case| {
        let site = case.sites[0];
        for (at, width) in [(site.a_offset as usize, case.k), (site.b_offset as usize, case.n)] {
            case.adapter[at..at + 3 * width].fill(0.0);
        }
        case
    };
    let keeping = silent(Case::new(&[JobSpec { dropout: 0.0, ..spec.clone() }], (52, 44), 1));
    let silent_and_dropping = silent(Case::new(std::slice::from_ref(&spec), (52, 44), 1));
    for i in 0..most_candidates(gpu, &dropping) {
        check(&format!("candidate {i}"), &dropping, &run(gpu, &dropping, &forced(gpu, &dropping, i)));
        let (one, other) =
            (run(gpu, &silent_and_dropping, &forced(gpu, &silent_and_dropping, i)), run(gpu, &keeping, &forced(gpu, &keeping, i)));
        assert_eq!((one.h, one.y), (other.h, other.y), "forward of frozen ranks, candidate {i}");
        assert_eq!(one.grads.dx, other.grads.dx, "dx of frozen ranks, candidate {i}");
    }
    // A factor that does not train gets no gradient, and the other one is unmoved by that.
    for half in 0..2 {
        let mut lame = Case::new(std::slice::from_ref(&spec), (52, 44), 1);
        let offset = |c: &mut Case| if half == 0 { c.sites[0].grad_a_offset = NO_GRADIENT } else { c.sites[0].grad_b_offset = NO_GRADIENT };
        offset(&mut lame);
        for i in 0..most_candidates(gpu, &lame) {
            check(&format!("candidate {i} without half {half}"), &lame, &run(gpu, &lame, &forced(gpu, &lame, i)));
        }
    }
}

/// Frozen links as f16: the products of the rounded numbers, whatever the widths, beside a job that has none.
#[test]
fn ranks_stored_as_f16_are_read_as_what_they_are() {
    let Some(gpu) = common::gpu() else { return };
    let chain = |half: usize, seed: u32| JobSpec { train: 0..3, half, seed, ..job(21, 21) };
    for (k, n) in [(52, 44), (36, 20), (13, 34), (7, 5)] {
        let case = Case::new(&[chain(18, 3), JobSpec { dropout: 0.5, ..chain(5, 4) }, JobSpec { seed: 5, ..job(9, 4) }], (k, n), 2);
        for i in 0..most_candidates(gpu, &case) {
            check(&format!("K {k} N {n}, candidate {i}"), &case, &run(gpu, &case, &forced(gpu, &case, i)));
        }
        // One number of one f16 row counted as its neighbour is noticed.
        let mut other = Case::new(&[chain(18, 3), JobSpec { dropout: 0.5, ..chain(5, 4) }, JobSpec { seed: 5, ..job(9, 4) }], (k, n), 2);
        let at = other.sites[0].a_offset as usize + 20 * k;
        other.adapter.swap(at, at + 1);
        let found = run(gpu, &case, &Tuner::for_device(gpu));
        assert!(close(&found.h, &other.expected().0, 1e-3, 1e-3).is_err(), "swapped numbers of a f16 row");
    }
}

/// Each of these changes must be seen by the comparison above.
#[test]
fn comparisons_see_a_wrong_job_a_wrong_mask_and_a_wrong_transpose() {
    let Some(gpu) = common::gpu() else { return };
    let case = Case::new(&three_jobs(), (20, 24), 1);
    let found = run(gpu, &case, &Tuner::for_device(gpu));
    let differs = |change: &dyn Fn(&mut Case)| {
        let mut other = Case { jobs: case.jobs.clone(), sites: case.sites.clone(), ..Case::new(&three_jobs(), (20, 24), 1) };
        change(&mut other);
        let (_, y, grads) = other.expected();
        let y: Vec<f32> = y.into_iter().map(|v| v + START).collect();
        let all: Vec<f32> = grads.grads.into_iter().map(|v| v + START).collect();
        close(&found.y, &y, 1e-3, 1e-3).is_err() || close(&found.grads.grads, &all, 1e-3, 1e-3).is_err()
    };
    assert!(!differs(&|_| ()), "the unchanged case must agree");
    assert!(differs(&|c| c.jobs[0].dropout_seed ^= 1), "another dropout seed");
    assert!(differs(&|c| c.jobs[2].row_begin += 1), "a row of another job");
    assert!(differs(&|c| (c.sites[2].train_begin, c.sites[2].train_end) = (7, 16)), "other ranks that train");
    assert!(differs(&|c| c.sites[0].train_begin = 0), "dropout where frozen ranks look");
    assert!(differs(&|c| c.sites[0].scale *= 1.01), "another scale");
    assert!(differs(&|c| c.sites[2].b_offset -= 1), "a shifted factor");
    assert!(differs(&|c| c.dy.swap(c.pad * c.n, c.pad * c.n + 1)), "swapped columns of dy");
}

/// What the tuner measures must do the whole work: the sample tables are one job with the largest rank.
#[test]
fn measuring_candidates_chooses_one_of_each() {
    let Some(gpu) = common::gpu() else { return };
    let case = Case::new(&[JobSpec { dropout: 0.1, ..job(40, 8) }], (64, 48), 0);
    let mut tuner = Tuner::for_device(gpu);
    let untuned = {
        let mut rec = Recorder::new(&tuner);
        let (_, site, tensors) = prepare(&case);
        record(&mut rec, &site, tensors);
        rec.untuned().to_vec()
    };
    assert!(untuned.iter().all(|u| u.what.samples.len() == 2), "tables are sampled");
    pollster::block_on(tuner.measure(gpu, &untuned)).unwrap();
    for u in &untuned {
        assert!(tuner.choice(&u.key, &u.candidates).is_some(), "no choice for {}", u.key);
    }
    check("tuned", &case, &run(gpu, &case, &tuner));
}

#[test]
fn twins_agree_with_a_dense_product() {
    fn dense<R: Real>(rows: usize, inner: usize, cols: usize, a: impl Fn(usize, usize) -> R, b: impl Fn(usize, usize) -> R) -> Vec<R> {
        (0..rows * cols).map(|i| (0..inner).map(|j| a(i / cols, j) * b(j, i % cols)).sum()).collect()
    }
    let case = Case::new(&[job(4, 3)], (5, 6), 0);
    let adapter: Vec<f64> = case.adapter.iter().map(|v| f64::from(*v)).collect();
    let x: Vec<f64> = case.x.iter().map(|v| f64::from(*v)).collect();
    let site = &case.sites[0];
    // Delta W = scale * B A, the textbook form.
    let delta = dense(6, 3, 5, |n, r| adapter[site.b_offset as usize + r * 6 + n], |r, k| adapter[site.a_offset as usize + r * 5 + k]);
    let want = dense(4, 5, 6, |t, k| x[t * 5 + k], |k, n| f64::from(site.scale) * delta[n * 5 + k]);
    let (_, got) = lowrank_forward_twin(&case.twin(&adapter), &x);
    assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-12), "{got:?} {want:?}");
}
