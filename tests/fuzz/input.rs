//! What a parser is given: one file or several, and what each one is, so that mutations know its structure.

/// What a part is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Numbers, lengths, raw values.
    Binary,
    /// Text in some language.
    Text,
    /// One JSON value.
    Json,
    /// One JSON value a line.
    JsonLines,
    /// A safetensors file: length, JSON header, values.
    Safetensors,
}

/// One file of an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is made of.
    pub kind: Kind,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// The files of one case, in the order that the parser wants them.
pub type Input = Vec<Part>;

pub fn part(kind: Kind, bytes: impl Into<Vec<u8>>) -> Part {
    Part { kind, bytes: bytes.into() }
}

pub fn binary(bytes: impl Into<Vec<u8>>) -> Part {
    part(Kind::Binary, bytes)
}

pub fn text(bytes: impl Into<Vec<u8>>) -> Part {
    part(Kind::Text, bytes)
}

pub fn json(bytes: impl Into<Vec<u8>>) -> Part {
    part(Kind::Json, bytes)
}

pub fn lines(bytes: impl Into<Vec<u8>>) -> Part {
    part(Kind::JsonLines, bytes)
}

pub fn safetensors(bytes: impl Into<Vec<u8>>) -> Part {
    part(Kind::Safetensors, bytes)
}

/// Random numbers that depend on the parser and the number of the case alone.
pub struct Rng {
    seed: u64,
    drawn: u64,
}

impl Rng {
    pub fn new(parser: &str, case: u64) -> Self {
        Self { seed: weblora::rng::fnv1a(&format!("{parser}/{case}")), drawn: 0 }
    }

    pub fn bits(&mut self) -> u64 {
        self.drawn += 1;
        weblora::rng::bits(self.seed, self.drawn)
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (self.bits() % n as u64) as usize }
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// Whole numbers at which arithmetic goes wrong.
pub const BOUNDARIES: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    31,
    32,
    33,
    64,
    127,
    128,
    255,
    256,
    1 << 15,
    (1 << 16) - 1,
    1 << 16,
    1 << 20,
    1 << 24,
    1 << 26,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 53) - 1,
    1 << 53,
    1 << 62,
    (1 << 63) - 1,
    1 << 63,
    u64::MAX - 7,
    u64::MAX - 1,
    u64::MAX,
];

/// Numbers as they may stand in a text.
pub const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "2",
    "0.5",
    "1e-320",
    "1e308",
    "-1e308",
    "1e999",
    "1e-999",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "3.4e38",
    "1e39",
    "NaN",
    "0x10",
    "1_000",
    "00",
    "1e0",
    "16777216",
    "100000",
    "65536",
];
