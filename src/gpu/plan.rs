//! Byte-exact placement of transient tensors: lifetimes first, then greedy by size (arXiv 2001.03288).
//!
//! Two tensors may share bytes only if no command uses both or lies between their uses. Tensors are placed from the largest down, each
//! at the lowest offset that is free for its whole life. Arenas are buffers of at most the device's limit.

use std::collections::BTreeMap;

use super::device::PlanLimits;
use super::dispatch::{Command, Dispatch};
use super::live::without_unread;
use super::recorder::Recorder;
use super::store::{Class, MOST_WORDS, Space, Store};
use crate::{Error, Result};

/// Binding offsets must be multiples of this many bytes on every device.
const ALIGN: u64 = 256;
/// Uniform parameters: one slot of this size per dispatch.
pub(super) const PARAMS_SLOT: u64 = 256;

/// Where a transient tensor lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Arena number.
    pub arena: usize,
    /// First byte.
    pub offset: u64,
}

/// Commands with every tensor placed; knows all bytes before anything is allocated.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(super) commands: Vec<Command>,
    pub(super) places: Vec<Option<Place>>,
    /// Bytes of each arena.
    pub arenas: Vec<u64>,
    /// Bytes of the uniform buffer.
    pub params_bytes: u64,
    /// Sum of all transients if nothing were shared.
    pub unshared_bytes: u64,
    /// Kernel choices that bits depend on: tunable cases whose candidates sum in different orders, and which one runs. A run that must give the
    /// same bits again hands them to [`super::Tuner::pin`] before it is recorded.
    pub order_choices: BTreeMap<String, String>,
}

/// First and last command that uses a transient.
#[derive(Debug, Clone, Copy)]
struct Life {
    first: usize,
    last: usize,
}

impl Plan {
    /// Places what `recorder` collected, without the commands whose results nobody reads.
    ///
    /// # Errors
    /// [`Error::Limit`] if one tensor exceeds what `limits` lets a shader bind, or 32-bit addressing.
    pub fn new(recorder: Recorder<'_>, limits: PlanLimits) -> Result<Plan> {
        let Recorder { transients, commands, order_choices, too_large, .. } = recorder;
        if let Some((label, words)) = too_large {
            return Err(limit(&label, words as u128 * 4, limits.max_binding.min(limits.max_buffer).min(4 * u64::from(MOST_WORDS))));
        }
        let commands = without_unread(commands);
        let mut lives: Vec<Option<Life>> = vec![None; transients.len()];
        for (at, command) in commands.iter().enumerate() {
            for tensor in command.tensors().into_iter().filter(|t| t.space == Space::Transient) {
                let life = lives[tensor.index as usize].get_or_insert(Life { first: at, last: at });
                life.last = at;
            }
        }
        let mut order: Vec<usize> = (0..transients.len()).filter(|i| lives[*i].is_some()).collect();
        order.sort_by_key(|i| (std::cmp::Reverse(transients[*i].bytes), *i));
        let mut places: Vec<Option<Place>> = vec![None; transients.len()];
        let mut arenas: Vec<u64> = Vec::new();
        let mut placed: Vec<Vec<(u64, u64, Life)>> = Vec::new();
        for i in order {
            let Some(life) = lives[i] else { continue };
            let bytes = transients[i].bytes.next_multiple_of(ALIGN);
            if transients[i].bytes > limits.max_binding || bytes > limits.max_buffer {
                return Err(limit(&transients[i].label, transients[i].bytes.into(), limits.max_binding.min(limits.max_buffer)));
            }
            let mut arena = 0;
            let offset = loop {
                if arena == arenas.len() {
                    arenas.push(0);
                    placed.push(Vec::new());
                }
                let offset = lowest_gap(&placed[arena], life, bytes);
                if offset + bytes <= limits.max_buffer {
                    break offset;
                }
                arena += 1;
            };
            let at = placed[arena].partition_point(|(o, _, _)| *o < offset);
            placed[arena].insert(at, (offset, bytes, life));
            arenas[arena] = arenas[arena].max(offset + bytes);
            places[i] = Some(Place { arena, offset });
        }
        let dispatches = commands.iter().filter(|c| matches!(c, Command::Dispatch { .. })).count() as u64;
        let unshared_bytes = transients.iter().map(|t| t.bytes.next_multiple_of(ALIGN)).sum();
        Ok(Plan { commands, places, arenas, params_bytes: (dispatches * PARAMS_SLOT).max(PARAMS_SLOT), unshared_bytes, order_choices })
    }

    /// Bytes of all arenas and parameters: what [`super::Executable::new`] allocates.
    pub fn bytes(&self) -> u64 {
        self.arenas.iter().sum::<u64>() + self.params_bytes
    }

    /// The dispatch that may have the most operations: its label and how many they are.
    pub fn longest_dispatch(&self) -> Option<(&str, u64)> {
        let dispatches = self.commands.iter().filter_map(|c| if let Command::Dispatch { what, .. } = c { Some(what) } else { None });
        dispatches.map(|what| (what.label.as_str(), what.most_flops)).max_by_key(|(_, flops)| *flops)
    }

    /// The largest range of a buffer that a dispatch binds: the dispatch's label and bytes.
    pub fn largest_binding(&self) -> Option<(&str, u64)> {
        let dispatches = self.commands.iter().filter_map(|c| if let Command::Dispatch { what, .. } = c { Some(what) } else { None });
        let largest = |what: &Dispatch| what.bind.iter().map(|tensor| tensor.bytes()).max().unwrap_or(0);
        dispatches.map(|what| (what.label.as_str(), largest(what))).max_by_key(|(_, bytes)| *bytes)
    }

    /// Number of kernel launches per run.
    pub fn dispatches(&self) -> usize {
        self.commands.iter().filter(|c| matches!(c, Command::Dispatch { .. })).count()
    }

    /// Arithmetic operations per run.
    pub fn flops(&self) -> u64 {
        self.commands.iter().map(|c| if let Command::Dispatch { what, .. } = c { what.flops } else { 0 }).sum()
    }
}

/// The error of a tensor that no binding holds.
fn limit(label: &str, bytes: u128, allowed: u64) -> Error {
    Error::Limit {
        what: format!("tensor {label}"),
        needed: format!("{bytes} bytes in one binding"),
        allowed: format!("{allowed} bytes"),
        hint: "use a smaller --batch or --seq",
    }
}

/// The lowest aligned offset at which `bytes` are free during `life`. `placed` is sorted by offset.
fn lowest_gap(placed: &[(u64, u64, Life)], life: Life, bytes: u64) -> u64 {
    let mut offset = 0;
    for (start, size, other) in placed {
        let together = life.first <= other.last && other.first <= life.last;
        if together {
            if offset + bytes <= *start {
                break;
            }
            offset = offset.max(start + size);
        }
    }
    offset
}

/// All bytes of a run by purpose, known before anything is allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint {
    /// Persistent bytes by class.
    pub persistent: BTreeMap<&'static str, u64>,
    /// Activations and other transients of the largest plan.
    pub arenas: u64,
    /// Uniform parameters.
    pub params: u64,
}

impl Footprint {
    /// Adds up a store and one plan.
    pub fn of(store: &Store, plan: &Plan) -> Footprint {
        let persistent = Class::ALL.iter().map(|c| (c.name(), store.bytes_of(*c))).filter(|(_, b)| *b > 0).collect();
        Footprint { persistent, arenas: plan.arenas.iter().sum(), params: plan.params_bytes }
    }
    /// Everything together.
    pub fn total(&self) -> u64 {
        self.persistent.values().sum::<u64>() + self.arenas + self.params
    }
}
