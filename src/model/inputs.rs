//! What goes in and out of a step: tokens, positions, documents, targets, losses. Uploaded each step, never re-recorded.

use crate::Result;
use crate::gpu::{Class, Gpu, Store, Tensor};
use crate::kernels::attention::documents::{self, Document};
use crate::kernels::embed;
use crate::kernels::preference::{self, Pair};

/// Tensors of a packed batch of `rows` tokens.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// Rows T of the batch.
    pub rows: usize,
    /// `[T]` u32: token ids.
    pub tokens: Tensor,
    /// `[T]` u32: position within the row's own document.
    pub positions: Tensor,
    /// u32: the documents and their tiles, [`documents::table`].
    pub documents: Tensor,
    /// `[T]` u32: job of each row.
    pub row_job: Tensor,
    /// `[T]` u32: rows that predict a target, first; the rest is padding.
    pub loss_rows: Tensor,
    /// `[T, 2]` u32: rows by job and token ([`embed::order`]), for the gradients of embeddings; `None` where none train.
    pub order: Option<Tensor>,
    /// `[T]` i32: what each of `loss_rows` must predict, −1 in the padding.
    pub targets: Tensor,
    /// `[T]` u32: job of each of `loss_rows`.
    pub loss_jobs: Tensor,
    /// `[T]` f32: what each of `loss_rows` counts in the loss.
    pub weights: Tensor,
    /// `[T]` f32 out: loss of each of `loss_rows` in nats.
    pub losses: Tensor,
    /// Which of the targets are pairs of answers, [`preference::Pair`].
    pub pairs: Tensor,
}

/// One batch on the host, in the layout of [`Inputs`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostBatch {
    /// Token ids, `[T]`.
    pub tokens: Vec<u32>,
    /// Positions, `[T]`.
    pub positions: Vec<u32>,
    /// The documents, one after the other, which cover all rows.
    pub documents: Vec<Document>,
    /// Job of each row, `[T]`.
    pub row_job: Vec<u32>,
    /// Rows with a target.
    pub loss_rows: Vec<u32>,
    /// Their targets.
    pub targets: Vec<i32>,
    /// Their weights.
    pub weights: Vec<f32>,
    /// Pairs of answers among them, whose weights follow from their losses.
    pub pairs: Vec<Pair>,
}

impl HostBatch {
    /// From rows with next-token targets (−1: none) and the first row of each row's document. Every target counts `weight`.
    pub fn new(tokens: &[u32], targets: &[i32], doc_start: &[u32], positions: &[u32], weight: f32) -> HostBatch {
        let rows = tokens.len();
        let (loss_rows, targets): (Vec<u32>, Vec<i32>) =
            targets.iter().enumerate().filter(|(_, id)| **id >= 0).map(|(i, id)| (i as u32, *id)).unzip();
        HostBatch {
            tokens: tokens.to_vec(),
            positions: positions.to_vec(),
            documents: documents_of(doc_start),
            row_job: vec![0; rows],
            weights: vec![weight; loss_rows.len()],
            loss_rows,
            targets,
            pairs: Vec::new(),
        }
    }
}

impl HostBatch {
    /// The batch with shifted sparse attention in groups of `group` rows, or with full attention.
    #[must_use]
    pub fn grouped(mut self, group: Option<u32>) -> HostBatch {
        self.documents.iter_mut().for_each(|doc| doc.group = group);
        self
    }

    /// The batch with rows of nobody after it, `rows` in all: each a document of its own, so that it costs attention nothing.
    fn padded(&self, rows: usize) -> HostBatch {
        let own = self.tokens.len();
        let mut whole = self.clone();
        whole.tokens.resize(rows, 0);
        whole.positions.resize(rows, 0);
        whole.row_job.resize(rows, u32::MAX);
        if own < rows {
            whole.documents.push(Document { window: Some(1), ..Document::new(own as u32, rows as u32) });
        }
        whole
    }
}

/// The documents that begin where rows are their own first row. Rows of one token at the end of a batch, as packing leaves them over, are one
/// document whose rows see nothing but themselves: a few tiles instead of one each.
fn documents_of(doc_start: &[u32]) -> Vec<Document> {
    let rows = doc_start.len() as u32;
    let firsts: Vec<u32> = (0..rows).filter(|i| doc_start[*i as usize] == *i).collect();
    let ends = firsts.iter().skip(1).copied().chain([rows]);
    let mut found: Vec<Document> = firsts.iter().zip(ends).map(|(first, end)| Document::new(*first, end)).collect();
    let single = found.iter().rev().take_while(|doc| doc.end - doc.first == 1).count();
    if single > 1 {
        found.truncate(found.len() - single);
        found.push(Document { window: Some(1), ..Document::new(rows - single as u32, rows) });
    }
    found
}

impl Inputs {
    /// Declares the tensors; those for the gradients of embeddings where these train.
    ///
    /// # Errors
    /// [`crate::Error::Limit`] for a batch past 32-bit addressing.
    pub fn declare(store: &mut Store, rows: usize, embeddings: bool) -> Result<Inputs> {
        let mut tensor = |label: &str, len: usize| store.declare(format!("inputs.{label}"), Class::Io, len);
        Ok(Inputs {
            rows,
            tokens: tensor("tokens", rows)?,
            positions: tensor("positions", rows)?,
            documents: tensor("documents", documents::table_words(rows))?,
            row_job: tensor("row_job", rows)?,
            order: embeddings.then(|| tensor("order", 2 * rows)).transpose()?,
            loss_rows: tensor("loss_rows", rows)?,
            targets: tensor("targets", rows)?,
            loss_jobs: tensor("loss_jobs", rows)?,
            weights: tensor("weights", rows)?,
            losses: tensor("losses", rows)?,
            pairs: tensor("pairs", preference::table_words(rows))?,
        })
    }

    /// The same tensors for batches of `rows` rows, at most as many as these have.
    pub fn first(&self, rows: usize) -> Inputs {
        let of = |tensor: Tensor| tensor.slice(0..rows * (tensor.len as usize / self.rows.max(1)));
        Inputs {
            rows,
            tokens: of(self.tokens),
            positions: of(self.positions),
            documents: self.documents.slice(0..documents::table_words(rows)),
            row_job: of(self.row_job),
            order: self.order.map(of),
            loss_rows: of(self.loss_rows),
            targets: of(self.targets),
            loss_jobs: of(self.loss_jobs),
            weights: of(self.weights),
            losses: of(self.losses),
            pairs: self.pairs.slice(0..preference::table_words(rows)),
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
        store.write(gpu, self.documents, &documents::table(&batch.documents))?;
        store.write(gpu, self.row_job, &batch.row_job)?;
        if let Some(order) = self.order {
            store.write(gpu, order, &embed::order(&batch.tokens, &batch.row_job))?;
        }
        store.write(gpu, self.loss_rows, &padded(&batch.loss_rows))?;
        let jobs: Vec<u32> = batch.loss_rows.iter().map(|row| batch.row_job[*row as usize]).collect();
        store.write(gpu, self.loss_jobs, &padded(&jobs))?;
        let targets: Vec<i32> = batch.targets.iter().copied().chain(std::iter::repeat(-1)).take(self.rows).collect();
        store.write(gpu, self.targets, &targets)?;
        let weights: Vec<f32> = batch.weights.iter().copied().chain(std::iter::repeat(0.0)).take(self.rows).collect();
        store.write(gpu, self.weights, &weights)?;
        let mut pairs = batch.pairs.clone();
        pairs.resize(preference::most_pairs(self.rows), Pair::default());
        store.write(gpu, self.pairs, &pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_begin_at_their_own_first_row_and_left_over_rows_are_one() {
        let whole = Document::new;
        assert_eq!(documents_of(&[0, 0, 2, 3, 3]), [whole(0, 2), whole(2, 3), whole(3, 5)]);
        assert_eq!(documents_of(&[0, 0, 2]), [whole(0, 2), whole(2, 3)]);
        assert_eq!(documents_of(&[0, 0, 2, 3, 4]), [whole(0, 2), Document { window: Some(1), ..whole(2, 5) }]);
        assert_eq!(documents_of(&[0; 4]), [whole(0, 4)]);
    }
}
