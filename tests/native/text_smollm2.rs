//! The tokenizer of the real SmolLM2-135M-Instruct; set WEBLORA_SMOLLM2 to the path of its Q4_1 GGUF file.

use serde_json::json;
use weblora::formats::{ByteSource, File, ModelFile};
use weblora::text::{ChatTemplate, DataOptions, Dataset, Tokenizer, read_rows};

fn tokenizer() -> Option<Tokenizer> {
    let Ok(path) = std::env::var("WEBLORA_SMOLLM2") else {
        eprintln!("skipped: WEBLORA_SMOLLM2 does not name the model file");
        return None;
    };
    let source: Box<dyn ByteSource> = Box::new(File::open(path.as_ref()).expect("the file opens"));
    let model = pollster::block_on(ModelFile::open_gguf(vec![source])).expect("the model opens");
    Some(Tokenizer::of_model(&model).expect("the tokenizer builds"))
}

#[test]
fn smollm2_tokens_are_the_golden_ones() {
    let Some(tokenizer) = tokenizer() else { return };
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos()), (49152, Some(1), Some(2)));
    assert_eq!(tokenizer.stop_ids(), [2, 0]);
    for (text, ids) in [
        (
            "The capital of France is Paris. The capital of Germany is Berlin. The capital of Italy is",
            vec![504, 3575, 282, 4649, 314, 7042, 30, 378, 3575, 282, 4521, 314, 11452, 30, 378, 3575, 282, 7158, 314],
        ),
        (
            "LoRA fine-tuning 12345 in the browser!\n\nHello  world",
            vec![37601, 7055, 4979, 29, 40162, 216, 33, 34, 35, 36, 37, 281, 260, 11177, 17, 198, 198, 19556, 216, 905],
        ),
    ] {
        assert_eq!(tokenizer.encode(text, true).expect("encodes"), ids);
        assert_eq!(tokenizer.decode(&ids, false).expect("decodes"), text);
    }
}

#[test]
fn smollm2_chat_rows_train_on_the_answer() {
    let Some(tokenizer) = tokenizer() else { return };
    let messages = [json!({"role": "user", "content": "What is the capital of France?"})];
    let prompt = ChatTemplate::of(&tokenizer).and_then(|chat| chat.render(&messages, None, true)).expect("renders");
    let system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face";
    let expected = format!(
        "<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(prompt, expected);

    let row =
        br#"{"messages": [{"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": "Paris."}]}"#;
    let rows = read_rows("row", row).expect("reads");
    let data = Dataset::build("row", &rows, &tokenizer, DataOptions::new(512)).expect("builds");
    let example = &data.examples[0];
    let first = example.targets.iter().position(|&target| target).expect("a target");
    assert_eq!(example.tokens[..first], tokenizer.encode(&prompt, false).expect("encodes"));
    assert_eq!(tokenizer.decode(&example.tokens[first..], false).expect("decodes"), "Paris.<|im_end|>\n");
    assert_eq!(example.targets[first..], [true, true, true, false]);
}

#[test]
fn rendered_rows_have_the_models_control_tokens() {
    let Some(tokenizer) = tokenizer() else { return };
    let build = |rows: &str, parse_special: bool| {
        let options = DataOptions { parse_special, ..DataOptions::new(512) };
        Dataset::build("row", &read_rows("row", rows.as_bytes()).expect("reads"), &tokenizer, options).expect("builds").examples.remove(0)
    };
    let text = build(include_str!("rows/cases/rendered-text.jsonl"), false);
    assert_eq!((text.tokens.len(), text.tokens[0], text.n_targets()), (17, 1, 16));
    let exchange = build(include_str!("rows/cases/rendered-prompt-completion.jsonl"), true);
    assert_eq!(exchange.tokens, text.tokens);
    assert_eq!(build(include_str!("rows/cases/weight-0.jsonl"), false).n_targets(), 2);
}
