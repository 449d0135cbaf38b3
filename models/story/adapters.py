"""Trains the two adapters with PEFT: adapters/austen and adapters/psalm beside this file.

    nice -n 10 python adapters.py              # after train.py, and after austen.py: its texts become tokens here

`austen` reads four of Jane Austen's novels, `psalm` the Psalms and Proverbs, which the base has not read. r = 4 on q_proj and
v_proj. Each starts from its own seed, on one thread.
"""

import shutil

import numpy as np
import torch
from evaluate import load, mean_loss, pieces
from peft import LoraConfig, get_peft_model
from prepare import HERE, OUT, TOKENIZER, encode
from tokenizers import Tokenizer
from train import Windows, loss_of, newline_token, rate, single_thread, tidy

ADAPTERS = HERE / "adapters"
SEEDS = {"austen": 1, "psalm": 2}
RANK, ALPHA, TARGETS = 4, 8, ["q_proj", "v_proj"]
STEPS, BATCH, LENGTH = 400, 8, 256
RATE, WARMUP = 5e-3, 20
MEASURED = 48  # pieces of held-out text, at most
AUSTEN = ("austen", "austen_heldout", "style")


def chapters(part):
    """The texts that austen.py wrote."""
    return [text + "\n" for text in (OUT / f"{part}.txt").read_text().removesuffix("\n").split("\n\n")]


def tokens_of_austen():
    """As prepare.py does with the Bible."""
    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    for part in AUSTEN:
        ids = encode(tokenizer, chapters(part))
        np.save(OUT / f"{part}.npy", ids)
        print(f"{part:14} {len(ids):8} tokens")


def save(model, directory):
    """A PEFT directory, without a model card; its base by its place in this project, not by that on this machine."""
    shutil.rmtree(directory, ignore_errors=True)
    model.peft_config["default"].base_model_name_or_path = "models/story/base"
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    tidy(directory)


def train(name):
    seed = SEEDS[name]
    single_thread(seed)
    base = load()
    heldout = pieces(np.load(OUT / f"{name}_heldout.npy"))[:MEASURED]
    before = mean_loss(base, heldout)
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=TARGETS, task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=RATE, weight_decay=0.0)
    windows = Windows(np.load(OUT / f"{name}.npy"), newline_token(), LENGTH)
    total = 0.0
    model.train()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, STEPS, RATE, WARMUP)
        loss = loss_of(model, *windows.batch(seed, step, BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if (step + 1) % 50 == 0:
            print(f"{name} step {step + 1:4}  loss {total / 50:.4f}", flush=True)
            total = 0.0
    model.eval()
    after = mean_loss(model, heldout)
    print(f"{name}: held-out loss {before:.4f} without it, {after:.4f} with it", flush=True)
    save(model, ADAPTERS / name)


def main():
    tokens_of_austen()
    for name in SEEDS:
        train(name)


if __name__ == "__main__":
    main()
