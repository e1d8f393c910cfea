//! `weblora shaders`: the kernels, and the WGSL that a device gets to see.

use serde_json::json;
use weblora::gpu::shader::compose;
use weblora::kernels::{KERNELS, samples};
use weblora::{Error, Result};

use super::args::ShadersArgs;
use super::output::Output;

/// Runs the verb.
pub fn run(args: &ShadersArgs, output: &mut Output) -> Result<()> {
    let Some(wanted) = &args.name else {
        for spec in KERNELS {
            let line = format!("{:28} {} bindings, {} lines", spec.name, spec.bindings.len() + 1, spec.source.lines().count());
            let event = json!({"event": "kernel", "name": spec.name, "bindings": spec.bindings.len() + 1}).to_string();
            output.print(if output.is_json() { &event } else { &line })?;
        }
        return Ok(());
    };
    let mut found = false;
    for (spec, variant) in samples::variants().into_iter().filter(|(spec, _)| spec.name.contains(wanted.as_str())) {
        found = true;
        let text = compose(spec, &variant, false)?;
        if output.is_json() {
            output.print(&json!({"event": "shader", "name": spec.name, "variant": variant.key(), "wgsl": text}).to_string())?;
        } else {
            output.print(&format!("// ---- {} [{}]\n{text}", spec.name, variant.key()))?;
        }
    }
    if found {
        Ok(())
    } else {
        Err(Error::config("name", format!("no kernel's name contains `{wanted}`"), "run `weblora shaders` for the list"))
    }
}
