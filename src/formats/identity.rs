//! Which model a file is: a hash of its weights, and the name and format that people know it by.

use super::hash::Fnv128;
use super::model_file::ModelFile;
use crate::error::Result;
use std::collections::BTreeMap;

/// Models whose weights take no more bytes than this are hashed whole.
pub const HASHED_WHOLE: u64 = 16 << 20;
/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// What an adapter remembers of the base that it was trained on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BaseId {
    /// [`ModelFile::content_hash`].
    pub hash: String,
    /// The file's name, without its folder.
    pub name: String,
    /// The format of most of its bytes: `q4_1`.
    pub format: String,
}

impl std::fmt::Display for BaseId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = [&self.name, &self.format].into_iter().filter(|text| !text.is_empty());
        let words: Vec<&str> = known.map(String::as_str).collect();
        match words.as_slice() {
            [] => write!(f, "a base of hash {}", self.hash),
            [one] => write!(f, "{one} (hash {})", self.hash),
            [name, format, ..] => write!(f, "{name} ({format}, hash {})", self.hash),
        }
    }
}

/// The last part of a path or an address.
pub fn file_name(path: &str) -> &str {
    let path = path.split(['?', '#']).next().unwrap_or_default().trim_end_matches(['/', '\\']);
    path.rsplit(['/', '\\']).next().unwrap_or_default()
}

/// What people call a model: its file, or of safetensors, which all have one name, the folder.
fn model_name(source: &str) -> String {
    let file = file_name(source);
    let folder = source.rsplit_once(['/', '\\']).map_or("", |(folder, _)| file_name(folder));
    if file.ends_with(".safetensors") && !matches!(folder, "" | "." | "..") { folder.to_owned() } else { file.to_owned() }
}

impl ModelFile {
    /// What an adapter of this base remembers of it.
    ///
    /// # Errors
    /// As [`Self::content_hash`].
    pub async fn identity(&self) -> Result<BaseId> {
        Ok(self.identity_of(self.content_hash().await?))
    }

    /// The same, where its hash is known.
    pub fn identity_of(&self, hash: String) -> BaseId {
        let mut by_format: BTreeMap<&str, u64> = BTreeMap::new();
        for tensor in self.tensors() {
            *by_format.entry(tensor.format.name).or_default() += tensor.bytes;
        }
        let format = by_format.iter().max_by_key(|(_, bytes)| **bytes).map_or("", |(name, _)| *name);
        BaseId { hash, name: model_name(self.name()), format: format.to_owned() }
    }

    /// Whether [`Self::content_hash`] reads every weight, not only some rows.
    pub fn is_hashed_whole(&self) -> bool {
        self.tensors().map(|t| t.bytes).sum::<u64>() <= HASHED_WHOLE
    }

    /// Identity of the base weights, by which adapters know their base: 32 hex digits.
    ///
    /// FNV-1a 128 over, for every tensor in order of its name: name, 0, format name, 0, sizes as u64 LE; then over stored bytes, with rows in
    /// Hugging Face order. A model of at most `HASHED_WHOLE` bytes gives all of them. A larger one gives, for the tensors outside the
    /// blocks and those of the first, middle and last block, the middle row: some thirty rows, which differ for any fine-tune of all weights,
    /// but an edit of other rows is not seen. The hash is the same for a split and an unsplit file.
    ///
    /// # Errors
    /// A file that cannot be read, or a weight that is NaN or infinite.
    pub async fn content_hash(&self) -> Result<String> {
        let mut hash = Fnv128::new();
        for t in self.tensors() {
            hash.update(t.name.as_bytes());
            hash.update(&[0]);
            hash.update(t.format.name.as_bytes());
            hash.update(&[0]);
            for &size in &t.shape {
                hash.update(&(size as u64).to_le_bytes());
            }
        }
        if self.is_hashed_whole() {
            for t in self.tensors() {
                let step = (PIECE / t.row_bytes()).max(1);
                for start in (0..t.rows()).step_by(step) {
                    hash.update(&self.read_rows(&t.name, start..(start + step).min(t.rows())).await?);
                }
            }
            return Ok(hash.hex());
        }
        let layers = self.config.num_hidden_layers;
        let sampled = [0, layers / 2, layers - 1].map(|l| format!("model.layers.{l}."));
        for t in self.tensors() {
            if t.name.starts_with("model.layers.") && !sampled.iter().any(|prefix| t.name.starts_with(prefix)) {
                continue;
            }
            let middle = t.rows() / 2;
            hash.update(&self.read_rows(&t.name, middle..middle + 1).await?);
        }
        Ok(hash.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_folders() {
        for (path, name) in [
            ("a/b/model.gguf", "model.gguf"),
            ("C:\\models\\model.gguf", "model.gguf"),
            ("https://example.org/m/model.gguf?download=true", "model.gguf"),
            ("model.gguf", "model.gguf"),
            ("folder/", "folder"),
            ("", ""),
        ] {
            assert_eq!(file_name(path), name);
        }
    }

    #[test]
    fn safetensors_are_called_by_their_folder() {
        for (source, name) in [
            ("models/Smol-135M/model.safetensors", "Smol-135M"),
            ("./model.safetensors", "model.safetensors"),
            ("model-00001-of-00002.safetensors", "model-00001-of-00002.safetensors"),
            ("models/smol.gguf", "smol.gguf"),
        ] {
            assert_eq!(model_name(source), name);
        }
    }

    #[test]
    fn a_base_is_described_by_what_is_known() {
        let base = |name: &str, format: &str| BaseId { hash: "ab".into(), name: name.into(), format: format.into() }.to_string();
        assert_eq!(
            [base("m.gguf", "f16"), base("m.gguf", ""), base("", "")],
            ["m.gguf (f16, hash ab)", "m.gguf (hash ab)", "a base of hash ab"]
        );
    }
}
