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
# Chances of dropout, of skipped layers and of masks in training, in one family or another.
CHANCES = (
    *("dropout", "attention_dropout", "activation_dropout", "hidden_dropout", "feat_proj_dropout"),
    *("layerdrop", "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob"),
    *("classifier_dropout", "seq_classif_dropout", "encoder_layerdrop", "decoder_layerdrop", "resid_pdrop"),
    *("embd_pdrop", "attn_pdrop", "resid_dropout", "embed_dropout", "dropout_rate", "summary_last_dropout"),
    *("mask_time_prob", "mask_feature_prob", "final_dropout", "conv_dropout"),
)
STATES = {"output_attentions": True, "output_hidden_states": True}


def two_stacks(
    vocabulary: int,
    width: int,
    layers: tuple[int, int],
    heads: tuple[int, int],
    feed_forward: tuple[int, int],
    **fields: Any,
) -> dict[str, Any]:
    """Fields of a BART, MBart or Speech2Text configuration; pairs are those of encoder and decoder."""
    sizes = {"vocab_size": vocabulary, "d_model": width}
    for index, part in enumerate(("encoder", "decoder")):
        sizes |= {
            f"{part}_layers": layers[index],
            f"{part}_attention_heads": heads[index],
            f"{part}_ffn_dim": feed_forward[index],
        }
    return sizes | fields


def without_chance(config_class: Any) -> dict[str, float]:
    """Fields of a configuration with which its model in training draws nothing."""
    config = config_class()
    return {name: 0.0 for name in CHANCES if hasattr(config, name)}


def assert_close(ours: Any, theirs: Any, atol: float = 1e-4, rtol: float = 0.0) -> None:
    """Check that tensors, or tuples of them however deep, agree; a cache of transformers is taken apart."""
    if isinstance(theirs, EncoderDecoderCache):
        layers = zip(theirs.self_attention_cache.layers, theirs.cross_attention_cache.layers, strict=True)
        # BART's cache has as many layers as its encoder; those left over stay empty, as without an encoder.
        filled = [[one for one in pair if one.keys is not None] for pair in layers]
        theirs = [[part for one in pair for part in (one.keys, one.values)] for pair in filled if pair]
    elif isinstance(theirs, DynamicCache):
        theirs = tuple((layer.keys, layer.values) for layer in theirs.layers if layer.keys is not None)
    if isinstance(theirs, Tensor):
        torch.testing.assert_close(ours, theirs, rtol=rtol, atol=atol)
        return
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, atol, rtol)


def assert_fields_close(ours: Any, theirs: Any, atol: float = 1e-4, rtol: float = 0.0) -> None:
    """Check that two output objects have the same fields, and that these agree."""
    assert ours.keys() == list(theirs.keys())
    for name in theirs:
        assert_close(ours[name], theirs[name], atol, rtol)


def assert_gradients_close(ours: Any, theirs: Any, atol: float = 1e-4) -> None:
    """Check the gradients of two models name by name, within `atol` and a thousandth."""
    wanted = dict(theirs.named_parameters())
    found = dict(ours.named_parameters())
    assert found.keys() == wanted.keys()
    for name, parameter in found.items():
        gradient = wanted[name].grad
        if gradient is None:
            assert parameter.grad is None, name
        else:
            torch.testing.assert_close(
                parameter.grad, gradient, rtol=1e-3, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
            )
    assert sum(parameter.grad is not None for parameter in found.values()) > 20


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
            elif "q_proj" in name or name.endswith(".q.weight"):
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
