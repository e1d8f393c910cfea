//! From text to tokens with a mask: tokenizers, chat templates, data rows, and a way to look at the result.

pub mod chat;
pub mod dataset;
pub mod gguf_vocab;
mod hf_files;
pub mod inspect;
pub mod jinja;
pub mod json_vocab;
pub mod of_model;
pub mod pre_tokenizer;
pub mod rows;
pub mod stream;
pub mod tokenizer;
mod tokenizer_check;

pub use chat::ChatTemplate;
pub use dataset::{DataOptions, DataReport, Dataset, Example, Format, Labelled, Overlong};
pub use gguf_vocab::GgufTokenizer;
pub use rows::{Row, read_rows};
pub use stream::StreamDecoder;
pub use tokenizer::{EncodeOptions, Tokenizer};
