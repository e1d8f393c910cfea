//! Which commands of a recording matter: those with a result that somebody reads.
//!
//! Recompute, for instance, records a block's forward pass again, and nobody reads the block's output a second time.

use std::collections::HashMap;
use std::ops::Range;

use super::dispatch::Command;
use super::store::{Space, Tensor};

/// The commands in order, without those that change nothing but transient words that no later command reads.
///
/// Persistent buffers outlive the recording, so what writes them stays, and so does all that it depends on. A dispatch may add to what it
/// writes, so earlier writes of the same words stay with it. Commands of optional groups count as if they always ran.
pub(super) fn without_unread(commands: Vec<Command>) -> Vec<Command> {
    let mut wanted = Wanted::default();
    let mut live: Vec<bool> = commands.iter().rev().map(|command| wanted.visit(command)).collect();
    live.reverse();
    commands.into_iter().zip(live).filter_map(|(command, live)| live.then_some(command)).collect()
}

/// Words of transients that commands further on read, by transient.
#[derive(Default)]
struct Wanted {
    words: HashMap<u32, Vec<Range<u32>>>,
}

impl Wanted {
    /// Whether `command` matters to those further on; if so, so does what it reads.
    fn visit(&mut self, command: &Command) -> bool {
        if !command.written().iter().any(|tensor| self.contains(*tensor)) {
            return false;
        }
        for tensor in command.read().into_iter().filter(|t| t.space == Space::Transient) {
            let range = tensor.offset..tensor.offset + tensor.len;
            let known = self.words.entry(tensor.index).or_default();
            if !known.iter().any(|k| k.start <= range.start && range.end <= k.end) {
                known.push(range);
            }
        }
        true
    }

    fn contains(&self, tensor: Tensor) -> bool {
        let overlaps = |known: &Range<u32>| known.start < tensor.offset + tensor.len && tensor.offset < known.end;
        tensor.space == Space::Persistent || self.words.get(&tensor.index).is_some_and(|all| all.iter().any(overlaps))
    }
}
