//! Rows of a batch range after range: the bits of all rows at once, wherever a job begins or ends.

use super::case::{Case, Found, JobSpec, adapters, check, job, prepare, run};
use crate::common::gpu;
use std::ops::Range;
use weblora::gpu::{Gpu, Recorder, Tuner};
use weblora::kernels::lowrank::{LowrankSiblings, LowrankSite};
use weblora::kernels::lowrank_twin::TwinGrads;

/// Forward and backward of a case, range after range.
fn by_ranges(gpu: &Gpu, case: &Case, tuner: &Tuner, ranges: &[Range<usize>]) -> Found {
    let (bench, site, [x, dy, h, dh, y, dx]) = prepare(case);
    let stride = site.stride();
    let mut found = bench.run(gpu, tuner, &[h, y, dh, dx, site.tables.grads], |rec: &mut Recorder| {
        let mut carry = None;
        for rows in ranges {
            let of = |width: usize| rows.start * width..rows.end * width;
            let layers = LowrankSiblings::alone(&site.of_rows(rows.clone()));
            let layers = layers.clone().carrying(*carry.get_or_insert_with(|| layers.new_carry(rec, "carry")));
            let [h, dh] = [h, dh].map(|tensor| tensor.slice(of(stride)));
            layers.forward(rec, "range", x.slice(of(case.k)), h, y.slice(of(case.n)));
            layers.backward(rec, "range", x.slice(of(case.k)), dy.slice(of(case.n)), h, dh, Some(dx.slice(of(case.k))));
        }
    });
    let (grads, dx) = (found.pop().unwrap(), found.pop().unwrap());
    let (dh, y) = (found.pop().unwrap(), found.pop().unwrap());
    Found { h: found.pop().unwrap(), y, grads: TwinGrads { dh, dx, grads } }
}

#[test]
fn ranges_have_the_bits_of_the_whole() {
    let Some(gpu) = gpu() else { return };
    // Jobs that end in the first range, go through three, have no adapter, lie in one, and begin in the last.
    let specs = vec![
        job(50, 8),
        JobSpec { dropout: 0.25, train: 1..5, seed: 1, ..job(90, 5) },
        JobSpec { seed: 2, ..job(5, 0) },
        JobSpec { dropout: 0.1, train: 2..7, seed: 3, ..job(40, 7) },
        job(20, 3),
    ];
    for sizes in [(44, 36), (12, 7)] {
        let case = Case::new(&specs, sizes, 2);
        let end = case.rows();
        assert!(end > 192);
        for facts in adapters(gpu) {
            let tuner = Tuner::assuming(facts);
            let want = run(gpu, &case, &tuner);
            for ranges in [vec![0..64, 64..128, 128..192, 192..end], vec![0..128, 128..end]] {
                let found = by_ranges(gpu, &case, &tuner, &ranges);
                check(&format!("{ranges:?}"), &case, &found);
                assert!(found.h == want.h && found.y == want.y, "{sizes:?} {ranges:?}: forward");
                assert!(found.grads.dh == want.grads.dh && found.grads.dx == want.grads.dx, "{sizes:?} {ranges:?}: dh, dx");
                assert_eq!(found.grads.grads, want.grads.grads, "{sizes:?} {ranges:?}: gradients");
            }
        }
    }
}

#[test]
fn a_range_knows_its_place() {
    let (_, site, _) = prepare(&Case::new(&[job(100, 4)], (8, 8), 0));
    let part: LowrankSite = site.of_rows(64..100);
    let range = part.range.unwrap();
    assert_eq!((part.rows, range.first, range.total), (36, 64, 100));
}
