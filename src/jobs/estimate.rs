//! How long a fused step takes, from those that were measured: `seconds = b0 + b1 · rows` by least squares, both at least 0.
//!
//! mLoRA (VLDB 2025, section 3.4) fits memory in this way; time is linear in rows too where attention is a small part of a step. Steps that were
//! disturbed (a save, another program, the first one with its compilation) lie far off the line: after a first fit those more than three
//! times the median deviation away are left out, and the line is fitted again.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::curve::median;

/// Steps that are remembered.
const WINDOW: usize = 128;

/// The line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// Seconds of a step whatever its size.
    pub base: f64,
    /// Seconds a row.
    pub per_row: f64,
}

impl StepTime {
    /// Seconds of a step with so many rows.
    pub fn seconds(&self, rows: f64) -> f64 {
        self.base + self.per_row * rows
    }
}

/// Measured steps.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Measured {
    steps: VecDeque<(f64, f64)>,
}

impl Measured {
    /// Takes note of a step; what is no positive time is left out.
    pub fn note(&mut self, rows: u64, seconds: f64) {
        if !(seconds.is_finite() && seconds > 0.0 && rows > 0) {
            return;
        }
        self.steps.push_back((rows as f64, seconds));
        if self.steps.len() > WINDOW {
            self.steps.pop_front();
        }
    }

    /// Mean rows of the steps that are remembered.
    pub fn mean_rows(&self) -> Option<f64> {
        (!self.steps.is_empty()).then(|| self.steps.iter().map(|(rows, _)| rows).sum::<f64>() / self.steps.len() as f64)
    }

    /// The line, once a step was measured.
    pub fn fit(&self) -> Option<StepTime> {
        let all: Vec<(f64, f64)> = self.steps.iter().copied().collect();
        let first = robust_start(&all)?;
        let mut apart: Vec<f64> = all.iter().map(|(rows, seconds)| (seconds - first.seconds(*rows)).abs()).collect();
        // Differences in the last bits are not worth leaving a step out for.
        let limit = 3.0 * median(&mut apart)? + 1e-9 * first.seconds(1.0);
        let near: Vec<(f64, f64)> = all.iter().copied().filter(|(rows, seconds)| (seconds - first.seconds(*rows)).abs() <= limit).collect();
        least_squares(&near).or(Some(first))
    }
}

/// A line that a few points cannot pull away: the median slope between the smaller and the larger half of the steps, each with its partner in the
/// other half, and the median of what is left over (Theil's incomplete method).
fn robust_start(points: &[(f64, f64)]) -> Option<StepTime> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let half = sorted.len() / 2;
    let pairs = sorted.iter().zip(sorted.iter().skip(sorted.len() - half));
    let mut slopes: Vec<f64> = pairs.filter(|(a, b)| b.0 > a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    let per_row = median(&mut slopes).unwrap_or(0.0).max(0.0);
    let mut bases: Vec<f64> = points.iter().map(|(rows, seconds)| seconds - per_row * rows).collect();
    let base = median(&mut bases)?;
    if base >= 0.0 {
        return Some(StepTime { base, per_row });
    }
    let mut ratios: Vec<f64> = points.iter().map(|(rows, seconds)| seconds / rows).collect();
    Some(StepTime { base: 0.0, per_row: median(&mut ratios)? })
}

/// `None` of no points. Where all have the same rows all time counts as the base's; a negative part is set to zero and the other fitted alone.
fn least_squares(points: &[(f64, f64)]) -> Option<StepTime> {
    if points.is_empty() {
        return None;
    }
    let n = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let sum = |of: &dyn Fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>();
    let spread = sum(&|p| (p.0 - x).powi(2));
    let slope = if spread > 0.0 { sum(&|p| (p.0 - x) * (p.1 - y)) / spread } else { 0.0 };
    let base = y - slope * x;
    Some(match (slope >= 0.0, base >= 0.0) {
        (false, _) => StepTime { base: y, per_row: 0.0 },
        (true, false) => StepTime { base: 0.0, per_row: sum(&|p| p.0 * p.1) / sum(&|p| p.0 * p.0) },
        (true, true) => StepTime { base, per_row: slope },
    })
}
