//! The GPU of a run and what was measured on it before.

use std::path::PathBuf;

use clap::Args;
use weblora::Result;
use weblora::gpu::{Gpu, GpuOptions, Tuner};

use super::files;

/// Arguments of every verb that opens a device.
#[derive(Debug, Clone, Default, Args)]
pub struct DeviceArgs {
    /// Use the GPU whose name contains this text.
    #[arg(long, value_name = "NAME", help_heading = "Device")]
    gpu: Option<String>,
    /// Do not measure which kernels are fastest on this GPU, and do not use earlier measurements.
    #[arg(long, help_heading = "Device")]
    no_tune: bool,
    /// Leave subgroup operations off: slower, for a driver that gets them wrong.
    #[arg(long, help_heading = "Device")]
    no_subgroups: bool,
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
        let options = GpuOptions { adapter: args.gpu.clone(), no_subgroups: args.no_subgroups, ..GpuOptions::default() };
        let gpu = pollster::block_on(Gpu::open(&options))?;
        let mut tuner = Tuner::for_device(&gpu);
        if !args.no_tune {
            // A cache that cannot be read is measured anew.
            if let Some(text) = cache_file(&tuner).and_then(|path| std::fs::read_to_string(path).ok()) {
                tuner.absorb_json(&text);
            }
        }
        Ok(Self { gpu, tuner, measure: !args.no_tune })
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

/// `weblora/tune-{device}.json` in the user's cache folder.
fn cache_file(tuner: &Tuner) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("XDG_CACHE_HOME").or_else(|| set("LOCALAPPDATA")).or_else(|| Some(set("HOME")?.join(".cache")))?;
    Some(folder.join("weblora").join(format!("tune-{:016x}.json", weblora::rng::fnv1a(&tuner.cache_key()))))
}
