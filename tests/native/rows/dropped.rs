//! What a template leaves out of a turn, also where its words stand elsewhere.

use serde_json::json;

use super::*;
use crate::common::program::weblora;

/// ChatML with something else in place of the content.
fn writing(what: &str) -> Tokenizer {
    vocabulary("<|im_start|>", "<|im_end|>").with_chat_template(CHATML.replace("m.content", what))
}

fn talk(turns: &[(&str, Value)]) -> String {
    let turn = |(role, turn): &(&str, Value)| {
        let mut turn = if turn.is_object() { turn.clone() } else { json!({ "content": turn }) };
        turn["role"] = (*role).into();
        turn
    };
    json!({"messages": turns.iter().map(turn).collect::<Vec<_>>()}).to_string()
}

fn said(tokenizer: &Tokenizer, row: &str) -> Vec<String> {
    build(tokenizer, row, options()).expect("builds").report.warnings("r")
}

/// The one warning, which must be about `what` of a call.
#[track_caller]
fn loses_call(tokenizer: &Tokenizer, row: &str, what: &str) {
    let said = said(tokenizer, row);
    assert!(said.len() == 1 && said[0].contains("tool calls") && said[0].contains(what), "{said:?}");
}

fn call(name: &str, arguments: Value) -> Value {
    json!({"type": "function", "id": "call00001", "function": {"name": name, "arguments": arguments}})
}

const ALL: &str = "m.content + (m.tool_calls | tojson if m.tool_calls else '') + (m.reasoning_content or '')";

#[test]
fn dropped_calls_are_seen_where_their_names_stand_elsewhere() {
    let paris = call("get_weather", json!({"city": "Paris"}));
    for (asked, content) in [("weather?", "I call get_weather."), ("use get_weather", ""), ("get_weather Paris", "get_weather(Paris)")] {
        let row = talk(&[("user", asked.into()), ("assistant", json!({"content": content, "tool_calls": [paris]}))]);
        loses_call(&chatml(), &row, "\"get_weather\"");
        assert_eq!(said(&writing(ALL), &row), Vec::<String>::new());
    }
    let old = talk(&[("user", "f".into()), ("assistant", json!({"content": "f", "function_call": {"name": "f", "arguments": "{}"}}))]);
    loses_call(&chatml(), &old, "\"f\"");
    // The tools are described, and the call is not written.
    let tools = talk(&[("user", "q".into()), ("assistant", json!({"content": "ok", "tool_calls": [paris]}))]);
    let tools = tools.replacen('{', r#"{"tools": [{"type": "function", "function": {"name": "get_weather"}}], "#, 1);
    loses_call(&chatml().with_chat_template(format!("{{{{ tools | tojson }}}}{CHATML}")), &tools, "\"get_weather\"");
    // A content that says what the call says, and is dropped beside it.
    let row = talk(&[("user", "q".into()), ("assistant", json!({"content": "look", "tool_calls": [call("look", json!({}))]}))]);
    let lost = said(&writing("(m.tool_calls[0].function.name if m.tool_calls else m.content)"), &row);
    assert!(lost.len() == 1 && lost[0].contains("have words") && lost[0].contains("\"look\""), "{lost:?}");
}

#[test]
fn every_call_and_every_argument_counts() {
    let of = |calls: Value| {
        talk(&[
            ("user", "Rome".into()),
            ("assistant", json!({"content": "", "tool_calls": calls})),
            ("tool", "3".into()),
            ("assistant", "ok".into()),
        ])
    };
    let names = writing("m.content + (m.tool_calls[0].function.name if m.tool_calls else '')");
    let first = writing("m.content + (m.tool_calls[0].function | tojson if m.tool_calls else '')");
    let city = writing("m.content + (m.tool_calls[0].function.name + m.tool_calls[0].function.arguments.city if m.tool_calls else '')");
    let one = of(json!([call("get", json!({"city": "Rome"}))]));
    loses_call(&names, &one, "argument \"city\" of the call of \"get\"");
    for arguments in [json!({"n": 3}), json!({"n": 1.5}), json!({"n": true}), json!({"n": {"deep": [["x"]]}}), json!(r#"{"n": "x"}"#)] {
        let row = of(json!([call("get", arguments)]));
        loses_call(&names, &row, "argument \"n\" of the call of \"get\"");
        assert_eq!(said(&writing(ALL), &row), Vec::<String>::new(), "{row}");
    }
    assert_eq!(said(&names, &of(json!([call("get", json!({}))]))), Vec::<String>::new());
    loses_call(&first, &of(json!([call("get", json!({"city": "Rome"})), call("get", json!({"city": "Rome"}))])), "call of \"get\"");
    assert_eq!(said(&city, &one), Vec::<String>::new());
    loses_call(&city, &of(json!([call("get", json!({"city": "Rome", "unit": "C"}))])), "argument \"unit\"");
    // Calls without a function around them.
    loses_call(&chatml(), &of(json!([{"name": "get", "arguments": {"city": "Rome"}}])), "\"get\"");
}

#[test]
fn reasoning_that_others_say_is_missed_all_the_same() {
    for (asked, content) in [("Please add them up", "4"), ("q", "add them"), ("q", "I add them now")] {
        for key in ["reasoning_content", "reasoning", "thinking"] {
            let row = talk(&[("user", asked.into()), ("assistant", json!({"content": content, key: "add them"}))]);
            let data = build(&chatml(), &row, options()).expect("builds");
            assert_eq!((data.report.lost_words.count, data.report.lost_words.what.as_str()), (1, "\"add\""), "{row}");
            let keep = DataOptions { keep_reasoning: true, ..options() };
            if !content.contains("add them") {
                assert!(trained(&chatml(), &row, keep).contains("<think>\nadd them\n</think>"), "{row}");
            }
        }
    }
    // Once is enough, where it stands in the content, too.
    let twice = talk(&[("user", "q".into()), ("assistant", json!({"content": "<think>\nwhy\n</think>\n\na", "reasoning": "why"}))]);
    assert_eq!(said(&chatml(), &twice), Vec::<String>::new());
    let moved = "('<think>\n' + m.reasoning + '\n</think>\n\n' + m.content.split('</think>\n\n')[-1] if m.reasoning else m.content)";
    assert_eq!(said(&writing(moved), &twice), Vec::<String>::new());
}

#[test]
fn keys_with_words_that_nobody_reads_are_named() {
    for key in ["thought", "thoughts", "analysis", "chain_of_thought", "innerThoughts", "rationale"] {
        let row = talk(&[("user", "deep words".into()), ("assistant", json!({"content": "4", key: "deep words"}))]);
        let lost = said(&chatml(), &row);
        assert!(lost.len() == 1 && lost[0].contains(&format!("{key:?}")) && lost[0].contains("not read"), "{key}: {lost:?}");
        assert_eq!(said(&writing(&format!("(m.{key} or '') + m.content")), &row), Vec::<String>::new(), "{key}");
    }
    let details = json!({"content": "4", "reasoning_details": [{"type": "reasoning.text", "text": "why"}]});
    let row = talk(&[("user", "q".into()), ("assistant", details)]);
    assert!(said(&chatml(), &row)[0].contains("\"reasoning_details\""));
    let reads = "m.content + (m.reasoning_details[0].text if m.reasoning_details else '')";
    assert_eq!(said(&writing(reads), &row), Vec::<String>::new());
    for about in [
        json!({"content": "4", "reasoning_effort": "high"}),
        json!({"content": "4", "thinking": true}),
        json!({"content": "4", "thought_id": "7"}),
    ] {
        assert_eq!(said(&chatml(), &talk(&[("user", "q".into()), ("assistant", about)])), Vec::<String>::new());
    }
}

#[test]
fn answers_that_a_template_drops_are_counted() {
    let row = talk(&[("user", "Say Yes.".into()), ("assistant", "Yes.".into()), ("user", "Again".into()), ("assistant", "Yes.".into())]);
    let body = "{% for m in messages if m.role != 'assistant' %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}";
    for template in [body.to_owned(), format!("{body}{{% if add_generation_prompt %}}{{{{ 'assistant: ' }}}}{{% endif %}}")] {
        let tokenizer = chatml().with_chat_template(template);
        let last = |data: weblora::Result<Dataset>| data.expect_err("refused").to_string();
        let all = last(build(&tokenizer, &format!("{row}\n{row}"), options()));
        assert!(all.contains("none of the 2 rows") && all.contains("drops") && all.contains("answers of the assistant"), "{all}");
        assert!(all.contains("--chat-template") && !all.contains("raise --seq"), "{all}");
        let called = talk(&[("user", "q".into()), ("assistant", json!({"content": "", "tool_calls": [call("f", json!({}))]}))]);
        let all = last(build(&tokenizer, &called, options()));
        assert!(all.contains("drops 1 answer of the assistant (first in row 1: message 2)"), "{all}");
    }
    // Rows that are too long have the hint of before.
    let long = talk(&[("user", "x ".repeat(100).into()), ("assistant", "a".into())]);
    refused(build(&chatml(), &long, DataOptions::new(20)), &["none of the 1 rows", "raise --seq"]);
}

#[test]
fn eval_warns_of_rows_as_train_does() {
    if crate::common::gpu().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.jsonl");
    std::fs::write(&path, talk(&[("user", "q".into()), ("assistant", json!({"content": "a", "training": false}))])).expect("written");
    let model = format!("{}/assets/demo/demo.gguf", env!("CARGO_MANIFEST_DIR"));
    let rows = path.display().to_string();
    let told = weblora(&["eval", "--model", &model, "--data", &rows, "--chat-template", "alpaca", "--no-tune", "--seq", "64"]);
    let said = crate::common::program::text(&told.stderr);
    assert!(told.status.success() && said.contains("warning: ") && said.contains("\"training\""), "{said}");
}
