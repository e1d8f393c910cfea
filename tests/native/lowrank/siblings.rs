//! Layers of one input in shared dispatches: each has the bits that it has alone.

use weblora::gpu::device::Facts;
use weblora::gpu::dispatch::Command;
use weblora::gpu::recorder::Untuned;
use weblora::gpu::{Gpu, Recorder, Tensor, Tuner};
use weblora::kernels::lowrank::{self, LowrankSiblings, LowrankSite, LowrankTables, Segment, SiteRow};
use weblora::kernels::matrix::outputs;

use super::case::{Case, DROPOUT_KEY, JobSpec, START, job};
use crate::common::{Bench, close};

/// What the layers give: h, y, dh of each, dx, gradients.
#[derive(PartialEq)]
struct Given {
    h: Vec<Vec<f32>>,
    y: Vec<Vec<f32>>,
    dh: Vec<Vec<f32>>,
    dx: Vec<f32>,
    grads: Vec<f32>,
}

/// Cases of the same rows and inputs, one a layer, in one set of tables.
struct Layers {
    cases: Vec<Case>,
    sites: Vec<SiteRow>,
    adapter: Vec<f32>,
    grads: usize,
}

impl Layers {
    /// The three jobs have these ranks at each layer.
    fn new(ranks: &[[usize; 3]], k: usize, widths: &[usize], half: usize) -> Layers {
        let spec = |rows: usize, rank: usize, seed: u32, dropout: f32| {
            let half = half.min(rank / 2);
            JobSpec { seed, dropout, half, train: 0..rank - half, ..job(rows, rank) }
        };
        let of = |r: &[usize; 3]| [spec(9, r[0], 1, 0.25), spec(5, r[1], 2, 0.0), spec(70, r[2], 3, 0.5)];
        let cases: Vec<Case> = ranks.iter().zip(widths).map(|(r, n)| Case::new(&of(r), (k, *n), 2)).collect();
        // A row of the table that belongs to no layer here comes first.
        let mut layers =
            Layers { sites: vec![SiteRow { rank: 1, a_offset: u32::MAX, ..SiteRow::default() }; 3], adapter: vec![], grads: 0, cases };
        for case in &layers.cases {
            let (words, sites) = if half > 0 { case.packed() } else { (case.adapter.clone(), case.sites.clone()) };
            let (begin, grads) = (layers.adapter.len() as u32, layers.grads as u32);
            layers.sites.extend(sites.into_iter().map(|site| SiteRow {
                a_offset: site.a_offset + begin,
                b_offset: site.b_offset + begin,
                grad_a_offset: site.grad_a_offset + grads,
                grad_b_offset: site.grad_b_offset + grads,
                ..site
            }));
            layers.adapter.extend(words);
            layers.adapter.resize(layers.adapter.len().next_multiple_of(4), 9.0);
            layers.grads = (layers.grads + case.grads_len).next_multiple_of(4);
        }
        layers
    }

    fn prepare(&self) -> (Bench, Vec<LowrankSite>, Tensor) {
        let (mut bench, first) = (Bench::new(), &self.cases[0]);
        let tables = LowrankTables {
            row_job: bench.put("row_job", &first.row_job),
            jobs: bench.put("jobs", bytemuck::cast_slice::<Segment, u32>(&first.jobs)),
            sites: bench.put("sites", bytemuck::cast_slice::<SiteRow, u32>(&self.sites)),
            adapter: bench.put("adapter", &self.adapter),
            grads: bench.put("grads", &vec![START; self.grads]),
        };
        let half = self.cases.iter().any(|case| case.half.iter().any(|n| *n > 0));
        let site = |(i, case): (usize, &Case)| LowrankSite {
            rows: case.rows(),
            range: None,
            k: case.k,
            n: case.n,
            r_max: case.r_max,
            t_max: case.t_max(),
            site: 1 + i,
            dropout_key: DROPOUT_KEY + 3 * i as u32,
            jobs: case.jobs.len(),
            dropout: true,
            half,
            tables,
        };
        let sites = self.cases.iter().enumerate().map(site).collect();
        let x = bench.put("x", &first.x);
        (bench, sites, x)
    }

    /// Every layer in dispatches of its own.
    fn apart(&self, gpu: &Gpu, tuner: &Tuner) -> Given {
        let (mut bench, sites, x) = self.prepare();
        let rows = self.cases[0].rows();
        let dx = bench.put("dx", &vec![START; rows * self.cases[0].k]);
        let mut tensors = Vec::new();
        for (site, case) in sites.iter().zip(&self.cases) {
            let dy = bench.put("dy", &case.dy);
            let [h, dh] = ["h", "dh"].map(|name| bench.put(name, &vec![-8f32; rows * site.stride()]));
            tensors.push((dy, h, dh, bench.put("y", &vec![START; rows * case.n])));
        }
        let read: Vec<Tensor> = tensors.iter().flat_map(|(_, h, dh, y)| [*h, *y, *dh]).chain([dx, sites[0].tables.grads]).collect();
        let mut found = bench.run(gpu, tuner, &read, |rec| {
            for (site, (dy, h, dh, y)) in sites.iter().zip(&tensors) {
                lowrank::forward(rec, "apart", site, x, *h, *y);
                lowrank::backward(rec, "apart", site, x, *dy, *h, *dh, Some(dx));
            }
        });
        let (grads, dx) = (found.pop().unwrap(), found.pop().unwrap());
        let each = |i: usize| found.iter().skip(i).step_by(3).cloned().collect::<Vec<_>>();
        Given { h: each(0), y: each(1), dh: each(2), dx, grads }
    }

    /// All layers in the same dispatches; `look` sees the recording.
    fn together(&self, gpu: &Gpu, tuner: &Tuner, mut look: impl FnMut(&Recorder)) -> Given {
        let (mut bench, sites, x) = self.prepare();
        let rows = self.cases[0].rows();
        let places = outputs(&self.cases.iter().map(|case| case.n).collect::<Vec<_>>(), rows);
        let siblings = LowrankSiblings::new(&sites.iter().zip(&places).map(|(site, place)| (*site, place.start)).collect::<Vec<_>>());
        let mut all_dy = vec![f32::NAN; places.last().unwrap().end];
        for (case, place) in self.cases.iter().zip(&places) {
            all_dy[place.clone()].copy_from_slice(&case.dy);
        }
        let (dy, y) = (bench.put("dy", &all_dy), bench.put("y", &vec![START; all_dy.len()]));
        let [h, dh] = ["h", "dh"].map(|name| bench.put(name, &vec![-8f32; siblings.inner_words()]));
        let dx = bench.put("dx", &vec![START; rows * self.cases[0].k]);
        let found = bench.run(gpu, tuner, &[h, y, dh, dx, sites[0].tables.grads], |rec| {
            siblings.forward(rec, "together", x, h, y);
            siblings.backward(rec, "together", x, dy, h, dh, Some(dx));
            look(rec);
        });
        // Rows of inner activations have the stride of the largest rank, and zeros past a layer's own.
        let stride = siblings.inner_words() / rows / sites.len();
        let inner = |all: &[f32]| -> Vec<Vec<f32>> {
            let of = |(i, site): (usize, &LowrankSite)| {
                let rows = all[i * rows * stride..(i + 1) * rows * stride].chunks_exact(stride);
                rows.flat_map(|row| {
                    assert!(row[site.stride()..].iter().all(|v| *v == 0.0), "layer {i} past its ranks");
                    row[..site.stride()].to_vec()
                })
                .collect()
            };
            sites.iter().enumerate().map(of).collect()
        };
        let own = |all: &[f32]| places.iter().map(|place| all[place.clone()].to_vec()).collect();
        Given { h: inner(&found[0]), y: own(&found[1]), dh: inner(&found[2]), dx: found[3].clone(), grads: found[4].clone() }
    }
}

/// Every candidate against the default of the layers apart.
fn check(gpu: &Gpu, facts: &Facts, layers: &Layers, what: &str) {
    let default = Tuner::assuming(facts.clone());
    let want = layers.apart(gpu, &default);
    let mut untuned = Vec::new();
    layers.together(gpu, &default, |rec| {
        // Cards sum gradients of whole vectors in two passes.
        let chunked = |command: &Command| matches!(command, Command::Dispatch { run, .. } if run.spec.name == "lowrank_grad_sum");
        let sums = rec.commands().iter().filter(|c| chunked(c)).count();
        assert_eq!((rec.commands().len(), sums == 0 || !facts.is_cpu), (6 + sums, true), "one dispatch a product");
        untuned = rec.untuned().to_vec();
    });
    let grad = |u: &&Untuned| u.key.starts_with("lowrank_grad");
    for i in 0..untuned.iter().map(|u| u.candidates.len()).max().unwrap() {
        let nth = |u: &Untuned| u.candidates[i.min(u.candidates.len() - 1)].clone();
        let mut tuner = Tuner::assuming(facts.clone());
        untuned.iter().for_each(|u| tuner.force(&u.key, &nth(u)));
        let got = layers.together(gpu, &tuner, |_| ());
        assert!(got.h == want.h && got.dh == want.dh, "inner activations of candidate {i}: {what}");
        assert!(got.y == want.y, "outputs of candidate {i}: {what}");
        assert!(got.dx == want.dx, "gradient of the input of candidate {i}: {what}");
        let same_order = untuned.iter().filter(grad).all(|u| nth(u).order() == u.candidates[0].order());
        assert!(!same_order || got.grads == want.grads, "gradients of the factors, candidate {i}: {what}");
        assert!(close(&got.grads, &want.grads, 1e-4, 1e-4).is_ok(), "gradients in another order, candidate {i}: {what}");
    }
}

#[test]
fn siblings_have_the_bits_they_have_alone() {
    let Some(gpu) = crate::common::gpu() else { return };
    for (ranks, k, widths, half) in [
        (&[[8, 8, 8], [8, 0, 8], [4, 8, 0]][..], 64, &[132, 36, 36][..], 0),
        (&[[3, 1, 9], [5, 2, 0]], 37, &[10, 33], 0),
        (&[[12, 4, 6], [6, 0, 12], [3, 3, 3]], 52, &[44, 12, 300], 5),
    ] {
        let layers = Layers::new(ranks, k, widths, half);
        let what = format!("{ranks:?}, K {k}, N {widths:?}");
        check(gpu, gpu.facts(), &layers, &what);
        // What a comparison must see: another number in the first layer's row of the table.
        let mut wrong = Layers::new(ranks, k, widths, half);
        wrong.sites[3].scale *= 1.5;
        let tuner = Tuner::for_device(gpu);
        assert!(wrong.together(gpu, &tuner, |_| ()) != layers.apart(gpu, &tuner), "another scale at the first layer: {what}");
    }
}

/// The variants that only GPUs are offered, on whatever adapter there is.
#[test]
fn siblings_have_the_bits_they_have_alone_in_variants_for_gpus() {
    let Some(gpu) = crate::common::gpu() else { return };
    let facts = Facts { is_cpu: false, subgroups: false, ..gpu.facts().clone() };
    // All of them in whole vectors, or none: the two are summed in different orders.
    for widths in [[45, 13, 70], [44, 12, 72]] {
        check(gpu, &facts, &Layers::new(&[[3, 0, 17], [8, 2, 4], [0, 1, 9]], 36, &widths, 0), "ranks up to 17");
    }
}
