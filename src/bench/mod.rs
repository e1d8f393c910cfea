//! What the kernels and a whole training step reach on this adapter, as fractions of what its arithmetic can do.
//!
//! Every figure is the median of several rounds, and every round measures the adapter's peak beside the thing itself: on a machine with
//! other work, or one that changes its clock, the fraction stands where the bare rate does not. Nothing is timed before its result is
//! checked.

mod attention;
mod checked;
mod forms;
mod jobs;
mod methods;
mod mixlora;
mod parts;
mod peak;
mod peers;
mod probe;
mod products;
mod profile;
mod record;
mod scene;
mod setup;
mod shape;
mod step;

pub use checked::{CheckedProduct, checked_mixed, checked_product};
pub use record::{
    AdapterRecord, AttentionFitRecord, AttentionRecord, CompareRecord, JobsRecord, KernelRecord, MatmulRecord, MixLoraRecord, PeakRecord,
    ProfileRecord, Record, StepRecord,
};
pub use setup::Options;
pub use shape::{ModelShape, SHAPES};
pub use step::Workload;

use crate::Result;
use crate::gpu::{Gpu, Tuner};
use peak::Peak;
use setup::Bench;

/// Measures the adapter's peak, the kernels if asked for, and a training step of every workload; `report` gets each record as it is there.
///
/// # Errors
/// [`crate::Error::Gpu`] when a result is wrong; a lost device; whatever `report` returns.
pub async fn run(
    gpu: &Gpu,
    tuner: &mut Tuner,
    workloads: Vec<Workload>,
    options: Options,
    report: &mut dyn FnMut(&Record) -> Result<()>,
) -> Result<()> {
    report(&Record::Adapter(AdapterRecord::of(gpu.facts())))?;
    let mut bench = Bench { gpu, tuner, options, peak: Peak::new(gpu).await?, report };
    let mut rates = Vec::new();
    for _ in 0..bench.rounds() {
        rates.push(bench.peak.rate(gpu).await?);
    }
    let gflops = probe::median(&mut rates) / 1e9;
    (bench.report)(&Record::Peak(PeakRecord { gflops, runs: rates.len() }))?;
    if options.kernels {
        products::run(&mut bench).await?;
        parts::run(&mut bench).await?;
    }
    if options.forms {
        forms::run(&mut bench).await?;
    }
    if options.attention {
        attention::run(&mut bench).await?;
    }
    if options.mixlora {
        mixlora::run(&mut bench).await?;
    }
    for workload in workloads {
        if options.methods {
            methods::run(&mut bench, &workload).await?;
        }
        if options.jobs {
            jobs::run(&mut bench, &workload).await?;
        }
        if options.attention {
            attention::run_steps(&mut bench, workload).await?;
        } else if !options.methods && !options.jobs {
            step::run(&mut bench, workload).await?;
        }
    }
    Ok(())
}
