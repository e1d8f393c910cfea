//! What goes in and out of a step: tokens, positions, documents, targets, losses. Uploaded each step, never re-recorded.

use crate::Result;
use crate::gpu::{Class, Gpu, Store, Tensor};

/// Tensors of a packed batch of `rows` tokens.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// Rows T of the batch.
    pub rows: usize,
    /// `[T]` u32: token ids.
    pub tokens: Tensor,
    /// `[T]` u32: position within the row's own document.
    pub positions: Tensor,
    /// `[T, 2]` u32: rows before and after the row's document.
    pub margins: Tensor,
    /// `[T]` u32: job of each row.
    pub row_job: Tensor,
    /// `[T]` u32: rows that predict a target, first; the rest is padding.
    pub loss_rows: Tensor,
    /// `[T]` i32: what each of `loss_rows` must predict, −1 in the padding.
    pub targets: Tensor,
    /// `[T]` f32: what each of `loss_rows` counts in the loss.
    pub weights: Tensor,
    /// `[T]` f32 out: loss of each of `loss_rows` in nats.
    pub losses: Tensor,
}

/// One batch on the host, in the layout of [`Inputs`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostBatch {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Positions, `[T]`.
    pub positions: Vec<u32>,
    /// Rows before and after the document, `[T, 2]`.
    pub margins: Vec<u32>,
    /// Job of each row, `[T]`.
    pub row_job: Vec<u32>,
    /// Rows with a target.
    pub loss_rows: Vec<u32>,
    /// Their targets.
    pub targets: Vec<i32>,
    /// Their weights.
    pub weights: Vec<f32>,
}

impl HostBatch {
    /// From rows with next-token targets (−1: none) and the first row of each row's document. Every target counts `weight`.
    pub fn new(tokens: &[u32], targets: &[i32], doc_start: &[u32], positions: &[u32], weight: f32) -> HostBatch {
        let rows = tokens.len();
        let mut margins = vec![0; 2 * rows];
        let mut end = rows;
        for i in (0..rows).rev() {
            margins[2 * i] = doc_start[i];
            margins[2 * i + 1] = (rows - end) as u32;
            if doc_start[i] as usize == i {
                end = i;
            }
        }
        let (loss_rows, targets): (Vec<u32>, Vec<i32>) =
            targets.iter().enumerate().filter(|(_, id)| **id >= 0).map(|(i, id)| (i as u32, *id)).unzip();
        HostBatch {
            tokens: tokens.to_vec(),
            positions: positions.to_vec(),
            margins,
            row_job: vec![0; rows],
            weights: vec![weight; loss_rows.len()],
            loss_rows,
            targets,
        }
    }
}

impl HostBatch {
    /// The batch with rows of nobody after it, `rows` in all: each a document of its own, so that it costs attention nothing.
    fn padded(&self, rows: usize) -> HostBatch {
        let own = self.tokens.len();
        let mut whole = self.clone();
        whole.tokens.resize(rows, 0);
        whole.positions.resize(rows, 0);
        whole.row_job.resize(rows, u32::MAX);
        // What lies after a document grew by the new rows.
        whole.margins.iter_mut().skip(1).step_by(2).for_each(|after| *after += (rows - own) as u32);
        whole.margins.extend((own..rows).flat_map(|row| [row as u32, (rows - 1 - row) as u32]));
        whole
    }
}

impl Inputs {
    /// Declares the tensors.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] for a batch past 32-bit addressing.
    pub fn declare(store: &mut Store, rows: usize) -> Result<Inputs> {
        let mut tensor = |label: &str, len: usize| store.declare(format!("inputs.{label}"), Class::Io, len);
        Ok(Inputs {
            rows,
            tokens: tensor("tokens", rows)?,
            positions: tensor("positions", rows)?,
            margins: tensor("margins", 2 * rows)?,
            row_job: tensor("row_job", rows)?,
            loss_rows: tensor("loss_rows", rows)?,
            targets: tensor("targets", rows)?,
            weights: tensor("weights", rows)?,
            losses: tensor("losses", rows)?,
        })
    }

    /// The same tensors for batches of `rows` rows, at most as many as these have.
    pub fn first(&self, rows: usize) -> Inputs {
        let of = |tensor: Tensor| tensor.slice(0..rows * (tensor.len as usize / self.rows.max(1)));
        Inputs {
            rows,
            tokens: of(self.tokens),
            positions: of(self.positions),
            margins: of(self.margins),
            row_job: of(self.row_job),
            loss_rows: of(self.loss_rows),
            targets: of(self.targets),
            weights: of(self.weights),
            losses: of(self.losses),
        }
    }

    /// Uploads a batch of at most `rows` rows; those that are left over have no job, no target and see only themselves.
    ///
    /// # Errors
    /// [`crate::Error::Gpu`] if the tensors were not allocated.
    pub fn upload(&self, gpu: &Gpu, store: &Store, batch: &HostBatch) -> Result<()> {
        assert!(batch.tokens.len() <= self.rows, "a batch of at most {} rows", self.rows);
        let whole;
        let batch = if batch.tokens.len() == self.rows {
            batch
        } else {
            whole = batch.padded(self.rows);
            &whole
        };
        let padded = |list: &[u32]| -> Vec<u32> { list.iter().copied().chain(std::iter::repeat(0)).take(self.rows).collect() };
        store.write(gpu, self.tokens, &batch.tokens)?;
        store.write(gpu, self.positions, &batch.positions)?;
        store.write(gpu, self.margins, &batch.margins)?;
        store.write(gpu, self.row_job, &batch.row_job)?;
        store.write(gpu, self.loss_rows, &padded(&batch.loss_rows))?;
        let targets: Vec<i32> = batch.targets.iter().copied().chain(std::iter::repeat(-1)).take(self.rows).collect();
        store.write(gpu, self.targets, &targets)?;
        let weights: Vec<f32> = batch.weights.iter().copied().chain(std::iter::repeat(0.0)).take(self.rows).collect();
        store.write(gpu, self.weights, &weights)
    }
}
