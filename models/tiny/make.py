"""Makes a net that is never trained, 16 -> 12 -> 5 with ReLU, from a seed.

    python make.py        writes base/ beside this file

It is small enough for training on a microcontroller with 16 KB of RAM, where the digest of outputs, gradients, and
A and B after hundreds of steps must be the one of every other machine.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import mlp

WIDTHS = (16, 12, 5)
SEED = 7


def main():
    mlp.deterministic(SEED)
    net = mlp.network(*WIDTHS)
    mlp.save(Path(__file__).with_name("base"), net)
    print(f"{'-'.join(map(str, WIDTHS))}, {sum(p.numel() for p in net.parameters())} parameters")


if __name__ == "__main__":
    main()
