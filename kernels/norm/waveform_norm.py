"""Mean and variance normalization of each utterance's samples, as in Wav2Vec2FeatureExtractor."""

import torch
from torch import Tensor

from ..runtime.dispatch import Operation
from ..runtime.launch import DTYPES, kernel
from ..runtime.optional_triton import tl
from ..runtime.packing import check_cu_seqlens, spans

EPSILON = 1e-7  # added to the variance, as in transformers


def waveform_norm(waveforms: Tensor, cu_samples: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Shift and scale each utterance to mean 0 and variance 1 over its samples.

    The variance is the population's (divided by the number of samples) plus `EPSILON`, as in transformers. A
    constant utterance becomes exactly 0, where transformers may leave a rounding error of its mean.

    Args:
        waveforms: float32 or float64 [samples], packed.
        cu_samples: int32 [n + 1], offsets of the utterances.
        dtype: dtype of the result, to which it is rounded at the end; that of the waveforms by default.

    Returns:
        [samples]

    Raises:
        ValueError: another dtype or shape, or offsets that do not fit.
    """
    if waveforms.dim() != 1 or waveforms.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "waveforms must be float32 or float64 [samples], "
            f"got {waveforms.dtype} of shape {tuple(waveforms.shape)}"
        )
    check_cu_seqlens(cu_samples, waveforms.shape[0], "cu_samples")
    return _waveform_norm(waveforms, cu_samples, dtype)


def waveform_norm_reference(
    waveforms: Tensor, cu_samples: Tensor, dtype: torch.dtype | None = None
) -> Tensor:
    """Reference implementation of `waveform_norm` in plain torch, in the waveforms' dtype; differentiable."""
    utterances = [waveforms[:0]]
    for start, end in spans(cu_samples):
        if start == end:
            continue
        # From the first sample, so that the deviations of a constant are exactly 0, as in `utterance_cmvn`.
        shifted = waveforms[start:end] - waveforms[start]
        deviations = shifted - shifted.mean()
        utterances.append(deviations / (deviations.square().mean() + EPSILON).sqrt())
    return torch.cat(utterances).to(dtype or waveforms.dtype)


def waveform_norm_triton(waveforms: Tensor, cu_samples: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Normalization of waveforms in one launch, without waiting for the device."""
    out = torch.empty(waveforms.shape, dtype=dtype or waveforms.dtype, device=waveforms.device)
    case = waveform_norm_kernel.case(waveforms.device, out.dtype)
    case.launch((len(cu_samples) - 1,), waveforms, cu_samples, out)
    return out


@kernel()
def waveform_norm_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    out_ptr,  # [samples]
    BLOCK: tl.constexpr,
):
    # One program an utterance. Its float32 sums go by blocks from the first sample on, so that their order
    # depends on the length alone. 20 seconds are 1.3 MB, read once from memory and twice from the caches.
    start = tl.load(cu_samples_ptr + tl.program_id(0))
    samples = tl.load(cu_samples_ptr + tl.program_id(0) + 1) - start
    utterance = waveforms_ptr + start.to(tl.int64)
    index = tl.arange(0, BLOCK)

    first = tl.load(utterance, mask=samples > 0, other=0.0)
    total = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, samples, BLOCK):
        mask = begin + index < samples
        values = tl.load(utterance + begin + index, mask=mask, other=0.0)
        total += tl.where(mask, values - first, 0.0)
    mean = tl.sum(total, axis=0) / tl.maximum(samples, 1)
    squares = tl.zeros((BLOCK,), tl.float32)
    for begin in range(0, samples, BLOCK):
        mask = begin + index < samples
        values = tl.load(utterance + begin + index, mask=mask, other=0.0)
        deviations = tl.where(mask, values - first - mean, 0.0)
        squares += deviations * deviations
    deviation = tl.sqrt_rn(tl.sum(squares, axis=0) / tl.maximum(samples, 1) + 1e-7)
    for begin in range(0, samples, BLOCK):
        mask = begin + index < samples
        values = tl.load(utterance + begin + index, mask=mask, other=0.0)
        samples_ptr = out_ptr + start.to(tl.int64) + begin + index
        values = (values - first - mean) / deviation
        tl.store(samples_ptr, values.to(out_ptr.dtype.element_ty), mask=mask)


_waveform_norm = Operation(waveform_norm_reference, triton=waveform_norm_triton)


# Blocks of many samples make short loops: an utterance has hundreds of thousands of samples.
waveform_norm_kernel.declare_all(
    DTYPES,
    pointers={"waveforms_ptr": torch.float32, "cu_samples_ptr": torch.int32},
    BLOCK=8192,
    num_warps=16,
)
