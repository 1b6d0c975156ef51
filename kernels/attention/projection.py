"""Queries, keys and values of a decode step, of which keys and values go straight into the cache's pages."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..linear.gemm import check_linear, linear_cpu, linear_reference, linear_triton
from ..linear.joined import apart, halves, joined
from ..norm.layer_norm import layer_norm_triton
from ..norm.normalized_linear import WIDEST_NORM, check_norm, normalize_reference, normalized_linear_kernel
from ..runtime.dispatch import Operation
from ..runtime.launch import alignment
from .kv_cache import PAGE_SIZE, check_pools, store_reference, store_triton


class NewRows(NamedTuple):
    """Places of a step's new tokens in one layer of the paged cache."""

    keys: Tensor  # [pages, 16, heads, head_dim], page pool, as the values
    values: Tensor
    slots: Tensor  # int64 [rows], distinct cache positions, `page * 16 + position in the page`


def project_into_pages(
    hidden: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    places: NewRows,
    *,
    norm_weight: Tensor | None = None,
    norm_bias: Tensor | None = None,
    eps: float = 1e-5,
    phase: str = "decode",
) -> Tensor:
    """Project hidden states to queries, keys and values, and write the latter two into pages, in place.

    Args:
        hidden: [rows, K].
        weights: [N, K] of one linear layer or several, whose outputs are queries, keys and values.
        biases: [N] of each, or None.
        places: pages to write to, and where.
        norm_weight, norm_bias: [K], of a layer norm before the layers, or of an RMS norm where the bias is
            None; no norm where both are.
        eps: added to the norm's variance.
        phase: as in `linear`.

    Returns:
        Queries [rows, heads, head_dim].

    Raises:
        ValueError: shapes that do not fit, an unknown phase, or pools that cannot be written in place.
    """
    heads, head_dim = places.keys.shape[2:]
    for weight in weights:
        check_linear(hidden, weight, None, phase)
    if norm_weight is not None:
        check_norm(hidden, norm_weight)
    outputs = sum(weight.shape[0] for weight in weights)
    if outputs != 3 * heads * head_dim or places.values.shape != places.keys.shape:
        raise ValueError(
            f"{outputs} outputs are no queries, keys and values of {heads} heads of {head_dim}, of which "
            f"pages are {list(places.keys.shape)} and {list(places.values.shape)}"
        )
    if places.slots.shape != hidden.shape[:1]:
        raise ValueError(f"{hidden.shape[0]} rows need as many slots, got {list(places.slots.shape)}")
    check_pools(places.keys, places.values)
    query = _project(hidden, *places, norm_weight, norm_bias, *weights, *biases, eps=eps, phase=phase)
    return query.view(hidden.shape[0], heads, head_dim)  # type: ignore[no-any-return]


def _apart(
    layer: Callable[..., Tensor],
    store: Callable[..., None],
    hidden: Tensor,
    places: NewRows,
    weights_and_biases: Sequence[Tensor | None],
    **options: Any,
) -> Tensor:
    """Queries by `layer`, with keys and values by `store`, one operation after the other."""
    query, *rows = apart(layer, hidden, *halves(weights_and_biases), parts=3, **options)
    shape = len(hidden), *places.keys.shape[2:]
    key, value = [row.view(shape).to(places.keys.dtype) for row in rows]
    store(places.keys, places.values, key, value, places.slots)
    return query


def project_reference(
    hidden: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *weights_and_biases: Tensor | None,
    eps: float,
    phase: str,
) -> Tensor:
    """Reference implementation of `project_into_pages` in plain torch: [rows, heads * head_dim]."""
    if norm_weight is not None:
        hidden = normalize_reference(hidden, norm_weight, norm_bias, eps)
    places = NewRows(keys, values, slots)
    return _apart(linear_reference, store_reference, hidden, places, weights_and_biases)


def project_cpu(
    hidden: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *weights_and_biases: Tensor | None,
    eps: float,
    phase: str,
) -> Tensor:
    """`project_into_pages` on the CPU, by `linear_cpu`: each layer has the bits that it has alone."""
    if norm_weight is not None:
        hidden = normalize_reference(hidden, norm_weight, norm_bias, eps)
    places = NewRows(keys, values, slots)
    return _apart(linear_cpu, store_reference, hidden, places, weights_and_biases, phase=phase)


def project_triton(
    hidden: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    norm_weight: Tensor | None,
    norm_bias: Tensor | None,
    *weights_and_biases: Tensor | None,
    eps: float,
    phase: str,
) -> Tensor:
    """`project_into_pages` in one launch, for a decode step's phase and a cache of the same dtype."""
    (rows, width), outputs = hidden.shape, keys.shape[2] * keys.shape[3]
    fused = phase == "decode" and keys.dtype == hidden.dtype
    if norm_weight is not None and not (fused and width <= WIDEST_NORM):
        hidden = layer_norm_triton(hidden, norm_weight, norm_bias, eps)  # type: ignore[assignment]
        norm_weight = norm_bias = None
    if not fused:
        places = NewRows(keys, values, slots)
        return _apart(linear_triton, store_triton, hidden, places, weights_and_biases, phase=phase)
    weight, bias = joined(*halves(weights_and_biases))
    out = hidden.new_empty(rows, outputs)
    case = normalized_linear_kernel.case(hidden.device, "paged", hidden.dtype, alignment(width, outputs))
    tiles = case.block_count("BLOCK_M", rows) * case.block_count("BLOCK_N", outputs) * 3
    tensors = hidden, norm_weight, norm_bias, weight, bias, out, keys, values, slots
    sizes = rows, outputs, width, keys.shape[0] * PAGE_SIZE
    flags = norm_weight is not None, norm_bias is not None, bias is not None
    case.launch((tiles,), *tensors, *sizes, *flags, 0, eps, -torch.inf)
    return out


_project = Operation(project_reference, cpu=project_cpu, triton=project_triton)
