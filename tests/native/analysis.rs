//! Spectra and subspaces from factors, against numpy (`tests/golden/make_analysis.py`) and against a dense eigenvalue witness in f64.

use proptest::prelude::*;
use serde_json::Value;
use weblora::adapters::{Projection, Site};
use weblora::analysis::report::{AdapterReport, SiteFactors, report};
use weblora::analysis::{
    Factors, Links, Matrix, Module, SiteModules, Spectrum, Svd, decompose, inner_product, links, similarity, spectrum, spectrum_of_sum, svg,
};
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
    serde_json::from_str(include_str!("../golden/analysis.json")).unwrap()
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

/// Modules of one site as a run has them; the second's scale is one number for all outputs where `scalar` is set.
fn some_modules(seed: u32, (out, inputs): (usize, usize), rank: usize, count: usize, scalar: bool) -> Vec<Module> {
    let random = |what: &str, i: usize, n: usize| fill_uniform(&format!("{seed}/{what}.{i}"), n, 1.0);
    let module = |i: usize| Module {
        a: random("a", i, rank * inputs),
        b: random("b", i, out * rank),
        scaling: random("s", i, if scalar { 1 } else { out }),
    };
    (0..count).map(module).collect()
}

fn site() -> Site {
    Site { layer: 1, projection: Projection::Up }
}

/// `s ⊙ B` of all modules side by side, as an adapter is saved.
fn saved(modules: &[Module], rank: usize, scale: f64) -> Product {
    let out = modules[0].b.len() / rank;
    let at = |m: &Module, o: usize| m.scaling[if m.scaling.len() == 1 { 0 } else { o }];
    let row = |o: usize| modules.iter().flat_map(move |m| m.b[o * rank..(o + 1) * rank].iter().map(move |x| at(m, o) * x));
    let a = modules.iter().flat_map(|m| m.a.clone()).collect();
    Product { a, b: (0..out).flat_map(row).collect(), rank: rank * modules.len(), scale }
}

fn report_of(product: &Product) -> AdapterReport {
    report("test", &[SiteFactors { site: site(), expert: None, links: vec![product.factors()], numbers: vec![0] }], false)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Norms of every module and of their sum are those of the dense matrices, and shares add up to one.
    #[test]
    fn modules_are_measured_as_dense_matrices_would_be(
        seed in 0u32..1000, out in 2usize..12, inputs in 1usize..12, rank in 1usize..5, count in 1usize..5, scalar in any::<bool>(),
    ) {
        let modules = some_modules(seed, (out, inputs), rank, count, scalar);
        let found = SiteModules::new(site(), rank, 2.5, modules.clone()).unwrap().report();
        let norm = |m: &[Vec<f64>]| m.iter().flatten().map(|x| x * x).sum::<f64>().sqrt();
        let mut all = vec![vec![0.0; inputs]; out];
        for (module, got) in modules.iter().zip(&found.each) {
            // One module without its scale, in f64 from here on.
            let plain = Product { a: module.a.clone(), b: module.b.clone(), rank, scale: 2.5 }.dense();
            let s = |o: usize| f64::from(module.scaling[if scalar { 0 } else { o }]);
            let dense: Vec<Vec<f64>> = plain.iter().enumerate().map(|(o, row)| row.iter().map(|x| s(o) * x).collect()).collect();
            prop_assert!((got.frobenius - norm(&dense)).abs() <= 1e-10 * norm(&dense).max(1e-9));
            for (sum, row) in all.iter_mut().zip(&dense) {
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            }
            let scales: Vec<f64> = module.scaling.iter().map(|s| f64::from(*s).abs()).collect();
            prop_assert!((got.mean_scale - scales.iter().sum::<f64>() / scales.len() as f64).abs() < 1e-12);
            prop_assert_eq!(got.max_scale, scales.iter().copied().fold(0.0, f64::max));
            prop_assert!(got.mean_scale <= got.rms_scale + 1e-12 && got.rms_scale <= got.max_scale + 1e-12);
        }
        let norms: f64 = found.each.iter().map(|m| m.frobenius).sum();
        prop_assert!((found.frobenius - norm(&all)).abs() <= 1e-7 * norms, "{} and {}", found.frobenius, norm(&all));
        prop_assert!((found.each.iter().map(|m| m.share).sum::<f64>() - 1.0).abs() < 1e-12);
    }
}

#[test]
fn modules_go_with_their_own_adapter_only() {
    let (rank, scale) = (3, 2.0);
    for scalar in [false, true] {
        let modules = some_modules(7, (20, 30), rank, 3, scalar);
        let product = saved(&modules, rank, scale);
        let mut own = report_of(&product);
        own.add_modules(&[SiteModules::new(site(), rank, scale, modules.clone()).unwrap()]).unwrap();
        let at_site = own.sites[0].modules.as_ref().unwrap();
        assert_eq!((at_site.each.len(), own.modules.len(), own.modules[2]), (3, 3, at_site.each[2]));
        let picture = svg::module_scales(&own).unwrap();
        assert!(picture.contains("up, mean |s|") && picture.contains("up, share") && picture.contains("<title>1, 2: "), "{picture}");
        let read: AdapterReport = serde_json::from_str(&serde_json::to_string(&own).unwrap()).unwrap();
        assert_eq!((read.modules.len(), read.sites[0].modules.as_ref().map(|m| m.each.len())), (3, Some(3)));

        // A forgotten alpha / r, one module's scale, one number of it, another site: none of them is this adapter.
        let mut other = report_of(&product);
        let mut refused = |scale: f64, modules: &[Module]| {
            let wrong = SiteModules::new(site(), rank, scale, modules.to_vec()).unwrap();
            let error = other.add_modules(&[wrong]).expect_err("another adapter").to_string();
            assert!(error.contains("layers.1.mlp.up_proj") && error.contains("add up to a norm of"), "{error}");
        };
        refused(1.0, &modules);
        let mut wrong = modules.clone();
        wrong[1].scaling.iter_mut().for_each(|s| *s *= 1.01);
        refused(scale, &wrong);
        let mut wrong = modules.clone();
        wrong[0].scaling[0] += 0.01;
        refused(scale, &wrong);
        assert!(other.add_modules(&[]).unwrap_err().to_string().contains("no modules at layers.1.mlp.up_proj"));
        assert!(svg::module_scales(&other).is_none() && other.modules.is_empty());
    }
    // As a run starts: every scale zero, no share, no NaN.
    let mut modules = some_modules(8, (4, 5), 2, 2, false);
    modules.iter_mut().for_each(|m| m.scaling.fill(0.0));
    let zero = SiteModules::new(site(), 2, 1.0, modules.clone()).unwrap().report();
    assert_eq!((zero.frobenius, zero.each[0].share, zero.each[1].mean_scale), (0.0, 0.0, 0.0));
    // Lengths and numbers that cannot be.
    let refused = |rank: usize, change: &dyn Fn(&mut Vec<Module>), word: &str| {
        let mut wrong = modules.clone();
        change(&mut wrong);
        let error = SiteModules::new(site(), rank, 1.0, wrong).expect_err("refused").to_string();
        assert!(error.contains("layers.1.mlp.up_proj") && error.contains(word), "{error}");
    };
    refused(0, &|_| (), "rank 0");
    refused(2, &Vec::clear, "no module");
    refused(2, &|m| m[1].scaling.truncate(3), "module 1 has");
    refused(2, &|m| m[1].a.truncate(4), "module 1 has");
    refused(2, &|m| m[0].scaling[1] = f32::NAN, "its scale holds NaN");
}
