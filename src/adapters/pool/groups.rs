//! What AdamW updates together.

use super::super::params::ParamSpec;
use crate::kernels::optimizer::Group;

/// Neighbouring trainable parameters with equal settings become one group, at their places in the job's own buffers. Unused rows before a
/// parameter belong to its group: they are zero and stay so.
pub(super) fn groups(specs: &[ParamSpec], grads: &[usize]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (i, (spec, grad)) in specs.iter().zip(grads).enumerate().filter(|(_, (s, _))| s.trainable) {
        let neighbour = i > 0 && specs[i - 1].trainable;
        let (begin, grad_begin) = (spec.offset - spec.padding, grad - spec.padding);
        let (lr_multiplier, decay) = (spec.lr_multiplier as f32, f32::from(u8::from(spec.weight_decay)));
        let end = begin + spec.padding + spec.len();
        match groups.last_mut() {
            // Nothing but zeros between the two, as much among the values as among the gradients.
            Some(g)
                if neighbour && (g.lr_multiplier, g.decay) == (lr_multiplier, decay) && begin - g.begin == grad_begin - g.grad_begin =>
            {
                g.len = end - g.begin;
            }
            _ => groups.push(Group { begin, grad_begin, len: end - begin, lr_multiplier, decay }),
        }
    }
    groups
}
