"""What every transformer case shares: weights that are not degenerate, directories on disk, and golden tensors."""

import json
import os
import shutil
import sys
import warnings
import zlib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode
from transformers.pytorch_utils import Conv1D

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
import encoder
import mlp
from make import save_adapter

# PyTorch's fused encoder layer reads the weights of the layers that PEFT wrapped, and so leaves the adapter out.
torch.backends.mha.set_fastpath_enabled(False)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
warnings.filterwarnings("ignore", message=".*(have invalid shape|save_embedding_layers).*")

# How far the adapter must move the output, and how near f32 on the fused attention must come to f64 on eager.
EFFECT, AGREEMENT = (0.1, 0.5), 1e-5


def seed(name):
    """Each case has a seed of its own, so that a new one leaves the others as they are."""
    mlp.deterministic(zlib.crc32(name.encode()))


class Doubles(TorchFunctionMode):
    """Keeps f64 where transformers goes down to f32 by name: softmax, RMS norm, rotary angles."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        wide = bool(args) and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64
        if wide and function is torch.Tensor.float:
            return args[0]
        if wide and function is torch.Tensor.to:
            args = tuple(torch.float64 if a is torch.float32 else a for a in args)
        if wide and kwargs.get("dtype") is torch.float32:
            kwargs["dtype"] = torch.float64
        return function(*args, **kwargs)


def spread(model, gains=()):
    """Random weights under which each part of the network matters.

    Linears keep the variance of their input, with output channels of unlike size; a norm's scale is near 1, biases are
    not zero. `gains` are (end of the module's name, factor): queries and keys get more, for attention that is not
    uniform.
    """
    with torch.no_grad():
        for name, module in model.named_modules():
            for key, parameter in module.named_parameters(recurse=False):
                factor = next((gain for end, gain in gains if f"{name}.{key}".removesuffix(".weight").endswith(end)), 1.0)
                parameter.copy_(drawn(module, key, parameter.shape) * factor)
    if hasattr(model, "tie_weights"):
        model.tie_weights()
    return model.eval()


def drawn(module, key, shape):
    normal = torch.randn(shape)
    if isinstance(module, nn.Embedding):
        return 0.6 * normal
    if "norm" in type(module).__name__.lower() and key == "weight":
        return 1 + 0.2 * normal
    if key.endswith("bias"):
        return 0.2 * normal
    if normal.dim() == 2:
        fan_in, channels = (shape[0], (1, shape[1])) if isinstance(module, Conv1D) else (shape[1], (shape[0], 1))
        return normal * (0.25 * torch.randn(channels)).exp() / fan_in**0.5
    raise ValueError(f"no rule for {key} of {type(module).__name__}")


def save_base(model, directory, **options):
    """As `save_pretrained` writes it, without the settings of `generate`."""
    shutil.rmtree(directory, ignore_errors=True)
    if isinstance(model, encoder.Encoder):
        encoder.save(directory, model)
        return
    model.save_pretrained(directory, **options)
    (directory / "generation_config.json").unlink(missing_ok=True)
    config = directory / "config.json"
    config.write_text(config.read_text().rstrip() + "\n")
    for file in directory.iterdir():
        file.chmod(0o644)


def load_base(directory, attention="eager"):
    """The base in f32, whatever the file holds."""
    config = json.loads((directory / "config.json").read_text())
    if config["model_type"] == encoder.MODEL_TYPE:
        return encoder.load(directory)
    if config["model_type"] == "mlp":
        return mlp.load(directory)[0].eval()
    kind = getattr(transformers, config["architectures"][0])
    model, report = kind.from_pretrained(
        directory, attn_implementation=attention, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), f"{directory}: {report}"
    model.name_or_path = model.config._name_or_path = ""
    return model.eval()


def draw_adapter(base, config, strength):
    """A PEFT model with one adapter that looks learned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config)
    fill(model, "default", strength)
    return model.eval()


def fill(model, adapter, strength):
    """Draws what the active adapter trains: A stays as PEFT draws it, B is such that the product is about `strength`
    times the base's weight; what is not A or B moves by about that share."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            noise, place = torch.randn_like(parameter), key.split(".lora_")[0]
            if key.endswith(f".lora_B.{adapter}.weight"):
                layer = model.get_submodule(place)
                parameter.copy_(noise * strength * (3 / layer.r[adapter]) ** 0.5 / layer.scaling[adapter])
            elif key.endswith(f".lora_embedding_A.{adapter}"):
                layer = model.get_submodule(place)
                parameter.copy_(noise * strength * 0.6 / layer.r[adapter] ** 0.5 / layer.scaling[adapter])
            elif ".lora_A." not in key and ".lora_embedding_B." not in key:
                deviation = parameter.std() if parameter.numel() > 1 else 0
                parameter.add_(noise * strength * (deviation + 0.3))


def load_adapter(base, directory, **options):
    """As a user loads it. PEFT is silent, or only warns, where a tensor finds no place or has none: here that is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*fan_in_fan_out is set to False.*")
        model = PeftModel.from_pretrained(base, directory, **options).eval()
    loaded = get_peft_model_state_dict(model, adapter_name=model.active_adapter, save_embedding_layers=False)
    file = load_file(Path(directory) / "adapter_model.safetensors")
    # Beside an adapter on an embedding PEFT saves the base's own table.
    file = {name: tensor for name, tensor in file.items() if not name.endswith("embed_tokens.base_layer.weight")}
    assert set(file) == set(loaded), f"PEFT did not load, or found no {sorted(set(file) ^ set(loaded))}"
    for name, tensor in file.items():
        assert torch.equal(loaded[name], tensor.to(loaded[name].dtype)), f"PEFT did not load {name} as it is"
    return model


def output(model, inputs):
    """`inputs` go in by their names. Logits, or the last hidden state of a model without a head."""
    result = model(**inputs)
    if isinstance(result, torch.Tensor):
        return result
    return result.logits if "logits" in result else result.last_hidden_state


def in_f64(model, inputs):
    """`output` with weights, inputs and every step in f64."""
    wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    with Doubles():
        result = output(model.double(), wide)
    assert result.dtype == torch.float64
    return result


def mask_of(result, inputs):
    """Which of the positions count, or None for an output that is one vector a sequence."""
    if result.dim() < 3 or "attention_mask" not in inputs:
        return None
    return inputs["attention_mask"]


def counted(result, mask):
    return result if mask is None else result * mask.unsqueeze(-1)


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


def golden(base, adapter, inputs):
    """The tensors of `golden.safetensors`, from the directories on disk: outputs in f64 on eager attention, and the
    gradients of A and B."""
    model = load_adapter(load_base(base), adapter, is_trainable=True)
    with torch.no_grad(), model.disable_adapter():
        off = in_f64(model, inputs)
    on = in_f64(model, inputs)
    mask = mask_of(on, inputs)
    cotangent = counted(torch.randn(on.shape), mask).double()
    (on * cotangent).sum().backward()
    tensors = outputs(inputs, mask, output_base=off, output_adapter=on, cotangent=cotangent)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            assert parameter.grad is not None and parameter.grad.any(), f"no gradient reaches {name}"
            tensors[name.replace(".default", "")] = parameter.grad.float().contiguous()
    check(base, adapter, tensors)
    return tensors


def masked(base, adapter, inputs):
    """As `golden`, without gradients, on masks that are not a row's tail: padding on the left, and holes."""
    model = load_adapter(load_base(base), adapter)
    with torch.no_grad():
        on = in_f64(model, inputs)
        with model.disable_adapter():
            off = in_f64(model, inputs)
    tensors = outputs(inputs, mask_of(on, inputs), output_base=off, output_adapter=on)
    check(base, adapter, tensors)
    return tensors


def outputs(inputs, mask, **results):
    tensors = dict(inputs) if mask is None else dict(inputs) | {"output_mask": mask}
    tensors |= {name: result.detach().float() for name, result in results.items()}
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}


INPUTS = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "inputs")


def check(base, adapter, tensors):
    """The adapter's effect is neither lost nor everything, and another road through PyTorch leads to the same place:
    f32, with the attention that users run."""
    mask = tensors.get("output_mask")
    off, on = (counted(tensors[name], mask) for name in ("output_base", "output_adapter"))
    inputs = {name: tensors[name] for name in INPUTS if name in tensors}
    model = load_adapter(load_base(base, "sdpa"), adapter)
    with torch.no_grad():
        difference = relative(counted(output(model, inputs), mask), on)
    effect = relative(on, off)
    where = adapter.relative_to(HERE).parent
    assert difference <= AGREEMENT, f"{where}: f32 differs by {difference:.1e}"
    assert EFFECT[0] <= effect <= EFFECT[1], f"{where}: the adapter moves the output by {100 * effect:.0f} %"
    shape = "x".join(map(str, on.shape))
    print(f"{where}: output {shape}, adapter's effect {100 * effect:.1f} %, f32 within {difference:.1e}")
