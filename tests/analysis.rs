//! Spectra and subspaces from factors, against numpy (`tests/golden/make_analysis.py`) and against a dense eigenvalue witness in f64.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use serde_json::Value;
use weblora::analysis::{Factors, Links, Matrix, Spectrum, Svd, decompose, inner_product, links, similarity, spectrum, spectrum_of_sum};
use weblora::rng::fill_uniform;

/// numpy's own rounding and ours: a few hundred operations of 1e-16 each.
const NUMPY: f64 = 1e-12;

struct Product {
    a: Vec<f32>,
    b: Vec<f32>,
    rank: usize,
    scale: f64,
}

impl Product {
    fn new(key: &str, (out, inputs): (usize, usize), rank: usize, scale: f64) -> Self {
        let a = fill_uniform(&format!("0/{key}.a"), rank * inputs, 1.0);
        Self { a, b: fill_uniform(&format!("0/{key}.b"), out * rank, 1.0), rank, scale }
    }
    fn factors(&self) -> Factors<'_> {
        Factors::new("test", &self.a, &self.b, self.rank, self.scale).unwrap()
    }
    /// ΔW, row-major.
    fn dense(&self) -> Vec<Vec<f64>> {
        let inputs = self.a.len() / self.rank;
        let element = |row: &[f32], i: usize| -> f64 {
            (0..self.rank).map(|r| f64::from(row[r]) * f64::from(self.a[r * inputs + i])).sum::<f64>() * self.scale
        };
        self.b.chunks(self.rank).map(|row| (0..inputs).map(|i| element(row, i)).collect()).collect()
    }
}

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/analysis.json")).unwrap()
}

fn golden_links() -> Vec<Product> {
    let golden = golden();
    let shape = (golden["out"].as_u64().unwrap() as usize, golden["in"].as_u64().unwrap() as usize);
    let link =
        |l: &Value| Product::new(l["name"].as_str().unwrap(), shape, l["rank"].as_u64().unwrap() as usize, l["scale"].as_f64().unwrap());
    golden["links"].as_array().unwrap().iter().map(link).collect()
}

/// Every number of `got` is that of `want` within `tolerance`, and both have one shape; else where it is not.
fn same(got: &Value, want: &Value, tolerance: f64) -> Result<(), String> {
    match (got, want) {
        (Value::Number(g), Value::Number(w)) => {
            let (g, w) = (g.as_f64().unwrap(), w.as_f64().unwrap());
            if (g - w).abs() <= tolerance * (1.0 + w.abs()) { Ok(()) } else { Err(format!("{g}, expected {w}")) }
        }
        (Value::Array(g), Value::Array(w)) if g.len() == w.len() => g.iter().zip(w).try_for_each(|(g, w)| same(g, w, tolerance)),
        (Value::Object(g), Value::Object(w)) => w
            .iter()
            .try_for_each(|(key, w)| same(g.get(key).unwrap_or(&Value::Null), w, tolerance).map_err(|problem| format!("{key}: {problem}"))),
        _ => Err(format!("{got}, expected {want}")),
    }
}

#[track_caller]
fn assert_same<T: serde::Serialize>(got: &T, want: &Value, tolerance: f64) {
    let got = serde_json::to_value(got).unwrap();
    if let Err(problem) = same(&got, want, tolerance) {
        panic!("{problem}");
    }
}

#[test]
fn numpy_says_the_same() {
    let (golden, products) = (golden(), golden_links());
    let factors: Vec<Factors<'_>> = products.iter().map(Product::factors).collect();
    for (f, want) in factors.iter().zip(golden["spectra"].as_array().unwrap()) {
        assert_same(&spectrum(f), want, NUMPY);
    }
    assert_same(&spectrum_of_sum(&factors), &golden["sum"], NUMPY);
    let phi = similarity(&decompose(&factors[..1]), &decompose(&factors[1..]));
    assert_same(&phi.left, &golden["left"], NUMPY);
    assert_same(&phi.right, &golden["right"], NUMPY);
    let all = links(&factors);
    assert!((all.cosine[0][1] - golden["cosine"].as_f64().unwrap()).abs() < NUMPY);
    assert_eq!((all.overlap_left[0][1], all.overlap_right[0][1]), phi.whole());
    assert_same(&all.cumulative[1], &golden["sum"], NUMPY);
    assert_same(&all.spectra, &golden["spectra"], NUMPY);
    let read: Links = serde_json::from_str(&serde_json::to_string(&all).unwrap()).unwrap();
    assert_eq!(read.cumulative.len(), 2);
}

#[test]
fn the_comparison_with_numpy_can_fail() {
    let (golden, products) = (golden(), golden_links());
    let got = serde_json::to_value(spectrum(&products[0].factors())).unwrap();
    // Energies taken of sigma instead of its square, a scale forgotten, one element of one factor changed.
    let mut wrong = golden["spectra"][0].clone();
    wrong["effective_rank"] = golden["spectra"][0]["effective_rank_sigma"].clone();
    assert!(same(&got, &wrong, NUMPY).is_err());
    let unscaled = Factors::new("test", &products[0].a, &products[0].b, 3, 1.0).unwrap();
    assert!(same(&serde_json::to_value(spectrum(&unscaled)).unwrap(), &golden["spectra"][0], NUMPY).is_err());
    let mut b = products[0].b.clone();
    b[20] += 1e-5;
    let changed = Factors::new("test", &products[0].a, &b, 3, 2.0).unwrap();
    assert!(same(&serde_json::to_value(spectrum(&changed)).unwrap(), &golden["spectra"][0], NUMPY).is_err());
    // Left and right are not the same thing.
    let phi = similarity(&decompose(&[products[0].factors()]), &decompose(&[products[1].factors()]));
    assert!(same(&serde_json::to_value(&phi.left).unwrap(), &golden["right"], NUMPY).is_err());
}

/// Singular values of a dense matrix as roots of the eigenvalues of `MᵀM`, by two-sided Jacobi: another algorithm, with half the digits.
fn naive_singular_values(m: &[Vec<f64>]) -> Vec<f64> {
    let n = m[0].len();
    let mut g: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| m.iter().map(|row| row[i] * row[j]).sum()).collect()).collect();
    for _ in 0..40 {
        for p in 0..n {
            for q in p + 1..n {
                if g[p][q] == 0.0 {
                    continue;
                }
                let angle = 0.5 * (2.0 * g[p][q]).atan2(g[q][q] - g[p][p]);
                let (s, c) = angle.sin_cos();
                for row in &mut g {
                    (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
                }
                for i in 0..n {
                    (g[p][i], g[q][i]) = (c * g[p][i] - s * g[q][i], s * g[p][i] + c * g[q][i]);
                }
            }
        }
    }
    let mut values: Vec<f64> = (0..n).map(|i| g[i][i].max(0.0).sqrt()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// `U diag(values) Vᵀ` is the dense product, U and V have orthonormal columns (of those with a singular value), values descend.
#[track_caller]
fn check_svd(svd: &Svd, dense: &[Vec<f64>]) {
    let largest = svd.values[0];
    assert!(svd.values.windows(2).all(|pair| pair[0] >= pair[1]) && svd.values.iter().all(|s| *s >= 0.0));
    for (o, row) in dense.iter().enumerate() {
        for (i, want) in row.iter().enumerate() {
            let got: f64 = svd.values.iter().enumerate().map(|(k, s)| svd.u.at(o, k) * s * svd.v.at(i, k)).sum();
            assert!((got - want).abs() <= 1e-13 * largest.max(f64::MIN_POSITIVE), "({o}, {i}): {got}, expected {want}");
        }
    }
    for m in [&svd.u, &svd.v].map(|m| m.first_cols(svd.rank)) {
        let gram = m.transposed_times(&m);
        let error = |i: usize, j: usize| (gram.at(i, j) - f64::from(u8::from(i == j))).abs();
        let worst = (0..svd.rank).flat_map(|i| (0..svd.rank).map(move |j| (i, j))).map(|(i, j)| error(i, j)).fold(0.0, f64::max);
        assert!(worst < 1e-12, "columns are off orthonormal by {worst}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any shape, also with a rank above the sizes of the weight, rank deficient on purpose, at scales from 1e-12 to 1e12.
    #[test]
    fn any_product_decomposes(
        seed in 0u32..1000, out in 1usize..14, inputs in 1usize..14, rank in 1usize..10, copies in 0usize..4, exponent in -12i32..=12,
    ) {
        let mut product = Product::new(&seed.to_string(), (out, inputs), rank, 10f64.powi(exponent));
        // The last rows of A repeat the first: the rank is less than it looks.
        for row in rank.saturating_sub(copies).max(1)..rank {
            let (first, rest) = product.a.split_at_mut(inputs);
            rest[(row - 1) * inputs..row * inputs].copy_from_slice(first);
        }
        let dense = product.dense();
        let svd = decompose(&[product.factors()]);
        prop_assert_eq!(svd.values.len(), rank.min(out).min(inputs));
        prop_assert!(svd.rank <= rank.saturating_sub(copies).max(1));
        check_svd(&svd, &dense);
        let naive = naive_singular_values(&dense);
        for (got, want) in svd.values.iter().zip(&naive) {
            // The witness squares: its small values carry an error of sqrt(1e-16) of the largest.
            prop_assert!((got - want).abs() <= 1e-7 * naive[0], "{got}, expected {want}");
        }
        let s = spectrum(&product.factors());
        prop_assert_eq!(&s.singular_values, &svd.values);
        let frobenius = dense.iter().flatten().map(|x| x * x).sum::<f64>().sqrt();
        prop_assert!((s.frobenius - frobenius).abs() <= 1e-12 * frobenius);
        prop_assert!(s.stable_rank <= s.effective_rank + 1e-9 && s.effective_rank <= s.effective_rank_sigma + 1e-9, "{s:?}");
        prop_assert!((0.0..=1.0 + 1e-12).contains(&s.normalized_entropy) && s.effective_rank_sigma <= svd.values.len() as f64 + 1e-9);
    }

    /// A sum of products is the dense sum, whatever their ranks and scales; the inner product is the dense one.
    #[test]
    fn sums_are_exact(seed in 0u32..1000, out in 1usize..12, inputs in 1usize..12, ranks in proptest::collection::vec(1usize..5, 1..4)) {
        let products: Vec<Product> = ranks.iter().enumerate()
            .map(|(i, &r)| Product::new(&format!("{seed}-{i}"), (out, inputs), r, [2.0, -0.5, 100.0][i])).collect();
        let factors: Vec<Factors<'_>> = products.iter().map(Product::factors).collect();
        let dense: Vec<Vec<Vec<f64>>> = products.iter().map(Product::dense).collect();
        let sum: Vec<Vec<f64>> = (0..out).map(|o| (0..inputs).map(|i| dense.iter().map(|d| d[o][i]).sum()).collect()).collect();
        check_svd(&decompose(&factors), &sum);
        let last = dense.len() - 1;
        let want: f64 = dense[0].iter().flatten().zip(dense[last].iter().flatten()).map(|(x, y)| x * y).sum();
        let bound: f64 = dense[0].iter().flatten().zip(dense[last].iter().flatten()).map(|(x, y)| (x * y).abs()).sum();
        prop_assert!((inner_product(&factors[0], &factors[last]) - want).abs() <= 1e-10 * bound.max(1.0));
    }
}

#[test]
fn hard_cases_have_plain_answers() {
    let of = |a: &[f32], b: &[f32], rank, scale| spectrum(&Factors::new("test", a, b, rank, scale).unwrap());
    // Zero, as every adapter starts: no direction at all, and no NaN.
    let zero = of(&[1.0, 2.0, 3.0, 4.0], &[0.0; 6], 2, 2.0);
    assert_eq!(zero, Spectrum { singular_values: vec![0.0, 0.0], ..Spectrum::of(vec![0.0, 0.0], (3, 2)) });
    assert_eq!((zero.rank, zero.effective_rank, zero.stable_rank, zero.top1_energy, zero.entropy), (0, 0.0, 0.0, 0.0, 0.0));
    // Rank 1: one direction, entropy 0.
    let one = of(&[3.0, 4.0], &[2.0, 0.0, 0.0], 1, 0.5);
    assert!((one.singular_values[0] - 5.0).abs() < 1e-15 && one.rank == 1 && one.entropy == 0.0 && one.effective_rank == 1.0);
    // A multiple of the identity: all directions alike.
    let flat = of(&[1.0, 0.0, 0.0, 1.0], &[0.0, 7.0, 7.0, 0.0], 2, 1.0);
    assert!((flat.effective_rank - 2.0).abs() < 1e-12 && (flat.normalized_entropy - 1.0).abs() < 1e-12);
    assert!((flat.stable_rank - 2.0).abs() < 1e-12);
    // The ends of f32, where squares leave it: the largest, the smallest, and both in one product.
    let huge = of(&[3e38, 0.0], &[3e38, 0.0], 1, 1e10);
    assert!((huge.frobenius / (f64::from(3e38_f32).powi(2) * 1e10) - 1.0).abs() < 1e-12);
    let tiny = of(&[1e-45, 0.0], &[0.0, 1e-45], 1, 1.0);
    assert!((tiny.frobenius / f64::from(1e-45_f32).powi(2) - 1.0).abs() < 1e-12 && tiny.rank == 1);
    let both = of(&[3e38, 0.0, 0.0, 1e-45], &[1.0, 0.0, 0.0, 1.0], 2, 1.0);
    assert_eq!((both.rank, both.singular_values.len()), (1, 2));
}

#[test]
fn subspaces_of_one_update_contain_each_other() {
    let product = Product::new("self", (20, 30), 6, 1.0);
    let svd = decompose(&[product.factors()]);
    let phi = similarity(&svd, &svd);
    for grid in [&phi.left, &phi.right] {
        for (i, row) in grid.iter().enumerate() {
            assert!(row.iter().all(|x| (x - 1.0).abs() < 1e-12), "row {i}: {row:?}");
        }
    }
    // Disjoint supports are orthogonal; a zero update has no subspace.
    let left = Factors::new("test", &[1.0, 0.0], &[1.0, 0.0], 1, 1.0).unwrap();
    let right = Factors::new("test", &[0.0, 1.0], &[0.0, 1.0], 1, 1.0).unwrap();
    let zero = Factors::new("test", &[0.0, 1.0], &[0.0, 0.0], 1, 1.0).unwrap();
    let all = links(&[left, right, zero]);
    let (l, r) = (&all.overlap_left, &all.overlap_right);
    assert!(l[0][1] < 1e-30 && r[0][1] < 1e-30 && (l[0][0] - 1.0).abs() < 1e-12, "{l:?} {r:?}");
    assert_eq!((l[2][2], l[0][2], all.cosine[0][2], all.cosine[0][1]), (0.0, 0.0, 0.0, 0.0));
    assert!((all.cumulative[1].effective_rank - 2.0).abs() < 1e-12 && all.cumulative[2].rank == 2);
}

#[test]
fn broken_factors_are_refused_by_name() {
    let refused = |a: &[f32], b: &[f32], rank, scale, word: &str| {
        let error = Factors::new("layers.3.mlp.up_proj", a, b, rank, scale).expect_err("refused").to_string();
        assert!(error.contains("layers.3.mlp.up_proj") && error.contains(word), "{error}");
    };
    refused(&[1.0], &[1.0], 0, 1.0, "rank is 0");
    refused(&[1.0, 2.0, 3.0], &[1.0, 2.0], 2, 1.0, "A has 3 values");
    refused(&[1.0, 2.0], &[], 2, 1.0, "B has 0 values");
    refused(&[1.0, f32::NAN], &[1.0, 2.0], 2, 1.0, "A holds NaN at element 1");
    refused(&[1.0, 2.0], &[f32::INFINITY, 2.0], 2, 1.0, "B holds inf");
    refused(&[1.0, 2.0], &[1.0, 2.0], 2, f64::NAN, "scale is NaN");
}

#[test]
fn a_matrix_is_what_was_put_in() {
    let m = Matrix::from_fn(2, 3, |i, j| (10 * i + j) as f64);
    assert_eq!((m.rows(), m.cols(), m.at(1, 2), m.col(1)), (2, 3, 12.0, &[1.0, 11.0][..]));
    assert_eq!(m.transposed().at(2, 1), 12.0);
    assert_eq!(m.first_cols(9), m);
    assert_eq!(Matrix::identity(2).transposed_times(&m), m);
}

/// The decomposition is cheap enough for every knot: reported, and bounded far above what it takes.
#[test]
fn rank_128_of_a_wide_layer_takes_moments() {
    let product = Product::new("large", (1536, 576), 128, 1.0);
    let began = std::time::Instant::now();
    let s = spectrum(&product.factors());
    let seconds = began.elapsed().as_secs_f64();
    eprintln!("spectrum of 1536 x 576 at rank 128: {seconds:.3} s, effective rank {:.1}", s.effective_rank);
    assert!(s.rank == 128 && seconds < 20.0);
}
