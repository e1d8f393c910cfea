//! Composition of WGSL: constants first, then the source with four directives resolved.
//!
//! `#import NAME` pastes a shared fragment (once per shader), `#ifdef FLAG` / `#ifndef FLAG`, `#else` and `#endif` choose. Anything
//! else with a `#` is a mistake and is reported with its line.

use super::kernel::{COOPERATIVE, KernelSpec, Variant};
use crate::{Error, Result};

/// Fragments any shader may `#import`; a variant can add its own.
const LIBRARY: &[(&str, &str)] = &[
    ("reduce", include_str!("../../shaders/lib/reduce.wgsl")),
    ("index", include_str!("../../shaders/lib/index.wgsl")),
    ("random", include_str!("../../shaders/lib/random.wgsl")),
    ("tile", include_str!("../../shaders/lib/tile.wgsl")),
    ("subgroup_rows", include_str!("../../shaders/lib/subgroup_rows.wgsl")),
    ("rows4", include_str!("../../shaders/lib/rows4.wgsl")),
    ("segments", include_str!("../../shaders/lib/segments.wgsl")),
    ("lowrank", include_str!("../../shaders/lib/lowrank.wgsl")),
    ("lowrank_factor", include_str!("../../shaders/lib/lowrank_factor.wgsl")),
    ("lowrank_chunks", include_str!("../../shaders/lib/lowrank_chunks.wgsl")),
    ("lowrank_carry", include_str!("../../shaders/lib/lowrank_carry.wgsl")),
    ("moe", include_str!("../../shaders/lib/moe.wgsl")),
    ("experts", include_str!("../../shaders/lib/experts.wgsl")),
    ("modules", include_str!("../../shaders/lib/modules.wgsl")),
    ("own_norm", include_str!("../../shaders/lib/own_norm.wgsl")),
    ("own_embedding", include_str!("../../shaders/lib/own_embedding.wgsl")),
    ("optimizer", include_str!("../../shaders/lib/optimizer.wgsl")),
];

/// The final WGSL of a kernel variant. `enable_subgroups` puts `enable subgroups;` first, which Tint needs and naga does not know.
///
/// # Errors
/// An unknown directive or import, or an unbalanced `#ifdef`, with the line: a mistake in the crate, not of the user.
pub fn compose(spec: &KernelSpec, variant: &Variant, enable_subgroups: bool) -> Result<String> {
    let mut out = String::with_capacity(spec.source.len() * 2);
    if enable_subgroups && variant.needs_subgroups() {
        out.push_str("enable subgroups;\n");
    }
    if variant.flags.contains(&COOPERATIVE) {
        out.push_str("enable f16;\nenable wgpu_cooperative_matrix;\n");
    }
    for (name, value) in &variant.consts {
        out.push_str(&format!("const {name}: u32 = {value}u;\n"));
    }
    let mut imported = Vec::new();
    expand(spec.name, spec.source, variant, &mut imported, &mut out)?;
    Ok(out)
}

fn expand(name: &str, source: &str, variant: &Variant, imported: &mut Vec<String>, out: &mut String) -> Result<()> {
    let mut live = vec![true];
    let fail = |line: usize, problem: &str| Error::Gpu { what: format!("shader {name}, line {}", line + 1), message: problem.into() };
    for (number, line) in source.lines().enumerate() {
        let text = line.trim_start();
        let active = live.iter().all(|on| *on);
        let Some(directive) = text.strip_prefix('#') else {
            if active {
                out.push_str(line);
                out.push('\n');
            }
            continue;
        };
        let (word, rest) = directive.split_once(' ').unwrap_or((directive, ""));
        let rest = rest.trim();
        match word.trim() {
            "ifdef" => live.push(variant.flags.contains(&rest)),
            "ifndef" => live.push(!variant.flags.contains(&rest)),
            "else" if live.len() > 1 => {
                if let Some(last) = live.last_mut() {
                    *last = !*last;
                }
            }
            "endif" if live.len() > 1 => {
                live.pop();
            }
            "import" => {
                if active && !imported.iter().any(|i| i == rest) {
                    imported.push(rest.into());
                    let found = variant.imports.iter().chain(LIBRARY).find(|(n, _)| *n == rest);
                    let (_, text) = found.ok_or_else(|| fail(number, &format!("no fragment named `{rest}`")))?;
                    expand(rest, text, variant, imported, out)?;
                }
            }
            _ => return Err(fail(number, &format!("unknown or unbalanced directive `#{directive}`"))),
        }
    }
    if live.len() == 1 { Ok(()) } else { Err(fail(source.lines().count(), "#ifdef without #endif")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(source: &'static str) -> KernelSpec {
        KernelSpec { name: "test", source, bindings: &[] }
    }

    #[test]
    fn directives_choose_and_import_once() {
        let s = spec("#import part\n#ifdef A\na\n#else\nb\n#endif\n#import part\n#ifndef A\nc\n#endif\n");
        let v = Variant::new().with("N", 4).flag("A").import("part", "shared", "p");
        assert_eq!(compose(&s, &v, true).unwrap(), "const N: u32 = 4u;\nshared\na\n");
        let v = Variant::new().import("part", "shared", "p");
        assert_eq!(compose(&s, &v, false).unwrap(), "shared\nb\nc\n");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (text, word) in
            [("x\n#include y", "line 2"), ("#ifdef A\n", "#endif"), ("#endif", "unbalanced"), ("#import nothing", "nothing")]
        {
            let error = compose(&spec(text), &Variant::new(), false).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
