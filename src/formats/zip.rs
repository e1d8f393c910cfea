//! Zip archives of stored (not compressed) files, as PyTorch writes them: with or without zip64, which its writer always adds.
//!
//! An archive may be made to do harm: files may not share bytes, so that they have no more bytes together than the archive; checksums are
//! verified. Files come as slices of the archive, nothing is copied.

use std::collections::HashSet;

use crate::error::{Error, Result};

/// First bytes of an archive that has a file.
pub const MAGIC: &[u8] = b"PK\x03\x04";

const HINT: &str = "the file is damaged or no archive that torch.save writes; save or download it again";
/// Most files: an adapter of a large model has some ten thousand tensors, and each is a file.
const MAX_ENTRIES: u64 = 1 << 17;

const LOCAL: u32 = 0x0403_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const LOCATOR_64: u32 = 0x0706_4b50;
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
const END_64_BYTES: usize = 56;
const LOCATOR_BYTES: usize = 20;
const ZIP64_FIELD: u16 = 1;
const ENCRYPTED: u16 = 1;

/// A file of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name, folders included.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What the archive's directory says of a file.
struct Listed<'a> {
    name: &'a str,
    crc: u32,
    size: u64,
    /// Of its local header.
    at: u64,
}

/// Reads all files of an archive that errors call `file`.
///
/// # Errors
/// When it is no zip archive or a damaged one, or has files that are compressed, encrypted or overlap.
pub fn read<'a>(file: &str, archive: &'a [u8]) -> Result<Vec<Entry<'a>>> {
    let bad = |problem: String| Error::format(file, problem, HINT);
    let (listed, directory) = list(file, archive)?;
    let mut placed = Vec::with_capacity(listed.len());
    for entry in listed {
        let moved = || bad(format!("{} is not where the directory says", entry.name));
        let at = usize::try_from(entry.at).map_err(|_| moved())?;
        let header = at.checked_add(LOCAL_BYTES).and_then(|end| archive.get(at..end)).ok_or_else(moved)?;
        if u32_at(header, 0) != LOCAL {
            return Err(moved());
        }
        let data = at + LOCAL_BYTES + usize::from(u16_at(header, 26)) + usize::from(u16_at(header, 28));
        placed.push((at, data, entry));
    }
    placed.sort_by_key(|(at, ..)| *at);
    let mut end = 0;
    let mut files = Vec::with_capacity(placed.len());
    for (at, data, entry) in placed {
        if at < end {
            return Err(bad(format!("{} shares bytes with another file of the archive", entry.name)));
        }
        end =
            usize::try_from(entry.size).ok().and_then(|size| data.checked_add(size)).filter(|end| *end <= directory).unwrap_or(usize::MAX);
        let bytes = archive.get(data..end).ok_or_else(|| bad(format!("{} is cut off", entry.name)))?;
        if crc32(bytes) != entry.crc {
            return Err(bad(format!("{} is damaged: its checksum is {:08x}, {:08x} was expected", entry.name, crc32(bytes), entry.crc)));
        }
        files.push(Entry { name: entry.name, bytes });
    }
    Ok(files)
}

/// The archive's directory, which stands at its end, and where it begins.
fn list<'a>(file: &str, archive: &'a [u8]) -> Result<(Vec<Listed<'a>>, usize)> {
    let bad = |problem: String| Error::format(file, problem, HINT);
    let cut = || bad("its directory is cut off".to_owned());
    // A comment of up to 65,535 bytes may follow.
    let last = archive.len().checked_sub(END_BYTES).ok_or_else(|| bad("it is no zip archive, or cut off".to_owned()))?;
    let end = (last.saturating_sub(0xffff)..=last).rev().find(|at| u32_at(archive, *at) == END);
    let end = end.ok_or_else(|| bad("it is no zip archive, or cut off".to_owned()))?;
    let (mut count, mut length, mut start) =
        (u64::from(u16_at(archive, end + 10)), u64::from(u32_at(archive, end + 12)), u64::from(u32_at(archive, end + 16)));
    let locator = end.checked_sub(LOCATOR_BYTES).filter(|at| u32_at(archive, *at) == LOCATOR_64);
    if let Some(locator) = locator {
        let at = usize::try_from(u64_at(archive, locator + 8)).ok().filter(|at| at.checked_add(END_64_BYTES).is_some_and(|e| e <= locator));
        let at = at.filter(|at| u32_at(archive, *at) == END_64).ok_or_else(cut)?;
        (count, length, start) = (u64_at(archive, at + 32), u64_at(archive, at + 40), u64_at(archive, at + 48));
    }
    if count > MAX_ENTRIES {
        return Err(bad(format!("it has {count} files, at most {MAX_ENTRIES} were expected")));
    }
    let stop = start.checked_add(length).filter(|stop| *stop <= end as u64).ok_or_else(cut)? as usize; // at most `end`
    let start = start as usize; // at most `stop`
    let mut listed = Vec::new();
    let mut names = HashSet::new();
    let mut at = start;
    while (listed.len() as u64) < count {
        let header = archive[..stop].get(at..).filter(|rest| rest.len() >= CENTRAL_BYTES).ok_or_else(cut)?;
        if u32_at(header, 0) != CENTRAL {
            return Err(bad("its directory is damaged".to_owned()));
        }
        let [name, extra, comment] = [28, 30, 32].map(|offset| usize::from(u16_at(header, offset)));
        let next = CENTRAL_BYTES + name + extra + comment;
        if header.len() < next {
            return Err(cut());
        }
        let fields = &header[CENTRAL_BYTES + name..CENTRAL_BYTES + name + extra];
        let name = std::str::from_utf8(&header[CENTRAL_BYTES..CENTRAL_BYTES + name]);
        let name = name.map_err(|_| bad("a name in it is not UTF-8 text".to_owned()))?;
        if !names.insert(name) {
            return Err(bad(format!("it has {name} twice")));
        }
        if u16_at(header, 8) & ENCRYPTED != 0 {
            return Err(bad(format!("{name} is encrypted")));
        }
        let method = u16_at(header, 10);
        if method != 0 {
            return Err(bad(format!("{name} is compressed (method {method}); torch.save stores files as they are")));
        }
        let wide = [u32_at(header, 24), u32_at(header, 20), u32_at(header, 42)];
        let [size, packed, place] = zip64(wide, fields).ok_or_else(|| bad(format!("the sizes of {name} are damaged")))?;
        if packed != size {
            return Err(bad(format!("{name} is stored in {packed} bytes and has {size}")));
        }
        listed.push(Listed { name, crc: u32_at(header, 16), size, at: place });
        at += next;
    }
    if at != stop {
        return Err(bad("its directory is damaged".to_owned()));
    }
    Ok((listed, start))
}

/// Size, stored size and place of a file: those that say so in 32 bits stand in the zip64 field, in this order.
fn zip64(narrow: [u32; 3], mut fields: &[u8]) -> Option<[u64; 3]> {
    let mut own: &[u8] = &[];
    while fields.len() >= 4 {
        let (id, length) = (u16_at(fields, 0), usize::from(u16_at(fields, 2)));
        let content = fields.get(4..4 + length)?;
        if id == ZIP64_FIELD {
            own = content;
        }
        fields = &fields[4 + length..];
    }
    let mut found = [0; 3];
    for (wide, narrow) in found.iter_mut().zip(narrow) {
        *wide = u64::from(narrow);
        if narrow == u32::MAX {
            let (number, rest) = own.split_first_chunk::<8>()?;
            (*wide, own) = (u64::from_le_bytes(*number), rest);
        }
    }
    Some(found)
}

/// Writes an archive in which every file begins at a multiple of `align` bytes.
///
/// # Errors
/// When it is larger than an archive without zip64 may be.
pub fn write(file: &str, files: &[(String, &[u8])], align: usize) -> Result<Vec<u8>> {
    let too_large = || Error::format(file, "it would be larger than 4 GiB or have more than 65,535 files", "write safetensors instead");
    let total: usize = files.iter().map(|(name, bytes)| bytes.len() + 2 * name.len() + LOCAL_BYTES + CENTRAL_BYTES + align + 4).sum();
    if total > u32::MAX as usize - END_BYTES || files.len() > usize::from(u16::MAX) - 1 {
        return Err(too_large());
    }
    let (mut archive, mut directory) = (Vec::with_capacity(total + END_BYTES), Vec::new());
    for (name, bytes) in files {
        let at = archive.len() as u32;
        let size = (bytes.len() as u32).to_le_bytes();
        // What both headers have: versions, no flags, stored, midnight of 1 January 1980, checksum, sizes, length of the name.
        let mut common = Vec::with_capacity(24);
        common.extend([0, 0, 0, 0, 0, 0, 0x21, 0]);
        common.extend(crc32(bytes).to_le_bytes());
        common.extend(size);
        common.extend(size);
        common.extend((name.len() as u16).to_le_bytes());
        let before = archive.len() + LOCAL_BYTES + name.len() + 4;
        let padding = before.next_multiple_of(align) - before;
        archive.extend(LOCAL.to_le_bytes());
        archive.extend([20, 0]);
        archive.extend(&common);
        archive.extend((4 + padding as u16).to_le_bytes());
        archive.extend(name.as_bytes());
        // PyTorch's own field for padding.
        archive.extend(*b"FB");
        archive.extend((padding as u16).to_le_bytes());
        archive.resize(archive.len() + padding, b'Z');
        archive.extend(*bytes);
        directory.extend(CENTRAL.to_le_bytes());
        directory.extend([20, 0, 20, 0]);
        directory.extend(&common);
        directory.extend([0; 12]);
        directory.extend(at.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, count) = (archive.len() as u32, (files.len() as u16).to_le_bytes());
    archive.extend(&directory);
    archive.extend(END.to_le_bytes());
    archive.extend([0; 4]);
    archive.extend(count);
    archive.extend(count);
    archive.extend((directory.len() as u32).to_le_bytes());
    archive.extend(start.to_le_bytes());
    archive.extend([0; 2]);
    Ok(archive)
}

/// The checksum of zip files (CRC-32, polynomial 0xEDB88320), eight bytes at a time.
pub fn crc32(bytes: &[u8]) -> u32 {
    static TABLES: [[u32; 256]; 8] = tables();
    let mut value = !0u32;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let low = value ^ u32_at(chunk, 0);
        let first = low.to_le_bytes();
        let bytes = [first[0], first[1], first[2], first[3], chunk[4], chunk[5], chunk[6], chunk[7]];
        value = bytes.iter().zip(TABLES.iter().rev()).fold(0, |sum, (byte, table)| sum ^ table[usize::from(*byte)]);
    }
    for byte in chunks.remainder() {
        value = (value >> 8) ^ TABLES[0][usize::from(value as u8 ^ byte)];
    }
    !value
}

/// Table n is the checksum of a byte that n zeros follow.
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut i = 0;
    while i < 256 {
        let mut value = i as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        tables[0][i] = value;
        i += 1;
    }
    let mut n = 1;
    while n < 8 {
        let mut i = 0;
        while i < 256 {
            let value: u32 = tables[n - 1][i];
            tables[n][i] = (value >> 8) ^ tables[0][(value & 255) as usize];
            i += 1;
        }
        n += 1;
    }
    tables
}

/// Numbers of headers whose length was checked.
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive() -> Vec<u8> {
        write("x", &[("a/data.pkl".into(), b"one"), ("a/data/0".into(), &[7; 100]), ("a/empty".into(), b"")], 64).expect("small")
    }

    #[test]
    fn what_is_written_is_read_at_its_alignment() {
        let archive = archive();
        let files = read("x", &archive).expect("our own");
        assert_eq!(
            files.iter().map(|f| (f.name, f.bytes.len())).collect::<Vec<_>>(),
            [("a/data.pkl", 3), ("a/data/0", 100), ("a/empty", 0)]
        );
        for file in files {
            assert!((file.bytes.as_ptr() as usize - archive.as_ptr() as usize).is_multiple_of(64));
        }
    }

    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        let slow = !bytes
            .iter()
            .fold(!0u32, |v, b| (0..8).fold(v ^ u32::from(*b), |v, _| if v & 1 == 1 { (v >> 1) ^ 0xedb8_8320 } else { v >> 1 }));
        assert_eq!(crc32(&bytes), slow);
    }

    #[test]
    fn damage_is_found_and_named() {
        let whole = archive();
        let refused = |bytes: &[u8], words: &str| {
            let text = read("x", bytes).expect_err(words).to_string();
            assert!(text.contains(words), "{text} does not say {words:?}");
        };
        for cut in 0..whole.len() {
            assert!(read("x", &whole[..cut]).is_err(), "cut at {cut}");
        }
        let find = |magic: u32| (0..whole.len() - 4).filter(|at| u32_at(&whole, *at) == magic).collect::<Vec<_>>();
        let changed = |at: usize, byte: u8| {
            let mut bytes = whole.clone();
            bytes[at] = byte;
            bytes
        };
        let central = find(CENTRAL);
        refused(&changed(64, b'x'), "a/data.pkl is damaged");
        refused(&changed(central[1] + 10, 8), "a/data/0 is compressed (method 8)");
        refused(&changed(central[0] + 8, 1), "a/data.pkl is encrypted");
        refused(&changed(central[1] + 42, 0), "a/data/0 shares bytes");
        refused(&changed(central[1] + CENTRAL_BYTES, 0xff), "not UTF-8");
        refused(&changed(find(END)[0] + 10, 4), "directory");
        refused(b"PK\x05\x06", "no zip archive");
    }
}
