//! Whole steps of a model over one long row: the same recording under every form of attention.

use super::super::setup::Bench;
use super::super::step::{Running, Workload, layout};
use super::form::Form;
use crate::Result;

/// Steps of every form, in turns, of which the fastest counts.
const ROUNDS: usize = 3;
/// Slower than this, one step of every form is enough.
const SLOW: f64 = 5.0;

/// Seconds of an optimizer step under each form, and planned bytes, which are the same for all: groups are numbers of a batch.
pub(super) async fn measure(bench: &mut Bench<'_>, workload: &mut Workload, rows: usize, forms: &[Form]) -> Result<Vec<(Form, f64, u64)>> {
    if forms.is_empty() {
        return Ok(Vec::new());
    }
    workload.take_one_row(rows)?;
    let layout = layout(workload.model(), 8)?;
    let (mut running, _) = Running::open(bench, workload, &layout).await?;
    running.session.write_values(bench.gpu, 0, &workload.values(&layout))?;
    let bytes = running.session.footprint().total();
    let mut found = Vec::new();
    // What the driver compiles late, under the cheapest form.
    running.group_by(Form::Fixed.group(rows));
    running.step(bench.gpu).await?;
    for form in forms {
        running.group_by(form.group(rows));
        found.push((*form, running.step(bench.gpu).await?.0, bytes));
    }
    let slowest = found.iter().map(|(_, seconds, _)| *seconds).fold(0.0, f64::max);
    let rounds = if slowest > SLOW { 1 } else { ROUNDS };
    for _ in 1..rounds {
        for (form, fastest, _) in &mut found {
            running.group_by(form.group(rows));
            *fastest = fastest.min(running.step(bench.gpu).await?.0);
        }
    }
    Ok(found)
}
