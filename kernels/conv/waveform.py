"""Strided 1-D convolution without padding, over packed utterances: wav2vec2's feature encoder."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..linear.activation import activate, check_activation
from ..linear.gemm import linear_cpu
from ..runtime.dispatch import choose
from ..runtime.packing import check_cu_seqlens, cumulative, spans
from ..runtime.weight_cache import cached
from .first_layer import waveform_filter
from .implicit_gemm import window_product, window_starts


def waveform_conv(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """`activation(conv1d(hidden) + bias)` of each utterance on its own, over whole windows only.

    Args:
        hidden: [positions, C_in], utterances end to end; samples of waveforms are [samples, 1].
        cu_tokens: int32 [n + 1], where each utterance begins; first 0, last the number of positions.
        weight: [C_out, C_in, kernel], as in `torch.nn.Conv1d`.
        bias: [C_out], or None.
        stride: positions from one output to the next.
        activation: one of `ACTIVATIONS`.

    Returns:
        Packed outputs [positions', C_out] and their cu_seqlens [n + 1]; see `valid_length`.

    Raises:
        ValueError: shapes or offsets that do not fit, a stride below 1, or an unknown activation.
    """
    check_cu_seqlens(cu_tokens, hidden.shape[0], "cu_tokens")
    if hidden.dim() != 2 or hidden.shape[1] != weight.shape[1]:
        raise ValueError(f"waveform_conv takes [positions, {weight.shape[1]}], got {list(hidden.shape)}")
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    check_activation(activation)
    run = choose(
        hidden,
        cu_tokens,
        weight,
        bias,
        reference=waveform_conv_reference,
        cpu=waveform_conv_cpu,
        triton=waveform_conv_triton,
    )
    return run(hidden, cu_tokens, weight, bias, stride=stride, activation=activation)


def valid_length(length: int, kernel: int, stride: int) -> int:
    """Outputs for `length` inputs: whole windows, of which a short utterance has none."""
    return (length - kernel) // stride + 1 if length >= kernel else 0


def waveform_conv_reference(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """The specification, in plain torch: one utterance after the other."""
    outputs = [hidden.new_zeros(0, weight.shape[0])]
    lengths = []
    for start, end in spans(cu_tokens):
        lengths.append(valid_length(end - start, weight.shape[2], stride))
        if lengths[-1]:
            outputs.append(F.conv1d(hidden[start:end].T[None], weight, bias, stride=stride)[0].T)
    return activate(torch.cat(outputs), activation), cumulative(lengths, hidden.device)


def waveform_conv_cpu(
    hidden: Tensor,
    cu_tokens: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """As products with windows, which overlap where they lie and are copied a few at a time."""
    outputs, _, kernel = weight.shape
    flat = cached(flattened, weight)
    lengths = [end - start for start, end in spans(cu_tokens)]
    counts = [valid_length(length, kernel, stride) for length in lengths]
    out = hidden.new_empty(sum(counts), outputs)
    for utterance, place in zip(hidden.contiguous().split(lengths), out.split(counts), strict=True):
        for rows, there in zip(
            windows(utterance, kernel, stride).split(ROWS), place.split(ROWS), strict=True
        ):
            there.copy_(linear_cpu(rows, flat, bias, activation=activation))
    return out, cumulative(counts)


# Windows copied at a time. With their outputs they stay in a core's cache: 1.5 and 0.5 MB in wav2vec2.
ROWS = 256


def windows(utterance: Tensor, kernel: int, stride: int) -> Tensor:
    """A view [outputs, kernel * C_in] of a contiguous [positions, C_in], position after position."""
    count, channels = valid_length(utterance.shape[0], kernel, stride), utterance.shape[1]
    return utterance.as_strided((count, kernel * channels), (stride * channels, 1))


def flattened(weight: Tensor) -> Tensor:
    """A copy of `weight` [C_out, C_in, kernel] as a GEMM's [C_out, kernel * C_in], for such windows."""
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
    """One launch: of one channel by multiplying, of more as a GEMM whose rows are read where they lie."""
    kernel = weight.shape[2]
    counts = [valid_length(end - start, kernel, stride) for start, end in spans(cu_tokens)]
    cu_out = cumulative(counts, hidden.device)
    if weight.shape[1] == 1:
        shift = None if bias is None else bias.float()
        out = waveform_filter(
            hidden.reshape(-1),
            cu_tokens,
            counts,
            cached(by_tap, weight),
            shift,
            stride=stride,
            activation=activation,
        )
        return out, cu_out
    first = window_starts(cu_tokens, cu_out, sum(counts), stride)
    flat = cached(flattened, weight)[None]
    return window_product(hidden[None], first, flat, bias, activation=activation), cu_out


def by_tap(weight: Tensor) -> Tensor:
    """`weight` [C_out, 1, kernel] as float32 [kernel, C_out]."""
    return weight.detach()[:, 0].T.to(torch.float32).clone(memory_format=torch.contiguous_format)
