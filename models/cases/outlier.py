"""Makes the case of a residual stream with an outlier: one channel some 10^4 times the others.

    python outlier.py     writes outlier/: base/ and golden.safetensors

GPT-2 and its relatives have such channels: an early block's output writes one huge value, the same for every token, and the
norms behind it give the others their weight back. Here the bias of the first feed-forward does, in the small GPT-2 of
`gpt2/`; `golden.safetensors` holds its inputs and the output in f64.
"""

import shutil

import torch
from golden import HERE, in_f64, load_base, mlp, outputs, save_base
from safetensors import safe_open

CHANNEL, SIZE = 5, 3e4


def main():
    directory = HERE / "outlier"
    shutil.rmtree(directory, ignore_errors=True)
    model = load_base(HERE / "gpt2" / "base")
    width = model.config.n_embd
    first, *rest = model.transformer.h
    streams = []
    with torch.no_grad():
        first.mlp.c_proj.bias[CHANNEL] += SIZE
        # The channel alone makes the mean SIZE / width and the deviation this; the norms take both back.
        deviation = SIZE * (1 / width * (1 - 1 / width)) ** 0.5
        others = torch.arange(width) != CHANNEL
        for norm in [*(n for block in rest for n in (block.ln_1, block.ln_2)), model.transformer.ln_f]:
            norm.bias[others] += norm.weight[others] * SIZE / width
            norm.weight[others] *= deviation
            norm.weight[CHANNEL] *= 0.1
        save_base(model, directory / "base")
        with safe_open(HERE / "gpt2" / "golden.safetensors", "pt") as file:
            inputs = {name: file.get_tensor(name) for name in ("input_ids", "attention_mask")}
        model = load_base(directory / "base")
        model.transformer.h[1].register_forward_pre_hook(lambda _, x: streams.append(x[0]))
        off = in_f64(model, inputs)
    stream = streams[-1].abs()
    ratio = (stream[..., CHANNEL] / stream[..., others].mean(-1)).median().item()
    print(f"outlier: the channel is {ratio:.0f} times the mean of the others (median over tokens)")
    assert ratio > 1e4
    mlp.write(directory / "golden.safetensors", outputs(inputs, inputs["attention_mask"], output_base=off))


if __name__ == "__main__":
    main()
