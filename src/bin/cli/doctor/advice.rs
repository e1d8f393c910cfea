//! What is wrong with a machine and its adapters, and what to do about it. Pure: facts in, sentences out.

use serde::Serialize;
use weblora::gpu::survey::{AdapterKind, AdapterReport};

use super::machine::Machine;

/// Something that keeps a run from the GPU, or from any adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// A stable short name for programs.
    pub code: &'static str,
    /// What is wrong.
    pub problem: String,
    /// What to do, each on its own; the likeliest first.
    pub remedies: Vec<String>,
}

impl Warning {
    fn new(code: &'static str, problem: impl Into<String>, remedies: impl IntoIterator<Item = String>) -> Self {
        Self { code, problem: problem.into(), remedies: remedies.into_iter().collect() }
    }
}

/// Everything that is wrong, the worst first. `taken` is the adapter that a run takes.
pub fn warnings(machine: &Machine, adapters: &[AdapterReport], taken: Option<&AdapterReport>) -> Vec<Warning> {
    let mut all = Vec::new();
    let hardware = adapters.iter().find(|adapter| adapter.kind != AdapterKind::Software);
    let software = adapters.iter().find(|adapter| adapter.kind == AdapterKind::Software);
    match (hardware, software) {
        (None, None) => all.push(no_adapter(machine)),
        (None, Some(software)) if shows_gpu(machine) => all.push(gpu_not_used(machine, software)),
        (None, Some(software)) => {
            let problem = format!("the only adapter, {}, computes on the CPU: it is right but far slower than a GPU", software.name);
            all.push(Warning::new("software", problem, [in_a_vm_or_container(machine)]));
        }
        (Some(hardware), _) if taken.is_some_and(|taken| taken.kind == AdapterKind::Software) => {
            let problem = format!("a run takes a software adapter, although {} is there", hardware.name);
            all.push(Warning::new("software-chosen", problem, ["leave --gpu away, or name the GPU with it".to_owned()]));
        }
        (Some(_), _) => {}
    }
    for adapter in adapters.iter().filter(|adapter| !adapter.missing.is_empty()) {
        let problem = format!("{} has less than the WebGPU minimum, and no run can take it: {}", adapter.name, adapter.missing.join(", "));
        all.push(Warning::new("limits", problem, ["update its driver, or take another adapter with --gpu NAME".to_owned()]));
    }
    all
}

/// Whether files say that there is a GPU.
fn shows_gpu(machine: &Machine) -> bool {
    !machine.devices.is_empty() || !machine.pci.is_empty() || machine.nvidia_module
}

fn has_nvidia(machine: &Machine) -> bool {
    machine.nvidia_module
        || machine.devices.iter().any(|device| device.path.starts_with("/dev/nvidia"))
        || machine.pci.iter().any(|gpu| gpu.starts_with("NVIDIA"))
}

/// What shows that there is a GPU, in words.
fn evidence(machine: &Machine) -> String {
    let mut signs: Vec<&str> = machine.devices.iter().map(|device| device.path.as_str()).collect();
    signs.extend(machine.pci.iter().map(String::as_str));
    if machine.nvidia_module && signs.is_empty() {
        signs.push("NVIDIA's kernel module");
    }
    signs.join(", ")
}

/// Nothing answers, not even a software adapter.
fn no_adapter(machine: &Machine) -> Warning {
    if machine.os != "linux" {
        let remedies = ["install the GPU's current driver: weblora needs Vulkan, Metal or DX12".to_owned()];
        return Warning::new("no-adapter", "no adapter answers", backend(machine).into_iter().chain(remedies));
    }
    let found = if shows_gpu(machine) { format!(", although this machine has a GPU ({})", evidence(machine)) } else { String::new() };
    if machine.loader.is_none() {
        let problem = format!("Vulkan's loader (libvulkan.so.1) is not installed{found}");
        let loader = "install the loader (Debian, Ubuntu: apt-get install libvulkan1; Fedora: dnf install vulkan-loader)".to_owned();
        return Warning::new("no-vulkan-loader", problem, std::iter::once(loader).chain(driver_remedies(machine)));
    }
    let (code, problem) = if machine.drivers.is_empty() {
        ("no-vulkan-driver", "Vulkan has no driver: no file (ICD) in /etc/vulkan/icd.d or /usr/share/vulkan/icd.d names one")
    } else {
        ("no-adapter", "Vulkan's drivers find no adapter")
    };
    Warning::new(code, format!("{problem}{found}"), backend(machine).into_iter().chain(driver_remedies(machine)))
}

/// There is a GPU, and only the CPU answers.
fn gpu_not_used(machine: &Machine, software: &AdapterReport) -> Warning {
    let problem = format!(
        "THE GPU IS NOT USED: this machine has one ({}), but Vulkan shows only {}, which computes on the CPU",
        evidence(machine),
        software.name
    );
    Warning::new("gpu-not-used", problem, driver_remedies(machine))
}

/// A variable of wgpu that leaves backends out.
fn backend(machine: &Machine) -> Option<String> {
    machine.variable("WGPU_BACKEND").map(|backend| format!("WGPU_BACKEND is set to {backend}: unset it, or add vulkan, metal or dx12"))
}

/// What makes Vulkan find the driver of a GPU, the likeliest first.
fn driver_remedies(machine: &Machine) -> Vec<String> {
    let mut remedies = Vec::new();
    if let Some((name, value)) = machine.driver_files_variable() {
        let broken = machine.drivers.iter().find_map(|driver| Some(format!("{} {}", driver.path, driver.problem.as_deref()?)));
        let why = broken.unwrap_or_else(|| "Vulkan sees no other drivers".into());
        remedies.push(format!("{name} is set to {value} ({why}): unset it, or name the GPU's driver file"));
    }
    for name in ["VK_LOADER_DRIVERS_SELECT", "VK_LOADER_DRIVERS_DISABLE"] {
        if let Some(value) = machine.variable(name) {
            remedies.push(format!("{name} is set to {value}, which leaves drivers out: unset it"));
        }
    }
    for device in machine.devices.iter().filter(|device| !device.opens) {
        let groups = if device.path.starts_with("/dev/dri") || device.path == "/dev/kfd" { " (usermod -aG render,video USER)" } else { "" };
        remedies.push(format!("this user may not open {}: give the right{groups}, then log in again", device.path));
    }
    if has_nvidia(machine) {
        nvidia_remedies(machine, &mut remedies);
    }
    if machine.devices.iter().any(|device| device.path.starts_with("/dev/dri")) && !has_nvidia(machine) {
        remedies.push(
            "install the Vulkan driver of the GPU (AMD and Intel on Debian, Ubuntu: mesa-vulkan-drivers; Fedora: mesa-vulkan-drivers)"
                .into(),
        );
    }
    if machine.devices.iter().any(|device| device.path == "/dev/dxg") {
        remedies.push("under WSL Vulkan reaches the GPU through Mesa's driver dzn, where mesa-vulkan-drivers has it; or run weblora on Windows itself".into());
    }
    if machine.devices.is_empty() && !machine.pci.is_empty() && !has_nvidia(machine) {
        remedies.push("load the GPU's kernel driver; in a container pass its device (docker run --device /dev/dri)".into());
    }
    if !shows_gpu(machine) && machine.driver_files_variable().is_none() {
        remedies.push(in_a_vm_or_container(machine));
        remedies.push("without a GPU: a software adapter does for tests (Debian, Ubuntu: apt-get install mesa-vulkan-drivers)".into());
    }
    if machine.loader.is_some() && !machine.drivers.is_empty() {
        remedies.push("see what the loader tries: VK_LOADER_DEBUG=error,warn,driver weblora doctor".into());
    }
    remedies
}

fn nvidia_remedies(machine: &Machine, remedies: &mut Vec<String>) {
    let reached = machine.devices.iter().any(|device| device.path.starts_with("/dev/nvidia"));
    let registered = machine.drivers.iter().find(|driver| driver.library.contains("nvidia"));
    let works = registered.is_some_and(|driver| driver.problem.is_none());
    if !reached {
        remedies.push(if machine.container {
            "give the container the GPU: docker run --gpus all (needs NVIDIA's container toolkit on the host)".to_owned()
        } else {
            "load NVIDIA's kernel driver: nvidia-smi says why it does not run".to_owned()
        });
    }
    if registered.is_none()
        && let Some(file) = machine.drivers_elsewhere.iter().find(|file| file.contains("nvidia"))
    {
        remedies.push(format!("name NVIDIA's driver file, which the loader does not search for: VK_DRIVER_FILES={file}"));
    }
    if let Some(driver) = registered.filter(|driver| driver.problem.is_some()) {
        remedies.push(format!(
            "{} names {}, which is in no library folder: NVIDIA's graphics libraries are missing",
            driver.path, driver.library
        ));
    }
    let capabilities = machine.variable("NVIDIA_DRIVER_CAPABILITIES");
    let has_graphics = capabilities.is_some_and(|list| list.split(',').any(|one| matches!(one.trim(), "graphics" | "all")));
    if machine.container && !works && !has_graphics {
        let now = capabilities.map_or_else(|| "is not set, which means compute,utility".to_owned(), |list| format!("is {list}"));
        remedies.push(format!(
            "start the container with the driver's graphics capability, which Vulkan is part of: NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility \
             (it {now}); docs/gpu.Dockerfile sets it"
        ));
    }
    if machine.container && !works && has_graphics && registered.is_none() {
        remedies.push(
            "write NVIDIA's driver file as docs/gpu.Dockerfile does: older container toolkits bring the libraries but not nvidia_icd.json"
                .into(),
        );
    }
    if !machine.container && !works {
        remedies.push(
            "install the Vulkan part of NVIDIA's driver (Debian: nvidia-vulkan-icd; Ubuntu: libnvidia-gl of the driver's version)".into(),
        );
    }
    if works && reached {
        remedies.push(
            "NVIDIA's library is there but finds no GPU: install what it loads (apt-get install libx11-6 libxext6 libegl1 libgl1)".into(),
        );
    }
}

/// What to look for where nothing shows a GPU.
fn in_a_vm_or_container(machine: &Machine) -> String {
    if machine.container {
        "if the host has a GPU, give it to the container: docker run --gpus all with docs/gpu.Dockerfile (NVIDIA), --device /dev/dri (AMD, Intel)".into()
    } else {
        "if the machine has a GPU, install its driver; a virtual machine must be given it by its host".into()
    }
}
