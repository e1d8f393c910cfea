//! Eight jobs in one pass over the base, in one run beside the same eight alone, beside passes padded as ASPEN's dispatcher pads them, and beside the
//! memory of eight processes.

use super::probe::median;
use super::record::{JobsRecord, Record};
use super::setup::Bench;
use super::step::{Workload, layout};
use crate::adapters::{AdapterLayout, Capacity, initial_buffer};
use crate::gpu::{Gpu, clock};
use crate::kernels::lowrank::Segment;
use crate::model::Base;
use crate::model::Recompute;
use crate::model::inputs::HostBatch;
use crate::train::session::{Hyper, Planned, Session, Shape};
use crate::{Error, Result};

/// Rank of each job.
const RANKS: [usize; 8] = [4, 8, 16, 32, 4, 8, 16, 32];
/// Length of each job's documents in sixteenths of the workload's longest: the modes of ASPEN's data sets, 35, 60, 210 and 550 tokens.
const LENGTHS: [usize; 8] = [1, 2, 6, 16, 16, 6, 2, 1];
/// Documents of a micro-batch.
const DOCUMENTS: usize = 2;
/// Micro-batches that a padded pass takes, neighbours in length.
const PADDED_JOBS: usize = 4;
/// Fewest and most rounds, and about how many seconds they may take in all.
const ROUNDS: (usize, usize, f64) = (5, 20, 30.0);
/// A job's losses fused and alone: another shape of recordings may sum in another order.
const TOLERANCE: f32 = 1e-3;

/// Documents of one job, each `length` tokens and padded to `padded`.
#[derive(Clone, Copy)]
struct Rows {
    job: usize,
    length: usize,
    padded: usize,
}

impl Rows {
    fn count(self) -> usize {
        DOCUMENTS * self.padded
    }
}

/// The batch of these jobs' documents, and the rows of each job.
fn batch(all: &[Rows], vocab: usize, jobs: usize) -> (HostBatch, Vec<Segment>) {
    let (mut tokens, mut targets, mut starts, mut positions, mut owners) = (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut weights, mut table) = (Vec::new(), vec![Segment::new(0..0); jobs]);
    for rows in all {
        let begin = tokens.len();
        for document in 0..DOCUMENTS {
            let first = tokens.len();
            let token = |i: usize| ((i * 37 + rows.length * 11 + document * 5) % vocab) as u32;
            for i in 0..rows.padded {
                tokens.push(token(i));
                targets.push(if i < rows.length { token(i + 1) as i32 } else { -1 });
                starts.push(first as u32);
                positions.push(i as u32);
            }
        }
        owners.resize(tokens.len(), rows.job as u32);
        weights.resize(weights.len() + DOCUMENTS * rows.length, 1.0 / (DOCUMENTS * rows.length) as f32);
        table[rows.job] = Segment::new(begin..tokens.len());
    }
    let mut batch = HostBatch::new(&tokens, &targets, &starts, &positions, 0.0);
    (batch.row_job, batch.weights) = (owners, weights);
    (batch, table)
}

/// Jobs on a device, and how often they stepped.
struct Stage {
    session: Session,
    vocab: usize,
    steps: u64,
}

impl Stage {
    /// One pass and the update of its jobs; seconds, and the losses of its targets.
    async fn pass(&mut self, gpu: &Gpu, rows: &[Rows]) -> Result<(f64, Vec<f32>)> {
        let (batch, table) = batch(rows, self.vocab, self.session.jobs());
        let began = clock::now();
        let losses = self.session.accumulate(gpu, &batch, &table).await?;
        self.steps += 1;
        let hyper = Hyper { lr: 1e-4, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0.01, clip: 1.0, step: self.steps };
        let steps: Vec<(usize, Hyper)> = rows.iter().map(|rows| (rows.job, hyper)).collect();
        self.session.update(gpu, &steps).await?;
        Ok(((clock::now() - began).as_secs_f64(), losses))
    }
}

/// Opens a stage for these jobs, numbered in their order; its planned bytes and launches a step.
async fn open(
    bench: &mut Bench<'_>,
    workload: &Workload,
    resident: &mut Option<Base>,
    layouts: &[&AdapterLayout],
    (rows, smaller): (usize, &[usize]),
) -> Result<(Stage, u64, usize)> {
    let (gpu, limits) = (bench.gpu, bench.gpu.plan_limits());
    let rows = rows.next_multiple_of(8);
    let shape = Shape { rows, positions: workload.seq(), recompute: Recompute::Off, quantize: None, training: true };
    let base = Base::suiting(resident.as_ref(), workload.file(), limits, None, rows)?;
    let mut capacity = Capacity::exact(layouts.iter().copied());
    if layouts.len() > 1 {
        capacity = capacity.rounded();
    }
    let mut planned = Planned::within(base, capacity, shape, smaller, limits, bench.tuner)?;
    if bench.options.tune {
        planned.tune(gpu, bench.tuner).await?;
    }
    let (micro, update) = planned.dispatches();
    let bytes = planned.footprint().total();
    let mut session = planned.realize(gpu, workload.file(), |_, _| ()).await?;
    *resident = Some(session.base().clone());
    for layout in layouts {
        session.add_job(gpu, layout, &initial_buffer(&layout.params, 0))?;
    }
    Ok((Stage { session, vocab: workload.model().vocab_size, steps: 0 }, bytes, micro + update))
}

pub(super) async fn run(bench: &mut Bench<'_>, workload: &Workload) -> Result<()> {
    let gpu = bench.gpu;
    let layouts: Vec<AdapterLayout> = RANKS.iter().map(|rank| layout(workload.model(), *rank)).collect::<Result<_>>()?;
    let length = |job: usize| (workload.seq() * LENGTHS[job] / 16).max(2);
    let own = |job: usize| Rows { job, length: length(job), padded: length(job) };
    let fused: Vec<Rows> = (0..RANKS.len()).map(own).collect();
    let padded = padded_passes(&fused);
    let total: usize = fused.iter().map(|rows| rows.count()).sum();
    let most = padded.iter().map(|pass| pass.iter().map(|rows| rows.count()).sum()).max().unwrap_or(0).max(total);
    let smaller: Vec<usize> = (1..=3).map(|i| (total >> i).next_multiple_of(8)).chain([total.next_multiple_of(8)]).collect();
    let mut resident = None;
    let all: Vec<&AdapterLayout> = layouts.iter().collect();
    let (mut together, _, _) = open(bench, workload, &mut resident, &all, (most, &smaller)).await?;
    // What is compared in memory and launches is what a fleet would have, without the padded sizes.
    let (fused_bytes, dispatches) = {
        let (stage, bytes, dispatches) = open(bench, workload, &mut resident, &all, (total, &smaller[..2])).await?;
        drop(stage);
        (bytes, dispatches)
    };
    let (mut alone, mut separate_bytes, mut dispatches_one) = (Vec::new(), 0, 0);
    for (job, layout) in layouts.iter().enumerate() {
        let (stage, bytes, launches) = open(bench, workload, &mut resident, &[layout], (own(job).count(), &[])).await?;
        (separate_bytes, dispatches_one) = (separate_bytes + bytes, dispatches_one.max(launches));
        alone.push(stage);
    }
    let mut seconds = [Vec::new(), Vec::new(), Vec::new()];
    let (mut ratios, mut rounds, mut round) = (Vec::new(), ROUNDS.0, 0);
    while round <= rounds {
        let mut times = [0.0; 3];
        let mut losses = Vec::new();
        (times[0], _) = together.pass(gpu, &fused).await.inspect(|(_, found)| losses.clone_from(found))?;
        let mut checked = losses.as_slice();
        for (job, stage) in alone.iter_mut().enumerate() {
            let (time, own) = stage.pass(gpu, &[Rows { job: 0, ..own(job) }]).await?;
            times[1] += time;
            let (here, rest) = checked.split_at(own.len().min(checked.len()));
            checked = rest;
            if round == 0 {
                check(job, here, &own, &fused)?;
            }
        }
        for pass in &padded {
            times[2] += together.pass(gpu, pass).await?.0;
        }
        if round == 0 {
            let fit = ROUNDS.2 / times.iter().sum::<f64>().max(1e-6);
            rounds = (fit as usize).clamp(ROUNDS.0, if bench.options.quick { ROUNDS.0 } else { ROUNDS.1 });
        } else {
            ratios.push([times[0] / times[1], times[0] / times[2]]);
            seconds.iter_mut().zip(times).for_each(|(all, time)| all.push(time));
        }
        round += 1;
    }
    let of = |which: usize| {
        let mut all: Vec<f64> = ratios.iter().map(|pair| pair[which]).collect();
        let middle = median(&mut all);
        all.sort_by(f64::total_cmp);
        (middle, all.first().copied().unwrap_or_default(), all.last().copied().unwrap_or_default())
    };
    let ((of_alone, least, most_ratio), (of_padded, _, _)) = (of(0), of(1));
    let [fused_ms, alone_ms, padded_ms] = seconds.map(|mut all| median(&mut all) * 1e3);
    (bench.report)(&Record::Jobs(JobsRecord {
        config: workload.name().to_owned(),
        jobs: RANKS.len(),
        rows: total,
        padded_rows: padded.iter().flatten().map(|rows| rows.count()).sum(),
        fused_ms,
        alone_ms,
        padded_ms,
        of_alone,
        least,
        most: most_ratio,
        of_padded,
        fused_bytes,
        separate_bytes,
        of_bytes: fused_bytes as f64 / separate_bytes as f64,
        dispatches,
        dispatches_one,
        rounds,
    }))
}

/// ASPEN's dispatcher: neighbours in length share a pass, padded to the longest of them.
fn padded_passes(jobs: &[Rows]) -> Vec<Vec<Rows>> {
    let mut sorted = jobs.to_vec();
    sorted.sort_by_key(|rows| (rows.length, rows.job));
    let pad = |chunk: &[Rows]| {
        let longest = chunk.iter().map(|rows| rows.length).max().unwrap_or(0);
        chunk.iter().map(|rows| Rows { padded: longest, ..*rows }).collect()
    };
    sorted.chunks(PADDED_JOBS).map(pad).collect()
}

/// Refuses a job that computes something else among the others.
fn check(job: usize, fused: &[f32], alone: &[f32], all: &[Rows]) -> Result<()> {
    let apart = fused.iter().zip(alone).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    if fused.len() == alone.len() && apart <= TOLERANCE {
        return Ok(());
    }
    let message = format!("its losses fused with {} others are {apart} away from those alone", all.len() - 1);
    Err(Error::Gpu { what: format!("job {job}"), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_padded_together_and_a_wrong_job_is_noticed() {
        let rows = |job: usize, length: usize| Rows { job, length, padded: length };
        let passes = padded_passes(&[rows(0, 2), rows(1, 9), rows(2, 3), rows(3, 8), rows(4, 2)]);
        let padded: Vec<Vec<(usize, usize)>> = passes.iter().map(|p| p.iter().map(|r| (r.job, r.padded)).collect()).collect();
        assert_eq!(padded, [vec![(0, 8), (4, 8), (2, 8), (3, 8)], vec![(1, 9)]]);
        let (batch, table) = batch(&passes[0], 97, 5);
        assert_eq!(batch.tokens.len(), 4 * 2 * 8);
        assert_eq!(batch.targets.len(), 2 * (2 + 2 + 3 + 8), "padding has no targets");
        assert_eq!(table[1], Segment::new(0..0));
        assert!(check(0, &[1.0], &[1.0001], &[rows(0, 1)]).is_ok());
        assert!(check(0, &[1.0], &[1.1], &[rows(0, 1)]).is_err() && check(0, &[], &[1.0], &[rows(0, 1)]).is_err());
    }
}
