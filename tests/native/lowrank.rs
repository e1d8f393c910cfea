//! Segmented low-rank products: twins against finite differences, kernels against twins, jobs alone against jobs together.

mod case;
mod ranges;
mod siblings;

use self::case::{Case, JobSpec, START, adapters, candidates, check, forced, job, most_candidates, prepare, record, run, three_jobs};
use crate::common::{Bench, close, gradcheck};
use weblora::gpu::dispatch::Command;
use weblora::gpu::{Candidate, KernelSpec, Recorder, Tuner, Variant};
use weblora::kernels::lowrank::{self, LowrankSite, NO_GRADIENT, Segment};
use weblora::kernels::lowrank_twin::{lowrank_backward_twin, lowrank_forward_twin};
use weblora::kernels::real::Real;

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
    let mask = |job: &Segment, site: u32, first: u32| -> Vec<bool> {
        (0..100u32 * 100).map(|i| lowrank::dropout_factor(job, site, first + i / 100, i % 100) == 0.0).collect()
    };
    let base = Segment::new(0..100).with_dropout(0.25, 11, 3);
    let dropped = mask(&base, 4, 0).iter().filter(|d| **d).count();
    assert!((2370..2630).contains(&dropped), "{dropped} of 10000 dropped at p 0.25");
    assert_eq!(lowrank::dropout_factor(&Segment::new(0..1), 0, 0, 0), 1.0);
    let moved = Segment { row_begin: 37, row_end: 137, ..base };
    assert_eq!(mask(&base, 4, 0), mask(&moved, 4, 37), "the mask must not depend on the place in the batch");
    let others = [(Segment::new(0..100).with_dropout(0.25, 12, 3), 4), (Segment::new(0..100).with_dropout(0.25, 11, 4), 4), (base, 5)];
    for (other, site) in others {
        let same = mask(&base, 4, 0).iter().zip(mask(&other, site, 0)).filter(|(a, b)| **a == *b).count();
        assert!((6000..6500).contains(&same), "{same} of 10000 equal: masks of different keys are related");
    }
}

#[test]
fn kernels_match_twins_over_awkward_sizes() {
    let Some(gpu) = crate::common::gpu() else { return };
    for (rows, k, n, rank) in [
        (1, 4, 4, 1),
        (7, 5, 36, 3),
        (33, 64, 7, 8),
        (65, 200, 199, 8),
        (33, 31, 68, 17),
        (35, 36, 44, 40),
        (65, 12, 130, 64),
        (3, 9, 8, 256),
    ] {
        let case = Case::new(&[job(rows, rank)], (k, n), 0);
        for facts in adapters(gpu) {
            check(&format!("T {rows} K {k} N {n} r {rank}"), &case, &run(gpu, &case, &Tuner::assuming(facts)));
        }
    }
}

#[test]
fn every_candidate_matches_the_twin_with_jobs_that_straddle_tiles() {
    let Some(gpu) = crate::common::gpu() else { return };
    for facts in adapters(gpu) {
        for (specs, sizes, pad) in [
            (three_jobs(), (44, 37), 2),
            (
                vec![JobSpec { dropout: 0.1, seed: 4, ..job(70, 8) }, JobSpec { dropout: 0.5, train: 3..8, seed: 5, ..job(3, 8) }],
                (129, 66),
                0,
            ),
        ] {
            let case = Case::new(&specs, sizes, pad);
            for i in 0..most_candidates(&facts, &case) {
                check(&format!("candidate {i}"), &case, &run(gpu, &case, &forced(&facts, &case, i)));
            }
        }
    }
}

/// Row-local results: every candidate gives the same bits, and a job's bits are the same alone and among others.
#[test]
fn rows_have_the_same_bits_alone_and_together() {
    let Some(gpu) = crate::common::gpu() else { return };
    for facts in adapters(gpu) {
        let specs = three_jobs();
        let together = Case::new(&specs, (44, 36), 1);
        let all = run(gpu, &together, &forced(&facts, &together, 0));
        for i in 0..most_candidates(&facts, &together) {
            let other = run(gpu, &together, &forced(&facts, &together, i));
            assert_eq!(all.h, other.h, "h of candidate {i}");
            assert_eq!(all.y, other.y, "y of candidate {i}");
            assert_eq!(all.grads.dx, other.grads.dx, "dx of candidate {i}");
            let order = |i: usize| -> Vec<&str> {
                let grad = |(key, _): &(String, Vec<Candidate>)| key.starts_with("lowrank_grad");
                candidates(&facts, &together).iter().filter(|c| grad(c)).map(|(_, all)| all[i.min(all.len() - 1)].order()).collect()
            };
            assert!(order(0) != order(i) || all.grads.grads == other.grads.grads, "gradients of candidate {i}, summed in the same order");
        }
        for (j, spec) in specs.iter().enumerate() {
            let alone = Case::new(std::slice::from_ref(spec), (44, 36), 0);
            let begin = together.jobs[j].row_begin as usize;
            for i in 0..most_candidates(&facts, &alone) {
                let one = run(gpu, &alone, &forced(&facts, &alone, i));
                let rows = begin..begin + spec.rows;
                assert_eq!(one.y, all.y[rows.start * 36..rows.end * 36], "y of job {j}, candidate {i}");
                assert_eq!(one.grads.dx, all.grads.dx[rows.start * 44..rows.end * 44], "dx of job {j}, candidate {i}");
                let stride = alone.stride();
                for t in 0..spec.rows {
                    let at = (begin + t) * together.stride();
                    assert_eq!(one.h[t * stride..][..spec.rank], all.h[at..at + spec.rank], "h of job {j}, row {t}");
                    assert!(all.h[at + spec.rank..at + together.stride()].iter().all(|v| *v == 0.0), "h past the rank of job {j}");
                }
                let same = forced(&facts, &together, i);
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
}

/// A segment begins three rows before the end of a tile of `lowrank_up`: what walks its rows four at a time must leave the first row of the
/// next tile to the workgroup that owns it, which runs at the same time. Only the first tile runs here, and each store adds one.
#[test]
fn no_workgroup_writes_rows_of_the_next_tile() {
    let Some(gpu) = crate::common::gpu() else { return };
    let store = "y[at / 4u] = ";
    assert!(lowrank::UP.source.contains(store), "the kernel's store is written otherwise now");
    let source = Box::leak(lowrank::UP.source.replace(store, "y[at / 4u] = vec4(1.0) + ").into_boxed_str());
    let counting: &'static KernelSpec = Box::leak(Box::new(KernelSpec { name: "counting_up", source, bindings: lowrank::UP.bindings }));
    for (wg, rows) in [(8, 64), (32, 4)] {
        let case = Case::new(&[job(rows - 3, 0), job(6, 8), job(rows, 0)], (8, 64), 0);
        let tuner = Tuner::for_device(gpu);
        let (mut bench, site, [x, _, h, _, y, _]) = prepare(&case);
        let found = std::mem::replace(&mut bench, Bench::new()).run(gpu, &tuner, &[y], |rec| {
            let mut normal = Recorder::new(&tuner);
            lowrank::forward(&mut normal, "site", &site, x, h, y);
            let up = normal.commands().iter().find_map(|c| match c {
                Command::Dispatch { run, what, .. } if run.spec.name == lowrank::UP.name => Some(what.clone()),
                _ => None,
            });
            let variant = Variant::new().flag("VEC4").flag("ONE_BLOCK").with("WG", wg).with("ROWS", rows as u32);
            rec.dispatch(counting, variant, [1, 1, 1], up.unwrap());
        });
        let touched: Vec<usize> = (0..case.rows()).filter(|t| found[0][t * case.n..(t + 1) * case.n].iter().any(|v| *v != START)).collect();
        assert!(touched.contains(&(rows - 1)), "tiles of {rows} rows: the tile's own rows are written");
        assert!(touched.iter().all(|t| *t < rows), "tiles of {rows} rows: the first tile writes rows {touched:?}");
    }
}

/// A job that has diverged harms nobody: rows and gradients of the others have the bits they have beside a healthy one.
#[test]
fn a_neighbour_that_is_not_finite_changes_no_other_job() {
    let Some(gpu) = crate::common::gpu() else { return };
    for facts in adapters(gpu) {
        // The first and the last job, whose ranks differ; the one between has none.
        for (sick, other) in [(0, 2), (2, 0)] {
            let [healthy, mut ill] = [(); 2].map(|()| Case::new(&three_jobs(), (44, 36), 1));
            let (site, job) = (ill.sites[sick], ill.jobs[sick]);
            for (at, width) in [(site.a_offset as usize, ill.k), (site.b_offset as usize, ill.n)] {
                ill.adapter[at..at + site.rank as usize * width].fill(f32::NAN);
            }
            for i in 0..most_candidates(&facts, &healthy) {
                let tuner = forced(&facts, &healthy, i);
                let [want, got] = [&healthy, &ill].map(|case| run(gpu, case, &tuner));
                let stride = healthy.stride();
                for (name, width, want, got) in [
                    ("h", stride, &want.h, &got.h),
                    ("y", healthy.n, &want.y, &got.y),
                    ("dh", stride, &want.grads.dh, &got.grads.dh),
                    ("dx", healthy.k, &want.grads.dx, &got.grads.dx),
                ] {
                    let (begin, end) = (job.row_begin as usize * width, job.row_end as usize * width);
                    assert_eq!((&want[..begin], &want[end..]), (&got[..begin], &got[end..]), "{name} of candidate {i}");
                    assert!(got[begin..end].iter().any(|v| v.is_nan()), "{name} of the job itself, candidate {i}");
                }
                let site = &healthy.sites[other];
                let begin = site.grad_a_offset as usize;
                let own = begin..begin + (site.train_end - site.train_begin) as usize * (healthy.k + healthy.n);
                assert_eq!(want.grads.grads[own.clone()], got.grads.grads[own], "gradients of job {other}, candidate {i}");
            }
        }
    }
}

/// Dropout of a link that trains leaves the frozen links of its chain alone: what they add, forward and back, is what they add without it.
#[test]
fn frozen_ranks_see_all_inputs_and_have_no_gradient() {
    let Some(gpu) = crate::common::gpu() else { return };
    for facts in adapters(gpu) {
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
        for i in 0..most_candidates(&facts, &dropping) {
            check(&format!("candidate {i}"), &dropping, &run(gpu, &dropping, &forced(&facts, &dropping, i)));
            let (one, other) = (
                run(gpu, &silent_and_dropping, &forced(&facts, &silent_and_dropping, i)),
                run(gpu, &keeping, &forced(&facts, &keeping, i)),
            );
            assert_eq!((one.h, one.y), (other.h, other.y), "forward of frozen ranks, candidate {i}");
            assert_eq!(one.grads.dx, other.grads.dx, "dx of frozen ranks, candidate {i}");
        }
        // A factor that does not train gets no gradient, and the other one is unmoved by that.
        for half in 0..2 {
            let mut lame = Case::new(std::slice::from_ref(&spec), (52, 44), 1);
            let offset =
                |c: &mut Case| if half == 0 { c.sites[0].grad_a_offset = NO_GRADIENT } else { c.sites[0].grad_b_offset = NO_GRADIENT };
            offset(&mut lame);
            for i in 0..most_candidates(&facts, &lame) {
                check(&format!("candidate {i} without half {half}"), &lame, &run(gpu, &lame, &forced(&facts, &lame, i)));
            }
        }
    }
}

/// Frozen links as f16: the products of the rounded numbers, whatever the widths, beside a job that has none.
#[test]
fn ranks_stored_as_f16_are_read_as_what_they_are() {
    let Some(gpu) = crate::common::gpu() else { return };
    for facts in adapters(gpu) {
        let chain = |half: usize, seed: u32| JobSpec { train: 0..3, half, seed, ..job(21, 21) };
        for (k, n) in [(52, 44), (36, 20), (13, 34), (7, 5)] {
            let case = Case::new(&[chain(18, 3), JobSpec { dropout: 0.5, ..chain(5, 4) }, JobSpec { seed: 5, ..job(9, 4) }], (k, n), 2);
            for i in 0..most_candidates(&facts, &case) {
                check(&format!("K {k} N {n}, candidate {i}"), &case, &run(gpu, &case, &forced(&facts, &case, i)));
            }
            // One number of one f16 row counted as its neighbour is noticed.
            let mut other =
                Case::new(&[chain(18, 3), JobSpec { dropout: 0.5, ..chain(5, 4) }, JobSpec { seed: 5, ..job(9, 4) }], (k, n), 2);
            let at = other.sites[0].a_offset as usize + 20 * k;
            other.adapter.swap(at, at + 1);
            let found = run(gpu, &case, &Tuner::for_device(gpu));
            assert!(close(&found.h, &other.expected().0, 1e-3, 1e-3).is_err(), "swapped numbers of a f16 row");
        }
    }
}

/// Each of these changes must be seen by the comparison above.
#[test]
fn comparisons_see_a_wrong_job_a_wrong_mask_and_a_wrong_transpose() {
    let Some(gpu) = crate::common::gpu() else { return };
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

/// Work per submit is bounded by what dispatches touch: an adapter costs the same in a pool of its own and in one of many.
#[test]
fn a_dispatch_costs_what_it_touches_whatever_is_bound() {
    let case = Case::new(&[job(40, 8)], (64, 48), 0);
    let (mut bench, site, tensors) = prepare(&case);
    let bytes = |site: &LowrankSite| -> Vec<u64> {
        let tuner = Tuner::none();
        let mut rec = Recorder::new(&tuner);
        record(&mut rec, site, tensors);
        rec.commands().iter().map(|c| if let Command::Dispatch { what, .. } = c { what.bytes } else { 0 }).collect()
    };
    let mut pooled = site;
    (pooled.tables.adapter, pooled.tables.grads) = (bench.put("pool", &vec![0f32; 1 << 20]), bench.put("pool", &vec![0f32; 1 << 20]));
    let touched = bytes(&pooled);
    assert!(touched.iter().all(|b| (4 * 3 * 8 * 48..100_000).contains(b)), "{touched:?}");
    // With nothing around it, what is bound and what is touched differ by tables and by what is read and written.
    assert!(bytes(&site).iter().zip(&touched).all(|(alone, pooled)| alone <= pooled && 2 * alone >= *pooled));
}

/// What the tuner measures must do the whole work: the sample tables are one job with the largest rank.
#[test]
fn measuring_candidates_chooses_one_of_each() {
    let Some(gpu) = crate::common::gpu() else { return };
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
