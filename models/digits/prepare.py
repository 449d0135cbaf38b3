"""Writes digits.bin: the UCI handwritten digits in three parts that share no image.

    python prepare.py            writes digits.bin beside this file
    python prepare.py --check    says whether digits.bin is what this script would write

The layout is in README.md. Readers for Python are here too: `part` and `turned`.
"""

import argparse
import hashlib
import struct
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("digits.bin")
MAGIC, VERSION = b"RKDG", 1
HEADER = struct.Struct("<4sHHHHHH")  # magic, version, bytes an image, base, device, test, zero
PIXELS = 64
RECORD = PIXELS + 1
PARTS = ("base", "device", "test")
PER_CLASS = {"base": 100, "device": 40}  # the test part takes what is left: 34 to 43 a class
SEED = 20_240_117


def build():
    """The bytes of digits.bin."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.data.astype(np.uint8), digits.target.astype(np.uint8)
    assert np.array_equal(images, digits.data) and images.max() == 16 and images.shape == (1797, PIXELS)

    # An image that occurs twice would have to stay in one part; there is none, and turning by 90 degrees makes none.
    assert len({image.tobytes() for image in images}) == len(images)
    assert not {image.tobytes() for image in turned(images)} & {image.tobytes() for image in images}

    rng = np.random.default_rng(SEED)
    chosen = {name: [] for name in PARTS}
    for label in range(10):
        of_class = rng.permutation(np.flatnonzero(labels == label))
        first, second = PER_CLASS["base"], PER_CLASS["base"] + PER_CLASS["device"]
        for name, indices in zip(PARTS, np.split(of_class, [first, second])):
            chosen[name].extend(indices)
    # Shuffled inside each part, so that training in file order meets the classes mixed.
    order = {name: rng.permutation(indices) for name, indices in chosen.items()}

    out = bytearray(HEADER.pack(MAGIC, VERSION, RECORD, *(len(order[name]) for name in PARTS), 0))
    for name in PARTS:
        for index in order[name]:
            out += images[index].tobytes() + bytes([labels[index]])
    return bytes(out)


def part(name, path=FILE):
    """The images, (n, 64) u8 in 0..=16, and the labels, (n,) u8, of the part called base, device or test."""
    data = Path(path).read_bytes()
    magic, version, record, *counts, zero = HEADER.unpack_from(data)
    assert (magic, version, record, zero) == (MAGIC, VERSION, RECORD, 0)
    assert len(data) == HEADER.size + RECORD * sum(counts)
    place = PARTS.index(name)
    start = HEADER.size + RECORD * sum(counts[:place])
    rows = np.frombuffer(data, np.uint8, RECORD * counts[place], start).reshape(-1, RECORD)
    return rows[:, :PIXELS], rows[:, PIXELS]


def turned(images):
    """As a camera on its side sees them: a quarter turn clockwise, turned[y, x] = image[7 - x, y]."""
    return np.rot90(images.reshape(-1, 8, 8), k=-1, axes=(1, 2)).reshape(-1, PIXELS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    arguments = parser.parse_args()
    data = build()
    if arguments.check:
        if FILE.read_bytes() != data:
            raise SystemExit("digits.bin differs from what this script writes")
    else:
        FILE.write_bytes(data)
    seen = {}
    for name in PARTS:
        images, labels = part(name)
        for image in images:
            other = seen.setdefault(image.tobytes(), name)
            assert other == name, f"an image is in {other} and in {name}"
        counts = " ".join(str(n) for n in np.bincount(labels, minlength=10))
        print(f"{name:7}{len(images):5} images, by class {counts}")
    print(f"{len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
