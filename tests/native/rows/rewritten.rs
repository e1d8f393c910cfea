//! Templates that write a turn otherwise while it is the last, and what templates want of a content.

use serde_json::json;

use super::*;

/// As Qwen3's templates do: the last turn, and those after the last question that have reasoning, are written with it.
const QWEN3: &str = "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}\
    {% for m in messages %}{% if m.role == 'assistant' %}{% set c = m.content %}{% set r = '' %}\
    {% if '</think>' in c %}{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}\
    {{ '<|im_start|>assistant\n' }}{% if loop.index0 > ns.last and (loop.last or r) %}{{ '<think>\n' + r + '\n</think>\n\n' }}{% endif %}{{ c }}\
    {% for call in m.tool_calls or [] %}{{ '[' + call.function.name + ']' }}{% endfor %}{{ '<|im_end|>\n' }}\
    {% elif m.role == 'tool' %}{{ '<|im_start|>user\n(' + m.content + ')<|im_end|>\n' }}\
    {% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn row(turns: &[(&str, &str)]) -> String {
    let turn = |(role, content): &(&str, &str)| match content.strip_prefix("call:") {
        Some(name) => {
            json!({"role": role, "content": "", "tool_calls": [{"type": "function", "function": {"name": name, "arguments": {}}}]})
        }
        None => json!({"role": role, "content": content}),
    };
    json!({"messages": turns.iter().map(turn).collect::<Vec<_>>()}).to_string()
}

/// What is trained of a conversation with that template, and whether only the last turn is.
fn learned(turns: &[(&str, &str)], keep: bool) -> (String, usize, usize) {
    let tokenizer = chatml().with_chat_template(QWEN3);
    let data = build(&tokenizer, &row(turns), DataOptions { keep_reasoning: keep, ..options() }).expect("builds");
    (told(&tokenizer, &data.examples[0], true), data.report.last_turn_only, data.report.other_prompt.count)
}

const EMPTY: &str = "<think>\n\n</think>\n\n";

#[test]
fn turns_within_are_trained_where_generation_gives_their_prompts() {
    let (u, a) = (("user", "q"), ("assistant", "yes"));
    assert_eq!(learned(&[u, a, u, a], false), (format!("yes<|im_end|>{EMPTY}yes<|im_end|>"), 0, 0));
    let called = [u, ("assistant", "call:look"), ("tool", "3"), a];
    assert_eq!(learned(&called, false), (format!("[look]<|im_end|>{EMPTY}yes<|im_end|>"), 0, 0));
    let thought = [u, ("assistant", "call:look"), ("tool", "3"), ("assistant", "<think>\nhm\n</think>\n\nIt is 3.")];
    assert_eq!(learned(&thought, false), ("[look]<|im_end|><think>\nhm\n</think>\n\nIt is 3.<|im_end|>".into(), 0, 0));
    let longer = [u, ("assistant", "call:look"), ("tool", "3"), a, u, a];
    assert_eq!(learned(&longer, false), (format!("[look]<|im_end|>yes<|im_end|>{EMPTY}yes<|im_end|>"), 0, 0));
    for result in ["", " 3 ", "q", "yes"] {
        let called = [u, ("assistant", "call:look"), ("tool", result), a];
        assert_eq!(learned(&called, false), (format!("[look]<|im_end|>{EMPTY}yes<|im_end|>"), 0, 0), "{result:?}");
    }
    // A question at the end: nothing after it is trained.
    assert_eq!(learned(&[u, a, u], false), ("yes<|im_end|>".into(), 0, 0));
    // A reasoning in the middle of the steps after one question.
    let steps = [u, ("assistant", "<think>\nhm\n</think>\n\none"), ("tool", "3"), a];
    assert_eq!(learned(&steps, false), (format!("<think>\nhm\n</think>\n\none<|im_end|>{EMPTY}yes<|im_end|>"), 0, 0));
}

#[test]
fn kept_reasoning_is_trained_in_every_turn() {
    let thought = |words: &'static str| ("assistant", words);
    let turns = [("user", "q"), thought("<think>\nfirst\n</think>\n\nOne"), ("user", "r"), thought("<think>\nhm\n</think>\n\nTwo")];
    let trained = "<think>\nfirst\n</think>\n\nOne<|im_end|><think>\nhm\n</think>\n\nTwo<|im_end|>";
    assert_eq!(learned(&turns, true), (trained.into(), 0, 1));
    // The same thought twice is two.
    let turns = [("user", "q"), thought("<think>\nhm\n</think>\n\nTwo"), ("user", "r"), thought("<think>\nhm\n</think>\n\nTwo")];
    let trained = "<think>\nhm\n</think>\n\nTwo<|im_end|>";
    assert_eq!(learned(&turns, true), (trained.repeat(2), 0, 1));
}

#[test]
fn a_template_whose_prompts_are_no_beginnings_trains_the_last_turn() {
    let counting = format!("{{{{ messages | length }}}}{QWEN3}");
    let tokenizer = chatml().with_chat_template(counting);
    let turns = row(&[("user", "q"), ("assistant", "one"), ("user", "q"), ("assistant", "two")]);
    let data = build(&tokenizer, &turns, options()).expect("builds");
    assert_eq!(data.report.last_turn_only, 1);
    assert_eq!(told(&tokenizer, &data.examples[0], true), format!("{EMPTY}two<|im_end|>"));
}

#[test]
fn a_content_is_a_list_only_where_its_parts_are_read() {
    let turns = row(&[("system", "be brief"), ("user", "hi there"), ("assistant", "yes sir")]);
    for (filter, answer) in [
        ("m.content | capitalize", "Yes sir"),
        ("m.content[:5]", "yes s"),
        ("m.content | upper", "YES SIR"),
        ("m.content | replace('e', '-')", "y-s sir"),
        ("m.content | title", "Yes Sir"),
        ("(m.content | string)[::-1]", "ris sey"),
    ] {
        let tokenizer = chatml().with_chat_template(CHATML.replace("m.content", &format!("({filter})")));
        assert_eq!(trained(&tokenizer, &turns, options()), format!("{answer}<|im_end|>"), "{filter}");
    }
    // Parts alone, in a template that demands a system text first.
    let parts = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}\
                 {% for part in m.content %}{{ part.text }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}\
                 {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    let tokenizer = chatml().with_chat_template(parts);
    assert_eq!(trained(&tokenizer, &turns, options()), "yes sir<|im_end|>");
    // The same for strings, and for calls that are written where the content is none.
    let strings = parts.replace("{% for part in m.content %}{{ part.text }}{% endfor %}", "{{ m.content | capitalize }}");
    assert_eq!(trained(&chatml().with_chat_template(strings), &turns, options()), "Yes sir<|im_end|>");
    let calls = parts.replace(
        "{% for part in m.content %}{{ part.text }}{% endfor %}",
        "{% if m.content is none %}{{ m.tool_calls[0].function.name }}{% else %}{{ m.content }}{% endif %}",
    );
    let called = row(&[("system", "s"), ("user", "q"), ("assistant", "call:look")]);
    assert_eq!(trained(&chatml().with_chat_template(calls), &called, options()), "look<|im_end|>");
}
