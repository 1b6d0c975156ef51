"""Fused convolution, normalization over time and activation: the first layer of wav2vec2's feature encoder.

The outputs have a hundred times as many elements as the waveform, and unfused they would be written and read
several times. A channel's mean and variance follow from the mean and covariance of the windows, a few values,
so that outputs are normalized before they are written once.
"""

from typing import Any

import torch
from torch import Tensor

from ..linear.activation import check_activation
from ..norm.group_norm import group_norm_reference, group_norm_triton
from ..runtime.dispatch import Operation
from ..runtime.packing import check_cu_seqlens, cumulative, lengths_of, offsets_after
from ..runtime.weight_cache import cached
from .first_layer import MAX_TAPS, first_layer, first_layer_statistics
from .waveform import (
    by_tap,
    check_stride,
    flattened,
    multiply_windows,
    valid_length,
    valid_lengths,
    waveform_conv_reference,
    waveform_conv_triton,
    windows,
)


def normalized_conv(
    waveforms: Tensor,
    cu_samples: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float = 1e-5,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Convolve waveforms, normalize each channel over its utterance, and apply an activation.

    Equals `waveform_conv`, then `group_norm` with as many groups as channels. The convolution has no bias,
    which the normalization would subtract with the mean.

    Args:
        waveforms: [samples, 1], packed.
        cu_samples: int32 [n + 1], offsets of the utterances.
        weight: [C_out, 1, kernel], as in `torch.nn.Conv1d`.
        norm_weight, norm_bias: [C_out], weight and bias of the normalization.
        eps: added to the variance.
        stride: samples from one output to the next.
        activation: one of `ACTIVATIONS`.

    Returns:
        Packed outputs [positions, C_out], `valid_length` of each utterance, and their cu_seqlens [n + 1].

    Raises:
        ValueError: shapes or offsets that do not fit, a stride below 1, or an unknown activation.
    """
    check_cu_seqlens(cu_samples, waveforms.shape[0], "cu_samples")
    if waveforms.dim() != 2 or waveforms.shape[1] != 1 or weight.shape[1] != 1:
        raise ValueError(
            "normalized_conv takes waveforms [samples, 1] and weights [C_out, 1, kernel], got "
            f"{list(waveforms.shape)} and {list(weight.shape)}"
        )
    if norm_weight.shape != weight.shape[:1] or norm_bias.shape != weight.shape[:1]:
        raise ValueError(
            f"normalized_conv to {weight.shape[0]} channels got a normalization of "
            f"{list(norm_weight.shape)} and {list(norm_bias.shape)}"
        )
    check_stride(stride)
    check_activation(activation)
    return _normalized_conv(
        waveforms, cu_samples, weight, norm_weight, norm_bias, eps, stride=stride, activation=activation
    )


def normalized_conv_reference(
    waveforms: Tensor, cu_samples: Tensor, weight: Tensor, *norm: Any, stride: int, **options: Any
) -> tuple[Tensor, Tensor]:
    """Reference implementation of `normalized_conv` in plain torch: the unfused operations."""
    mixed, cu_out = waveform_conv_reference(waveforms, cu_samples, weight, None, stride=stride)
    return group_norm_reference(mixed, cu_out, weight.shape[0], *norm, **options), cu_out


def normalized_conv_cpu(
    waveforms: Tensor,
    cu_samples: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float = 1e-5,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalized convolution on the CPU: a GEMM of scaled weights for each utterance, float32 at least."""
    outputs, _, kernel = weight.shape
    wide = torch.promote_types(waveforms.dtype, torch.float32)
    flat = flattened(weight).double()  # [C_out, kernel]
    lengths = lengths_of(cu_samples)
    counts = valid_lengths(cu_samples, kernel, stride)
    out = waveforms.new_empty(sum(counts), outputs)
    for utterance, result in zip(waveforms.double().split(lengths), out.split(counts), strict=True):
        if not result.shape[0]:
            continue
        # Centered, so that samples far from zero lose nothing in float32.
        centered = utterance - utterance.mean()
        scaled, shift = _statistics(windows(centered, kernel, stride), flat, norm_weight, norm_bias, eps)
        rows = windows(centered.to(wide), kernel, stride)
        multiply_windows(rows, scaled.to(wide), shift.to(wide), activation, out=result)
    return out, cumulative(counts)


def _statistics(
    rows: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Weight and bias of an utterance's convolution with its normalization folded in.

    Computed from the windows [outputs, kernel] in float64: the variance of a high-pass channel is a small
    difference of large sums.
    """
    means = rows.mean(0)
    deviations = rows - means
    covariance = deviations.T @ deviations / rows.shape[0]
    variance = ((weight @ covariance) * weight).sum(1).clamp(min=0.0)
    scaled = weight * (norm_weight * (variance + eps).rsqrt())[:, None]
    return scaled, norm_bias - scaled @ means


def normalized_conv_triton(
    waveforms: Tensor,
    cu_samples: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float = 1e-5,
    *,
    stride: int,
    activation: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Normalized convolution in three launches, of which the first two compute the outputs' statistics.

    With more than `MAX_TAPS` taps it is unfused.
    """
    outputs, _, kernel = weight.shape
    if kernel > MAX_TAPS:
        mixed, cu_out = waveform_conv_triton(waveforms, cu_samples, weight, None, stride=stride)
        out = group_norm_triton(mixed, cu_out, outputs, norm_weight, norm_bias, eps, activation=activation)
        return out, cu_out
    cu_out = offsets_after(cu_samples, valid_length, (kernel, stride))[0]
    gain, offset = cached(_widened, norm_weight), cached(_widened, norm_bias)
    taps, samples = cached(by_tap, weight), waveforms.reshape(-1)
    scale, shift, center = first_layer_statistics(
        samples, cu_samples, cu_out, taps, gain, offset, eps, stride=stride
    )
    options: dict[str, Any] = {"stride": stride, "activation": activation, "scale": scale, "center": center}
    out = first_layer(samples, cu_samples, cu_out, taps, shift, **options)
    return out, cu_out


def _widened(parameter: Tensor) -> Tensor:
    return parameter.detach().to(torch.float32, copy=True)


_normalized_conv = Operation(
    normalized_conv_reference, cpu=normalized_conv_cpu, triton=normalized_conv_triton
)
