//! What a template may use. A template comes with any model file, so none may hang, kill or exhaust the process.

use std::cell::Cell;

/// Longest template in bytes.
pub(super) const SOURCE: usize = 1 << 20;
/// Deepest nesting of tags and brackets in a template. Debug builds, whose frames are the largest, take some 12 kB of stack for one.
pub(super) const SYNTAX_DEPTH: usize = 60;
/// Longest name of a variable, an attribute or a tag: names are looked up again and again.
pub(super) const NAME: usize = 1000;
/// Deepest nesting of calls and tags while a template runs.
pub(super) const CALL_DEPTH: usize = 250;
/// Deepest nesting of lists and dicts.
pub(super) const VALUE_DEPTH: usize = 200;
/// Widest indent.
pub(super) const INDENT: usize = 1000;
/// Longest string, in bytes, and so the longest output.
pub(super) const TEXT: usize = 16 << 20;
/// Steps that any rendering may take, before what its input adds.
const STEPS: u64 = 2_000_000;
/// Bytes of strings and lists that any rendering may make, before what its input adds.
const BYTES: u64 = 256 << 20;
/// Steps and bytes that a byte of the input adds: templates go over all messages for each message.
const PER_INPUT_BYTE: u64 = 256;

/// Bytes that a string takes beside its text.
const STRING: usize = 32;
/// Longest message of a template that stopped, in characters.
const MESSAGE: usize = 300;

/// Why a template stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault(pub(super) String);

pub(super) type Res<T> = Result<T, Fault>;

pub(super) fn fault(what: impl Into<String>) -> Fault {
    Fault(what.into())
}

impl Fault {
    /// What it says, cut where a template or its input made it long.
    pub(super) fn shown(&self) -> String {
        match self.0.char_indices().nth(MESSAGE) {
            Some((at, _)) => format!("{}… (cut, {} bytes in all)", &self.0[..at], self.0.len()),
            None => self.0.clone(),
        }
    }
}

/// What is left of the limits.
pub(super) struct Budget {
    steps: Cell<u64>,
    bytes: Cell<u64>,
    allowed: (u64, u64),
}

impl Budget {
    /// For an input of so many bytes.
    pub(super) fn new(input: usize) -> Self {
        let more = (input as u64).saturating_mul(PER_INPUT_BYTE);
        let allowed = (STEPS.saturating_add(more), BYTES.saturating_add(more));
        Self { steps: Cell::new(allowed.0), bytes: Cell::new(allowed.1), allowed }
    }

    /// The work that was counted.
    pub(super) fn spent(&self) -> u64 {
        self.allowed.0 - self.steps.get()
    }

    /// Counts work.
    pub(super) fn steps(&self, n: usize) -> Res<()> {
        match self.steps.get().checked_sub(n as u64) {
            Some(left) => {
                self.steps.set(left);
                Ok(())
            }
            None => Err(fault(format!("it takes more than {} steps, the limit for these messages", self.allowed.0))),
        }
    }

    /// Counts the work of going over so many bytes of text.
    pub(super) fn scan(&self, n: usize) -> Res<()> {
        self.steps(n / 16)
    }

    /// Counts a string of so many bytes that is one of many.
    pub(super) fn piece(&self, n: usize) -> Res<()> {
        self.bytes(n.saturating_add(STRING))
    }

    /// Counts bytes before they are allocated, and the work of writing them.
    pub(super) fn bytes(&self, n: usize) -> Res<()> {
        self.steps(n / 64)?;
        match self.bytes.get().checked_sub(n as u64) {
            Some(left) => {
                self.bytes.set(left);
                Ok(())
            }
            None => Err(fault(format!("it makes more than {} bytes of text and lists, the limit for these messages", self.allowed.1))),
        }
    }

    /// Counts the bytes of one string before it is allocated.
    pub(super) fn text(&self, n: usize) -> Res<()> {
        if n > TEXT {
            return Err(fault(format!("a text of {n} bytes is longer than the limit of {TEXT}")));
        }
        self.bytes(n)
    }

    /// Appends to a text.
    pub(super) fn push(&self, out: &mut String, more: &str) -> Res<()> {
        if out.len() + more.len() > TEXT {
            return Err(fault(format!("a text is longer than the limit of {TEXT} bytes")));
        }
        self.bytes(more.len())?;
        out.push_str(more);
        Ok(())
    }

    /// Appends a character so many times.
    pub(super) fn repeat(&self, out: &mut String, c: char, n: usize) -> Res<()> {
        let more = n.saturating_mul(c.len_utf8());
        let length = out.len().saturating_add(more);
        if length > TEXT {
            return Err(fault(format!("a text of {length} bytes is longer than the limit of {TEXT}")));
        }
        self.bytes(more)?;
        out.extend(std::iter::repeat_n(c, n));
        Ok(())
    }
}
