//! What becomes of AdamW's moments at a knot.

use crate::adapters::AdapterLayout;
use crate::adapters::chain::KnotOptimizer;
use crate::rng;

/// The moments with which the next link begins, from those of the one that ends. Both layouts have one slot for the trainable factors, so
/// an element keeps its place; places that the next link does not use are cleared.
///
/// An element is forgotten in both moments: a second moment of zero beside a first moment that is not would make AdamW leap. The share that
/// `magnitude` forgets is counted, not thresholded, so that ties do not take everything.
///
/// # Panics
/// When a buffer has not the layout's length.
pub fn at_knot(kind: KnotOptimizer, next: &AdapterLayout, key: &str, m: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut kept_m, mut kept_v) = (vec![0.0; m.len()], vec![0.0; v.len()]);
    if kind == KnotOptimizer::Reset {
        return (kept_m, kept_v);
    }
    let (offsets, _) = next.params.gradient_offsets();
    for (spec, begin) in next.params.specs.iter().zip(offsets).filter(|(spec, _)| spec.trainable) {
        let place = begin..begin + spec.len();
        kept_m[place.clone()].copy_from_slice(&m[place.clone()]);
        kept_v[place.clone()].copy_from_slice(&v[place.clone()]);
        let forgotten: Vec<usize> = match kind {
            KnotOptimizer::Magnitude(share) => {
                let mut order: Vec<usize> = place.clone().collect();
                order.sort_by(|&i, &j| m[i].abs().total_cmp(&m[j].abs()));
                order.truncate((spec.len() as f64 * share).floor() as usize);
                order
            }
            KnotOptimizer::Random(share) => {
                // Uniform in (-1, 1): below 2 share - 1 with probability `share`.
                let draws = rng::fill_uniform(&format!("{key}/{}", spec.name), spec.len(), 1.0);
                place.clone().zip(draws).filter(|(_, draw)| f64::from(*draw) < 2.0 * share - 1.0).map(|(i, _)| i).collect()
            }
            KnotOptimizer::Reset | KnotOptimizer::Keep => Vec::new(),
        };
        for i in forgotten {
            (kept_m[i], kept_v[i]) = (0.0, 0.0);
        }
    }
    (kept_m, kept_v)
}
