"""Makes style/: a little text of Jane Austen that no adapter here has learned from, for learning on a device.

    python style.py                # after adapters.py

| file | what it is |
|---|---|
| `train.u16` | tokens, little-endian u16: <s>, and the beginning of Persuasion as far as whole paragraphs go, at most 8192 in all |
| `heldout.u16` | the same from Persuasion's thirteenth chapter, at most 2048 |
| `train.txt`, `heldout.txt` | the texts, one paragraph a line |
"""

import numpy as np
from adapters import chapters
from prepare import HERE, TOKENIZER
from tokenizers import Tokenizer

STYLE = HERE / "style"
PARTS = {"train": (0, 8192), "heldout": (12, 2048)}  # first chapter, most tokens


def main():
    STYLE.mkdir(exist_ok=True)
    tokenizer, novel = Tokenizer.from_file(str(TOKENIZER)), chapters("style")
    for part, (first, most) in PARTS.items():
        text, ids = "", []
        for paragraph in "".join(novel[first:]).splitlines(keepends=True):
            longer = tokenizer.encode(text + paragraph).ids
            if len(longer) > most:
                break
            text, ids = text + paragraph, longer
        assert tokenizer.decode(ids) == text
        (STYLE / f"{part}.txt").write_text(text)
        np.array(ids, "<u2").tofile(STYLE / f"{part}.u16")
        print(f"{part:8} {len(ids):5} tokens  {len(text):6} letters")


if __name__ == "__main__":
    main()
