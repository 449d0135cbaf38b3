"""Makes the texts of Jane Austen's novels: out/story/<part>.txt, one paragraph a line, an empty line between chapters.

    apt-get install r-cran-janeaustenr             # or: apt-get download, dpkg -x r-cran-janeaustenr_*.deb DIR
    pip install rdata==1.1.0                       # reads R's data without R
    python austen.py [--root DIR]

Austen died in 1817; the novels are in the public domain. The package holds them as Project Gutenberg typed them, in lines of 70
letters. Here a paragraph becomes one line, without the underscores of italics; headings, title pages, and the few paragraphs
with notes or letters beyond ASCII are left out.

| part | novels | what for |
|---|---|---|
| `austen` | Emma, Mansfield Park, Pride and Prejudice, Sense and Sensibility | the adapter `austen` |
| `austen_heldout` | Northanger Abbey | its loss |
| `style` | Persuasion | what a device learns from, later: `style.py` |
"""

import argparse
import re
import warnings
import zlib
from pathlib import Path

import rdata

OUT = Path(__file__).resolve().parents[2] / "out" / "story"
DATA = "usr/lib/R/site-library/janeaustenr/data"
PARTS = {
    "austen": ("emma", "mansfieldpark", "prideprejudice", "sensesensibility"),
    "austen_heldout": ("northangerabbey",),
    "style": ("persuasion",),
}
CHAPTERS = {
    "emma": 55,
    "mansfieldpark": 48,
    "northangerabbey": 31,
    "persuasion": 24,
    "prideprejudice": 61,
    "sensesensibility": 50,
}
CHAPTER = re.compile(r"chapter (\d+|[ivxl]+)\.?", re.IGNORECASE)
VOLUME = re.compile(r"volume (\d+|[ivxl]+)", re.IGNORECASE)
LAST = re.compile(r"the end|finis|a note on the text", re.IGNORECASE)


def novels(root):
    """{novel: its lines}, out of R's lazy-load database: a big-endian length and a zlib stream for each variable."""
    place = Path(root) / DATA
    index = rdata.read_rds(place / "Rdata.rdx")["variables"]
    data = (place / "Rdata.rdb").read_bytes()
    found = {}
    for name, (start, length) in index.items():
        raw = zlib.decompress(data[start + 4 : start + length])
        assert len(raw) == int.from_bytes(data[start : start + 4], "big")
        found[str(name)] = [str(line) for line in rdata.conversion.convert(rdata.parser.parse_data(raw))]
    return found


def chapters(lines):
    """A novel's chapters, each a list of paragraphs."""
    found = []
    for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
        paragraph = " ".join(paragraph.replace("_", "").split())
        if CHAPTER.fullmatch(paragraph):
            found.append([])
        elif LAST.fullmatch(paragraph):
            break
        elif found and paragraph and paragraph.isascii() and not re.search(r"[*\[]", paragraph):
            if not VOLUME.fullmatch(paragraph):
                found[-1].append(paragraph)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="/", help="where the package's files are unpacked")
    found = novels(parser.parse_args().root)
    OUT.mkdir(parents=True, exist_ok=True)
    for part, names in PARTS.items():
        texts = []
        for name in names:
            of = chapters(found[name])
            assert len(of) == CHAPTERS[name], (name, len(of))
            texts += ["\n".join(paragraphs) + "\n" for paragraphs in of]
        (OUT / f"{part}.txt").write_text("\n".join(texts))
        print(f"{part:14} {len(texts):4} chapters  {sum(map(len, texts)):8} letters")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
