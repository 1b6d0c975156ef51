"""Zero-padded strided 1-D convolution with an activation, over packed utterances (Whisper's first layers)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..linear.activation import activate, check_activation
from ..runtime.dispatch import Operation
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
from .implicit_gemm import implicit_gemm, window_starts
from .subsample import output_length
from .waveform import check_stride, flattened, multiply_windows, windows


def padded_conv(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Zero-padded convolution of each utterance: `activation(conv1d(hidden) + bias)`.

    Each utterance is padded with `kernel // 2` zeros at both ends.

    Args:
        hidden: [positions, C_in], packed.
        cu_tokens: int32 [n + 1], offsets of the utterances.
        weight: [C_out, C_in, kernel], as in `torch.nn.Conv1d`.
        bias: [C_out], or None.
        stride: positions from one output to the next.
        activation: one of `ACTIVATIONS`.

    Returns:
        Packed outputs [positions', C_out], `output_length` of each utterance, and their cu_seqlens [n + 1].

    Raises:
        ValueError: shapes or offsets that do not fit, a stride below 1, or an unknown activation.
    """
    check_cu_seqlens(cu_tokens, hidden.shape[0], "cu_tokens")
    if hidden.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"padded_conv takes [positions, {weight.shape[1]}], got {list(hidden.shape)}")
    check_stride(stride)
    check_activation(activation)
    return _padded_conv(hidden, cu_tokens, weight, bias, stride=stride, activation=activation)


def padded_conv_reference(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `padded_conv` in plain torch, one utterance at a time."""
    kernel = weight.shape[2]
    outputs = [hidden.new_zeros(0, weight.shape[0])]
    for start, end in spans(cu_tokens):
        if start < end:
            rows = hidden[start:end].T[None]
            outputs.append(F.conv1d(rows, weight, bias, stride=stride, padding=kernel // 2)[0].T)
    counts = [output_length(length, kernel, stride) for length in lengths_of(cu_tokens)]
    return activate(torch.cat(outputs), activation), cumulative(counts, hidden.device)


def padded_conv_cpu(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolution on the CPU as a GEMM over the windows of a zero-padded copy of each utterance."""
    outputs, _, kernel = weight.shape
    flat, margin = cached(flattened, weight), kernel // 2
    lengths = lengths_of(cu_tokens)
    counts = [output_length(length, kernel, stride) for length in lengths]
    out = hidden.new_empty(sum(counts), outputs)
    for utterance, result in zip(hidden.split(lengths), out.split(counts), strict=True):
        if len(result):
            rows = windows(F.pad(utterance, (0, 0, margin, margin)), kernel, stride)
            multiply_windows(rows, flat, bias, activation, out=result)
    return out, cumulative(counts)


def padded_conv_triton(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int = 1,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolution by one `implicit_gemm` over a copy with zeros around each utterance."""
    _, channels, kernel = weight.shape
    cu_out = offsets_after(cu_tokens, output_length, (kernel, stride))[0]
    positions, margin = hidden.shape[0], kernel // 2
    padded = hidden.new_zeros(positions + 2 * margin * (cu_tokens.numel() - 1), channels)
    padded.index_copy_(0, index_table(_places, cu_tokens, total=positions, margin=margin), hidden)
    rows = sum(lengths_of(cu_out))
    first = index_table(_first_positions, cu_tokens, cu_out, rows=rows, stride=stride, margin=margin)
    flat = cached(flattened, weight)[None]
    return implicit_gemm(padded[None], first, flat, bias, activation=activation), cu_out


def _begins(cu_tokens: Tensor, margin: int) -> Tensor:
    """Position of each utterance's first zero in the padded copy: int32 [n]."""
    utterances = cu_tokens.numel() - 1
    return cu_tokens[:-1] + 2 * margin * torch.arange(utterances, dtype=torch.int32, device=cu_tokens.device)


def _places(cu_tokens: Tensor, *, total: int, margin: int) -> Tensor:
    """Position of each of `total` rows in the padded copy: int64 [total]."""
    begins = _begins(cu_tokens, margin) + margin
    starts = torch.repeat_interleave(begins.long(), cu_tokens.diff(), output_size=total)
    return starts + positions_within(cu_tokens, total)


def _first_positions(cu_tokens: Tensor, cu_out: Tensor, *, rows: int, stride: int, margin: int) -> Tensor:
    """Position in the padded copy where each output's window begins: int32 [rows]."""
    return window_starts(_begins(cu_tokens, margin), cu_out, rows, stride)


_padded_conv = Operation(padded_conv_reference, cpu=padded_conv_cpu, triton=padded_conv_triton)
