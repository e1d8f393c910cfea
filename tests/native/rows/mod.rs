//! Rows and chat templates of the kinds that people have: `cases/` has small inputs with what is right, the rest are variants of them.

mod conversations;
mod dropped;
mod long;
mod plain;
mod rewritten;
mod shapes;
mod templates;

use serde_json::Value;
use weblora::text::{DataOptions, Dataset, Example, GgufTokenizer, Tokenizer, read_rows};

/// A byte-level vocabulary with the control tokens of the templates in use; its beginning and end of sequence are those that are named.
fn vocabulary(bos: &str, eos: &str) -> Tokenizer {
    let golden: Value = serde_json::from_str(include_str!("../../golden/text.json")).expect("the golden file is JSON");
    let strings = |key: &str| -> Vec<String> { serde_json::from_value(golden["byte_level"][key].clone()).expect("strings") };
    let mut tokens = strings("tokens");
    let mut token_type: Vec<i32> = (0..tokens.len()).map(|id| if id < 3 { 3 } else { 1 }).collect();
    let control = "<|eot_id|> <|start_header_id|> <|end_header_id|> [INST] [/INST] <|User|> <|Assistant|> <|endofsentence|> <s> </s>";
    tokens.extend(control.split(' ').map(str::to_owned));
    token_type.resize(tokens.len(), 3);
    let id = |token: &str| tokens.iter().position(|known| known == token).map(|id| id as u32);
    let meta = GgufTokenizer {
        model: "gpt2".into(),
        pre: Some("smollm".into()),
        bos_token_id: id(bos),
        eos_token_id: id(eos),
        add_bos_token: Some(false),
        token_type,
        merges: strings("merges"),
        tokens,
        ..GgufTokenizer::default()
    };
    Tokenizer::from_gguf("test.gguf", meta).expect("a good vocabulary")
}

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// That vocabulary with ChatML.
fn chatml() -> Tokenizer {
    vocabulary("<|im_start|>", "<|im_end|>").with_chat_template(CHATML)
}

fn options() -> DataOptions {
    DataOptions::new(512)
}

fn build(tokenizer: &Tokenizer, rows: &str, options: DataOptions) -> weblora::Result<Dataset> {
    Dataset::build("rows.jsonl", &read_rows("rows.jsonl", rows.as_bytes())?, tokenizer, options)
}

/// The text of an example's tokens, all of them or the trained ones.
fn told(tokenizer: &Tokenizer, example: &Example, trained: bool) -> String {
    let ids: Vec<u32> = example.tokens.iter().zip(&example.targets).filter(|(_, target)| !trained || **target).map(|(id, _)| *id).collect();
    tokenizer.decode(&ids, false).expect("decodes")
}

/// The text that is trained of the one example that rows make.
#[track_caller]
fn trained(tokenizer: &Tokenizer, rows: &str, options: DataOptions) -> String {
    let data = build(tokenizer, rows, options).expect("builds");
    assert_eq!(data.examples.len(), 1);
    told(tokenizer, &data.examples[0], true)
}

/// The error's text, which must be one sentence that holds all of `parts`.
#[track_caller]
fn refused<T>(result: weblora::Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("expected an error about {parts:?}") };
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}
