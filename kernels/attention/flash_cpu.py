"""Attention of one long sequence by oneDNN's matrix products, for CPUs where that is faster."""

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..linear.cpu import one_dnn, packs

LONG = 64  # least number of queries and keys for which this can beat torch's fused attention
_QUERIES = 256  # queries of a block: with 1,500 keys its scores take 1.5 MB, in and near a core's cache
_STEP = 32  # keys are padded to a multiple of it: oneDNN compiles code for each number of keys


@cache
def products_pay(dtype: torch.dtype) -> bool:
    """True where `attention_by_products` is faster than torch's fused attention for `LONG` or more tokens.

    Fused attention multiplies by MKL, which uses no AVX-512 on AMD's processors. On an Intel Xeon core it
    takes half the time of the other, in float32 and bfloat16, from 64 keys to 1,024.
    """
    # torch before 2.12 does not give the processor's name.
    about: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return packs(dtype) and not str(about.get("cpu_name", "")).startswith("Intel")


def attention_by_products(
    out: Tensor, query: Tensor, key: Tensor, value: Tensor, scale: float | None
) -> None:
    """Write the attention of one sequence, `softmax(query @ key.T * scale) @ value`, to `out`.

    All tensors are [tokens, heads, head_dim]. In bfloat16, scores and weights are rounded to bfloat16 too, as
    in transformers.
    """
    queries, keys, head_dim = query.shape[0], key.shape[0], query.shape[2]
    scale = head_dim**-0.5 if scale is None else scale
    wide_query = _padded(query.transpose(0, 1), 0, -queries % _STEP).mul_(scale)
    wide_key = _padded(key.transpose(0, 1), 0, -keys % _STEP)
    wide_value = _padded(value.permute(1, 2, 0), -keys % _STEP, 0)
    for head in range(query.shape[1]):
        for first in range(0, queries, _QUERIES):
            scores = one_dnn(wide_query[head, first : first + _QUERIES], wide_key[head])
            scores[:, keys:] = -math.inf
            mixed = one_dnn(torch.softmax(scores, -1, out=scores), wide_value[head])
            out[first : first + _QUERIES, head] = mixed[: queries - first]


def _padded(wide: Tensor, columns: int, rows: int) -> Tensor:
    """Contiguous copy of `wide` [heads, length, width], with `rows` and `columns` of zeros appended."""
    heads, before, width = wide.shape
    padded = wide.new_zeros(heads, before + rows, width + columns)
    padded[:, :before, :width] = wide
    return padded
