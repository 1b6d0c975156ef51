"""Mean pooling over packed sequences."""

from typing import Any

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from ..runtime.optional_triton import tl, triton
from ..runtime.packing import check_cu_seqlens, spans


def mean_pool(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Mean of each sequence's rows, summed in float32.

    The masked mean of transformers' Wav2Vec2ForSequenceClassification, as it is at batch size 1. The bits
    depend on the sequence alone. A sequence without rows gives NaN, as `torch.mean` does.

    Args:
        hidden: float [tokens, width], packed.
        cu_seqlens: int32 [n + 1], offsets of the sequences.

    Returns:
        [n, width], of hidden's dtype.

    Raises:
        ValueError: another dtype or shape, or offsets that do not fit.
    """
    if hidden.dim() != 2 or not hidden.dtype.is_floating_point:
        raise ValueError(
            "mean_pool takes rows of floating-point numbers [tokens, width], "
            f"got {hidden.dtype} of shape {list(hidden.shape)}"
        )
    check_cu_seqlens(cu_seqlens, hidden.shape[0], "cu_seqlens")
    return _mean_pool(hidden, cu_seqlens)


def mean_pool_reference(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Specification in plain torch, a sequence at a time, in float32 at least.

    Also the CPU version: unlike a product, a sum over rows has the same bits at every address in memory.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    means = [hidden[start:end].to(wide).mean(0, keepdim=True) for start, end in spans(cu_seqlens)]
    return torch.cat([hidden[:0].to(wide), *means]).to(hidden.dtype)


def mean_pool_triton(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Two launches, which do not wait for the device: sums of pieces of `SPAN` rows, then means.

    Pieces, because one recording of 5,000 rows of 1,024 bfloat16 numbers is 10 MB: 2.4 µs at 4.3 TB/s if all
    multiprocessors load at once. A program for each block of columns would be a handful of programs, each
    waiting for memory eighty times in a row. Short pieces, because 4,096 clips of 49 rows of 768 numbers are
    308 MB, 72 µs, in which a program may do little besides reading its rows.

    The number of pieces is known on the device only. A piece for every full `SPAN` of all tokens and one for
    every sequence always suffice, and a sequence's first piece follows from its offset (`first_piece`).
    """
    (tokens, width), sequences = hidden.shape, cu_seqlens.numel() - 1
    out = hidden.new_empty(sequences, width)
    key = (hidden.dtype, alignment(width))
    pieces = mean_pool_pieces_kernel.case(hidden.device, *key)
    means = mean_pool_kernel.case(hidden.device, *key)
    max_pieces = tokens // pieces.constant("SPAN") + sequences
    sums = hidden.new_empty(max_pieces, width, dtype=torch.float32)
    columns, steps = pieces.block_count("BLOCK", width), max(sequences - 1, 0).bit_length()
    pieces.launch((max_pieces * columns,), hidden, cu_seqlens, sums, sequences, steps, width)
    means.launch((sequences * columns,), sums, cu_seqlens, out, width)
    return out


@triton.jit
def first_piece(sequence, start, SPAN: tl.constexpr):
    """Index of a sequence's first piece.

    Up to the next sequence's there is room for all of its pieces: from start a to end b,
    b // SPAN - a // SPAN + 1 is at least (b - a) / SPAN, rounded up.
    """
    return start // SPAN + sequence


@kernel(sizes=("width",), outputs=("sum_ptr",))
def mean_pool_pieces_kernel(
    hidden_ptr,  # [tokens, width]
    cu_seqlens_ptr,  # [sequences + 1]
    sum_ptr,  # [pieces, width], float32
    sequences: tl.int32,
    search_steps: tl.int32,  # halvings that bring the number of sequences to 1
    width: tl.int32,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # Column blocks vary fastest, so that programs that run together read neighbors in memory.
    column_blocks = tl.cdiv(width, BLOCK)
    piece = tl.program_id(0) // column_blocks
    c = tl.program_id(0) % column_blocks * BLOCK + tl.arange(0, BLOCK)

    # Binary search for the sequence of this piece: the last one whose first piece is not behind it.
    sequence, beyond = 0, sequences
    for _ in range(search_steps):
        middle = (sequence + beyond) // 2
        before = first_piece(middle, tl.load(cu_seqlens_ptr + middle), SPAN) <= piece
        sequence = tl.where(before, middle, sequence)
        beyond = tl.where(before, beyond, middle)
    start = tl.load(cu_seqlens_ptr + sequence)
    length = tl.load(cu_seqlens_ptr + sequence + 1) - start
    done = (piece - first_piece(sequence, start, SPAN)) * SPAN
    rows = length - done  # 0 or less in an unused piece

    # The whole piece without a loop, so that its loads are under way together, summed in float32. It begins
    # at a multiple of SPAN in its own sequence, so that no neighbor changes its rows nor their order.
    t = tl.arange(0, SPAN)
    offsets = (start + done).to(tl.int64) * width + t[:, None] * width + c[None, :]
    mask = (t < rows)[:, None] & (c < width)[None, :]
    values = tl.load(hidden_ptr + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(sum_ptr + piece.to(tl.int64) * width + c, tl.sum(values, 0), mask=c < width * (rows > 0))


@kernel(sizes=("width",))
def mean_pool_kernel(
    sum_ptr,  # [pieces, width], float32
    cu_seqlens_ptr,  # [sequences + 1]
    out_ptr,  # [sequences, width]
    width: tl.int32,
    SPAN: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    column_blocks = tl.cdiv(width, BLOCK)
    sequence = tl.program_id(0) // column_blocks
    c = tl.program_id(0) % column_blocks * BLOCK + tl.arange(0, BLOCK)
    start = tl.load(cu_seqlens_ptr + sequence)
    length = tl.load(cu_seqlens_ptr + sequence + 1) - start
    first = first_piece(sequence, start, SPAN).to(tl.int64)
    count = tl.cdiv(length, SPAN)
    piece = tl.arange(0, PIECES)
    total = tl.zeros((PIECES, BLOCK), tl.float32)
    for begin in range(0, count, PIECES):
        mask = (begin + piece < count)[:, None] & (c < width)[None, :]
        offsets = (first + begin + piece)[:, None] * width + c[None, :]
        total += tl.load(sum_ptr + offsets, mask=mask, other=0.0)
    mean = tl.sum(total, 0) / tl.maximum(length, 1)
    mean = tl.where(length > 0, mean, float("nan"))
    outputs = out_ptr + sequence.to(tl.int64) * width + c
    tl.store(outputs, mean.to(out_ptr.dtype.element_ty), mask=c < width)


_mean_pool = Operation(mean_pool_reference, triton=mean_pool_triton)


# A second of speech is 49 rows. A recording of 12 s has ten pieces for each of six column blocks, so that a
# few recordings fill every multiprocessor. Writing the sums adds 6 % to the traffic in bfloat16, and they
# stay in the cache. 128 columns of a row are 256 contiguous bytes.
_types = {"cu_seqlens_ptr": torch.int32, "sum_ptr": torch.float32}
_constants: dict[str, Any] = {"pointers": _types, "num_stages": 1, "SPAN": 64, "BLOCK": 128}
mean_pool_pieces_kernel.declare_all(DTYPES, ALIGNMENTS, **_constants)
mean_pool_kernel.declare_all(DTYPES, ALIGNMENTS, PIECES=16, **_constants)
