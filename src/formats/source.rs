//! Where bytes come from: ranges of a file, of memory, later of a URL or of browser storage.
//!
//! Readers above this file never ask for a whole model, so a model larger than the memory at hand streams through. Everything is `async`
//! because a browser cannot block; native callers block on the outermost future.

use crate::error::{Error, Result};
use std::future::Future;
use std::pin::Pin;

/// A boxed future that stays on its thread, as browser futures must.
pub type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A named sequence of bytes that can be read by range.
pub trait ByteSource {
    /// What errors call it: a path, a URL, a file's name.
    fn name(&self) -> &str;

    /// Size in bytes.
    fn len(&self) -> u64;

    /// Whether there is nothing to read.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads exactly `len` bytes from `offset`; a range that leaves the source is an [`Error::Format`], found before anything is allocated.
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, Result<Vec<u8>>>;
}

/// What to do about a file that ends too early.
pub(crate) const HINT_TRUNCATED: &str = "download or copy the file again";

/// Refuses a range that leaves a source of `size` bytes.
pub fn check_range(name: &str, size: u64, offset: u64, len: usize) -> Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= size => Ok(()),
        _ => {
            Err(Error::format(name, format!("{len} bytes at offset {offset} were expected but the file has {size} bytes"), HINT_TRUNCATED))
        }
    }
}

/// Bytes in memory.
#[derive(Debug, Clone)]
pub struct Bytes {
    name: String,
    data: Vec<u8>,
}

impl Bytes {
    /// Wraps `data`; errors call it `name`.
    pub fn new(name: impl Into<String>, data: impl Into<Vec<u8>>) -> Self {
        Self { name: name.into(), data: data.into() }
    }
}

impl ByteSource for Bytes {
    fn name(&self) -> &str {
        &self.name
    }
    fn len(&self) -> u64 {
        self.data.len() as u64
    }
    fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, Result<Vec<u8>>> {
        Box::pin(async move {
            check_range(&self.name, self.len(), offset, len)?;
            let start = offset as usize; // fits: the range is inside a Vec
            Ok(self.data[start..start + len].to_vec())
        })
    }
}

#[cfg(not(target_arch = "wasm32"))]
pub use native::File;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{list_folder, read_optional};

/// The only user of the file system outside the binary.
#[cfg(not(target_arch = "wasm32"))]
mod native {
    use super::{ByteSource, LocalFuture, check_range};
    use crate::error::{Error, Result};
    use std::cell::RefCell;
    use std::io::{Read, Seek, SeekFrom};
    use std::path::{Path, PathBuf};

    /// Largest side file (`config.json`, `tokenizer.json`, an index) that is read whole.
    const MAX_TEXT_BYTES: u64 = 256 << 20;

    /// A file on disk, opened once and read by range.
    #[derive(Debug)]
    pub struct File {
        name: String,
        len: u64,
        file: RefCell<std::fs::File>,
    }

    impl File {
        /// Opens the file for reading.
        pub fn open(path: &Path) -> Result<Self> {
            // The name of a model on Hugging Face looks like a path to the file system.
            let on_hub = path.to_string_lossy().starts_with("hf:");
            let hint = if on_hub {
                "download the file and give its path: `hf:` names are not read yet"
            } else {
                "check the path, and that the file may be read"
            };
            let error = |source| Error::Io { action: "read", path: path.display().to_string(), source, hint };
            let file = std::fs::File::open(path).map_err(error)?;
            let len = file.metadata().map_err(error)?.len();
            Ok(Self { name: path.display().to_string(), len, file: RefCell::new(file) })
        }
    }

    impl ByteSource for File {
        fn name(&self) -> &str {
            &self.name
        }
        fn len(&self) -> u64 {
            self.len
        }
        fn read<'a>(&'a self, offset: u64, len: usize) -> LocalFuture<'a, Result<Vec<u8>>> {
            Box::pin(async move {
                check_range(&self.name, self.len, offset, len)?;
                let mut bytes = vec![0; len];
                let mut file = self.file.borrow_mut(); // nothing is awaited while it is held
                file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(|source| Error::Io {
                    action: "read",
                    path: self.name.clone(),
                    source,
                    hint: "check the disk, and that no other program is changing the file",
                })?;
                Ok(bytes)
            })
        }
    }

    /// Reads a whole UTF-8 text file.
    fn read_text(path: &Path, hint: &'static str) -> Result<String> {
        let name = path.display().to_string();
        let error = |source| Error::Io { action: "read", path: name.clone(), source, hint };
        let len = std::fs::metadata(path).map_err(error)?.len();
        if len > MAX_TEXT_BYTES {
            return Err(Error::format(&name, format!("{len} bytes, at most {MAX_TEXT_BYTES} were expected of a text file"), hint));
        }
        String::from_utf8(std::fs::read(path).map_err(error)?)
            .map_err(|e| Error::format(&name, format!("not UTF-8 text at byte {}", e.utf8_error().valid_up_to()), "save the file as UTF-8"))
    }

    /// Reads a text file that may be absent.
    pub(crate) fn read_optional(path: &Path) -> Result<Option<String>> {
        if path.is_file() { read_text(path, "check that the file may be read").map(Some) } else { Ok(None) }
    }

    /// Files of a folder, sorted by name.
    pub(crate) fn list_folder(path: &Path) -> Result<Vec<PathBuf>> {
        let error =
            |source| Error::Io { action: "read", path: path.display().to_string(), source, hint: "check that the folder may be read" };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(path).map_err(error)? {
            let file = entry.map_err(error)?.path();
            if file.is_file() {
                files.push(file);
            }
        }
        files.sort();
        Ok(files)
    }
}
