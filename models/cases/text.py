"""Makes the golden cases of text: tiny tokenizers for the bases of `families.py`, and what transformers makes of texts.

    python text.py

`text/<name>.json` are tokenizers of the three kinds that the families bring (WordPiece, Unigram, BPE with byte fallback).
`text/golden.json` holds, for each case, texts with their tokens and what comes out, adapter off and on: probabilities of a
classifier, or the tokens that a language model writes when it takes the most likely one.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from golden import Doubles, HERE, in_f64, load_adapter, load_base
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEXT = HERE / "text"
TEXTS = [
    "이 제품은 정말 훌륭해요!",
    "not good at all",
    "이 제품은 not bad",
    "😀",
    " ".join(["정말 good"] * 12),
]
PROMPTS = ["정말 ", "a good", "", "not\n한"]
# More tokens than are run at once.
LONG = [" ".join(["정말 good"] * 8)]
WORDS = "이 제 품 은 정 말 훌 륭 해 요 한 국 ! , . a b c d e f g h l n o p r t u".split()
# How far the most likely token is above the next, in parts of what all logits span: rounding must not decide.
MARGIN = 0.01


def special(*tokens):
    return [AddedToken(token, special=True) for token in tokens]


def wordpiece(size):
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "not", "정말"] + WORDS
    vocab += ["##" + word for word in WORDS if word.isalpha()]
    assert len(vocab) <= size, len(vocab)
    vocab = {token: i for i, token in enumerate(vocab)}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    return tokenizer


def unigram(size):
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁정말", "▁good", "▁not", "▁제품", "▁이", "good"] + WORDS
    assert len(pieces) <= size, len(pieces)
    scores = [(piece, 0.0 if i < 3 else -2.0 - 0.01 * i) for i, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(special("<pad>", "</s>", "<unk>"))
    return tokenizer


def bpe(size):
    vocab = ["<pad>", "<s>", "</s>", "<unk>"] + [f"<0x{byte:02X}>" for byte in "\n한".encode()]
    vocab += ["▁"] + [word for word in WORDS if word != "한"]
    merges = [("g", "o"), ("o", "d"), ("go", "od"), ("▁", "good"), ("정", "말"), ("▁", "정말"), ("n", "o"), ("no", "t")]
    vocab += [a + b for a, b in merges]
    assert len(vocab) <= size, len(vocab)
    tokenizer = Tokenizer(
        models.BPE({token: i for i, token in enumerate(vocab)}, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(special("<pad>", "<s>", "</s>", "<unk>"))
    return tokenizer


def positions(config):
    return getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", 512)


def rounded(tensor):
    return [rounded(row) if row.dim() else round(row.item(), 7) for row in tensor]


def classify(case, tokenizer):
    """Texts alone, cut to what the model takes, as a pipeline runs them."""
    model = load_adapter(load_base(HERE / case / "base"), HERE / case / "adapter")
    limit = positions(model.config)
    found = []
    for text in TEXTS:
        inputs = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        if case.startswith(("t5", "llama")):
            inputs.pop("token_type_ids", None)
        with torch.no_grad():
            on = in_f64(model, inputs).softmax(-1)[0]
            with model.disable_adapter():
                off = in_f64(model, inputs).softmax(-1)[0]
        entry = {"text": text, "input_ids": inputs["input_ids"][0].tolist()}
        found.append(entry | {"base": rounded(off), "adapter": rounded(on)})
    return {"case": case, "texts": found}


def generate(case, tokenizer, prompts, count):
    model = load_adapter(load_base(HERE / case / "base"), HERE / case / "adapter").double()
    return {"case": case, "tokens": count, "texts": [written(model, tokenizer, prompt, count) for prompt in prompts]}


def written(model, tokenizer, prompt, count):
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    if ids.shape[1] == 0:
        ids = torch.tensor([[model.config.bos_token_id]])
    entry = {"prompt": prompt, "prompt_tokens": ids[0].tolist()}
    for name in ("adapter", "base"):
        with torch.no_grad(), Doubles():
            result = run(model, ids, count) if name == "adapter" else off(model, ids, count)
        steps = torch.stack(result.scores)[:, 0]
        top = steps.topk(2, dim=-1).values
        margin = (top[:, 0] - top[:, 1]) / (steps.amax(1) - steps.amin(1))
        # Behind the first close call nothing is compared.
        sure = int((margin < MARGIN).nonzero()[0]) if (margin < MARGIN).any() else len(margin)
        tokens = result.sequences[0, ids.shape[1] :].tolist()
        whole = tokenizer.decode(result.sequences[0, : ids.shape[1] + sure], skip_special_tokens=True)
        entry[name] = {"tokens": tokens[:sure], "all": sure == len(tokens), "text": whole}
    return entry


def off(model, ids, count):
    with model.disable_adapter():
        return run(model, ids, count)


def run(model, ids, count):
    return model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=count,
        output_scores=True,
        return_dict_in_generate=True,
    )


def main():
    torch.set_num_threads(1)
    shutil.rmtree(TEXT, ignore_errors=True)
    TEXT.mkdir()
    fast = {}
    for name, make, size in (("wordpiece", wordpiece, 64), ("unigram", unigram, 48), ("bpe", bpe, 64)):
        tokenizer = make(size)
        tokenizer.save(str(TEXT / f"{name}.json"))
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "tokenizer.json"
            shutil.copy(TEXT / f"{name}.json", file)
            fast[name] = PreTrainedTokenizerFast(tokenizer_file=str(file))
    golden = {
        "classify": [
            classify("bert-classifier", fast["wordpiece"]) | {"tokenizer": "wordpiece"},
            classify("bert-tokens", fast["wordpiece"]) | {"tokenizer": "wordpiece"},
            classify("t5-classifier", fast["unigram"]) | {"tokenizer": "unigram"},
            classify("llama-classifier", fast["bpe"]) | {"tokenizer": "bpe"},
        ],
        "generate": [
            generate("llama", fast["bpe"], PROMPTS + LONG, 14) | {"tokenizer": "bpe"},
            generate("gpt2", fast["bpe"], PROMPTS, 8) | {"tokenizer": "bpe"},
        ],
    }
    (TEXT / "golden.json").write_text(json.dumps(golden, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
