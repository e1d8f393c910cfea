//! tmp
use super::matrix::Matrix;
use crate::gpu::{Access, Dispatch, KernelSpec, Recorder, Tensor, Variant};
/// tmp
pub const TMP: KernelSpec = KernelSpec {
    name: "tmp",
    source: include_str!("../../shaders/tmp.wgsl"),
    bindings: &[Access::ReadWrite, Access::Read, Access::ReadWrite],
};
fn go(rec: &mut Recorder, label: &str, x: Tensor, t: usize, w: &Matrix, y: Tensor, acc: bool, dir: u32) {
    for p in &w.parts {
        let acc = acc || (dir == 1 && p.row_start > 0);
        let params: [u32; 8] = [t as u32, p.rows as u32, w.cols as u32, p.row_start as u32, w.rows as u32, u32::from(acc), dir, 0];
        let width = if dir == 0 { p.rows } else { w.cols };
        rec.dispatch(
            &TMP,
            Variant::new(),
            [(width as u32).div_ceil(64), t as u32, 1],
            Dispatch::new(label, &params, &[x, p.tensor, y], 2 * (t * p.rows * w.cols) as u64),
        );
    }
}
/// tmp
pub fn forward(rec: &mut Recorder, label: &str, x: Tensor, t: usize, w: &Matrix, y: Tensor, acc: bool) {
    go(rec, label, x, t, w, y, acc, 0)
}
/// tmp
pub fn backward(rec: &mut Recorder, label: &str, x: Tensor, t: usize, w: &Matrix, y: Tensor, acc: bool) {
    go(rec, label, x, t, w, y, acc, 1)
}
