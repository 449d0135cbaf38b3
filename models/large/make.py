"""Writes models of true shapes with random weights, an adapter and an input each: T5-small, BERT-base, Llama of 15 M.

    python make.py [--out DIR] [--dtype float32|float16|bfloat16] [t5-small] [bert-base] [llama-15m]

For time and memory, and to see that the shapes convert. Each is a directory with `base/` and `adapter/` as Hugging Face and
PEFT store them, and `input.safetensors`. They are too large to commit; the default is out/large in the repository.
"""

import argparse
import sys
from pathlib import Path

import torch
import transformers

MODELS = Path(__file__).parents[1]
sys.path[:0] = [str(MODELS), str(MODELS / "cases")]
import mlp
from golden import draw_adapter, load_base, save_adapter, save_base, seed, spread
from peft import LoraConfig

LABELS = {0: "negative", 1: "neutral", 2: "positive"}


def t5_small():
    config = transformers.T5Config(
        vocab_size=32128,
        d_model=512,
        d_kv=64,
        d_ff=2048,
        num_layers=6,
        num_heads=8,
        feed_forward_proj="relu",
        decoder_start_token_id=0,
        id2label=LABELS,
    )
    return transformers.T5ForSequenceClassification(config), [(".q", 0.13)]


def bert_base():
    # The defaults of BertConfig are those of bert-base-uncased.
    config = transformers.BertConfig(id2label=LABELS)
    return transformers.BertForSequenceClassification(config), []


def llama_15m():
    """The shape of stories15M."""
    config = transformers.LlamaConfig(
        vocab_size=32000,
        hidden_size=288,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=6,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config), []


# name: (model, where LoRA sits, tokens of the input)
MODELS_BY_NAME = {
    "t5-small": (t5_small, ["q", "v"], 64),
    "bert-base": (bert_base, ["query", "value"], 128),
    "llama-15m": (llama_15m, ["q_proj", "v_proj"], 64),
}


def tokens(model, length):
    """One row without padding. A T5 classifier reads the state at the token that ends the text."""
    ids = torch.randint(3, model.config.vocab_size, (1, length))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if model.config.model_type == "t5":
        ids[0, -1] = model.config.eos_token_id
        inputs["decoder_input_ids"] = torch.cat([torch.zeros(1, 1, dtype=torch.int64), ids[:, :-1]], 1)
    return inputs


def make(name, root, dtype):
    seed(f"large/{name}")
    build, targets, length = MODELS_BY_NAME[name]
    model, gains = build()
    spread(model, gains)
    directory = root / name
    save_base(model.to(dtype), directory / "base")
    inputs = tokens(model, length)
    adapted = draw_adapter(load_base(directory / "base"), LoraConfig(r=8, lora_alpha=16, target_modules=targets), 0.1)
    save_adapter(adapted, directory / "adapter")
    mlp.write(directory / "input.safetensors", inputs)
    size = sum(file.stat().st_size for file in (directory / "base").iterdir())
    print(f"{name}: {model.num_parameters() / 1e6:.1f} M parameters, {size / 1e6:.0f} MB, {length} tokens")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(MODELS_BY_NAME))
    parser.add_argument("--out", type=Path, default=MODELS.parent / "out" / "large")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    arguments = parser.parse_args()
    for name in arguments.names or MODELS_BY_NAME:
        if name not in MODELS_BY_NAME:
            parser.error(f"no model {name}: there are {', '.join(MODELS_BY_NAME)}")
        make(name, arguments.out, getattr(torch, arguments.dtype))


if __name__ == "__main__":
    main()
