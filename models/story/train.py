"""Trains the base on the King James Bible: writes base/model.safetensors and base/config.json beside this file.

    nice -n 10 python train.py               # after prepare.py; stopped and started again, it goes on where it was
    python train.py --steps 20               # how fast is it here?

One thread and one seed: every step draws its texts from its own number, so that a stopped training goes on as if it had not
been. Other versions of PyTorch, or another processor, may give other bits. What is saved is f16, and that is the model: its
values are the reference, not those they were rounded from.
"""

import argparse
import math
import time

import numpy as np
import torch
from prepare import BEGIN, END, HERE, OUT, VOCAB
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

BASE = HERE / "base"
CHECKPOINT = OUT / "checkpoint.pt"
CONTEXT = 512
SEED = 20_261_125
STEPS, BATCH = 5000, 4096  # tokens
# Short texts cost half as much to learn from. From LONG_FROM on every third batch fills the context. That must begin while
# the rate is high: begun at step 3900, at an eighth of it, places never seen before cost 1 nat a token in the mean over
# the whole context, and 0.4 of it were still there 500 steps later.
SHORT, LONG_FROM = 256, 1649
RATE, WARMUP, DECAY, CLIP = 4e-3, 100, 0.05, 1.0
BETAS = (0.9, 0.98)
SAVE_EVERY = 120.0  # seconds


def config():
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=BEGIN,
        eos_token_id=END,
    )


def single_thread(seed):
    """Everything that PyTorch draws or adds, in one order."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)


class Windows:
    """Pieces of a text as the model reads them: <s>, then the tokens from the beginning of a line on."""

    def __init__(self, ids, newline, length=CONTEXT):
        self.ids = torch.from_numpy(ids.astype(np.int64))
        self.length = length
        starts = np.flatnonzero((ids[:-1] == newline) & (ids[1:] != END)) + 1
        self.starts = starts[starts + length < len(ids)]

    def batch(self, seed, step, size):
        """(size, length) tokens, and as many that follow each."""
        chosen = np.random.default_rng([seed, step]).choice(self.starts, size)
        rows = torch.stack([self.ids[start : start + self.length] for start in chosen])
        return functional.pad(rows[:, :-1], (1, 0), value=BEGIN), rows


def rate(step, steps=STEPS, peak=RATE, warmup=WARMUP):
    """Of step 0 and on: linear up, then half a cosine down to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def optimizer_of(model):
    """AdamW; gains are not decayed."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": DECAY},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=RATE, betas=BETAS)


def loss_of(model, tokens, targets):
    logits = model(input_ids=tokens, use_cache=False).logits
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def newline_token():
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(BASE / "tokenizer.json")).token_to_id("Ċ")


def tidy(directory):
    """Files that others may read, texts that end with a line's end."""
    for file in directory.iterdir():
        file.chmod(0o644)
        if file.suffix == ".json":
            file.write_text(file.read_text().rstrip() + "\n")


def save(model):
    """The model in f16, under the names of transformers."""
    model.half().save_pretrained(BASE)
    GenerationConfig(bos_token_id=BEGIN, eos_token_id=END).save_pretrained(BASE)
    tidy(BASE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=STEPS, help="stop here, and save no model if it is too early")
    arguments = parser.parse_args()
    single_thread(SEED)
    model = LlamaForCausalLM(config())
    optimizer = optimizer_of(model)
    first = 0
    if CHECKPOINT.exists():
        state = torch.load(CHECKPOINT)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    ids, newline = np.load(OUT / "train.npy"), newline_token()
    short, long = Windows(ids, newline, SHORT), Windows(ids, newline)
    print(f"{model.num_parameters()} parameters, {len(ids)} tokens, from step {first}", flush=True)

    def keep(step):
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
        torch.save(state, CHECKPOINT.with_suffix(".new"))
        CHECKPOINT.with_suffix(".new").replace(CHECKPOINT)

    begun = saved = time.monotonic()
    total, count = 0.0, 0
    for step in range(first, arguments.steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        windows = long if step >= LONG_FROM and step % 3 == 0 else short
        loss = loss_of(model, *windows.batch(SEED, step, BATCH // windows.length))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        total, count = total + loss.item(), count + 1
        now = time.monotonic()
        if (step + 1) % 50 == 0 or step + 1 == arguments.steps:
            print(f"step {step + 1:5}  loss {total / count:.4f}  {(now - begun) / (step + 1 - first):.3f} s a step", flush=True)
            total, count = 0.0, 0
        if now - saved > SAVE_EVERY:
            keep(step + 1)
            saved = now
    keep(max(first, arguments.steps))
    if arguments.steps == STEPS:
        save(model)


if __name__ == "__main__":
    main()
