//! Whether what was written holds the numbers that it was made of.

use super::mixlora::MixLoraAdapter;
use super::peft::PeftAdapter;
use super::request::Request;
use crate::quant::QuantFormat;
use crate::{Error, Result};

/// By how much of the largest number of a factor a format moves its numbers at most, twice over.
pub fn rounding(adapter: &PeftAdapter, format: Option<&QuantFormat>) -> f64 {
    match format.and_then(|format| format.safetensors_dtype) {
        // Half a unit in the last place; below its normal range half of its smallest step.
        Some("F16") => 1e-3 + (SMALLEST_F16 / adapter.least()).min(1.0),
        Some("BF16") => 8e-3,
        _ => 1e-6,
    }
}

/// The step between the smallest numbers of f16.
const SMALLEST_F16: f64 = 1.0 / (1u64 << 24) as f64;

/// Whether an adapter that was written and read again holds the numbers that it was made of, as far as its format has digits.
///
/// # Errors
/// When it does not.
pub fn check_same(request: &Request<'_>, written: &PeftAdapter) -> Result<()> {
    let allowed = rounding(request.plain("a comparison")?, request.format);
    let distance = request.plain("a comparison")?.distance(written);
    if distance <= allowed {
        return Ok(());
    }
    Err(other_numbers(request.name, &format!("off by {distance:.1e} of the largest at a layer")))
}

/// As [`check_same`] for routers and experts, whose numbers are written as they are.
///
/// # Errors
/// When one is another.
pub fn check_same_experts(request: &Request<'_>, written: &MixLoraAdapter) -> Result<()> {
    let own = request.adapter.routed(request.name, "a comparison")?;
    let same = own
        .pairs()
        .map(|pair| (pair.site, pair.rank, &pair.a, &pair.b))
        .eq(written.pairs().map(|pair| (pair.site, pair.rank, &pair.a, &pair.b)));
    if same && own.gates == written.gates {
        return Ok(());
    }
    Err(other_numbers(request.name, "not the same"))
}

fn other_numbers(name: &str, how: &str) -> Error {
    let problem = format!("what was written holds other numbers: {how}");
    Error::Adapter { adapter: name.to_owned(), problem, hint: "report it; nothing was left" }
}
