//! Reads a header of unknown length through bounded ranges.

use super::source::{ByteSource, HINT_TRUNCATED};
use crate::error::{Error, Result};

/// Bytes fetched at a time: few round trips over a network, little memory.
const WINDOW: usize = 1 << 20;

/// A forward-only reader of little-endian scalars. It holds at most one window, or one item when an item is larger.
pub(super) struct HeaderReader<'s> {
    source: &'s dyn ByteSource,
    /// Offset in the source of the next unread byte.
    position: u64,
    window: Vec<u8>,
    /// Unread part of the window starts here.
    start: usize,
}

impl<'s> HeaderReader<'s> {
    pub(super) fn new(source: &'s dyn ByteSource) -> Self {
        Self { source, position: 0, window: Vec::new(), start: 0 }
    }

    pub(super) fn name(&self) -> &str {
        self.source.name()
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the source not read yet: the bound on everything a length field may claim.
    pub(super) fn remaining(&self) -> u64 {
        self.source.len() - self.position
    }

    /// An error about what was just read.
    pub(super) fn error(&self, problem: impl Into<String>, hint: &'static str) -> Error {
        Error::format(format!("{} at byte {}", self.source.name(), self.position), problem, hint)
    }

    /// The next `len` bytes. `len` is bounded by the caller; `what` names them in the error.
    pub(super) async fn take(&mut self, len: usize, what: &str) -> Result<&[u8]> {
        if len as u64 > self.remaining() {
            let problem = format!("{what} needs {len} bytes but the file ends after {}", self.remaining());
            return Err(self.error(problem, HINT_TRUNCATED));
        }
        if self.window.len() - self.start < len {
            let size = (len.max(WINDOW) as u64).min(self.remaining()) as usize; // at most len or WINDOW
            self.window = self.source.read(self.position, size).await?;
            self.start = 0;
        }
        let range = self.start..self.start + len;
        self.start += len;
        self.position += len as u64;
        Ok(&self.window[range])
    }

    pub(super) async fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what).await?);
        Ok(bytes)
    }

    pub(super) async fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what).await?))
    }

    pub(super) async fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what).await?))
    }

    /// A u64 byte length, then UTF-8 text of at most `cap` bytes.
    pub(super) async fn string(&mut self, cap: u64, what: &str) -> Result<String> {
        let len = self.count(cap, 1, what).await?;
        let bytes = self.take(len, what).await?.to_vec();
        String::from_utf8(bytes).map_err(|_| self.error(format!("{what} is not UTF-8 text"), HINT_CONVERT))
    }

    /// A u64 number of items, at most `cap`, each at least `item_bytes` long: refused when the rest of the file cannot hold them.
    pub(super) async fn count(&mut self, cap: u64, item_bytes: u64, what: &str) -> Result<usize> {
        let count = self.u64(what).await?;
        if count > cap {
            return Err(self.error(format!("{what} claims a length of {count}, at most {cap} was expected"), HINT_CONVERT));
        }
        if count > self.remaining() / item_bytes {
            let problem = format!("{what} claims a length of {count} but only {} bytes follow", self.remaining());
            return Err(self.error(problem, HINT_TRUNCATED));
        }
        Ok(count as usize) // at most cap, which fits 32 bits
    }
}

/// What to do about a file whose writer broke the format.
pub(super) const HINT_CONVERT: &str = "the file is damaged or not what its name says; download it again or convert the model again";
