"""Makes the texts and the tokenizer of `story`: base/tokenizer.json, and the texts as tokens under out/story.

    apt-get install bible-kjv bible-kjv-text       # the King James Bible and the program `bible` that prints it
    python prepare.py

`bible -f gen1:1-rev22:21` prints one verse a line, "Ge1:1 In the beginning …". A verse becomes a line of its own without
its number, a chapter a text of its own; nothing else is changed. The package's text is in the public domain outside the
United Kingdom's royal prerogative: it was published in 1611. Four parts, by chapters:

| part | chapters | what for |
|---|---|---|
| `train` | the rest, 968 | the base and the tokenizer |
| `heldout` | every 25th of those outside Psalms and Proverbs, 40 | the base's loss; nothing learns from it |
| `psalm` | Psalms and Proverbs, the rest, 163 | the adapter `psalm`: the base never reads these books |
| `psalm_heldout` | every tenth of Psalms and Proverbs, 18 | its loss |
"""

import re
import subprocess
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).resolve().parent
OUT = HERE.parents[1] / "out" / "story"
TOKENIZER = HERE / "base" / "tokenizer.json"
VOCAB = 512
BEGIN, END = 0, 1  # <s>, </s>
VERSE = re.compile(r"(\d?[A-Za-z]+)(\d+):(\d+) (.*)")
SONGS = ("Psa", "Prv")


def chapters():
    """{(book, chapter): text}, in the Bible's order."""
    printed = subprocess.run(["bible", "-f", "gen1:1-rev22:21"], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in printed.splitlines():
        book, chapter, verse, text = VERSE.fullmatch(line).groups()
        assert int(verse) == len(found.setdefault((book, int(chapter)), [])) + 1, line
        found[book, int(chapter)].append(text.strip())
    assert (len(found), sum(map(len, found.values()))) == (1189, 31102)
    return {key: "\n".join(lines) + "\n" for key, lines in found.items()}


def parts():
    """The texts of the four parts."""
    songs = {True: [], False: []}
    for (book, _), text in chapters().items():
        songs[book in SONGS].append(text)
    every = lambda texts, n: ([t for i, t in enumerate(texts) if i % n != n // 2], texts[n // 2 :: n])
    train, heldout = every(songs[False], 25)
    psalm, psalm_heldout = every(songs[True], 10)
    return {"train": train, "heldout": heldout, "psalm": psalm, "psalm_heldout": psalm_heldout}


def byte_level_bpe(texts):
    """A byte-level BPE of VOCAB tokens: two special ones, every byte, and merges. A text begins with <s>."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, special=True) for token in ("<s>", "</s>")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BEGIN)]
    )
    assert tokenizer.get_vocab_size() == VOCAB
    assert (tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")) == (BEGIN, END)
    return tokenizer


def encode(tokenizer, texts):
    """Every text's tokens, from <s> to </s>, one after the other, as u16."""
    encoded = [tokenizer.encode(text).ids + [END] for text in texts]
    for text, ids in zip(texts, encoded):
        assert tokenizer.decode(ids) == text
    return np.concatenate([np.array(ids, np.uint16) for ids in encoded])


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    TOKENIZER.parent.mkdir(exist_ok=True)
    texts = parts()
    tokenizer = byte_level_bpe(texts["train"])
    tokenizer.save(str(TOKENIZER))
    for name, part in texts.items():
        (OUT / f"{name}.txt").write_text("\n".join(part))
        ids = encode(tokenizer, part)
        np.save(OUT / f"{name}.npy", ids)
        size = sum(len(text) for text in part)
        print(f"{name:14} {len(part):4} chapters  {size:8} letters  {len(ids):8} tokens  {size / len(ids):.2f} a token")


if __name__ == "__main__":
    main()
