"""Masked mean pooling: the mean of each packed sequence's rows."""

from typing import Any

import torch
from torch import Tensor

from ..runtime.dispatch import choose
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, ready
from ..runtime.optional_triton import tl, triton
from ..runtime.packing import check_cu_seqlens, spans


def mean_pool(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The mean of each sequence's rows, summed in float32.

    What a padded batch needs a mask for: only a sequence's own rows count, as in transformers'
    Wav2Vec2ForSequenceClassification at batch size 1. Which bits come out depends on the sequence alone. One
    without rows has no mean and gives NaN, as `torch.mean` does: 0 would pass for an answer.

    Args:
        hidden: float [tokens, width], sequences end to end.
        cu_seqlens: int32 [n + 1], where each sequence begins; first 0, last the number of tokens.

    Returns:
        [n, width], of hidden's dtype.

    Raises:
        ValueError: for another dtype or shape, or offsets that do not fit.
    """
    if hidden.dim() != 2 or not hidden.dtype.is_floating_point:
        raise ValueError(
            "mean_pool takes rows of floating-point numbers [tokens, width], "
            f"got {hidden.dtype} of shape {list(hidden.shape)}"
        )
    check_cu_seqlens(cu_seqlens, hidden.shape[0], "cu_seqlens")
    run = choose(hidden, cu_seqlens, reference=mean_pool_reference, triton=mean_pool_triton)
    return run(hidden, cu_seqlens)


def mean_pool_reference(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The specification, in plain torch: one sequence after the other, in float32 at least.

    It serves CPU tensors as it is: a sum over rows has the same bits wherever they begin in memory, so that,
    other than before a product, nothing is gained by `aligned`.
    """
    wide = torch.promote_types(hidden.dtype, torch.float32)
    means = [hidden[start:end].to(wide).mean(0, keepdim=True) for start, end in spans(cu_seqlens)]
    return torch.cat([hidden[:0].to(wide), *means]).to(hidden.dtype)


def mean_pool_triton(hidden: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Two launches, which do not wait for the device: sums of pieces of `SPAN` rows, and means made of them.

    Two numbers decided this. One recording of 5,000 rows of 1,024 bfloat16 numbers is 10 MB, 2.4 µs at
    4.3 TB/s, but only with megabytes under way at once, on all multiprocessors: a program for each block of
    columns, going down the rows, would be a handful of programs that wait for memory eighty times in a row.
    So rows are divided too. And 4,096 clips of 49 rows of 768 numbers are 308 MB, 72 µs: their pieces must be
    about as long as they are, and no program may do much beside reading its own.

    An allowance of places, one for every full `SPAN` of all tokens and one more for every sequence, always
    suffices. Where a sequence's places begin follows from where it begins in the batch (`first_place`), so
    that nobody has to count the pieces first: the device alone knows how many there are.
    """
    (tokens, width), sequences = hidden.shape, cu_seqlens.numel() - 1
    out = hidden.new_empty(sequences, width)
    key = (hidden.dtype, "aligned" if width % 16 == 0 else "any")
    pieces = mean_pool_pieces_kernel.case(hidden.device, *key)
    means = mean_pool_kernel.case(hidden.device, *key)
    places = tokens // pieces.constant("SPAN") + sequences
    sums = hidden.new_empty(places, width, dtype=torch.float32)
    cu_seqlens = ready(cu_seqlens)
    pieces.launch(
        (places * triton.cdiv(width, pieces.constant("BLOCK")),),
        ready(hidden),
        cu_seqlens,
        sums,
        sequences,
        max(sequences - 1, 0).bit_length(),
        width,
    )
    means.launch((sequences * triton.cdiv(width, means.constant("BLOCK")),), sums, cu_seqlens, out, width)
    return out


@triton.jit
def first_place(sequence, start, SPAN: tl.constexpr):
    """Where a sequence's pieces have their places, of which there is one for each piece at least: from its
    start `a` to its end `b`, b // SPAN - a // SPAN + 1 is no less than (b - a) / SPAN, rounded up."""
    return start // SPAN + sequence


@kernel(sizes=("width",))
def mean_pool_pieces_kernel(
    hidden_ptr,  # [tokens, width]
    cu_seqlens_ptr,  # [sequences + 1]
    sum_ptr,  # [places, width], float32
    sequences: tl.int32,
    halvings: tl.int32,  # which leave one sequence of them all
    width: tl.int32,
    SPAN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # Blocks of columns first, so that neighbors in time read neighbors in memory.
    column_blocks = tl.cdiv(width, BLOCK)
    place = tl.program_id(0) // column_blocks
    c = tl.program_id(0) % column_blocks * BLOCK + tl.arange(0, BLOCK)

    # The sequence that has this place: the last whose places begin at it or before.
    sequence, beyond = 0, sequences
    for _ in range(halvings):
        middle = (sequence + beyond) // 2
        before = first_place(middle, tl.load(cu_seqlens_ptr + middle), SPAN) <= place
        sequence = tl.where(before, middle, sequence)
        beyond = tl.where(before, beyond, middle)
    start = tl.load(cu_seqlens_ptr + sequence)
    length = tl.load(cu_seqlens_ptr + sequence + 1) - start
    done = (place - first_place(sequence, start, SPAN)) * SPAN
    rows = length - done  # 0 or less in a place that is left over

    # The whole piece and no loop, so that its loads are under way together. It begins at so many rows of its
    # own sequence: which rows are added up, and in which order, no neighbor can change.
    t = tl.arange(0, SPAN)
    offsets = (start + done).to(tl.int64) * width + t[:, None] * width + c[None, :]
    there = (t < rows)[:, None] & (c < width)[None, :]
    values = tl.load(hidden_ptr + offsets, mask=there, other=0.0).to(tl.float32)
    tl.store(sum_ptr + place.to(tl.int64) * width + c, tl.sum(values, 0), mask=c < width * (rows > 0))


@kernel(sizes=("width",))
def mean_pool_kernel(
    sum_ptr,  # [places, width], float32
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
    first = first_place(sequence, start, SPAN).to(tl.int64)
    count = tl.cdiv(length, SPAN)
    piece = tl.arange(0, PIECES)
    total = tl.zeros((PIECES, BLOCK), tl.float32)
    for begin in range(0, count, PIECES):
        there = (begin + piece < count)[:, None] & (c < width)[None, :]
        offsets = (first + begin + piece)[:, None] * width + c[None, :]
        total += tl.load(sum_ptr + offsets, mask=there, other=0.0)
    mean = tl.sum(total, 0) / tl.maximum(length, 1)
    mean = tl.where(length > 0, mean, float("nan"))
    outputs = out_ptr + sequence.to(tl.int64) * width + c
    tl.store(outputs, mean.to(out_ptr.dtype.element_ty), mask=c < width)


def _declare() -> None:
    """Pieces of 64 rows: a second of speech is 49, and a recording of 12 s makes ten of them for each of six
    blocks of columns, so that a few recordings are programs enough for every multiprocessor. Their sums add
    6 % to what moves in bfloat16, and stay in the cache. A row's 128 columns are 256 bytes at a stretch."""
    span = 64
    for architecture in ARCHITECTURES:
        for dtype in DTYPES:
            for alignment in ("aligned", "any"):
                pointers = {"cu_seqlens_ptr": torch.int32, "sum_ptr": torch.float32}
                shared: dict[str, Any] = {
                    "architecture": architecture,
                    "aligned": alignment == "aligned",
                    "num_stages": 1,
                    "SPAN": span,
                }
                mean_pool_pieces_kernel.declare(
                    dtype, alignment, pointers=pointers | {"hidden_ptr": dtype}, BLOCK=128, **shared
                )
                mean_pool_kernel.declare(
                    dtype, alignment, pointers=pointers | {"out_ptr": dtype}, PIECES=16, BLOCK=128, **shared
                )


_declare()
