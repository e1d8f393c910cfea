//! SwiGLU and addition: one lane per element, or per four where the length is whole vectors.

use bytemuck::{Pod, Zeroable};

use super::real::Real;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    pad: [u32; 3],
}

const INTO_THIRD: &[Access] = &[Access::Input, Access::Input, Access::ReadWrite];

/// gate, up, a.
pub const SWIGLU: KernelSpec = KernelSpec { name: "swiglu", source: include_str!("../../shaders/swiglu.wgsl"), bindings: INTO_THIRD };
/// gate (becomes its gradient), up (becomes its gradient), da.
pub const SWIGLU_BACKWARD: KernelSpec = KernelSpec {
    name: "swiglu_backward",
    source: include_str!("../../shaders/swiglu_backward.wgsl"),
    bindings: &[Access::ReadWrite, Access::ReadWrite, Access::Input],
};
/// a, b, c.
pub const ADD: KernelSpec = KernelSpec { name: "add", source: include_str!("../../shaders/add.wgsl"), bindings: INTO_THIRD };

fn record(rec: &mut Recorder, spec: &'static KernelSpec, label: &str, bind: [Tensor; 3], flops: u64) {
    let len = bind[0].len;
    let vectors = len.is_multiple_of(4);
    let lanes = if vectors { len / 4 } else { len };
    let what = Dispatch::new(label, &Params { len: lanes, pad: [0; 3] }, &bind, flops * u64::from(len));
    rec.dispatch(spec, Variant::new().flag_if("VEC4", vectors), grid_1d(lanes.div_ceil(64)), what);
}

/// Records `a = silu(gate) · up`.
pub fn swiglu(rec: &mut Recorder, label: &str, gate: Tensor, up: Tensor, a: Tensor) {
    record(rec, &SWIGLU, label, [gate, up, a], 5);
}

/// Records the gradients of SwiGLU in place of its inputs.
pub fn swiglu_backward(rec: &mut Recorder, label: &str, gate: Tensor, up: Tensor, da: Tensor) {
    record(rec, &SWIGLU_BACKWARD, label, [gate, up, da], 10);
}

/// Records `c = a + b`.
pub fn add(rec: &mut Recorder, label: &str, a: Tensor, b: Tensor, c: Tensor) {
    record(rec, &ADD, label, [a, b, c], 1);
}

/// The twin of [`swiglu`].
pub fn swiglu_twin<R: Real>(gate: &[R], up: &[R]) -> Vec<R> {
    gate.iter().zip(up).map(|(g, u)| *g / (R::of(1.0) + (-*g).exp()) * *u).collect()
}

/// The twin of [`swiglu_backward`]: returns (dgate, dup).
pub fn swiglu_backward_twin<R: Real>(gate: &[R], up: &[R], da: &[R]) -> (Vec<R>, Vec<R>) {
    let one = R::of(1.0);
    let each = |i: usize| {
        let (g, u, d) = (gate[i], up[i], da[i]);
        let s = one / (one + (-g).exp());
        (d * u * s * (one + g * (one - s)), d * g * s)
    };
    (0..gate.len()).map(each).unzip()
}
