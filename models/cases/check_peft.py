"""Loads a base and a PEFT adapter as a PyTorch user would, and compares logits.

    python check_peft.py BASE_DIR ADAPTER_DIR INPUT.safetensors EXPECTED.safetensors

INPUT holds `inputs`, EXPECTED holds `logits`, as `ranklet run` reads and writes them; `--inputs` and `--logits` name
other tensors. Fails if PEFT warns, if a tensor of the adapter finds no place, or above `--tolerance`, if given.
"""

import argparse
import sys
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
import mlp


def unloaded(model, directory):
    """Tensors of the adapter file that are not in the model with the same values: PEFT passes over them silently."""
    loaded = {name.replace(".default", ""): value for name, value in model.state_dict().items()}
    file = load_file(Path(directory) / "adapter_model.safetensors")
    missing = [name for name in loaded if ".lora_" in name and name not in file]
    return missing + [n for n, v in file.items() if n not in loaded or not torch.equal(loaded[n], v.to(loaded[n].dtype))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", help="directory with config.json and model.safetensors")
    parser.add_argument("adapter", help="PEFT directory")
    parser.add_argument("input", help="safetensors with the inputs")
    parser.add_argument("expected", help="safetensors with the logits")
    parser.add_argument("--inputs", default="inputs", metavar="NAME")
    parser.add_argument("--logits", default="logits", metavar="NAME")
    parser.add_argument("--tolerance", type=float, help="largest relative difference allowed")
    arguments = parser.parse_args()

    net, normalise = mlp.load(arguments.base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = PeftModel.from_pretrained(net, arguments.adapter).eval()
    if names := unloaded(model, arguments.adapter):
        raise SystemExit(f"PEFT did not load: {names}")

    # In f64, so that what is measured is the other side's error.
    inputs = load_file(arguments.input)[arguments.inputs].double()
    expected = load_file(arguments.expected)[arguments.logits].double()
    with torch.no_grad():
        logits = model.double()(normalise(inputs))
    if logits.shape != expected.shape:
        raise SystemExit(f"PEFT gives logits of shape {tuple(logits.shape)}, expected are {tuple(expected.shape)}")
    difference = (logits - expected).abs().max().item()
    relative = ((logits - expected).norm() / logits.norm()).item()
    same = (logits.argmax(-1) == expected.argmax(-1)).double().mean().item()
    print(f"logits {tuple(logits.shape)}: max abs difference {difference:.3e}, largest logit {logits.abs().max():.3f}")
    print(f"relative difference (norms) {relative:.3e}, same class {100 * same:.1f} %")
    if arguments.tolerance is not None and not relative <= arguments.tolerance:
        raise SystemExit(f"the relative difference is above {arguments.tolerance}")


if __name__ == "__main__":
    main()
