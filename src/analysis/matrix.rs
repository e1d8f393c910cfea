//! A dense f64 matrix by columns: both QR and Jacobi work on columns.

/// A dense matrix; column `j` is contiguous.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    cols: usize,
    data: Vec<f64>,
}

impl Matrix {
    /// All zero, `[rows, cols]`.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self { rows, cols, data: vec![0.0; rows * cols] }
    }

    /// The unit matrix, `[n, n]`.
    pub fn identity(n: usize) -> Self {
        Self::from_fn(n, n, |i, j| f64::from(u8::from(i == j)))
    }

    /// Element `(i, j)` is `f(i, j)`.
    pub fn from_fn(rows: usize, cols: usize, f: impl Fn(usize, usize) -> f64) -> Self {
        let data = (0..cols).flat_map(|j| (0..rows).map(move |i| (i, j))).map(|(i, j)| f(i, j)).collect();
        Self { rows, cols, data }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Element `(i, j)`. Panics outside the matrix.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.col(j)[i]
    }

    /// Column `j`. Panics outside the matrix.
    pub fn col(&self, j: usize) -> &[f64] {
        &self.data[j * self.rows..(j + 1) * self.rows]
    }

    pub(super) fn col_mut(&mut self, j: usize) -> &mut [f64] {
        &mut self.data[j * self.rows..(j + 1) * self.rows]
    }

    /// Columns `i < j`, both to be changed.
    pub(super) fn pair_mut(&mut self, i: usize, j: usize) -> (&mut [f64], &mut [f64]) {
        let (left, right) = self.data.split_at_mut(j * self.rows);
        (&mut left[i * self.rows..(i + 1) * self.rows], &mut right[..self.rows])
    }

    /// The transpose.
    pub fn transposed(&self) -> Self {
        Self::from_fn(self.cols, self.rows, |i, j| self.at(j, i))
    }

    /// The first `cols` columns (all, when there are fewer).
    pub fn first_cols(&self, cols: usize) -> Self {
        let cols = cols.min(self.cols);
        Self { rows: self.rows, cols, data: self.data[..cols * self.rows].to_vec() }
    }

    /// `selfᵀ · other`, from `[m, p]` and `[m, q]` to `[p, q]`. Panics when the rows differ.
    pub fn transposed_times(&self, other: &Self) -> Self {
        assert_eq!(self.rows, other.rows, "rows of both matrices");
        Self::from_fn(self.cols, other.cols, |i, j| dot(self.col(i), other.col(j)))
    }

    /// Largest magnitude.
    pub(super) fn max_abs(&self) -> f64 {
        self.data.iter().fold(0.0, |largest, x| largest.max(x.abs()))
    }

    pub(super) fn multiply(&mut self, factor: f64) {
        self.data.iter_mut().for_each(|x| *x *= factor);
    }
}

/// `x · y`.
pub(super) fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
