//! The GPU of a run and what was measured on it before.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::Args;
use weblora::Result;
use weblora::bench::checked_mixed;
use weblora::gpu::device::Facts;
use weblora::gpu::precision::Precision;
use weblora::gpu::{Gpu, GpuOptions, Tuner};

use super::{files, output};

/// The same as --require-gpu, for every verb.
const REQUIRE_GPU: &str = "WEBLORA_REQUIRE_GPU";

/// Arguments of every verb that opens a device.
#[derive(Debug, Clone, Default, Args)]
pub struct DeviceArgs {
    /// Use the GPU whose name contains this text.
    #[arg(long, value_name = "NAME", help_heading = "Device")]
    pub gpu: Option<String>,
    /// Refuse an adapter that computes on the CPU (also WEBLORA_REQUIRE_GPU=1).
    #[arg(long, help_heading = "Device")]
    require_gpu: bool,
    /// Do not measure which kernels are fastest on this GPU, and do not use earlier measurements.
    #[arg(long, help_heading = "Device")]
    no_tune: bool,
    /// How products with the frozen base are computed: exact (f32), or mixed: operands in f16, sums in f32, on the matrix units that some
    /// GPUs have; faster on large models, and not bit for bit what other adapters compute [default: exact].
    #[arg(long, help_heading = "Device", value_name = "NAME", value_parser = precision)]
    precision: Option<Precision>,
    /// Leave subgroup operations off: slower, for a driver that gets them wrong.
    #[arg(long, help_heading = "Device")]
    no_subgroups: bool,
}

impl DeviceArgs {
    /// What the device is asked for.
    pub fn options(&self) -> GpuOptions {
        GpuOptions {
            adapter: self.gpu.clone(),
            no_subgroups: self.no_subgroups,
            refuse_software: self.requires_gpu(),
            precision: self.precision.unwrap_or_default(),
            ..GpuOptions::default()
        }
    }

    /// Whether only a GPU will do.
    pub fn requires_gpu(&self) -> bool {
        self.require_gpu || is_on(std::env::var_os(REQUIRE_GPU).as_deref())
    }
}

fn precision(name: &str) -> std::result::Result<Precision, String> {
    Precision::by_name(name).map_err(|error| error.to_string())
}

/// Whether a variable switches something on: unset, empty and 0 do not.
fn is_on(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty() && value != "0")
}

/// An opened device with its measurements.
pub struct Device {
    /// The device.
    pub gpu: Gpu,
    /// What was measured on it.
    pub tuner: Tuner,
    /// Whether to measure what is not known yet.
    pub measure: bool,
}

impl Device {
    /// Opens the device and reads the measurements of earlier runs.
    pub fn open(args: &DeviceArgs) -> Result<Self> {
        let gpu = pollster::block_on(Gpu::open(&args.options()))?;
        if gpu.facts().mixed {
            pollster::block_on(checked_mixed(&gpu))?;
        }
        let mut tuner = Tuner::for_device(&gpu);
        if !args.no_tune {
            // A cache that cannot be read is measured anew.
            if let Some(text) = cache_file(&tuner).and_then(|path| std::fs::read_to_string(path).ok()) {
                tuner.absorb_json(&text);
            }
        }
        Ok(Self { gpu, tuner, measure: !args.no_tune })
    }

    /// One line on stderr, also with `--json`, where the CPU does the work of a GPU.
    pub fn warn_of_software(&self) {
        if let Some(warning) = software_warning(self.gpu.facts()) {
            output::say(&format!("warning: {warning}"));
        }
    }

    /// Keeps the measurements for the next run. A read-only home only costs the next run the measuring.
    pub fn remember(&self) {
        if !self.measure {
            return;
        }
        let Some(path) = cache_file(&self.tuner) else { return };
        if path.parent().is_some_and(|folder| std::fs::create_dir_all(folder).is_ok()) {
            files::write_atomic(&path, self.tuner.to_json().as_bytes()).ok();
        }
    }
}

/// What to say of an adapter that computes on the CPU.
fn software_warning(facts: &Facts) -> Option<String> {
    let name = output::name(&facts.name);
    facts.is_cpu.then(|| format!("{name} computes on the CPU, far slower than a GPU; `weblora doctor` says why, --require-gpu refuses it"))
}

/// The folder of the kernel choices of all adapters: `weblora` in the user's cache folder.
pub fn cache_folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CACHE_HOME").or_else(|| set("LOCALAPPDATA")).or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(folder.join("weblora"))
}

/// `tune-{device}.json` in [`cache_folder`].
pub fn cache_file(tuner: &Tuner) -> Option<PathBuf> {
    Some(cache_folder()?.join(format!("tune-{:016x}.json", weblora::rng::fnv1a(&tuner.cache_key()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_on_where_it_is_set_to_something() {
        for (value, on) in [(None, false), (Some(""), false), (Some("0"), false), (Some("1"), true), (Some("yes"), true)] {
            assert_eq!(is_on(value.map(OsStr::new)), on, "{value:?}");
        }
    }

    #[test]
    fn only_a_software_adapter_is_warned_of() {
        let facts = |is_cpu| Facts {
            name: "llvmpipe".into(),
            driver: String::new(),
            backend: "vulkan".into(),
            is_cpu,
            is_discrete: !is_cpu,
            subgroups: true,
            subgroup_sizes: (8, 8),
            timestamps: true,
            mixed: false,
            max_binding: 128 << 20,
        };
        let warning = software_warning(&facts(true)).expect("a warning");
        for word in ["llvmpipe", "CPU", "weblora doctor", "--require-gpu"] {
            assert!(warning.contains(word) && !warning.contains('\n'), "{warning}");
        }
        assert_eq!(software_warning(&facts(false)), None);
    }
}
