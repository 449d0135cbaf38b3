"""Makes three transformers that are never trained, and two adapters for each, from seeds.

    python families.py        writes llama/, t5/ and bert/ beside this file: base/, one/, two/

Small enough for a microcontroller with 16 KB of RAM, where the digest of everything they compute must be the one of every
other machine. Together they have all parts: causal, bidirectional and cross attention; grouped queries; rotary, relative and
learned positions; layer norm and RMS norm; GELU, and SiLU and GELU as gates; a pooler, and a tied head. Widths are such that
the kernels meet rests. Stored in f16. Adapter `one` lies on attention, `two` on other layers and on some of the same.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "cases"))
import torch
import transformers
from bases import spread
from golden import draw_adapter, load_base, mlp, save_adapter, save_base, seed
from peft import LoraConfig
from safetensors.torch import load_file

STRENGTH = 0.3  # of an adapter's product over the base's weight


def llama():
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=20,
        intermediate_size=28,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=6,
        max_position_embeddings=16,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
    )
    return spread(transformers.LlamaForCausalLM(config), [("q_proj", 1.4), ("k_proj", 1.4)])


def t5():
    config = transformers.T5Config(
        vocab_size=24,
        d_model=12,
        d_kv=6,
        d_ff=18,
        num_heads=2,
        num_layers=1,
        num_decoder_layers=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
        feed_forward_proj="gated-gelu",
        decoder_start_token_id=0,
        id2label={0: "no", 1: "yes", 2: "perhaps"},
    )
    gains = [(".q", 0.4), ("relative_attention_bias", 1.2)]
    return spread(transformers.T5ForSequenceClassification(config), gains)


def bert():
    config = transformers.BertConfig(
        vocab_size=24,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=18,
        max_position_embeddings=8,
        type_vocab_size=2,
        id2label={0: "no", 1: "yes", 2: "perhaps"},
    )
    return spread(transformers.BertForSequenceClassification(config), [("query", 1.4), ("key", 1.4)])


# Base, and for each of its adapters rank, alpha and where it lies.
MODELS = {
    "llama": (
        llama,
        {
            "one": (3, 6, ["q_proj", "k_proj", "v_proj", "o_proj"]),
            "two": (2, 3, ["v_proj", "gate_proj", "up_proj", "down_proj"]),
        },
    ),
    "t5": (t5, {"one": (2, 4, ["q", "v"]), "two": (3, 5, ["v", "wo"])}),
    "bert": (
        bert,
        {"one": (3, 6, ["query", "key", "value"]), "two": (2, 3, ["value", "intermediate.dense", "output.dense"])},
    ),
}


def main():
    for name, (build, adapters) in MODELS.items():
        seed(f"tiny {name}")
        base = HERE / name / "base"
        save_base(build().to(torch.float16), base)
        for adapter, (rank, alpha, targets) in adapters.items():
            seed(f"tiny {name} {adapter}")
            directory = HERE / name / adapter
            config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
            save_adapter(draw_adapter(load_base(base), config, STRENGTH), directory)
            file = directory / "adapter_model.safetensors"
            halves = {key: value.to(torch.float16) for key, value in load_file(file).items()}
            mlp.write(file, halves, {"format": "pt"})
        print(name, sum(file.stat().st_size for file in (HERE / name).rglob("*.safetensors")), "bytes")


if __name__ == "__main__":
    main()
