//! Where `weblora export` writes: a hidden folder, moved to its place when it is known to be good.

use std::fs;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use weblora::Result;
use weblora::export::request::Sink;

use super::files::OutFolder;
use super::io_error::io_error;
use super::lock::Lock;

/// Files in a hidden folder beside their place, moved there when all are whole. What a killed export left in it is removed by the next one.
pub struct DiskSink {
    place: PathBuf,
    temporary: PathBuf,
    files: PathBuf,
    /// Nobody else writes to that place meanwhile.
    _lock: Option<Lock>,
    current: Option<(PathBuf, BufWriter<fs::File>)>,
    last: PathBuf,
    bar: Option<ProgressBar>,
}

impl DiskSink {
    /// A place that is free, and whether to show progress.
    pub fn new(place: &Path, show: bool) -> Result<Self> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let temporary = place.with_file_name(format!(".{name}.tmp"));
        fs::create_dir_all(&temporary).map_err(|e| io_error("create", &temporary, e))?;
        let lock = Lock::take(&temporary, "out")?;
        let files = temporary.join("files");
        match fs::remove_dir_all(&files) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(io_error("replace", &files, e)),
            _ => fs::create_dir(&files).map_err(|e| io_error("create", &files, e))?,
        }
        let bar = show.then(|| ProgressBar::new(0));
        Ok(Self { place: place.to_owned(), temporary, files, _lock: lock, current: None, last: PathBuf::new(), bar })
    }

    /// Where the folder, or its only file, is until it is finished.
    pub fn written(&self, single_file: bool) -> &Path {
        if single_file { &self.last } else { &self.files }
    }

    /// Moves the folder, or its only file, to its place.
    pub fn finish(&self, single_file: bool) -> Result<()> {
        let from = self.written(single_file);
        // Somebody may have put something there meanwhile.
        OutFolder::check_unused("out", &self.place)?;
        fs::rename(from, &self.place).map_err(|e| io_error("write", &self.place, e))
    }
}

impl Sink for DiskSink {
    fn begin(&mut self, name: &str, bytes: u64) -> Result<()> {
        let path = self.files.join(name);
        let file = fs::File::create(&path).map_err(|e| io_error("create", &path, e))?;
        self.current = Some((path, BufWriter::new(file)));
        if let Some(bar) = &self.bar {
            bar.inc_length(bytes);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let Some((path, file)) = &mut self.current else { return Ok(()) };
        file.write_all(bytes).map_err(|e| io_error("write", path, e))?;
        if let Some(bar) = &self.bar {
            bar.inc(bytes.len() as u64);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        let Some((path, file)) = self.current.take() else { return Ok(()) };
        let synced = file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        synced.map_err(|e| io_error("write", &path, e))?;
        self.last = path;
        Ok(())
    }
}

impl Drop for DiskSink {
    fn drop(&mut self) {
        // Nothing is left of an export that failed, or of the folder around a single file.
        fs::remove_dir_all(&self.temporary).ok();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
