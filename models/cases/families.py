"""Makes the golden cases of transformers with PyTorch, transformers and PEFT: one directory a case.

    python families.py [CASE ...]        all cases, or the named ones

A case is `base/` (as Hugging Face stores a model, or nn.TransformerEncoder with a spec), `adapter/` (as PEFT stores it),
`golden.safetensors`, and for some `masked.safetensors`. README.md names the tensors. kinds.py makes adapters of other
kinds on these bases.
"""

import json
import sys
from typing import Callable, NamedTuple

import torch
import transformers
from bases import bert, gpt2, llama, t5, text, torch_encoder, windows
from golden import HERE, draw_adapter, golden, load_base, masked, save_adapter, save_base, seed
from peft import LoraConfig, TaskType
from safetensors.torch import load_file

import mlp

# Before a ReLU, no value of an input is nearer to zero than this, over the largest in its vector: make.py says why.
# There are some thousand of them in a sequence, so the margin is what 16-bit arithmetic needs, not more.
KINK_MARGIN = 3e-4


class Case(NamedTuple):
    name: str
    build: Callable  # () -> the base
    adapter: LoraConfig
    draw: Callable  # (row's number) -> its inputs, each (1, ...)
    rows: int
    strength: float = 0.2  # size of the adapter's product over the base's weight
    kinks: str = ""  # how the names of the linears end that lie before a ReLU
    masked: bool = False  # also makes masked.safetensors
    finish: Callable = lambda directory: None  # changes to what was saved
    save: dict = {}


def away_from_kinks(model, case):
    """The case's inputs, each row drawn until it keeps KINK_MARGIN at every position that counts."""
    near, real = [], None

    def look(layer, inputs, result):
        values = result.reshape(-1, result.shape[-1])[real.flatten() == 1].abs()
        near.append((values / values.amax(-1, keepdim=True)).min().item())

    layers = [layer for name, layer in model.named_modules() if case.kinks and name.endswith(case.kinks)]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    rows = []
    for row in range(case.rows):
        for _ in range(1000):
            near.clear()
            inputs = case.draw(row)
            real = inputs.get("attention_mask")
            with torch.no_grad():
                model(**inputs)
            if min(near, default=1) >= KINK_MARGIN:
                break
        else:
            raise SystemExit(f"{case.name}: no input keeps the margin")
        rows.append(inputs)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def holes(inputs):
    """The same inputs under other masks: the first row padded on the left, the second with two holes."""
    mask = torch.ones_like(inputs["attention_mask"])
    mask[0, :3] = 0
    mask[1, [2, 5]] = 0
    return inputs | {"attention_mask": mask}


def make(case):
    seed(case.name)
    directory = HERE / case.name
    base, adapter = directory / "base", directory / "adapter"
    save_base(case.build(), base, **case.save)
    model = draw_adapter(load_base(base), case.adapter, case.strength)
    inputs = away_from_kinks(model, case)
    save_adapter(model, adapter)
    case.finish(directory)
    mlp.write(directory / "golden.safetensors", golden(base, adapter, inputs))
    if case.masked:
        mlp.write(directory / "masked.safetensors", masked(base, adapter, holes(inputs)))


def relabel(directory):
    """Tensors in f16, and a config that says as many do that GPT-2's weights are not transposed. They are: by the layer's
    type, not by this flag."""
    edit(directory / "adapter" / "adapter_config.json", fan_in_fan_out=False)
    recast(directory / "adapter", torch.float16)


def as_transformers_4(directory):
    """The config as transformers 4 wrote it: other names, and the rotary base at the top."""
    file = directory / "base" / "config.json"
    config = json.loads(file.read_text())
    config["torch_dtype"] = config.pop("dtype")
    config |= {"rope_theta": config.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
    config["transformers_version"] = "4.44.2"
    file.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def recast(directory, dtype):
    file = directory / "adapter_model.safetensors"
    mlp.write(file, {name: tensor.to(dtype) for name, tensor in load_file(file).items()}, {"format": "pt"})


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes, indent=2) + "\n")


def half(build, dtype):
    return lambda: build().to(dtype)


LABELS = {0: "negative", 1: "neutral", 2: "긍정"}
BERT_LINEARS = ["query", "key", "value", "intermediate.dense", "output.dense"]  # all but the pooler, which is not read

CASES = [
    Case(
        "bert",
        bert(transformers.BertModel),
        LoraConfig(r=4, lora_alpha=8, target_modules=BERT_LINEARS),
        text(64, [12, 9, 5], types=True),
        rows=3,
        strength=0.25,
        masked=True,
    ),
    Case(
        "bert-classifier",
        bert(transformers.BertForSequenceClassification, id2label=LABELS),
        LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, target_modules=["query", "value"], lora_dropout=0.1),
        text(64, [6, 10, 3], types=True),
        rows=3,
        strength=0.07,
    ),
    Case(
        "bert-tokens",
        bert(transformers.BertForTokenClassification, id2label=dict(enumerate(["O", "B-a", "I-a", "B-b", "I-b"]))),
        LoraConfig(r=3, lora_alpha=4.5, target_modules=["value", "output.dense", "classifier"]),
        text(64, [11, 7], types=True),
        rows=2,
        strength=0.15,
    ),
    Case(
        "t5-encoder",
        t5(transformers.T5EncoderModel, d_ff=48, feed_forward_proj="relu"),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q", "k", "v", "o", "wi", "wo"]),
        text(48, [12, 8], eos=1),
        rows=2,
        strength=0.13,
        kinks=".wi",
        masked=True,
    ),
    Case(
        "t5-classifier",
        t5(
            transformers.T5ForSequenceClassification,
            d_ff=40,
            feed_forward_proj="gated-gelu",
            decoder_start_token_id=0,
            id2label=LABELS,
        ),
        LoraConfig(task_type=TaskType.SEQ_CLS, r=8, lora_alpha=16, target_modules=["q", "v"], lora_dropout=0.1),
        text(48, [12, 7, 4], eos=1, shift=0),
        rows=3,
        strength=0.18,
    ),
    Case(
        "llama",
        llama(),
        LoraConfig(task_type=TaskType.CAUSAL_LM, r=4, lora_alpha=8, target_modules="all-linear"),
        text(64, [12, 9]),
        rows=2,
        strength=0.13,
        masked=True,
    ),
    Case(
        "llama-tied",
        llama(tie_word_embeddings=True, rms_norm_eps=1e-5, num_key_value_heads=4),
        LoraConfig(r=3, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"]),
        text(64, [10, 10], padding=False),
        rows=2,
        strength=0.12,
        finish=as_transformers_4,
    ),
    Case(
        "llama-classifier",
        llama(transformers.LlamaForSequenceClassification, id2label=LABELS),
        LoraConfig(task_type=TaskType.SEQ_CLS, r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]),
        text(64, [12, 9, 5]),
        rows=3,
        strength=0.07,
    ),
    Case(
        "llama-bf16",
        half(llama(num_hidden_layers=1, vocab_size=48), torch.bfloat16),
        LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"]),
        text(48, [8, 8], padding=False),
        rows=2,
        strength=0.25,
        save={"max_shard_size": "12KB"},
    ),
    Case(
        "mistral",
        llama(
            transformers.MistralForCausalLM,
            transformers.MistralConfig,
            hidden_size=24,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=12,
            sliding_window=None,
        ),
        LoraConfig(r=5, lora_alpha=5, target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj"]),
        text(64, [9, 11]),
        rows=2,
        strength=0.15,
    ),
    Case(
        "qwen2",
        llama(
            transformers.Qwen2ForCausalLM,
            transformers.Qwen2Config,
            hidden_size=24,
            num_attention_heads=3,
            num_key_value_heads=1,
            rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        ),
        LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "k_proj", "v_proj", "down_proj"]),
        text(64, [12, 6]),
        rows=2,
        strength=0.3,
    ),
    Case(
        "gpt2",
        gpt2(),
        LoraConfig(r=4, lora_alpha=8, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True),
        text(64, [12, 7]),
        rows=2,
    ),
    Case(
        "gpt2-f16",
        half(gpt2(n_embd=24, n_layer=1, n_head=3, n_inner=None, vocab_size=48), torch.float16),
        LoraConfig(r=4, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True),
        text(48, [8, 8], padding=False),
        rows=2,
        strength=0.5,
        finish=relabel,
    ),
    Case(
        "encoder",
        torch_encoder(
            d_model=24,
            nhead=4,
            num_layers=2,
            dim_feedforward=48,
            activation="relu",
            norm_first=False,
            layer_norm_eps=1e-5,
            prefix="",
            pool="none",
            head="none",
        ),
        LoraConfig(r=4, lora_alpha=8, target_modules=["self_attn", "linear1", "linear2"]),
        windows(24, [12, 8]),
        rows=2,
        strength=0.12,
        kinks=".linear1",
        masked=True,
    ),
    Case(
        "encoder-pre",
        torch_encoder(
            {
                "embed.weight": (16, 6),
                "embed.bias": (16,),
                "positions": (12, 16),
                "classifier.weight": (3, 16),
                "classifier.bias": (3,),
            },
            d_model=16,
            nhead=2,
            num_layers=3,
            dim_feedforward=40,
            activation="gelu",
            norm_first=True,
            layer_norm_eps=1e-5,
            prefix="encoder.",
            input="embed",
            positions="positions",
            final_norm="encoder.norm",
            pool="mean",
            classifier="classifier",
            head="classification",
            id2label={str(label): name for label, name in LABELS.items()},
        ),
        LoraConfig(r=4, lora_alpha=8, target_modules=["embed", "linear1", "linear2", "classifier"]),
        windows(6, [12, 7, 3]),
        rows=3,
        strength=0.35,
    ),
]


def main():
    names = sys.argv[1:] or [case.name for case in CASES]
    for name in names:
        make(next(case for case in CASES if case.name == name))


if __name__ == "__main__":
    main()
