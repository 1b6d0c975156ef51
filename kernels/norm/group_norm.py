"""Group normalization over packed utterances, each over its own time steps (wav2vec2's first layer)."""

import torch
from torch import Tensor

from ..linear.activation import activate, activate_, activated, check_activation, code_of
from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, ready
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
    """`activation((hidden - mean) / sqrt(var + eps) * weight + bias)`, each utterance and group on its own.

    A padded batch mixes the padding into the statistics; here each utterance has those it has alone.

    Args:
        hidden: [tokens, channels], utterances end to end.
        cu_tokens: int32 [n + 1], where each utterance begins; first 0, last the number of tokens.
        groups: into how many the channels are divided; mean and variance are taken over all time steps of an
            utterance and the channels of one group. With as many groups as channels, over time alone.
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
    run = choose(
        hidden,
        cu_tokens,
        weight,
        bias,
        reference=group_norm_reference,
        cpu=group_norm_cpu,
        triton=group_norm_triton,
    )
    return run(hidden, cu_tokens, groups, weight, bias, eps, activation=activation)


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
    """The specification, in plain torch: one utterance after the other, in float32 at least."""
    channels = hidden.shape[1]
    wide = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
    utterances = [wide[:0]]
    for start, end in spans(cu_tokens):
        if start == end:
            continue
        utterance = wide[start:end].reshape(end - start, groups, channels // groups)
        # Measured from the first number, so that the deviations of a constant group are exactly 0.
        deviations = utterance - utterance[:1, :, :1]
        deviations = deviations - deviations.mean(dim=(0, 2), keepdim=True)
        variance = deviations.square().mean(dim=(0, 2), keepdim=True)
        utterances.append((deviations * (variance + eps).rsqrt()).reshape(end - start, channels))
    return activate((torch.cat(utterances) * weight + bias).to(hidden.dtype), activation)


def group_norm_cpu(
    hidden: Tensor,
    cu_tokens: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
) -> Tensor:
    """The reference, but for an activation whose bits do not depend on the place."""
    return activate_(group_norm_reference(hidden, cu_tokens, groups, weight, bias, eps), activation)


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
    """Three launches: statistics of pieces of 1,024 steps, those of utterances made of them, the result.

    An utterance's pieces begin at its own first step, so their sums do not depend on its neighbors.
    """
    (tokens, channels), utterances = hidden.shape, cu_tokens.numel() - 1
    out = torch.empty_like(hidden, memory_format=torch.contiguous_format)
    alignment = "aligned" if channels % 16 == 0 else "any"
    pieces = piece_statistics_kernel.case(hidden.device, hidden.dtype, alignment)
    span = pieces.constant("SPAN")
    # How many pieces there are, the device alone knows; at most these, every utterance's last one not full.
    most = tokens // span + min(utterances, tokens)
    counts = (cu_tokens.diff() + (span - 1)) // span
    cu_pieces = torch.zeros_like(cu_tokens)
    torch.cumsum(counts, 0, dtype=torch.int32, out=cu_pieces[1:])
    places = torch.arange(most, dtype=torch.int32, device=hidden.device)
    owners = (
        torch.searchsorted(cu_pieces, places, right=True, out_int32=True) - 1
    )  # past the last: utterances
    piece_means, piece_squares = hidden.new_empty(2, most, channels, dtype=torch.float32)
    means, scales = hidden.new_empty(2, utterances, groups, dtype=torch.float32)
    hidden, weight, bias, cu_tokens = map(ready, (hidden, weight, bias, cu_tokens))
    owners, cu_pieces, piece_squares, scales = map(ready, (owners, cu_pieces, piece_squares, scales))

    column_blocks = triton.cdiv(channels, pieces.constant("BLOCK_C"))
    grid = (most * column_blocks,)
    where = (owners, cu_pieces, cu_tokens, utterances, channels)
    pieces.launch(grid, hidden, piece_means, piece_squares, *where)
    whole = utterance_statistics_kernel.case(hidden.device)
    whole.launch(
        (utterances * triton.cdiv(groups, whole.constant("GROUPS")),),
        piece_means,
        piece_squares,
        means,
        scales,
        cu_pieces,
        cu_tokens,
        groups,
        channels // groups,
        span,
        eps,
    )
    result = group_norm_kernel.case(hidden.device, hidden.dtype, alignment)
    result.launch(grid, hidden, weight, bias, means, scales, out, *where, groups, code_of(activation))
    return out


@kernel(sizes=("C",))
def piece_statistics_kernel(
    hidden_ptr,  # [tokens, C]
    mean_ptr,  # [pieces, C]
    square_ptr,  # [pieces, C]: sums of squared deviations from the mean
    owner_ptr,  # [pieces]: its utterance, or `utterances` for one that is not there
    cu_pieces_ptr,  # [utterances + 1]
    cu_tokens_ptr,  # [utterances + 1]
    utterances: tl.int32,
    C: tl.int32,
    SPAN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_C: tl.constexpr,
):
    column_blocks = tl.cdiv(C, BLOCK_C)
    piece = tl.program_id(0) // column_blocks
    c = tl.program_id(0) % column_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start, length = piece_place(piece, owner_ptr, cu_pieces_ptr, cu_tokens_ptr, utterances, SPAN)
    t = tl.arange(0, BLOCK_T)
    rows = hidden_ptr + start * C
    places = t.to(tl.int64)[:, None] * C + c[None, :]
    inside = (c < C)[None, :]

    # Each lane keeps mean and squares of every BLOCK_T-th step by Welford's rule, without a word to the
    # others: one reading, and as exact as two. A constant leaves them exactly what they were.
    mean = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    square = tl.zeros((BLOCK_T, BLOCK_C), tl.float32)
    count = 0.0
    for first in range(0, length, BLOCK_T):
        count += 1.0
        there = (first + t < length)[:, None] & inside
        value = tl.load(rows + first * C + places, mask=there, other=0.0).to(tl.float32)
        delta = value - mean
        mean = tl.where(there, mean + delta * (1.0 / count), mean)
        square = tl.where(there, square + delta * (value - mean), square)

    # The lanes together: how many steps each had, and how far from the first step of the piece.
    shares = ((length - t + BLOCK_T - 1) // BLOCK_T).to(tl.float32)[:, None]
    shares = tl.where((t < length)[:, None], shares, 0.0)
    origin = tl.load(rows + c, mask=c < C * (length > 0), other=0.0).to(tl.float32)
    away = tl.where(shares > 0.0, mean - origin[None, :], 0.0)
    shift = tl.sum(away * shares, 0) / tl.maximum(length, 1)
    spread = tl.where(shares > 0.0, away - shift[None, :], 0.0)
    total = tl.sum(square + shares * spread * spread, 0)
    outputs = piece.to(tl.int64) * C + c
    tl.store(mean_ptr + outputs, origin + shift, mask=c < C * (length > 0))
    tl.store(square_ptr + outputs, total, mask=c < C * (length > 0))


@kernel()
def utterance_statistics_kernel(
    piece_mean_ptr,  # [pieces, groups * members]
    piece_square_ptr,  # [pieces, groups * members]
    mean_ptr,  # [utterances, groups]
    scale_ptr,  # [utterances, groups]: 1 / sqrt(variance + eps)
    cu_pieces_ptr,  # [utterances + 1]
    cu_tokens_ptr,  # [utterances + 1]
    groups: tl.int32,
    members: tl.int32,  # channels of a group
    span: tl.int32,  # steps of a full piece
    eps: tl.float32,
    GROUPS: tl.constexpr,
    PARTS: tl.constexpr,
):
    group_blocks = tl.cdiv(groups, GROUPS)
    utterance = tl.program_id(0) // group_blocks
    group = tl.program_id(0) % group_blocks * GROUPS + tl.arange(0, GROUPS)
    start = tl.load(cu_tokens_ptr + utterance)
    length = tl.load(cu_tokens_ptr + utterance + 1) - start
    first = tl.load(cu_pieces_ptr + utterance)
    # A part is one channel of one piece. Two readings: these are small and stay in the cache.
    parts = (tl.load(cu_pieces_ptr + utterance + 1) - first) * members
    part = tl.arange(0, PARTS)
    channels = groups * members
    rows = first.to(tl.int64) * channels + group[None, :] * members
    # Measured from the first part's mean, which keeps a constant group's deviations exactly 0.
    origin = tl.load(
        piece_mean_ptr + first.to(tl.int64) * channels + group * members,
        mask=group < groups * (parts > 0),
        other=0.0,
    )
    sums = tl.zeros((PARTS, GROUPS), tl.float32)
    for begin in range(0, parts, PARTS):
        place = (begin + part) // members
        steps = tl.minimum(length - place * span, span).to(tl.float32)[:, None]
        there = (begin + part < parts)[:, None] & (group < groups)[None, :]
        offsets = rows + place.to(tl.int64)[:, None] * channels + ((begin + part) % members)[:, None]
        mean = tl.load(piece_mean_ptr + offsets, mask=there, other=0.0)
        sums += tl.where(there, steps * (mean - origin[None, :]), 0.0)
    numbers = tl.maximum(length, 1).to(tl.float32) * members
    shift = tl.sum(sums, 0) / numbers
    squares = tl.zeros((PARTS, GROUPS), tl.float32)
    for begin in range(0, parts, PARTS):
        place = (begin + part) // members
        steps = tl.minimum(length - place * span, span).to(tl.float32)[:, None]
        there = (begin + part < parts)[:, None] & (group < groups)[None, :]
        offsets = rows + place.to(tl.int64)[:, None] * channels + ((begin + part) % members)[:, None]
        away = tl.load(piece_mean_ptr + offsets, mask=there, other=0.0) - origin[None, :] - shift[None, :]
        within = tl.load(piece_square_ptr + offsets, mask=there, other=0.0)
        squares += tl.where(there, within + steps * away * away, 0.0)
    outputs = utterance.to(tl.int64) * groups + group
    here = group < groups * (parts > 0)
    tl.store(mean_ptr + outputs, origin + shift, mask=here)
    tl.store(scale_ptr + outputs, tl.rsqrt(tl.sum(squares, 0) / numbers + eps), mask=here)


@kernel(sizes=("C",))
def group_norm_kernel(
    hidden_ptr,  # [tokens, C]
    weight_ptr,  # [C]
    bias_ptr,  # [C]
    mean_ptr,  # [utterances, groups]
    scale_ptr,  # [utterances, groups]
    out_ptr,  # [tokens, C]
    owner_ptr,  # [pieces], see `piece_statistics_kernel`
    cu_pieces_ptr,  # [utterances + 1]
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
    piece = tl.program_id(0) // column_blocks
    c = tl.program_id(0) % column_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    start, length = piece_place(piece, owner_ptr, cu_pieces_ptr, cu_tokens_ptr, utterances, SPAN)
    t = tl.arange(0, BLOCK_T)
    offsets = start * C + t.to(tl.int64)[:, None] * C + c[None, :]
    here = c < C * (length > 0)
    statistics = tl.load(owner_ptr + piece).to(tl.int64) * groups + c // (C // groups)
    mean = tl.load(mean_ptr + statistics, mask=here, other=0.0)
    scale = tl.load(scale_ptr + statistics, mask=here, other=0.0)
    scale *= tl.load(weight_ptr + c, mask=here, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + c, mask=here, other=0.0).to(tl.float32)
    for first in range(0, length, BLOCK_T):
        there = (first + t < length)[:, None] & (c < C)[None, :]
        value = tl.load(hidden_ptr + first * C + offsets, mask=there, other=0.0).to(tl.float32)
        out = activated((value - mean[None, :]) * scale[None, :] + bias[None, :], activation)
        tl.store(out_ptr + first * C + offsets, out.to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def piece_place(piece, owner_ptr, cu_pieces_ptr, cu_tokens_ptr, utterances, SPAN: tl.constexpr):
    """A piece's first token and its number of tokens, 0 for a piece that is not there."""
    owner = tl.load(owner_ptr + piece)
    real = owner < utterances
    utterance = tl.where(real, owner, 0)
    start = tl.load(cu_tokens_ptr + utterance)
    end = tl.load(cu_tokens_ptr + utterance + 1)
    begin = start + (piece - tl.load(cu_pieces_ptr + utterance)) * SPAN
    length = tl.where(real, tl.minimum(end - begin, SPAN), 0)
    return tl.where(real, begin, 0).to(tl.int64), length


def _declare() -> None:
    numbers = {"owner_ptr": torch.int32, "cu_pieces_ptr": torch.int32, "cu_tokens_ptr": torch.int32}
    for architecture in ARCHITECTURES:
        statistics = dict.fromkeys(
            ("piece_mean_ptr", "piece_square_ptr", "mean_ptr", "scale_ptr"), torch.float32
        )
        utterance_statistics_kernel.declare(
            architecture=architecture, pointers=numbers | statistics, num_stages=1, GROUPS=16, PARTS=32
        )
        for dtype in DTYPES:
            for alignment in ("aligned", "any"):
                # Both go over an utterance in the same pieces.
                shape = {"SPAN": 1024, "BLOCK_T": 32 if alignment == "aligned" else 16, "BLOCK_C": 64}
                piece_statistics_kernel.declare(
                    dtype,
                    alignment,
                    architecture=architecture,
                    pointers=numbers
                    | {"hidden_ptr": dtype, "mean_ptr": torch.float32, "square_ptr": torch.float32},
                    aligned=alignment == "aligned",
                    num_stages=1,
                    **shape,
                )
                group_norm_kernel.declare(
                    dtype,
                    alignment,
                    architecture=architecture,
                    pointers=numbers
                    | dict.fromkeys(("hidden_ptr", "weight_ptr", "bias_ptr", "out_ptr"), dtype)
                    | {"mean_ptr": torch.float32, "scale_ptr": torch.float32},
                    aligned=alignment == "aligned",
                    num_stages=1,
                    **shape,
                )


_declare()
