"""Makes the golden cases with PyTorch and PEFT: bases, adapters, inputs, logits and gradients.

    python make.py

Each case is a directory: `base/` (or, where a case says so, a base that lies elsewhere), `adapter/` as PEFT saves it,
and `golden.safetensors`. README.md names its tensors.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

# At a kink of ReLU the gradient jumps: a unit that rounding moves across zero differs by its whole gradient, however
# good the arithmetic. Inputs are taken whose hidden values all stay this far from zero, over the largest in their vector.
MARGIN = 5e-3
HERE = Path(__file__).parent
MODELS = HERE.parent
sys.path[:0] = [str(MODELS), str(MODELS / "digits")]
import mlp
import prepare


def adapted(net, rank, alpha):
    """`net` with an adapter on every linear, A as PEFT draws it, B random and not zero, as if it had learned."""
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=[name for name, _ in mlp.linears(net)])
    model = get_peft_model(net, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def golden(model, normalise, inputs):
    """What README.md lists; the forward and backward passes run in f64, and are stored rounded to f32."""
    model = model.double().eval()
    x = normalise(inputs.double())
    with torch.no_grad(), model.disable_adapter():
        base = model(x)
    logits = model(x)
    cotangent = torch.randn(logits.shape).double()
    (logits * cotangent).sum().backward()
    tensors = {"inputs": inputs, "logits_base": base, "logits_adapter": logits.detach(), "cotangent": cotangent}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[name.replace(".default", "")] = parameter.grad
    return {name: tensor.float().contiguous() for name, tensor in tensors.items()}


def away_from_kinks(model, normalise, candidates, count):
    """The first `count` of the candidates that keep MARGIN, by hooks on every linear but the last."""
    hidden = []
    keep = lambda layer, inputs, output: hidden.append(output.abs() / output.abs().amax(1, keepdim=True))
    layers = [layer for name, layer in model.base_model.model.named_children() if name.isdecimal()]
    hooks = [layer.register_forward_hook(keep) for layer in layers[:-1] if not isinstance(layer, torch.nn.ReLU)]
    with torch.no_grad():
        model.eval()(normalise(candidates))
    for hook in hooks:
        hook.remove()
    chosen = candidates[torch.cat(hidden, 1).amin(1) >= MARGIN]
    assert len(chosen) >= count, f"only {len(chosen)} of {len(candidates)} inputs keep the margin"
    return chosen[:count]


def save_adapter(model, directory):
    """As `save_pretrained` writes it, but without the machine's paths and the empty model card."""
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)
    # Several adapters in one directory have a subdirectory each.
    for file in sorted(directory.rglob("adapter_config.json")):
        config = json.loads(file.read_text())
        config["base_model_name_or_path"] = None
        # PEFT keeps the names in a set, whose order changes from run to run. A pattern is a string.
        if isinstance(config["target_modules"], list):
            config["target_modules"].sort()
        file.write_text(json.dumps(config, indent=2) + "\n")
        file.with_name("adapter_model.safetensors").chmod(0o644)


def case(name, net, normalise, candidates, count, rank, alpha):
    model = adapted(net, rank, alpha)
    inputs = away_from_kinks(model, normalise, candidates, count)
    save_adapter(model, HERE / name / "adapter")
    tensors = golden(model, normalise, inputs)
    mlp.write(HERE / name / "golden.safetensors", tensors)
    model.print_trainable_parameters()
    shift = (tensors["logits_adapter"] - tensors["logits_base"]).abs().max().item()
    print(f"{name}: {len(inputs)} inputs, the adapter moves a logit by up to {shift:.3f}")


def main():
    mlp.deterministic(7)
    net = mlp.network(7, 13, 5)
    mlp.save(HERE / "odd" / "base", net)
    case("odd", net, lambda x: x, torch.randn(64, 7), 16, rank=3, alpha=6)

    net, normalise = mlp.load(MODELS / "digits" / "base")
    images, _ = prepare.part("test")
    pixels = torch.from_numpy(prepare.turned(images).astype("float32"))
    case("digits", net, normalise, pixels, 32, rank=8, alpha=16)


if __name__ == "__main__":
    main()
