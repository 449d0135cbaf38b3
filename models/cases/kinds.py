"""Makes adapters of every kind that PEFT knows on the bases of families.py, and lists what must be refused.

    python kinds.py [KIND ...]           after families.py; all kinds, or the named ones

Each is `adapters/<kind>/adapter/` as PEFT saves it and `golden.safetensors`, with the inputs of its base's case and
`output_adapter`. `adapters/kinds.json` names the base of each. README.md says more.
"""

import json
import shutil
import sys
import warnings
from typing import Callable, NamedTuple

import torch
from families import recast
from golden import (
    EFFECT,
    HERE,
    INPUTS,
    counted,
    draw_adapter,
    fill,
    in_f64,
    load_adapter,
    load_base,
    output,
    relative,
    save_adapter,
    seed,
)
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import config as lora_config
from safetensors.torch import load_file

import mlp

ROOT = HERE / "adapters"


class Kind(NamedTuple):
    base: str
    config: dict
    strength: float = 0.2
    draw: Callable = draw_adapter
    finish: Callable = lambda directory: None  # changes to what was saved


def changed_base(base, config, strength):
    """PiSSA takes A and B out of the weight, which becomes what is left. Both are moved as if they had learned since."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(base, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.add_(torch.randn_like(parameter) * strength * parameter.std())
    return model.eval()


QV, TOKENS = ["q_proj", "v_proj"], [5, 17, 23, 40]
KINDS = {
    "rslora": Kind("llama", dict(r=6, lora_alpha=5, use_rslora=True, target_modules=QV)),
    "patterns": Kind(
        "llama",
        dict(
            r=4,
            lora_alpha=8,
            target_modules=["q_proj", "v_proj", "down_proj"],
            rank_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 6, "^model.layers.1.self_attn.v_proj": 3},
            # PEFT sorts these when it saves. Of two that match it takes the first: after loading, 3 for v_proj of layer 1.
            alpha_pattern={"v_proj": 12, "layers.1.self_attn.v_proj": 3, "q_pro.": 5},
        ),
    ),
    "regex": Kind("llama", dict(r=4, lora_alpha=8, target_modules=r".*\.layers\.[01]\.(self_attn\.[kv]|mlp\.up)_proj")),
    "layers": Kind(
        "llama",
        dict(r=4, lora_alpha=8, target_modules=QV, layers_to_transform=[1], layers_pattern="layers"),
        strength=0.4,
    ),
    "bf16": Kind("llama", dict(r=4, lora_alpha=8, target_modules=QV), finish=lambda d: recast(d, torch.bfloat16)),
    "dora": Kind("llama", dict(r=4, lora_alpha=8, use_dora=True, target_modules=[*QV, "down_proj"]), strength=0.15),
    "dora_conv1d": Kind(
        "gpt2", dict(r=4, lora_alpha=8, use_dora=True, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    ),
    "bias_lora_only": Kind("bert", dict(r=4, lora_alpha=8, bias="lora_only", target_modules=["query", "value"])),
    "bias_all": Kind("bert", dict(r=4, lora_alpha=8, bias="all", target_modules=["query", "value"])),
    "lora_bias": Kind("bert", dict(r=4, lora_alpha=8, lora_bias=True, target_modules=["query", "value", "output.dense"])),
    "modules_to_save": Kind(
        "llama", dict(r=4, lora_alpha=8, target_modules=QV, modules_to_save=["lm_head"]), strength=0.12
    ),
    "embedding": Kind("llama", dict(r=4, lora_alpha=8, target_modules=["embed_tokens", "v_proj"]), strength=0.15),
    "trainable_tokens": Kind(
        "llama", dict(r=4, lora_alpha=8, target_modules=QV, trainable_token_indices={"embed_tokens": TOKENS})
    ),
    "trainable_tokens_tied": Kind(
        "llama-tied", dict(r=4, lora_alpha=8, target_modules=QV, trainable_token_indices=TOKENS), strength=0.15
    ),
    "pissa": Kind("llama", dict(r=4, lora_alpha=8, init_lora_weights="pissa", target_modules=QV), draw=changed_base),
}


def of_base(name):
    """The base's directory, its inputs, its output and the mask of what counts."""
    tensors = load_file(HERE / name / "golden.safetensors")
    inputs = {key: tensors[key] for key in INPUTS if key in tensors}
    return HERE / name / "base", inputs, tensors["output_base"], tensors.get("output_mask")


def make(name, kind):
    seed(f"adapters/{name}")
    base, inputs, off, mask = of_base(kind.base)
    directory = ROOT / name / "adapter"
    save_adapter(kind.draw(load_base(base), LoraConfig(**kind.config), kind.strength), directory)
    kind.finish(directory)
    with torch.no_grad():
        results = {"output_adapter": in_f64(load_adapter(load_base(base), directory), inputs)}
        f32 = output(load_adapter(load_base(base, "sdpa"), directory), inputs)
    write(name, inputs, off, mask, results, {"output_adapter": f32})


def several(name="several", base="llama"):
    """Two adapters that `save_pretrained` put into one directory, a subdirectory each: each alone, and both at once."""
    seed(f"adapters/{name}")
    base, inputs, off, mask = of_base(base)
    directory = ROOT / name / "adapter"
    model = get_peft_model(load_base(base), LoraConfig(r=4, lora_alpha=8, target_modules=QV), adapter_name="alpha")
    fill(model, "alpha", 0.15)
    model.add_adapter("beta", LoraConfig(r=3, lora_alpha=3, target_modules=["v_proj", "up_proj"]))
    model.set_adapter("beta")
    fill(model, "beta", 0.15)
    save_adapter(model, directory)

    def results(attention, run):
        model = load_adapter(load_base(base, attention), directory / "alpha", adapter_name="alpha")
        model.load_adapter(directory / "beta", "beta")
        for active in ("alpha", "beta", ["alpha", "beta"]):
            model.base_model.set_adapter(active)
            yield "output_both" if isinstance(active, list) else f"output_{active}", run(model, inputs)

    with torch.no_grad():
        write(name, inputs, off, mask, dict(results("eager", in_f64)), dict(results("sdpa", output)))


def write(name, inputs, off, mask, results, f32):
    tensors = dict(inputs) if mask is None else dict(inputs) | {"output_mask": mask}
    for key, result in results.items():
        tensors[key] = result.float().contiguous()
        effect = relative(counted(result, mask), counted(off, mask))
        difference = relative(counted(f32[key], mask), counted(result, mask))
        assert EFFECT[0] <= effect <= EFFECT[1], f"{name}: {key} moves by {100 * effect:.0f} %"
        assert difference < 1e-5, f"{name}: f32 differs by {difference:.1e}"
        print(f"adapters/{name}: {key} moves by {100 * effect:.1f} %, f32 within {difference:.1e}")
    mlp.write(ROOT / name / "golden.safetensors", tensors)


def refusals():
    """Configs that no adapter may be converted with: what PEFT writes for each, where it differs from plain LoRA."""
    lora = dict(r=4, lora_alpha=8, target_modules=QV)
    plain = as_json(LoraConfig(**lora))
    cases = {
        "qalora": dict(use_qalora=True),
        "kasa": dict(kasa_config=lora_config.KasaConfig()),
        "monteclora": dict(monteclora_config=lora_config.MontecloraConfig()),
        "bdlora": dict(use_bdlora=lora_config.BdLoraConfig(target_modules_bd_b=QV, nblocks=2)),
        "arrow": dict(arrow_config=lora_config.ArrowConfig()),
        "alora": dict(alora_invocation_tokens=[5, 6], task_type="CAUSAL_LM"),
        "layer_replication": dict(layer_replication=[[0, 2], [1, 2]]),
        "target_parameters": dict(target_parameters=["mlp.experts.gate_up_proj"]),
        "megatron": dict(megatron_config={"hidden_size": 32}),
        "olora": dict(init_lora_weights="olora"),
        "pissa": dict(init_lora_weights="pissa"),
        "pissa_niter": dict(init_lora_weights="pissa_niter_16"),
        "corda": dict(init_lora_weights="corda", corda_config=lora_config.CordaConfig()),
        "loftq": dict(init_lora_weights="loftq", loftq_config=lora_config.LoftQConfig()),
        "lora_ga": dict(init_lora_weights="lora_ga", lora_ga_config=lora_config.LoraGAConfig()),
    }
    listed = []
    for name, fields in cases.items():
        config = as_json(LoraConfig(**lora, **fields))
        change = {key: value for key, value in config.items() if value != plain[key]}
        listed.append({"name": name, "field": next(iter(fields)), "change": change})
    for kind in ("LOHA", "ADALORA", "IA3", "VERA"):
        listed.append({"name": kind.lower(), "field": "peft_type", "change": {"peft_type": kind}})
    listed.append({"name": "unknown", "field": "use_tomorrow", "change": {"use_tomorrow": True}})
    return listed


def as_json(config):
    """What the file would hold; a set has no order."""
    return json.loads(json.dumps(config.to_dict(), default=lambda v: sorted(v) if isinstance(v, set) else vars(v)))


def main():
    names = sys.argv[1:] or [*KINDS, "several"]
    for name in names:
        shutil.rmtree(ROOT / name, ignore_errors=True)
        several() if name == "several" else make(name, KINDS[name])
    bases = {name: kind.base for name, kind in KINDS.items()} | {"several": "llama"}
    (ROOT / "kinds.json").write_text(json.dumps(dict(sorted(bases.items())), indent=2) + "\n")
    (ROOT / "refusals.json").write_text(json.dumps(refusals(), indent=2) + "\n")


if __name__ == "__main__":
    main()
