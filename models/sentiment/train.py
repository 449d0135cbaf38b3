"""Trains the base of the sentiment experiment: a small T5ForSequenceClassification on the sentences on food.

    python texts.py; python train.py

Writes base/model.safetensors and base/config.json beside this file, and tells how it judges food and tools. One thread and one seed;
other versions, or another processor, may give other bits.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from texts import HERE, read, tokenizer
from torch.nn import functional

SEED = 0
EPOCHS, BATCH, RATE = 40, 32, 3e-3


def batch(texts):
    """Token numbers and mask, padded on the right."""
    ids = [torch.tensor(e.ids) for e in tokenizer().encode_batch(texts)]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True)
    return {"input_ids": padded, "attention_mask": (padded != 0).long()}


def right(net, name):
    labels, texts = read(name)
    with torch.no_grad():
        found = net(**batch(texts)).logits.argmax(1)
    return 100 * (found == torch.tensor(labels)).float().mean().item()


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED)
    config = transformers.T5Config(
        vocab_size=tokenizer().get_vocab_size(),
        d_model=32,
        d_kv=8,
        num_heads=4,
        d_ff=64,
        num_layers=2,
        num_decoder_layers=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        feed_forward_proj="relu",
        dropout_rate=0.0,
        classifier_dropout=0.0,
        initializer_factor=1.0,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
    )
    net = transformers.T5ForSequenceClassification(config)
    labels, texts = read("food.tsv")
    labels = torch.tensor(labels)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-2)
    steps = EPOCHS * (len(texts) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    net.train()
    for epoch in range(EPOCHS):
        total, count = 0.0, 0
        for rows in torch.randperm(len(texts)).split(BATCH):
            if len(rows) < BATCH:
                continue
            out = net(**batch([texts[row] for row in rows.tolist()])).logits
            loss = functional.cross_entropy(out, labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total, count = total + loss.item(), count + 1
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3}  loss {total / count:.4f}", flush=True)
    net.eval()
    net.save_pretrained(HERE / "base", safe_serialization=True)
    print(f"{sum(p.numel() for p in net.parameters())} parameters, torch {torch.__version__}")
    for name in ("food.tsv", "tools.tsv", "tools_heldout.tsv"):
        print(f"{name}: {right(net, name):.1f} % right")


if __name__ == "__main__":
    main()
