"""Trains a small transformer on upright digits, whose rows it reads as a sequence: writes base/ beside this file.

    python train.py

It sees the base part of ../digits/digits.bin only, each time a little shifted, turned, scaled and noisy, as the perceptron of
../digits does. One thread and one seed; other versions of PyTorch, or another processor, may give other bits.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1] / "digits"))
import train_base as digits

DIRECTORY = Path(__file__).with_name("base")
ROWS, PIXELS = 8, 8
WIDTH, HEADS, HIDDEN, LAYERS = 32, 4, 64, 2
SEED = 0
EPOCHS, BATCH, RATE, DECAY = 80, 32, 3e-3, 1e-2
INK = 16.0


class Rows(nn.Module):
    """A linear layer on every row, learned positions, an encoder, the mean of its outputs, a classifier."""

    def __init__(self):
        super().__init__()
        self.input = nn.Linear(PIXELS, WIDTH)
        self.positions = nn.Parameter(torch.randn(ROWS, WIDTH) * 0.1)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, HIDDEN, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.classifier = nn.Linear(WIDTH, 10)

    def forward(self, images):
        """Images (n, 64) in 0..=16 become logits (n, 10)."""
        x = self.input(images.view(-1, ROWS, PIXELS) / INK) + self.positions
        return self.classifier(self.encoder(x).mean(1))


def config():
    return {
        "model_type": "transformer_encoder",
        "d_model": WIDTH,
        "nhead": HEADS,
        "num_layers": LAYERS,
        "dim_feedforward": HIDDEN,
        "activation": "relu",
        "norm_first": True,
        "layer_norm_eps": 1e-05,
        "prefix": "encoder.",
        "input": "input",
        "positions": "positions",
        "final_norm": "encoder.norm",
        "pool": "mean",
        "classifier": "classifier",
        "head": "classification",
        "id2label": {str(i): name for i, name in enumerate(digits.NAMES)},
    }


def right(net, images, labels):
    """In percent."""
    with torch.no_grad():
        return 100 * (net(images).argmax(1) == labels).float().mean().item()


def main():
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    images, labels = digits.part("base")
    net = Rows()
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(images)).split(BATCH):
            if len(batch) < BATCH:
                continue
            loss = functional.cross_entropy(net(digits.varied(images[batch])), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3}  loss {total / (len(images) // BATCH):.4f}", flush=True)

    DIRECTORY.mkdir(exist_ok=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, DIRECTORY / "model.safetensors")
    (DIRECTORY / "config.json").write_text(json.dumps(config(), indent=2) + "\n")
    print(f"{sum(p.numel() for p in net.parameters())} parameters, torch {torch.__version__}")
    print(f"upright test images {right(net, *digits.part('test')):.2f} %")
    print(f"turned test images  {right(net, *digits.part('test', turned=True)):.2f} %")


if __name__ == "__main__":
    main()
