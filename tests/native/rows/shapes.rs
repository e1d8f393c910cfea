//! What rows may look like: keys, roles, parts, nulls.

use weblora::text::read_rows;

use super::*;

const BLUE: &str = "Blue.<|im_end|>";
const ASKED: &str = "<|im_start|>user\nName a color.<|im_end|>\n<|im_start|>assistant\nBlue.<|im_end|>\n";

/// Rows that say the same as a `messages` row in the usual spelling.
#[track_caller]
fn same(rows: &str) {
    let tokenizer = chatml();
    let data = build(&tokenizer, rows, options()).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], false), ASKED, "{rows}");
    assert_eq!(told(&tokenizer, &data.examples[0], true), BLUE, "{rows}");
    assert_eq!(data.report.warnings("r"), Vec::<String>::new());
}

#[test]
fn conversations_have_many_spellings() {
    same(include_str!("cases/sharegpt.jsonl"));
    same(include_str!("cases/roles-human-gpt.jsonl"));
    for (asks, answers) in [("Human", "GPT"), ("USER", "Model"), ("user", "bot"), (" human ", "chatgpt"), ("prompter", "assistant")] {
        same(&format!(
            r#"{{"conversations": [{{"from": "{asks}", "value": "Name a color."}}, {{"from": "{answers}", "value": "Blue."}}]}}"#
        ));
        same(&format!(
            r#"{{"messages": [{{"role": "{asks}", "content": "Name a color."}}, {{"role": "{answers}", "content": "Blue."}}]}}"#
        ));
    }
    same(r#"{"conversations": [{"role": "user", "content": "Name a color."}, {"role": "assistant", "content": "Blue."}], "id": "7"}"#);
    same(r#"{"messages": [{"From": "human", "Value": "Name a color."}, {"Role": "gpt", "Content": "Blue."}]}"#);
    // The spelling may change from row to row.
    let both = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}\n\
                {\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"b\"}]}";
    let data = build(&chatml(), both, options()).expect("builds");
    assert_eq!(data.examples[0].tokens, data.examples[1].tokens);
}

#[test]
fn system_and_tool_turns_are_kept_apart() {
    let tokenizer = chatml();
    let rows = r#"{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"},
        {"from": "observation", "value": "t"}, {"from": "gpt", "value": "b"}]}"#;
    let data = build(&tokenizer, &rows.replace('\n', " "), options()).expect("builds");
    let all = told(&tokenizer, &data.examples[0], false);
    assert!(
        all.starts_with("<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nq") && all.contains("<|im_start|>tool\nt<|im_end|>"),
        "{all}"
    );
    assert_eq!(told(&tokenizer, &data.examples[0], true), "a<|im_end|>b<|im_end|>");
    let beside = r#"{"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}"#;
    let data = build(&tokenizer, beside, options()).expect("builds");
    assert!(told(&tokenizer, &data.examples[0], false).starts_with("<|im_start|>system\ns<|im_end|>"));
    for row in [beside.replace("\"system\"", "\"system_prompt\""), beside.replace("\"system\": ", "\"system\": null, \"System_Prompt\": ")]
    {
        assert_eq!(build(&tokenizer, &row, options()).expect("builds").examples, data.examples, "{row}");
    }
    assert!(data.report.warnings("r").is_empty());
    // Rows of other shapes have no place for it, which is said.
    for row in [r#"{"system": "s", "prompt": "q", "completion": "a"}"#, r#"{"system": "s", "instruction": "q", "output": "a"}"#] {
        let said = build(&tokenizer, row, options()).expect("builds").report.warnings("r");
        assert!(said.iter().any(|text| text.contains("the text under \"system\" (first in row 1) is not read")), "{row}: {said:?}");
    }
    // Without an answer there is nothing to train, and that is said.
    let silent = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}"#;
    refused(build(&tokenizer, silent, options()), &["none of the 1 rows has a token to train on"]);
}

#[test]
fn an_unknown_role_refuses_its_row_by_name() {
    let row = |role: &str| format!(r#"{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "{role}", "content": "a"}}]}}"#);
    for role in ["narrator", "", "asistant", "user2"] {
        refused(read_rows("r", row(role).as_bytes()), &["row 1", "message 2", &format!("{role:?}"), "assistant"]);
    }
    let share = r#"{"conversations": [{"from": "narrator", "value": "a"}]}"#;
    refused(read_rows("r", share.as_bytes()), &["message 1", "narrator"]);
    refused(read_rows("r", br#"{"messages": [{"role": null, "content": "a"}]}"#), &["message 1", "role"]);
    refused(read_rows("r", br#"{"messages": [{"role": ["user"], "content": "a"}]}"#), &["message 1", "role"]);
}

#[test]
fn prompts_and_completions_may_hold_messages() {
    let tokenizer = chatml();
    let row = include_str!("cases/conversational-prompt-completion.jsonl");
    let data = build(&tokenizer, row, options()).expect("builds");
    let all = told(&tokenizer, &data.examples[0], false);
    assert_eq!(all, format!("<|im_start|>system\nBe brief.<|im_end|>\n{ASKED}"));
    assert_eq!(told(&tokenizer, &data.examples[0], true), BLUE);
    same(r#"{"prompt": [{"role": "user", "content": "Name a color."}], "completion": "Blue."}"#);
    same(r#"{"prompt": "Name a color.", "completion": [{"role": "assistant", "content": "Blue."}]}"#);
    same(r#"{"prompt": {"role": "user", "content": "Name a color."}, "completion": {"from": "gpt", "value": "Blue."}, "choices": null}"#);
    // Answers within the prompt are context.
    let row = r#"{"prompt": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}, {"role": "user", "content": "r"}], "completion": [{"role": "assistant", "content": "b"}]}"#;
    assert_eq!(trained(&tokenizer, row, options()), "b<|im_end|>");
    refused(read_rows("r", br#"{"prompt": "q", "completion": [{"role": "user", "content": "a"}]}"#), &["assistant"]);
    let choices = br#"{"prompt": [{"role": "user", "content": "q"}], "completion": "a", "choices": ["a", "b"]}"#;
    refused(read_rows("r", choices), &["`choices`", "--format chat"]);
    // A prompt of text parts is a text.
    let parts = r#"{"prompt": [{"type": "text", "text": "q "}, "r"], "completion": " a"}"#;
    let plain = r#"{"prompt": "q r", "completion": " a"}"#;
    assert_eq!(
        build(&tokenizer, parts, options()).expect("builds").examples,
        build(&tokenizer, plain, options()).expect("builds").examples
    );
    let read = |row: &str| read_rows("r", row.as_bytes()).expect("read").remove(0).content;
    let parts = r#"{"instruction": ["Add", {"type": "text", "text": " 2"}], "input": ["3"], "output": ["5"]}"#;
    assert_eq!(read(parts), read(r#"{"instruction": "Add 2", "input": "3", "output": "5"}"#));
    assert_eq!(read(r#"{"text": ["a", {"type": "text", "text": "b"}]}"#), read(r#"{"text": "ab"}"#));
    refused(read_rows("r", br#"{"instruction": [{"type": "image_url"}], "output": "a"}"#), &["image_url"]);
}

#[test]
fn parts_are_joined_and_what_is_no_text_is_refused_by_its_type() {
    let row = |content: &str| {
        format!(r#"{{"messages": [{{"role": "user", "content": {content}}}, {{"role": "assistant", "content": "Blue."}}]}}"#)
    };
    for content in [
        r#"[{"type": "text", "text": "Name a color."}]"#,
        r#"[{"type": "text", "text": "Name "}, {"type": "text", "text": "a color."}]"#,
        r#"[{"type": "text", "text": "Name a color.", "image_url": null}, null]"#,
        r#"["Name a ", {"type": "text", "text": "color."}, {"type": "text", "text": null}]"#,
        r#"{"type": "text", "text": "Name a color."}"#,
        r#"[{"text": "Name a color.", "type": null}]"#,
        r#"[{"type": "input_text", "text": "Name a color."}]"#,
    ] {
        same(&row(content));
    }
    for (content, what) in [
        (r#"[{"type": "image_url", "image_url": {"url": "x"}}]"#, "\"image_url\""),
        (r#"[{"type": "text", "text": "a"}, {"type": "image", "text": null}]"#, "\"image\""),
        (r#"[{"type": "input_audio"}]"#, "\"input_audio\""),
        (r#"[{"image": "x"}]"#, "absent"),
        (r#"[{"type": 7, "text": "a"}]"#, "a number"),
        (r#"[{"type": "text", "text": 7}]"#, "a number"),
        (r#"[["a"]]"#, "a list"),
        ("7", "a number"),
    ] {
        refused(read_rows("r", row(content).as_bytes()), &["row 1", "message 1", what]);
    }
    let tokenizer = chatml();
    let empty = r#"{"messages": [{"role": "user", "content": []}, {"role": "assistant", "content": [{"type": "text", "text": "a"}]}]}"#;
    assert_eq!(trained(&tokenizer, empty, options()), "a<|im_end|>");
}

#[test]
fn null_keys_are_absent_everywhere() {
    let tokenizer = chatml();
    let plain = |row: &str| build(&tokenizer, row, options()).expect("builds").examples;
    let expected = plain(r#"{"prompt": "Name a color.", "completion": " Blue."}"#);
    assert_eq!(plain(include_str!("cases/choices-null.jsonl")), expected);
    assert_eq!(
        plain(r#"{"prompt": "Name a color.", "completion": " Blue.", "messages": null, "instruction": null, "text": null}"#),
        expected
    );
    same(r#"{"messages": [{"role": "user", "content": "Name a color.", "name": null, "weight": null}, null,
            {"role": "assistant", "content": "Blue.", "tool_calls": null, "train": null}], "tools": null, "prompt": null, "conversations": null}"#
        .replace('\n', " ")
        .as_str());
    same(
        r#"{"conversations": [{"from": "human", "value": "Name a color.", "role": null, "content": null}, {"from": "gpt", "value": "Blue."}], "messages": null}"#,
    );
    refused(read_rows("r", br#"{"text": null}"#), &["row 1", "null", "`text`"]);
    refused(read_rows("r", br#"{"prompt": "a", "completion": null}"#), &["null", "`completion`"]);
    refused(read_rows("r", br#"{"messages": [null]}"#), &["null"]);
    // Null within a list of values stays: it means something there.
    let tools = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "tools": [{"enum": ["a", null], "default": null}]}"#;
    let writes = format!("{{{{ tools | tojson }}}}{CHATML}");
    let told_tools = build(&tokenizer.with_chat_template(writes), tools, options()).expect("builds");
    let tokenizer = chatml();
    assert!(told(&tokenizer, &told_tools.examples[0], false).starts_with(r#"[{"enum": ["a", null]}]"#));
}

#[test]
fn a_null_content_is_an_empty_turn() {
    let tokenizer = chatml();
    for (first, second) in [("null", r#""b""#), (r#""""#, r#""b""#), (r#""b""#, "null")] {
        let row = format!(
            r#"{{"messages": [{{"role": "user", "content": null}}, {{"role": "assistant", "content": {first}}}, {{"role": "user", "content": "r"}}, {{"role": "assistant", "content": {second}}}]}}"#
        );
        let data = build(&tokenizer, &row, options()).expect("builds");
        assert!(!told(&tokenizer, &data.examples[0], false).contains("None"));
        let words = [first, second].map(|content| if content.contains('b') { "b" } else { "" });
        assert_eq!(told(&tokenizer, &data.examples[0], true), format!("{}<|im_end|>{}<|im_end|>", words[0], words[1]));
    }
}

#[test]
fn an_excluded_turn_is_context() {
    let tokenizer = chatml();
    for row in [include_str!("cases/weight-0.jsonl"), include_str!("cases/train-false.jsonl"), include_str!("cases/loss-mask-0.jsonl")] {
        let data = build(&tokenizer, row, options()).expect("builds");
        assert_eq!(told(&tokenizer, &data.examples[0], true), "four<|im_end|>", "{row}");
        assert!(told(&tokenizer, &data.examples[0], false).contains("assistant\nfive<|im_end|>"), "{row}");
        assert_eq!((data.report.excluded_turns, data.report.warnings("r").len()), (1, 0));
        // Training on everything else leaves it out all the same.
        let all = build(&tokenizer, row, DataOptions { train_on_prompt: true, ..options() }).expect("builds");
        let text = told(&tokenizer, &all.examples[0], true);
        assert!(text.contains("2+2?") && text.contains("four") && !text.contains("five"), "{text}");
    }
    let row = |first: &str, last: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": "five", {first}}}, {{"role": "user", "content": "r"}}, {{"role": "assistant", "content": "four", {last}}}]}}"#
        )
    };
    assert_eq!(trained(&tokenizer, &row(r#""weight": 1"#, r#""train": true"#), options()), "five<|im_end|>four<|im_end|>");
    assert_eq!(trained(&tokenizer, &row(r#""loss_mask": 1.0"#, r#""weight": 0.0"#), options()), "five<|im_end|>");
    assert_eq!(trained(&tokenizer, &row(r#""weight": 1"#, r#""weight": 1, "train": false"#), options()), "five<|im_end|>");
    refused(
        build(&tokenizer, &row(r#""weight": 0"#, r#""weight": 0"#), options()),
        &["none of the 1 rows", "loss_mask leaves turns of the assistant out"],
    );
    refused(read_rows("r", row(r#""weight": 0.5"#, r#""train": true"#).as_bytes()), &["message 2", "`weight`", "0.5"]);
    refused(read_rows("r", row(r#""weight": 1"#, r#""train": "no""#).as_bytes()), &["message 4", "`train`", "\"no\""]);
}

#[test]
fn keys_that_look_like_exclusions_are_named() {
    let tokenizer = chatml();
    let warned = |message: &str, row: &str| {
        let row = format!(r#"{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": "a"{message}}}]{row}}}"#);
        build(&tokenizer, &row, options()).expect("builds").report.warnings("r")
    };
    for key in ["training", "lossMask", "Weight", "weights", "trian", "wieght", "loss", "do_train", "loss-mask", "is_masked"] {
        let said = warned(&format!(r#", "{key}": 0"#), "");
        assert!(said.len() == 1 && said[0].contains(&format!("{key:?}")) && said[0].contains("loss_mask"), "{key}: {said:?}");
    }
    let switches = [
        ("learn", "false"),
        ("excluded", "true"),
        ("label", "0"),
        ("labels", "[1, 0]"),
        ("isIncluded", "false"),
        ("ignored", "1"),
        ("keep", "1.0"),
    ];
    for (key, value) in switches {
        let said = warned(&format!(r#", "{key}": {value}"#), "");
        assert!(said.len() == 1 && said[0].contains(&format!("{key:?}")), "{key}: {said:?}");
    }
    for (key, value) in [("label", r#""positive""#), ("target", r#""en""#), ("used", "7")] {
        assert!(warned(&format!(r#", "{key}": {value}"#), "").is_empty(), "{key}");
    }
    assert!(warned("", r#", "label": 0"#).is_empty(), "a class of the row");
    let said = warned("", r#", "loss_mask": [0, 1]"#);
    assert!(said.len() == 1 && said[0].contains("\"loss_mask\""), "{said:?}");
    for key in ["name", "id", "model", "timestamp", "tool_call_id", "language", "trace_id", "length"] {
        assert!(warned(&format!(r#", "{key}": "x""#), "").is_empty(), "{key}");
    }
}

#[test]
fn half_a_surrogate_pair_is_named() {
    for text in [r#"{"text": "a\ud83d"}"#, r#"{"text": "\ude00b"}"#, r#"{"text": "\ud83d\u0041"}"#, r#"{"text": "\ud83dx"}"#] {
        refused(read_rows("r", text.as_bytes()), &["row 1", "surrogate pair"]);
        refused(read_rows("r", format!("[{text}]").as_bytes()), &["line 1", "surrogate pair"]);
    }
    assert!(read_rows("r", br#"{"text": "\ud83d\ude00"}"#).is_ok());
}

#[test]
fn long_rows_take_a_time_in_proportion() {
    // Quadratic, these took 6 and 22 s optimised, and minutes here.
    let choices: Vec<String> = (0..50_000).map(|i| format!("\"{i}\"")).collect();
    let row = format!(r#"{{"prompt": "q", "completion": "7", "choices": [{}]}}"#, choices.join(","));
    assert_eq!(read_rows("r", row.as_bytes()).expect("reads").len(), 1);
    let turns: Vec<String> =
        (0..4_000).map(|i| format!(r#"{{"role": "user", "content": "q{i}"}}, {{"role": "assistant", "content": "a{i}"}}"#)).collect();
    let row = format!(r#"{{"messages": [{}]}}"#, turns.join(","));
    let tokenizer = chatml();
    let data = build(&tokenizer, &row, DataOptions::new(1 << 20)).expect("builds");
    let text = told(&tokenizer, &data.examples[0], true);
    assert_eq!(text.matches("<|im_end|>").count(), 4_000);
    assert!(text.starts_with("a0<|im_end|>a1<|im_end|>") && text.ends_with("a3999<|im_end|>"));
}
