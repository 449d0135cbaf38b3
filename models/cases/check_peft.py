"""Loads a base and a PEFT adapter as a PyTorch user would, and compares outputs.

    python check_peft.py BASE_DIR ADAPTER_DIR INPUT.safetensors EXPECTED.safetensors

The base is an MLP, an `nn.TransformerEncoder` with a spec, or a Hugging Face directory. INPUT holds what the model takes, such as
`inputs` or `input_ids`, and EXPECTED holds `logits` or `last_hidden_state`, as `ranklet run` reads and writes them;
`--inputs` and `--output` name other tensors. Positions that `output_mask` of INPUT leaves out are not compared. Fails if
PEFT warns, if a tensor of the adapter finds no place, or above `--tolerance`, if given.
"""

import argparse
import json
from pathlib import Path

import torch
from golden import INPUTS, counted, in_f64, load_adapter, load_base
from safetensors.torch import load_file

import mlp


def load(directory):
    """The base, and what makes its arguments of an input file's tensors."""
    if json.loads((directory / "config.json").read_text())["model_type"] == "mlp":
        net, normalise = mlp.load(directory)
        return net.eval(), lambda tensors: {"input": normalise(tensors["inputs"].double())}
    return load_base(directory), lambda tensors: {name: tensors[name] for name in INPUTS if name in tensors}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="directory with config.json and the weights")
    parser.add_argument("adapter", type=Path, help="PEFT directory")
    parser.add_argument("input", help="safetensors with the inputs")
    parser.add_argument("expected", help="safetensors with the output")
    parser.add_argument("--inputs", default="inputs", metavar="NAME", help="tensor of INPUT with the features")
    parser.add_argument("--output", metavar="NAME", help="tensor of EXPECTED")
    parser.add_argument("--tolerance", type=float, help="largest relative difference allowed")
    arguments = parser.parse_args()

    base, select = load(arguments.base)
    model = load_adapter(base, arguments.adapter)
    tensors, expected = load_file(arguments.input), load_file(arguments.expected)
    if arguments.inputs in tensors:
        tensors["inputs"] = tensors[arguments.inputs]
    name = arguments.output or next((name for name in ("logits", "last_hidden_state") if name in expected), "logits")
    if name not in expected:
        raise SystemExit(f"{arguments.expected} has no {name}, but {sorted(expected)}")

    # In f64, so that what is measured is the other side's error.
    expected = expected[name].double()
    with torch.no_grad():
        result = in_f64(model, select(tensors))
    if result.shape != expected.shape:
        raise SystemExit(f"PEFT gives {name} of shape {tuple(result.shape)}, expected are {tuple(expected.shape)}")
    mask = tensors.get("output_mask") if result.dim() == 3 else None
    result, expected = counted(result, mask), counted(expected, mask)
    difference = (result - expected).abs().max().item()
    relative = ((result - expected).norm() / result.norm()).item()
    real = slice(None) if mask is None else mask.bool()
    same = (result.argmax(-1) == expected.argmax(-1))[real].double().mean().item()
    print(f"{name} {tuple(result.shape)}: max abs difference {difference:.3e}, largest {result.abs().max():.3f}")
    print(f"relative difference (norms) {relative:.3e}, same place of the largest {100 * same:.1f} %")
    if arguments.tolerance is not None and not relative <= arguments.tolerance:
        raise SystemExit(f"the relative difference is above {arguments.tolerance}")


if __name__ == "__main__":
    main()
