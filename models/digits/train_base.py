"""Trains the base on upright digits: writes base/model.safetensors and base/config.json beside this file.

    python train_base.py

It sees the base part of digits.bin only, each time a little shifted, turned, scaled and noisy. The test part is
read after the last step; README.md says where it also guided choices. One thread and one seed; other versions of PyTorch, or another processor, may give other bits.
"""

import math
import sys
from pathlib import Path

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
import mlp
import prepare

DIRECTORY = Path(__file__).with_name("base")
WIDTHS = (64, 96, 64, 10)
SEED = 0
EPOCHS, BATCH, RATE, DECAY = 40, 32, 2e-3, 1e-2
# A pixel at the border is nearly always 0 in upright images, but not in turned ones: over its true deviation it would
# drown all others. 4 is a quarter of full ink.
STD_FLOOR = 4.0
SHIFT = 0.5  # pixels, either way, along each axis
TURN = math.radians(8)  # either way
SCALE = 0.1  # either way
NOISE = 0.7  # standard deviation; ink is 16
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def part(name, turned=False):
    """Pixels (n, 64) F32 in 0..=16 and labels (n,) I64 of a part of digits.bin."""
    images, labels = prepare.part(name)
    images = prepare.turned(images) if turned else images
    return torch.from_numpy(images.astype("float32")), torch.from_numpy(labels.astype("int64"))


def varied(images):
    """The images as they might have been seen another time."""
    n = len(images)
    either_way = lambda *shape: 2 * torch.rand(*shape) - 1
    angle, scale = TURN * either_way(n), 1 + SCALE * either_way(n)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    shift = SHIFT * 2 / 8 * either_way(n, 2)  # the grid runs from -1 to 1 over 8 pixels
    affine = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], 1).view(n, 2, 3)
    grid = functional.affine_grid(affine, (n, 1, 8, 8), align_corners=False)
    images = functional.grid_sample(images.view(n, 1, 8, 8), grid, align_corners=False).view(n, 64)
    return (images + NOISE * torch.randn_like(images)).clamp(0, 16)


def accuracy(net, normalise, images, labels):
    """In percent."""
    with torch.no_grad():
        return 100 * (net(normalise(images)).argmax(1) == labels).float().mean().item()


def main():
    mlp.deterministic(SEED)
    images, labels = part("base")
    mean, std = images.mean(0), images.std(0).clamp(min=STD_FLOOR)
    net = mlp.network(*WIDTHS)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for batch in torch.randperm(len(images)).split(BATCH):
            if len(batch) < BATCH:
                continue
            loss = functional.cross_entropy(net((varied(images[batch]) - mean) / std), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3}  loss {total / (len(images) // BATCH):.4f}")

    mlp.save(DIRECTORY, net, NAMES, mean, std)
    net, normalise = mlp.load(DIRECTORY)
    print(f"{'-'.join(map(str, WIDTHS))}, {sum(p.numel() for p in net.parameters())} parameters, torch {torch.__version__}")
    print(f"upright test images {accuracy(net, normalise, *part('test')):.2f} %")
    print(f"turned test images  {accuracy(net, normalise, *part('test', turned=True)):.2f} %")


if __name__ == "__main__":
    main()
