//! One file per kernel family: parameters, recording, and the naive CPU twin that tests compare with.
//!
//! Shape letters: `t` rows (tokens of a packed batch), `d` hidden width, `f` feed-forward width, `h` query heads, `kv` key/value heads,
//! `hd` head width, `v` vocabulary, `r` rank, `k` inputs and `n` outputs of a linear layer. Activations are row-major `[t, width]`.

pub mod attention;
pub mod real;
