//! Tokenizers as JSON, chat templates, rows of every shape.

use std::rc::Rc;

use serde_json::{Value, json};
use weblora::Result;
use weblora::text::inspect::RowView;
use weblora::text::{ChatTemplate, DataOptions, Dataset, Format, Overlong, Tokenizer, read_rows};

use super::golden;
use super::models::speak;
use crate::driver::Parser;
use crate::input::{Input, json as json_part, lines, text};

pub static TOKENIZER_JSON: Parser =
    Parser { name: "tokenizer_json", seeds: tokenizer_seeds, dictionary: tokenizer_words, run: read_tokenizer };
pub static CHAT_TEMPLATE: Parser = Parser { name: "chat_template", seeds: template_seeds, dictionary: template_words, run: render };
pub static ROWS: Parser = Parser { name: "rows", seeds: row_seeds, dictionary: row_words, run: build };

fn tokenizer_words() -> Vec<&'static str> {
    vec![
        "type",
        "ByteLevel",
        "Metaspace",
        "Sequence",
        "Replace",
        "Prepend",
        "Precompiled",
        "precompiled_charsmap",
        "NFC",
        "Strip",
        "Lowercase",
        "Split",
        "Digits",
        "Whitespace",
        "BertPreTokenizer",
        "CharDelimiterSplit",
        "TemplateProcessing",
        "RobertaProcessing",
        "BertProcessing",
        "BPE",
        "Unigram",
        "WordPiece",
        "WordLevel",
        "ByteFallback",
        "Fuse",
        "CTC",
        "pattern",
        "Regex",
        "String",
        "content",
        "(a|aa)+$",
        "(?:(?=a){1000}){1000}",
        "[",
        "behavior",
        "Isolated",
        "Removed",
        "invert",
        "normalizer",
        "normalizers",
        "pre_tokenizer",
        "pretokenizers",
        "decoder",
        "decoders",
        "post_processor",
        "model",
        "vocab",
        "merges",
        "unk_token",
        "dropout",
        "fuse_unk",
        "byte_fallback",
        "ignore_merges",
        "continuing_subword_prefix",
        "end_of_word_suffix",
        "added_tokens",
        "id",
        "special",
        "normalized",
        "single_word",
        "lstrip",
        "rstrip",
        "add_prefix_space",
        "prepend_scheme",
        "always",
        "never",
        "first",
        "replacement",
        "▁",
        "Ġ",
        "<0x0A>",
        "truncation",
        "padding",
        "max_length",
        "stride",
        "strategy",
        "BatchLongest",
        "single",
        "pair",
        "special_tokens",
        "ids",
        "tokens",
        "SpecialToken",
        "type_id",
        "add_bos_token",
        "add_eos_token",
        "bos_token",
        "eos_token",
        "chat_template",
        "start",
        "stop",
        "prepend",
    ]
}

fn tokenizer_seeds() -> Vec<Input> {
    let config =
        json!({ "bos_token": "<s>", "eos_token": { "content": "</s>" }, "add_bos_token": true, "chat_template": "{{ messages }}" });
    let of = |name: &str| vec![json_part(golden(name)), json_part(config.to_string())];
    let mut around: Value = serde_json::from_slice(&golden("text_llama_tokenizer.json")).unwrap();
    around["post_processor"] = json!({
        "type": "TemplateProcessing", "single": [{ "SpecialToken": { "id": "<s>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 1 } }],
        "special_tokens": { "<s>": { "id": "<s>", "ids": [1], "tokens": ["<s>"] } },
    });
    vec![
        of("text_byte_level_tokenizer.json"),
        of("text_llama_tokenizer.json"),
        vec![json_part(around.to_string()), json_part(config.to_string())],
    ]
}

fn read_tokenizer(input: &Input) -> Result<()> {
    speak(&Tokenizer::from_json("tokenizer.json", &input[0].bytes, Some(&input[1].bytes))?)
}

fn template_words() -> Vec<&'static str> {
    vec![
        "{%",
        "%}",
        "{{",
        "}}",
        "{#",
        "#}",
        "{%-",
        "-%}",
        "{% generation %}",
        "{% endgeneration %}",
        "{%- generation -%}",
        "{% for x in messages %}",
        "{% endfor %}",
        "{% if loop.first %}",
        "{% endif %}",
        "{% set ns = namespace() %}",
        "{% set ns.x = ns %}",
        "{{ ns }}",
        "{% set x = x ~ x %}",
        "{{ range(100000) }}",
        "{% for i in range(99999) %}",
        "{% macro f(x) %}",
        "{{ f(f) }}",
        "{% endmacro %}",
        "{{ f() }}",
        "|tojson",
        "|tojson(indent=1000000000)",
        "|join(',')",
        "|batch(0)",
        "|slice(0)",
        "|indent(99999999)",
        "|length",
        "|trim",
        "|replace('', 'aa')",
        "|list",
        "|items",
        "|dictsort",
        "|sort",
        "|unique",
        "|reverse",
        "|map('upper')",
        "|selectattr('role')",
        "|groupby('role')",
        " * 100000",
        " * -1",
        " // 0",
        " % 0",
        " ** 99",
        " ~ ",
        "[::-1]",
        "[::0]",
        "[-1]",
        "[99999999999999999999]",
        "[0:9999999999]",
        ".split('')",
        ".count('')",
        ".replace('', 'x', 99)",
        ".strip('')",
        ".startswith('')",
        ".format(1)",
        ".items()",
        ".get('a')",
        " is divisibleby(0)",
        " is defined",
        " not in ",
        "loop.index0",
        "loop.cycle()",
        "loop(messages)",
        "recursive",
        "{% raw %}",
        "{% include 'chat_template' %}",
        "{% extends 'chat_template' %}",
        "{% import 'chat_template' as t %}",
        "{% block b %}",
        "{{ self.b() }}",
        "{% break %}",
        "{% continue %}",
        "raise_exception('x')",
        "strftime_now('%Y')",
        "messages",
        "message.content",
        "tools",
        "bos_token",
        "'",
        "\"",
        "+1",
        "-",
        "(",
        "[",
        "{",
        ",",
        "9223372036854775807",
        "1e308",
        "none",
        "true",
        "\u{FDD0}",
    ]
}

const TEMPLATES: &[&str] = &[
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    "{%- if messages[0]['role'] == 'system' -%}{%- set system = messages[0]['content']|trim -%}{%- set rest = messages[1:] -%}\
     {%- else -%}{%- set system = '' -%}{%- set rest = messages -%}{%- endif -%}{{ bos_token }}\
     {%- for message in rest -%}{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\
     {{ raise_exception('roles must alternate') }}{%- endif -%}{%- if message['role'] == 'user' -%}\
     [INST] {{ system ~ message['content'].strip() }} [/INST]{%- else -%} {{ message['content'] }}</s>{%- endif -%}{%- endfor -%}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}\n{% endfor %}",
    "{%- macro show(m) -%}<{{ m.role }}>{{ m.content if m.content is string else m.content|tojson(indent=2) }}</{{ m.role }}>{%- endmacro -%}\
     {%- set ns = namespace(n=0, last='') -%}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.role %}{{ show(m) }}{% endfor %}\
     {% if tools %}{{ tools|tojson }}{% endif %}{{ ns.n }}{{ ns.last }}{{ messages|map(attribute='role')|join(',') }}",
];

fn template_seeds() -> Vec<Input> {
    let talk = json!([
        { "role": "user", "content": "Hi" }, { "role": "assistant", "content": "Hello." },
        { "role": "user", "content": "Bye" }, { "role": "assistant", "content": "Farewell." },
    ]);
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": { "a": [1, 2.5, null, true] } } }]);
    TEMPLATES.iter().map(|source| vec![text(*source), json_part(talk.to_string()), json_part(tools.to_string())]).collect()
}

/// A template with typical conversations, and with the one of the input.
fn render(input: &Input) -> Result<()> {
    let template = ChatTemplate::new(&String::from_utf8_lossy(&input[0].bytes))?;
    let parse = |part: &[u8]| serde_json::from_slice::<Value>(part).unwrap_or(Value::Null);
    let (given, tools) = (parse(&input[1].bytes), parse(&input[2].bytes));
    let mut first = Ok(());
    let typical =
        json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "x" }, { "role": "assistant", "content": "y" }]);
    for messages in [given, typical].iter().filter_map(Value::as_array) {
        let rendered = template.render_with_spans(messages, Some(&tools));
        if let Ok(rendered) = &rendered {
            assert!(rendered.spans.iter().all(|span| rendered.text.get(span.clone()).is_some()), "spans leave the text");
        }
        first = first.and(rendered.map(drop));
        // That a template refuses to speak without a prompt is its own affair.
        template.render(messages, None, true).ok();
    }
    // The second conversation begins with a system message, which some templates refuse.
    if TEMPLATES.iter().any(|source| source.as_bytes() == input[0].bytes) { Ok(()) } else { first }
}

fn row_words() -> Vec<&'static str> {
    vec![
        "prompt",
        "completion",
        "choices",
        "instruction",
        "input",
        "output",
        "messages",
        "tools",
        "text",
        "role",
        "content",
        "user",
        "assistant",
        "system",
        "tool",
        "tool_calls",
        "conversations",
        "from",
        "value",
        "human",
        "gpt",
        "chosen",
        "rejected",
        "question",
        "answer",
        "label",
        "name",
        "type",
        "image",
        "<|im_end|>",
        "<|im_start|>assistant",
        "<|endoftext|>",
        "{\"text\": \"a\"}",
        "[]",
        "{}",
    ]
}

const ROW_FILES: &[&str] = &[
    "{\"prompt\": \"2+2=\", \"completion\": \"4\"}\n{\"prompt\": \"\", \"completion\": \"x\"}\n",
    "{\"prompt\": \"p\", \"completion\": \" b\", \"choices\": [\" a\", \" b\"]}\n\n{\"prompt\": \"q\", \"completion\": \" a\", \"choices\": [\" a\", \" b\", \" c\"]}",
    "{\"instruction\": \"add\", \"input\": \"1 2\", \"output\": \"3\"}\n{\"instruction\": \"say\", \"output\": \"ok\"}\r\n",
    "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}], \"tools\": null}\n\
     {\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"t\"}]}, \
     {\"role\": \"assistant\", \"content\": null, \"tool_calls\": [{\"name\": \"f\"}]}, {\"role\": \"assistant\", \"content\": \"b\"}]}",
    "{\"text\": \"Once upon a time\"}\n{\"text\": \"\u{1F600} <|im_end|>\"}",
    "[{\"text\": \"a\"},\n{\"text\": \"b\"}]",
];

fn row_seeds() -> Vec<Input> {
    ROW_FILES.iter().map(|rows| vec![lines(*rows)]).collect()
}

fn tokenizer() -> Rc<Tokenizer> {
    thread_local!(static TOKENIZER: Rc<Tokenizer> = {
        let config = json!({ "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHAT });
        let made = Tokenizer::from_json("t", &golden("text_byte_level_tokenizer.json"), Some(config.to_string().as_bytes()));
        Rc::new(made.unwrap())
    });
    TOKENIZER.with(Rc::clone)
}

/// Takes any content.
const CHAT: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
                    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn build(input: &Input) -> Result<()> {
    let tokenizer = tokenizer();
    let rows = read_rows("rows.jsonl", &input[0].bytes)?;
    let mut accepted = None;
    for format in [Format::Auto, Format::Plain, Format::Chat, Format::Alpaca] {
        for (context, overlong) in [(2, Overlong::Truncate), (64, Overlong::Refuse), (64, Overlong::Truncate)] {
            let options =
                DataOptions { format, overlong, train_on_prompt: context == 2, parse_special: context == 2, ..DataOptions::new(context) };
            let built = Dataset::build("rows.jsonl", &rows, &tokenizer, options.clone()).map(|data| {
                for example in &data.examples {
                    assert!(example.tokens.len() <= context && example.tokens.len() == example.targets.len());
                    assert!(!example.targets[0] && example.n_targets() > 0, "a target that nothing predicts");
                    RowView::new(example, &tokenizer).to_terminal(true);
                }
            });
            if accepted.as_ref().is_none_or(Result::is_err) {
                accepted = Some(built);
            }
            Dataset::labelled("rows.jsonl", &rows, &tokenizer, options).ok();
        }
    }
    accepted.unwrap_or(Ok(()))
}
