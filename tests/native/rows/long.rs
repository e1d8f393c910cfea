//! Conversations of thousands of messages, whose turns are found without rendering a beginning for each.

use serde_json::{Value, json};
use weblora::text::ChatTemplate;
use weblora::text::turns::Rendered;

const ASSISTANT: &str = "<|im_start|>assistant\n";
const END: &str = "<|im_end|>\n";

/// ChatML that writes `content` of each message `m`.
fn chatml(content: &str) -> ChatTemplate {
    let template = format!(
        "{{% for m in messages %}}{{{{ '<|im_start|>' + m.role + '\n' }}}}{{{{ {content} }}}}{{{{ '<|im_end|>\n' }}}}{{% endfor %}}\
         {{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}"
    );
    ChatTemplate::new(&template).expect("a template")
}

/// Questions and answers by turns, `n` messages in all; both by their number.
fn talk(n: usize, said: impl Fn(usize) -> String) -> Vec<Value> {
    (0..n).map(|i| json!({"role": (if i % 2 == 0 { "user" } else { "assistant" }), "content": said(i)})).collect()
}

fn rendered(template: &ChatTemplate, messages: &[Value]) -> Rendered {
    template.render_with_spans(messages, None).expect("renders")
}

/// Every answer is found behind its prompt, with what ends it.
#[track_caller]
fn finds_all(template: &ChatTemplate, messages: &[Value], answer: impl Fn(usize) -> String) {
    let found = rendered(template, messages);
    assert!(!found.last_turn_only && found.other_prompt.is_empty());
    assert_eq!(found.turns, (1..messages.len()).step_by(2).collect::<Vec<_>>());
    for (span, &i) in found.spans.iter().zip(&found.turns) {
        assert!(found.text[..span.start].ends_with(ASSISTANT), "turn {i}");
        assert_eq!(found.text[span.clone()], format!("{}{END}", answer(i)), "turn {i}");
    }
}

#[test]
fn thousands_of_empty_messages() {
    finds_all(&chatml("m.content"), &talk(8000, |_| String::new()), |_| String::new());
    finds_all(&chatml("m.content | trim"), &talk(2000, |i| " ".repeat(i % 3)), |_| String::new());
}

#[test]
fn thousands_of_messages_of_which_the_template_takes_a_part() {
    let answer = |i: usize| if i % 4 == 1 { format!("<think>{i}</think>yes {i}") } else { format!("no {i}") };
    let template = chatml("m.content.split('</think>')[-1]");
    finds_all(&template, &talk(8000, answer), |i| if i % 4 == 1 { format!("yes {i}") } else { format!("no {i}") });
}

#[test]
fn thousands_of_messages_that_the_template_looks_at() {
    let template = chatml("m.content ~ (' (an x)' if 'x' in m.content else '')");
    let said = |i: usize| format!("{} {i}", if i.is_multiple_of(3) { "axe" } else { "hand" });
    let told = |i: usize| said(i) + if i.is_multiple_of(3) { " (an x)" } else { "" };
    finds_all(&template, &talk(8000, said), told);
}

/// No gap is spelled as another.
#[test]
fn of_thousands_of_messages_with_numbers_the_last_turn_is_found() {
    let template = chatml("m.content ~ loop.index0");
    finds_all(&template, &talk(200, |i| format!("a{i}-")), |i| format!("a{i}-{i}"));
    let found = rendered(&template, &talk(8000, |i| format!("a{i}-")));
    assert!(found.last_turn_only);
    assert_eq!(found.turns, [7999]);
    assert_eq!(found.text[found.spans[0].clone()], format!("a7999-7999{END}"));
}
