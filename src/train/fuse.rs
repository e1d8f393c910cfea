//! One pass over the base for many jobs: each one's own micro-batch, exactly as it would be alone, laid end to end without left-over rows.
//!
//! Every loss is divided by its own job's targets, every job is clipped and stepped by itself when its own accumulation is complete, and a
//! job that fails does so alone: nothing of it reaches another one's rows, gradients or parameters.

use super::batch::Batch;
use super::events::StepReport;
use super::job::Job;
use super::preference::Dpo;
use super::session::Session;
use crate::gpu::Gpu;
use crate::kernels::lowrank::Segment;
use crate::kernels::preference::Pair;
use crate::model::inputs::HostBatch;
use crate::{Error, Result};

/// What a micro-batch did for one job: a step's report where it completed one.
pub type Outcome = Result<Option<StepReport>>;

/// Micro-batches end to end.
#[derive(Debug, Default)]
struct Fused {
    tokens: Vec<u32>,
    targets: Vec<i32>,
    doc_start: Vec<u32>,
    positions: Vec<u32>,
    /// Whose adapter reads a row: nobody's, or some frozen links, where it is the reference's.
    row_job: Vec<u32>,
    /// Whose a row is.
    owners: Vec<u32>,
    weights: Vec<f32>,
    pairs: Vec<Pair>,
    /// By number of the job.
    rows: Vec<Segment>,
    /// Rows of a group of shifted sparse attention, by number of the job.
    groups: Vec<Option<u32>>,
}

impl Fused {
    /// Appends the rows of one job that hold a token, seen in groups of `group` rows; every target, or with `dpo` every pair, counts `weight`. `row`
    /// says the job's dropout.
    fn push(
        &mut self,
        slot: usize,
        (batch, weight): (&Batch, f32),
        group: Option<u32>,
        dpo: Option<&(Dpo, u32)>,
        row: impl FnOnce(std::ops::Range<usize>) -> Segment,
    ) {
        let (begin, own, policy) = (self.tokens.len(), batch.n_tokens, batch.policy_rows());
        self.tokens.extend(&batch.tokens[..own]);
        self.targets.extend(&batch.targets[..own]);
        self.doc_start.extend(batch.doc_start[..own].iter().map(|start| start + begin as u32));
        self.positions.extend(&batch.position[..own]);
        self.row_job.resize(begin + policy, slot as u32);
        self.row_job.resize(begin + own, dpo.map_or(u32::MAX, |(_, reference)| *reference));
        self.owners.resize(begin + own, slot as u32);
        let first = self.weights.len();
        self.pairs.extend(dpo.into_iter().flat_map(|(dpo, _)| dpo.table(batch, first, weight)));
        self.weights.resize(first + batch.n_targets, if dpo.is_some() { 0.0 } else { weight });
        let reference = dpo.map(|(_, reference)| *reference as usize).filter(|reference| *reference < u32::MAX as usize);
        let numbers = slot.max(reference.unwrap_or(slot)) + 1;
        if self.rows.len() < numbers {
            self.rows.resize(numbers, Segment::new(0..0));
            self.groups.resize(numbers, None);
        }
        self.groups[slot] = group;
        self.rows[slot] = row(begin..begin + policy);
        if let Some(reference) = reference {
            self.rows[reference] = Segment::new(begin + policy..begin + own);
        }
    }

    fn finish(self) -> (HostBatch, Vec<Segment>) {
        let mut batch = HostBatch::new(&self.tokens, &self.targets, &self.doc_start, &self.positions, 0.0);
        (batch.row_job, batch.weights, batch.pairs) = (self.row_job, self.weights, self.pairs);
        for doc in &mut batch.documents {
            doc.group = self.groups[self.owners[doc.first as usize] as usize];
        }
        (batch, self.rows)
    }
}

/// Runs the next micro-batch of each of `jobs` together, and the update of those whose step it completes.
///
/// # Errors
/// What concerns all of them: a lost device, more rows than the session was recorded for. A loss or gradient that is not finite is the outcome of
/// its job: that job is where it was before the step, and its gradients are forgotten.
pub async fn micro_step(session: &mut Session, gpu: &Gpu, jobs: &mut [&mut Job]) -> Result<Vec<Outcome>> {
    let mut fused = Fused::default();
    for job in jobs.iter_mut() {
        let (slot, dropout, group, dpo) = (job.slot, job.dropout(), job.group(), job.config.dpo.map(|dpo| (dpo, job.reference)));
        fused.push(slot, job.next_micro(), group, dpo.as_ref(), |rows| {
            Segment::new(rows).with_dropout(dropout.p, dropout.seed, dropout.counter).accumulated(dropout.accumulated)
        });
    }
    let (batch, rows) = fused.finish();
    let losses = session.accumulate(gpu, &batch, &rows).await.inspect_err(|_| jobs.iter_mut().for_each(|job| job.abandon_step()))?;
    let routers = session.read_routers(gpu).await.inspect_err(|_| jobs.iter_mut().for_each(|job| job.abandon_step()))?;
    let mut losses = losses.as_slice();
    let mut outcomes = Vec::with_capacity(jobs.len());
    let mut steps = Vec::new();
    for job in jobs.iter_mut() {
        let (own, rest) = losses.split_at(job.micro_targets());
        losses = rest;
        if let Some(stats) = routers.as_deref().and_then(|all| session.router_stats(job.slot, all)) {
            job.add_routing(stats);
        }
        let complete = job.add_losses(own);
        let loss = job.step_loss();
        if !loss.is_finite() {
            outcomes.push(Err(not_finite(job, "loss", loss as f32)));
            job.abandon_step();
            session.clear_grads(gpu, job.slot)?;
            continue;
        }
        outcomes.push(Ok(None));
        if complete {
            steps.push((job.slot, job.hyper()));
        }
    }
    if steps.is_empty() {
        return Ok(outcomes);
    }
    let norms = session.update(gpu, &steps).await.inspect_err(|_| jobs.iter_mut().for_each(|job| job.abandon_step()))?;
    let router_norms = session.read_router_norms(gpu).await.inspect_err(|_| jobs.iter_mut().for_each(|job| job.abandon_step()))?;
    for ((slot, _), norm) in steps.iter().zip(norms) {
        let Some(at) = jobs.iter().position(|job| job.slot == *slot) else { continue };
        let job = &mut jobs[at];
        outcomes[at] = if norm.is_finite() {
            Ok(Some(job.finish_step(norm, router_norms.as_deref().and_then(|all| session.router_norm(*slot, all)))))
        } else {
            let error = not_finite(job, "gradient norm", norm);
            job.abandon_step();
            Err(error)
        };
    }
    Ok(outcomes)
}

fn not_finite(job: &Job, what: &'static str, value: f32) -> Error {
    Error::NotFinite { what, value, step: job.step + 1, job: job.config.name.clone() }
}
