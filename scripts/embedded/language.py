"""The synthetic language: little stories, word lists, a dictionary and notes, in plain English words.

A row is a prompt and a completion. BASE tasks are what the embedded model is pretrained on; NEW tasks are for fine-tuning: the
base model has the skills they are made of, but has never seen their instruction.

| task | kind | what it is for |
|---|---|---|
| now | base | people hold coloured things; an event may change what; say who holds what |
| tell, ask | base | say it in another order, answer a question: both need to look up a name, not a place in the text |
| list | base | Copy, Backwards, First, Last, Animals, Fruits over a list of words |
| kind | base | is a word an animal or a fruit |
| zan | base | a dictionary of 48 invented words, learnt by heart |
| note | base | a note for somebody, read back after other sentences |
| swap | new | two people swap what they hold (the demo) |
| swap3 | new | two people of two or three swap: who, has to be looked up |
| turn, twice, ends | new | list instructions that are easy to tell apart (several tasks in one adapter) |
| kel | new | the words of Zan dealt out anew: a random mapping, which needs rank |
| far | new | a note far back in text longer than the model has seen (long context) |
"""

import random

NAMES = "Anna Ben Clara David Emma Felix Greta Henry Jack Kate Leo Mia Noah Paul Rosa Tom".split()
COLOURS = "red blue green black white brown pink gray".split()
THINGS = "hat cup bag ball book lamp drum kite boat coin ring doll bell scarf key rope".split()
ANIMALS = ("cat dog cow pig hen fox owl bee ant bear wolf lion frog duck goat deer mouse horse sheep tiger snake whale crow "
           "swan").split()
FRUITS = ("apple plum pear fig lime kiwi peach grape lemon mango melon cherry berry date olive banana papaya quince orange "
          "guava lychee currant apricot coconut").split()
ALONE = "sings sleeps waits laughs".split()
TOGETHER = "dance talk play rest".split()
FILLER = [
    "The sun is warm.", "Birds sing in the garden.", "The river is slow.", "A dog sleeps at the door.", "It rains a little.",
    "The bread is fresh.", "Children play in the street.", "The wind is cold.", "A boat waits at the river.",
    "The old clock is slow.", "Snow falls on the hill.", "The road is long.", "A lamp burns in the house.", "The tea is hot.",
]
ONSETS, VOWELS = "b d f g k l m n p r s t v z".split(), "a e i o u".split()


def invented_words(key: str) -> dict[str, str]:
    """A dictionary from every animal and fruit to an invented word of two syllables, fixed by `key`."""
    rng = random.Random(key)
    syllables = [c + v for c in ONSETS for v in VOWELS]
    words = [a + b for a in syllables for b in syllables if a != b]
    return dict(zip(ANIMALS + FRUITS, rng.sample(words, len(ANIMALS + FRUITS)), strict=True))


ZAN = invented_words("zan")


def holdings(people: list[tuple[str, str, str]]) -> str:
    """One sentence for each (name, colour, thing)."""
    return " ".join(f"{name} has a {colour} {thing}." for name, colour, thing in people)


def people(rng: random.Random, n: int | None = None) -> list[tuple[str, str, str]]:
    """Two or three people (or `n`) with different things of different colours."""
    n = n or rng.choice([2, 3])
    return list(zip(rng.sample(NAMES, n), rng.sample(COLOURS, n), rng.sample(THINGS, n), strict=True))


def event(rng: random.Random, held: list) -> tuple[str, list]:
    """A sentence, and what people hold after it."""
    after = list(held)
    i, j = rng.sample(range(len(held)), 2)
    (who, _, thing), (other, colour, same) = held[i], held[j]
    kind = rng.choice(["alone", "together", "paint", "find", "same", "same"])
    if kind == "alone":
        return f"{who} {rng.choice(ALONE)}.", after
    if kind == "together":
        return f"{who} and {other} {rng.choice(TOGETHER)}.", after
    if kind == "paint":
        new = rng.choice([c for c in COLOURS if c not in {h[1] for h in held}])
        after[i] = (who, new, thing)
        return f"{who} paints the {thing} {new}.", after
    if kind == "find":
        new = (rng.choice(COLOURS), rng.choice([t for t in THINGS if t not in {h[2] for h in held}]))
        after[i] = (who, *new)
        return f"{who} finds a {new[0]} {new[1]}.", after
    after[i] = (who, colour, same)
    return f"{who} buys the same as {other}.", after


def now(rng):
    held = people(rng)
    text, after = event(rng, held)
    return f"{holdings(held)} {text} Now", f" {holdings(after)}"


def tell(rng):
    held = people(rng)
    order = rng.sample(held, len(held))
    return f"{holdings(held)} Tell of {', '.join(h[0] for h in order)}.", f" {holdings(order)}"


def ask(rng):
    held = people(rng)
    name, colour, thing = rng.choice(held)
    question, answer = rng.choice([
        (f"Who has the {thing}?", name), (f"What does {name} have?", f"a {colour} {thing}"), (f"What is {colour}?", f"the {thing}"),
    ])
    return f"{holdings(held)} {question}", f" {answer}."


def word_list(rng, instruction, change, low=3, high=6):
    words = rng.sample(ANIMALS + FRUITS, rng.randint(low, high))
    return f"{instruction}: {' '.join(words)} =", f" {' '.join(change(words))}."


def fruits_and_animals(rng, instruction, wanted):
    words = rng.sample(ANIMALS, rng.randint(1, 3)) + rng.sample(FRUITS, rng.randint(1, 3))
    rng.shuffle(words)
    return f"{instruction}: {' '.join(words)} =", f" {' '.join(w for w in words if w in wanted)}."


LIST_SKILLS = {
    "Copy": lambda w: w, "Backwards": lambda w: w[::-1], "First": lambda w: w[:1], "Last": lambda w: w[-1:],
}


def lists(rng):
    instruction = rng.choice([*LIST_SKILLS, "Animals", "Fruits"])
    if instruction in LIST_SKILLS:
        return word_list(rng, instruction, LIST_SKILLS[instruction])
    return fruits_and_animals(rng, instruction, ANIMALS if instruction == "Animals" else FRUITS)


def kind(rng):
    word = rng.choice(ANIMALS + FRUITS)
    options = rng.sample(["an animal", "a fruit"], 2)
    return f"Is {word} {options[0]} or {options[1]}?", " an animal." if word in ANIMALS else " a fruit."


def dictionary(language: str, words: dict[str, str]):
    """The task of knowing a dictionary by heart."""

    def row(rng):
        word = rng.choice(list(words))
        return f"In {language}, {word} is", f" {words[word]}."

    return row


zan = dictionary("Zan", ZAN)


def note_text(rng, sentences: int, notes: int) -> tuple[str, str]:
    """`notes` notes somewhere among filler sentences, and a question about one of them."""
    names, words = rng.sample(NAMES, notes), rng.sample(ANIMALS + FRUITS, notes)
    lines = [rng.choice(FILLER) for _ in range(sentences)]
    for name, word in zip(names, words, strict=True):
        lines.insert(rng.randint(0, len(lines)), f"The note for {name} says {word}.")
    asked = rng.randrange(notes)
    return f"{' '.join(lines)} What does the note for {names[asked]} say?", f" {words[asked]}."


def note(rng):
    return note_text(rng, rng.randint(0, 12), rng.randint(1, 3))


def swap(rng):
    held = people(rng, 2)
    (one, *mine), (other, *theirs) = held
    first, second = rng.sample([one, other], 2)
    return f"{holdings(held)} {first} and {second} swap. Now", f" {holdings([(one, *theirs), (other, *mine)])}"


def swap3(rng):
    held = people(rng)
    i, j = sorted(rng.sample(range(len(held)), 2))
    after = list(held)
    after[i], after[j] = (held[i][0], *held[j][1:]), (held[j][0], *held[i][1:])
    first, second = rng.sample([held[i][0], held[j][0]], 2)
    return f"{holdings(held)} {first} and {second} swap. Now", f" {holdings(after)}"


def turn(rng):
    return word_list(rng, "Turn", lambda w: w[1:] + w[:1])


def twice(rng):
    return word_list(rng, "Twice", lambda w: [x for x in w for _ in range(2)], 2, 4)


def ends(rng):
    return word_list(rng, "Ends", lambda w: [w[0], w[-1]])


def kel(seed: int):
    """The dictionary task of one random mapping: the words of Zan, dealt out anew."""
    words = list(ZAN.values())
    random.Random(f"kel{seed}").shuffle(words)
    return dictionary("Kel", dict(zip(ZAN, words, strict=True)))


def far(tokens: int):
    """One note in a text of roughly `tokens` tokens (a filler sentence is about six)."""
    return lambda rng: note_text(rng, max(1, tokens // 6 - 3), 1)


BASE = {"now": now, "tell": tell, "ask": ask, "list": lists, "kind": kind, "zan": zan, "note": note}
# Copying, ordering and words learnt by heart come first; then looking things up, which stays hard for so small a model.
STAGES = {
    "first": {"now": 0.40, "ask": 0.14, "list": 0.20, "kind": 0.03, "zan": 0.08, "note": 0.15},
    "second": {"now": 0.26, "tell": 0.28, "ask": 0.16, "list": 0.10, "kind": 0.02, "zan": 0.05, "note": 0.13},
}
NEW = {"swap": swap, "swap3": swap3, "turn": turn, "twice": twice, "ends": ends}


def rows(task, count: int, key: str, avoid: set[str] = frozenset()) -> list[dict]:
    """`count` rows of one task, with different prompts that are not in `avoid`, fixed by `key`."""
    rng, seen, out = random.Random(key), set(avoid), []
    for _ in range(200 * count):
        prompt, completion = task(rng)
        if prompt not in seen:
            seen.add(prompt)
            out.append({"prompt": prompt, "completion": completion})
            if len(out) == count:
                return out
    raise SystemExit(f"only {len(out)} different rows exist where {count} were asked for")


def mixture(key: str, stage: str):
    """An endless stream of (task, prompt, completion) of the BASE tasks in the shares of a stage."""
    rng = random.Random(key)
    names, shares = list(STAGES[stage]), list(STAGES[stage].values())
    while True:
        task = rng.choices(names, shares)[0]
        yield (task, *BASE[task](rng))
