//! What a machine shows of its GPUs and of Vulkan without asking Vulkan: files and environment variables.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Vulkan's loader on Linux.
const LOADER: &str = "libvulkan.so.1";
/// Where containers of some clouds keep NVIDIA's driver files, which the loader does not search.
const ELSEWHERE: [&str; 2] = ["/usr/local/nvidia/share/vulkan/icd.d", "/usr/local/nvidia/vulkan/icd.d"];
/// Variables that decide what Vulkan, its driver and wgpu see.
const VARIABLES: [&str; 10] = [
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_ADD_DRIVER_FILES",
    "VK_LOADER_DRIVERS_SELECT",
    "VK_LOADER_DRIVERS_DISABLE",
    "WGPU_BACKEND",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "CUDA_VISIBLE_DEVICES",
    "WEBLORA_REQUIRE_GPU",
];

/// What a machine shows.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// "linux", "macos", "windows". Only on Linux are files looked at.
    pub os: String,
    /// Device files of GPUs.
    pub devices: Vec<DeviceFile>,
    /// GPUs on the PCI bus, such as "NVIDIA at 0000:01:00.0".
    pub pci: Vec<String>,
    /// Whether the kernel module of NVIDIA's driver is loaded, in this container or on its host.
    pub nvidia_module: bool,
    /// Vulkan's loader.
    pub loader: Option<String>,
    /// The driver files that the loader reads, in its order.
    pub drivers: Vec<DriverFile>,
    /// Driver files at places where the loader does not look.
    pub drivers_elsewhere: Vec<String>,
    /// Whether this is a container.
    pub container: bool,
    /// Variables that are set.
    pub variables: BTreeMap<String, String>,
}

/// A device file of a GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceFile {
    /// Such as "/dev/nvidia0".
    pub path: String,
    /// Whether this user may open it for reading and writing.
    pub opens: bool,
}

/// A file that tells Vulkan's loader of a driver (an ICD manifest).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DriverFile {
    /// Its path.
    pub path: String,
    /// The driver's library, as the file names it.
    pub library: String,
    /// What is wrong with it.
    pub problem: Option<String>,
}

impl Machine {
    /// Looks at the files below `root` ("/" but for tests) and the variables.
    pub fn read(root: &Path, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &&str| variable(name).filter(|value| !value.is_empty()).map(|value| ((*name).to_owned(), value));
        let mut machine =
            Self { os: std::env::consts::OS.into(), variables: VARIABLES.iter().filter_map(set).collect(), ..Self::default() };
        if machine.os != "linux" {
            return machine;
        }
        let disk = Disk { root };
        let libraries = library_folders(&disk, &variable);
        machine.devices = device_files(&disk);
        machine.pci = gpus_on_pci(&disk);
        machine.nvidia_module = disk.exists("/proc/driver/nvidia/version");
        machine.loader = libraries.iter().map(|folder| format!("{folder}/{LOADER}")).find(|path| disk.exists(path));
        let (files, folders) = driver_places(&variable);
        let mut paths: Vec<String> = files.iter().flat_map(|place| disk.manifests(place).unwrap_or_else(|| vec![place.clone()])).collect();
        paths.extend(folders.iter().flat_map(|folder| disk.manifests(folder).unwrap_or_default()));
        machine.drivers = paths.iter().map(|path| driver_file(&disk, path, &libraries)).collect();
        let elsewhere = ELSEWHERE.iter().flat_map(|folder| disk.manifests(folder).unwrap_or_default());
        machine.drivers_elsewhere = elsewhere.filter(|path| !paths.contains(path)).collect();
        machine.container = ["/.dockerenv", "/run/.containerenv"].iter().any(|path| disk.exists(path))
            || ["KUBERNETES_SERVICE_HOST", "container"].iter().any(|name| variable(name).is_some());
        machine
    }

    /// A variable's value, where it is set.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// The variable that replaces the loader's search for driver files, with its value.
    pub fn driver_files_variable(&self) -> Option<(&'static str, &str)> {
        ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"].into_iter().find_map(|name| Some((name, self.variable(name)?)))
    }
}

/// The files below a root.
struct Disk<'a> {
    root: &'a Path,
}

impl Disk<'_> {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn exists(&self, path: &str) -> bool {
        self.at(path).exists()
    }

    /// The names in a folder, sorted; none where it cannot be listed.
    fn names(&self, folder: &str) -> Option<Vec<String>> {
        let entries = fs::read_dir(self.at(folder)).ok()?;
        let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Some(names)
    }

    fn text(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    /// Paths of the JSON files in a folder.
    fn manifests(&self, folder: &str) -> Option<Vec<String>> {
        let json = |name: &String| name.ends_with(".json");
        Some(self.names(folder)?.iter().filter(|name| json(name)).map(|name| format!("{}/{name}", folder.trim_end_matches('/'))).collect())
    }
}

/// Device files by which drivers reach GPUs: NVIDIA's, the render nodes of all others, AMD's compute, WSL's.
fn device_files(disk: &Disk<'_>) -> Vec<DeviceFile> {
    let numbered = |name: &str, prefix: &str| {
        name.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|digit| digit.is_ascii_digit()))
    };
    let below = |folder: &str, prefix: &str| -> Vec<String> {
        let names = disk.names(folder).unwrap_or_default();
        names.iter().filter(|name| numbered(name, prefix)).map(|name| format!("{folder}/{name}")).collect()
    };
    let single = ["/dev/kfd", "/dev/dxg"].iter().filter(|path| disk.exists(path)).map(|path| (*path).to_owned());
    let paths = below("/dev", "nvidia").into_iter().chain(below("/dev/dri", "renderD")).chain(single);
    let opens = |path: &str| fs::OpenOptions::new().read(true).write(true).open(disk.at(path)).is_ok();
    paths.map(|path| DeviceFile { opens: opens(&path), path }).collect()
}

/// Display controllers and accelerators of the makers of GPUs; those that virtual machines and servers have for a console do not count.
fn gpus_on_pci(disk: &Disk<'_>) -> Vec<String> {
    const FOLDER: &str = "/sys/bus/pci/devices";
    let read = |address: &str, name: &str| disk.text(&format!("{FOLDER}/{address}/{name}")).unwrap_or_default().trim().to_owned();
    let gpu = |address: &String| {
        let class = read(address, "class");
        let maker = match read(address, "vendor").as_str() {
            "0x10de" => "NVIDIA",
            "0x1002" => "AMD",
            "0x8086" => "Intel",
            _ => return None,
        };
        (class.starts_with("0x03") || class.starts_with("0x12")).then(|| format!("{maker} at {address}"))
    };
    disk.names(FOLDER).unwrap_or_default().iter().filter_map(gpu).collect()
}

/// Where the dynamic linker looks for libraries.
fn library_folders(disk: &Disk<'_>, variable: &impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut folders: Vec<String> = split(variable("LD_LIBRARY_PATH"));
    let more = disk.names("/etc/ld.so.conf.d").unwrap_or_default();
    let files = std::iter::once("/etc/ld.so.conf".to_owned()).chain(more.iter().map(|name| format!("/etc/ld.so.conf.d/{name}")));
    for text in files.filter_map(|file| disk.text(&file)) {
        folders.extend(text.lines().map(|line| line.trim().trim_end_matches('/').to_owned()).filter(|line| line.starts_with('/')));
    }
    let machine = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    folders.extend([machine.as_str(), "/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"].map(str::to_owned));
    folders
}

fn split(value: Option<String>) -> Vec<String> {
    value.unwrap_or_default().split(':').filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Where the loader finds driver files: files or folders that variables name, and the folders that it searches where none does.
fn driver_places(variable: &impl Fn(&str) -> Option<String>) -> (Vec<String>, Vec<String>) {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(named) = set("VK_DRIVER_FILES").or_else(|| set("VK_ICD_FILENAMES")) {
        return (split(Some(named)), Vec::new());
    }
    let home = |name: &str, below: &str| set(name).or_else(|| Some(format!("{}/{below}", set("HOME")?)));
    let mut folders: Vec<String> = home("XDG_CONFIG_HOME", ".config").into_iter().collect();
    folders.extend(split(Some(set("XDG_CONFIG_DIRS").unwrap_or_else(|| "/etc/xdg".into()))));
    folders.extend(["/usr/local/etc".to_owned(), "/etc".to_owned()]);
    folders.extend(home("XDG_DATA_HOME", ".local/share"));
    folders.extend(split(Some(set("XDG_DATA_DIRS").unwrap_or_else(|| "/usr/local/share:/usr/share".into()))));
    let mut searched: Vec<String> = Vec::new();
    for folder in folders.iter().map(|folder| format!("{}/vulkan/icd.d", folder.trim_end_matches('/'))) {
        if !searched.contains(&folder) {
            searched.push(folder);
        }
    }
    (split(set("VK_ADD_DRIVER_FILES")), searched)
}

/// Reads a driver file and looks for its library.
fn driver_file(disk: &Disk<'_>, path: &str, libraries: &[String]) -> DriverFile {
    let of = |library: &str, problem: Option<&str>| DriverFile {
        path: path.to_owned(),
        library: library.to_owned(),
        problem: problem.map(str::to_owned),
    };
    if !disk.exists(path) {
        return of("", Some("is not there"));
    }
    let Some(text) = disk.text(path) else { return of("", Some("cannot be read")) };
    let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    let library = parsed.as_ref().and_then(|manifest| manifest["ICD"]["library_path"].as_str());
    let Some(library) = library else { return of("", Some("names no library")) };
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let found = match library {
        absolute if absolute.starts_with('/') => disk.exists(absolute),
        relative if relative.contains('/') => disk.exists(&format!("{folder}/{relative}")),
        name => libraries.iter().any(|folder| disk.exists(&format!("{folder}/{name}"))),
    };
    of(library, if found { None } else { Some("names a library that is not there") })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A machine of these files and variables.
    fn machine(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Machine {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("created");
            fs::write(path, text).expect("written");
        }
        Machine::read(root.path(), |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    const NVIDIA: &str = r#"{"file_format_version": "1.0.0", "ICD": {"library_path": "libGLX_nvidia.so.0", "api_version": "1.3"}}"#;

    #[test]
    fn an_empty_machine_shows_nothing() {
        let found = machine(&[], &[]);
        assert!(found.devices.is_empty() && found.pci.is_empty() && found.drivers.is_empty() && found.loader.is_none());
        assert!(!found.container && !found.nvidia_module && found.variables.is_empty());
    }

    #[test]
    fn device_files_and_pci_devices_are_found_and_consoles_are_not() {
        let found = machine(
            &[
                ("dev/nvidia0", ""),
                ("dev/nvidiactl", ""),
                ("dev/nvidia-uvm", ""),
                ("dev/dri/renderD128", ""),
                ("dev/dri/card0", ""),
                ("proc/driver/nvidia/version", "NVRM version"),
                ("sys/bus/pci/devices/0000:01:00.0/class", "0x030200\n"),
                ("sys/bus/pci/devices/0000:01:00.0/vendor", "0x10de\n"),
                ("sys/bus/pci/devices/0000:02:00.0/class", "0x030000\n"),
                ("sys/bus/pci/devices/0000:02:00.0/vendor", "0x1a03\n"),
                ("sys/bus/pci/devices/0000:03:00.0/class", "0x020000\n"),
                ("sys/bus/pci/devices/0000:03:00.0/vendor", "0x8086\n"),
            ],
            &[],
        );
        let paths: Vec<&str> = found.devices.iter().map(|device| device.path.as_str()).collect();
        assert_eq!(paths, ["/dev/nvidia0", "/dev/dri/renderD128"]);
        assert!(found.devices.iter().all(|device| device.opens) && found.nvidia_module);
        assert_eq!(found.pci, ["NVIDIA at 0000:01:00.0"]);
    }

    #[test]
    fn driver_files_are_those_that_the_loader_reads_with_their_libraries() {
        let files = [
            ("usr/share/vulkan/icd.d/nvidia_icd.json", NVIDIA),
            ("etc/vulkan/icd.d/broken.json", "{"),
            ("etc/vulkan/icd.d/readme.txt", ""),
            ("usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json", NVIDIA),
            ("etc/ld.so.conf.d/nvidia.conf", "# NVIDIA\n/opt/nvidia/lib\n"),
            ("usr/lib64/libvulkan.so.1", ""),
            (".dockerenv", ""),
        ];
        let found = machine(&files, &[("NVIDIA_DRIVER_CAPABILITIES", "compute"), ("HOME", "/root")]);
        let shown: Vec<(&str, Option<&str>)> = found.drivers.iter().map(|d| (d.path.as_str(), d.problem.as_deref())).collect();
        let expected = [
            ("/etc/vulkan/icd.d/broken.json", Some("names no library")),
            ("/usr/share/vulkan/icd.d/nvidia_icd.json", Some("names a library that is not there")),
        ];
        assert_eq!(shown, expected);
        assert_eq!(found.drivers_elsewhere, ["/usr/local/nvidia/share/vulkan/icd.d/nvidia_icd.json"]);
        assert_eq!((found.loader.as_deref(), found.container), (Some("/usr/lib64/libvulkan.so.1"), true));
        assert_eq!(found.variable("NVIDIA_DRIVER_CAPABILITIES"), Some("compute"));
        let with_library = [&files[..], &[("opt/nvidia/lib/libGLX_nvidia.so.0", "")]].concat();
        assert_eq!(machine(&with_library, &[]).drivers[1].problem, None);
    }

    #[test]
    fn a_variable_replaces_the_search() {
        let files = [
            ("usr/share/vulkan/icd.d/a.json", NVIDIA),
            ("opt/icd/b.json", r#"{"ICD": {"library_path": "../lib/b.so"}}"#),
            ("opt/lib/b.so", ""),
        ];
        let found = machine(&files, &[("VK_ICD_FILENAMES", "/old.json"), ("VK_DRIVER_FILES", "/opt/icd:/missing.json")]);
        let shown: Vec<(&str, Option<&str>)> = found.drivers.iter().map(|d| (d.path.as_str(), d.problem.as_deref())).collect();
        assert_eq!(shown, [("/opt/icd/b.json", None), ("/missing.json", Some("is not there"))]);
        assert_eq!(found.driver_files_variable(), Some(("VK_DRIVER_FILES", "/opt/icd:/missing.json")));
    }
}
