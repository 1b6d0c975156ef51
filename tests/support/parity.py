"""Comparison with transformers: random weights, padded batches, and tensors that agree.

Tests import this as `parity`: pyproject.toml puts tests/support on their path.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache

BERT_SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 50,
    "max_position_embeddings": 40,
}
# Sizes that a padded or vectorized kernel would like to be rounder than they are.
ODD_BERT_SIZES: dict[str, Any] = {
    "vocab_size": 83,
    "hidden_size": 33,
    "num_hidden_layers": 3,
    "num_attention_heads": 11,
    "intermediate_size": 17,
    "max_position_embeddings": 57,
    "hidden_act": "gelu_new",
    "layer_norm_eps": 1e-5,
}
STATES = {"output_attentions": True, "output_hidden_states": True}


def assert_close(ours: Any, theirs: Any, atol: float = 1e-4, rtol: float = 0.0) -> None:
    """Check that tensors, or tuples of them however deep, agree; a cache of transformers is taken apart."""
    if isinstance(theirs, EncoderDecoderCache):
        layers = zip(theirs.self_attention_cache.layers, theirs.cross_attention_cache.layers, strict=True)
        # BART's cache has as many layers as its encoder; those left over stay empty.
        theirs = tuple(
            (own.keys, own.values, cross.keys, cross.values) for own, cross in layers if own.keys is not None
        )
    elif isinstance(theirs, DynamicCache):
        theirs = tuple((layer.keys, layer.values) for layer in theirs.layers if layer.keys is not None)
    if isinstance(theirs, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)
        return
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, atol, rtol)


def assert_fields_close(ours: Any, theirs: Any, atol: float = 1e-4) -> None:
    """Check that two output objects have the same fields, and that these agree."""
    assert ours.keys() == list(theirs.keys())
    for name in theirs:
        assert_close(ours[name], theirs[name], atol)


def draw_weights(model: torch.nn.Module) -> None:
    """Draw weights at which outputs vary with the input, norms and biases too: none goes unnoticed."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if "norm" in name.lower() or ".ln_" in name:
                parameter.copy_((1 if name.endswith("weight") else 0) + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.2 * noise)
            elif "rel_attn" in name and parameter.dim() == 3 and "seg_embed" not in name:
                parameter.copy_(noise / parameter.shape[0] ** 0.5)
            elif "q_proj" in name:
                parameter.copy_(0.4 * noise / parameter.shape[0] ** 0.5)  # scores are not scaled
            else:
                parameter.copy_(1.2 * noise / min(parameter.shape) ** 0.5)


def pad_rows(
    rows: list[Tensor], fill: int | float, side: str, width: int | None = None
) -> tuple[Tensor, Tensor]:
    """Pad rows [length, ...] on the right or left to one batch [rows, width, ...]; also returns its mask."""
    width = width or max(map(len, rows))
    batch = torch.full((len(rows), width, *rows[0].shape[1:]), fill, dtype=rows[0].dtype)
    mask = torch.zeros(len(rows), width, dtype=torch.int64)
    for index, row in enumerate(rows):
        there = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        batch[index, there], mask[index, there] = row, 1
    return batch, mask
