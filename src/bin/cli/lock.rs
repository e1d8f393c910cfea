//! One writer at a time: a lock on a file inside the folder that is written. The lock is the system's own, so it ends with the process that holds it,
//! however that ends: a file that a killed process left behind locks nothing.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use weblora::{Error, Result};

use super::io_error::io_error;

/// Name of the file.
pub const LOCK_FILE: &str = ".weblora.lock";

/// A lock that is held until it is dropped; the file goes with it.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// The lock ends when this is closed, after the file was removed.
    _file: File,
}

impl Lock {
    /// Takes the lock of `folder`, which exists and which the setting `key` named. `None` on file systems that have no locks.
    ///
    /// # Errors
    /// Names the process that holds it.
    pub fn take(folder: &Path, key: &str) -> Result<Option<Self>> {
        let path = folder.join(LOCK_FILE);
        loop {
            // What a link points to is somebody else's file: it is not written to.
            if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                let problem = format!("{} is no file of weblora's", path.display());
                return Err(Error::config(key, problem, "remove it, or choose another folder"));
            }
            let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = open.map_err(|e| io_error("create", &path, e))?;
            match file.try_lock() {
                // Its holder may have removed the file between our opening and locking it: then it is no longer the one that others lock.
                Ok(()) if !is_at(&file, &path) => continue,
                Ok(()) => {
                    // Only for the message of those who come later.
                    file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).ok();
                    return Ok(Some(Self { path, _file: file }));
                }
                Err(TryLockError::WouldBlock) => {
                    let mut holder = String::new();
                    file.read_to_string(&mut holder).ok();
                    let who = if holder.is_empty() { String::new() } else { format!(" (process {holder})") };
                    let problem = format!("another weblora{who} is writing {}", folder.display());
                    return Err(Error::config(key, problem, "wait until it has ended, stop it, or choose another folder"));
                }
                Err(TryLockError::Error(_)) => return Ok(None),
            }
        }
    }
}

/// Whether somebody is writing `folder`; true as well where one cannot know.
pub fn is_held(folder: &Path) -> bool {
    let Ok(file) = File::open(folder.join(LOCK_FILE)) else { return false };
    file.try_lock_shared().is_err()
}

impl Drop for Lock {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok(); // left behind, it locks nothing
    }
}

/// Whether `file` is what `path` names now.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Whether `file` is what `path` names now. Elsewhere a file that somebody has open keeps its name.
#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_a_file_left_behind_locks_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(LOCK_FILE), "4194305").expect("left behind");
        assert!(!is_held(folder.path()));
        let lock = Lock::take(folder.path(), "out").expect("free").expect("locks");
        assert!(is_held(folder.path()));
        let error = Lock::take(folder.path(), "out").expect_err("held").to_string();
        assert!(error.contains("`out`") && error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
        assert!(!is_held(folder.path()));
        let again = Lock::take(folder.path(), "out").expect("free");
        // A link is not followed.
        #[cfg(unix)]
        {
            let (victim, other) = (folder.path().join("victim"), folder.path().join("other"));
            fs::write(&victim, "mine").and_then(|()| fs::create_dir(&other)).expect("written");
            std::os::unix::fs::symlink(&victim, other.join(LOCK_FILE)).expect("a link");
            assert!(Lock::take(&other, "out").expect_err("a link").to_string().contains("no file of weblora's"));
            assert_eq!(fs::read(&victim).expect("read"), b"mine");
        }
        // One whose file was removed by the holder before us is not the lock that others take.
        let old = File::open(folder.path().join(LOCK_FILE)).expect("open");
        drop(again);
        assert!(!is_at(&old, &folder.path().join(LOCK_FILE)));
    }
}
