//! Machines that are not at hand, and what is said of them.

use weblora::gpu::survey::{AdapterFeatures, AdapterKind, AdapterLimits, AdapterReport};

use super::advice::{Warning, warnings};
use super::machine::{DeviceFile, DriverFile, Machine};

pub fn adapter(name: &str, kind: AdapterKind) -> AdapterReport {
    AdapterReport {
        name: name.into(),
        kind,
        backend: "vulkan".into(),
        driver: "driver".into(),
        driver_version: "1.2".into(),
        pci: String::new(),
        limits: AdapterLimits {
            storage_binding: 1 << 27,
            buffer: 1 << 31,
            storage_buffers: 8,
            workgroup_memory: 32_768,
            invocations: 1024,
        },
        features: AdapterFeatures {
            subgroups: true,
            subgroup_sizes: (8, 8),
            timestamps: true,
            shader_f16: false,
            cooperative_matrices: Vec::new(),
        },
        missing: Vec::new(),
    }
}

fn llvmpipe() -> AdapterReport {
    adapter("llvmpipe (LLVM 15.0.6, 256 bits)", AdapterKind::Software)
}

fn linux() -> Machine {
    let mesa = driver("/usr/share/vulkan/icd.d/lvp_icd.x86_64.json", "libvulkan_lvp.so", None);
    Machine { os: "linux".into(), loader: Some("/usr/lib/libvulkan.so.1".into()), drivers: vec![mesa], ..Machine::default() }
}

fn driver(path: &str, library: &str, problem: Option<&str>) -> DriverFile {
    DriverFile { path: path.into(), library: library.into(), problem: problem.map(Into::into) }
}

fn device(path: &str, opens: bool) -> DeviceFile {
    DeviceFile { path: path.into(), opens }
}

/// The one warning of a machine: its code, and everything it says.
#[track_caller]
fn one(machine: &Machine, adapters: &[AdapterReport]) -> (&'static str, String) {
    let found = warnings(machine, adapters, adapters.first());
    let [Warning { code, problem, remedies }] = &found[..] else { panic!("{found:#?}") };
    assert!(!remedies.is_empty(), "{problem}: and then?");
    (code, format!("{problem}\n{}", remedies.join("\n")))
}

#[track_caller]
fn says(text: &str, words: &[&str], not: &[&str]) {
    words.iter().for_each(|word| assert!(text.contains(word), "{text}\nhas no {word:?}"));
    not.iter().for_each(|word| assert!(!text.contains(word), "{text}\nhas {word:?}"));
}

#[test]
fn a_gpu_that_answers_is_nothing_to_warn_of() {
    let mut machine = linux();
    machine.devices = vec![device("/dev/nvidia0", true)];
    let gpu = adapter("NVIDIA H100", AdapterKind::Discrete);
    assert_eq!(warnings(&machine, &[gpu.clone(), llvmpipe()], Some(&gpu)), []);
    let found = warnings(&machine, &[gpu, llvmpipe()], Some(&llvmpipe()));
    assert_eq!((found.len(), found[0].code), (1, "software-chosen"));
    says(&found[0].problem, &["NVIDIA H100"], &[]);
}

#[test]
fn a_gpu_device_file_with_only_llvmpipe_is_said_loudly() {
    let mut machine = linux();
    machine.container = true;
    machine.devices = vec![device("/dev/nvidia0", true)];
    let (code, text) = one(&machine, &[llvmpipe()]);
    assert_eq!(code, "gpu-not-used");
    let graphics = "NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility";
    says(&text, &["THE GPU IS NOT USED", "/dev/nvidia0", "llvmpipe", graphics, "is not set", "docs/gpu.Dockerfile"], &["--gpus all"]);
    machine.variables.insert("NVIDIA_DRIVER_CAPABILITIES".into(), "compute,utility".into());
    says(&one(&machine, &[llvmpipe()]).1, &[graphics, "it is compute,utility"], &[]);
    // The capability is there, the driver file is not.
    for capabilities in ["all", "compute, graphics"] {
        machine.variables.insert("NVIDIA_DRIVER_CAPABILITIES".into(), capabilities.into());
        says(&one(&machine, &[llvmpipe()]).1, &["nvidia_icd.json"], &[graphics]);
    }
    // It lies where the loader does not look.
    machine.drivers_elsewhere = vec!["/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json".into()];
    says(&one(&machine, &[llvmpipe()]).1, &["VK_DRIVER_FILES=/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json"], &[]);
}

#[test]
fn each_thing_that_an_nvidia_driver_may_lack_has_its_remedy() {
    let mut machine = linux();
    machine.devices = vec![device("/dev/nvidia0", true)];
    says(&one(&machine, &[llvmpipe()]).1, &["nvidia-vulkan-icd", "libnvidia-gl"], &["NVIDIA_DRIVER_CAPABILITIES", "docker"]);
    let file = "/etc/vulkan/icd.d/nvidia_icd.json";
    machine.drivers.push(driver(file, "libGLX_nvidia.so.0", Some("names a library that is not there")));
    says(&one(&machine, &[llvmpipe()]).1, &[file, "libGLX_nvidia.so.0"], &["libxext6"]);
    machine.drivers[1].problem = None;
    says(&one(&machine, &[llvmpipe()]).1, &["libx11-6", "libxext6", "libegl1", "VK_LOADER_DEBUG"], &["nvidia-vulkan-icd"]);
    // The host's kernel module and bus are seen in a container that was not given the GPU.
    let mut machine = Machine { container: true, nvidia_module: true, ..linux() };
    machine.pci = vec!["NVIDIA at 0000:01:00.0".into()];
    let (code, text) = one(&machine, &[llvmpipe()]);
    assert_eq!(code, "gpu-not-used");
    says(&text, &["NVIDIA at 0000:01:00.0", "--gpus all"], &[]);
    machine.container = false;
    says(&one(&machine, &[llvmpipe()]).1, &["nvidia-smi"], &["--gpus all"]);
}

#[test]
fn other_gpus_are_not_sent_to_nvidia() {
    let mut machine = linux();
    machine.devices = vec![device("/dev/dri/renderD128", true)];
    let (code, text) = one(&machine, &[llvmpipe()]);
    assert_eq!(code, "gpu-not-used");
    says(&text, &["/dev/dri/renderD128", "mesa-vulkan-drivers"], &["NVIDIA", "may not open"]);
    machine.devices[0].opens = false;
    says(&one(&machine, &[llvmpipe()]).1, &["may not open /dev/dri/renderD128", "render,video"], &[]);
    machine.devices = vec![device("/dev/dxg", true)];
    says(&one(&machine, &[llvmpipe()]).1, &["WSL", "Windows"], &["NVIDIA"]);
    machine.devices.clear();
    machine.pci = vec!["AMD at 0000:03:00.0".into()];
    says(&one(&machine, &[llvmpipe()]).1, &["AMD at", "kernel driver", "--device /dev/dri"], &["NVIDIA"]);
}

#[test]
fn variables_that_hide_drivers_are_named() {
    let mut machine = linux();
    machine.devices = vec![device("/dev/nvidia0", true)];
    machine.variables.insert("VK_DRIVER_FILES".into(), "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json".into());
    let text = one(&machine, &[llvmpipe()]).1;
    says(&text, &["VK_DRIVER_FILES is set to /usr/share/vulkan/icd.d/lvp_icd.x86_64.json", "unset it"], &[]);
    machine.drivers = vec![driver("/missing.json", "", Some("is not there"))];
    machine.variables = [("VK_ICD_FILENAMES".to_owned(), "/missing.json".to_owned())].into();
    let (code, text) = one(&machine, &[]);
    assert_eq!(code, "no-adapter");
    says(&text, &["VK_ICD_FILENAMES is set to /missing.json (/missing.json is not there)", "/dev/nvidia0"], &[]);
    machine.variables = [("WGPU_BACKEND".to_owned(), "gl".to_owned())].into();
    says(&one(&machine, &[]).1, &["WGPU_BACKEND is set to gl"], &[]);
    machine.variables = [("VK_LOADER_DRIVERS_DISABLE".to_owned(), "*nvidia*".to_owned())].into();
    says(&one(&machine, &[llvmpipe()]).1, &["VK_LOADER_DRIVERS_DISABLE is set to *nvidia*"], &[]);
}

#[test]
fn a_machine_without_any_adapter_is_told_what_to_install() {
    let mut machine = Machine { os: "linux".into(), ..Machine::default() };
    let (code, text) = one(&machine, &[]);
    assert_eq!(code, "no-vulkan-loader");
    says(&text, &["libvulkan.so.1", "libvulkan1", "mesa-vulkan-drivers"], &["although"]);
    machine.loader = Some("/usr/lib/libvulkan.so.1".into());
    let (code, text) = one(&machine, &[]);
    assert_eq!(code, "no-vulkan-driver");
    says(&text, &["/usr/share/vulkan/icd.d", "mesa-vulkan-drivers"], &["libvulkan1"]);
    machine.container = true;
    machine.devices = vec![device("/dev/nvidia0", true)];
    says(
        &one(&machine, &[]).1,
        &["although this machine has a GPU (/dev/nvidia0)", "NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility"],
        &[],
    );
    let (code, text) = one(&Machine { os: "windows".into(), ..Machine::default() }, &[]);
    assert_eq!(code, "no-adapter");
    says(&text, &["driver", "DX12"], &["libvulkan"]);
}

#[test]
fn a_software_adapter_without_a_sign_of_a_gpu_is_said_quietly() {
    let (code, text) = one(&linux(), &[llvmpipe()]);
    assert_eq!(code, "software");
    says(&text, &["llvmpipe", "computes on the CPU", "install its driver"], &["NOT USED", "docker"]);
    says(&one(&Machine { container: true, ..linux() }, &[llvmpipe()]).1, &["docker run --gpus all"], &[]);
}

#[test]
fn an_adapter_below_the_minimum_is_named() {
    let mut small = adapter("Old GPU", AdapterKind::Integrated);
    small.missing = vec!["4 storage buffers a kernel of 8".into()];
    let found = warnings(&linux(), &[small], None);
    assert_eq!((found.len(), found[0].code), (1, "limits"));
    says(&found[0].problem, &["Old GPU", "4 storage buffers a kernel of 8"], &[]);
}

#[test]
fn the_file_that_advice_names_is_there() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gpu.Dockerfile")).expect("docs/gpu.Dockerfile");
    says(&text, &["libvulkan1", "NVIDIA_DRIVER_CAPABILITIES=graphics,compute,utility", "nvidia_icd.json"], &[]);
}
