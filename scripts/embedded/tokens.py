"""The embedded model's tokenizer: byte-level BPE, GPT-2's split, trained on the language itself; and its chat template."""

from itertools import islice

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

import language

CONTROL = ["<|end|>", "<|user|>", "<|model|>"]
EOS, USER, MODEL = range(3)
VOCAB = 768
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<|model|>{{ message['content'] }}<|end|>"
    "{% else %}{{ raise_exception('only user and assistant messages are known to this model') }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|model|>{% endif %}"
)


def corpus(count: int = 20000):
    """Text to learn merges from: base tasks, and the new tasks' few words so that they are not spelt out."""
    for _, prompt, completion in islice(language.mixture("tokenizer", "first"), count):
        yield prompt + completion
    kel = language.dictionary("Kel", language.invented_words("kel0"))
    new = {"swap": language.swap3, "turn": language.turn, "twice": language.twice, "ends": language.ends, "kel": kel}
    for name, task in new.items():
        for row in language.rows(task, 40, f"tokenizer/{name}"):
            yield row["prompt"] + row["completion"]


def train_tokenizer() -> Tokenizer:
    """The same tokenizer on every machine: the corpus is fixed by its key."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=[AddedToken(t, special=True, normalized=False) for t in CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def encode_row(tokenizer: Tokenizer, prompt: str, completion: str, chat: bool = False) -> tuple[list[int], list[int]]:
    """(prompt tokens, completion tokens with eos); the chat form is what the template renders."""
    first, second = tokenizer.encode(prompt).ids, tokenizer.encode(completion).ids
    return ([USER, *first, MODEL] if chat else first), [*second, EOS]
