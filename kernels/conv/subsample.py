"""Strided 1-D convolution with bias and gated linear unit, over packed utterances.

Each utterance is padded with zeros on its own, so that its neighbors in the batch never leak into it. This is
the subsampler of Speech2Text (arXiv 2010.05171) and of wav2vec2's adapter.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..linear.gemm import linear_cpu, tile_of_program
from ..runtime.dispatch import Operation
from ..runtime.launch import ALIGNMENTS, DTYPES, alignment, kernel
from ..runtime.optional_triton import tl
from ..runtime.packing import (
    check_cu_seqlens,
    cumulative,
    index_table,
    lengths_of,
    offsets_after,
    positions_within,
    spans,
)
from ..runtime.weight_cache import cached
from .implicit_gemm import window_starts
from .waveform import flattened


def conv_subsample(
    frames: Tensor, cu_frames: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 2
) -> tuple[Tensor, Tensor]:
    """Strided convolution with a gated linear unit: `glu(conv1d(frames) + bias)` of each utterance.

    Each utterance is padded with `kernel // 2` zeros at both ends.

    Args:
        frames: [frames, C_in], packed.
        cu_frames: int32 [n + 1], offsets of the utterances.
        weight: [2 * C_out, C_in, kernel], as in `torch.nn.Conv1d`.
        bias: [2 * C_out], or None.
        stride: frames from one output to the next.

    Returns:
        Packed outputs [frames', C_out] and their cu_seqlens [n + 1].

    Raises:
        ValueError: shapes that do not fit.
    """
    check_cu_seqlens(cu_frames, frames.shape[0], "cu_frames")
    if frames.shape[1] != weight.shape[1] or weight.shape[0] % 2:
        raise ValueError(
            f"conv_subsample takes frames of {weight.shape[1]} channels and an even number of outputs, "
            f"got {frames.shape[1]} channels and {weight.shape[0]} outputs"
        )
    return _conv_subsample(frames, cu_frames, weight, bias, stride=stride)


def output_length(length: int, kernel: int, stride: int) -> int:
    """Number of outputs of `conv_subsample` for an utterance of `length` frames; 0 for an empty one."""
    return (length + 2 * (kernel // 2) - kernel) // stride + 1 if length else 0


def conv_subsample_reference(
    frames: Tensor, cu_frames: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 2
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `conv_subsample` in plain torch, one utterance at a time."""
    kernel = weight.shape[2]
    outputs = []
    for start, end in spans(cu_frames):
        if start == end:
            outputs.append(frames.new_zeros(0, weight.shape[0] // 2))
            continue
        mixed = F.conv1d(frames[start:end].T[None], weight, bias, stride=stride, padding=kernel // 2)
        outputs.append(F.glu(mixed[0], dim=0).T)
    lengths = [out.shape[0] for out in outputs]
    return torch.cat(outputs), cumulative(lengths, frames.device)


def conv_subsample_cpu(
    frames: Tensor, cu_frames: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 2
) -> tuple[Tensor, Tensor]:
    """Strided convolution as one GEMM over the copied windows of all utterances, zero-padded."""
    kernel = weight.shape[2]
    lengths = lengths_of(cu_frames)
    cu_out = cumulative([output_length(length, kernel, stride) for length in lengths])
    total = int(cu_out[-1])
    utterance = torch.repeat_interleave(torch.arange(len(lengths)), (cu_out[1:] - cu_out[:-1]).long())
    first = positions_within(cu_out, total) * stride - kernel // 2
    inside = first[:, None] + torch.arange(kernel)
    starts, counts = cu_frames[:-1].long()[utterance, None], torch.tensor(lengths)[utterance, None]
    zero_row = frames.shape[0]
    rows = torch.where((inside >= 0) & (inside < counts), starts + inside, zero_row)
    windows = F.pad(frames, (0, 0, 0, 1))[rows].view(total, kernel * weight.shape[1])
    return linear_cpu(windows, cached(flattened, weight), bias, activation="glu"), cu_out


def conv_subsample_triton(
    frames: Tensor, cu_frames: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 2
) -> tuple[Tensor, Tensor]:
    """Strided convolution by an implicit GEMM, whose rows are windows of kernel * C_in elements."""
    doubled, channels, taps = weight.shape
    cu_out = offsets_after(cu_frames, output_length, (taps, stride))[0]
    outputs, rows = doubled // 2, sum(lengths_of(cu_out))
    out = frames.new_empty(rows, outputs)
    case = conv_subsample_kernel.case(frames.device, frames.dtype, alignment(channels, outputs))
    tiles = case.block_count("BLOCK_M", rows) * case.block_count("BLOCK_N", outputs)
    windows = index_table(_windows, cu_frames, cu_out, rows=rows, taps=taps, stride=stride)
    tensors = frames, windows, cached(_rearranged, weight), bias, out
    case.launch((tiles,), *tensors, rows, outputs, channels, taps, bias is not None)
    return out, cu_out


def _windows(cu_frames: Tensor, cu_out: Tensor, rows: int, taps: int, stride: int) -> Tensor:
    """Window table int32 [3, rows]: each output's first frame, its utterance's first frame and end.

    The first frame of an output may lie before its utterance. Tabulated, since a search for the utterance
    would take as long as a short row's sums.
    """
    utterance = torch.repeat_interleave(cu_out.diff(), output_size=rows)
    begin, end = cu_frames[utterance], cu_frames[utterance + 1]
    return torch.stack([window_starts(cu_frames, cu_out, rows, stride) - taps // 2, begin, end])


def _rearranged(weight: Tensor) -> Tensor:
    """Copy of a weight in the order that the kernel reads: [C_out, 2, kernel, C_in], value and gate."""
    doubled, channels, taps = weight.shape
    pairs = weight.detach().view(2, doubled // 2, channels, taps).permute(1, 0, 3, 2)
    return pairs.clone(memory_format=torch.contiguous_format)


@kernel(sizes=("N", "channels"))
def conv_subsample_kernel(
    frames_ptr,  # [frames, channels]
    windows_ptr,  # int32 [3, rows]: first frame, first and end of the utterance
    weight_ptr,  # [N, 2, taps, channels]: value, gate
    bias_ptr,  # [2 * N]: values, then gates
    out_ptr,  # [rows, N]
    rows: tl.int32,
    N: tl.int32,
    channels: tl.int32,
    taps: tl.int32,
    has_bias: tl.int32,  # 0 or 1
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    row_block, column_block = tile_of_program(rows, N, GROUP, BLOCK_M, BLOCK_N)
    m = row_block * BLOCK_M + tl.arange(0, BLOCK_M)
    first_column = column_block * BLOCK_N
    pair = 2 * first_column + tl.arange(0, 2 * BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    K = taps * channels

    # Of a row's K elements, those from `low` to `high` belong to its utterance; the others are zeros.
    first = tl.load(windows_ptr + m, mask=m < rows, other=0)
    begin = tl.load(windows_ptr + rows.to(tl.int64) + m, mask=m < rows, other=0)
    end = tl.load(windows_ptr + 2 * rows.to(tl.int64) + m, mask=m < rows, other=0)
    low = (begin - first) * channels
    high = tl.minimum(end - first, taps) * channels
    frame_rows = frames_ptr + first.to(tl.int64)[:, None] * channels
    weight_rows = weight_ptr + pair.to(tl.int64)[None, :] * K
    both = tl.zeros((BLOCK_M, 2 * BLOCK_N), tl.float32)  # the accumulator and the epilogue are float32
    for start in range(0, K, BLOCK_K):
        index = start + k
        inside = (index[None, :] >= low[:, None]) & (index[None, :] < high[:, None])
        frames = tl.load(frame_rows + index[None, :], mask=inside, other=0.0)
        mask = (pair < 2 * N)[None, :] & (index < K)[:, None]
        weight = tl.load(weight_rows + index[:, None], mask=mask, other=0.0)
        both = tl.dot(frames, weight, both, input_precision=PRECISION)

    n = first_column + tl.arange(0, BLOCK_N)
    values, gates = tl.split(tl.reshape(both, (BLOCK_M, BLOCK_N, 2)))
    with_bias = n < N * has_bias
    values += tl.load(bias_ptr + n, mask=with_bias, other=0.0).to(tl.float32)[None, :]
    gates += tl.load(bias_ptr + N + n, mask=with_bias, other=0.0).to(tl.float32)[None, :]
    offsets = m.to(tl.int64)[:, None] * N + n[None, :]
    mixed = (values * tl.sigmoid(gates)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + offsets, mixed, mask=(m < rows)[:, None] & (n < N)[None, :])


_conv_subsample = Operation(conv_subsample_reference, cpu=conv_subsample_cpu, triton=conv_subsample_triton)


def _blocks(architecture: str, dtype: torch.dtype, sizes: str) -> dict[str, Any]:
    """Tile sizes, warps and pipeline stages of one compiled case.

    The accumulator is twice as wide as the tile, and unaligned rows take a register for the address of every
    element, or two in float32.
    """
    if sizes == "aligned" and dtype != torch.float32:
        rows, outputs, inner, warps, stages = 128, 64, 64, 8, 3
    else:
        rows = 32 if sizes == "any" and dtype == torch.float32 else 64
        outputs, inner, warps, stages = 32, 32, 4, 2
    if architecture == "gfx942":
        inner, stages = 32, 2
    tile = {"BLOCK_M": rows, "BLOCK_N": outputs, "BLOCK_K": inner}
    return tile | {"num_warps": warps, "num_stages": stages}


conv_subsample_kernel.declare_all(
    DTYPES, ALIGNMENTS, pointers={"windows_ptr": torch.int32}, blocks=_blocks, GROUP=8
)
