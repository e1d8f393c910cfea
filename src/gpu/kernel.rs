//! What the engine knows of a kernel: its text, its bindings, its variants.

/// How a storage binding is declared in WGSL.
///
/// Activations share one arena buffer, and WebGPU forbids one buffer as read-only and writable in the same dispatch,
/// so every activation is declared `read_write`, also where it is only read. Weights, parameters and tables are `Read`.
/// Which activations a kernel writes is what the plan needs to know to leave out dispatches that nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`, only read.
    Input,
    /// `var<storage, read_write>`, written; what was there may be read too (accumulation, in-place kernels).
    ReadWrite,
}

impl Access {
    /// Whether WGSL declares the binding `read_write`.
    pub fn declared_writable(self) -> bool {
        self != Access::Read
    }
}

/// One kernel: a WGSL file with entry point `main`, uniform parameters at binding 0 and storage from binding 1 on.
#[derive(Debug)]
pub struct KernelSpec {
    /// Name in tables, labels and on the command line.
    pub name: &'static str,
    /// WGSL before composition.
    pub source: &'static str,
    /// Storage bindings 1.. in order.
    pub bindings: &'static [Access],
}

/// Flag of variants that need cooperative matrices and f16.
pub const COOPERATIVE: &str = "COOPERATIVE";

/// The choices that turn one source into one pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    /// `const NAME: u32 = VALUEu;` lines put before the source.
    pub consts: Vec<(&'static str, u32)>,
    /// Names that `#ifdef` sees.
    pub flags: Vec<&'static str>,
    /// What `#import NAME` pulls in.
    pub imports: Vec<(&'static str, &'static str)>,
    /// Distinguishes imports in labels and caches ("q4_1"); empty when there are none.
    pub suffix: &'static str,
    /// Order of summation: variants of one product that name the same order give the same bits. Empty: the kernel's name.
    pub order: &'static str,
}

impl Variant {
    /// The plain kernel.
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a constant.
    pub fn with(mut self, name: &'static str, value: u32) -> Self {
        self.consts.push((name, value));
        self
    }
    /// Raises a flag.
    pub fn flag(mut self, name: &'static str) -> Self {
        self.flags.push(name);
        self
    }
    /// Raises a flag if `on`.
    pub fn flag_if(self, name: &'static str, on: bool) -> Self {
        if on { self.flag(name) } else { self }
    }
    /// Lets as many neighbouring lanes load a part each and broadcast it as [`broadcast_width`](super::device::Facts::broadcast_width) says:
    /// 8, 4 or 0.
    pub fn broadcast(self, lanes: u32) -> Self {
        self.flag_if("SUBGROUPS", lanes > 0).flag_if("QUADS", lanes == 4)
    }
    /// Names the order of summation, where a kernel has several or shares one with another kernel.
    pub fn order(mut self, name: &'static str) -> Self {
        self.order = name;
        self
    }
    /// Provides the text of an import; `suffix` names it in caches.
    pub fn import(mut self, name: &'static str, text: &'static str, suffix: &'static str) -> Self {
        self.imports.push((name, text));
        self.suffix = suffix;
        self
    }
    /// A stable name of the choices, e.g. `q4_1 TILE=8 subgroups`.
    pub fn key(&self) -> String {
        let mut words: Vec<String> = Vec::new();
        if !self.suffix.is_empty() {
            words.push(self.suffix.into());
        }
        words.extend(self.consts.iter().map(|(n, v)| format!("{n}={v}")));
        words.extend(self.flags.iter().map(|f| (*f).to_string()));
        words.join(" ")
    }
    /// True if the variant needs subgroup operations.
    pub fn needs_subgroups(&self) -> bool {
        self.flags.contains(&"SUBGROUPS")
    }
}
