"""What the base on disk is worth, in f32 from its f16 values, on texts that it has not learned from.

    python evaluate.py             # after train.py: prints losses; --write makes heldout.safetensors too

| tensor of `heldout.safetensors` | meaning |
|---|---|
| `tokens` | I32 (n): sequences of up to 512 tokens, one after the other; each is <s> and the beginning of a held-out chapter |
| `boundaries` | I32 (sequences + 1): sequence i is tokens[boundaries[i] .. boundaries[i + 1]] |
| `loss` | F32 (sequences): cross-entropy in nats, the mean over all tokens of the sequence but the first, which nothing predicts |
| `mean_loss` | F32 (1): the mean over all predicted tokens of all sequences |
"""

import argparse
import sys

import numpy as np
import torch
from prepare import BEGIN, END, HERE, OUT
from torch.nn import functional
from train import BASE, CONTEXT, SEED, single_thread
from transformers import LlamaForCausalLM

sys.path.append(str(HERE.parent))
import mlp

HELDOUT = HERE / "heldout.safetensors"
SEQUENCES = 16
PARTS = ("heldout", "psalm_heldout", "austen_heldout")


def load(directory=BASE):
    """The model in f32: exactly the values of the f16 file."""
    model, report = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def texts(ids):
    """The texts of a part, each from <s> to </s>."""
    ends = np.flatnonzero(ids == END) + 1
    found = np.split(ids, ends[:-1])
    assert all(text[0] == BEGIN and text[-1] == END for text in found)
    return [torch.from_numpy(text.astype(np.int64)) for text in found]


def pieces(ids):
    """All of a part as the model reads it: behind <s>, up to CONTEXT tokens at once."""
    found = []
    for text in texts(ids):
        for piece in text[1:].split(CONTEXT - 1):
            found.append(functional.pad(piece, (1, 0), value=BEGIN))
    return found


@torch.no_grad()
def loss(model, row):
    """(predicted tokens): the cross-entropy of each, in nats."""
    logits = model(input_ids=row[None]).logits[0, :-1]
    return functional.cross_entropy(logits, row[1:], reduction="none").double()


def mean_loss(model, rows):
    return torch.cat([loss(model, row) for row in rows]).mean().item()


def heldout(model):
    """The tensors of heldout.safetensors."""
    chapters = texts(np.load(OUT / "heldout.npy"))
    rows = [chapters[i * len(chapters) // SEQUENCES][:CONTEXT] for i in range(SEQUENCES)]
    losses = [loss(model, row) for row in rows]
    return {
        "tokens": torch.cat(rows).int(),
        "boundaries": torch.tensor([0] + [len(row) for row in rows]).cumsum(0).int(),
        "loss": torch.stack([each.mean() for each in losses]).float(),
        "mean_loss": torch.cat(losses).mean()[None].float(),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write heldout.safetensors")
    arguments = parser.parse_args()
    single_thread(SEED)
    model = load()
    for part in PARTS:
        if (OUT / f"{part}.npy").exists():
            ids = np.load(OUT / f"{part}.npy")
            letters = len((OUT / f"{part}.txt").read_text())
            nats = mean_loss(model, pieces(ids)) * len(ids)
            print(f"{part:14} {nats / len(ids):.4f} nats a token  {nats / letters / np.log(2):.3f} bits a letter")
    tensors = heldout(model)
    print(f"heldout.safetensors: {len(tensors['tokens'])} tokens, mean loss {tensors['mean_loss'].item():.6f}")
    if arguments.write:
        mlp.write(HELDOUT, tensors)


if __name__ == "__main__":
    main()
