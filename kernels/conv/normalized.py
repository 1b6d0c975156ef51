"""Convolution, normalization over time and activation in one: the first layer of wav2vec2's feature encoder.

The outputs are a hundred times as many numbers as the waveform. To normalize them afterwards is to write and
read them again and again; but a channel's mean and variance follow from the windows' own mean and covariance,
which are a few numbers, so outputs are written once, normalized.
"""

import torch
from torch import Tensor

from ..linear.activation import check_activation
from ..linear.gemm import linear_cpu
from ..norm.group_norm import group_norm_reference, group_norm_triton
from ..runtime.dispatch import choose
from ..runtime.packing import check_cu_seqlens, cumulative, spans
from ..runtime.weight_cache import cached
from .first_layer import MOST_TAPS, filter_statistics, waveform_filter
from .waveform import (
    ROWS,
    by_tap,
    flattened,
    valid_length,
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
    """`waveform_conv`, then `group_norm` with as many groups as channels, then `activation`.

    A bias of the convolution would be subtracted again with the mean, so there is none.

    Args:
        waveforms: [samples, 1], utterances end to end.
        cu_samples: int32 [n + 1], where each utterance begins; first 0, last the number of samples.
        weight: [C_out, 1, kernel], as in `torch.nn.Conv1d`.
        norm_weight, norm_bias: [C_out], of the normalization.
        eps: added to the variance.
        stride: samples from one output to the next.
        activation: one of `ACTIVATIONS`.

    Returns:
        Packed outputs [positions, C_out] and their cu_seqlens [n + 1]; see `valid_length`.

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
    if stride < 1:
        raise ValueError(f"stride must be at least 1, got {stride}")
    check_activation(activation)
    run = choose(
        waveforms,
        cu_samples,
        weight,
        norm_weight,
        norm_bias,
        reference=normalized_conv_reference,
        cpu=normalized_conv_cpu,
        triton=normalized_conv_triton,
    )
    return run(
        waveforms, cu_samples, weight, norm_weight, norm_bias, eps, stride=stride, activation=activation
    )


def normalized_conv_reference(
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
    """The specification: one operation after the other."""
    mixed, cu_out = waveform_conv_reference(waveforms, cu_samples, weight, None, stride=stride)
    out = group_norm_reference(
        mixed, cu_out, weight.shape[0], norm_weight, norm_bias, eps, activation=activation
    )
    return out, cu_out


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
    """As products with windows, by weights that are scaled for each utterance; in float32 at least."""
    outputs, _, kernel = weight.shape
    wide = torch.promote_types(waveforms.dtype, torch.float32)
    flat = flattened(weight).double()  # [C_out, kernel]
    lengths = [end - start for start, end in spans(cu_samples)]
    counts = [valid_length(length, kernel, stride) for length in lengths]
    out = waveforms.new_empty(sum(counts), outputs)
    for utterance, place in zip(waveforms.double().split(lengths), out.split(counts), strict=True):
        if not place.shape[0]:
            continue
        # From their middle, so that samples far from zero lose nothing in float32.
        centered = utterance - utterance.mean()
        scaled, shift = _statistics(windows(centered, kernel, stride), flat, norm_weight, norm_bias, eps)
        rows = windows(centered.to(wide), kernel, stride)
        scaled, shift = scaled.to(wide), shift.to(wide)
        for some, there in zip(rows.split(ROWS), place.split(ROWS), strict=True):
            there.copy_(linear_cpu(some, scaled, shift, activation=activation))
    return out, cumulative(counts)


def _statistics(
    rows: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Weights and bias of the normalized convolution. In float64: a channel that listens to high frequencies
    has a variance that is a small difference of large sums."""
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
    """Three launches, two of which read the waveform and write next to nothing."""
    outputs, _, kernel = weight.shape
    if kernel > MOST_TAPS:
        mixed, cu_out = waveform_conv_triton(waveforms, cu_samples, weight, None, stride=stride)
        out = group_norm_triton(mixed, cu_out, outputs, norm_weight, norm_bias, eps, activation=activation)
        return out, cu_out
    counts = [valid_length(end - start, kernel, stride) for start, end in spans(cu_samples)]
    taps, samples = cached(by_tap, weight), waveforms.reshape(-1)
    scale, shift, center = filter_statistics(
        samples, cu_samples, counts, taps, norm_weight.float(), norm_bias.float(), eps, stride=stride
    )
    out = waveform_filter(
        samples,
        cu_samples,
        counts,
        taps,
        shift,
        stride=stride,
        activation=activation,
        scale=scale,
        center=center,
    )
    return out, cumulative(counts, waveforms.device)
