"""Makes golden.safetensors: what the base gives for a text, and what it gives with the adapters merged into it.

    python golden.py               # after adapters.py

| tensor | meaning |
|---|---|
| `input_ids` | I64 (1, 40): the beginning of the first held-out sequence |
| `output_base` | F32 (1, 40, 512): logits of the base |
| `output_austen`, `output_psalm` | the same, of the base that `merge_and_unload` has made with the adapter |
| `output_both` | the same with both merged |

All in f32. What the adapters give unmerged must agree within 10⁻⁵ (relative L2).
"""

import torch
from adapters import ADAPTERS, SEEDS
from evaluate import HELDOUT, load, mlp
from peft import PeftModel
from prepare import HERE
from safetensors.torch import load_file
from train import SEED, single_thread

LENGTH = 40
AGREEMENT = 1e-5
CHOICES = {"austen": ["austen"], "psalm": ["psalm"], "both": ["austen", "psalm"]}


def adapted(names):
    """The base with these adapters, as a user loads them."""
    model = PeftModel.from_pretrained(load(), ADAPTERS / names[0], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(ADAPTERS / name, adapter_name=name)
    model.base_model.set_adapter(names)
    return model.eval()


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


@torch.no_grad()
def main():
    single_thread(SEED)
    ids = load_file(HELDOUT)["tokens"][:LENGTH][None].long()
    tensors = {"input_ids": ids, "output_base": load()(input_ids=ids).logits}
    for choice, names in CHOICES.items():
        beside = adapted(names)(input_ids=ids).logits
        merged = adapted(names).merge_and_unload(adapter_names=names)(input_ids=ids).logits
        assert not torch.equal(merged, tensors["output_base"])
        assert relative(beside, merged) <= AGREEMENT, (choice, relative(beside, merged))
        moves = 100 * relative(merged, tensors["output_base"])
        print(f"{choice:8} moves the logits by {moves:.1f} %, unmerged within {relative(beside, merged):.1e}")
        tensors[f"output_{choice}"] = merged.contiguous()
    assert set(SEEDS) == {name for names in CHOICES.values() for name in names}
    mlp.write(HERE / "golden.safetensors", tensors)


if __name__ == "__main__":
    main()
