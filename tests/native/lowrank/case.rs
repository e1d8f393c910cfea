//! Jobs beside each other in one batch: what the kernels get, what they give, what the twins say.

use weblora::gpu::device::Facts;
use weblora::gpu::{Candidate, Gpu, Recorder, Tensor, Tuner};
use weblora::kernels::lowrank::{self, LowrankSite, LowrankTables, Segment, SiteRow, half_stride};
use weblora::kernels::lowrank_twin::{TwinGrads, TwinSite, lowrank_backward_twin, lowrank_forward_twin};

use crate::common::{Bench, assert_close, noise};

/// One job of a case.
#[derive(Clone)]
pub struct JobSpec {
    pub rows: usize,
    pub rank: usize,
    pub train: std::ops::Range<usize>,
    pub dropout: f32,
    pub seed: u32,
    /// Ranks at the end that are stored as f16.
    pub half: usize,
}

pub fn job(rows: usize, rank: usize) -> JobSpec {
    JobSpec { rows, rank, train: 0..rank, dropout: 0.0, seed: 7, half: 0 }
}

/// The last `count` numbers as f16 has them.
pub fn rounded(mut numbers: Vec<f32>, count: usize) -> Vec<f32> {
    let begin = numbers.len() - count;
    numbers[begin..].iter_mut().for_each(|x| *x = half::f16::from_f32(*x).to_f32());
    numbers
}

/// Tables and data of one site number among `SITES`, so that indexing by site is exercised.
pub const SITES: usize = 3;
pub const SITE: usize = 2;
/// Of the site; another number than its row of the table.
pub const DROPOUT_KEY: u32 = 11;

pub struct Case {
    pub k: usize,
    pub n: usize,
    pub r_max: usize,
    /// Rows before, between and after the jobs belong to nobody.
    pub pad: usize,
    pub jobs: Vec<Segment>,
    /// As the twins see them: all of f32.
    pub sites: Vec<SiteRow>,
    pub row_job: Vec<u32>,
    pub adapter: Vec<f32>,
    /// Of each job, the ranks at the end that the kernels see as f16.
    pub half: Vec<usize>,
    pub grads_len: usize,
    pub x: Vec<f32>,
    pub dy: Vec<f32>,
}

impl Case {
    /// Jobs one after the other; each job's numbers depend on its seed and sizes only, not on its place.
    pub fn new(specs: &[JobSpec], (k, n): (usize, usize), pad: usize) -> Case {
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
            case.jobs.push(Segment::new(begin..begin + s.rows).with_dropout(s.dropout, s.seed, 4));
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
    pub fn packed(&self) -> (Vec<f32>, Vec<SiteRow>) {
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
    pub fn nobody(&mut self, rows: usize) {
        self.row_job.extend(std::iter::repeat_n(u32::MAX, rows));
        self.x.extend(noise(41, rows * self.k));
        self.dy.extend(noise(42, rows * self.n));
    }
    pub fn t_max(&self) -> usize {
        self.sites.iter().map(|s| (s.train_end - s.train_begin) as usize).max().unwrap().max(1)
    }
    pub fn rows(&self) -> usize {
        self.row_job.len()
    }
    /// Of `h`.
    pub fn stride(&self) -> usize {
        self.r_max.next_multiple_of(4)
    }
    pub fn dropout(&self) -> bool {
        self.jobs.iter().any(|j| j.dropout_threshold > 0)
    }
    pub fn twin<'a, R>(&'a self, adapter: &'a [R]) -> TwinSite<'a, R> {
        let sizes = [self.rows(), self.k, self.n, self.stride()];
        TwinSite { sizes, dropout_key: DROPOUT_KEY, jobs: &self.jobs, sites: &self.sites, adapter }
    }
    pub fn expected(&self) -> (Vec<f32>, Vec<f32>, TwinGrads<f32>) {
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
pub const START: f32 = 0.25;

pub struct Found {
    pub h: Vec<f32>,
    pub y: Vec<f32>,
    pub grads: TwinGrads<f32>,
}

/// Declares a case's tensors and records forward and backward.
pub fn run(gpu: &Gpu, case: &Case, tuner: &Tuner) -> Found {
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

pub fn prepare(case: &Case) -> (Bench, LowrankSite, [Tensor; 6]) {
    let mut bench = Bench::new();
    let mut sites = vec![SiteRow { rank: 1, a_offset: u32::MAX, ..SiteRow::default() }; SITES * case.jobs.len()];
    let half = case.half.iter().any(|n| *n > 0);
    let (adapter, own) = if half { case.packed() } else { (case.adapter.clone(), case.sites.clone()) };
    sites[SITE * case.jobs.len()..(SITE + 1) * case.jobs.len()].copy_from_slice(&own);
    let tables = LowrankTables {
        row_job: bench.put("row_job", &case.row_job),
        jobs: bench.put("jobs", bytemuck::cast_slice::<Segment, u32>(&case.jobs)),
        sites: bench.put("sites", bytemuck::cast_slice::<SiteRow, u32>(&sites)),
        adapter: bench.put("adapter", &adapter),
        grads: bench.put("grads", &vec![START; case.grads_len]),
    };
    let rows = case.rows();
    let site = LowrankSite {
        rows,
        range: None,
        k: case.k,
        n: case.n,
        r_max: case.r_max,
        t_max: case.t_max(),
        site: SITE,
        dropout_key: DROPOUT_KEY,
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

pub fn record(rec: &mut Recorder, site: &LowrankSite, [x, dy, h, dh, y, dx]: [Tensor; 6]) {
    lowrank::forward(rec, "site", site, x, h, y);
    lowrank::backward(rec, "site", site, x, dy, h, dh, Some(dx));
}

/// The driver of what passes for a card in these tests.
const AS_CARD: &str = "as a card";

/// This adapter, and as if it were a card with many cores.
pub fn adapters(gpu: &Gpu) -> [Facts; 2] {
    let own = gpu.facts().clone();
    [own.clone(), Facts { is_cpu: false, is_discrete: true, driver: AS_CARD.into(), ..own }]
}

/// All tunable dispatches of a case with their candidates on an adapter.
pub fn candidates(facts: &Facts, case: &Case) -> Vec<(String, Vec<Candidate>)> {
    let tuner = Tuner::assuming(facts.clone());
    let mut rec = Recorder::new(&tuner);
    let (_, site, tensors) = prepare(case);
    record(&mut rec, &site, tensors);
    rec.untuned().iter().map(|u| (u.key.clone(), u.candidates.clone())).collect()
}

/// A tuner that takes candidate `i` (or the last one) everywhere.
pub fn forced(facts: &Facts, case: &Case, i: usize) -> Tuner {
    let mut tuner = Tuner::assuming(facts.clone());
    for (key, all) in candidates(facts, case) {
        tuner.force(&key, &all[i.min(all.len() - 1)]);
    }
    tuner
}

/// How many forms there are to try. The first of a card's are its own; the others are shapes that the adapter itself has, and take long to compile.
pub fn most_candidates(facts: &Facts, case: &Case) -> usize {
    if facts.driver == AS_CARD {
        return 1;
    }
    candidates(facts, case).iter().map(|(_, all)| all.len()).max().unwrap()
}

/// Sums of up to `terms` products of numbers in (-1, 1), rounded at each step: a few ulps of the sum's size.
pub fn tolerance(terms: usize) -> f32 {
    1e-6 * (terms as f32).sqrt() * 8.0
}

pub fn check(what: &str, case: &Case, found: &Found) {
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

pub fn three_jobs() -> Vec<JobSpec> {
    vec![
        JobSpec { dropout: 0.25, train: 2..3, seed: 1, ..job(9, 3) },
        JobSpec { seed: 2, ..job(5, 0) },
        JobSpec { dropout: 0.0, train: 8..17, seed: 3, ..job(19, 17) },
    ]
}
