//! Chat templates that are given: by name, in settings, in an adapter's folder.

use weblora::settings::Map;
use weblora::text::{ChatOptions, ChatTemplate};
use weblora::train::TrainConfig;

use super::*;
use crate::common::program::{fails, succeeds};

const TALK: &str = r#"[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}, {"role": "assistant", "content": "b"}]"#;

#[test]
fn templates_by_name_say_what_they_are_called_after() {
    let tokenizer = vocabulary("<s>", "</s>");
    let messages: Vec<Value> = serde_json::from_str(TALK).expect("messages");
    for (name, text, asked) in [
        (
            "chatml",
            "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n",
            "<|im_start|>assistant\n",
        ),
        (
            "llama3",
            "<s><|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\na<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nr<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nb<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        ("mistral", "<s>[INST] s\n\nq[/INST] a</s>[INST] r[/INST] b</s>", ""),
        (
            "gemma",
            "<s><start_of_turn>user\ns\n\nq<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n<start_of_turn>user\nr<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n",
            "<start_of_turn>model\n",
        ),
        (
            "alpaca",
            "<s>s\n\n### Instruction:\nq\n\n### Response:\na</s>\n\n### Instruction:\nr\n\n### Response:\nb</s>\n\n",
            "### Response:\n",
        ),
    ] {
        let options = ChatOptions { template: Some(name.into()), date: None };
        let template = ChatTemplate::with(&tokenizer, &options).expect("compiles");
        assert_eq!(template.render(&messages, None, false).expect("renders"), text, "{name}");
        let prompt = template.render(&messages[..4], None, true).expect("renders");
        assert!(text.starts_with(&prompt) && prompt.ends_with(asked), "{name}: {prompt:?}");
        // Every turn is found, behind the prompt that generation gives.
        let rendered = template.render_with_spans(&messages, None).expect("renders");
        assert_eq!((rendered.spans.len(), rendered.other_prompt.len(), rendered.last_turn_only), (2, 0, false), "{name}");
    }
}

#[test]
fn a_model_without_a_template_is_told_of_the_names() {
    let tokenizer = vocabulary("<s>", "</s>");
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
    refused(build(&tokenizer, row, options()), &["no chat template", "--chat-template", "chatml"]);
    refused(
        build(&tokenizer, row, DataOptions { format: weblora::text::Format::Plain, ..options() }),
        &["row 1", "--format auto", "--chat-template"],
    );
    let with = |template: &str| DataOptions { chat: ChatOptions { template: Some(template.into()), date: None }, ..options() };
    assert_eq!(trained(&tokenizer, row, with("mistral")), " a</s>");
    assert_eq!(trained(&tokenizer, row, with("{% for m in messages %}{{ m.content }};{% endfor %}")), "a;</s>");
    refused(build(&tokenizer, row, with("nothing")), &["`chat-template`", "\"nothing\"", "alpaca"]);
    // A given template wins over the model's, and tokens that the model lacks are named.
    let said = build(&chatml(), row, with("gemma")).expect("builds").report.warnings("r");
    assert!(said.iter().any(|warning| warning.contains("<end_of_turn>") && warning.contains("as letters")), "{said:?}");
    assert!(build(&chatml(), row, with("chatml")).expect("builds").report.warnings("r").is_empty());
}

#[test]
fn settings_have_the_template_and_the_date() {
    let read = |value: Value| TrainConfig::from_map(value.as_object().expect("an object"));
    let config = read(serde_json::json!({"chat-template": "llama3", "date": "2024-07-26", "keep-reasoning": true, "parse-special": true}));
    let config = config.expect("settings");
    let options = config.data_options();
    assert_eq!((options.chat.template.as_deref(), options.chat.date), (Some("llama3"), "2024-07-26".parse().ok()));
    assert!(options.keep_reasoning && options.parse_special);
    let map: Map = config.to_map();
    assert_eq!((map["chat-template"].as_str(), map["date"].as_str()), (Some("llama3"), Some("2024-07-26")));
    assert_eq!(TrainConfig::from_map(&map).expect("again"), config);
    refused(read(serde_json::json!({"chat-template": "lama3"})), &["`chat-template`", "llama3"]);
    refused(read(serde_json::json!({"date": "26.7.2024"})), &["`date`", "2024-07-26"]);
    // The date of a run is what it began with: another one is another run.
    let other = read(serde_json::json!({"chat-template": "llama3", "date": "2024-07-27", "keep-reasoning": true, "parse-special": true}));
    refused(other.expect("settings").check_resume(&map), &["`date`", "2024-07-26"]);
}

#[test]
fn today_is_the_date_of_a_run_whose_template_asks_for_it() {
    let asks = vocabulary("<s>", "</s>").with_chat_template("{{ strftime_now('%Y') }}");
    let mut config = TrainConfig::from_map(&Map::new()).expect("settings");
    config.begin_today(&chatml());
    assert_eq!(config.date, None, "nobody asks");
    config.begin_today(&asks);
    let date = config.date.expect("a date").to_string();
    assert!(date.as_str() > "2025-01-01", "{date}");
    config.date = "2024-07-26".parse().ok();
    config.begin_today(&asks);
    assert_eq!(config.date, "2024-07-26".parse().ok(), "what is given stays");
}

#[test]
fn the_program_shows_rows_and_what_is_to_know_about_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let model = format!("{}/assets/demo/demo.gguf", env!("CARGO_MANIFEST_DIR"));
    let rows =
        path("rows.jsonl", r#"{"conversations": [{"from": "human", "value": "q", "training": true}, {"from": "gpt", "value": "a"}]}"#);
    let template = path("chat.jinja", "{% for m in messages %}{{ m.role + ': ' + m.content + ' ' }}{% endfor %}");
    let shown = succeeds(&["inspect", &model, "--data", &rows, "--chat-template", &template]);
    assert!(shown.contains("warning: ") && shown.contains("\"training\"") && shown.contains("⟦"), "{shown}");
    let out = succeeds(&["inspect", &model, "--data", &rows, "--chat-template", "alpaca", "--json"]);
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(events[0]["warnings"].as_array().is_some_and(|all| !all.is_empty()), "{out}");
    assert!(events[1]["pieces"].is_array(), "{out}");
    fails(&["inspect", &model, "--data", &rows, "--chat-template", "no-such.jinja"], &["`chat-template`", "no-such.jinja", "chatml"]);
    fails(&["inspect", &model, "--data", &rows, "--format", "plain"], &["does not fit"]);
}

/// The template of a run stays with what the run makes: its checkpoint, the adapter's folder, merged models.
#[test]
fn a_given_template_stays_with_the_adapter() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let model = format!("{}/assets/demo/demo.gguf", env!("CARGO_MANIFEST_DIR"));
    let source = "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}{{ strftime_now('%Y') }}";
    std::fs::write(path("chat.jinja"), source).expect("written");
    std::fs::write(
        path("rows.jsonl"),
        "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}\n".repeat(4),
    )
    .expect("written");
    let (rows, out) = (path("rows.jsonl"), path("out"));
    let run = ["train", "--model", &model, "--data", &rows, "--out", &out, "--no-tune", "--batch", "1", "--seq", "32", "--steps", "1"];
    succeeds(&[&run[..], &["--chat-template", &path("chat.jinja")]].concat());
    let read = |name: &str| std::fs::read_to_string(folder.path().join("out").join(name)).expect("written");
    assert_eq!(read("chat_template.jinja"), source);
    assert!(read("run.toml").contains("strftime_now") && read("run.toml").contains("date = \"20"), "{}", read("run.toml"));
    assert!(read("weblora.json").contains("strftime_now"));
    // Going on needs neither the file nor the flag.
    std::fs::remove_file(path("chat.jinja")).expect("removed");
    succeeds(&["train", "--out", &out, "--resume", "--no-tune", "--steps", "2"]);
    // Rows are rendered alike with the adapter and from merged models; the base alone has another template, or none.
    let pieces = |arguments: &[&str]| -> Vec<Value> {
        let out = succeeds(&[&["--json", "inspect"], arguments, &["--data", &rows]].concat());
        out.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).expect("JSON")["pieces"].clone()).collect()
    };
    let with_adapter = pieces(&[&model, "--adapter", &out]);
    assert!(with_adapter[0].to_string().contains("\"q\"") || with_adapter[0].as_array().is_some_and(|all| all.len() > 4));
    let (gguf, hf) = (path("merged.gguf"), path("merged"));
    succeeds(&["export", "--adapter", &out, "--model", &model, "--to", "merged-gguf", "--format", "f16", "--out", &gguf]);
    succeeds(&["export", "--adapter", &out, "--model", &model, "--to", "merged-safetensors", "--out", &hf]);
    for merged in [&gguf, &hf] {
        assert_eq!(pieces(&[merged]), with_adapter, "{merged}");
    }
    // An answer says why it ended.
    let answer = succeeds(&["--json", "generate", "--model", &model, "--adapter", &out, "--prompt", "q", "--max-tokens", "9", "--no-tune"]);
    let event: Value = serde_json::from_str(answer.lines().last().expect("an event")).expect("JSON");
    assert!(["end", "length"].iter().any(|stopped| event["stopped"] == *stopped), "{answer}");
    let told = crate::common::program::weblora(&[
        "generate",
        "--model",
        &model,
        "--raw",
        "--prompt",
        "sum 1 and 2 is",
        "--max-tokens",
        "8",
        "--no-tune",
    ]);
    let said = crate::common::program::text(&told.stderr);
    assert!(said.contains("by the model"), "{said}");
}
