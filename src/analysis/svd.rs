//! One-sided Jacobi SVD of a small matrix: pairs of columns are rotated until all are orthogonal; their lengths are the singular values.
//!
//! Slower than bidiagonalisation but a page long, and at least as accurate. Cores are at most a few hundred wide.

use super::matrix::{Matrix, dot};

/// Sweeps over all pairs after which it stops; ten are usual.
const MAX_SWEEPS: usize = 64;

/// `M = U diag(values) Vᵀ`.
pub struct CoreSvd {
    /// Left singular vectors, `[rows, p]`, p the smaller size. The vector of a singular value of 0 is 0.
    pub u: Matrix,
    /// Singular values, descending, p of them.
    pub values: Vec<f64>,
    /// Right singular vectors, `[cols, p]`.
    pub v: Matrix,
}

/// Decomposes `m`, whose elements are of moderate size (squares neither overflow nor vanish).
pub fn svd(m: &Matrix) -> CoreSvd {
    if m.rows() < m.cols() {
        let CoreSvd { u, values, v } = svd(&m.transposed());
        return CoreSvd { u: v, values, v: u };
    }
    let mut g = m.clone();
    let mut v = Matrix::identity(m.cols());
    orthogonalise(&mut g, &mut v);
    let lengths: Vec<f64> = (0..g.cols()).map(|j| dot(g.col(j), g.col(j)).sqrt()).collect();
    let mut order: Vec<usize> = (0..g.cols()).collect();
    order.sort_by(|&a, &b| lengths[b].total_cmp(&lengths[a]));
    let values: Vec<f64> = order.iter().map(|&j| lengths[j]).collect();
    let inverse = |j: usize| if lengths[j] > 0.0 { 1.0 / lengths[j] } else { 0.0 };
    let u = Matrix::from_fn(g.rows(), g.cols(), |i, j| g.at(i, order[j]) * inverse(order[j]));
    let v = Matrix::from_fn(v.rows(), v.cols(), |i, j| v.at(i, order[j]));
    CoreSvd { u, values, v }
}

/// Rotates the columns of g, and those of v alike, until those of g are orthogonal.
fn orthogonalise(g: &mut Matrix, v: &mut Matrix) {
    let n = g.cols();
    let energy: f64 = (0..n).map(|j| dot(g.col(j), g.col(j))).sum();
    // What is smaller than rounding of the whole cannot be told from zero.
    let floor = f64::EPSILON * f64::EPSILON * energy;
    for _ in 0..MAX_SWEEPS {
        let mut rotated = false;
        for i in 0..n {
            for j in i + 1..n {
                let (gi, gj) = (g.col(i), g.col(j));
                let (alpha, beta, gamma) = (dot(gi, gi), dot(gj, gj), dot(gi, gj));
                if gamma.abs() <= floor.max(f64::EPSILON * (alpha * beta).sqrt()) {
                    continue;
                }
                rotated = true;
                let zeta = (beta - alpha) / (2.0 * gamma);
                let tangent = 1.0_f64.copysign(zeta) / (zeta.abs() + zeta.hypot(1.0));
                let cosine = 1.0 / tangent.hypot(1.0);
                for m in [&mut *g, &mut *v] {
                    rotate(m.pair_mut(i, j), cosine, cosine * tangent);
                }
            }
        }
        if !rotated {
            return;
        }
    }
}

fn rotate((x, y): (&mut [f64], &mut [f64]), cosine: f64, sine: f64) {
    for (x, y) in x.iter_mut().zip(y) {
        (*x, *y) = (cosine * *x - sine * *y, sine * *x + cosine * *y);
    }
}
