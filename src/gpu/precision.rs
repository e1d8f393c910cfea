//! In what precision operands of products with frozen matrices are multiplied.

use crate::{Error, Result};

/// What the user asks for; adapters, norms, softmax, losses and the optimizer are f32 in either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32 everywhere: the same on every adapter, and in a browser.
    #[default]
    Exact,
    /// Operands in f16, sums in f32, on the adapter's matrix units.
    Mixed,
}

/// Names as on the command line.
pub const PRECISIONS: [(&str, Precision); 2] = [("exact", Precision::Exact), ("mixed", Precision::Mixed)];

impl Precision {
    /// The precision of that name.
    ///
    /// # Errors
    /// [`Error::Config`] for another name.
    pub fn by_name(name: &str) -> Result<Self> {
        let found = PRECISIONS.iter().find(|(known, _)| *known == name).map(|(_, precision)| *precision);
        found.ok_or_else(|| Error::config("precision", format!("`{name}` is unknown"), "give exact or mixed"))
    }
}

/// Bytes of workgroup memory that the products take in mixed precision.
const WORKGROUP_BYTES: u32 = 46 << 10;
/// Lanes of the subgroups that they are written for.
const SUBGROUP: u32 = 32;

/// What keeps an adapter from mixed precision; `None` where nothing does.
pub(super) fn obstacle(adapter: &wgpu::Adapter) -> Option<&'static str> {
    let (info, features) = (adapter.get_info(), adapter.features());
    let fits = |shape: &wgpu::CooperativeMatrixProperties| {
        (shape.m_size, shape.n_size, shape.k_size) == (16, 16, 16)
            && shape.ab_type == wgpu::CooperativeScalarType::F16
            && shape.cr_type == wgpu::CooperativeScalarType::F32
    };
    if !features.contains(FEATURES) || !adapter.cooperative_matrix_properties().iter().any(fits) {
        return Some("it has no matrix units for 16 x 16 numbers in f16 with sums in f32 that this program can reach");
    }
    if (info.subgroup_min_size, info.subgroup_max_size) != (SUBGROUP, SUBGROUP) {
        return Some("its subgroups are not of 32 lanes");
    }
    (adapter.limits().max_compute_workgroup_storage_size < WORKGROUP_BYTES).then_some("it has less than 46 KiB of workgroup memory")
}

/// What the device is asked for.
pub(super) const FEATURES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16);
