//! Tokenizers, chat templates, masks and packing against the goldens of `tests/golden/text.py`.

use serde_json::Value;
use weblora::Error;
use weblora::rng;
use weblora::text::alpaca::alpaca_prompt;
use weblora::text::inspect::RowView;
use weblora::text::{
    ChatTemplate, DataOptions, Dataset, EncodeOptions, Example, Format, GgufTokenizer, Overlong, StreamDecoder, Tokenizer, read_rows,
};

fn golden() -> Value {
    serde_json::from_str(include_str!("../golden/text.json")).expect("the golden file is JSON")
}

fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).expect("a list of strings")
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

const CHATML: &str = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn byte_level_meta(pre: &str) -> GgufTokenizer {
    let vocab = &golden()["byte_level"];
    let tokens = strings(&vocab["tokens"]);
    GgufTokenizer {
        model: "gpt2".into(),
        pre: Some(pre.into()),
        token_type: (0..tokens.len()).map(|id| if id < 3 { 3 } else { 1 }).collect(),
        tokens,
        merges: strings(&vocab["merges"]),
        bos_token_id: Some(1),
        eos_token_id: Some(2),
        add_bos_token: Some(false),
        chat_template: Some(CHATML.into()),
        ..GgufTokenizer::default()
    }
}

fn byte_level() -> Tokenizer {
    Tokenizer::from_gguf("test.gguf", byte_level_meta("smollm")).expect("a good vocabulary")
}

fn sentence_piece_meta() -> GgufTokenizer {
    let vocab = &golden()["sentence_piece"];
    GgufTokenizer {
        model: "llama".into(),
        tokens: strings(&vocab["tokens"]),
        scores: serde_json::from_value(vocab["scores"].clone()).expect("scores"),
        token_type: serde_json::from_value(vocab["token_type"].clone()).expect("types"),
        unknown_token_id: Some(0),
        bos_token_id: Some(1),
        eos_token_id: Some(2),
        ..GgufTokenizer::default()
    }
}

fn sentence_piece() -> Tokenizer {
    Tokenizer::from_gguf("test.gguf", sentence_piece_meta()).expect("a good vocabulary")
}

fn options() -> DataOptions {
    DataOptions::new(512)
}

fn build(tokenizer: &Tokenizer, rows: &str, options: DataOptions) -> weblora::Result<Dataset> {
    Dataset::build("rows.jsonl", &read_rows("rows.jsonl", rows.as_bytes())?, tokenizer, options)
}

fn trained(example: &Example) -> Vec<u32> {
    example.tokens.iter().zip(&example.targets).filter(|(_, target)| **target).map(|(id, _)| *id).collect()
}

/// The error's text, which must be one sentence that holds all of `parts`.
fn refused<T>(result: weblora::Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("expected an error about {parts:?}") };
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than one line: {text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[test]
fn byte_level_vocabularies_agree_with_hugging_face() {
    let golden = golden();
    let cases = golden["byte_level"]["cases"].as_array().expect("cases");
    assert!(cases.len() > 100);
    for pre in ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken"] {
        let tokenizer = Tokenizer::from_gguf("test.gguf", byte_level_meta(pre)).expect("a good vocabulary");
        for case in cases.iter().filter(|case| case["pre"] == pre) {
            let text = case["text"].as_str().expect("text");
            let got = tokenizer.encode(text, false).expect("encodes");
            assert_eq!(got, ids(&case["ids"]), "{pre}: {text:?}");
            let as_text = tokenizer.encode_with(text, EncodeOptions { parse_special: false, ..Default::default() }).expect("encodes");
            assert_eq!(as_text, ids(&case["as_text"]), "{pre}, control tokens as text: {text:?}");
            assert_eq!(tokenizer.decode(&got, true).expect("decodes"), case["decoded"].as_str().expect("decoded"));
            assert_eq!(tokenizer.decode(&as_text, false).expect("decodes"), text);
        }
    }
}

#[test]
fn another_pre_tokenizer_gives_other_ids() {
    let text = "x=1;y=22;z=333;w=4444";
    let of = |pre| Tokenizer::from_gguf("t", byte_level_meta(pre)).and_then(|t| t.encode(text, false)).expect("encodes");
    assert_ne!(of("smollm"), of("gpt-2"));
}

#[test]
fn the_pre_tokenizers_of_deepseek_and_seed_agree_with_their_tokenizer_json() {
    let cases: Value = serde_json::from_str(include_str!("../golden/pre_tokenizers.json")).expect("golden file");
    for case in cases.as_array().expect("cases") {
        let (pre, text) = (case["pre"].as_str().expect("name"), case["text"].as_str().expect("text"));
        let tokenizer = Tokenizer::from_gguf("test.gguf", byte_level_meta(pre)).expect("a good vocabulary");
        assert_eq!(tokenizer.encode(text, false).expect("encodes"), ids(&case["ids"]), "{pre}: {text:?}");
    }
}

#[test]
fn a_vocabulary_without_the_merges_that_it_needs_is_refused() {
    let without = GgufTokenizer { merges: Vec::new(), ..byte_level_meta("smollm") };
    refused(Tokenizer::from_gguf("no-merges.gguf", without.clone()).map(|_| ()), &["no-merges.gguf", "tokenizer.ggml.merges"]);
    // Single bytes and control tokens need none.
    let mut bytes = without;
    let kept: Vec<usize> = (0..bytes.tokens.len()).filter(|&id| id < 3 || bytes.tokens[id].chars().count() == 1).collect();
    bytes.tokens = kept.iter().map(|&id| bytes.tokens[id].clone()).collect();
    bytes.token_type = kept.iter().map(|&id| bytes.token_type[id]).collect();
    let tokenizer = Tokenizer::from_gguf("bytes.gguf", bytes).expect("a vocabulary of bytes");
    assert_eq!(tokenizer.encode("abc", false).expect("encodes").len(), 3);
}

#[test]
fn sentence_piece_vocabularies_agree_with_sentencepiece() {
    let golden = golden();
    let tokenizer = sentence_piece();
    let continued = |text| tokenizer.encode_with(text, EncodeOptions { continuation: true, parse_special: false, add_special: false });
    let cases = golden["sentence_piece"]["cases"].as_array().expect("cases");
    assert!(cases.len() > 25);
    for case in cases {
        let text = case["text"].as_str().expect("text");
        let got = tokenizer.encode(text, false).expect("encodes");
        assert_eq!(got, ids(&case["ids"]), "{text:?}");
        assert_eq!(tokenizer.decode(&got, true).expect("decodes"), case["decoded"].as_str().expect("decoded"), "{text:?}");
    }
    for case in golden["sentence_piece"]["continued"].as_array().expect("cases") {
        let second = case["second"].as_str().expect("text");
        assert_eq!(continued(second).expect("encodes"), ids(&case["ids"]), "{second:?}");
        assert_ne!(tokenizer.encode(second, false).expect("encodes"), ids(&case["ids"]), "without the option there is one space more");
    }
}

#[test]
fn a_tokenizer_json_gives_the_same_ids_as_the_metadata() {
    let golden = golden();
    let file = include_bytes!("../golden/text_byte_level_tokenizer.json");
    let tokenizer = Tokenizer::from_json("tokenizer.json", file, None).expect("a good file");
    for case in golden["byte_level"]["cases"].as_array().expect("cases").iter().filter(|case| case["pre"] == "llama-bpe") {
        let text = case["text"].as_str().expect("text");
        assert_eq!(tokenizer.encode(text, false).expect("encodes"), ids(&case["ids"]), "{text:?}");
        let with_special = [vec![0], ids(&case["ids"])].concat();
        assert_eq!(tokenizer.encode(text, true).expect("encodes"), with_special, "{text:?}");
    }
    assert_eq!(tokenizer.vocab_size(), strings(&golden["byte_level"]["tokens"]).len());

    let file = include_bytes!("../golden/text_llama_tokenizer.json");
    let config = br#"{"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": true, "add_eos_token": false,
                      "chat_template": [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]}"#;
    let tokenizer = Tokenizer::from_json("tokenizer.json", file, Some(config)).expect("a good file");
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.prefix()), (Some(1), Some(2), &[1][..]));
    assert_eq!(tokenizer.chat_template(), Some("yes"));
    for case in golden["sentence_piece"]["cases"].as_array().expect("cases") {
        let text = case["text"].as_str().expect("text");
        assert_eq!(tokenizer.encode(text, false).expect("encodes"), ids(&case["json_ids"]), "{text:?}");
    }
    for case in golden["sentence_piece"]["continued"].as_array().expect("cases") {
        let options = EncodeOptions { continuation: true, ..Default::default() };
        let second = case["second"].as_str().expect("text");
        assert_eq!(tokenizer.encode_with(second, options).expect("encodes"), ids(&case["ids"]), "{second:?}");
    }
}

#[test]
fn streamed_text_is_whole_characters_and_the_same_text() {
    for (tokenizer, name) in [(byte_level(), "byte-level"), (sentence_piece(), "sentencepiece")] {
        let text = "a 😀👩‍👩‍👧 東京 é\u{301}";
        let got = tokenizer.encode_with(text, EncodeOptions { continuation: true, ..Default::default() }).expect("encodes");
        let mut stream = StreamDecoder::new(true);
        let parts: Vec<String> = got.iter().map(|&id| stream.push(&tokenizer, id)).collect();
        assert!(parts.iter().any(String::is_empty), "{name}: some character takes several tokens");
        assert!(!parts.concat().contains('\u{FFFD}'));
        assert_eq!(parts.concat() + &stream.finish(), text, "{name}");
        // A character cut off by the end of generation is not lost without a trace.
        let emoji = tokenizer.encode_with("😀", EncodeOptions { continuation: true, ..Default::default() }).expect("encodes");
        assert!(emoji.len() > 1);
        let cut: String = emoji[..emoji.len() - 1].iter().map(|&id| stream.push(&tokenizer, id)).collect();
        assert_eq!((cut.as_str(), stream.finish().as_str(), stream.finish().as_str()), ("", "\u{FFFD}", ""));
    }
}

#[test]
fn vocabularies_that_lie_are_refused() {
    let with = |change: &dyn Fn(&mut GgufTokenizer)| {
        let mut meta = byte_level_meta("smollm");
        change(&mut meta);
        Tokenizer::from_gguf("lie.gguf", meta).map(|_| ())
    };
    refused(with(&|m| m.pre = Some("martian".into())), &["martian", "smollm"]);
    refused(with(&|m| m.model = "bert".into()), &["bert", "lie.gguf"]);
    refused(with(&|m| m.tokens.clear()), &["lie.gguf", "tokens"]);
    refused(with(&|m| m.token_type.truncate(5)), &["token_type", "5"]);
    refused(with(&|m| m.eos_token_id = Some(60_000)), &["eos_token_id", "60000"]);
    refused(with(&|m| m.merges.push("nospace".into())), &["merge", "nospace"]);
    refused(with(&|m| m.merges.push("Ġthe zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz".into())), &["merge", "zzz"]);
    let mut meta = sentence_piece_meta();
    meta.scores.clear();
    refused(Tokenizer::from_gguf("lie.gguf", meta).map(|_| ()), &["scores"]);
    let mut meta = sentence_piece_meta();
    meta.tokens[300] = "a".repeat(2000);
    refused(Tokenizer::from_gguf("long.gguf", meta).map(|_| ()), &["token 300", "2000"]);
    let mut meta = sentence_piece_meta();
    meta.scores[7] = f32::NAN;
    assert!(Tokenizer::from_gguf("nan.gguf", meta).is_ok(), "an odd score is only an odd order");

    let json = |text: &str| Tokenizer::from_json("tokenizer.json", text.as_bytes(), None).map(|_| ());
    refused(json("{"), &["tokenizer.json"]);
    refused(json(r#"{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}"#), &["merge 0", "ab"]);
    refused(json(r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}}"#), &["tokenizer.json"]);

    // Text must never vanish because a byte has no token.
    let mut meta = byte_level_meta("smollm");
    let quote = meta.tokens.iter().position(|token| token == "?").expect("in the vocabulary");
    meta.tokens[quote] = "never".into();
    meta.merges.retain(|merge| !merge.contains('?'));
    let tokenizer = Tokenizer::from_gguf("gap.gguf", meta).expect("usable");
    assert!(tokenizer.encode("fine", false).is_ok());
    refused(tokenizer.encode("why?", false), &["0x3F"]);
}

#[test]
fn chat_templates_render_as_jinja_does() {
    for case in golden()["chat"].as_array().expect("cases") {
        let template = with_tokens(case["template"].as_str().expect("template"));
        let messages = case["messages"].as_array().expect("messages");
        let tools = Some(&case["tools"]).filter(|tools| !tools.is_null());
        let prompt = case["add_generation_prompt"].as_bool().expect("bool");
        assert_eq!(template.render(messages, tools, prompt).expect("renders"), case["text"].as_str().expect("text"), "{}", case["name"]);
        if let (Some(spans), false) = (case["spans"].as_array(), prompt) {
            let rendered = template.render_with_spans(messages, tools).expect("renders");
            let expected: Vec<(u64, u64)> = spans.iter().map(|s| (s[0].as_u64().unwrap_or(0), s[1].as_u64().unwrap_or(0))).collect();
            let got: Vec<(u64, u64)> = rendered.spans.iter().map(|s| (s.start as u64, s.end as u64)).collect();
            assert_eq!(got, expected, "{}", case["name"]);
        }
    }
}

/// A template whose bos and eos are those of the golden script.
fn with_tokens(template: &str) -> ChatTemplate {
    let tokenizer = sentence_piece().with_chat_template(template);
    ChatTemplate::of(&tokenizer).expect("compiles")
}

fn talk(json: &str) -> Vec<Value> {
    serde_json::from_str(json).expect("messages")
}

const TWO_TURNS: &str = r#"[{"role":"user","content":"Hi é"},{"role":"assistant","content":"the one"},
                            {"role":"user","content":"the one"},{"role":"assistant","content":"two"}]"#;

#[test]
fn assistant_turns_are_found_in_templates_without_tags() {
    let rendered = with_tokens(CHATML).render_with_spans(&talk(TWO_TURNS), None).expect("renders");
    let spoken: Vec<&str> = rendered.spans.iter().map(|span| &rendered.text[span.clone()]).collect();
    assert_eq!(spoken, ["the one<|im_end|>\n", "two<|im_end|>\n"]);
    assert!(!rendered.last_turn_only);

    // Earlier answers are rewritten once they are history: only the last turn is certain.
    let rewriting = "{% for m in messages %}[{{ m.role }}]{{ m.content if loop.last or m.role == 'user' else 'gone' }};{% endfor %}\
                     {% if add_generation_prompt %}[assistant]{% endif %}";
    let rendered = with_tokens(rewriting).render_with_spans(&talk(TWO_TURNS), None).expect("renders");
    assert!(rendered.last_turn_only);
    assert_eq!(rendered.spans.iter().map(|span| &rendered.text[span.clone()]).collect::<Vec<_>>(), ["two;"]);

    // A generation prompt that the whole conversation does not contain.
    let thinking =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }};{% endfor %}{% if add_generation_prompt %}<assistant><think>{% endif %}";
    let rendered = with_tokens(thinking).render_with_spans(&talk(TWO_TURNS), None).expect("renders");
    assert_eq!(rendered.spans.iter().map(|span| &rendered.text[span.clone()]).collect::<Vec<_>>(), ["the one;", "two;"]);

    let shouting = "{{ messages | length }}{% for m in messages %}{{ m.content | upper }}{% endfor %}";
    refused(with_tokens(shouting).render_with_spans(&talk(TWO_TURNS), None), &["cannot be found", "generation"]);
}

#[test]
fn templates_that_refuse_say_why() {
    refused(with_tokens("{{ raise_exception('no system here') }}").render(&talk(TWO_TURNS), None, false), &["no system here"]);
    refused(with_tokens("{{ strftime_now('%Y') }}").render(&talk(TWO_TURNS), None, false), &["strftime_now"]);
    refused(ChatTemplate::new("{% for %}").map(|_| ()), &["chat_template"]);
    refused(ChatTemplate::of(&sentence_piece()).map(|_| ()), &["no chat template", "--chat-template"]);
}

#[test]
fn plain_rows_train_on_completion_and_eos_only() {
    let tokenizer = byte_level();
    let data = build(&tokenizer, r#"{"prompt": "Sentiment:", "completion": " the end", "id": 7}"#, options()).expect("builds");
    let (prompt, answer) = (tokenizer.encode("Sentiment:", false).expect("encodes"), tokenizer.encode(" the end", false).expect("encodes"));
    let example = &data.examples[0];
    assert_eq!(example.tokens, [prompt.clone(), answer.clone(), vec![2]].concat());
    // Spelled out, so that a mask moved by one in either direction fails.
    let expected: Vec<bool> = (0..example.tokens.len()).map(|i| i >= prompt.len()).collect();
    assert_eq!(example.targets, expected);
    assert_eq!(trained(example), [answer, vec![2]].concat());
    assert_eq!((data.report.rows, data.report.targets, data.report.longest), (1, trained(example).len(), example.tokens.len()));

    let all = DataOptions { train_on_prompt: true, ..options() };
    let data = build(&tokenizer, r#"{"prompt": "Sentiment:", "completion": " the end"}"#, all).expect("builds");
    assert_eq!(trained(&data.examples[0]), data.examples[0].tokens[1..]);

    let data = build(&tokenizer, r#"{"text": "the end"}"#, options()).expect("builds");
    assert_eq!(data.examples[0].tokens, [tokenizer.encode("the end", false).expect("encodes"), vec![2]].concat());
    assert_eq!(trained(&data.examples[0]), data.examples[0].tokens[1..]);
}

#[test]
fn a_sentence_piece_row_reads_as_one_text_with_one_bos() {
    let tokenizer = sentence_piece();
    let data = build(&tokenizer, r#"{"prompt": "The river", "completion": " runs past"}"#, options()).expect("builds");
    let whole = tokenizer.encode("The river runs past", true).expect("encodes");
    assert_eq!(whole[0], 1);
    assert_eq!(data.examples[0].tokens, [whole, vec![2]].concat());
    let data = build(&tokenizer, r#"{"text": "The river"}"#, options()).expect("builds");
    assert_eq!(trained(&data.examples[0]), data.examples[0].tokens[1..], "with a first token before it, the whole text is trained");
}

#[test]
fn control_tokens_in_plain_rows_are_text_unless_asked() {
    let tokenizer = byte_level();
    let row = r#"{"prompt": "<|im_start|>user", "completion": "a<|im_end|>"}"#;
    let data = build(&tokenizer, row, options()).expect("builds");
    assert_eq!(data.report.with_control_text, 1);
    assert!(!data.examples[0].tokens.contains(&1));
    assert_eq!(data.examples[0].tokens.iter().filter(|&&id| id == 2).count(), 1);
    let data = build(&tokenizer, row, DataOptions { parse_special: true, ..options() }).expect("builds");
    assert_eq!(data.examples[0].tokens[0], 1);
    assert_eq!(data.examples[0].tokens.iter().filter(|&&id| id == 2).count(), 1, "an end that is already there is not doubled");
}

#[test]
fn conversations_train_on_the_assistant_with_its_end_of_turn() {
    let tokenizer = byte_level();
    let rows = format!("{{\"messages\": {}}}", TWO_TURNS.replace('\n', " "));
    let data = build(&tokenizer, &rows, options()).expect("builds");
    let example = &data.examples[0];
    let text = with_tokens(CHATML).render(&talk(TWO_TURNS), None, false).expect("renders");
    assert_eq!(example.tokens, tokenizer.encode(&text, false).expect("encodes"), "the tokens are those of the whole text");
    let runs: Vec<String> = example
        .tokens
        .iter()
        .zip(&example.targets)
        .collect::<Vec<_>>()
        .chunk_by(|a, b| a.1 == b.1)
        .filter(|run| *run[0].1)
        .map(|run| tokenizer.decode(&run.iter().map(|(id, _)| **id).collect::<Vec<_>>(), false).expect("decodes"))
        .collect();
    assert_eq!(runs, ["the one<|im_end|>", "two<|im_end|>"], "not the header, not the line break after the turn");

    // The tagged and the untagged template agree on what is trained.
    let tagged = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}\
                  {{ m.content + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}";
    let marked = build(&byte_level().with_chat_template(tagged), &rows, options()).expect("builds");
    assert_eq!(marked.examples, data.examples);

    // A template that never ends a turn: the last one is ended for it.
    let open = build(&byte_level().with_chat_template("{% for m in messages %}{{ m.content }}\n{% endfor %}"), &rows, options());
    let open = &open.expect("builds").examples[0];
    assert_eq!((open.tokens.last(), open.targets.last()), (Some(&2), Some(&true)));
}

#[test]
fn formats_turn_rows_into_one_another() {
    let tokenizer = byte_level();
    let instruction = r#"{"instruction": "Name it.", "input": "a mill", "output": "mill"}"#;
    let plain = build(&tokenizer, instruction, options()).expect("builds");
    let prompt = alpaca_prompt("Name it.", "a mill");
    assert!(prompt.contains("### Input:\na mill\n\n### Response:\n"));
    let tokens = [tokenizer.encode(&prompt, false).expect("encodes"), tokenizer.encode("mill", false).expect("encodes"), vec![2]].concat();
    assert_eq!(plain.examples[0].tokens, tokens);
    assert!(!alpaca_prompt("x", "").contains("Input"));

    let chat = DataOptions { format: Format::Chat, ..options() };
    let expected = build(
        &tokenizer,
        r#"{"messages": [{"role": "user", "content": "Name it.\n\na mill"}, {"role": "assistant", "content": "mill"}]}"#,
        options(),
    )
    .expect("builds");
    assert_eq!(build(&tokenizer, instruction, chat.clone()).expect("builds").examples, expected.examples);
    let completion = r#"{"prompt": "Name it.\n\na mill ", "completion": " mill"}"#;
    assert_eq!(build(&tokenizer, completion, chat.clone()).expect("builds").examples, expected.examples);

    refused(build(&tokenizer, instruction, DataOptions { format: Format::Plain, ..options() }), &["row 1", "instruction/output", "plain"]);
    refused(build(&tokenizer, r#"{"text": "x y"}"#, chat), &["text", "chat"]);
    refused("xml".parse::<Format>(), &["xml", "alpaca"]);
}

#[test]
fn bad_files_are_refused_by_row() {
    let read = |bytes: &[u8]| read_rows("rows.jsonl", bytes).map(|_| ());
    refused(read(b""), &["rows.jsonl", "no row"]);
    refused(read(b"\n  \n"), &["no row"]);
    refused(read(b"{\"text\": \"a\"}\n\n{\"text\": \"\xFFb\"}"), &["row 3", "0xFF", "column 11", "UTF-8"]);
    refused(read(b"{\"text\": \"a\"}\n{\"text\": "), &["row 2", "JSON"]);
    refused(read(b"7"), &["row 1", "a number", "object"]);
    refused(read(br#"{"text": 7}"#), &["row 1", "`text` is a number"]);
    refused(read(br#"{"question": "a", "answer": "b"}"#), &["`question`", "`answer`", "rename"]);
    refused(read(br#"{"prompt": "a"}"#), &["`prompt`", "completion"]);
    refused(read(b"{\"text\": \"a\"}\n{\"prompt\": \"a\", \"completion\": \"b\"}"), &["row 2", "prompt/completion", "text row 1"]);
    refused(read(br#"{"prompt": "a", "completion": "b", "messages": []}"#), &["more than one"]);
    refused(read(br#"{"messages": []}"#), &["an empty list"]);
    refused(read(br#"{"messages": ["hi"]}"#), &["message 1", "role"]);
    refused(read(br#"{"messages": [{"role": "user"}]}"#), &["message 1", "content"]);
    refused(read(br#"{"messages": [{"role": "user", "content": 5}]}"#), &["message 1", "a number"]);
    refused(read(br#"{"prompt": "a", "completion": "b", "choices": ["b"]}"#), &["at least 2"]);
    refused(read(br#"{"prompt": "a", "completion": "b", "choices": ["c", "d"]}"#), &["\"b\"", "choices"]);
    refused(read(br#"{"prompt": "a", "completion": "b", "choices": ["b", "b"]}"#), &["twice"]);
    refused(read(br#"[{"text": "a"}, {"text": null}]"#), &["row 2", "null"]);
    refused(read(br#"[{"text": "a"},"#), &["array", "line 1"]);

    let rows = read_rows("r", b"\xEF\xBB\xBF{\"text\": \"a\"}\r\n\r\n{\"text\": \"b\"}\n").expect("a byte order mark and CR LF are fine");
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(read_rows("r", br#" [{"text": "a"}, {"text": "b"}]"#).expect("an array is fine").len(), 2);
}

#[test]
fn long_rows_are_cut_counted_dropped_or_refused() {
    let tokenizer = byte_level();
    let long = format!("{{\"prompt\": \"{}\", \"completion\": \"the end\"}}\n", "x ".repeat(100));
    let rows = format!("{long}{{\"prompt\": \"x\", \"completion\": \"{}\"}}\n", "y ".repeat(100));
    let data = build(&tokenizer, &rows, DataOptions::new(20)).expect("one row is left");
    assert_eq!((data.report.rows, data.report.truncated, data.report.dropped, data.examples.len()), (2, 2, 1, 1));
    assert_eq!((data.examples[0].row, data.examples[0].tokens.len(), data.examples[0].n_targets()), (2, 20, 19));
    refused(build(&tokenizer, &long, DataOptions::new(20)), &["none of the 1 rows", "20"]);
    refused(build(&tokenizer, &rows, DataOptions { overlong: Overlong::Refuse, ..DataOptions::new(20) }), &["row 1", "20"]);
    refused(build(&tokenizer, &rows, DataOptions::new(1)), &["seq"]);
    assert!(matches!(build(&tokenizer, "{}", options()), Err(Error::Data { row: 1, .. })));
}

#[test]
fn labelled_rows_score_the_choice_and_nothing_else() {
    let tokenizer = byte_level();
    let rows = read_rows("r", br#"{"prompt": "Is it?", "completion": " the end", "choices": [" mill", " the end"]}"#).expect("reads");
    let labelled = Dataset::labelled("r", &rows, &tokenizer, options()).expect("builds");
    assert_eq!((labelled.len(), labelled[0].label), (1, 1));
    for format in [Format::Auto, Format::Chat] {
        let labelled = Dataset::labelled("r", &rows, &tokenizer, DataOptions { format, ..options() }).expect("builds");
        let texts: Vec<String> =
            labelled[0].candidates.iter().map(|c| tokenizer.decode(&trained(c), false).expect("decodes").trim().to_owned()).collect();
        assert_eq!(texts, ["mill", "the end"]);
        assert!(labelled[0].candidates.iter().all(|c| c.targets.last() == Some(&true)));
    }
    refused(Dataset::labelled("r", &rows, &tokenizer, DataOptions::new(3)), &["row 1", "3"]);
}

#[test]
fn a_row_can_be_looked_at() {
    let tokenizer = byte_level();
    let data = build(&tokenizer, "{\"prompt\": \"a\\n\", \"completion\": \"😀\\u001b\"}", options()).expect("builds");
    let view = RowView::new(&data.examples[0], &tokenizer);
    assert_eq!(view.pieces.iter().filter(|piece| piece.is_target).count(), view.n_targets);
    let shown = view.to_terminal(false);
    assert!(shown.contains("a·⏎\n⟦") && shown.contains("<0x") && shown.contains("<|im_end|>⟧"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "text cannot steer the terminal");
    assert!(view.to_terminal(true).contains("\x1b[32m⟦"));
}

#[test]
fn random_numbers_agree_with_numpy() {
    let golden = golden();
    for case in golden["rng"]["uniform"].as_array().expect("cases") {
        let (key, bound) = (case["key"].as_str().expect("key"), case["bound"].as_f64().expect("bound"));
        let expected: Vec<u32> = ids(&case["bits"]);
        let got = rng::fill_uniform(key, expected.len(), bound);
        assert_eq!(got.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), expected, "{key}");
        assert_eq!(rng::uniform(key, 5, bound).to_bits(), expected[4]);
        assert!(got.iter().all(|x| f64::from(x.abs()) < bound));
    }
    for case in golden["rng"]["shuffled"].as_array().expect("cases") {
        let expected = ids(&case["order"]);
        assert_eq!(rng::shuffled(case["key"].as_str().expect("key"), expected.len()), expected);
    }
}
