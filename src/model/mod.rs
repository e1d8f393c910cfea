//! The LLaMA block, forward and backward facing each other, over frozen quantised weights with adapters beside them.

pub mod base;
pub mod block;
pub mod check;
pub mod decoder;
pub mod ffn;
pub mod head;
pub mod inputs;
pub mod linear;
pub mod llama;
pub mod recompute;
pub mod rope;
pub mod row_parts;
pub mod stretch;
pub mod weights;

pub use base::Base;
pub use inputs::Inputs;
pub use llama::Llama;
pub use recompute::Recompute;
pub use row_parts::RowParts;
pub use weights::Weights;
