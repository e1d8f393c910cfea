//! What a recording is made of: kernels with their variants, dispatches, commands.

use super::kernel::{Access, KernelSpec, Variant};
use super::store::Tensor;

/// One way to run a tunable dispatch; all candidates take the same bindings and parameters.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The kernel.
    pub spec: &'static KernelSpec,
    /// Its variant.
    pub variant: Variant,
    /// Its grid.
    pub grid: [u32; 3],
}

impl Candidate {
    /// A candidate's identity within its case.
    pub fn key(&self) -> String {
        format!("{} {}", self.spec.name, self.variant.key())
    }

    /// Names the order in which it sums: candidates of one dispatch with the same order give the same bits.
    pub fn order(&self) -> &'static str {
        if self.variant.order.is_empty() { self.spec.name } else { self.variant.order }
    }
}

/// What one dispatch does, apart from which kernel runs it.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// Which place in the model, e.g. `layers.3.self_attn.q_proj.forward`.
    pub label: String,
    /// Uniform parameters, at most 256 bytes.
    pub params: Vec<u8>,
    /// Storage bindings 1.. in the kernel's order.
    pub bind: Vec<Tensor>,
    /// Arithmetic operations (a fused multiply-add counts two), for reports and for bounding a submit.
    pub flops: u64,
    /// What it may come to where it is one of unequal parts of a pass; `flops` is the mean.
    pub most_flops: u64,
    /// Bytes that it reads and writes, for bounding a submit: all that is bound, unless [`Dispatch::touching`] says otherwise.
    pub bytes: u64,
    /// What measuring candidates needs to find in a table: binding, first byte, bytes. Everything else is zero then.
    pub samples: Vec<(usize, usize, Vec<u8>)>,
}

impl Dispatch {
    /// A dispatch with plain-old-data parameters.
    pub fn new<P: bytemuck::NoUninit>(label: impl Into<String>, params: &P, bind: &[Tensor], flops: u64) -> Self {
        let bytes = bind.iter().map(|t| t.bytes()).sum();
        Self {
            label: label.into(),
            params: bytemuck::bytes_of(params).to_vec(),
            bind: bind.to_vec(),
            flops,
            most_flops: flops,
            bytes,
            samples: Vec::new(),
        }
    }

    /// It may come to so many operations, beside other parts of its pass that have fewer.
    pub fn at_most(mut self, flops: u64) -> Self {
        self.most_flops = flops.max(self.flops);
        self
    }

    /// Only `words` words of what is bound are touched: a few rows of a table, one adapter of a pool.
    pub fn touching(mut self, words: usize) -> Self {
        self.bytes = self.bytes.min(4 * words as u64);
        self
    }

    /// While candidates are measured, binding `binding` (0 is the first storage binding) holds `bytes` from byte `at`: a kernel that walks
    /// a table must not be measured on an empty one.
    pub fn sample(mut self, binding: usize, at: usize, bytes: &[u8]) -> Self {
        self.samples.push((binding, at, bytes.to_vec()));
        self
    }
}

/// One recorded command.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "nearly every command is a dispatch")]
pub enum Command {
    /// Run a kernel.
    Dispatch {
        /// The chosen way.
        run: Candidate,
        /// What it does.
        what: Dispatch,
        /// Part of this optional group; see [`super::Recorder::optional`].
        group: Option<u32>,
    },
    /// Fill with zero.
    Clear(Tensor),
    /// Copy `from` to `to`, same length, different buffers.
    Copy {
        /// Source.
        from: Tensor,
        /// Destination.
        to: Tensor,
    },
}

impl Command {
    /// The tensors a command touches.
    pub fn tensors(&self) -> Vec<Tensor> {
        match self {
            Command::Dispatch { what, .. } => what.bind.clone(),
            Command::Clear(t) => vec![*t],
            Command::Copy { from, to } => vec![*from, *to],
        }
    }

    /// The tensors a command changes.
    pub fn written(&self) -> Vec<Tensor> {
        match self {
            Command::Dispatch { run, what, .. } => {
                what.bind.iter().zip(run.spec.bindings).filter(|(_, access)| **access == Access::ReadWrite).map(|(t, _)| *t).collect()
            }
            Command::Clear(t) => vec![*t],
            Command::Copy { to, .. } => vec![*to],
        }
    }

    /// The tensors whose content a command may depend on. What it changes counts too: a dispatch may add to it or change it in place.
    pub fn read(&self) -> Vec<Tensor> {
        match self {
            Command::Dispatch { what, .. } => what.bind.clone(),
            Command::Clear(_) => Vec::new(),
            Command::Copy { from, .. } => vec![*from],
        }
    }
}
