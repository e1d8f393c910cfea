//! The adapter and the device: the only place where features and limits are requested.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::experimental;
use super::kernel::{KernelSpec, Variant};
use super::precision::{self, Precision};
use super::shader;
#[cfg(target_arch = "wasm32")]
use super::web_subgroups;
use crate::{Error, Result};

/// What the caller may wish of the device.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// Only an adapter whose name contains this (case-insensitive); `None` takes the strongest.
    pub adapter: Option<String>,
    /// Request only the WebGPU floor of limits and no features, to prove that it is enough.
    pub floor: bool,
    /// Leave subgroup operations off, for a driver that gets them wrong.
    pub no_subgroups: bool,
    /// Take the kernels that a card with many cores gets, whatever the adapter is: tests of those kernels need no card.
    pub as_card: bool,
    /// In what precision products with frozen matrices are computed.
    pub precision: Precision,
    /// Refuse an adapter that computes on the CPU.
    pub refuse_software: bool,
}

/// What the adapter is and can do, for reports, caches and kernel choice.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Adapter name.
    pub name: String,
    /// Driver name and version; part of the key of the variant cache.
    pub driver: String,
    /// "vulkan", "metal", "dx12", "webgpu".
    pub backend: String,
    /// A software rasteriser.
    pub is_cpu: bool,
    /// A card of its own, not a part of a processor; browsers do not tell.
    pub is_discrete: bool,
    /// Subgroup operations can be used in compute shaders.
    pub subgroups: bool,
    /// Smallest and largest subgroup size.
    pub subgroup_sizes: (u32, u32),
    /// Timestamps around passes can be taken.
    pub timestamps: bool,
    /// Products with frozen matrices run on matrix units, with operands in f16.
    pub mixed: bool,
    /// Largest storage binding in bytes.
    pub max_binding: u64,
}

impl Facts {
    /// How many neighbouring lanes can broadcast to each other, whichever subgroup size the driver picks: 8, 4, or 0 for none.
    pub fn broadcast_width(&self) -> u32 {
        let smallest = self.subgroup_sizes.0;
        [8, 4].into_iter().find(|lanes| self.subgroups && smallest >= *lanes && smallest.is_multiple_of(*lanes)).unwrap_or(0)
    }
}

/// Limits that plans must respect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlanLimits {
    /// Largest storage binding in bytes.
    pub max_binding: u64,
    /// Largest buffer in bytes.
    pub max_buffer: u64,
}

impl PlanLimits {
    /// The WebGPU floor: 128 MiB a binding, 256 MiB a buffer.
    pub const FLOOR: PlanLimits = PlanLimits { max_binding: 128 << 20, max_buffer: 256 << 20 };

    /// Bytes of the largest binding whose words a kernel can count: less than 4 GiB, whatever the device binds.
    pub fn addressable(self) -> u64 {
        self.max_binding.min(u32::MAX.into())
    }
}

fn plan_limits(limits: &wgpu::Limits) -> PlanLimits {
    let binding = limits.max_storage_buffer_binding_size.min(u64::from(u32::MAX) & !255);
    PlanLimits { max_binding: binding, max_buffer: limits.max_buffer_size }
}

/// An open device with its pipeline cache.
pub struct Gpu {
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    facts: Facts,
    limits: wgpu::Limits,
    pipelines: Mutex<HashMap<(&'static str, String), Pipeline>>,
    trouble: Arc<Mutex<Trouble>>,
}

/// A compiled kernel variant.
#[derive(Clone)]
pub(super) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// What the driver reported behind our back.
#[derive(Default)]
struct Trouble {
    lost: Option<String>,
    error: Option<String>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(not(target_arch = "wasm32"))]
const NO_ADAPTER_HINT: &str = "`weblora doctor` says what is missing, such as a Vulkan driver (Debian: mesa-vulkan-drivers)";
#[cfg(target_arch = "wasm32")]
const NO_ADAPTER_HINT: &str = "use a browser with WebGPU enabled, and a GPU or driver that it does not block";
const SOFTWARE_HINT: &str = "run `weblora doctor`: it says why no GPU answers";

impl Gpu {
    /// Opens the strongest adapter that fits `options`.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if none answers, it has less than the WebGPU floor, or it is a software adapter and `options` refuse those.
    pub async fn open(options: &GpuOptions) -> Result<Gpu> {
        let adapter = find_adapter(&instance(), options).await?;
        let info = adapter.get_info();
        let mut features = wgpu::Features::TIMESTAMP_QUERY | wgpu::Features::SUBGROUP;
        let mut limits = adapter.limits();
        if options.floor {
            features = wgpu::Features::empty();
            limits = floor_limits();
        }
        if options.no_subgroups {
            features.remove(wgpu::Features::SUBGROUP);
        }
        let mixed = options.precision == Precision::Mixed;
        if mixed {
            if let Some(obstacle) = precision::obstacle(&adapter) {
                let what = format!("mixed precision on {}", info.name);
                return Err(Error::Unsupported { what, hint: format!("{obstacle}: leave out --precision mixed") });
            }
            features |= precision::FEATURES;
        }
        let wanted = features.contains(wgpu::Features::SUBGROUP);
        let features = features & adapter.features();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("weblora"),
            required_features: features,
            required_limits: limits.clone(),
            experimental_features: experimental::features(mixed),
            ..Default::default()
        };
        #[cfg(target_arch = "wasm32")]
        let (request, subgroups) = web_subgroups::asking_for_subgroups(wanted, || adapter.request_device(&descriptor));
        #[cfg(not(target_arch = "wasm32"))]
        let (request, subgroups) = (adapter.request_device(&descriptor), wanted && features.contains(wgpu::Features::SUBGROUP));
        let (device, queue) = request
            .await
            .map_err(|e| Error::NoAdapter { problem: format!("{} refused a device: {e}", info.name), hint: NO_ADAPTER_HINT })?;
        let trouble = Arc::new(Mutex::new(Trouble::default()));
        let (lost, failed) = (trouble.clone(), trouble.clone());
        device.set_device_lost_callback(move |_, message| lock(&lost).lost = Some(message));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            lock(&failed).error.get_or_insert(error.to_string());
        }));
        let facts = Facts {
            // Browsers may keep it to themselves.
            name: if info.name.is_empty() { info.backend.to_str().to_string() } else { info.name.clone() },
            driver: format!("{} {}", info.driver, info.driver_info),
            backend: info.backend.to_str().to_string(),
            is_cpu: info.device_type == wgpu::DeviceType::Cpu && !options.as_card,
            is_discrete: info.device_type == wgpu::DeviceType::DiscreteGpu || options.as_card,
            subgroups,
            subgroup_sizes: (info.subgroup_min_size, info.subgroup_max_size),
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            mixed,
            max_binding: plan_limits(&limits).max_binding,
        };
        Ok(Gpu { device, queue, facts, limits, pipelines: Mutex::default(), trouble })
    }

    /// What the adapter is and can do.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Pipelines compiled so far.
    pub fn pipelines(&self) -> usize {
        lock(&self.pipelines).len()
    }

    /// What a plan for this device must respect.
    pub fn plan_limits(&self) -> PlanLimits {
        plan_limits(&self.limits)
    }

    /// Reports what the driver said since the last call: a lost device or an error nobody caught.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`].
    pub fn check(&self) -> Result<()> {
        let mut trouble = lock(&self.trouble);
        if let Some(reason) = &trouble.lost {
            return Err(Error::DeviceLost { reason: reason.clone() });
        }
        match trouble.error.take() {
            Some(message) => Err(Error::Gpu { what: "a submitted command".into(), message }),
            None => Ok(()),
        }
    }

    /// Destroys the device, as a driver reset would; for tests of recovery.
    pub fn destroy(&self) {
        self.device.destroy();
        lock(&self.trouble).lost.get_or_insert("destroyed on request".into());
    }

    /// A zeroed storage buffer.
    pub(super) async fn create_storage(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        if bytes > self.limits.max_buffer_size {
            return Err(Error::Limit {
                what: format!("buffer {label}"),
                needed: format!("{bytes} bytes"),
                allowed: format!("{} bytes", self.limits.max_buffer_size),
                hint: "use a smaller --batch or --seq, or a smaller model",
            });
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer =
            self.device.create_buffer(&wgpu::BufferDescriptor { label: Some(label), size: bytes, usage, mapped_at_creation: false });
        match scope.pop().await {
            None => Ok(buffer),
            Some(_) => Err(Error::OutOfMemory { what: label.into(), bytes }),
        }
    }

    /// The compiled pipeline of a variant, made at most once.
    pub(super) fn pipeline(&self, spec: &'static KernelSpec, variant: &Variant) -> Result<Pipeline> {
        let key = (spec.name, variant.key());
        if let Some(found) = lock(&self.pipelines).get(&key) {
            return Ok(found.clone());
        }
        let made = self.compile(spec, variant)?;
        lock(&self.pipelines).insert(key, made.clone());
        Ok(made)
    }

    fn compile(&self, spec: &'static KernelSpec, variant: &Variant) -> Result<Pipeline> {
        let label = format!("{} {}", spec.name, variant.key());
        let text = shader::compose(spec, variant, cfg!(target_arch = "wasm32"))?;
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(text.into()) });
        let entry = |binding: u32, ty: wgpu::BufferBindingType, dynamic: bool| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: dynamic, min_binding_size: None },
            count: None,
        };
        let mut entries = vec![entry(0, wgpu::BufferBindingType::Uniform, true)];
        for (i, access) in spec.bindings.iter().enumerate() {
            let read_only = !access.declared_writable();
            entries.push(entry(i as u32 + 1, wgpu::BufferBindingType::Storage { read_only }, false));
        }
        let layout = self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
        let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(&label),
            bind_group_layouts: &[Some(&layout)],
            immediate_size: 0,
        });
        let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(&label),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some("main"),
            // Every kernel writes its workgroup memory before it reads it.
            compilation_options: wgpu::PipelineCompilationOptions { zero_initialize_workgroup_memory: false, ..Default::default() },
            cache: None,
        });
        Ok(Pipeline { pipeline, layout })
    }
}

/// The adapter that `options` take: the first whose name fits, or the strongest.
pub(super) async fn find_adapter(instance: &wgpu::Instance, options: &GpuOptions) -> Result<wgpu::Adapter> {
    let adapter = named_or_strongest(instance, options).await?;
    let name = adapter.get_info().name;
    let missing = missing_limits(&adapter.limits());
    if !missing.is_empty() {
        return Err(no_adapter(format!("{name} has less than the WebGPU minimum limits: {}", missing.join(", "))));
    }
    if options.refuse_software && adapter.get_info().device_type == wgpu::DeviceType::Cpu {
        let problem = format!("{name} computes on the CPU, which --require-gpu or WEBLORA_REQUIRE_GPU refuses");
        return Err(Error::NoAdapter { problem, hint: SOFTWARE_HINT });
    }
    Ok(adapter)
}

async fn named_or_strongest(instance: &wgpu::Instance, options: &GpuOptions) -> Result<wgpu::Adapter> {
    #[cfg(not(target_arch = "wasm32"))]
    if let Some(name) = &options.adapter {
        let all = instance.enumerate_adapters(wgpu::Backends::all()).await;
        let names: Vec<String> = all.iter().map(|a| a.get_info().name).collect();
        let wanted = name.to_lowercase();
        let found = all.into_iter().find(|a| a.get_info().name.to_lowercase().contains(&wanted));
        return found.ok_or_else(|| no_adapter(format!("none is called `{name}`; there are: {}", names.join(", "))));
    }
    let _ = options; // in a browser an adapter has no name to ask for
    let request = wgpu::RequestAdapterOptions { power_preference: wgpu::PowerPreference::HighPerformance, ..Default::default() };
    instance.request_adapter(&request).await.map_err(|e| no_adapter(e.to_string()))
}

fn no_adapter(problem: String) -> Error {
    Error::NoAdapter { problem, hint: NO_ADAPTER_HINT }
}

/// The API as the environment variables of wgpu select it.
pub(super) fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle_from_env())
}

/// What of the WebGPU minimum `limits` do not have.
pub(super) fn missing_limits(limits: &wgpu::Limits) -> Vec<String> {
    let floor = floor_limits();
    let pairs = [
        ("storage buffers a kernel", limits.max_storage_buffers_per_shader_stage.into(), floor.max_storage_buffers_per_shader_stage.into()),
        (
            "invocations a workgroup",
            limits.max_compute_invocations_per_workgroup.into(),
            floor.max_compute_invocations_per_workgroup.into(),
        ),
        ("bytes of workgroup memory", limits.max_compute_workgroup_storage_size.into(), floor.max_compute_workgroup_storage_size.into()),
        ("bytes a storage binding", limits.max_storage_buffer_binding_size, floor.max_storage_buffer_binding_size),
        ("bytes a buffer", limits.max_buffer_size, floor.max_buffer_size),
    ];
    pairs
        .into_iter()
        .filter(|(_, has, needs)| has < needs)
        .map(|(what, has, needs): (_, u64, u64)| format!("{has} {what} of {needs}"))
        .collect()
}

fn floor_limits() -> wgpu::Limits {
    wgpu::Limits::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_below_the_minimum_is_told_what_it_lacks() {
        let floor = floor_limits();
        assert_eq!(missing_limits(&floor), Vec::<String>::new());
        let small = wgpu::Limits { max_storage_buffers_per_shader_stage: 4, max_buffer_size: 1 << 20, ..floor };
        assert_eq!(missing_limits(&small), ["4 storage buffers a kernel of 8", "1048576 bytes a buffer of 268435456"]);
    }

    #[test]
    fn lanes_share_where_every_subgroup_holds_whole_groups() {
        let lanes = |subgroups, sizes| {
            let facts = Facts {
                name: String::new(),
                driver: String::new(),
                backend: String::new(),
                is_cpu: false,
                is_discrete: false,
                subgroups,
                subgroup_sizes: sizes,
                timestamps: false,
                mixed: false,
                max_binding: PlanLimits::FLOOR.max_binding,
            };
            facts.broadcast_width()
        };
        // NVIDIA, AMD, Intel, llvmpipe; SwiftShader; what is too small or no multiple; no subgroups.
        for sizes in [(32, 32), (32, 64), (8, 32), (8, 8)] {
            assert_eq!(lanes(true, sizes), 8, "{sizes:?}");
            assert_eq!(lanes(false, sizes), 0, "{sizes:?}");
        }
        assert_eq!(lanes(true, (4, 4)), 4);
        assert_eq!(lanes(true, (4, 128)), 4, "the bounds of WebGPU");
        for sizes in [(0, 0), (1, 1), (2, 64), (6, 6)] {
            assert_eq!(lanes(true, sizes), 0, "{sizes:?}");
        }
    }
}
