"""Mean and variance normalisation of each utterance's features."""

import torch
from torch import Tensor

from .dispatch import choose
from .packing import check_cu_seqlens, spans


def utterance_cmvn(
    features: Tensor, cu_frames: Tensor, *, normalize_means: bool = True, normalize_vars: bool = True
) -> Tensor:
    """Shift and scale each bin to mean 0 and standard deviation 1 over the frames of its utterance.

    The standard deviation is that of the population (divided by the number of frames), as in transformers'
    Speech2Text. A bin that is constant over its utterance has none and is left unscaled, so with its mean
    removed it is exactly 0 (transformers divides by 0 there); so is every bin of an utterance of one frame.

    Args:
        features: float32 or float64 [frames, bins], utterances end to end.
        cu_frames: int32 [n + 1], where each utterance begins; first 0, last the number of frames.
        normalize_means: subtract the mean.
        normalize_vars: divide by the standard deviation.

    Returns:
        [frames, bins]

    Raises:
        ValueError: for another dtype or shape.
    """
    if features.dim() != 2 or features.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            "features must be float32 or float64 [frames, bins], "
            f"got {features.dtype} of shape {tuple(features.shape)}"
        )
    check_cu_seqlens(cu_frames, features.shape[0], "cu_frames")
    return choose(features, cu_frames, reference=utterance_cmvn_reference)(
        features, cu_frames, normalize_means=normalize_means, normalize_vars=normalize_vars
    )


def utterance_cmvn_reference(
    features: Tensor, cu_frames: Tensor, *, normalize_means: bool = True, normalize_vars: bool = True
) -> Tensor:
    """The specification, in plain torch, differentiable.

    Sums in the dtype of `features`, utterance by utterance.
    """
    utterances = [features[:0]]
    for start, end in spans(cu_frames):
        if start == end:
            continue
        utterance = features[start:end]  # [frames, bins]
        # Measured from the first frame, the deviations of a constant bin are exactly 0; measured from 0,
        # its mean would be rounded, and the rounding error divided by itself.
        first = utterance[:1]
        shifted = utterance - first
        mean = shifted.mean(dim=0, keepdim=True)
        deviations = shifted - mean
        if normalize_vars:
            variance = deviations.square().mean(dim=0, keepdim=True)
            scale = torch.where(variance > 0, variance, 1.0).sqrt()
        else:
            scale = torch.ones_like(mean)
        utterances.append((deviations if normalize_means else utterance) / scale)
    return torch.cat(utterances)
