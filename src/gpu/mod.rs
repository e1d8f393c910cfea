//! Record, plan, run: the only place that knows `wgpu`.
//!
//! [`Recorder`] collects dispatches over logical [`Tensor`]s, [`plan`] gives every transient tensor a byte-exact place,
//! [`Executable`] runs the plan as often as wanted without allocating. Nothing here knows what a model is.

pub mod clock;
pub mod device;
pub mod dispatch;
pub mod executable;
mod experimental;
mod held;
pub mod kernel;
mod live;
mod measure;
pub mod plan;
pub mod precision;
mod prewarm;
pub mod readback;
pub mod recorder;
pub mod shader;
pub mod store;
#[cfg(not(target_arch = "wasm32"))]
pub mod survey;
pub mod timing;
pub mod tune;
#[cfg(target_arch = "wasm32")]
mod web_subgroups;

pub use device::{Gpu, GpuOptions};
pub use dispatch::{Candidate, Dispatch};
pub use executable::Executable;
pub use kernel::{Access, KernelSpec, Variant};
pub use plan::Plan;
pub use recorder::Recorder;
pub use store::{Class, Store, Tensor};
pub use tune::Tuner;

/// A grid of at least `n` workgroups within the 65,535 per dimension that every device allows.
///
/// Kernels flatten it again: `index = id.x + id.y * num_workgroups.x`.
pub fn grid_1d(n: u32) -> [u32; 3] {
    const MAX: u32 = 65_535;
    if n <= MAX {
        [n.max(1), 1, 1]
    } else {
        let y = n.div_ceil(MAX);
        [n.div_ceil(y), y, 1]
    }
}
