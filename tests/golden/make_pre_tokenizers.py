"""Writes pre_tokenizers.json beside it: ids under the pre-tokenizers of DeepSeek LLM, DeepSeek Coder and Seed-Coder.

    pip install tokenizers && python tests/golden/make_pre_tokenizers.py

Witness: Hugging Face `tokenizers` with the splits of those models' own tokenizer.json. The vocabulary is the one of
text_byte_level_tokenizer.json.
"""

import json
import pathlib

from tokenizers import Regex, Tokenizer, models, pre_tokenizers

HERE = pathlib.Path(__file__).parent
LETTERS = (
    r"\s?[\x{41}-\x{5A}\x{61}-\x{7A}\x{B5}\x{C0}-\x{D6}\x{D8}-\x{F6}\x{F8}-\x{1BA}\x{1BC}-\x{1BF}\x{1C4}-\x{293}\x{295}-\x{2AF}"
    r"\x{370}-\x{373}\x{376}-\x{377}\x{37B}-\x{37D}\x{37F}\x{386}\x{388}-\x{38A}\x{38C}\x{38E}-\x{3A1}\x{3A3}-\x{3F5}"
    r"\x{3F7}-\x{481}\x{48A}-\x{52F}\x{531}-\x{556}\x{10A0}-\x{10C5}\x{13A0}-\x{13F5}\x{13F8}-\x{13FD}\x{1C90}-\x{1CBA}"
    r"\x{1CBD}-\x{1CBF}\x{1D00}-\x{1D2B}\x{1D6B}-\x{1D77}\x{1D79}-\x{1D9A}\x{1E00}-\x{1F15}\x{1F18}-\x{1F1D}"
    r"\x{1F20}-\x{1F45}\x{1F48}-\x{1F4D}\x{1F50}-\x{1F57}\x{1F59}\x{1F5B}\x{1F5D}\x{1F5F}-\x{1F7D}\x{1F80}-\x{1FB4}"
    r"\x{1FB6}-\x{1FBC}\x{1FBE}\x{1FC2}-\x{1FC4}\x{1FC6}-\x{1FCC}\x{1FD0}-\x{1FD3}\x{1FD6}-\x{1FDB}\x{1FE0}-\x{1FEC}"
    r"\x{1FF2}-\x{1FF4}\x{1FF6}-\x{1FFC}\x{2102}\x{2107}\x{210A}-\x{2113}\x{2115}\x{2119}-\x{211D}\x{2124}\x{2126}\x{2128}"
    r"\x{212A}-\x{212D}\x{212F}-\x{2134}\x{2139}\x{213C}-\x{213F}\x{2145}-\x{2149}\x{214E}\x{2183}-\x{2184}\x{2C00}-\x{2C7B}"
    r"\x{2C7E}-\x{2CE4}\x{2CEB}-\x{2CEE}\x{2CF2}-\x{2CF3}\x{A640}-\x{A66D}\x{A680}-\x{A69B}\x{A722}-\x{A76F}"
    r"\x{A771}-\x{A787}\x{A78B}-\x{A78E}\x{AB70}-\x{ABBF}\x{FB00}-\x{FB06}\x{FB13}-\x{FB17}\x{FF21}-\x{FF3A}"
    r"\x{FF41}-\x{FF5A}\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}"
    r"\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+")
PUNCTUATION = r"\s?[!-/:-~\x{FF01}-\x{FF0F}\x{FF1A}-\x{FF5E}\x{2018}-\x{201F}\x{3000}-\x{3002}]+"
HAN = r"[\x{4E00}-\x{9FA5}\x{800}-\x{4E00}\x{AC00}-\x{D7FF}]+"
SEED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXTS = [
    "", " ", "  \n", "Hello  world", "The river's 2 mills,\tand 1234567 sacks\n\n\n of flour ", "\r\n\r\n", " \n \n", "I'LL we'll They'RE it's",
    "x=1;y=22;z=333", "   indented\n\t\ttabs  \t mixed   ", "😀👩‍👩‍👧🇩🇪é", "東京の朝は早い。 北京 下雨了。 서울의 밤.", "Привет, мир! Καλημέρα שלום مرحبا",
    "½ Ⅷ ٣٤ ²³ 一二三", "a\u00a0b\u2003c\u3000d", "！？，。：；～‘quoted’", "def add(a, b):\n    return a + b\n\n\tprint(add(1, 22))\n", "ﬁ ﬀ Ａｂ ᏣᎳᎩ",
]


def sequence(patterns, digits):
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
    steps += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


PRE = {
    "deepseek-llm": sequence([r"[\r\n]", LETTERS, PUNCTUATION, r"\s+$", HAN], True),
    "deepseek-coder": sequence([r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", HAN], True),
    "seed-coder": sequence([SEED], False),
}
model = json.loads((HERE / "text_byte_level_tokenizer.json").read_text())["model"]
cases = []
for name, pre_tokenizer in PRE.items():
    tok = Tokenizer(models.BPE(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]]))
    tok.pre_tokenizer = pre_tokenizer
    cases += [{"pre": name, "text": text, "ids": tok.encode(text).ids} for text in TEXTS]
(HERE / "pre_tokenizers.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n")
