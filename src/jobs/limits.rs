//! Bounds of what settings and saved state may hold.

use crate::settings::Settings;
use crate::{Error, Result};

/// Steps, rows and tokens of all runs that were or will be.
pub(super) const MANY: u64 = 1 << 62;

/// Most jobs of a sweep, and of a jobs file.
pub const MAX_JOBS: usize = 10_000;

/// The priority of a job or sweep; 0 when not given.
pub(super) fn priority(s: &mut Settings<'_>) -> Result<i64> {
    const FAR: i64 = 1000;
    let Some(value) = s.value("priority") else { return Ok(0) };
    let whole = value.as_f64().filter(|x| x.fract() == 0.0 && x.abs() <= FAR as f64).map(|x| x as i64);
    whole.ok_or_else(|| {
        Error::config("priority", format!("is {value}"), format!("give a whole number from -{FAR} to {FAR}; higher goes first"))
    })
}
