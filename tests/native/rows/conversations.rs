//! Conversations in templates as they are: what is found, what is lost, behind which prompt.

use weblora::text::ChatOptions;

use super::*;

struct Case {
    name: String,
    tokenizer: Tokenizer,
    rows: String,
    trained: Option<Vec<Vec<String>>>,
    warning: Option<String>,
}

fn cases() -> Vec<Case> {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases/chat.json")).expect("JSON");
    let text = |case: &Value, key: &str| case[key].as_str().unwrap_or_default().to_owned();
    cases
        .iter()
        .map(|case| Case {
            name: text(case, "name"),
            tokenizer: vocabulary(&text(case, "bos_token"), &text(case, "eos_token")).with_chat_template(text(case, "chat_template")),
            rows: case["rows"].as_array().expect("rows").iter().map(|row| format!("{row}\n")).collect(),
            trained: serde_json::from_value(case["trained"].clone()).expect("lists of texts"),
            warning: case["warning"].as_str().map(str::to_owned),
        })
        .collect()
}

fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name == name).expect("a case")
}

/// With a date, which one of the templates asks for.
fn dated() -> DataOptions {
    DataOptions { chat: ChatOptions { template: None, date: "2026-11-26".parse().ok() }, ..options() }
}

#[test]
fn the_cases_train_what_is_right() {
    for Case { name, tokenizer, rows, trained, warning } in cases() {
        let data = build(&tokenizer, &rows, dated()).unwrap_or_else(|e| panic!("{name}: {e}"));
        for (example, accepted) in data.examples.iter().zip(trained.iter().flatten()) {
            let text = told(&tokenizer, example, true);
            assert!(accepted.contains(&text), "{name}: {text:?} instead of {accepted:?}");
        }
        let said = data.report.warnings("r");
        assert_eq!(said.is_empty(), warning.is_none(), "{name}: {said:?}");
        if let Some(warning) = warning {
            // The words of the case in the order of ours.
            let known = if warning.contains("prompt") {
                "behind another prompt than generation gives"
            } else {
                "have words that the chat template"
            };
            assert!(said.len() == 1 && said[0].contains(known), "{name}: {said:?}");
        }
    }
}

#[test]
fn parts_of_the_user_are_read_as_a_string_would_be() {
    let Case { tokenizer, rows, .. } = case("content parts, user only");
    let data = build(&tokenizer, &rows, options()).expect("builds");
    let joined = rows
        .replace(r#"[{"text":"Name a color.","type":"text"}]"#, r#""Name a color.""#)
        .replace(r#"[{"type":"text","text":"Name a color."}]"#, r#""Name a color.""#);
    assert_ne!(joined, rows);
    assert_eq!(data.examples, build(&tokenizer, &joined, options()).expect("builds").examples);
}

#[test]
fn templates_that_read_parts_get_parts() {
    let parts = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}\
                 {% endif %}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    let row = r#"{"messages": [{"role": "user", "content": "Name a color."}, {"role": "assistant", "content": [{"type": "text", "text": "Blue."}]}]}"#;
    let (ours, plain) = (build(&chatml().with_chat_template(parts), row, options()), build(&chatml(), row, options()));
    assert_eq!(ours.expect("builds").examples, plain.expect("builds").examples);
}

#[test]
fn tool_calls_are_written_beside_a_null_content() {
    // Some templates write calls only where the content is none, some only where it is falsy.
    let none = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.content is none %}{{ m.tool_calls[0].function.name }}\
                {% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}";
    let falsy = none.replace("m.content is none", "not m.content");
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null, "tool_calls": [{"type": "function", "function": {"name": "look", "arguments": "{}"}}]}]}"#;
    for template in [none, &falsy] {
        let tokenizer = chatml().with_chat_template(template);
        let data = build(&tokenizer, row, options()).expect("builds");
        assert!(told(&tokenizer, &data.examples[0], true).ends_with("look<|im_end|>"));
        assert!(data.report.warnings("r").is_empty());
    }
    // ChatML writes no calls at all.
    let data = build(&chatml(), row, options()).expect("builds");
    let said = data.report.warnings("r");
    assert!(said.len() == 1 && said[0].contains("tool calls") && said[0].contains("\"look\""), "{said:?}");
}

const KEEP: &str = "<think>\nadd them\n</think>\n\nIt is 4.<|endofsentence|>";

#[test]
fn reasoning_that_a_template_cuts_is_counted_and_kept_on_demand() {
    let Case { tokenizer, rows, .. } = case("reasoning that the template cuts");
    let data = build(&tokenizer, &rows, options()).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], true), "\n\nIt is 4.<|endofsentence|>");
    assert_eq!((data.report.lost_words.count, data.report.lost_words.row), (1, 1));
    let said = data.report.warnings("r");
    assert!(said[0].contains("1 assistant turns") && said[0].contains("\"<think>\"") && said[0].contains("--keep-reasoning"), "{said:?}");
    assert_eq!(data.notes[&1].len(), 1);
    let keep = DataOptions { keep_reasoning: true, ..options() };
    let data = build(&tokenizer, &rows, keep.clone()).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], true), KEEP);
    assert!(data.report.warnings("r").is_empty());
    // Beside the content, too; and two turns, of which the second then stands behind more than generation gives.
    let beside = r#"{"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "It is 4.", "reasoning_content": "add them"}]}"#;
    assert!(build(&tokenizer, beside, options()).expect("builds").report.lost_words.count == 1);
    assert_eq!(trained(&tokenizer, beside, keep.clone()), KEEP);
    let two = r#"{"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "<think>\nadd them\n</think>\n\nIt is 4."}, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]}"#;
    let data = build(&tokenizer, two, keep).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], true), format!("{KEEP}Yes.<|endofsentence|>"));
    assert_eq!(data.report.other_prompt.count, 1);
    // A template that writes what the turn says loses nothing.
    let whole = tokenizer.with_chat_template(CHATML);
    assert_eq!(build(&whole, two, options()).expect("builds").report.lost_words.count, 0);
}

#[test]
fn kept_reasoning_stands_behind_a_prompt_that_opens_it() {
    let Case { tokenizer, .. } = case("prompt that opens a think tag");
    let row = r#"{"messages": [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "<think>\nadd them\n</think>\n\nIt is 4."}]}"#;
    // Cut, the rest stands behind another prompt, too.
    let data = build(&tokenizer, row, options()).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], true), "\n\nIt is 4.<|endofsentence|>");
    assert_eq!((data.report.lost_words.count, data.report.other_prompt.count), (1, 1));
    let data = build(&tokenizer, row, DataOptions { keep_reasoning: true, ..options() }).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], true), "add them\n</think>\n\nIt is 4.<|endofsentence|>");
    assert!(told(&tokenizer, &data.examples[0], false).ends_with(&format!("<|Assistant|>{KEEP}")));
    assert!(data.report.warnings("r").is_empty(), "{:?}", data.report.warnings("r"));
}

#[test]
fn a_turn_behind_another_prompt_is_warned_about_in_every_row() {
    let Case { tokenizer, rows, .. } = case("prompt that opens a think tag");
    let data = build(&tokenizer, &format!("{rows}{rows}"), options()).expect("builds");
    assert_eq!((data.report.other_prompt.count, data.report.other_prompt.row), (2, 1));
    assert!(data.notes[&2][0].contains("another prompt"), "{:?}", data.notes);
    // Marked turns are looked at, too.
    let marked = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}\
                  {% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ '<|im_start|>assistant\nHmm, ' }}{% endif %}";
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
    assert_eq!(build(&chatml().with_chat_template(marked), row, options()).expect("builds").report.other_prompt.count, 1);
    let alike = marked.replace("Hmm, ", "");
    assert_eq!(build(&chatml().with_chat_template(alike), row, options()).expect("builds").report.other_prompt.count, 0);
}

#[test]
fn a_turn_that_begins_within_a_token_is_warned_about() {
    // Generation asks with "assistant: "; in the row the space and the answer's first letters are one token.
    let spaced = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}";
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "the sea"}]}"#;
    let data = build(&chatml().with_chat_template(spaced), row, options()).expect("builds");
    assert_eq!((data.report.within_token.count, data.report.within_token.row), (1, 1));
    let said = data.report.warnings("r");
    assert!(said.len() == 1 && said[0].contains("begin within a token") && said[0].contains("message 2"), "{said:?}");
    assert!(data.notes[&1][0].contains("within a token"), "{:?}", data.notes);
    let tight = spaced.replace("'assistant: '", "'assistant:'");
    let data = build(&chatml().with_chat_template(tight), row, options()).expect("builds");
    assert_eq!((data.report.within_token.count, data.report.warnings("r").len()), (0, 0));
    assert_eq!(build(&chatml(), row, options()).expect("builds").report.within_token.count, 0);
}

const FOUR: &str = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}]}"#;

#[test]
fn a_template_that_ends_the_text_only_without_a_prompt_shows_every_turn() {
    let body = "{% for m in messages %}{{ '\n' + m.role + ': ' + m.content }}{% endfor %}";
    let plain = format!("{body}{{% if add_generation_prompt %}}{{{{ '\nassistant:' }}}}{{% else %}}{{{{ eos_token }}}}{{% endif %}}");
    let tokenizer = chatml().with_chat_template(plain);
    let data = build(&tokenizer, FOUR, options()).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], true), " b c<|im_end|>");
    assert_eq!(data.report.last_turn_only, 0);
    // With control tokens that begin alike after the turn.
    let tokens = "{% for m in messages %}{{ ('[INST]' if m.role == 'user' else '[/INST]') + m.content }}{% endfor %}\
                  {% if add_generation_prompt %}{{ '[/INST]' }}{% else %}{{ eos_token }}{% endif %}";
    let tokenizer = chatml().with_chat_template(tokens);
    let data = build(&tokenizer, FOUR, options()).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], true), "bc<|im_end|>");
    let words = body.replace("{{ '\n' + m.role", "{{ m.role").replace("m.content }}", "m.content + '\n' }}");
    let tokenizer = chatml().with_chat_template(format!("{words}{{% if not add_generation_prompt %}}{{{{ 'END' }}}}{{% endif %}}"));
    let data = build(&tokenizer, FOUR, options()).expect("builds");
    assert_eq!(data.report.last_turn_only, 0, "no prompt of its own");
}

#[test]
fn system_text_in_the_last_user_message_is_in_the_prompt() {
    let Case { tokenizer, rows, .. } = case("system text in the last user message");
    let data = build(&tokenizer, &rows, options()).expect("builds");
    let all = told(&tokenizer, &data.examples[0], false);
    assert_eq!(all, "<s>[INST] Be brief.\n\nWho are you?[/INST] A model.</s>");
    assert_eq!(data.report.prompt_then_answer, 1);
    assert!(data.notes[&1][0].contains("as for generation"), "{:?}", data.notes);
    assert!(data.report.warnings("r").is_empty(), "{:?}", data.report.warnings("r"));
    // Without a system text the whole rendering is taken.
    let data = build(&tokenizer, FOUR, options()).expect("builds");
    assert_eq!((data.report.prompt_then_answer, data.report.last_turn_only), (0, 0));
    assert_eq!(told(&tokenizer, &data.examples[0], true), " b</s> c</s>");
    // Of several turns only the last one stands behind the prompt that generation gives.
    let system =
        FOUR.replace(r#"[{"role": "user", "content": "a"}"#, r#"[{"role": "system", "content": "s"}, {"role": "user", "content": "a"}"#);
    let data = build(&tokenizer, &system, options()).expect("builds");
    assert_eq!(told(&tokenizer, &data.examples[0], false), "<s>[INST] a[/INST] b</s>[INST] s\n\nb[/INST] c</s>");
    assert_eq!(told(&tokenizer, &data.examples[0], true), " c</s>");
    assert_eq!((data.report.prompt_then_answer, data.report.last_turn_only), (1, 1));
    // An answer that is left out of training ends the row at the one before it.
    let excluded = system.replace(r#""content": "c"}"#, r#""content": "c", "weight": 0}"#);
    assert_eq!(trained(&tokenizer, &excluded, options()), " b</s>");
}

#[test]
fn the_date_is_the_runs() {
    let Case { tokenizer, rows, .. } = case("strftime_now called without a guard");
    refused(build(&tokenizer, &rows, options()), &["row 1", "strftime_now", "--date"]);
    let data = build(&tokenizer, &rows, dated()).expect("builds");
    assert!(told(&tokenizer, &data.examples[0], false).contains("Today is 2026-11-26."));
}

#[test]
fn marked_stretches_belong_to_their_turns() {
    // A template that marks two stretches a turn, and one that marks nothing for an empty one.
    let twice = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}\
                 {% generation %}{{ '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}";
    let first = FOUR.replacen(r#""content": "b"}"#, r#""content": "b", "weight": 0}"#, 1);
    let tokenizer = chatml().with_chat_template(twice);
    assert_eq!(trained(&tokenizer, &first, options()), "c<|im_end|>");
    let empty = FOUR.replacen(r#""assistant", "content": "b"}"#, r#""assistant", "content": ""}"#, 1);
    assert_eq!(trained(&tokenizer, &empty, options()), "<|im_end|>c<|im_end|>");
}
