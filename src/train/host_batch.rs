//! Packed batches in the layout of the model's inputs.

use super::batch::Batch;
use crate::kernels::lowrank::Segment;
use crate::model::inputs::HostBatch;

/// A packed batch in the layout of the model's inputs; every target counts `weight`.
pub fn host_batch(batch: &Batch, weight: f32) -> HostBatch {
    HostBatch::new(&batch.tokens, &batch.targets, &batch.doc_start, &batch.position, weight)
}

/// A batch whose rows all belong to job `slot`, and the table of rows that says so.
pub fn of_one_job(batch: &HostBatch, slot: usize) -> (HostBatch, Vec<Segment>) {
    let mut batch = batch.clone();
    let rows = batch.tokens.len();
    batch.row_job = vec![slot as u32; rows];
    let mut table = vec![Segment::new(0..0); slot + 1];
    table[slot] = Segment::new(0..rows);
    (batch, table)
}
