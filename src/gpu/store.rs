//! Logical tensors and the persistent buffers behind them.

use std::ops::Range;
use std::sync::Arc;

use super::device::Gpu;
use super::held::Held;
use crate::{Error, Result};

/// What a persistent buffer is for; the plan reports bytes by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Frozen base weights.
    Weights,
    /// Trainable parameters and frozen adapter factors.
    Adapter,
    /// Gradients of trainable parameters.
    Gradient,
    /// Optimizer moments.
    Optimizer,
    /// Tokens, targets, tables, losses: what goes in and out each step.
    Io,
    /// Key/value cache of generation.
    Cache,
}

impl Class {
    /// All classes, in the order of reports.
    pub const ALL: [Class; 6] = [Class::Weights, Class::Adapter, Class::Gradient, Class::Optimizer, Class::Io, Class::Cache];

    /// Name in reports and events.
    pub fn name(self) -> &'static str {
        match self {
            Class::Weights => "weights",
            Class::Adapter => "adapter",
            Class::Gradient => "gradients",
            Class::Optimizer => "optimizer",
            Class::Io => "io",
            Class::Cache => "cache",
        }
    }
}

/// Where a tensor lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Space {
    /// Buffer `index` of the [`Store`].
    Persistent,
    /// Transient `index` of one recording, placed by the plan.
    Transient,
}

/// Words of the largest tensor: bytes are addressed in 32 bits.
pub(super) const MOST_WORDS: u32 = u32::MAX / 4;

/// A range of 4-byte words: the whole or a slice of a logical buffer. Shapes are the caller's; words are f32 or u32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// Where it lives.
    pub space: Space,
    /// Which buffer or transient.
    pub index: u32,
    /// First word.
    pub offset: u32,
    /// Number of words.
    pub len: u32,
}

impl Tensor {
    /// Words `range` of this tensor. A slice that is bound must start at a multiple of 64 words (256 bytes).
    ///
    /// # Panics
    /// If the range leaves the tensor: a bug in a recording, never user data.
    pub fn slice(self, range: Range<usize>) -> Tensor {
        assert!(range.start <= range.end && range.end <= self.len as usize, "slice {range:?} of {} words", self.len);
        Tensor { offset: self.offset + range.start as u32, len: (range.end - range.start) as u32, ..self }
    }
    /// Whether `words` fit into it. More than any tensor can have fit, too: a recording that asks for so many becomes an error when it is planned.
    pub fn holds(self, words: usize) -> bool {
        self.len as usize >= words.min(MOST_WORDS as usize)
    }

    /// Size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.len) * 4
    }
}

/// One persistent buffer.
#[derive(Debug)]
pub struct Entry {
    /// For errors, plans and GPU debuggers.
    pub label: String,
    /// What it is for.
    pub class: Class,
    /// Size; a multiple of 4, at least 4.
    pub bytes: u64,
    pub(super) buffer: Option<Held>,
}

/// Persistent buffers. Declaring costs nothing: a plan needs no device. [`Store::allocate`] makes them real.
///
/// A store may lie [over](Store::over) another one, whose tensors it shares: several recordings, each with buffers of its own, use one
/// resident base.
#[derive(Debug, Default)]
pub struct Store {
    shared: Option<Arc<Store>>,
    /// Buffers of `shared` and of what that shares.
    below: usize,
    entries: Vec<Entry>,
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store without buffers of its own in which every tensor of `shared` is valid.
    pub fn over(shared: Arc<Store>) -> Self {
        Self { below: shared.below + shared.entries.len(), shared: Some(shared), entries: Vec::new() }
    }

    /// Takes `shared` in place of the store that this one was declared over: the same buffers, now on a device.
    ///
    /// # Panics
    /// When their sizes differ, or when this store shares nothing.
    pub fn rebase(&mut self, shared: Arc<Store>) {
        let sizes = |store: &Store| store.all().map(|e| e.bytes).collect::<Vec<_>>();
        let same = self.shared.as_ref().is_some_and(|declared| sizes(declared) == sizes(&shared));
        assert!(same, "a store of the same buffers");
        self.shared = Some(shared);
    }

    /// The same declarations, of buffers that do not exist yet.
    pub fn declared(&self) -> Store {
        let entry = |e: &Entry| Entry { label: e.label.clone(), class: e.class, bytes: e.bytes, buffer: None };
        Store { shared: self.shared.clone(), below: self.below, entries: self.entries.iter().map(entry).collect() }
    }

    /// Every buffer, those that are shared first.
    fn all(&self) -> Box<dyn Iterator<Item = &Entry> + '_> {
        let shared: Box<dyn Iterator<Item = &Entry> + '_> = match &self.shared {
            Some(shared) => shared.all(),
            None => Box::new(std::iter::empty()),
        };
        Box::new(shared.chain(&self.entries))
    }

    fn entry(&self, index: usize) -> Option<&Entry> {
        match index.checked_sub(self.below) {
            Some(own) => self.entries.get(own),
            None => self.shared.as_ref()?.entry(index),
        }
    }

    /// Declares a buffer of `len` words.
    ///
    /// # Errors
    /// [`Error::Limit`] if the size does not fit in 32-bit word addressing.
    pub fn declare(&mut self, label: impl Into<String>, class: Class, len: usize) -> Result<Tensor> {
        let label = label.into();
        let words = u32::try_from(len.max(1)).ok().filter(|w| *w <= u32::MAX / 4).ok_or_else(|| Error::Limit {
            what: label.clone(),
            needed: format!("{len} words"),
            allowed: format!("{} words", u32::MAX / 4),
            hint: "split the tensor or use a smaller model",
        })?;
        self.entries.push(Entry { label, class, bytes: u64::from(words) * 4, buffer: None });
        Ok(Tensor { space: Space::Persistent, index: (self.below + self.entries.len() - 1) as u32, offset: 0, len: words })
    }

    /// Bytes declared so far for one class, shared ones included.
    pub fn bytes_of(&self, class: Class) -> u64 {
        self.all().filter(|e| e.class == class).map(|e| e.bytes).sum()
    }

    /// Bytes of buffers that exist on the device, shared ones included.
    pub fn allocated_bytes(&self) -> u64 {
        self.all().filter(|e| e.buffer.is_some()).map(|e| e.bytes).sum()
    }

    /// Bytes of buffers of its own that exist on the device.
    pub fn own_bytes(&self) -> u64 {
        self.entries.iter().filter(|e| e.buffer.is_some()).map(|e| e.bytes).sum()
    }

    /// The buffers, shared ones first, for reports.
    pub fn entries(&self) -> Vec<&Entry> {
        self.all().collect()
    }

    /// Creates every declared buffer of its own that does not exist yet; new buffers are zero.
    ///
    /// # Errors
    /// [`Error::Limit`] for a buffer larger than the device binds, [`Error::OutOfMemory`] if the driver refuses.
    pub async fn allocate(&mut self, gpu: &Gpu) -> Result<()> {
        for entry in self.entries.iter_mut().filter(|e| e.buffer.is_none()) {
            entry.buffer = Some(Held::new(gpu.create_storage(&entry.label, entry.bytes).await?));
        }
        Ok(())
    }

    /// The buffer behind a persistent tensor.
    pub(super) fn buffer(&self, tensor: Tensor) -> Result<&wgpu::Buffer> {
        self.entry(tensor.index as usize)
            .filter(|_| tensor.space == Space::Persistent)
            .and_then(|e| e.buffer.as_deref())
            .ok_or_else(|| Error::Gpu { what: format!("buffer {}", tensor.index), message: "used before it was allocated".into() })
    }

    /// Writes words to a persistent tensor; visible to everything submitted later.
    ///
    /// # Errors
    /// [`Error::Gpu`] if the buffer was not allocated.
    pub fn write<T: bytemuck::NoUninit>(&self, gpu: &Gpu, tensor: Tensor, data: &[T]) -> Result<()> {
        let bytes: &[u8] = bytemuck::cast_slice(data);
        assert!(bytes.len() as u64 <= tensor.bytes(), "write of {} bytes into {} words", bytes.len(), tensor.len);
        gpu.queue.write_buffer(self.buffer(tensor)?, u64::from(tensor.offset) * 4, bytes);
        Ok(())
    }
}
