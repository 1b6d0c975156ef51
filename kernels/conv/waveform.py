"""Strided 1-D convolution without padding, over packed utterances (wav2vec2's feature encoder)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..linear.activation import activate, check_activation
from ..linear.gemm import linear_cpu
from ..runtime.dispatch import Operation
from ..runtime.packing import check_cu_seqlens, cumulative, index_table, lengths_of, offsets_after, spans
from ..runtime.weight_cache import cached
from .first_layer import first_layer
from .implicit_gemm import implicit_gemm, window_starts

# Windows copied at a time. With their outputs they stay in a core's cache: 1.5 and 0.5 MB in wav2vec2.
_WINDOWS = 256


def waveform_conv(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Unpadded strided convolution of each utterance: `activation(conv1d(hidden) + bias)`.

    Args:
        hidden: [positions, C_in], packed; samples of waveforms are [samples, 1].
        cu_tokens: int32 [n + 1], offsets of the utterances.
        weight: [C_out, C_in, kernel], as in `torch.nn.Conv1d`.
        bias: [C_out], or None.
        stride: positions from one output to the next.
        activation: one of `ACTIVATIONS`.

    Returns:
        Packed outputs [positions', C_out], `valid_length` of each utterance, and their cu_seqlens [n + 1].

    Raises:
        ValueError: shapes or offsets that do not fit, a stride below 1, or an unknown activation.
    """
    check_cu_seqlens(cu_tokens, hidden.shape[0], "cu_tokens")
    if hidden.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"waveform_conv takes [positions, {weight.shape[1]}], got {list(hidden.shape)}")
    check_stride(stride)
    check_activation(activation)
    return _waveform_conv(hidden, cu_tokens, weight, bias, stride=stride, activation=activation)


def check_stride(stride: int) -> None:
    """Validate the stride of a convolution. Raises ValueError below 1."""
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")


def valid_length(length: int, kernel: int, stride: int) -> int:
    """Number of outputs of an unpadded convolution over `length` positions; 0 if shorter than the kernel."""
    return (length - kernel) // stride + 1 if length >= kernel else 0


def valid_lengths(cu_seqlens: Tensor, kernel: int, stride: int) -> list[int]:
    """Number of outputs of each packed utterance, by `valid_length`."""
    return [valid_length(length, kernel, stride) for length in lengths_of(cu_seqlens)]


def waveform_conv_reference(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `waveform_conv` in plain torch, one utterance at a time."""
    counts = valid_lengths(cu_tokens, weight.shape[2], stride)
    outputs = [hidden.new_zeros(0, weight.shape[0])]
    for (start, end), count in zip(spans(cu_tokens), counts, strict=True):
        if count:
            outputs.append(F.conv1d(hidden[start:end].T[None], weight, bias, stride=stride)[0].T)
    return activate(torch.cat(outputs), activation), cumulative(counts, hidden.device)


def waveform_conv_cpu(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolution on the CPU as a GEMM over each utterance's windows."""
    outputs, _, kernel = weight.shape
    flat = cached(flattened, weight)
    lengths = lengths_of(cu_tokens)
    counts = valid_lengths(cu_tokens, kernel, stride)
    out = hidden.new_empty(sum(counts), outputs)
    for utterance, result in zip(hidden.contiguous().split(lengths), out.split(counts), strict=True):
        multiply_windows(windows(utterance, kernel, stride), flat, bias, activation, out=result)
    return out, cumulative(counts)


def windows(utterance: Tensor, kernel: int, stride: int) -> Tensor:
    """View of an utterance's windows: [outputs, kernel * C_in] of a contiguous [positions, C_in]."""
    count, channels = valid_length(utterance.shape[0], kernel, stride), utterance.shape[1]
    return utterance.as_strided((count, kernel * channels), (stride * channels, 1))


def multiply_windows(
    rows: Tensor, weight: Tensor, bias: Tensor | None, activation: str | None, *, out: Tensor
) -> None:
    """Write the linear layer of `windows` into `out`, a few windows at a time because a GEMM copies them."""
    for part, result in zip(rows.split(_WINDOWS), out.split(_WINDOWS), strict=True):
        result.copy_(linear_cpu(part, weight, bias, activation=activation))


def flattened(weight: Tensor) -> Tensor:
    """Copy of a weight [C_out, C_in, kernel] as a matrix [C_out, kernel * C_in] to multiply `windows` by."""
    return weight.detach().transpose(1, 2).clone(memory_format=torch.contiguous_format).flatten(1)


def waveform_conv_triton(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolution in one launch: `first_layer` for one input channel, `implicit_gemm` for more."""
    cu_out = offsets_after(cu_tokens, valid_length, (weight.shape[2], stride))[0]
    if weight.shape[1] == 1:
        taps = cached(by_tap, weight)
        shift = None if bias is None else bias.float()
        samples = hidden.reshape(-1)
        return first_layer(
            samples, cu_tokens, cu_out, taps, shift, stride=stride, activation=activation
        ), cu_out
    rows = sum(lengths_of(cu_out))
    first = index_table(window_starts, cu_tokens, cu_out, rows=rows, stride=stride)
    flat = cached(flattened, weight)[None]
    return implicit_gemm(hidden[None], first, flat, bias, activation=activation), cu_out


def by_tap(weight: Tensor) -> Tensor:
    """Copy of a weight [C_out, 1, kernel] as float32 [kernel, C_out], for `first_layer`."""
    return weight.detach()[:, 0].T.to(torch.float32).clone(memory_format=torch.contiguous_format)


_waveform_conv = Operation(waveform_conv_reference, cpu=waveform_conv_cpu, triton=waveform_conv_triton)
