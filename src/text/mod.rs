//! From text to tokens with a mask: tokenizers, chat templates, data rows, and a way to look at the result.

mod builder;
pub mod chat;
pub mod dataset;
pub mod gguf_vocab;
mod hf_files;
pub mod inspect;
pub mod jinja;
pub mod json_vocab;
mod masked;
pub mod messages;
pub mod of_model;
pub mod pre_tokenizer;
mod preference;
pub mod report;
pub mod rows;
pub mod stream;
pub mod templates;
pub mod tokenizer;
mod tokenizer_check;
pub mod turns;
mod words;

pub use chat::{ChatOptions, ChatTemplate};
pub use dataset::{DataOptions, Dataset, Example, Format, Labelled, Overlong};
pub use gguf_vocab::GgufTokenizer;
pub use jinja::Date;
pub use messages::Conversation;
pub use report::DataReport;
pub use rows::{Row, read_rows};
pub use stream::StreamDecoder;
pub use tokenizer::{EncodeOptions, Tokenizer};
