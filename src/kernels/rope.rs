//! Rotary position embedding of q and k in place, in Hugging Face's half-rotation order; the backward pass rotates back.

use bytemuck::{Pod, Zeroable};

use super::real::Real;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    half: u32,
    sign: f32,
    pad: [u32; 3],
}

/// table, position, q (in place), k (in place).
pub const ROPE: KernelSpec = KernelSpec {
    name: "rope",
    source: include_str!("../../shaders/rope.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::ReadWrite, Access::ReadWrite],
};

/// Which way to turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The forward pass.
    Forward,
    /// The backward pass: the inverse rotation.
    Back,
}

/// Queries and keys, or their gradients.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// `[rows, heads · head_dim]`
    pub q: Tensor,
    /// `[rows, kv_heads · head_dim]`
    pub k: Tensor,
    /// Heads of q.
    pub heads: usize,
    /// Heads of k.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
}

/// Records the rotation of q and k by `table[positions, head_dim/2]` (cos, sin) at `position[rows]`.
pub fn rotate(rec: &mut Recorder, label: &str, table: Tensor, position: Tensor, x: Heads, turn: Turn) {
    let vectors = x.head_dim.is_multiple_of(8);
    let half = x.head_dim / if vectors { 8 } else { 2 };
    let rows = x.q.len / (x.heads * x.head_dim) as u32;
    let lanes = rows * ((x.heads + x.kv_heads) * half) as u32;
    let sign = if turn == Turn::Forward { 1.0 } else { -1.0 };
    let params = Params { rows, heads: x.heads as u32, kv_heads: x.kv_heads as u32, half: half as u32, sign, pad: [0; 3] };
    let what = Dispatch::new(label, &params, &[table, position, x.q, x.k], 3 * (u64::from(x.q.len) + u64::from(x.k.len)));
    rec.dispatch(&ROPE, Variant::new().flag_if("VEC4", vectors), grid_1d(lanes.div_ceil(64)), what);
}

/// The twin of [`rotate`] for one of the two. `table` holds (cos, sin) pairs.
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
