"""A base MLP on disk, as README.md describes it: reads it as `nn.Sequential`, and writes it."""

import json
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

WEIGHTS, SPEC = "model.safetensors", "config.json"
MEAN, STD = "input.mean", "input.std"


def network(*widths):
    """Linear layers of these widths, features first and outputs last, with ReLU between them."""
    layers = []
    for inputs, outputs in zip(widths, widths[1:]):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def linears(net):
    """The linear layers with their names, in the order of the data's way."""
    return [(name, layer) for name, layer in net.named_children() if isinstance(layer, nn.Linear)]


def save(directory, net, labels=None, mean=None, std=None):
    """Writes `net`, and how its inputs are normalised, into `directory`."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    spec = {
        "model_type": "mlp",
        "modules": [name for name, _ in linears(net)],
        "activation": "relu",
        "head": "classification",
    }
    if labels is not None:
        spec["id2label"] = {str(i): label for i, label in enumerate(labels)}
    tensors = {key: value.detach().contiguous() for key, value in net.state_dict().items()}
    if mean is not None:
        spec["normalization"] = {"mean": MEAN, "std": STD}
        tensors |= {MEAN: mean.contiguous(), STD: std.contiguous()}
    write(directory / WEIGHTS, tensors)
    (directory / SPEC).write_text(json.dumps(spec, indent=2) + "\n")


def write(path, tensors, metadata=None):
    """`save_file` with the usual permissions: it makes files that nobody else may read."""
    save_file(tensors, path, metadata)
    Path(path).chmod(0o644)


def load(directory):
    """The network, and the function that normalises its inputs."""
    directory = Path(directory)
    spec = json.loads((directory / SPEC).read_text())
    tensors = load_file(directory / WEIGHTS)
    names = spec["modules"]
    if any("." in name for name in names):
        raise SystemExit(f"{directory / SPEC}: only direct children of an nn.Sequential are read here, found {names}")

    layers = OrderedDict()
    for place, name in enumerate(names):
        weight, bias = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.bias", None)
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
        layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
        layers[name] = layer
        if place + 1 < len(names):
            layers[str(int(name) + 1) if name.isdecimal() else f"{name}_relu"] = nn.ReLU()

    mean = std = None
    if "normalization" in spec:
        mean, std = (tensors.pop(spec["normalization"][key]) for key in ("mean", "std"))
    if tensors:
        raise SystemExit(f"{directory / WEIGHTS}: tensors that {SPEC} does not name: {sorted(tensors)}")
    return nn.Sequential(layers), lambda x: x if mean is None else (x - mean.to(x.dtype)) / std.to(x.dtype)


def deterministic(seed):
    """One thread, deterministic algorithms, one seed."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(seed)
