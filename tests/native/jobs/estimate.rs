//! Seconds of a fused step.

use proptest::prelude::*;
use weblora::jobs::estimate::Measured;

fn measured(steps: impl IntoIterator<Item = (u64, f64)>) -> Measured {
    let mut all = Measured::default();
    steps.into_iter().for_each(|(rows, seconds)| all.note(rows, seconds));
    all
}

#[test]
fn a_line_is_found_although_steps_were_disturbed() {
    let rows = |i: u64| 100 + (i * 37) % 900;
    let clean = |i: u64| 0.02 + 1e-4 * rows(i) as f64;
    let disturbed = |i: u64| (rows(i), if i % 9 == 4 { 3.0 } else { clean(i) });
    let found = measured((0..60).map(disturbed)).fit().unwrap();
    assert!((found.base - 0.02).abs() < 1e-6 && (found.per_row - 1e-4).abs() < 1e-8, "{found:?}");
    // Plain least squares is nowhere near: the test could fail.
    let n = 60.0;
    let mean = (0..60).map(|i| disturbed(i).1).sum::<f64>() / n;
    assert!(mean > 2.0 * (0..60).map(clean).sum::<f64>() / n);
}

#[test]
fn few_and_equal_steps_give_an_answer() {
    assert_eq!(measured([]).fit(), None);
    assert_eq!(measured([(0, 1.0), (5, f64::NAN), (5, -1.0), (5, 0.0)]).fit(), None);
    assert!((measured([(64, 0.5)]).fit().unwrap().seconds(64.0) - 0.5).abs() < 1e-12);
    assert!((measured([(64, 0.5), (64, 0.7), (64, 0.6)]).fit().unwrap().seconds(64.0) - 0.6).abs() < 1e-12);
}

proptest! {
    #[test]
    fn neither_part_is_negative(steps in prop::collection::vec((1u64..5000, 1e-4f64..10.0), 1..200)) {
        let found = measured(steps).fit().unwrap();
        prop_assert!(found.base >= 0.0 && found.per_row >= 0.0 && found.seconds(100.0).is_finite(), "{found:?}");
    }

    #[test]
    fn exact_lines_are_found(base in 0f64..0.5, per_row in 1e-6f64..1e-2, rows in prop::collection::vec(1u64..5000, 2..100)) {
        let found = measured(rows.iter().map(|n| (*n, base + per_row * *n as f64))).fit().unwrap();
        for n in rows {
            let exact = base + per_row * n as f64;
            prop_assert!((found.seconds(n as f64) - exact).abs() <= 1e-6 * exact.max(1e-3), "{found:?} at {n}");
        }
    }
}
