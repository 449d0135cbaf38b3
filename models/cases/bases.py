"""The bases of the golden cases, random and small, and their inputs. Each function gives a function that draws."""

import torch
import transformers
from golden import spread

import encoder


def bert(kind, **fields):
    config = transformers.BertConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=16,
        type_vocab_size=2,
        **fields,
    )
    return lambda: spread(kind(config), [("query", 1.4), ("key", 1.4)])


def t5(kind, **fields):
    config = transformers.T5Config(
        vocab_size=48,
        d_model=24,
        d_kv=8,
        num_heads=4,
        num_layers=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=10,
        **fields,
    )
    # Scores are not divided by the root of d_kv, so q is drawn smaller, as T5 draws it.
    return lambda: spread(kind(config), [(".q", 0.4), ("relative_attention_bias", 1.2)])


def llama(kind=transformers.LlamaForCausalLM, config=transformers.LlamaConfig, **fields):
    sizes = dict(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=44,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    return lambda: spread(kind(config(**sizes | fields)), [("q_proj", 1.4), ("k_proj", 1.4), ("_proj.bias", 2.0)])


def gpt2(**fields):
    sizes = dict(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=4, n_inner=72)
    config = transformers.GPT2Config(**sizes | fields, bos_token_id=1, eos_token_id=2)
    return lambda: spread(transformers.GPT2LMHeadModel(config), [("c_attn", 1.3)])


def torch_encoder(shapes=None, **fields):
    """`shapes` are those of what lies around the encoder's layers."""
    spec = dict.fromkeys(encoder.FIELDS) | {"model_type": encoder.MODEL_TYPE} | fields
    gains = [("in_proj_weight", 1.3), (".positions", 2.5)]
    return lambda: spread(encoder.Encoder(spec, shapes or {}), gains)


def text(vocab, lengths, first=4, eos=None, types=False, shift=None, padding=True):
    """Rows of random tokens, padded with 0 to the longest. `eos` closes each row; `shift` gives decoder_input_ids, moved
    right by one behind that token."""
    width = max(lengths)

    def draw(row):
        length = lengths[row]
        ids = torch.zeros(1, width, dtype=torch.int64)
        ids[0, :length] = torch.randint(first, vocab, (length,))
        if eos is not None:
            ids[0, length - 1] = eos
        inputs = {"input_ids": ids}
        if padding:
            inputs["attention_mask"] = (torch.arange(width) < length).long().unsqueeze(0)
        if types:
            inputs["token_type_ids"] = (torch.arange(width) >= length // 2).long().unsqueeze(0)
        if shift is not None:
            inputs["decoder_input_ids"] = torch.cat([torch.full((1, 1), shift), ids[:, :-1]], 1)
        return inputs

    return draw


def windows(features, lengths):
    """Rows of continuous features, zero behind their end."""
    width = max(lengths)

    def draw(row):
        mask = (torch.arange(width) < lengths[row]).long().unsqueeze(0)
        return {"inputs": torch.randn(1, width, features) * mask.unsqueeze(-1), "attention_mask": mask}

    return draw
