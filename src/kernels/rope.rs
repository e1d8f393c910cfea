//! Rotary position embedding in place, in Hugging Face's half-rotation order; the backward pass rotates back.

use bytemuck::{Pod, Zeroable};

use super::real::Real;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    heads: u32,
    half: u32,
    sign: f32,
}

/// table, position, x (in place).
pub const ROPE: KernelSpec = KernelSpec {
    name: "rope",
    source: include_str!("../../shaders/rope.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::ReadWrite],
};

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The forward pass.
    Forward,
    /// The backward pass: the inverse rotation.
    Back,
}

/// Records the rotation of `x[rows, heads · head_dim]` by `table[positions, head_dim/2]` (cos, sin) at `position[rows]`.
pub fn rotate(rec: &mut Recorder, label: &str, table: Tensor, position: Tensor, x: Tensor, heads: usize, head_dim: usize, turn: Turn) {
    let vectors = head_dim.is_multiple_of(8);
    let half = (head_dim / if vectors { 8 } else { 2 }) as u32;
    let lanes = x.len / if vectors { 8 } else { 2 };
    let rows = lanes / (heads as u32 * half);
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
    let what = Dispatch::new(label, &Params { rows, heads: heads as u32, half, sign }, &[table, position, x], 3 * u64::from(x.len));
    rec.dispatch(&ROPE, Variant::new().flag_if("VEC4", vectors), grid_1d(lanes.div_ceil(64)), what);
}

/// The twin of [`rotate`]. `table` holds (cos, sin) pairs.
pub fn rotate_twin<R: Real>(table: &[[R; 2]], position: &[u32], x: &mut [R], heads: usize, head_dim: usize, turn: Turn) {
    let half = head_dim / 2;
    for (t, row) in x.chunks_exact_mut(heads * head_dim).enumerate() {
        for head in row.chunks_exact_mut(head_dim) {
            for i in 0..half {
                let [cos, sin] = table[position[t] as usize * half + i];
                let sin = if turn == Turn::Forward { sin } else { -sin };
                let (a, b) = (head[i], head[i + half]);
                head[i] = a * cos - b * sin;
                head[i + half] = b * cos + a * sin;
            }
        }
    }
}
