"""Strided 1-D convolution with bias and gated linear unit, over packed utterances.

Each utterance sees its own zero edges, so a neighbour in the batch never leaks into it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import choose
from .linear import gated, linear_cpu
from .packing import check_cu_seqlens, cumulative, positions_within, spans


def conv_subsample(
    frames: Tensor, cu_frames: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 2
) -> tuple[Tensor, Tensor]:
    """`glu(conv1d(frames) + bias)` with `kernel // 2` zeros on both sides of each utterance.

    Args:
        frames: [frames, C_in], packed.
        cu_frames: int32 [n + 1].
        weight: [2 * C_out, C_in, kernel].
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
    run = choose(frames, weight, bias, reference=conv_subsample_reference, cpu=conv_subsample_cpu)
    return run(frames, cu_frames, weight, bias, stride=stride)


def output_length(length: int, kernel: int, stride: int) -> int:
    """Outputs of the convolution for `length` inputs; none for an empty utterance."""
    return (length + 2 * (kernel // 2) - kernel) // stride + 1 if length else 0


def conv_subsample_reference(
    frames: Tensor, cu_frames: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int = 2
) -> tuple[Tensor, Tensor]:
    """The specification, in plain torch: one utterance after the other."""
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
    """As one GEMM over the windows of all utterances; a row of zeros stands for what lies outside."""
    outputs, _, kernel = weight.shape
    lengths = [end - start for start, end in spans(cu_frames)]
    cu_out = cumulative([output_length(length, kernel, stride) for length in lengths])
    total = int(cu_out[-1])
    utterance = torch.repeat_interleave(torch.arange(len(lengths)), (cu_out[1:] - cu_out[:-1]).long())
    first = positions_within(cu_out, total) * stride - kernel // 2
    inside = first[:, None] + torch.arange(kernel)
    starts, counts = cu_frames[:-1].long()[utterance, None], torch.tensor(lengths)[utterance, None]
    zero_row = frames.shape[0]
    rows = torch.where((inside >= 0) & (inside < counts), starts + inside, zero_row)
    windows = F.pad(frames, (0, 0, 0, 1))[rows].view(total, kernel * weight.shape[1])
    flat = weight.transpose(1, 2).reshape(outputs, -1)
    values, gate = linear_cpu(windows, flat, bias).chunk(2, dim=-1)
    return gated(values, gate), cu_out
