//! Low-rank products, and their exact SVD from the factors.
//!
//! `Q_B R_B = qr(B_cat)`, `Q_A R_A = qr(A_catᵀ)`, `U' S V'ᵀ = svd(R_B R_Aᵀ)`, `U = Q_B U'`, `V = Q_A V'`: costs `O((out + in) R²)`, and unlike the
//! eigenvalues of `BᵀB AAᵀ` keeps all digits.

use super::matrix::{Matrix, dot};
use super::qr::Qr;
use super::svd;
use crate::{Error, Result};

/// One product `scale · B A`, borrowed from wherever the factors are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factors<'a> {
    a: &'a [f32],
    b: &'a [f32],
    rank: usize,
    scale: f64,
}

impl<'a> Factors<'a> {
    /// A is `[rank, in]` and B `[out, rank]`, both row-major as Hugging Face has them; `scale` is alpha / rank or what replaces it. `name` is what
    /// errors call the product: its site.
    ///
    /// # Errors
    /// When the rank is 0, a length is no multiple of it, or a number is NaN or infinite.
    pub fn new(name: &str, a: &'a [f32], b: &'a [f32], rank: usize, scale: f64) -> Result<Self> {
        let error = |problem: String, hint| Error::Adapter { adapter: name.to_owned(), problem, hint };
        if rank == 0 {
            return Err(error("its rank is 0".into(), "leave the site out, or give it a rank of 1 or more"));
        }
        for (which, values) in [("A", a), ("B", b)] {
            if values.is_empty() || !values.len().is_multiple_of(rank) {
                let problem = format!("{which} has {} values, a positive multiple of the rank {rank} was expected", values.len());
                return Err(error(problem, "save or download the adapter again"));
            }
            if let Some(at) = values.iter().position(|x| !x.is_finite()) {
                let problem = format!("{which} holds {} at element {at}", values[at]);
                return Err(error(problem, "it was damaged or its training diverged; use an earlier one, or train with a lower --lr"));
            }
        }
        if !scale.is_finite() {
            return Err(error(format!("its scale is {scale}"), "correct alpha and rank"));
        }
        Ok(Self { a, b, rank, scale })
    }

    /// A, `[rank, in]`.
    pub fn a(&self) -> &'a [f32] {
        self.a
    }

    /// B, `[out, rank]`.
    pub fn b(&self) -> &'a [f32] {
        self.b
    }

    /// Rows of A.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// What multiplies B A.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Sizes of ΔW, `(out, in)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.b.len() / self.rank, self.a.len() / self.rank)
    }
}

/// The singular value decomposition `ΔW = U diag(values) Vᵀ`, p of each, p = min(rank sum, out, in).
#[derive(Debug, Clone, PartialEq)]
pub struct Svd {
    /// Left singular vectors (directions of the output), `[out, p]`. The vector of a singular value of 0 may be 0.
    pub u: Matrix,
    /// Singular values, descending.
    pub values: Vec<f64>,
    /// Right singular vectors (directions of the input), `[in, p]`.
    pub v: Matrix,
    /// How many singular values are above the rounding of f32 factors: `σ_1 · max(out, in) · 2⁻²³`.
    pub rank: usize,
}

/// QR of both concatenated factors and SVD of the core.
struct Core {
    b: Qr,
    a: Qr,
    svd: svd::CoreSvd,
    /// The singular values, scaled back.
    values: Vec<f64>,
    shape: (usize, usize),
}

impl Core {
    /// Panics when there is no product or they differ in shape.
    fn new(sum: &[Factors<'_>]) -> Self {
        let shape = sum.first().map(Factors::shape).expect("at least one product");
        assert!(sum.iter().all(|f| f.shape() == shape), "products of one site have one shape");
        let (out, inputs) = shape;
        // Column c of the sum is column `own` of product `which`.
        let column: Vec<(usize, usize)> = sum.iter().enumerate().flat_map(|(j, f)| (0..f.rank).map(move |own| (j, own))).collect();
        let mut b = Matrix::from_fn(out, column.len(), |o, c| {
            let (f, own) = (&sum[column[c].0], column[c].1);
            f.scale * f64::from(f.b[o * f.rank + own])
        });
        let mut a = Matrix::from_fn(inputs, column.len(), |i, c| {
            let (f, own) = (&sum[column[c].0], column[c].1);
            f64::from(f.a[own * inputs + i])
        });
        // To moderate size, so that no square overflows or vanishes.
        let scale = [&mut b, &mut a].map(|m| {
            let largest = m.max_abs();
            m.multiply(if largest > 0.0 { 1.0 / largest } else { 1.0 });
            largest
        });
        let (b, a) = (Qr::new(b), Qr::new(a));
        let svd = svd::svd(&b.r.transposed().transposed_times(&a.r.transposed()));
        let values = svd.values.iter().map(|s| s * scale[0] * scale[1]).collect();
        Self { b, a, svd, values, shape }
    }
}

/// Singular values above the rounding of factors that are kept in f32.
pub(super) fn numerical_rank(values: &[f64], (out, inputs): (usize, usize)) -> usize {
    let largest = values.first().copied().unwrap_or(0.0);
    let floor = largest * out.max(inputs) as f64 * f64::from(f32::EPSILON);
    values.iter().filter(|&&s| s > floor).count()
}

/// Singular values and vectors of the sum of some products of one site.
///
/// # Panics
/// When there is no product, or they differ in shape.
pub fn decompose(sum: &[Factors<'_>]) -> Svd {
    decompose_cut(sum, usize::MAX)
}

/// As [`decompose`], with the vectors of the `most` largest singular values only (all values are given).
///
/// # Panics
/// When there is no product, or they differ in shape.
pub fn decompose_cut(sum: &[Factors<'_>], most: usize) -> Svd {
    let core = Core::new(sum);
    let rank = numerical_rank(&core.values, core.shape);
    let u = core.b.q_times(&core.svd.u.first_cols(most));
    let v = core.a.q_times(&core.svd.v.first_cols(most));
    Svd { u, values: core.values, v, rank }
}

/// Singular values alone, descending.
pub(super) fn singular_values(sum: &[Factors<'_>]) -> Vec<f64> {
    Core::new(sum).values
}

/// `⟨ΔW_x, ΔW_y⟩`, the sum of products of elements, as `Σ (B_xᵀ B_y) ⊙ (A_x A_yᵀ)`.
///
/// # Panics
/// When the shapes differ.
pub fn inner_product(x: &Factors<'_>, y: &Factors<'_>) -> f64 {
    assert_eq!(x.shape(), y.shape(), "products of one site have one shape");
    let inputs = x.shape().1;
    let column = |f: &Factors<'_>, c: usize| -> Vec<f64> { f.b.iter().skip(c).step_by(f.rank).map(|&x| x.into()).collect() };
    let row = |f: &Factors<'_>, r: usize| -> Vec<f64> { f.a[r * inputs..(r + 1) * inputs].iter().map(|&x| x.into()).collect() };
    let of_y: Vec<(Vec<f64>, Vec<f64>)> = (0..y.rank).map(|j| (column(y, j), row(y, j))).collect();
    let mut sum = 0.0;
    for i in 0..x.rank {
        let (b, a) = (column(x, i), row(x, i));
        sum += of_y.iter().map(|(yb, ya)| dot(&b, yb) * dot(&a, ya)).sum::<f64>();
    }
    x.scale * y.scale * sum
}
