//! Embeddings that jobs train, among the tables of all jobs.

use super::super::layout::AdapterLayout;
use super::places::Places;
use crate::Result;
use crate::gpu::{Class, Gpu, Store, Tensor};
use crate::kernels::embed::NO_ROW;

/// Which tokens every job trains, and where it has them: [`crate::kernels::embed::OwnEmbeddings::table`].
#[derive(Debug, Clone, Default)]
pub(super) struct EmbeddingTables {
    /// `[jobs, 2]`, then `[jobs, vocab]`.
    words: Vec<u32>,
    jobs: usize,
    vocab: usize,
    /// On the device, where any job may train embeddings.
    pub table: Option<Tensor>,
}

impl EmbeddingTables {
    /// Declares the table, where it is needed.
    pub fn declare(needed: bool, vocab: usize, jobs: usize, store: &mut Store) -> Result<Self> {
        if !needed {
            return Ok(Self::default());
        }
        let words = vec![NO_ROW; jobs * (2 + vocab)];
        let table = Some(store.declare("adapter.embeddings", Class::Io, words.len())?);
        Ok(Self { words, jobs, vocab, table })
    }

    fn tokens(&mut self, job: usize) -> &mut [u32] {
        let begin = 2 * self.jobs + job * self.vocab;
        &mut self.words[begin..begin + self.vocab]
    }

    /// Takes note of a job's embeddings.
    pub fn set(&mut self, job: usize, layout: &AdapterLayout, places: &Places) {
        let Some(own) = &layout.embeddings else { return };
        self.words[2 * job..2 * job + 2].copy_from_slice(&[places.values[own.param], places.grads[own.param]]);
        let places = self.tokens(job);
        places.fill(NO_ROW);
        for (place, token) in own.tokens.iter().enumerate() {
            places[*token as usize] = place as u32;
        }
    }

    /// Forgets a job.
    pub fn remove(&mut self, job: usize) {
        if self.table.is_some() {
            self.tokens(job).fill(NO_ROW);
        }
    }

    /// Writes the table.
    pub fn upload(&self, gpu: &Gpu, store: &Store) -> Result<()> {
        self.table.map_or(Ok(()), |table| store.write(gpu, table, &self.words))
    }
}
