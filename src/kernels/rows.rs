//! Rows in and out of the head: only rows that predict a target are worth a vocabulary-sized product.

use bytemuck::{Pod, Zeroable};

use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant, grid_1d};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Params {
    count: u32,
    cols: u32,
    pad: [u32; 2],
}

/// rows, targets, source, result.
pub const ROWS: KernelSpec = KernelSpec {
    name: "rows",
    source: include_str!("../../shaders/rows.wgsl"),
    bindings: &[Access::Read, Access::Read, Access::Input, Access::ReadWrite],
};

/// Records `compact[i, :] = full[rows[i], :]` for every i.
pub fn gather(rec: &mut Recorder, label: &str, rows: Tensor, targets: Tensor, full: Tensor, compact: Tensor) {
    record(rec, label, (rows, targets), (full, compact), compact.len, Variant::new().flag("GATHER"));
}

/// Records `full[rows[i], :] = compact[i, :]` where `targets[i] >= 0`; the other rows of `full` keep what the caller put there.
pub fn scatter(rec: &mut Recorder, label: &str, rows: Tensor, targets: Tensor, compact: Tensor, full: Tensor) {
    record(rec, label, (rows, targets), (compact, full), compact.len, Variant::new());
}

/// Records `cache[positions[i], :] = new[i, :]`: keys and values of new rows join the cache.
pub fn append(rec: &mut Recorder, label: &str, positions: Tensor, new: Tensor, cache: Tensor) {
    record(rec, label, (positions, positions), (new, cache), new.len, Variant::new().flag("APPEND"));
}

fn record(rec: &mut Recorder, label: &str, lists: (Tensor, Tensor), data: (Tensor, Tensor), len: u32, variant: Variant) {
    let count = lists.0.len;
    let params = Params { count, cols: len / count, pad: [0; 2] };
    let what = Dispatch::new(label, &params, &[lists.0, lists.1, data.0, data.1], 0).touching(2 * (count + len) as usize);
    rec.dispatch(&ROWS, variant, grid_1d(len.div_ceil(64)), what);
}
