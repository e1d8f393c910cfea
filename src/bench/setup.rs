//! What is asked for, and what every measurement needs.

use super::peak::Peak;
use super::record::Record;
use crate::Result;
use crate::gpu::{Gpu, Recorder, Tuner};

/// What to measure.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The products and the other kernels at SmolLM2's shapes.
    pub kernels: bool,
    /// Every form of the products, not only the fastest.
    pub forms: bool,
    /// Attention over long rows, full and in shifted groups; of every workload the step under each of them instead of the plain one.
    pub attention: bool,
    /// Of attention, rows of so many tokens instead of all lengths.
    pub tokens: Option<usize>,
    /// The feed-forward layer with routed experts, at two models' shapes.
    pub mixlora: bool,
    /// Fewer cases and fewer rounds.
    pub quick: bool,
    /// GPU time of every workload's step by kernel and by label.
    pub profile: bool,
    /// Of every workload not the step, but what methods cost beside plain LoRA of the same size.
    pub methods: bool,
    /// Of every workload not the step, but eight jobs in one pass beside each of them alone.
    pub jobs: bool,
    /// Measure which kernel variants are fastest where that is not known yet.
    pub tune: bool,
}

/// What every measurement needs at hand.
pub(super) struct Bench<'a> {
    pub gpu: &'a Gpu,
    pub tuner: &'a mut Tuner,
    pub options: Options,
    pub peak: Peak,
    pub report: &'a mut dyn FnMut(&Record) -> Result<()>,
}

impl Bench<'_> {
    /// Rounds of a median.
    pub fn rounds(&self) -> usize {
        if self.options.quick { 5 } else { 9 }
    }

    /// Measures what the tuner does not know of `body`, unless it was told not to.
    pub async fn tune(&mut self, body: &dyn Fn(&mut Recorder)) -> Result<()> {
        if !self.options.tune {
            return Ok(());
        }
        let untuned = {
            let mut recorder = Recorder::new(self.tuner);
            body(&mut recorder);
            recorder.untuned().to_vec()
        };
        self.tuner.measure(self.gpu, &untuned).await
    }
}
