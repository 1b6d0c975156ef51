"""Mean pooling over packed sequences."""

from typing import Any

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from ..runtime.optional_triton import tl, triton
from ..runtime.packing import check_cu_seqlens, spans


def mean_pool(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Mean of each packed sequence's rows, summed in float32.

    Equals the masked mean of transformers' Wav2Vec2ForSequenceClassification at batch size 1, to the bit
    independently of the batch's other sequences. A sequence without rows gives NaN, as `torch.mean` does.

    Args:
        hidden: float [tokens, width], packed.
        cu_seqlens: int32 [n + 1], offsets of the sequences.

    Returns:
        [n, width], of hidden's dtype.

    Raises:
        ValueError: an unsupported dtype or shape, or offsets that do not match the rows.
    """
    if hidden.dim() != 2 or not hidden.dtype.is_floating_point:
        raise ValueError(
            "mean_pool takes rows of floating-point numbers [tokens, width], "
            f"got {hidden.dtype} of shape {list(hidden.shape)}"
        )
    check_cu_seqlens(cu_seqlens, hidden.shape[0], "cu_seqlens")
    return _mean_pool(hidden, cu_seqlens)


def mean_pool_reference(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Reference implementation of `mean_pool` in plain torch: one sequence at a time, in float32 or wider.

    Also the CPU version: unlike a matrix product, a sum over rows is the same at every memory address.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    means = [hidden[start:end].to(wide).mean(0, keepdim=True) for start, end in spans(cu_seqlens)]
    return torch.cat([hidden[:0].to(wide), *means]).to(hidden.dtype)


def mean_pool_triton(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Mean of each sequence's rows by two kernel launches: sums of chunks of `SPAN` rows, then means.

    The code calls the chunks pieces. Sequences are divided, because one recording of 5,000 rows of 1,024
    bfloat16 values is 10 MB: 2.4 µs at 4.3 TB/s if all multiprocessors load at once. A program for each
    block of columns would be a handful of programs, each waiting for memory eighty times in a row. Chunks are
    short, because 4,096 clips of 49 rows of 768 values are 308 MB, 72 µs, in which a program may do little
    besides reading its rows.

    The exact number of chunks is known on the device only, and the launches do not wait for it: a chunk for
    every full `SPAN` of all tokens and one for every sequence always suffice, and the index of a sequence's
    first chunk follows from its offset (`first_piece`).
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
    """Index of the sum of a sequence's first chunk, given the sequence's number and first row.

    Before the next sequence's first index there is room for all chunks of this one: from row a to row b there
    are b // SPAN - a // SPAN + 1 indices, at least (b - a) / SPAN, rounded up.
    """
    return start // SPAN + sequence


@kernel(sizes=("width",), outputs=("sum_ptr",))
def mean_pool_pieces_kernel(
    hidden_ptr,  # [tokens, width]
    cu_seqlens_ptr,  # [sequences + 1]
    sum_ptr,  # [pieces, width], float32
    sequences: tl.int32,
    search_steps: tl.int32,  # steps of a binary search over the sequences
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

    # The whole piece without a loop, so that all of its loads run at once, summed in float32. It begins at a
    # multiple of SPAN rows in its sequence, so that other sequences change neither its rows nor their order.
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
