"""A base on disk that is PyTorch's `nn.TransformerEncoder`, as README.md describes it: reads it, and writes it."""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

import mlp

MODEL_TYPE = "transformer_encoder"
FIELDS = (
    "model_type d_model nhead num_layers dim_feedforward activation norm_first layer_norm_eps prefix input positions "
    "final_norm pool classifier head id2label"
).split()


class Encoder(nn.Module):
    """[input] + [positions] -> encoder layers -> [final norm] -> [pool] -> [classifier], modules named as `spec` says.

    forward(inputs (batch, seq, features), attention_mask (batch, seq), 1 where a position is real) gives (batch, seq,
    d_model), or (batch, seq, labels) with a classifier, without the middle axis where `pool` is not "none".
    """

    def __init__(self, spec, shapes):
        super().__init__()
        self.spec = spec
        width = spec["d_model"]
        layer = nn.TransformerEncoderLayer(
            width,
            spec["nhead"],
            spec["dim_feedforward"],
            activation=spec["activation"],
            layer_norm_eps=spec["layer_norm_eps"],
            norm_first=spec["norm_first"],
            batch_first=True,
        )
        prefix, norm = spec["prefix"], spec["final_norm"]
        inside = norm is not None and norm == f"{prefix}norm"
        stack = nn.TransformerEncoder(
            layer,
            spec["num_layers"],
            norm=nn.LayerNorm(width, eps=spec["layer_norm_eps"]) if inside else None,
            enable_nested_tensor=False,
        )
        if prefix:
            place(self, prefix.removesuffix("."), stack)
        else:
            self.layers = stack.layers
            if inside:
                self.norm = stack.norm
        if norm is not None and not inside:
            place(self, norm, nn.LayerNorm(width, eps=spec["layer_norm_eps"]))
        for name in (spec["input"], spec["classifier"]):
            if name is not None:
                outputs, inputs = shapes[f"{name}.weight"]
                place(self, name, nn.Linear(inputs, outputs, bias=f"{name}.bias" in shapes))
        if spec["positions"] is not None:
            self.register_parameter(spec["positions"], nn.Parameter(torch.zeros(shapes[spec["positions"]])))

    def forward(self, inputs, attention_mask):
        spec, x = self.spec, inputs
        if spec["input"] is not None:
            x = self.get_submodule(spec["input"])(x)
        if spec["positions"] is not None:
            x = x + self.get_parameter(spec["positions"])[: x.shape[1]]
        for layer in self.get_submodule(f"{spec['prefix']}layers"):
            x = layer(x, src_key_padding_mask=attention_mask == 0)
        if spec["final_norm"] is not None:
            x = self.get_submodule(spec["final_norm"])(x)
        x = pooled(spec["pool"], x, attention_mask)
        return x if spec["classifier"] is None else self.get_submodule(spec["classifier"])(x)


def place(root, path, module):
    """Puts `module` at the dotted `path` under `root`."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    root.add_module(name, module)


def pooled(how, x, mask):
    """One vector a sequence: the mean of the real positions, the first position, or the last real one."""
    if how == "none":
        return x
    if how == "mean":
        weight = mask.to(x.dtype).unsqueeze(-1)
        return (x * weight).sum(1) / weight.sum(1)
    index = torch.zeros_like(mask[:, 0]) if how == "first" else (mask * torch.arange(mask.shape[1])).argmax(1)
    return x[torch.arange(len(x)), index]


def save(directory, model):
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().contiguous() for key, value in model.state_dict().items()}
    mlp.write(directory / mlp.WEIGHTS, tensors)
    (directory / mlp.SPEC).write_text(json.dumps(model.spec, indent=2) + "\n")


def load(directory):
    """The model, without dropout. PyTorch's fused path must be off where an adapter sits on it: see README.md."""
    directory = Path(directory)
    spec = json.loads((directory / mlp.SPEC).read_text())
    if set(spec) != set(FIELDS) or spec["model_type"] != MODEL_TYPE:
        raise SystemExit(f"{directory / mlp.SPEC}: not a {MODEL_TYPE} with the fields {FIELDS}")
    tensors = load_file(directory / mlp.WEIGHTS)
    model = Encoder(spec, {name: tensor.shape for name, tensor in tensors.items()})
    model.load_state_dict(tensors)
    return model.eval()
