"""Tiny models of every text family, width 24, and their texts.

Tests import this as `text_families`: pyproject.toml puts tests/support on their path.
"""

from typing import Any

import torch
from torch import Tensor

import tritone
from tritone.kernels.runtime.packing import cumulative

BERT: dict[str, Any] = {
    "vocab_size": 31,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 12,
}
# By the first part of the names of a family's classes: fields of its configuration.
SIZES: dict[str, dict[str, Any]] = {
    "Albert": {**BERT, "num_hidden_layers": 4, "embedding_size": 10, "initializer_range": 0.3},
    "Bart": {
        "vocab_size": 29,
        "max_position_embeddings": 40,
        "d_model": 24,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 3,
        "encoder_ffn_dim": 20,
        "decoder_ffn_dim": 20,
        "dropout": 0.0,
    },
    "Bert": {**BERT, "initializer_range": 0.3},
    "DistilBert": {
        "vocab_size": 31,
        "dim": 24,
        "n_layers": 2,
        "n_heads": 3,
        "hidden_dim": 20,
        "max_position_embeddings": 12,
        "initializer_range": 0.3,
    },
    "GPT2": {
        "vocab_size": 31,
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 3,
        "n_positions": 60,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    },
    "GPTNeo": {
        "vocab_size": 31,
        "hidden_size": 24,
        "num_layers": 3,
        "attention_types": [[["global"], 1], [["local"], 2]],
        "num_heads": 3,
        "window_size": 4,
        "max_position_embeddings": 60,
        "initializer_range": 0.3,
        "pad_token_id": 0,
    },
    "Roberta": {**BERT, "initializer_range": 0.3},
    "T5": {
        "vocab_size": 29,
        "d_model": 24,
        "d_kv": 7,
        "d_ff": 20,
        "num_layers": 2,
        "num_heads": 2,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 9,
        "dropout_rate": 0.0,
        "decoder_start_token_id": 0,
        "eos_token_id": 2,
    },
    "XLNet": {
        "vocab_size": 31,
        "d_model": 24,
        "n_layer": 2,
        "n_head": 3,
        "d_inner": 30,
        "initializer_range": 0.3,
    },
}


SIZES["MBart"] = SIZES["Bart"]
SIZES["Speech2Text2"] = {
    "vocab_size": 29,
    "max_target_positions": 40,
    "d_model": 24,
    "decoder_layers": 2,
    "decoder_attention_heads": 3,
    "decoder_ffn_dim": 20,
    "dropout": 0.0,
}
CLASSIFIERS = ("Albert", "Bart", "Bert", "DistilBert", "GPT2", "GPTNeo", "Roberta", "T5", "XLNet")


def make(family: str, kind: str, **fields: Any) -> Any:
    """A family's model in evaluation mode, of its class of this kind, such as "ForSequenceClassification"."""
    torch.manual_seed(0)
    config = getattr(tritone, f"{family}Config")(**{**SIZES[family], **fields})
    return getattr(tritone, f"{family}{kind}")(config).eval()


def classifier(family: str, **fields: Any) -> Any:
    """A family's classifier."""
    return make(family, "ForSequenceClassification", **fields)


def tokens(*shape: int) -> Tensor:
    """Token ids of a shape, none of which is a padding token."""
    return torch.randint(4, 29, shape, generator=torch.Generator().manual_seed(sum(shape)))


def text(length: int) -> Tensor:
    """Token ids [length] that end with the end token."""
    ids = tokens(length)
    ids[-1] = 2
    return ids


def packed(lengths: list[int], types: bool = False) -> tuple[Tensor, Tensor]:
    """Texts end to end, ids [tokens, 1] or with their types [tokens, 2], and offsets."""
    columns = [torch.cat([text(length) for length in lengths])]
    if types:
        columns.append(torch.arange(sum(lengths)) % 5 // 2)
    return torch.stack(columns, 1), cumulative(lengths)
