//! Files on disk: everything is written to a temporary file beside its place, synced, and renamed, so that a reader never sees half a file.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use weblora::export::folder::{self, CHAIN_FILE, CONFIG_FILE, NOTE_FILE, PICKLE_FILE, TEMPLATE_FILE, WEIGHTS_FILE};
use weblora::formats::foreign::instead_of_text;
use weblora::formats::pickle;
use weblora::{Error, Result};

use super::io_error::io_error;
use super::lock::Lock;

/// Largest file that is read whole: what a file says of its length may be anything, on disks with holes also beyond what the disk has.
const MAX_FILE_BYTES: u64 = 64 << 30;
/// Largest text file (settings, rows) that is read whole.
const MAX_TEXT_BYTES: u64 = 2 << 30;
/// Largest of the small files beside an adapter's weights.
const MAX_NOTE_BYTES: u64 = 256 << 20;
/// Most that is read of what does not say how long it is: a pipe, a device.
const MAX_STREAM_BYTES: u64 = 256 << 20;
/// What some editors put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Reads a file, or a pipe or device (`<(zcat rows.gz)`, `/dev/stdin`) of at most 256 MiB.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, MAX_FILE_BYTES, MAX_STREAM_BYTES)
}

/// The same for rows, of at most 2 GiB.
pub fn read_rows(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, MAX_TEXT_BYTES, MAX_STREAM_BYTES)
}

/// Reads a file of at most `most` bytes whole. `of_stream` is for what has no length of its own, and for what grows while it is read.
fn read_at_most(path: &Path, most: u64, of_stream: u64) -> Result<Vec<u8>> {
    let failed = |e| io_error("read", path, e);
    let name = || path.display().to_string();
    let file = fs::File::open(path).map_err(failed)?;
    let kind = file.metadata().map_err(failed)?;
    let len = if kind.is_file() { kind.len() } else { 0 };
    let mut bytes = Vec::new();
    let room = usize::try_from(len).ok().and_then(|len| len.checked_add(1)).filter(|_| len <= most);
    let Some(room) = room else {
        return Err(Error::format(
            name(),
            format!("it has {len} bytes, at most {most} were expected"),
            "name another file, or split it if it holds rows",
        ));
    };
    if bytes.try_reserve_exact(room).is_err() {
        return Err(Error::format(
            name(),
            format!("it has {len} bytes, more than there is memory for"),
            "name another file, or split it if it holds rows",
        ));
    }
    let most = of_stream.max(len);
    file.take(most + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > most {
        let problem = format!("it goes on after {most} bytes, the most that is read of a pipe or device");
        return Err(Error::format(name(), problem, "name a file that ends, or save what the pipe gives to one"));
    }
    Ok(bytes)
}

/// Reads one of the small files beside an adapter's weights.
fn read_note(path: &Path) -> Result<Vec<u8>> {
    read_at_most(path, MAX_NOTE_BYTES, MAX_NOTE_BYTES)
}

/// Reads a UTF-8 text file of at most 2 GiB; a byte order mark before it is no part of the text.
pub fn read_text(path: &Path) -> Result<String> {
    let name = path.display().to_string();
    let mut bytes = read_rows(path)?;
    if let Some((kind, hint)) = instead_of_text(&bytes) {
        return Err(Error::format(name, format!("it is {kind}"), hint));
    }
    if bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Error::format(name, format!("it is not UTF-8 text from byte {at} on"), "save the file as UTF-8")
    })
}

/// Writes a file whole or not at all.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(temporary_name(&name, std::process::id()));
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

/// Hidden, and told apart by process, so that two processes cannot write into one temporary file.
fn temporary_name(name: &str, process: u32) -> String {
    format!(".{name}.{process}.tmp")
}

/// Removes the temporary files that killed processes left in a folder that is locked: nobody writes to them any more.
fn remove_temporaries(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let parts = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('.'));
        if parts.is_some_and(|(of, process)| !of.is_empty() && process.parse::<u32>().is_ok()) {
            fs::remove_file(entry.path()).ok(); // it only takes room
        }
    }
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
    /// Write on, whatever is in it; it need not exist.
    Continue,
}

/// The folder of a run, or of a result. As long as a run has it, no other process can.
#[derive(Debug)]
pub struct OutFolder {
    path: PathBuf,
    _lock: Option<Lock>,
}

/// File name of the settings that a run was started with.
pub const RUN_FILE: &str = "run.toml";
/// File name of the checkpoint.
pub const CHECKPOINT_FILE: &str = "checkpoint.safetensors";
/// File name of the checkpoint before it, which stays until the run is known to be sound after the newer one.
pub const EARLIER_FILE: &str = "checkpoint-earlier.safetensors";
/// Folder of the adapter with the lowest held-out loss.
pub const BEST: &str = "best";

impl OutFolder {
    /// Refuses a folder that is there already, before anything is begun.
    pub fn check_free(path: &Path) -> Result<()> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        Err(Self::exists(path))
    }

    fn exists(path: &Path) -> Error {
        let hint = "choose another folder, or add --resume to go on, or --overwrite to start anew";
        Error::config("out", format!("{} already exists", path.display()), hint)
    }

    /// Refuses what is there already, for verbs that cannot go on or start anew; `key` is the flag that named it.
    pub fn check_unused(key: &str, path: &Path) -> Result<()> {
        if path.symlink_metadata().is_err() {
            return Ok(());
        }
        Err(Error::config(key, format!("{} already exists", path.display()), "choose a new name"))
    }

    /// Creates a folder that must be new. Of two processes that try, one succeeds.
    pub fn create(key: &str, path: &Path) -> Result<Self> {
        Self::check_unused(key, path)?;
        Self::create_new(path, || Error::config(key, format!("{} already exists", path.display()), "choose a new name"))?;
        Ok(Self { path: path.to_owned(), _lock: None })
    }

    fn create_new(path: &Path, exists: impl Fn() -> Error) -> Result<()> {
        let above = path.parent().map_or(Ok(()), fs::create_dir_all);
        above.and_then(|()| fs::create_dir(path)).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => exists(),
            _ => io_error("create", path, e),
        })
    }

    /// Creates the folder of a run, or takes an existing one as `existing` says, and locks it: no other process writes to it meanwhile.
    pub fn open(path: &Path, existing: Existing) -> Result<Self> {
        match existing {
            Existing::Refuse => Self::create_new(path, || Self::exists(path))?,
            Existing::Resume => Self::check_resumable(path)?,
            Existing::Overwrite | Existing::Continue => fs::create_dir_all(path).map_err(|e| io_error("create", path, e))?,
        }
        let folder = Self { path: path.to_owned(), _lock: Lock::take(path, "out")? };
        let best = path.join(BEST);
        [path, &best].into_iter().for_each(remove_temporaries);
        if existing == Existing::Overwrite {
            // What is left of an older run must not be taken for this one's.
            [CHECKPOINT_FILE, EARLIER_FILE, CONFIG_FILE, CHAIN_FILE, TEMPLATE_FILE].into_iter().try_for_each(|name| folder.remove(name))?;
            remove_adapter(&best)?;
        }
        Ok(folder)
    }

    fn check_resumable(path: &Path) -> Result<()> {
        let checkpoint = path.join(CHECKPOINT_FILE);
        if checkpoint.is_file() {
            return Ok(());
        }
        let problem = format!("{} is not there", checkpoint.display());
        Err(Error::config("resume", problem, "check --out, or leave out --resume to start anew"))
    }

    /// Where the checkpoint is.
    pub fn checkpoint(&self) -> PathBuf {
        self.path.join(CHECKPOINT_FILE)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one file.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_atomic(&self.path.join(name), bytes)
    }

    /// Removes one file, which need not be there.
    fn remove(&self, name: &str) -> Result<()> {
        remove(&self.path.join(name))
    }

    /// Replaces the checkpoint. The one before it stays beside it, unless an earlier one does already, until [`Self::drop_earlier`].
    pub fn save(&self, checkpoint: &[u8]) -> Result<()> {
        let (present, earlier) = (self.checkpoint(), self.path.join(EARLIER_FILE));
        if present.exists() && !earlier.exists() && fs::hard_link(&present, &earlier).is_err() {
            // File systems without links.
            write_atomic(&earlier, &read(&present)?)?;
        }
        self.write(CHECKPOINT_FILE, checkpoint)
    }

    /// The newer checkpoint has proven sound.
    pub fn drop_earlier(&self) -> Result<()> {
        self.remove(EARLIER_FILE)
    }

    /// Whether there is an earlier checkpoint.
    pub fn has_earlier(&self) -> bool {
        self.path.join(EARLIER_FILE).is_file()
    }

    /// The newer checkpoint has proven useless: the earlier one, if there is one, takes its place.
    pub fn fall_back(&self) -> Result<()> {
        match fs::rename(self.path.join(EARLIER_FILE), self.checkpoint()) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error("replace", &self.checkpoint(), e)),
            _ => Ok(()),
        }
    }

    /// Writes the adapter's files, in their order: the last one makes the folder whole.
    pub fn write_adapter(&self, files: &[folder::File]) -> Result<()> {
        files.iter().try_for_each(|(name, bytes)| self.write(name, bytes))
    }

    /// Writes the adapter with the lowest held-out loss.
    pub fn write_best(&self, files: &[folder::File]) -> Result<()> {
        let best = self.path.join(BEST);
        fs::create_dir_all(&best).map_err(|e| io_error("create", &best, e))?;
        remove_adapter(&best)?;
        files.iter().try_for_each(|(name, bytes)| write_atomic(&best.join(name), bytes))
    }
}

/// Removes a file, which need not be there.
fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(io_error("replace", path, e)),
        _ => Ok(()),
    }
}

/// Makes a folder be no adapter, nor a chain, until its files are written anew.
fn remove_adapter(folder: &Path) -> Result<()> {
    [CONFIG_FILE, CHAIN_FILE].into_iter().try_for_each(|name| remove(&folder.join(name)))
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
    /// Whether it is a folder with an adapter and no model: one that PEFT or weblora saved.
    pub fn is_adapter(path: &Path) -> bool {
        path.join(CONFIG_FILE).is_file() && !path.join("config.json").is_file()
    }

    /// Reads a PEFT folder.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let error = |problem: String, hint| Error::Adapter { adapter: name.clone(), problem, hint };
        if !path.is_dir() {
            return Err(error("it is no folder".into(), "pass the folder with adapter_config.json"));
        }
        let weights = [WEIGHTS_FILE, PICKLE_FILE].into_iter().find(|file| path.join(file).is_file()).unwrap_or(WEIGHTS_FILE);
        if let Some(needed) = [CONFIG_FILE, weights].into_iter().find(|file| !path.join(file).is_file()) {
            return Err(error(format!("it has no {needed}"), "pass a folder that PEFT or weblora saved"));
        }
        let weights = read(&path.join(weights))?;
        if !path.join(WEIGHTS_FILE).is_file() && !pickle::is_archive(&weights) {
            let problem = format!("{PICKLE_FILE} is no archive that torch.save has written since PyTorch 1.6; other pickles are not read");
            return Err(error(problem, "save it again with torch.save or as safetensors"));
        }
        let optional = |file: &str| Some(path.join(file)).filter(|path| path.is_file()).map(|path| read_note(&path)).transpose();
        let (note, chain) = (optional(NOTE_FILE)?, optional(CHAIN_FILE)?);
        Ok(Self { config: read_note(&path.join(CONFIG_FILE))?, weights, note, chain, name })
    }

    /// `chain.json`, where there is one.
    pub fn chain(&self) -> Option<&[u8]> {
        self.chain.as_deref()
    }

    /// As the library takes it.
    pub fn folder(&self) -> folder::Folder<'_> {
        folder::Folder { name: &self.name, config: &self.config, weights: &self.weights, note: self.note.as_deref(), chain: self.chain() }
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
    fn text_comes_without_its_byte_order_mark_and_archives_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        fs::write(&path, b"\xEF\xBB\xBFone").expect("written");
        assert_eq!(read_text(&path).expect("read"), "one");
        fs::write(&path, b"\x1f\x8b\x08\x00").expect("written");
        assert!(read_text(&path).expect_err("refused").to_string().contains("a gzip archive; unpack it"));
    }

    #[test]
    fn output_folders_are_not_taken_by_accident() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = folder.path().join("a").join("b");
        drop(OutFolder::open(&out, Existing::Refuse).expect("created"));
        let error = OutFolder::open(&out, Existing::Refuse).expect_err("exists").to_string();
        assert!(error.contains("already exists") && error.contains("--resume"), "{error}");
        assert!(OutFolder::open(&out, Existing::Resume).expect_err("no checkpoint").to_string().contains("checkpoint.safetensors"));
        let files = OutFolder::open(&out, Existing::Overwrite).expect("taken");
        files.save(b"old").expect("written");
        for existing in [Existing::Resume, Existing::Overwrite] {
            let error = OutFolder::open(&out, existing).expect_err("in use").to_string();
            assert!(error.contains("another weblora (process "), "{error}");
        }
        assert!(files.checkpoint().exists(), "what another run saved");
        drop(files);
        fs::write(out.join(temporary_name(CHECKPOINT_FILE, 4_194_305)), b"half").expect("written");
        fs::write(out.join(".mine.tmp"), b"kept").expect("written");
        drop(OutFolder::open(&out, Existing::Resume).expect("resumed"));
        let left: Vec<_> = fs::read_dir(&out).expect("a folder").map(|e| e.expect("an entry").file_name()).collect();
        assert!(left.len() == 2 && left.contains(&CHECKPOINT_FILE.into()) && left.contains(&".mine.tmp".into()), "{left:?}");
        let files = OutFolder::open(&out, Existing::Overwrite).expect("taken");
        assert!(!files.checkpoint().exists(), "an old checkpoint must not be resumed from");
        assert!(OutFolder::open(&files.path().join("f").join("g"), Existing::Refuse).is_ok());
        fs::write(out.join("file"), b"").expect("written");
        assert!(OutFolder::open(&out.join("file").join("x"), Existing::Refuse).is_err());
    }

    #[test]
    fn an_earlier_checkpoint_stays_until_the_newer_one_is_sound() {
        let folder = tempfile::tempdir().expect("a folder");
        let out = OutFolder::open(&folder.path().join("out"), Existing::Refuse).expect("created");
        let read = |name: &str| fs::read_to_string(out.path().join(name)).ok();
        out.save(b"1").expect("saved");
        out.fall_back().expect("nothing to fall back to");
        assert_eq!((read(CHECKPOINT_FILE).as_deref(), out.has_earlier()), (Some("1"), false));
        out.save(b"2").expect("saved");
        out.save(b"3").expect("saved");
        assert_eq!((read(CHECKPOINT_FILE).as_deref(), read(EARLIER_FILE).as_deref()), (Some("3"), Some("1")));
        out.drop_earlier().expect("dropped");
        out.save(b"4").expect("saved");
        out.fall_back().expect("fallen back");
        assert_eq!((read(CHECKPOINT_FILE).as_deref(), out.has_earlier()), (Some("3"), false));
    }

    #[test]
    fn what_does_not_end_is_not_read_for_ever() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        fs::write(&path, [7; 100]).expect("written");
        assert_eq!(read_at_most(&path, 100, 10).expect("a file has a length").len(), 100);
        assert!(read_at_most(&path, 99, 10).expect_err("too large").to_string().contains("it has 100 bytes, at most 99"));
        // A file with a hole says that it has more than any memory.
        let sparse = folder.path().join("sparse");
        fs::File::create(&sparse).and_then(|file| file.set_len(15 << 40)).expect("a hole");
        for read in [read, read_rows, read_note] {
            assert!(read(&sparse).expect_err("refused").to_string().contains("it has 16492674416640 bytes"));
        }
        if cfg!(unix) {
            let error = read_at_most(Path::new("/dev/zero"), MAX_FILE_BYTES, 1 << 20).expect_err("endless").to_string();
            assert!(error.contains("/dev/zero: it goes on after 1048576 bytes"), "{error}");
        }
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
