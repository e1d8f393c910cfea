//! No circles of imports between the files of `src/`: a file can be read and tested once those that it uses are understood.
//!
//! A name counts for the file that defines it, whatever module re-exports it. A module may re-export its children: that alone uses none of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::lexer::{Rust, UsedPath, paths, reexports};
use super::{none, product_sources};

/// Re-exports that are followed from one name, one after the other.
const MOST_REEXPORTS: usize = 8;

type Module = Vec<String>;

/// Files by their modules, with what they re-export: a name, and the path from the crate's root that it stands for.
struct Crate<'f> {
    files: BTreeMap<Module, &'f Rust>,
    reexports: HashMap<Module, HashMap<String, Module>>,
}

/// Path and line where one file names something of another.
type Use = (String, usize);

/// The module of a file: `["gpu", "device"]` for `src/gpu/device.rs`, `["gpu"]` for `src/gpu/mod.rs`.
fn module_of(path: &str) -> Module {
    let parts = path.trim_start_matches("src/").trim_end_matches(".rs").split('/');
    let mut module: Module = parts.map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

impl<'f> Crate<'f> {
    fn new(files: &'f [Rust]) -> Self {
        let files: BTreeMap<Module, &Rust> = files.iter().map(|file| (module_of(&file.path), file)).collect();
        let mut all = Self { files, reexports: HashMap::new() };
        let of = |module: &Module, file: &Rust| {
            let named = reexports(&file.product).into_iter().map(|(name, used)| (name, all.absolute(module, &used.segments)));
            named.filter_map(|(name, target)| Some((name, target?))).collect::<HashMap<_, _>>()
        };
        all.reexports = all.files.iter().map(|(module, file)| (module.clone(), of(module, file))).collect();
        all
    }

    /// The path from the crate's root that `segments` mean in `module`; `None` where they leave the crate.
    fn absolute(&self, module: &Module, segments: &[String]) -> Option<Module> {
        let mut path = module.clone();
        let mut rest = segments;
        match segments.first()?.as_str() {
            // The program is a crate of its own, below `src/bin`.
            "crate" => {
                path.truncate(usize::from(module.first().is_some_and(|first| first == "bin")));
                rest = &rest[1..];
            }
            "self" => rest = &rest[1..],
            "super" => {}
            name => {
                let child = [module.as_slice(), &[name.to_owned()]].concat();
                self.files.get(&child)?;
            }
        }
        while rest.first().is_some_and(|segment| segment == "super") {
            path.pop();
            rest = &rest[1..];
        }
        path.extend(rest.iter().filter(|segment| *segment != "self").cloned());
        Some(path)
    }

    /// The module whose file defines what a path from the crate's root names.
    fn definition(&self, path: &[String]) -> Option<Module> {
        let mut path = path.to_vec();
        for _ in 0..MOST_REEXPORTS {
            let length = (0..=path.len()).rev().find(|length| self.files.contains_key(&path[..*length]))?;
            let (module, rest) = path.split_at(length);
            let Some(target) = rest.first().and_then(|name| self.reexports.get(module)?.get(name)) else { return Some(module.to_vec()) };
            path = [target.as_slice(), &rest[1..]].concat();
        }
        None
    }

    /// The files that a file uses, each with the first place where it does.
    fn uses(&self, module: &Module) -> BTreeMap<Module, Use> {
        let file = self.files[module];
        let exported: Vec<UsedPath> = reexports(&file.product).into_iter().map(|(_, used)| used).collect();
        let mut found = BTreeMap::new();
        for used in paths(&file.product) {
            let Some(target) = self.absolute(module, &used.segments) else { continue };
            if exported.contains(&used) && target.starts_with(module) {
                continue;
            }
            if let Some(target) = self.definition(&target).filter(|target| target != module) {
                found.entry(target).or_insert((used.segments.join("::"), used.line));
            }
        }
        found
    }
}

/// The shortest way from a file back to itself.
fn circle(from: &Module, uses: &BTreeMap<Module, BTreeMap<Module, Use>>) -> Option<Vec<Module>> {
    let mut before: BTreeMap<&Module, &Module> = BTreeMap::new();
    let mut waiting = VecDeque::from([from]);
    while let Some(module) = waiting.pop_front() {
        for next in uses[module].keys() {
            if next == from {
                let mut way = vec![module.clone()];
                while let Some(earlier) = before.get(&way[way.len() - 1]) {
                    way.push((*earlier).clone());
                }
                way.reverse();
                return Some(way);
            }
            if !before.contains_key(next) {
                before.insert(next, module);
                waiting.push_back(next);
            }
        }
    }
    None
}

/// One sentence for every circle; a file is in one sentence only.
fn circles(files: &[Rust]) -> Vec<String> {
    let all = Crate::new(files);
    let uses: BTreeMap<Module, BTreeMap<Module, Use>> = all.files.keys().map(|module| (module.clone(), all.uses(module))).collect();
    let mut told: BTreeSet<Module> = BTreeSet::new();
    let mut found = Vec::new();
    for module in all.files.keys() {
        if told.contains(module) {
            continue;
        }
        let Some(way) = circle(module, &uses) else { continue };
        let step = |(i, module): (usize, &Module)| {
            let (path, line) = &uses[module][&way[(i + 1) % way.len()]];
            format!("{}:{line} uses `{path}`", all.files[module].path)
        };
        let steps: Vec<String> = way.iter().enumerate().map(step).collect();
        found.push(format!("an import circle: {}; move what both sides need into a file of its own", steps.join(", ")));
        told.extend(way);
    }
    found
}

#[test]
fn files_do_not_use_each_other_in_circles() {
    none(circles(&product_sources()));
}

#[test]
fn files_do_not_use_each_other_in_circles_catches() {
    let of = |files: &[(&str, &str)]| circles(&files.iter().map(|(path, text)| Rust::new(path, text)).collect::<Vec<_>>());
    let bad: [&[(&str, &str)]; 7] = [
        &[("src/a.rs", "use crate::b::B;"), ("src/b.rs", "fn f() { super::a::g(); }")],
        &[("src/a.rs", "use crate::b::B;"), ("src/b.rs", "use crate::{c::C, d};"), ("src/c.rs", "use crate::a;"), ("src/d.rs", "")],
        // Through a re-export, also under another name.
        &[("src/a/mod.rs", "mod b;\nmod c;\npub use b::B as Other;"), ("src/a/b.rs", "use super::c;"), ("src/a/c.rs", "use super::Other;")],
        // A parent and its child, named from the parent without `self`.
        &[("src/a.rs", "mod b;\npub struct A;\nfn f() { b::g(); }"), ("src/a/b.rs", "use super::A;")],
        &[("src/a/mod.rs", "mod b;\nuse self::b::B;\npub struct A;"), ("src/a/b.rs", "use super::A;")],
        &[("src/a.rs", "use super::b::*;"), ("src/b.rs", "use super::a::A;")],
        &[("src/bin/cli/a.rs", "use crate::cli::b::B;"), ("src/bin/cli/b.rs", "use super::a::A;")],
    ];
    for files in bad {
        let found = of(files);
        assert_eq!(found.len(), 1, "{files:?}: {found:?}");
    }
    let good: [&[(&str, &str)]; 5] = [
        &[("src/a.rs", "use crate::b::B;\nuse std::fmt;"), ("src/b.rs", "use serde_json::a;")],
        // A module that re-exports its children, of which one uses another through it.
        &[("src/a/mod.rs", "mod b;\nmod c;\npub use b::B;\npub use self::c::C;"), ("src/a/b.rs", ""), ("src/a/c.rs", "use super::B;")],
        &[("src/a.rs", "use crate::b;"), ("src/b.rs", "#[cfg(test)]\nmod tests { use crate::a; }")],
        &[("src/a.rs", "//! crate::b\nuse crate::b::f;"), ("src/b.rs", "// crate::a\npub fn f() -> &'static str { \"crate::a::x\" }")],
        // The parent's own table of what its children define, and children that use each other only.
        &[("src/a.rs", "mod b;\nmod c;\nconst ALL: [u8; 2] = [b::X, c::X];"), ("src/a/b.rs", "use super::c::X;"), ("src/a/c.rs", "")],
    ];
    for files in good {
        let found = of(files);
        assert!(found.is_empty(), "{files:?}: {found:?}");
    }
}
