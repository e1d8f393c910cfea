//! Files of other kinds, told by their first bytes: an error names what was given and what to do with it.

/// First bytes, what they are, what to do where rows or text are wanted, and where a model is wanted.
const KINDS: &[(&[u8], &str, &str, &str)] = &[
    (b"\x1f\x8b", "a gzip archive", "unpack it with gunzip", "unpack it with gunzip"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it with unzstd", "unpack it with unzstd"),
    (b"\xfd7zXZ\x00", "an xz archive", "unpack it with unxz", "unpack it with unxz"),
    (b"BZh9", "a bzip2 archive", "unpack it with bunzip2", "unpack it with bunzip2"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it", "unpack it"),
    (
        b"PK\x03\x04",
        "a zip archive (or a spreadsheet, which is one)",
        "unpack it, or save the sheet as text",
        "unpack it; a PyTorch checkpoint is a zip, too: convert it to safetensors or GGUF",
    ),
    (b"PAR1", "a Parquet table", TABLE, OTHER),
    (b"ARROW1\x00\x00", "an Arrow table", TABLE, OTHER),
    (b"ORC", "an ORC table", TABLE, OTHER),
    (b"Obj\x01", "an Avro table", TABLE, OTHER),
    (b"\x93NUMPY", "a NumPy array", TABLE, "convert it to safetensors or GGUF"),
    (b"\x89HDF", "an HDF5 file", TABLE, "convert it to safetensors or GGUF"),
    (b"SQLite format 3\x00", "an SQLite database", TABLE, OTHER),
    (b"%PDF", "a PDF document", "save its text as a UTF-8 file", OTHER),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office document", "save it as UTF-8 text", OTHER),
    (b"GGUF", "a GGUF model", "give a file of rows or text; a model goes to --model", ""),
    (b"\xff\xfe", "text in UTF-16", "save the file as UTF-8", OTHER),
    (b"\xfe\xff", "text in UTF-16", "save the file as UTF-8", OTHER),
];
const TABLE: &str = "export its rows as JSON lines";
const OTHER: &str = "give a GGUF file, a .safetensors file or a folder with either";

/// A tar archive says so here, behind the name of its first file.
const TAR: (usize, &[u8]) = (257, b"ustar");

/// Bytes of a file that tell its kind.
pub const TELLING: usize = TAR.0 + TAR.1.len();

/// What a file that should be rows or text is instead, and what to do.
pub fn instead_of_text(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    // A safetensors file begins with the length of its header, which is JSON.
    let length = bytes.first_chunk().map(|length| u64::from_le_bytes(*length));
    if bytes.get(8) == Some(&b'{') && length.is_some_and(|length| (2..bytes.len() as u64).contains(&length)) {
        return Some(("a safetensors file", "give a file of rows or text; a model goes to --model, an adapter's folder to --adapter"));
    }
    of_kind(bytes).map(|(kind, hint, _)| (kind, hint))
}

/// The kind, and what to do where text and where a model is wanted.
fn of_kind(bytes: &[u8]) -> Option<(&'static str, &'static str, &'static str)> {
    let known = KINDS.iter().find(|(magic, ..)| bytes.starts_with(magic)).map(|(_, kind, text, model)| (*kind, *text, *model));
    let tar = || bytes.get(TAR.0..)?.starts_with(TAR.1).then_some(("a tar archive", "unpack it", "unpack it"));
    known.or_else(tar)
}

/// What a file that should be a model is instead, and what to do.
pub fn instead_of_model(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    of_kind(bytes).filter(|(.., hint)| !hint.is_empty()).map(|(kind, _, hint)| (kind, hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        assert_eq!(instead_of_text(b"\x1f\x8b\x08\x00").expect("gzip").0, "a gzip archive");
        assert!(instead_of_text(b"PAR1\x15").expect("Parquet").1.contains("JSON lines"));
        assert!(instead_of_model(b"PK\x03\x04").expect("zip").1.contains("safetensors"));
        let mut tar = b"rows.jsonl".to_vec();
        tar.resize(257, 0);
        tar.extend(b"ustar  ");
        assert_eq!((instead_of_text(&tar).expect("tar").0, instead_of_model(&tar).expect("tar").0), ("a tar archive", "a tar archive"));
        assert_eq!(instead_of_text(b"\x93NUMPY\x01\x00").expect("NumPy").0, "a NumPy array");
        assert_eq!(instead_of_text(b"\x02\0\0\0\0\0\0\0{}").expect("safetensors").0, "a safetensors file");
        for text in [&b"{\"text\": \"x\"}"[..], b"", b"P", b"\xef\xbb\xbf{}", b"prompt,completion"] {
            assert_eq!(instead_of_text(text), None);
            assert_eq!(instead_of_model(text), None);
        }
        assert!(instead_of_model(b"GGUF").is_none() && instead_of_text(b"GGUF").is_some());
        assert!(KINDS.iter().all(|(magic, ..)| magic.len() <= TELLING));
    }
}
