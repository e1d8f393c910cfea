//! The rules. Each takes files and returns one sentence per offence, with the place in front.

use super::lexer::{Rust, Token, UsedPath, paths};

/// Which layers of `src/` a layer may name directly. What is not listed is a mistake; what is new gets a row.
/// `bin`, `wasm` and `lib` sit on top and may name every layer.
#[rustfmt::skip] // one row a layer
pub const LAYERS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("rng", &["error"]),
    ("config", &["error"]),
    ("settings", &["error", "config"]),
    ("jobs", &["error", "config", "settings", "rng"]),
    ("quant", &["error", "config"]),
    ("formats", &["error", "config", "quant"]),
    ("text", &["error", "config", "settings", "formats"]),
    ("gpu", &["error", "config"]),
    ("kernels", &["error", "config", "rng", "quant", "gpu"]),
    ("adapters", &["error", "config", "settings", "rng", "quant", "formats", "gpu", "kernels"]),
    ("analysis", &["error", "adapters"]),
    ("model", &["error", "config", "settings", "rng", "quant", "formats", "text", "gpu", "kernels", "adapters"]),
    ("export", &["error", "config", "settings", "rng", "quant", "formats", "text", "gpu", "kernels", "adapters", "analysis", "model"]),
    ("generate", &["error", "config", "settings", "rng", "quant", "formats", "text", "gpu", "kernels", "adapters", "model"]),
    (
        "train",
        &[
            "error", "config", "settings", "rng", "quant", "formats", "text", "gpu", "kernels", "adapters", "analysis", "model", "export",
            "generate", "jobs",
        ],
    ),
    ("demo", &["error", "config", "settings", "rng", "quant", "formats", "text", "gpu", "kernels", "adapters", "model", "generate"]),
    (
        "bench",
        &["error", "config", "settings", "rng", "quant", "formats", "text", "gpu", "kernels", "adapters", "model", "generate", "train"],
    ),
];
const TOP: &[&str] = &["bin", "wasm", "lib"];

/// The binary, where everything native is allowed.
const BIN: &str = "src/bin/";
/// The one shim that reads a clock and yields, natively and in the browser.
const CLOCK: &str = "src/gpu/clock.rs";
/// The one that asks a browser for what wgpu cannot ask for.
const SUBGROUPS: &str = "src/gpu/web_subgroups.rs";
/// The web API.
const WASM: &str = "src/wasm.rs";
const WASM_PARTS: &str = "src/wasm/";

/// Paths that only some files may name: (path, files or folders, why).
const CONFINED: &[(&str, &[&str], &str)] = &[
    ("wgpu", &["src/gpu/"], "only src/gpu knows the GPU API"),
    ("wasm_bindgen", &[WASM, WASM_PARTS, CLOCK, SUBGROUPS], "only the web API and two shims know JavaScript"),
    ("wasm_bindgen_futures", &[WASM, WASM_PARTS, CLOCK, SUBGROUPS], "only the web API and two shims know JavaScript"),
    ("serde_wasm_bindgen", &[WASM, WASM_PARTS, CLOCK, SUBGROUPS], "only the web API and two shims know JavaScript"),
    ("console_error_panic_hook", &[WASM, WASM_PARTS], "only the web API knows JavaScript"),
    ("js_sys", &[WASM, WASM_PARTS, CLOCK, SUBGROUPS], "only the web API and two shims know JavaScript"),
    ("web_sys", &[WASM, WASM_PARTS, CLOCK, SUBGROUPS], "only the web API and two shims know JavaScript"),
    ("std::fs", &[BIN, "src/formats/source.rs"], "the library reads through a ByteSource and returns bytes to write"),
    ("std::net", &[BIN], "the library does not open sockets"),
    ("std::process", &[BIN], "the library starts no programs and never exits"),
    ("std::thread", &[BIN], "a browser tab has no threads"),
    ("std::time::Instant", &[BIN, CLOCK], "it panics in the browser; take the clock of src/gpu"),
    ("std::time::SystemTime", &[BIN, CLOCK], "it panics in the browser; take the clock of src/gpu"),
    ("pollster", &[BIN], "a browser tab cannot block; await"),
];

/// The first folder or file name below `src/`: "gpu" for `src/gpu/device.rs`, "error" for `src/error.rs`.
fn layer_of(path: &str) -> Option<&str> {
    path.strip_prefix("src/")?.split(['/', '.']).next()
}

/// The path from the crate's root that `used` means in file `path`; `None` when it leaves the crate.
fn from_root(path: &str, used: &UsedPath) -> Option<Vec<String>> {
    let segments = &used.segments;
    match segments.first()?.as_str() {
        "crate" => Some(segments[1..].to_vec()),
        "self" | "super" => {
            let file = path.strip_prefix("src/")?.strip_suffix(".rs")?;
            let mut module: Vec<String> = file.split('/').filter(|s| *s != "mod" && *s != "lib").map(str::to_owned).collect();
            for segment in segments {
                match segment.as_str() {
                    "super" => drop(module.pop()),
                    "self" => {}
                    name => module.push(name.to_owned()),
                }
            }
            Some(module)
        }
        _ => None,
    }
}

/// Dependencies point one way: see [`LAYERS`].
pub fn layers(file: &Rust) -> Vec<String> {
    let Some(own) = layer_of(&file.path) else { return Vec::new() };
    if TOP.contains(&own) {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == own) else {
        return vec![format!("{}: layer `{own}` has no row in LAYERS; say there what it may use", file.path)];
    };
    let mut found = Vec::new();
    for used in paths(&file.product) {
        let Some(target) = from_root(&file.path, &used).and_then(|p| p.into_iter().next()) else { continue };
        // lib.rs lends the names of the error layer to the root.
        let layer = if ["Error", "Result"].contains(&target.as_str()) { "error".to_owned() } else { target };
        if layer != own && !allowed.contains(&layer.as_str()) {
            found.push(format!("{}:{}: `{own}` must not use `{}`", file.path, used.line, used.segments.join("::")));
        }
    }
    found
}

/// GPU, JavaScript and operating system stay where they belong: see [`CONFINED`].
pub fn confined(file: &Rust) -> Vec<String> {
    let mut found = Vec::new();
    for used in paths(&file.product) {
        let path = used.segments.join("::");
        for (name, homes, why) in CONFINED {
            let names_it = path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
            if names_it && !homes.iter().any(|home| file.path.starts_with(home)) {
                found.push(format!("{}:{}: `{path}`: {why}", file.path, used.line));
            }
        }
    }
    found
}

/// Nothing unfinished, and no printing from the library: its output is events and `tracing`.
pub fn macros(file: &Rust) -> Vec<String> {
    let unfinished = ["todo", "unimplemented", "dbg"];
    let printing = ["print", "println", "eprint", "eprintln"];
    let calls = |tokens: &[Token], names: &[&str]| -> Vec<(String, usize)> {
        let pairs = tokens.windows(2).filter(|w| w[1].text == "!" && names.contains(&w[0].text.as_str()));
        pairs.map(|w| (w[0].text.clone(), w[0].line)).collect()
    };
    let mut found = calls(&file.all, &unfinished);
    if file.path.starts_with("src/") && !file.path.starts_with(BIN) {
        found.extend(calls(&file.product, &printing));
    }
    found.into_iter().map(|(name, line)| format!("{}:{line}: `{name}!`", file.path)).collect()
}

/// Where methods and formats may be told apart by name: their tables, and the files that the rows point to.
const TABLES: &[&str] = &["src/adapters/", "src/quant/"];
const METHODS: &[&str] = &["lora", "rslora", "loraplus", "cola", "chain", "multilora", "mixlora", "longlora"];

/// Whether `token` names a method or a block format: `"q4_1"`, `Q4_1`, `"mixlora"`, `MixLora`.
fn is_row_name(token: &Token) -> bool {
    let literal = token.text.starts_with('"');
    // Files have names of their own, such as PEFT's "LORA"; ours are lower-case in text and camel-case in code.
    if literal && token.text.contains(char::is_uppercase) {
        return false;
    }
    let name = token.text.trim_matches('"').to_lowercase();
    let format = |prefix: &str| {
        let tail = name.strip_prefix(prefix).unwrap_or("");
        tail.starts_with(|c: char| c.is_ascii_digit()) && (tail.contains('_') || prefix == "nf")
    };
    METHODS.contains(&name.replace('_', "").as_str()) && (literal || token.text.starts_with(char::is_uppercase))
        || ["q", "iq", "nf"].iter().any(|p| format(p))
}

/// No match or comparison on a method or a quantisation format outside its table. A heuristic: it sees names beside
/// `=>`, `|`, `==` and `!=`.
pub fn no_match_on_rows(file: &Rust) -> Vec<String> {
    if TABLES.iter().any(|t| file.path.starts_with(t)) {
        return Vec::new();
    }
    let tokens = &file.product;
    let text = |i: Option<usize>| i.and_then(|i| tokens.get(i)).map_or("", |t| t.text.as_str());
    let mut found = Vec::new();
    for (i, token) in tokens.iter().enumerate().filter(|(_, t)| is_row_name(t)) {
        // A path's name is beside the operator with its first segment too.
        let mut first = i;
        while first >= 2 && tokens[first - 1].text == "::" {
            first -= 2;
        }
        while first >= 1 && tokens[first - 1].text == "&" {
            first -= 1;
        }
        let (before, after) = (text(first.checked_sub(1)), text(Some(i + 1)));
        if ["==", "!=", "|"].contains(&before) || ["=>", "|", "==", "!="].contains(&after) {
            found
                .push(format!("{}:{}: {} is told apart here; give its table row what this place needs", file.path, token.line, token.text));
        }
    }
    found
}

/// Lines of a file that a reader can hold in mind.
pub const MAX_LINES: usize = 500;

/// Small files; no unowned to-dos; no paths of somebody's machine. For every text file that we wrote.
pub fn text(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let source = [".rs", ".wgsl", ".sh", ".js", ".mjs", ".ts", ".css", ".html", ".py"].iter().any(|end| path.ends_with(end));
    let lines = text.lines().count();
    if source && lines > MAX_LINES {
        found.push(format!("{path}: {lines} lines, more than {MAX_LINES}; split it by purpose"));
    }
    // Spelt in two halves, so that this file passes its own rule.
    let (todo, others) = (concat!("TO", "DO"), [concat!("FIX", "ME"), concat!("HA", "CK")]);
    let machine = [concat!("/wo", "rk/"), concat!("/tm", "p/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    for (number, line) in text.lines().enumerate().map(|(n, l)| (n + 1, l)) {
        let word = |w: &str| line.match_indices(w).any(|(i, _)| !line[..i].ends_with(char::is_alphanumeric));
        let unowned = line.match_indices(todo).any(|(i, _)| !line[i + todo.len()..].starts_with('('));
        if unowned || others.iter().any(|w| word(w)) {
            found.push(format!("{path}:{number}: a to-do without an owner: do it, or write {todo}(name)"));
        }
        if let Some(start) = machine.iter().find(|m| line.contains(**m)) {
            found.push(format!("{path}:{number}: `{start}` is a path of one machine"));
        }
    }
    found
}

/// Every shader is used: some file of `src/` names it.
pub fn shaders(shaders: &[String], sources: &[(String, String)]) -> Vec<String> {
    let unused = shaders.iter().filter(|shader| !sources.iter().any(|(_, text)| text.contains(shader.as_str())));
    unused.map(|shader| format!("{shader}: no file in src/ names it")).collect()
}

/// `cargo test --target wasm32-unknown-unknown` compiles every integration test for wasm: all but tests/wasm.rs must step aside.
pub fn native_only(path: &str, text: &str) -> Vec<String> {
    let root = path.matches('/').count() == 1 || path.ends_with("/main.rs");
    let is_test = root && path.starts_with("tests/") && path.ends_with(".rs") && path != "tests/wasm.rs";
    let line = "#![cfg(not(target_arch = \"wasm32\"))]";
    if is_test && !text.lines().any(|l| l == line) { vec![format!("{path}: add the line {line}")] } else { Vec::new() }
}
