//! The adapter's arithmetic ceiling: f32 multiply-adds that never leave the registers. Only benchmarks run it.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant};

/// sums.
pub const PEAK: KernelSpec = KernelSpec { name: "peak", source: include_str!("../../shaders/peak.wgsl"), bindings: &[Access::ReadWrite] };

/// Lanes of a workgroup.
const LANES: u32 = 64;
/// Workgroups: a quarter of a million lanes fill the largest GPU.
const GROUPS: u32 = 4096;
/// Operations of one lane in one turn: eleven chains, twenty rounds, two operations each.
const TURN: u64 = 11 * 20 * 2;
/// Words of `sums`: one a lane.
pub const SUMS: usize = (LANES * GROUPS) as usize;
/// What every lane writes: eleven chains that tend to 2.
pub const EXPECTED: f32 = 22.0;

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    turns: u32,
    a: f32,
    b: f32,
    pad: u32,
}

/// Records `turns` turns of the loop in every lane; then `sums`, [`SUMS`] words, is [`EXPECTED`] everywhere.
pub fn record(rec: &mut Recorder, sums: Tensor, turns: u32) {
    let flops = SUMS as u64 * u64::from(turns) * TURN;
    let what = Dispatch::new("peak", &Params { turns, a: 0.5, b: 1.0, pad: 0 }, &[sums], flops);
    rec.dispatch(&PEAK, Variant::new().with("WG", LANES), [GROUPS, 1, 1], what);
}
