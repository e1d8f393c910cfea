//! How much of an update survives being stored in a format: a low-bit grid rounds small changes away.
//!
//! With the format's encoder and decoder as Q: `D̂ = Q(W + Δ) - Q(W)`, retention `⟨D̂, Δ⟩ / ‖Δ‖²` (1: kept, 0: lost) and relative error
//! `‖D̂ - Δ‖ / ‖Δ‖` (0: exact; above 1: more noise than signal).

use serde::Serialize;

use crate::quant::QuantFormat;
use crate::{Error, Result};

/// Below this, exporters' callers should warn: more than a tenth of what was trained is gone.
pub const ENOUGH: f64 = 0.9;

/// Sums over the weights seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Retention {
    inner: f64,
    delta: f64,
    error: f64,
    weight: f64,
}

impl Retention {
    /// Takes in weights W, their update Δ, and what is stored of W alone and of W + Δ.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn add(&mut self, weights: &[f32], delta: &[f32], stored_alone: &[f32], stored: &[f32]) {
        let n = weights.len();
        assert!([delta.len(), stored_alone.len(), stored.len()] == [n; 3], "one value of each per weight");
        for i in 0..n {
            let (d, kept) = (f64::from(delta[i]), f64::from(stored[i]) - f64::from(stored_alone[i]));
            self.inner += kept * d;
            self.delta += d * d;
            self.error += (kept - d) * (kept - d);
            self.weight += f64::from(weights[i]).powi(2);
        }
    }

    /// Takes in what another one has seen.
    pub fn merge(&mut self, other: &Self) {
        self.inner += other.inner;
        self.delta += other.delta;
        self.error += other.error;
        self.weight += other.weight;
    }

    /// `⟨D̂, Δ⟩ / ‖Δ‖²`; 1 for an update of zero, of which nothing can be lost.
    pub fn retention(&self) -> f64 {
        if self.delta > 0.0 { self.inner / self.delta } else { 1.0 }
    }

    /// `‖D̂ - Δ‖ / ‖Δ‖`; 0 for an update of zero.
    pub fn relative_error(&self) -> f64 {
        if self.delta > 0.0 { (self.error / self.delta).sqrt() } else { 0.0 }
    }

    /// `‖Δ‖ / ‖W‖`, the size of the update.
    pub fn relative_size(&self) -> f64 {
        if self.weight > 0.0 { (self.delta / self.weight).sqrt() } else { 0.0 }
    }
}

/// One weight that an adapter changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorExport {
    /// Hugging Face name.
    pub tensor: String,
    /// Short name of the projection: `q`.
    pub projection: &'static str,
    /// Format it is stored in.
    pub format: &'static str,
    /// `⟨D̂, Δ⟩ / ‖Δ‖²`.
    pub retention: f64,
    /// `‖D̂ - Δ‖ / ‖Δ‖`.
    pub relative_error: f64,
    /// `‖Δ‖ / ‖W‖`.
    pub relative_size: f64,
    /// The sums behind these, to be added up over tensors.
    #[serde(skip)]
    pub sums: Retention,
}

/// Refuses a format that cannot be written, or of whose blocks a row of `cols` weights is no whole number. `what` names the tensor.
///
/// # Errors
/// As said.
pub fn check_writable(what: &str, cols: usize, format: &'static QuantFormat) -> Result<()> {
    if format.encode.is_none() {
        return Err(Error::Unsupported {
            what: format!("writing {what} in {}", format.name),
            hint: format!("name another format with --format: {}", writable()),
        });
    }
    if format.row_bytes(cols).is_some() {
        return Ok(());
    }
    let problem = format!("a row of {what} has {cols} weights, no multiple of the {} of a block of {}", format.block, format.name);
    Err(Error::config("format", problem, "use f16 or q8_0"))
}

/// The stored bytes of some rows.
///
/// # Errors
/// As [`check_writable`], and when a weight is too large for the format.
pub fn encode(what: &str, weights: &[f32], cols: usize, format: &'static QuantFormat) -> Result<Vec<u8>> {
    check_writable(what, cols, format)?;
    let mut bytes = Vec::new();
    if let Some(encode) = format.encode {
        encode(weights, &mut bytes);
    }
    match format.first_non_finite(&bytes) {
        None => Ok(bytes),
        Some(_) => {
            let problem = format!("{what} with the adapter has a weight too large for {}", format.name);
            Err(Error::config("format", problem, "use bf16 or f32"))
        }
    }
}

/// Names of the formats that can be written.
pub fn writable() -> String {
    let names: Vec<&str> = crate::quant::FORMATS.iter().filter(|f| f.encode.is_some()).map(|f| f.name).collect();
    names.join(", ")
}
