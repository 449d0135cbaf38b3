"""Writes the texts and the tokenizer of the sentiment experiment beside this file; texts and words are made for this project.

    python texts.py

| file | what it is |
|---|---|
| `food.tsv` | 600 sentences on food, a label (0 bad, 1 good), a tab and the text a line: the base learns from them |
| `tools.tsv`, `tools_heldout.tsv` | 160 and 200 sentences on tools: a device learns from the former |
| `base/tokenizer.json` | a word each token; unknown words are `<unk>`, a text ends with `</s>` |

Nearly all words that judge differ between food and tools; "not", "very" and the rest are the same. Held-out sentences occur nowhere else.
"""

import random
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent
SEED = 20261125
THINGS = {
    "food": "soup bread salad cake coffee fish rice sauce cheese pie tea stew pasta fruit pizza".split(),
    "tools": "drill hammer saw ladder lamp pump pliers wrench glue rope tape knife brush vice torch".split(),
}
GOOD = {
    "food": "delicious fresh tasty crisp juicy warm tender sweet fragrant lovely".split(),
    "tools": "sturdy sharp precise quiet handy light reliable solid bright strong".split(),
}
BAD = {
    "food": "stale bland burnt cold soggy sour greasy bitter raw awful".split(),
    "tools": "flimsy blunt crooked noisy clumsy heavy faulty wobbly dim weak".split(),
}
# {t}: a thing, {a}: a word that judges.
FRAMES = [
    "the {t} is {a}",
    "the {t} was very {a}",
    "i find the {t} {a}",
    "this {t} is really {a}",
    "my friend calls the {t} {a}",
    "we bought a {t} and it is {a}",
    "the {t} turned out {a}",
    "after a week the {t} is still {a}",
]
NEGATED = ["the {t} is not {a}", "i do not find the {t} {a}", "nobody calls this {t} {a}", "the {t} was never {a}"]
COUNTS = {"food": (600, 0), "tools": (160, 200)}


def sentences(domain, count, random):
    """So many different ones, half of them good; a fifth is negated."""
    made, of = set(), [[], []]
    while min(map(len, of)) < count // 2:
        label, negated = random.randrange(2), random.random() < 0.2
        words = GOOD if label != negated else BAD
        text = random.choice(NEGATED if negated else FRAMES).format(
            t=random.choice(THINGS[domain]), a=random.choice(words[domain])
        )
        if text not in made and len(of[label]) < count // 2:
            made.add(text)
            of[label].append((label, text))
    both = of[0] + of[1]
    random.shuffle(both)
    return both


def tokenizer():
    frames = " ".join(FRAMES + NEGATED).replace("{t}", "").replace("{a}", "").split()
    domains = [THINGS, GOOD, BAD]
    words = sorted({*frames, *(word for table in domains for domain in table for word in table[domain])})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return made


def read(name):
    """(labels, texts) of a file."""
    lines = [line.split("\t") for line in (HERE / name).read_text().splitlines()]
    return [int(label) for label, _ in lines], [text for _, text in lines]


def main():
    draw = random.Random(SEED)
    for domain, (count, held_out) in COUNTS.items():
        all_of = sentences(domain, count + held_out, draw)
        parts = {f"{domain}.tsv": all_of[:count]} | ({f"{domain}_heldout.tsv": all_of[count:]} if held_out else {})
        for name, part in parts.items():
            (HERE / name).write_text("".join(f"{label}\t{text}\n" for label, text in part))
            print(f"{name}: {len(part)} sentences, {sum(label for label, _ in part)} good")
    (HERE / "base").mkdir(exist_ok=True)
    tokenizer().save(str(HERE / "base/tokenizer.json"))
    print(f"{tokenizer().get_vocab_size()} words")


if __name__ == "__main__":
    main()
