//! Which adapters there are and what each can do, for `weblora doctor`. Opens no device.

use serde::Serialize;

use super::device::{GpuOptions, find_adapter, instance, missing_limits};
use crate::Result;

/// All adapters, and which of them a run would take.
#[derive(Debug)]
pub struct Survey {
    /// In the order in which the API lists them.
    pub adapters: Vec<AdapterReport>,
    /// Place in `adapters` of the one that a run with these options takes, or why it takes none.
    pub taken: Result<usize>,
}

impl Survey {
    /// Asks every driver.
    pub async fn new(options: &GpuOptions) -> Self {
        let instance = instance();
        let all = instance.enumerate_adapters(wgpu::Backends::all()).await;
        let taken = find_adapter(&instance, options).await.map(|adapter| {
            let info = adapter.get_info();
            all.iter().position(|other| other.get_info() == info).unwrap_or_default()
        });
        Self { adapters: all.iter().map(AdapterReport::of).collect(), taken }
    }
}

/// One adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AdapterReport {
    /// Its name.
    pub name: String,
    /// What computes.
    pub kind: AdapterKind,
    /// "vulkan", "metal", "dx12".
    pub backend: String,
    /// The driver's name.
    pub driver: String,
    /// The driver's version, as it tells it.
    pub driver_version: String,
    /// Its place on the PCI bus; empty where the driver does not tell.
    pub pci: String,
    /// Limits that plans and kernels depend on.
    pub limits: AdapterLimits,
    /// Features that make kernels faster.
    pub features: AdapterFeatures,
    /// What of the WebGPU minimum it does not have: without that no run takes it.
    pub missing: Vec<String>,
}

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// The driver does not say.
    Other,
    /// A GPU of a virtual machine.
    Virtual,
    /// The CPU.
    Software,
}

impl AdapterKind {
    /// Its name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Other => "other",
            Self::Virtual => "virtual",
            Self::Software => "software",
        }
    }
}

/// Limits that plans and kernels depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdapterLimits {
    /// Largest storage binding in bytes.
    pub storage_binding: u64,
    /// Largest buffer in bytes.
    pub buffer: u64,
    /// Storage buffers of one kernel.
    pub storage_buffers: u32,
    /// Memory of a workgroup in bytes.
    pub workgroup_memory: u32,
    /// Invocations of a workgroup.
    pub invocations: u32,
}

/// Features that make kernels faster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AdapterFeatures {
    /// Subgroup operations in compute shaders.
    pub subgroups: bool,
    /// Smallest and largest subgroup size.
    pub subgroup_sizes: (u32, u32),
    /// Timestamps around passes.
    pub timestamps: bool,
    /// f16 in shaders.
    pub shader_f16: bool,
    /// Shapes of cooperative matrices that wgpu offers, such as "8x8x8 f32 to f32"; often fewer than the driver has.
    pub cooperative_matrices: Vec<String>,
}

impl AdapterReport {
    fn of(adapter: &wgpu::Adapter) -> Self {
        let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
        Self {
            name: info.name,
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
                wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
                wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
                wgpu::DeviceType::Cpu => AdapterKind::Software,
                wgpu::DeviceType::Other => AdapterKind::Other,
            },
            backend: info.backend.to_str().to_owned(),
            driver: info.driver,
            driver_version: info.driver_info,
            pci: info.device_pci_bus_id,
            missing: missing_limits(&limits),
            limits: AdapterLimits {
                storage_binding: limits.max_storage_buffer_binding_size,
                buffer: limits.max_buffer_size,
                storage_buffers: limits.max_storage_buffers_per_shader_stage,
                workgroup_memory: limits.max_compute_workgroup_storage_size,
                invocations: limits.max_compute_invocations_per_workgroup,
            },
            features: AdapterFeatures {
                subgroups: features.contains(wgpu::Features::SUBGROUP),
                subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
                timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
                shader_f16: features.contains(wgpu::Features::SHADER_F16),
                cooperative_matrices: adapter.cooperative_matrix_properties().iter().map(cooperative_matrix).collect(),
            },
        }
    }
}

/// "16x16x16 f16 to f32": rows, columns and inner size; type of the factors and of the sums.
fn cooperative_matrix(shape: &wgpu::CooperativeMatrixProperties) -> String {
    let name = |scalar| match scalar {
        wgpu::CooperativeScalarType::F32 => "f32",
        wgpu::CooperativeScalarType::F16 => "f16",
        wgpu::CooperativeScalarType::I32 => "i32",
        wgpu::CooperativeScalarType::U32 => "u32",
    };
    format!("{}x{}x{} {} to {}", shape.m_size, shape.n_size, shape.k_size, name(shape.ab_type), name(shape.cr_type))
}
