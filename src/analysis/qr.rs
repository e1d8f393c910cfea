//! Thin Householder QR, with Q kept as its reflectors: `Q x` costs less than forming Q, and the singular values need no Q at all.

use super::matrix::{Matrix, dot};

/// `M = Q R`, M `[m, n]`, Q `[m, p]` with orthonormal columns, R `[p, n]` upper triangular, `p = min(m, n)`.
pub struct Qr {
    /// R.
    pub r: Matrix,
    /// Reflector j is `I - 2 v vᵀ` on rows `j..m`; an empty v is the identity (a column that was zero already).
    reflectors: Vec<Vec<f64>>,
    rows: usize,
}

impl Qr {
    /// Decomposes `m`, whose elements are of moderate size (squares neither overflow nor vanish).
    pub fn new(mut m: Matrix) -> Self {
        let (rows, cols) = (m.rows(), m.cols());
        let p = rows.min(cols);
        let mut reflectors = Vec::with_capacity(p);
        for j in 0..p {
            let v = reflector(&m.col(j)[j..]);
            for c in j..cols {
                reflect(&v, &mut m.col_mut(c)[j..]);
            }
            reflectors.push(v);
        }
        let r = Matrix::from_fn(p, cols, |i, j| if i <= j { m.at(i, j) } else { 0.0 });
        Self { r, reflectors, rows }
    }

    /// `Q x`, from `[p, c]` to `[m, c]`.
    pub fn q_times(&self, x: &Matrix) -> Matrix {
        let mut out = Matrix::zeros(self.rows, x.cols());
        for c in 0..x.cols() {
            let column = out.col_mut(c);
            column[..x.rows()].copy_from_slice(x.col(c));
            for (j, v) in self.reflectors.iter().enumerate().rev() {
                reflect(v, &mut column[j..]);
            }
        }
        out
    }
}

/// The unit vector v for which `x - 2 v (v·x)` is zero below its first element.
fn reflector(x: &[f64]) -> Vec<f64> {
    let norm = dot(x, x).sqrt();
    if norm == 0.0 {
        return Vec::new();
    }
    let mut v = x.to_vec();
    // Away from the first element, so that nothing cancels.
    v[0] += norm.copysign(x[0]);
    let length = dot(&v, &v).sqrt();
    v.iter_mut().for_each(|x| *x /= length);
    v
}

fn reflect(v: &[f64], x: &mut [f64]) {
    if v.is_empty() {
        return;
    }
    let twice = 2.0 * dot(v, x);
    x.iter_mut().zip(v).for_each(|(x, v)| *x -= twice * v);
}
