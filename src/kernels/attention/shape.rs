//! Kernels, passes and sizes of attention.

use crate::gpu::{Access, KernelSpec};

pub(super) const R: Access = Access::Read;
pub(super) const IN: Access = Access::Input;
pub(super) const RW: Access = Access::ReadWrite;

/// Forward, workgroup-memory tiles. Bindings: q, k, v, documents, o, lse.
pub const TILE_FORWARD: KernelSpec = KernelSpec {
    name: "attention_tile_forward",
    source: include_str!("../../../shaders/attention_tile_forward.wgsl"),
    bindings: &[IN, IN, IN, R, RW, RW],
};
/// Gradient of the queries, workgroup-memory tiles. Bindings: q, k, v, do, stats, documents, dq.
pub const TILE_DQ: KernelSpec = KernelSpec {
    name: "attention_tile_dq",
    source: include_str!("../../../shaders/attention_tile_dq.wgsl"),
    bindings: &[IN, IN, IN, IN, IN, R, RW],
};
/// Gradients of keys and values, workgroup-memory tiles. Bindings: q, k, v, do, stats, documents, dk, dv.
pub const TILE_DKV: KernelSpec = KernelSpec {
    name: "attention_tile_dkv",
    source: include_str!("../../../shaders/attention_tile_dkv.wgsl"),
    bindings: &[IN, IN, IN, IN, IN, R, RW, RW],
};
/// Forward, rows in registers. Bindings as [`TILE_FORWARD`].
pub const LANES_FORWARD: KernelSpec = KernelSpec {
    name: "attention_lanes_forward",
    source: include_str!("../../../shaders/attention_lanes_forward.wgsl"),
    bindings: TILE_FORWARD.bindings,
};
/// Gradient of the queries, rows in registers. Bindings as [`TILE_DQ`].
pub const LANES_DQ: KernelSpec =
    KernelSpec { name: "attention_lanes_dq", source: include_str!("../../../shaders/attention_lanes_dq.wgsl"), bindings: TILE_DQ.bindings };
/// Gradients of keys and values, rows in registers. Bindings as [`TILE_DKV`].
pub const LANES_DKV: KernelSpec = KernelSpec {
    name: "attention_lanes_dkv",
    source: include_str!("../../../shaders/attention_lanes_dkv.wgsl"),
    bindings: TILE_DKV.bindings,
};
/// stats = (lse, sum(o · do)) for every row and head. Bindings: o, do, lse, stats.
pub const DELTA: KernelSpec =
    KernelSpec { name: "attention_delta", source: include_str!("../../../shaders/attention_delta.wgsl"), bindings: &[IN, IN, IN, RW] };

/// Parts of a pass at most: each is a dispatch with parameters of its own.
const MOST_PARTS: u32 = 4096;
/// Rows of the usual tile on a GPU: more parts than tiles would be empty.
const USUAL_TILE: u32 = 32;

/// Head dimensions the kernels are written for: multiples of 4 up to this.
pub const MAX_HEAD_DIM: u32 = 256;

/// Sizes and mask of one attention layer over a packed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Rows t of the batch, all documents together.
    pub rows: u32,
    /// Query heads h.
    pub heads: u32,
    /// Key/value heads kv; divides `heads`.
    pub kv_heads: u32,
    /// Width hd of one head: a multiple of 4, at most [`MAX_HEAD_DIM`].
    pub head_dim: u32,
    /// Rows a query sees, itself included; `None` sees the whole document.
    pub window: Option<u32>,
}

/// Uniform parameters of every kernel of the family.
#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(crate) struct Params {
    pub(super) rows: u32,
    pub(super) heads: u32,
    pub(super) kv_heads: u32,
    pub(super) window: u32,
    pub(super) scale: f32,
    /// Rows of the key/value cache; only for decoding.
    pub(super) max_len: u32,
    /// Which of `parts` shares of the tiles.
    pub(super) part: u32,
    pub(super) parts: u32,
}

impl AttentionShape {
    /// The factor on every score, hd^-1/2.
    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    pub(super) fn params(&self) -> Params {
        let window = self.window.unwrap_or(u32::MAX);
        Params { rows: self.rows, heads: self.heads, kv_heads: self.kv_heads, window, scale: self.scale(), max_len: 0, part: 0, parts: 1 }
    }

    /// Operations of `products` matrix products over the pairs of one document that fills the batch, half of them seen.
    pub(super) fn flops(&self, products: u64) -> u64 {
        let rows = u64::from(self.rows);
        let seen = u64::from(self.window.unwrap_or(u32::MAX)).min(rows.div_ceil(2));
        2 * products * rows * seen * u64::from(self.heads) * u64::from(self.head_dim)
    }

    /// Dispatches that a pass is recorded in, so that none has more than `most` operations, as far as a tile of rows allows.
    pub(super) fn parts(&self, pass: Pass, most: u64) -> u32 {
        if self.flops(pass.products()) <= most {
            return 1;
        }
        let tiles = self.rows.div_ceil(USUAL_TILE);
        let of_a_tile = self.part_flops(pass, tiles);
        let at_once = (most / of_a_tile.max(1)).clamp(1, u64::from(tiles)) as u32;
        tiles.div_ceil(at_once).min(MOST_PARTS)
    }

    /// Operations of the part of `parts` with the most: its rows see all others, or are seen by them.
    pub(super) fn part_flops(&self, pass: Pass, parts: u32) -> u64 {
        if parts == 1 {
            return self.flops(pass.products());
        }
        let rows = self.rows.div_ceil(USUAL_TILE).div_ceil(parts) * USUAL_TILE;
        let seen = u64::from(self.window.unwrap_or(u32::MAX).min(self.rows));
        2 * pass.products() * u64::from(rows.min(self.rows)) * seen * u64::from(self.heads) * u64::from(self.head_dim)
    }

    pub(super) fn key(&self, kernel: &str) -> String {
        let AttentionShape { rows, heads, kv_heads, head_dim, window } = self;
        format!("{kernel} t={rows} h={heads} kv={kv_heads} hd={head_dim} window={}", window.unwrap_or(0))
    }

    /// # Panics
    /// On a shape the kernels are not written for: the model's configuration is checked before anything is recorded.
    pub(super) fn check(&self) {
        assert!(self.rows >= 1 && self.kv_heads >= 1 && self.heads.is_multiple_of(self.kv_heads), "attention heads: {self:?}");
        assert!(self.head_dim >= 4 && self.head_dim.is_multiple_of(4) && self.head_dim <= MAX_HEAD_DIM, "attention head width: {self:?}");
        assert!(self.window != Some(0), "attention window of no rows: {self:?}");
    }
}

/// Which of the three kernels of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Outputs and log-sum-exp.
    Forward,
    /// Gradient of the queries.
    Queries,
    /// Gradients of keys and values.
    KeysValues,
}

impl Pass {
    pub(super) fn name(self) -> &'static str {
        match self {
            Pass::Forward => "attention_forward",
            Pass::Queries => "attention_dq",
            Pass::KeysValues => "attention_dkv",
        }
    }

    /// Matrix products of the pass over the pairs of rows that see each other.
    pub(super) fn products(self) -> u64 {
        match self {
            Pass::Forward => 2,
            Pass::Queries => 3,
            Pass::KeysValues => 4,
        }
    }
}
