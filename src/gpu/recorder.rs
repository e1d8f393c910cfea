//! A step as a list of commands over logical tensors. Recording touches no device.

use std::collections::BTreeMap;

use super::device::Facts;
use super::dispatch::{Candidate, Command, Dispatch};
use super::kernel::{KernelSpec, Variant};
use super::store::{MOST_WORDS, Space, Tensor};
use super::tune::Tuner;

/// A transient tensor before it has a place.
#[derive(Debug, Clone)]
pub struct Transient {
    /// For reports.
    pub label: String,
    /// Size in bytes.
    pub bytes: u64,
}

/// A tunable dispatch that has no measured choice yet.
#[derive(Debug, Clone)]
pub struct Untuned {
    /// Kernel family and shape; the key of the choice.
    pub key: String,
    /// All ways to run it.
    pub candidates: Vec<Candidate>,
    /// What it does, with bindings of the right sizes.
    pub what: Dispatch,
}

/// Collects commands and transient tensors.
pub struct Recorder<'a> {
    pub(super) transients: Vec<Transient>,
    pub(super) commands: Vec<Command>,
    pub(super) untuned: Vec<Untuned>,
    pub(super) order_choices: BTreeMap<String, String>,
    /// The first tensor that is too large to be addressed: label and words.
    pub(super) too_large: Option<(String, usize)>,
    tuner: &'a Tuner,
    scope: Vec<String>,
    group: Option<u32>,
    scratch: Option<Scratch>,
}

/// Transient tensors that several passes of one recording share, see [`Recorder::sharing`].
#[derive(Debug, Default)]
pub struct Scratch {
    tensors: Vec<Tensor>,
    /// The next one of this pass.
    next: usize,
}

impl<'a> Recorder<'a> {
    /// An empty recording that takes kernel choices from `tuner`.
    pub fn new(tuner: &'a Tuner) -> Self {
        Self {
            transients: Vec::new(),
            commands: Vec::new(),
            untuned: Vec::new(),
            order_choices: BTreeMap::new(),
            too_large: None,
            tuner,
            scope: Vec::new(),
            group: None,
            scratch: None,
        }
    }

    /// What the adapter can do, or `None` when planning without a device (the floor is assumed).
    pub fn facts(&self) -> Option<&Facts> {
        self.tuner.facts()
    }

    /// Labels of commands recorded inside `body` start with `name.`.
    pub fn scoped<T>(&mut self, name: impl Into<String>, body: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.into());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// Dispatches recorded inside `body` belong to optional group `group`: [`super::Executable::set_groups`] says how many groups a run
    /// executes. Memory is planned for all of them.
    pub fn optional<T>(&mut self, group: u32, body: impl FnOnce(&mut Self) -> T) -> T {
        self.group = Some(group);
        let result = body(self);
        self.group = None;
        result
    }

    /// Gives the transients inside `body` the memory of those of the pass before that had the same `scratch`, which must have asked for tensors in the
    /// same order, none smaller. A plan of many passes has fewer tensors to place then. Their contents last until the next pass.
    pub fn sharing<T>(&mut self, scratch: &mut Scratch, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.scratch.replace(Scratch { tensors: std::mem::take(&mut scratch.tensors), next: 0 });
        let result = body(self);
        *scratch = std::mem::replace(&mut self.scratch, outer).unwrap_or_default();
        result
    }

    fn full_label(&self, label: &str) -> String {
        let mut full = self.scope.join(".");
        if !full.is_empty() && !label.is_empty() {
            full.push('.');
        }
        full + label
    }

    /// A tensor of `len` words that lives from its first to its last use. Its content starts undefined. One that is too large to be
    /// addressed is remembered, and [`super::Plan::new`] refuses the recording.
    ///
    /// # Panics
    /// Inside [`Self::sharing`], if the pass before asked for a smaller one: a bug in a recording.
    pub fn transient(&mut self, label: &str, len: usize) -> Tensor {
        if let Some(shared) = self.scratch.as_mut().and_then(Scratch::take) {
            return shared.slice(0..len.max(1));
        }
        let label = self.full_label(label);
        if len > MOST_WORDS as usize {
            self.too_large.get_or_insert_with(|| (label.clone(), len));
        }
        let len = len.clamp(1, MOST_WORDS as usize) as u32;
        self.transients.push(Transient { label, bytes: u64::from(len) * 4 });
        let tensor = Tensor { space: Space::Transient, index: (self.transients.len() - 1) as u32, offset: 0, len };
        if let Some(scratch) = &mut self.scratch {
            scratch.tensors.push(tensor);
            scratch.next = scratch.tensors.len();
        }
        tensor
    }

    /// Records one dispatch.
    ///
    /// # Panics
    /// If bindings do not fit the kernel: a bug in a recording, never user data.
    pub fn dispatch(&mut self, spec: &'static KernelSpec, variant: Variant, grid: [u32; 3], mut what: Dispatch) {
        what.label = self.full_label(&what.label);
        check_bindings(spec, &what);
        self.commands.push(Command::Dispatch { run: Candidate { spec, variant, grid }, what, group: self.group });
    }

    /// Records the measured best of `candidates`, or the first one while nothing is measured.
    ///
    /// # Panics
    /// If `candidates` is empty or a binding does not fit: a bug in a recording.
    pub fn dispatch_tuned(&mut self, key: String, mut candidates: Vec<Candidate>, mut what: Dispatch) {
        let subgroups = self.facts().is_some_and(|f| f.subgroups);
        candidates.retain(|c| subgroups || !c.variant.needs_subgroups());
        assert!(!candidates.is_empty(), "no candidate for {key}");
        what.label = self.full_label(&what.label);
        candidates.iter().for_each(|c| check_bindings(c.spec, &what));
        let choice = self.tuner.choice(&key, &candidates);
        let chosen = choice.unwrap_or(0);
        if candidates.iter().any(|c| c.order() != candidates[chosen].order()) {
            self.order_choices.insert(key.clone(), candidates[chosen].key());
        }
        let unsettled = choice.is_none() || self.tuner.wants_again(&key);
        if unsettled && candidates.len() > 1 && !self.untuned.iter().any(|u| u.key == key) {
            self.untuned.push(Untuned { key, candidates: candidates.clone(), what: what.clone() });
        }
        let run = candidates.swap_remove(chosen);
        self.commands.push(Command::Dispatch { run, what, group: self.group });
    }

    /// Fills a tensor with zero.
    pub fn clear(&mut self, tensor: Tensor) {
        self.commands.push(Command::Clear(tensor));
    }

    /// Copies between two different buffers.
    pub fn copy(&mut self, from: Tensor, to: Tensor) {
        assert_eq!(from.len, to.len, "copy of different lengths");
        self.commands.push(Command::Copy { from, to });
    }

    /// What was recorded so far.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Tunable dispatches without a measured choice.
    pub fn untuned(&self) -> &[Untuned] {
        &self.untuned
    }
}

impl Scratch {
    /// The next tensor of the pass before, if it had one more.
    fn take(&mut self) -> Option<Tensor> {
        let tensor = self.tensors.get(self.next).copied();
        self.next += usize::from(tensor.is_some());
        tensor
    }
}

/// WebGPU's own rules, checked where the mistake is made: sizes, alignment, no overlap of writable ranges.
fn check_bindings(spec: &KernelSpec, what: &Dispatch) {
    let label = &what.label;
    assert_eq!(spec.bindings.len(), what.bind.len(), "{label}: {} takes {} bindings", spec.name, spec.bindings.len());
    assert!(what.params.len() <= 256, "{label}: parameters past 256 bytes");
    for (i, a) in what.bind.iter().enumerate() {
        assert_eq!(a.offset % 64, 0, "{label}: binding {i} starts at word {}, not a multiple of 64", a.offset);
        for (j, b) in what.bind.iter().enumerate().skip(i + 1) {
            if (a.space, a.index) == (b.space, b.index) {
                let (a_writable, b_writable) = (spec.bindings[i].declared_writable(), spec.bindings[j].declared_writable());
                let overlap = a.offset < b.offset + b.len && b.offset < a.offset + a.len;
                assert!(!(a_writable || b_writable) || !overlap, "{label}: bindings {i} and {j} of {} overlap", spec.name);
                assert_eq!(a_writable, b_writable, "{label}: one buffer as read and read_write");
            }
        }
    }
}
