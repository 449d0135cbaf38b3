"""How well an adapter learns turned digits in f32, and which hyper-parameters do.

    python experiment.py            the table in README.md; a minute or two

First, learning rate and epochs are compared inside the device part: four folds of 100 images, each held out once while
an adapter learns from the other 300. Then the chosen pair is measured on the test part. README.md says what had been
seen of the test part before the choice. Sampling, loss, schedule and the distribution of the initial values are meant
to be those of the firmware's demo; the random numbers are not.
"""

import math
import sys
from pathlib import Path

import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parents[1]))
import mlp
from train_base import DIRECTORY, part

ACCUMULATE = 8
SEEDS = range(5)
RATES, EPOCHS = (2e-3, 5e-3, 1e-2, 1.5e-2, 2e-2), (6, 12, 20)
CHOSEN = (1e-2, 12)


class Adapted:
    """The frozen base with A and B on every linear layer: y = W x + b + s B (A x)."""

    def __init__(self, rank, alpha, seed):
        net, self.normalise = mlp.load(DIRECTORY)
        self.frozen = [(layer.weight.detach(), layer.bias.detach()) for _, layer in mlp.linears(net)]
        self.scaling = alpha / rank
        random = torch.Generator().manual_seed(seed)
        self.a, self.b = [], []
        for weight, _ in self.frozen:
            outputs, inputs = weight.shape
            a = torch.empty(rank, inputs)
            torch.nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=random)
            self.a.append(a.requires_grad_())
            self.b.append(torch.zeros(outputs, rank, requires_grad=True))
        self.random = random

    def logits(self, pixels):
        x = self.normalise(pixels)
        for place, ((weight, bias), a, b) in enumerate(zip(self.frozen, self.a, self.b)):
            if place:
                x = functional.relu(x)
            x = functional.linear(x, weight, bias) + self.scaling * (x @ a.T) @ b.T
        return x

    def accuracy(self, images, labels):
        with torch.no_grad():
            return 100 * (self.logits(images).argmax(1) == labels).float().mean().item()

    def learn(self, images, labels, rate, epochs):
        optimizer = torch.optim.AdamW(self.a + self.b, lr=rate, weight_decay=0.0)
        steps = epochs * math.ceil(len(images) / ACCUMULATE)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for _ in range(epochs):
            for batch in torch.randperm(len(images), generator=self.random).split(ACCUMULATE):
                optimizer.zero_grad()
                functional.cross_entropy(self.logits(images[batch]), labels[batch]).backward()
                optimizer.step()
                schedule.step()
        return steps


def held_out(images, labels, rate, epochs, folds=4):
    """Mean accuracy on the images that the adapter did not learn from."""
    place = torch.arange(len(images)) % folds
    found = []
    for fold in range(folds):
        adapted = Adapted(rank=8, alpha=16, seed=100 + fold)
        adapted.learn(images[place != fold], labels[place != fold], rate, epochs)
        found.append(adapted.accuracy(images[place == fold], labels[place == fold]))
    return sum(found) / folds


def main():
    mlp.deterministic(0)
    device, test = part("device", turned=True), part("test", turned=True)

    print("held-out accuracy inside the device part, r = 8, learning from 300 images\n")
    print("| learning rate | " + " | ".join(f"{epochs} epochs" for epochs in EPOCHS) + " |")
    print("|---|" + "---|" * len(EPOCHS))
    for rate in RATES:
        print(f"| {rate} | " + " | ".join(f"{held_out(*device, rate, epochs):.1f}" for epochs in EPOCHS) + " |", flush=True)

    rate, epochs = CHOSEN
    print(f"\ntest part, turned, learning from 400 images: learning rate {rate}, {epochs} epochs, seeds 0 to 4\n")
    print("| r | alpha | parameters | steps | mean % | worst % | best % |\n|---|---|---|---|---|---|---|")
    for rank, alpha in ((4, 8), (4, 16), (8, 16), (16, 16), (16, 32)):
        found = []
        for seed in SEEDS:
            adapted = Adapted(rank, alpha, seed)
            steps = adapted.learn(*device, rate, epochs)
            found.append(adapted.accuracy(*test))
        count = sum(t.numel() for t in adapted.a + adapted.b)
        mean = sum(found) / len(found)
        print(f"| {rank} | {alpha} | {count} | {steps} | {mean:.1f} | {min(found):.1f} | {max(found):.1f} |", flush=True)


if __name__ == "__main__":
    main()
