//! What the system said of a file, with a hint.

use std::io::ErrorKind;
use std::path::Path;

use weblora::Error;

/// An [`Error::Io`] whose hint fits what the system said.
pub fn io_error(action: &'static str, path: &Path, source: std::io::Error) -> Error {
    let hint = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some space there; what was saved before is untouched",
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied if action == "read" => "ask for permission to read it",
        ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => "choose a folder that you may write to with --out",
        ErrorKind::NotFound if path.to_string_lossy().starts_with("hf:") => {
            "download the file and give its path: `hf:` names are not read yet"
        }
        ErrorKind::NotFound => "check the path",
        ErrorKind::IsADirectory => "name a file, not a folder",
        ErrorKind::NotADirectory => "a part of the path is a file; choose another folder",
        _ => "check the disk and the path",
    };
    Error::Io { action, path: path.display().to_string(), source, hint }
}
