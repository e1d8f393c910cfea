//! Every kernel in every variant: it composes, naga accepts it within WebGPU's floor, and its bindings are those the table says.

use std::collections::BTreeSet;

use naga::front::wgsl::Options;
use naga::valid::{Capabilities, ValidationFlags, Validator};
use weblora::gpu::kernel::COOPERATIVE;
use weblora::gpu::shader::compose;
use weblora::gpu::{Access, KernelSpec, Variant};
use weblora::kernels::{KERNELS, samples};

/// What the device's validation says decides, not what the text may ask for.
const OPTIONS: Options = Options { parse_doc_comments: false, capabilities: Capabilities::all() };

fn check(spec: &KernelSpec, variant: &Variant) -> Result<(), String> {
    let text = compose(spec, variant, false).map_err(|e| e.to_string())?;
    let module = naga::front::wgsl::Frontend::new_with_options(OPTIONS).parse(&text).map_err(|e| e.emit_to_string(&text))?;
    // Core WGSL: unpack2x16float. naga counts it as a capability for the sake of old OpenGL.
    let core = Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    let mut capabilities = if variant.needs_subgroups() { core | Capabilities::SUBGROUP } else { core };
    // Only devices that were opened for mixed precision get these, and they have more workgroup memory.
    let cooperative = variant.flags.contains(&COOPERATIVE);
    if cooperative {
        capabilities |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16;
    }
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    let info = validator.validate(&module).map_err(|e| e.emit_to_string(&text))?;
    let [entry] = &module.entry_points[..] else { return Err("not one entry point".into()) };
    let invocations: u32 = entry.workgroup_size.iter().product();
    if entry.name != "main" || invocations > 256 {
        return Err(format!("entry `{}` with {invocations} invocations", entry.name));
    }
    let mut found = vec![None; spec.bindings.len() + 1];
    let mut written = vec![false; spec.bindings.len() + 1];
    let mut workgroup_bytes = 0;
    for (handle, variable) in module.global_variables.iter() {
        let Some(binding) = &variable.binding else {
            if variable.space == naga::AddressSpace::WorkGroup {
                workgroup_bytes += module.types[variable.ty].inner.size(module.to_ctx());
            }
            continue;
        };
        let slot = found.get_mut(binding.binding as usize).ok_or(format!("binding {} is not in the table", binding.binding))?;
        *slot = Some(variable.space);
        written[binding.binding as usize] = info.get_entry_point(0)[handle].contains(naga::valid::GlobalUse::WRITE);
    }
    if workgroup_bytes > if cooperative { 46 << 10 } else { 16 << 10 } {
        return Err(format!("{workgroup_bytes} bytes of workgroup memory"));
    }
    for (i, access) in spec.bindings.iter().enumerate() {
        // A binding that this variant does not use may be absent from its text.
        let Some(space) = found[i + 1] else { continue };
        let writable = matches!(space, naga::AddressSpace::Storage { access } if access.contains(naga::StorageAccess::STORE));
        if writable != access.declared_writable() {
            return Err(format!("binding {} is {space:?}, the table says {access:?}", i + 1));
        }
        if written[i + 1] && *access != Access::ReadWrite {
            return Err(format!("binding {} is written, the table says {access:?}", i + 1));
        }
    }
    if spec.bindings.len() > 8 {
        return Err(format!("{} storage bindings", spec.bindings.len()));
    }
    Ok(())
}

#[test]
fn every_variant_is_valid_within_the_floor() {
    let variants = samples::variants();
    for (spec, variant) in &variants {
        if let Err(problem) = check(spec, variant) {
            panic!("{} [{}]: {problem}", spec.name, variant.key());
        }
    }
    let seen: BTreeSet<&str> = variants.iter().map(|(spec, _)| spec.name).collect();
    let listed: BTreeSet<&str> = KERNELS.iter().map(|spec| spec.name).collect();
    assert_eq!(seen, listed, "kernels that are recorded and kernels in the table");
}

#[test]
fn the_check_sees_mistakes() {
    let good = "@group(0) @binding(1) var<storage, read_write> x: array<f32>;\n@compute @workgroup_size(64) fn main() { x[0] = 1.0; }\n";
    let of = |source: &'static str, bindings: &'static [Access]| check(&KernelSpec { name: "test", source, bindings }, &Variant::new());
    of(good, &[Access::ReadWrite]).unwrap();
    assert!(of(good, &[Access::Read]).unwrap_err().contains("the table says"));
    assert!(of(good, &[Access::Input]).unwrap_err().contains("is written"));
    assert!(of(good, &[]).unwrap_err().contains("not in the table"));
    assert!(of("@compute @workgroup_size(512) fn main() {}", &[]).unwrap_err().contains("512 invocations"));
    assert!(of("fn main() { oops }", &[]).is_err());
}
