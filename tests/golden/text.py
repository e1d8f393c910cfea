"""Writes text.json and the two tokenizer.json files beside it, the goldens of tests/text.rs.

    pip install numpy tokenizers transformers jinja2 sentencepiece && python tests/golden/text.py

Witnesses: NumPy for the random numbers; Hugging Face `tokenizers` (with the Oniguruma regex engine) for byte-level vocabularies;
Google's sentencepiece for SentencePiece ones; Jinja2 under `transformers` for chat templates. Everything is generated from the text
below, which was written for this file.
"""

import io
import json
import pathlib

import numpy as np
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).parent
CORPUS = [
    "The river runs past the old mill, and the miller counts 1234 sacks of flour.",
    "She said: \"I'll go there, won't you?\" They're late again; it's 10:45 already!",
    "def add(a, b):\n    return a + b\n\n\tprint(add(1, 22))\n",
    "Ein Bär läuft über die Straße. Voilà, un café à Orléans. Ñandú, señor.",
    "東京の朝は早い。 北京 下雨了。 서울의 밤.",
    "Привет, мир! Как дела? Καλημέρα κόσμε. שלום עולם. مرحبا بالعالم",
    "emoji: 😀 😃 👍🏽 👩‍👩‍👧 🇩🇪 end",
    "the the the and and of of to to in in a a is is that that it it was was for for",
    "user assistant system question answer what is the capital of France? Paris.",
]
TEXTS = [
    "", " ", "  ", "a", " a", "Hello  world", "The river's 2 mills,\tand 1234567 sacks\n\n\n of flour ", "\n", "\r\n\r\n", " \n \n",
    "I'LL we'll They'RE it's 'tis", "x=1;y=22;z=333;w=4444", "   indented\n\t\ttabs  \t mixed", "😀👩‍👩‍👧🇩🇪é", "e\u0301 \u00e9 \ufb01 \u212b",
    "東京の朝は早い。北京下雨了", "שלום مرحبا कखग ไทย", "½ Ⅷ ٣٤ ²³ 一二三", "a\u00a0b\u2003c\u3000d\u200be\ufefff", "trailing   ",
    "http://example.org/?q=a%20b&c=d#frag", "\u0000\u0001\u007f", "!!!???...---===", "don't stop", "ÀÉÎõü ßẞ", "\u10fffd\U0010fffd",
    "<|im_start|>user\nhi<|im_end|>\n", "a<|im_end|>b <|im_end|> c", "<|im_en d|><|im_end|", "▁the▁ ▁", "<0x41><unk></s>", " the the  the",
]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
          r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE = {
    "gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]),
    "llama-bpe": split(LLAMA3),
    "qwen2": split(QWEN2),
    "tekken": split(TEKKEN),
}


def rng():
    """The documented generator, in NumPy."""
    def seed(key):
        h = 0xCBF29CE484222325
        for byte in key.encode():
            h = (h ^ byte) * 0x100000001B3 % 2**64
        return np.uint64(h)

    def bits(key, n):
        with np.errstate(over="ignore"):
            z = seed(key) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            return z ^ (z >> np.uint64(31))

    def uniform(key, n, bound):
        k = (bits(key, n) >> np.uint64(41)).astype(np.int64)
        return ((2 * k + 1 - 2**23) * 2.0**-23 * bound).astype(np.float32)

    def shuffled(key, n):
        order = list(range(n))
        for last, z in zip(range(n - 1, 0, -1), bits(key, max(n - 1, 0))):
            at = int(z) * (last + 1) >> 64
            order[at], order[last] = order[last], order[at]
        return order

    name = "layers.0.self_attn.q_proj.lora_A"
    uniforms = [{"key": key, "bound": bound, "bits": [int(v) for v in uniform(key, 64, bound).view(np.uint32)]}
                for key, bound in [(f"0/{name}", 1.0), (f"42/{name}", 576 ** -0.5), ("7/ünï", 0.02)]]
    return {"uniform": uniforms, "shuffled": [{"key": f"{s}/shuffle/{e}", "order": shuffled(f"{s}/shuffle/{e}", n)}
                                              for s, e, n in [(0, 0, 1), (0, 0, 2), (42, 3, 17), (2**64 - 1, 1, 100)]]}


def byte_level():
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = PRE["gpt-2"]
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=600, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    model = json.loads(trained.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    cases, file = [], None
    for pre, pre_tokenizer in PRE.items():
        ignore = pre in ("llama-bpe", "tekken")
        tok = Tokenizer(models.BPE(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]], ignore_merges=ignore))
        tok.pre_tokenizer, tok.decoder = pre_tokenizer, decoders.ByteLevel()
        tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
        if pre == "llama-bpe":
            tok.post_processor = processors.TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
            file = tok.to_str()
        for text in TEXTS:
            ids = tok.encode(text, add_special_tokens=False).ids
            tok.encode_special_tokens = True
            as_text = tok.encode(text, add_special_tokens=False).ids
            tok.encode_special_tokens = False
            cases.append({"pre": pre, "text": text, "ids": ids, "as_text": as_text, "decoded": tok.decode(ids, skip_special_tokens=True)})
    (HERE / "text_byte_level_tokenizer.json").write_text(file)
    return {"tokens": tokens, "merges": [" ".join(m) for m in model["merges"]], "cases": cases}


def sentence_piece():
    blob = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_writer=blob, vocab_size=520, model_type="bpe", byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=0.98,
        minloglevel=2)
    sp = sentencepiece.SentencePieceProcessor(model_proto=blob.getvalue())
    kind = lambda i: 2 if sp.is_unknown(i) else 3 if sp.is_control(i) else 5 if sp.is_unused(i) else 6 if sp.is_byte(i) else 1
    n = sp.get_piece_size()
    tokens, scores, types = [sp.id_to_piece(i) for i in range(n)], [sp.get_score(i) for i in range(n)], [kind(i) for i in range(n)]
    texts = [t for t in TEXTS if not any(c in t for c in ("<unk>", "</s>", "\u0000"))]
    tok = llama_json(tokens, scores, types)
    # The two differ by design where a text starts with a space: Metaspace does not add a second one.
    cases = [{"text": t, "ids": sp.encode(t), "decoded": sp.decode(sp.encode(t)), "json_ids": tok.encode(t, add_special_tokens=False).ids}
             for t in texts]
    # What follows a text is the same as what sentencepiece gives for the whole, where the cut is at a space.
    continued = []
    for first, second in [("The river", " runs past"), ("the", "  the"), ("東京", " 下雨"), ("Paris", ".")]:
        whole, head = sp.encode(first + second), sp.encode(first)
        if whole[: len(head)] == head:
            continued.append({"first": first, "second": second, "ids": whole[len(head):]})
    assert len(continued) >= 3
    return {"tokens": tokens, "scores": scores, "token_type": types, "cases": cases, "continued": continued}


def llama_json(tokens, scores, types):
    """The same vocabulary as a tokenizer.json of the newer LLaMA kind: Metaspace, byte fall-back, <s> in front."""
    ids = {t: i for i, t in enumerate(tokens)}
    merges = []
    for i in sorted((i for i, t in enumerate(types) if t == 1), key=lambda i: -scores[i]):
        cuts = [(tokens[i][:k], tokens[i][k:]) for k in range(1, len(tokens[i]))]
        merges += sorted((c for c in cuts if c[0] in ids and c[1] in ids), key=lambda c: (ids[c[0]], ids[c[1]]))
    tok = Tokenizer(models.BPE(vocab=ids, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tok.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>")])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    (HERE / "text_llama_tokenizer.json").write_text(tok.to_str())
    return tok


CHATML = """{% for message in messages %}
{{ '<|im_start|>' + message['role'] + '\\n' -}}
{% if message.role == 'assistant' %}
{% generation %}
{{- message['content'] + '<|im_end|>' -}}
{% endgeneration %}
{% else %}
{{- message['content'] + '<|im_end|>' -}}
{% endif %}
{{ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{%- endif %}
"""
UNTAGGED = CHATML.replace("{% generation %}\n", "").replace("{% endgeneration %}\n", "")
INST = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0].content %}{% set rest = messages[1:] %}
{% else %}{% set system = none %}{% set rest = messages %}{% endif %}
{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}
{% if m.role == 'user' %}[INST] {% if loop.first and system %}<<SYS>>{{ system | trim }}<</SYS>> {% endif %}{{ m.content.strip() }} [/INST]
{%- else %} {{ m.content | trim }}{{ eos_token }}{% endif %}{% endfor %}"""
TOOLS = """{% set ns = namespace(n=0, seen=false) %}{%- if tools is not none and tools %}
# Tools
{% for tool in tools %}
{{ tool | tojson }}
{% endfor %}
{{ tools | tojson(indent=2) }}
{% endif %}
{%- for m in messages %}
    {%- if m.role == 'system' %}{% continue %}{% endif %}
    {%- set ns.n = ns.n + 1 %}
    {%- if m.content is string and m.content.startswith('<think>') and '</think>' in m.content %}
        {%- set content = m.content.split('</think>')[-1].lstrip('\\n') %}
    {%- else %}
        {%- set content = m.content %}
    {%- endif %}
[{{ ns.n }}|{{ loop.last }}|{{ m.get('name') }}|{{ m.role.upper() }}] {{ content }}{{ eos_token }}
    {%- if m.tool_calls is defined %}
        {%- for call in m.tool_calls %} CALL {{ call.function.name }}({% for k, v in call.function.arguments.items() %}{{ k }}={{ v | tojson }}{% if not loop.last %}, {% endif %}{% endfor %}){% endfor %}
    {%- endif %}
{% endfor %}
{%- if strftime_missing is defined %}never{% endif %}
{% macro tail(x) %}<{{ x ~ '|' ~ 1.5 }}>{% endmacro %}
{{- tail(messages | length) }}{% if add_generation_prompt %} [ASSISTANT]{% endif %}"""
TALK = [
    {"role": "system", "content": "Be brief. <b>&amp; 'quotes' \"double\"</b>"},
    {"role": "user", "content": "  What is the capital of France? \n"},
    {"role": "assistant", "content": "Paris. 東京 is another one's."},
    {"role": "user", "content": "And now?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nStill Paris 😀"},
]
CALLS = TALK[:2] + [{"role": "assistant", "content": None, "tool_calls": [
    {"type": "function", "function": {"name": "look_up", "arguments": {"z": "é<&>", "a": [1, 2.5, True, None], "empty": {}}}}]}]
TOOL = [{"type": "function", "function": {"name": "look_up", "description": "Finds <things> & \"more\"", "parameters": {"z": [], "a": {}}}}]


def chat():
    cases = []
    for name, template, messages, tools in [
        ("chatml", UNTAGGED, TALK, None), ("chatml", UNTAGGED, TALK[1:], None), ("chatml-tagged", CHATML, TALK, None),
        ("chatml-tagged", CHATML, TALK[:2], None), ("inst", INST, TALK, None), ("inst", INST, TALK[1:4], None),
        ("tools", TOOLS, CALLS, TOOL), ("tools", TOOLS, TALK, None),
    ]:
        for prompt in (False, True):
            tagged = "generation %}" in template
            (text,), spans = render_jinja_template([messages], tools=tools, chat_template=template, add_generation_prompt=prompt,
                                                   return_assistant_tokens_mask=tagged, bos_token="<s>", eos_token="</s>")
            spans = [[len(text[:i].encode()) for i in span] for span in spans[0]] if tagged else None
            cases.append({"name": name, "template": template, "messages": messages, "tools": tools, "add_generation_prompt": prompt,
                          "text": text, "spans": spans})
    return cases


golden = {"rng": rng(), "byte_level": byte_level(), "sentence_piece": sentence_piece(), "chat": chat()}
(HERE / "text.json").write_text(json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n")
