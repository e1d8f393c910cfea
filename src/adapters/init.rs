//! Initial values, from the documented counter generator of [`crate::rng`].
//!
//! The key of a parameter is `"{seed}/{name}"` and element i counts row-major in Hugging Face's shape, so that the values do not depend on
//! how the buffer is laid out, on the other parameters, or on the adapter's neighbours in a batch.

use super::params::{Init, ParamLayout, ParamSpec};
use crate::rng;

/// Initial values of one parameter, in Hugging Face order.
pub fn initial_values(spec: &ParamSpec, seed: u64) -> Vec<f32> {
    match spec.init {
        Init::Zeros => vec![0.0; spec.len()],
        Init::Ones => vec![1.0; spec.len()],
        Init::Uniform { bound } => rng::fill_uniform(&format!("{seed}/{}", spec.name), spec.len(), bound),
        Init::Normal { deviation } => rng::fill_normal(&format!("{seed}/{}", spec.name), spec.len(), deviation),
    }
}

/// The whole buffer at the start of a run, `layout.words` long.
pub fn initial_buffer(layout: &ParamLayout, seed: u64) -> Vec<f32> {
    let mut buffer = vec![0.0; layout.words];
    for spec in &layout.specs {
        spec.put_hf(&initial_values(spec, seed), &mut buffer);
    }
    buffer
}
