"""Group normalization (arXiv 1803.08494) of packed utterances, each over its own time steps."""

from typing import Any

import torch
from torch import Tensor

from ..linear.activation import activate, activate_, activated, check_activation, code_of
from ..runtime.dispatch import Operation
from ..runtime.launch import DTYPES, alignment, kernel, ready
from ..runtime.optional_triton import tl, triton
from ..runtime.packing import check_cu_seqlens, spans


def group_norm(
    hidden: Tensor,
    cu_tokens: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
) -> Tensor:
    """Group normalization of each utterance: `activation((hidden - mean) / sqrt(var + eps) * weight + bias)`.

    Utterances are packed, because padding would enter the statistics.

    Args:
        hidden: [tokens, channels], packed.
        cu_tokens: int32 [n + 1], offsets of the utterances.
        groups: number of equal groups of channels. Mean and variance are over all time steps of an utterance
            and the channels of one group; with as many groups as channels, over time alone.
        weight, bias: [channels].
        eps: added to the variance.
        activation: one of `ACTIVATIONS`.

    Returns:
        [tokens, channels].

    Raises:
        ValueError: shapes or offsets that do not fit, channels that `groups` does not divide, or an unknown
            activation.
    """
    check_cu_seqlens(cu_tokens, hidden.shape[0], "cu_tokens")
    if hidden.dim() != 2 or hidden.shape[1] != weight.shape[0]:
        raise ValueError(f"group_norm takes [tokens, {weight.shape[0]}], got {list(hidden.shape)}")
    if groups < 1 or hidden.shape[1] % groups:
        raise ValueError(f"{hidden.shape[1]} channels cannot be divided into {groups} equal groups")
    check_activation(activation)
    return _group_norm(hidden, cu_tokens, groups, weight, bias, eps, activation=activation)


def group_norm_reference(
    hidden: Tensor,
    cu_tokens: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
) -> Tensor:
    """Reference implementation of `group_norm` in plain torch, by utterance, in float32 at least."""
    channels = hidden.shape[1]
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    utterances = [wide[:0]]
    for start, end in spans(cu_tokens):
        if start == end:
            continue
        utterance = wide[start:end].reshape(end - start, groups, channels // groups)
        # From the first element, so that the deviations of a constant group are exactly 0.
        deviations = utterance - utterance[:1, :, :1]
        deviations = deviations - deviations.mean(dim=(0, 2), keepdim=True)
        variance = deviations.square().mean(dim=(0, 2), keepdim=True)
        utterances.append((deviations * (variance + eps).rsqrt()).reshape(end - start, channels))
    return activate((torch.cat(utterances) * weight + bias).to(hidden.dtype), activation)


def group_norm_cpu(*arguments: Any, activation: str | None = None) -> Tensor:
    """Group normalization on the CPU: the reference's, then an activation with position-independent bits."""
    return activate_(group_norm_reference(*arguments), activation)


def group_norm_triton(
    hidden: Tensor,
    cu_tokens: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
) -> Tensor:
    """Group normalization in three launches: statistics of chunks, statistics of utterances, the result.

    A chunk is 1,024 time steps. An utterance's chunks begin at its own first step, so that sums do not depend
    on its neighbors.
    """
    (tokens, channels), utterances = hidden.shape, cu_tokens.numel() - 1
    out = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    key = (hidden.dtype, alignment(channels))
    chunks = chunk_statistics_kernel.case(hidden.device, *key)
    span = chunks.constant("SPAN")
    # The number of chunks is known on the device only. This is its maximum: one partial chunk per utterance.
    max_chunks = tokens // span + min(utterances, tokens)
    counts = (cu_tokens.diff() + (span - 1)) // span
    cu_chunks = torch.zeros_like(cu_tokens)
    torch.cumsum(counts, 0, dtype=torch.int32, out=cu_chunks[1:])
    indices = torch.arange(max_chunks, dtype=torch.int32, device=hidden.device)
    # Indices after the last chunk get `utterances`.
    chunk_utterances = torch.searchsorted(cu_chunks, indices, right=True, out_int32=True) - 1
    chunk_means, chunk_squares = hidden.new_empty(2, max_chunks, channels, dtype=torch.float32)
    means, scales = hidden.new_empty(2, utterances, groups, dtype=torch.float32)
    chunk_squares, scales = ready(chunk_squares), ready(scales)

    grid = (max_chunks * chunks.block_count("BLOCK_C", channels),)
    layout = (chunk_utterances, cu_chunks, cu_tokens, utterances, channels)
    chunks.launch(grid, hidden, chunk_means, chunk_squares, *layout)
    whole = utterance_statistics_kernel.case(hidden.device)
    tensors = chunk_means, chunk_squares, means, scales, cu_chunks, cu_tokens
    whole_grid = (utterances * whole.block_count("GROUPS", groups),)
    whole.launch(whole_grid, *tensors, groups, channels // groups, span, eps)
    result = group_norm_kernel.case(hidden.device, *key)
    result.launch(grid, hidden, weight, bias, means, scales, out, *layout, groups, code_of(activation))
    return out


@kernel(sizes=("C",), outputs=("mean_ptr", "square_ptr"))
def chunk_statistics_kernel(
    hidden_ptr,  # [tokens, C]
    mean_ptr,  # [chunks, C]
    square_ptr,  # [chunks, C]: sums of squared deviations from the mean
    chunk_utterance_ptr,  # [chunks], `utterances` after the last chunk
    cu_chunks_ptr,  # [utterances + 1]
    cu_tokens_ptr,  # [utterances + 1]
    utterances: tl.int32,
    C: tl.int32,
    SPAN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    column_blocks = tl.cdiv(C, BLOCK_C)
    chunk = tl.program_id(0) // column_blocks
    c = tl.program_id(0) % column_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start, length = chunk_bounds(chunk, chunk_utterance_ptr, cu_chunks_ptr, cu_tokens_ptr, utterances, SPAN)
    t = tl.arange(0, BLOCK_T)
    rows = hidden_ptr + start * C
    offsets = t.to(tl.int64)[:, None] * C + c[None, :]
    inside = (c < C)[None, :]

    # Mean and squares of every BLOCK_T-th step in each lane, in float32 by Welford's rule: one pass, as exact
    # as two, and exact for a constant.
    mean = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    square = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    count = 0.0
    for first in range(0, length, BLOCK_T):
        count += 1.0
        mask = (first + t < length)[:, None] & inside
        value = tl.load(rows + first * C + offsets, mask=mask, other=0.0).to(tl.float32)
        delta = value - mean
        mean = tl.where(mask, mean + delta * (1.0 / count), mean)
        square = tl.where(mask, square + delta * (value - mean), square)

    # Merge the lanes by their numbers of steps, with means measured from the chunk's first step.
    counts = ((length - t + BLOCK_T - 1) // BLOCK_T).to(tl.float32)[:, None]
    counts = tl.where((t < length)[:, None], counts, 0.0)
    origin = tl.load(rows + c, mask=c < C * (length > 0), other=0.0).to(tl.float32)
    distance = tl.where(counts > 0.0, mean - origin[None, :], 0.0)
    shift = tl.sum(distance * counts, 0) / tl.maximum(length, 1)
    deviation = tl.where(counts > 0.0, distance - shift[None, :], 0.0)
    total = tl.sum(square + counts * deviation * deviation, 0)
    outputs = chunk.to(tl.int64) * C + c
    tl.store(mean_ptr + outputs, origin + shift, mask=c < C * (length > 0))
    tl.store(square_ptr + outputs, total, mask=c < C * (length > 0))


@kernel(outputs=("mean_ptr", "scale_ptr"))
def utterance_statistics_kernel(
    chunk_mean_ptr,  # [chunks, groups * members]
    chunk_square_ptr,  # [chunks, groups * members]
    mean_ptr,  # [utterances, groups]
    scale_ptr,  # [utterances, groups]: 1 / sqrt(variance + eps)
    cu_chunks_ptr,  # [utterances + 1]
    cu_tokens_ptr,  # [utterances + 1]
    groups: tl.int32,
    members: tl.int32,  # channels of a group
    span: tl.int32,  # steps of a full chunk
    eps: tl.float32,
    GROUPS: tl.constexpr,
    PARTS: tl.constexpr,
):
    group_blocks = tl.cdiv(groups, GROUPS)
    utterance = tl.program_id(0) // group_blocks
    group = tl.program_id(0) % group_blocks * GROUPS + tl.arange(0, GROUPS)
    start = tl.load(cu_tokens_ptr + utterance)
    length = tl.load(cu_tokens_ptr + utterance + 1) - start
    first = tl.load(cu_chunks_ptr + utterance)
    # A part is one channel of one chunk. Two passes over few values, which stay in the cache, in float32.
    parts = (tl.load(cu_chunks_ptr + utterance + 1) - first) * members
    part = tl.arange(0, PARTS)
    channels = groups * members
    rows = first.to(tl.int64) * channels + group[None, :] * members
    # From the first part's mean, so that the deviations of a constant group are exactly 0.
    origin = tl.load(
        chunk_mean_ptr + first.to(tl.int64) * channels + group * members,
        mask=group < groups * (parts > 0),
        other=0.0,
    )
    sums = tl.zeros((PARTS, GROUPS), tl.float32)
    for begin in range(0, parts, PARTS):
        chunk = (begin + part) // members
        steps = tl.minimum(length - chunk * span, span).to(tl.float32)[:, None]
        mask = (begin + part < parts)[:, None] & (group < groups)[None, :]
        offsets = rows + chunk.to(tl.int64)[:, None] * channels + ((begin + part) % members)[:, None]
        mean = tl.load(chunk_mean_ptr + offsets, mask=mask, other=0.0)
        sums += tl.where(mask, steps * (mean - origin[None, :]), 0.0)
    numbers = tl.maximum(length, 1).to(tl.float32) * members
    shift = tl.sum(sums, 0) / numbers
    squares = tl.zeros((PARTS, GROUPS), tl.float32)
    for begin in range(0, parts, PARTS):
        chunk = (begin + part) // members
        steps = tl.minimum(length - chunk * span, span).to(tl.float32)[:, None]
        mask = (begin + part < parts)[:, None] & (group < groups)[None, :]
        offsets = rows + chunk.to(tl.int64)[:, None] * channels + ((begin + part) % members)[:, None]
        mean = tl.load(chunk_mean_ptr + offsets, mask=mask, other=0.0)
        deviation = mean - origin[None, :] - shift[None, :]
        within = tl.load(chunk_square_ptr + offsets, mask=mask, other=0.0)
        squares += tl.where(mask, within + steps * deviation * deviation, 0.0)
    outputs = utterance.to(tl.int64) * groups + group
    mask = group < groups * (parts > 0)
    tl.store(mean_ptr + outputs, origin + shift, mask=mask)
    tl.store(scale_ptr + outputs, tl.rsqrt(tl.sum(squares, 0) / numbers + eps), mask=mask)


@kernel(sizes=("C",))
def group_norm_kernel(
    hidden_ptr,  # [tokens, C]
    weight_ptr,  # [C]
    bias_ptr,  # [C]
    mean_ptr,  # [utterances, groups]
    scale_ptr,  # [utterances, groups]
    out_ptr,  # [tokens, C]
    chunk_utterance_ptr,  # [chunks], `utterances` after the last chunk
    cu_chunks_ptr,  # [utterances + 1]
    cu_tokens_ptr,  # [utterances + 1]
    utterances: tl.int32,
    C: tl.int32,
    groups: tl.int32,
    activation: tl.int32,  # its `code_of`
    SPAN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    column_blocks = tl.cdiv(C, BLOCK_C)
    chunk = tl.program_id(0) // column_blocks
    c = tl.program_id(0) % column_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start, length = chunk_bounds(chunk, chunk_utterance_ptr, cu_chunks_ptr, cu_tokens_ptr, utterances, SPAN)
    t = tl.arange(0, BLOCK_T)
    offsets = start * C + t.to(tl.int64)[:, None] * C + c[None, :]
    here = c < C * (length > 0)
    statistics = tl.load(chunk_utterance_ptr + chunk).to(tl.int64) * groups + c // (C // groups)
    mean = tl.load(mean_ptr + statistics, mask=here, other=0.0)
    scale = tl.load(scale_ptr + statistics, mask=here, other=0.0)
    scale *= tl.load(weight_ptr + c, mask=here, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=here, other=0.0).to(tl.float32)
    for first in range(0, length, BLOCK_T):
        mask = (first + t < length)[:, None] & (c < C)[None, :]
        value = tl.load(hidden_ptr + first * C + offsets, mask=mask, other=0.0).to(tl.float32)
        out = activated((value - mean[None, :]) * scale[None, :] + bias[None, :], activation)
        tl.store(out_ptr + first * C + offsets, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def chunk_bounds(chunk, chunk_utterance_ptr, cu_chunks_ptr, cu_tokens_ptr, utterances, SPAN: tl.constexpr):
    """First token of a chunk and its number of tokens, 0 after the last chunk."""
    owner = tl.load(chunk_utterance_ptr + chunk)
    real = owner < utterances
    utterance = tl.where(real, owner, 0)
    start = tl.load(cu_tokens_ptr + utterance)
    end = tl.load(cu_tokens_ptr + utterance + 1)
    begin = start + (chunk - tl.load(cu_chunks_ptr + utterance)) * SPAN
    length = tl.where(real, tl.minimum(end - begin, SPAN), 0)
    return tl.where(real, begin, 0).to(tl.int64), length


_group_norm = Operation(group_norm_reference, cpu=group_norm_cpu, triton=group_norm_triton)


_types = dict.fromkeys(("chunk_utterance_ptr", "cu_chunks_ptr", "cu_tokens_ptr"), torch.int32)
_types |= dict.fromkeys(
    ("chunk_mean_ptr", "chunk_square_ptr", "mean_ptr", "square_ptr", "scale_ptr"), torch.float32
)
utterance_statistics_kernel.declare_all(pointers=_types, num_stages=1, GROUPS=16, PARTS=32)
for _kernel in (chunk_statistics_kernel, group_norm_kernel):  # both work on the same chunks
    for _sizes, _steps in (("aligned", 32), ("any", 16)):
        _kernel.declare_all(
            DTYPES, (_sizes,), pointers=_types, num_stages=1, SPAN=1024, BLOCK_T=_steps, BLOCK_C=64
        )
