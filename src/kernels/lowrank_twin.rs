//! The low-rank products as three obvious loops, to compare with and to differentiate numerically.

use super::lowrank::{NO_GRADIENT, Segment, SiteRow, dropout_factor};
use super::real::Real;

/// One site as the twins see it: tables, sizes and adapter values.
#[derive(Debug, Clone)]
pub struct TwinSite<'a, R> {
    /// Rows, inputs, outputs and row stride of `h`.
    pub sizes: [usize; 4],
    /// [`LowrankSite::dropout_key`](super::lowrank::LowrankSite::dropout_key).
    pub dropout_key: u32,
    /// The jobs table.
    pub jobs: &'a [Segment],
    /// This site's row of the sites table, `[jobs]`.
    pub sites: &'a [SiteRow],
    /// `A` and `Bt` values.
    pub adapter: &'a [R],
}

/// What a backward pass gives.
#[derive(Debug, Clone, PartialEq)]
pub struct TwinGrads<R> {
    /// `[rows, r_max]`
    pub dh: Vec<R>,
    /// `[rows, k]`, only the low-rank path's part.
    pub dx: Vec<R>,
    /// As the grads buffer: trainable ranks at their offsets.
    pub grads: Vec<R>,
}

impl<R: Real> TwinSite<'_, R> {
    /// The mask of an element of the input as rank `r` sees it: frozen ranks see all.
    fn factor(&self, job: usize, r: usize, row: usize, column: usize) -> R {
        let trains = (self.sites[job].train_begin..self.sites[job].train_end).contains(&(r as u32));
        let mask = if trains { dropout_factor(&self.jobs[job], self.dropout_key, row as u32, column as u32) } else { 1.0 };
        R::of(f64::from(mask))
    }
    fn a(&self, job: usize, r: usize, k: usize) -> R {
        self.adapter[self.sites[job].a_offset as usize + r * self.sizes[1] + k]
    }
    fn bt(&self, job: usize, r: usize, n: usize) -> R {
        self.adapter[self.sites[job].b_offset as usize + r * self.sizes[2] + n]
    }
    /// Calls `body` with job, row and scale for each row that has an adapter.
    fn each_row(&self, mut body: impl FnMut(usize, usize, R)) {
        for job in 0..self.jobs.len() {
            if self.sites[job].rank > 0 {
                for row in self.jobs[job].row_begin..self.jobs[job].row_end {
                    body(job, row as usize, R::of(f64::from(self.sites[job].scale)));
                }
            }
        }
    }
}

/// `h` and what is added to `y`: `[rows, r_max]` and `[rows, n]`.
pub fn lowrank_forward_twin<R: Real>(s: &TwinSite<R>, x: &[R]) -> (Vec<R>, Vec<R>) {
    let [rows, width, outputs, r_max] = s.sizes;
    let mut h = vec![R::default(); rows * r_max];
    let mut y = vec![R::default(); rows * outputs];
    s.each_row(|job, t, scale| {
        for r in 0..s.sites[job].rank as usize {
            for k in 0..width {
                h[t * r_max + r] += s.factor(job, r, t, k) * x[t * width + k] * s.a(job, r, k);
            }
            for n in 0..outputs {
                y[t * outputs + n] += scale * h[t * r_max + r] * s.bt(job, r, n);
            }
        }
    });
    (h, y)
}

/// Gradients of `sum(dy * y)`; `grads_len` is the length of the grads buffer.
pub fn lowrank_backward_twin<R: Real>(s: &TwinSite<R>, x: &[R], dy: &[R], h: &[R], grads_len: usize) -> TwinGrads<R> {
    let [rows, width, outputs, r_max] = s.sizes;
    let mut out =
        TwinGrads { dh: vec![R::default(); rows * r_max], dx: vec![R::default(); rows * width], grads: vec![R::default(); grads_len] };
    s.each_row(|job, t, scale| {
        let site = &s.sites[job];
        for r in 0..site.rank as usize {
            for n in 0..outputs {
                out.dh[t * r_max + r] += scale * dy[t * outputs + n] * s.bt(job, r, n);
            }
            let trains = (site.train_begin..site.train_end).contains(&(r as u32));
            let trained = r.wrapping_sub(site.train_begin as usize);
            let dh = out.dh[t * r_max + r];
            for k in 0..width {
                out.dx[t * width + k] += s.factor(job, r, t, k) * dh * s.a(job, r, k);
                if trains && site.grad_a_offset != NO_GRADIENT {
                    out.grads[site.grad_a_offset as usize + trained * width + k] += dh * s.factor(job, r, t, k) * x[t * width + k];
                }
            }
            for n in 0..outputs {
                if trains && site.grad_b_offset != NO_GRADIENT {
                    out.grads[site.grad_b_offset as usize + trained * outputs + n] += scale * h[t * r_max + r] * dy[t * outputs + n];
                }
            }
        }
    });
    out
}
