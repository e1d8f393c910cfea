//! Files on disk: everything is written to a temporary file beside its place, synced, and renamed, so that a reader never sees half a file.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use weblora::export::chain::CHAIN_FILE;
use weblora::export::peft::{self, NOTE_FILE, WEIGHTS_FILE};
use weblora::export::peft_config::CONFIG_FILE;
use weblora::{Error, Result};

/// Largest text file (settings, rows) that is read whole.
const MAX_TEXT_BYTES: u64 = 2 << 30;

/// An [`Error::Io`] whose hint fits what the system said.
pub fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    let hint = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space there; what was saved before is untouched",
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied if action == "read" => "ask for permission to read it",
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => "choose a folder that you may write to with --out",
        ErrorKind::NotFound => "check the path",
        ErrorKind::IsADirectory => "name a file, not a folder",
        ErrorKind::NotADirectory => "a part of the path is a file; choose another folder",
        _ => "check the disk and the path",
    };
    Error::Io { action, path: path.display().to_string(), source, hint }
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| io_error("read", path, e))
}

/// Reads a UTF-8 text file of at most 2 GiB.
pub fn read_text(path: &Path) -> Result<String> {
    let bytes = fs::metadata(path).map_err(|e| io_error("read", path, e))?.len();
    let name = path.display().to_string();
    if bytes > MAX_TEXT_BYTES {
        return Err(Error::format(name, format!("{bytes} bytes, at most {MAX_TEXT_BYTES} were expected"), "split the file"));
    }
    String::from_utf8(read(path)?).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::format(name, format!("it is not UTF-8 text from byte {at} on"), "save the file as UTF-8")
    })
}

/// Writes a file whole or not at all.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Hidden, and told apart by process, so that two runs cannot write into one temporary file.
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        fs::remove_file(&temporary).ok(); // the write's error matters more
        io_error("write", path, e)
    })?;
    sync_folder(path.parent());
    Ok(())
}

/// Makes a rename last through a power cut where the system can; where it cannot, the file itself is still whole.
fn sync_folder(folder: Option<&Path>) {
    if let Some(folder) = folder.and_then(|folder| fs::File::open(folder).ok()) {
        folder.sync_all().ok();
    }
}

/// What to do about an output folder that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Refuse it.
    Refuse,
    /// It must exist, with a checkpoint.
    Resume,
    /// Replace the files in it that we write; leave others alone.
    Overwrite,
}

/// The folder of a run.
#[derive(Debug, Clone)]
pub struct OutFolder(PathBuf);

/// File name of the settings that a run was started with.
pub const RUN_FILE: &str = "run.toml";
/// File name of the checkpoint.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// Folder of the adapter with the lowest held-out loss.
const BEST: &str = "best";

impl OutFolder {
    /// Refuses a folder that is there already, before anything is begun.
    pub fn check_free(path: &Path) -> Result<()> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        let hint = "choose another folder, or add --resume to go on, or --overwrite to start anew";
        Err(Error::config("out", format!("{} already exists", path.display()), hint))
    }

    /// Refuses what is there already, for verbs that cannot go on or start anew; `key` is the flag that named it.
    pub fn check_unused(key: &str, path: &Path) -> Result<()> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        Err(Error::config(key, format!("{} already exists", path.display()), "choose a new name"))
    }

    /// Creates a folder that must be new.
    pub fn create(key: &str, path: &Path) -> Result<Self> {
        Self::check_unused(key, path)?;
        fs::create_dir_all(path).map_err(|e| io_error("create", path, e))?;
        Ok(Self(path.to_owned()))
    }

    /// Creates the folder, or takes an existing one as `existing` says.
    pub fn open(path: &Path, existing: Existing) -> Result<Self> {
        let folder = Self(path.to_owned());
        match existing {
            Existing::Refuse => Self::check_free(path)?,
            Existing::Resume if !folder.checkpoint().is_file() => {
                let problem = format!("{} is not there", folder.checkpoint().display());
                return Err(Error::config("resume", problem, "check --out, or leave out --resume to start anew"));
            }
            Existing::Overwrite => {
                // What is left of an older run must not be taken for this one's.
                let own = [folder.checkpoint(), path.join(CONFIG_FILE), path.join(CHAIN_FILE)];
                for old in own.into_iter().chain([CONFIG_FILE, CHAIN_FILE].map(|file| path.join(BEST).join(file))) {
                    match fs::remove_file(&old) {
                        Err(e) if e.kind() != ErrorKind::NotFound => return Err(io_error("replace", &old, e)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        fs::create_dir_all(path).map_err(|e| io_error("create", path, e))?;
        Ok(folder)
    }

    /// Where the checkpoint is.
    pub fn checkpoint(&self) -> PathBuf {
        self.0.join(CHECKPOINT_FILE)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes one file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_atomic(&self.0.join(name), bytes)
    }

    /// Writes the adapter's files, in their order: the last one makes the folder whole.
    pub fn write_adapter(&self, files: &[peft::File]) -> Result<()> {
        files.iter().try_for_each(|(name, bytes)| self.write(name, bytes))
    }

    /// Writes the adapter with the lowest held-out loss.
    pub fn write_best(&self, files: &[peft::File]) -> Result<()> {
        Self::open(&self.0.join(BEST), Existing::Overwrite)?.write_adapter(files)
    }
}

/// The files of an adapter folder, in memory.
#[derive(Debug)]
pub struct AdapterFiles {
    name: String,
    config: Vec<u8>,
    weights: Vec<u8>,
    note: Option<Vec<u8>>,
    chain: Option<Vec<u8>>,
}

impl AdapterFiles {
    /// Reads a PEFT folder.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let error = |problem: String, hint| Error::Adapter { adapter: name.clone(), problem, hint };
        if !path.is_dir() {
            return Err(error("it is no folder".into(), "pass the folder with adapter_config.json"));
        }
        for needed in [CONFIG_FILE, WEIGHTS_FILE] {
            if path.join(needed).is_file() {
                continue;
            }
            if needed == WEIGHTS_FILE && path.join("adapter_model.bin").is_file() {
                return Err(error("its weights are a PyTorch pickle (adapter_model.bin)".into(), "save it again as safetensors"));
            }
            return Err(error(format!("it has no {needed}"), "pass a folder that PEFT or weblora saved"));
        }
        let optional = |file: &str| Some(path.join(file)).filter(|path| path.is_file()).map(|path| read(&path)).transpose();
        let (note, chain) = (optional(NOTE_FILE)?, optional(CHAIN_FILE)?);
        Ok(Self { config: read(&path.join(CONFIG_FILE))?, weights: read(&path.join(WEIGHTS_FILE))?, note, chain, name })
    }

    /// `chain.json`, where there is one.
    pub fn chain(&self) -> Option<&[u8]> {
        self.chain.as_deref()
    }

    /// As the library takes it.
    pub fn folder(&self) -> peft::Folder<'_> {
        peft::Folder { name: &self.name, config: &self.config, weights: &self.weights, note: self.note.as_deref(), chain: self.chain() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        write_atomic(&path, b"one").expect("written");
        write_atomic(&path, b"two").expect("written");
        assert_eq!(read(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        // A folder of that name cannot be replaced by a file: the old one stays and the temporary file goes.
        let taken = folder.path().join("taken");
        fs::create_dir_all(taken.join("inside")).expect("a folder");
        assert!(write_atomic(&taken, b"three").is_err());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 2);
    }

    #[test]
    fn output_folders_are_not_taken_by_accident() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("a").join("b");
        OutFolder::open(&out, Existing::Refuse).expect("created");
        let error = OutFolder::open(&out, Existing::Refuse).expect_err("exists").to_string();
        assert!(error.contains("already exists") && error.contains("--resume"), "{error}");
        assert!(OutFolder::open(&out, Existing::Resume).expect_err("no checkpoint").to_string().contains("checkpoint.safetensors"));
        let files = OutFolder::open(&out, Existing::Overwrite).expect("taken");
        files.write(CHECKPOINT_FILE, b"old").expect("written");
        OutFolder::open(&out, Existing::Resume).expect("resumed");
        OutFolder::open(&out, Existing::Overwrite).expect("taken");
        assert!(!files.checkpoint().exists(), "an old checkpoint must not be resumed from");
        assert!(OutFolder::open(&files.path().join("f").join("g"), Existing::Refuse).is_ok());
        fs::write(out.join("file"), b"").expect("written");
        assert!(OutFolder::open(&out.join("file").join("x"), Existing::Refuse).is_err());
    }

    #[test]
    fn what_the_system_said_gets_a_fitting_hint() {
        let text = |code, action| io_error(action, Path::new("x"), std::io::Error::from_raw_os_error(code)).to_string();
        if cfg!(target_os = "linux") {
            assert!(text(28, "write").contains("free some space"), "ENOSPC");
            assert!(text(30, "write").contains("may write to"), "EROFS");
            assert!(text(13, "read").contains("permission to read"), "EACCES");
        }
    }
}
