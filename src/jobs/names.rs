//! Names and folders of jobs: what may be one, and when two are the same.

use serde_json::Value;

use crate::{Error, Result};

/// Longest name: file systems allow 255 bytes, and checkpoints add endings.
const LONGEST: usize = 100;

/// What the program keeps in a run's folder.
pub(super) const RESERVED: &[&str] = &["requests", "status.json", "results.json", "results.csv", ".state", "kept"];

/// Refuses a name that could not be a folder on every system.
///
/// # Errors
/// Says what is wrong with the name.
pub fn check(name: &str) -> Result<()> {
    let bad = |problem: String| Err(Error::config("name", problem, "use letters, digits, `-`, `_`, `+` and `.`"));
    if name.is_empty() {
        return bad("a job without a name".to_owned());
    }
    if name.len() > LONGEST {
        return bad(format!("a job's name has {} bytes, more than {LONGEST}", name.len()));
    }
    // Those that are not seen, or turn the direction of writing, make a name look like another.
    let unseen = |c: char| matches!(c, '\u{200B}'..='\u{200D}' | '\u{2060}' | '\u{FEFF}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    let forbidden = |c: char| c.is_control() || unseen(c) || "/\\:*?\"<>|".contains(c);
    if let Some(c) = name.chars().find(|c| forbidden(*c)) {
        return bad(format!("the job name {name:?} has the character {c:?}, which cannot be in a folder's name"));
    }
    if name.starts_with('.') || name.ends_with(['.', ' ']) || name.starts_with(' ') {
        return bad(format!("the job name {name:?} begins or ends with a dot or a space"));
    }
    if RESERVED.contains(&folded(name).as_str()) {
        return bad(format!("{name:?} is a file or folder of the run itself, beside those of its jobs"));
    }
    Ok(())
}

/// A name or folder as two of them are compared: without `.`, `a/..` and doubled slashes, in lower case, because the file systems of macOS
/// and Windows do not tell `A` from `a`.
pub fn folded(path: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.split(['/', '\\']).filter(|part| !part.is_empty() && *part != ".") {
        match parts.last() {
            Some(last) if part == ".." && last != ".." => drop(parts.pop()),
            _ => parts.push(part.to_lowercase()),
        }
    }
    let root = if path.starts_with(['/', '\\']) { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// `lr` and `0.001` as a part of a job's name: `lr0.001`.
pub(super) fn part(key: &str, value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect::<Vec<_>>().join("+")
        }
        other => other.to_string(),
    };
    let fit = |c: char| if c.is_ascii_alphanumeric() || "+-_.".contains(c) { c } else { '_' };
    format!("{key}{}", text.chars().map(fit).collect::<String>())
}

/// Parts joined by `-`, as many as a name holds.
pub(super) fn joined(first: &str, parts: impl Iterator<Item = String>) -> String {
    let mut name = first.to_owned();
    for part in parts {
        if name.len() + 1 + part.len() > LONGEST {
            break;
        }
        name = format!("{name}-{part}");
    }
    name.trim_end_matches('.').to_owned()
}
