//! Which directions two updates share: the subspace similarity of Hu et al. (LoRA, section 7.2).

use serde::{Deserialize, Serialize};

use super::factors::Svd;
use super::matrix::Matrix;

/// Numbers by row and column; rows are of one length.
pub type Grid = Vec<Vec<f64>>;

/// `φ(i, j) = ‖U_1[:, :i]ᵀ U_2[:, :j]‖_F² / min(i, j)`, between 0 (orthogonal) and 1 (one contains the other). Row `i - 1`, column `j - 1`, for i
/// and j up to the numerical ranks. Random subspaces of an n-wide space give `max(i, j) / n` on average.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// Of the left singular vectors: directions of the output.
    pub left: Grid,
    /// Of the right singular vectors: directions of the input.
    pub right: Grid,
}

impl Similarity {
    /// φ of both whole subspaces, `(left, right)`; 0 when an update is zero.
    pub fn whole(&self) -> (f64, f64) {
        let last = |grid: &Grid| grid.last().and_then(|row| row.last()).copied().unwrap_or(0.0);
        (last(&self.left), last(&self.right))
    }
}

/// Compares the singular vectors of two updates of one site.
///
/// # Panics
/// When the shapes differ.
pub fn similarity(x: &Svd, y: &Svd) -> Similarity {
    let cut = |m: &Matrix, svd: &Svd| m.first_cols(svd.rank);
    Similarity { left: phi(&cut(&x.u, x), &cut(&y.u, y)), right: phi(&cut(&x.v, x), &cut(&y.v, y)) }
}

/// φ from two matrices with orthonormal columns.
fn phi(x: &Matrix, y: &Matrix) -> Grid {
    let products = x.transposed_times(y);
    let mut above = vec![0.0; y.cols()];
    let mut grid = Grid::with_capacity(x.cols());
    for i in 0..x.cols() {
        let mut row = 0.0;
        for (j, sum) in above.iter_mut().enumerate() {
            row += products.at(i, j).powi(2);
            *sum += row;
        }
        // Rounding may reach a little above 1.
        grid.push(above.iter().enumerate().map(|(j, sum)| (sum / (i.min(j) + 1) as f64).min(1.0)).collect());
    }
    grid
}
