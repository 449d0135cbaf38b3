"""Makes the case of a residual stream with an outlier: one channel some 10^4 times the others.

    python outlier.py     writes outlier/: base/ and golden.safetensors

Large language models have such channels: a few rows of an early layer's output are huge, and the norms behind them give
the others their weight back. Here the rows of one channel in the first block's feed-forward are, in the small Llama of
`llama/`; `golden.safetensors` holds its inputs and the output in f64.
"""

import shutil

import torch
from golden import HERE, in_f64, load_base, mlp, outputs, save_base
from safetensors import safe_open

CHANNEL, FACTOR = 5, 1e4


def main():
    directory = HERE / "outlier"
    shutil.rmtree(directory, ignore_errors=True)
    model = load_base(HERE / "llama" / "base")
    first, *rest = model.model.layers
    streams = []
    with torch.no_grad():
        first.mlp.down_proj.weight[CHANNEL] *= FACTOR
        others = torch.arange(model.config.hidden_size) != CHANNEL
        norms = [norm for layer in rest for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
        for norm in [*norms, model.model.norm]:
            norm.weight[others] *= FACTOR / model.config.hidden_size**0.5
            norm.weight[CHANNEL] *= 0.3
        save_base(model, directory / "base")
        with safe_open(HERE / "llama" / "golden.safetensors", "pt") as file:
            inputs = {name: file.get_tensor(name) for name in ("input_ids", "attention_mask")}
        model = load_base(directory / "base")
        model.model.layers[1].register_forward_pre_hook(lambda _, x: streams.append(x[0]))
        off = in_f64(model, inputs)
    stream = streams[-1].abs()
    ratio = (stream[..., CHANNEL] / stream[..., others].amax(-1)).median().item()
    print(f"outlier: the channel is {ratio:.0f} times the largest of the others (median over tokens)")
    assert ratio > 1e3
    mlp.write(directory / "golden.safetensors", outputs(inputs, inputs["attention_mask"], output_base=off))


if __name__ == "__main__":
    main()
