//! The findings in words.

use weblora::gpu::survey::{AdapterFeatures, AdapterLimits, AdapterReport};

use super::advice::Warning;
use super::findings::Findings;
use crate::cli::device::cache_folder;

/// The whole report: adapters, the one that is taken, what it computed, and last what is wrong.
pub fn words(findings: &Findings) -> String {
    let Findings { machine, adapters, taken, opened, warnings } = findings;
    let place = taken.as_ref().map(|(place, _)| *place);
    let mut lines = vec![format!("weblora {} on {} {}", env!("CARGO_PKG_VERSION"), machine.os, std::env::consts::ARCH), String::new()];
    lines.push(match adapters.len() {
        0 => "no adapter answers".to_owned(),
        1 => "1 adapter:".to_owned(),
        count => format!("{count} adapters:"),
    });
    for (i, adapter) in adapters.iter().enumerate() {
        lines.extend(adapter_lines(adapter, place == Some(i)));
    }
    lines.push(String::new());
    lines.push(match taken.as_ref().and_then(|(place, why)| Some((adapters.get(*place)?, why))) {
        Some((adapter, why)) => format!("taken: {}, because {why}", adapter.name),
        None => "taken: none".to_owned(),
    });
    if let Some(opened) = opened {
        lines.push(match &opened.product {
            Some(p) => format!(
                "device: opens; a product of {} x {} numbers and {} x {} weights in {} is right in every result ({:.2} s with compiling)",
                p.rows, p.inputs, p.inputs, p.outputs, p.format, p.seconds
            ),
            None => "device: opens, but a small product FAILS".to_owned(),
        });
        lines.push(match (&opened.file, opened.choices) {
            (None, _) => {
                "kernel choices: not kept, for no cache folder is known (set HOME or XDG_CACHE_HOME): every run measures anew".to_owned()
            }
            (Some(file), 0) => format!("kernel choices: none yet for this adapter, the first run measures them; they are kept in {file}"),
            (Some(file), count) => format!("kernel choices: {count} for this adapter in {file} (`weblora shaders --tuned`)"),
        });
    } else {
        lines.push("device: not opened".to_owned());
        lines.push(cache_folder().map_or_else(String::new, |folder| format!("kernel choices: kept in {}", folder.display())));
    }
    for (name, value) in &machine.variables {
        lines.push(format!("{name}={value}"));
    }
    warnings.iter().for_each(|warning| lines.extend(warning_lines(warning)));
    lines.join("\n")
}

/// An adapter on a few lines, with a star where it is taken.
fn adapter_lines(adapter: &AdapterReport, taken: bool) -> Vec<String> {
    let AdapterReport { name, kind, backend, driver, driver_version, pci, limits, features, missing } = adapter;
    let pci = if pci.is_empty() { String::new() } else { format!(", PCI {pci}") };
    let AdapterLimits { storage_binding, buffer, storage_buffers, workgroup_memory, invocations } = limits;
    let mut lines = vec![
        format!("{} {name}", if taken { '*' } else { '-' }),
        format!("    type      {}, through {backend}{pci}", kind.name()),
        format!("    driver    {driver} {driver_version}"),
        format!(
            "    limits    storage binding {}, buffer {}, {storage_buffers} storage buffers a kernel",
            binary(*storage_binding),
            binary(*buffer)
        ),
        format!("              workgroup memory {}, {invocations} invocations a workgroup", binary(u64::from(*workgroup_memory))),
        format!("    features  {}", feature_words(features)),
    ];
    if !missing.is_empty() {
        lines.push(format!("    LACKS     {}", missing.join(", ")));
    }
    lines
}

fn feature_words(features: &AdapterFeatures) -> String {
    let AdapterFeatures { subgroups, subgroup_sizes: (least, most), timestamps, shader_f16, cooperative_matrices } = features;
    let has = |has: bool, what: &str| if has { what.to_owned() } else { format!("no {what}") };
    let sizes = if least == most { format!("subgroups of {least}") } else { format!("subgroups of {least} to {most}") };
    let matrices = if cooperative_matrices.is_empty() {
        "no cooperative matrices".to_owned()
    } else {
        format!("cooperative matrices {}", cooperative_matrices.join(", "))
    };
    let subgroups = if *subgroups { sizes } else { "no subgroups".to_owned() };
    [subgroups, has(*timestamps, "timestamps"), has(*shader_f16, "f16 in shaders"), matrices].join(", ")
}

fn warning_lines(warning: &Warning) -> Vec<String> {
    let mut lines = vec![String::new(), format!("WARNING: {}", warning.problem)];
    lines.extend(warning.remedies.iter().map(|remedy| format!("  - {remedy}")));
    lines
}

/// "128 MiB", "2.5 GiB": limits are powers of two.
fn binary(bytes: u64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let Some((unit, shift)) = units.into_iter().find(|(_, shift)| bytes >> shift > 0) else { return format!("{bytes} B") };
    let number = format!("{:.1}", bytes as f64 / f64::from(1u32 << shift));
    format!("{} {unit}", number.strip_suffix(".0").unwrap_or(&number))
}

#[cfg(test)]
mod tests {
    use weblora::gpu::survey::AdapterKind;

    use super::super::advice_tests::adapter;
    use super::*;

    #[test]
    fn sizes_are_in_powers_of_two() {
        for (bytes, said) in [(16, "16 B"), (16_384, "16 KiB"), (128 << 20, "128 MiB"), (5 << 29, "2.5 GiB"), ((1 << 31) - 1, "2 GiB")] {
            assert_eq!(binary(bytes), said);
        }
    }

    #[test]
    fn an_adapter_shows_what_it_has_and_lacks() {
        let mut gpu = adapter("GPU", AdapterKind::Discrete);
        gpu.features.cooperative_matrices = vec!["16x16x16 f16 to f32".into()];
        (gpu.features.subgroup_sizes, gpu.pci) = ((8, 32), "0000:01:00.0".into());
        gpu.missing = vec!["4 storage buffers a kernel of 8".into()];
        let said = adapter_lines(&gpu, true).join("\n");
        for words in [
            "* GPU",
            "discrete, through vulkan, PCI 0000:01:00.0",
            "driver 1.2",
            "storage binding 128 MiB, buffer 2 GiB",
            "workgroup memory 32 KiB, 1024 invocations",
            "subgroups of 8 to 32, timestamps, no f16 in shaders, cooperative matrices 16x16x16 f16 to f32",
            "LACKS     4 storage buffers",
        ] {
            assert!(said.contains(words), "{said}\nhas no {words:?}");
        }
        gpu.features.subgroups = false;
        assert!(adapter_lines(&gpu, false)[5].contains("no subgroups, "));
    }
}
