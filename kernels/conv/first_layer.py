"""Convolution of a waveform, one channel, to many: what it writes is a hundred times what it reads.

With the statistics over time of what it would give, from which the normalized outputs are written at once.
"""

from itertools import product

import torch
from torch import Tensor

from ..linear.activation import activated, code_of
from ..runtime.launch import ARCHITECTURES, DTYPES, kernel, ready
from ..runtime.optional_triton import tl, triton
from ..runtime.packing import cumulative, positions_within

MOST_TAPS = 16  # of a convolution whose outputs are normalized


def waveform_filter(
    waveforms: Tensor,
    cu_samples: Tensor,
    counts: list[int],
    taps: Tensor,
    shift: Tensor | None,
    *,
    stride: int,
    activation: str | None,
    scale: Tensor | None = None,
    center: Tensor | None = None,
) -> Tensor:
    """`activation(conv1d(waveforms - center) * scale + shift)` of each utterance, over whole windows.

    Args:
        waveforms: [samples], on a GPU.
        cu_samples: int32 [n + 1].
        counts: outputs of each utterance.
        taps: float32 [kernel, C_out].
        shift: float32 [C_out], or with a scale [n, C_out].
        stride: samples from one output to the next.
        activation: one of `ACTIVATIONS`, or None.
        scale, center: float32 [n, C_out] and [n], or neither.

    Returns:
        [positions, C_out].
    """
    kernel_size, outputs = taps.shape
    out = waveforms.new_empty(sum(counts), outputs)
    alignment = "aligned" if outputs % 16 == 0 else "any"
    case = waveform_filter_kernel.case(waveforms.device, waveforms.dtype, alignment)
    owner, place = pieces(counts, case.constant("BLOCK_M"), waveforms.device)
    case.launch(
        (owner.numel(), triton.cdiv(outputs, case.constant("BLOCK_N"))),
        ready(waveforms),
        ready(cu_samples),
        owner,
        place,
        cumulative(counts, waveforms.device),
        ready(taps),
        taps if scale is None else scale,
        taps if shift is None else ready(shift),
        taps if center is None else center,
        out,
        outputs,
        kernel_size,
        stride,
        int(scale is not None),
        int(shift is not None),
        code_of(activation),
    )
    return out


def pieces(counts: list[int], size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Outputs in pieces of `size` within each utterance: whose each piece is, and its first output there,
    both int32 [pieces]."""
    numbers = [-(-count // size) for count in counts]
    owner = torch.repeat_interleave(torch.tensor(numbers, dtype=torch.int32))
    place = positions_within(cumulative(numbers), owner.numel()) * size
    return owner.to(device, torch.int32), place.to(device, torch.int32)


@kernel(sizes=("N",))
def waveform_filter_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    owner_ptr,  # [pieces]: its utterance
    place_ptr,  # [pieces]: its first output in the utterance
    cu_out_ptr,  # [utterances + 1]
    taps_ptr,  # [taps, N]
    scale_ptr,  # [utterances, N]
    shift_ptr,  # [N], with a scale [utterances, N]
    centre_ptr,  # [utterances]
    out_ptr,  # [positions, N]
    N: tl.int32,
    taps: tl.int32,
    stride: tl.int32,
    scaled: tl.int32,  # 0 or 1, as the next one
    has_shift: tl.int32,
    activation: tl.int32,  # its `code_of`
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    utterance = tl.load(owner_ptr + tl.program_id(0))
    m = tl.load(place_ptr + tl.program_id(0)) + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    begin = tl.load(cu_out_ptr + utterance)
    rows = tl.load(cu_out_ptr + utterance + 1) - begin
    samples = waveforms_ptr + tl.load(cu_samples_ptr + utterance).to(tl.int64) + m * stride
    center = tl.load(centre_ptr + utterance * scaled) * scaled

    # Ten products for every output: too few for matrix units to matter beside the writing of it.
    values = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tap in range(0, taps):
        sample = tl.load(samples + tap, mask=m < rows, other=0.0).to(tl.float32) - center
        weight = tl.load(taps_ptr + tap * N + n, mask=n < N, other=0.0)
        values += sample[:, None] * weight[None, :]
    own = utterance.to(tl.int64) * N * scaled + n
    scale = tl.load(scale_ptr + own, mask=n < N * scaled, other=1.0)
    shift = tl.load(shift_ptr + own, mask=n < N * has_shift, other=0.0)
    values = activated(values * scale[None, :] + shift[None, :], activation)
    places = (begin + m).to(tl.int64)[:, None] * N + n[None, :]
    there = (m < rows)[:, None] & (n < N)[None, :]
    tl.store(out_ptr + places, values.to(out_ptr.dtype.element_ty), mask=there)


def filter_statistics(
    waveforms: Tensor,
    cu_samples: Tensor,
    counts: list[int],
    taps: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    *,
    stride: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale and shift [n, C_out] and center [n] with which `waveform_filter` gives what has mean 0 and
    variance 1 over each utterance's outputs, times `norm_weight` plus `norm_bias`; float32.

    Two launches, in float64: moments of pieces of each utterance's windows, and what follows from them.

    Args:
        taps: float32 [kernel, C_out], `MOST_TAPS` of them at most.
        norm_weight, norm_bias: float32 [C_out].
        eps: added to the variance.
    """
    device, (kernel_size, outputs) = waveforms.device, taps.shape
    scale, shift = waveforms.new_empty(2, len(counts), outputs, dtype=torch.float32)
    center = waveforms.new_empty(len(counts), dtype=torch.float32)
    case = window_moments_kernel.case(device, waveforms.dtype)
    owner, place = pieces(counts, case.constant("SPAN"), device)
    span = case.constant("SPAN")
    cu_pieces = cumulative([triton.cdiv(count, span) for count in counts], device)
    moments = waveforms.new_empty(owner.numel(), MOST_TAPS + 1, MOST_TAPS, dtype=torch.float64)
    cu_out = cumulative(counts, device)
    waveforms, cu_samples = ready(waveforms), ready(cu_samples)
    case.launch(
        (owner.numel(), kernel_size + 1),
        waveforms,
        cu_samples,
        owner,
        place,
        cu_out,
        moments,
        kernel_size,
        stride,
    )
    whole = filter_statistics_kernel.case(device, waveforms.dtype)
    scale, shift = ready(scale), ready(shift)
    whole.launch(
        (len(counts), triton.cdiv(outputs, whole.constant("BLOCK_N"))),
        waveforms,
        cu_samples,
        cu_pieces,
        cu_out,
        moments,
        ready(taps),
        ready(norm_weight),
        ready(norm_bias),
        scale,
        shift,
        center,
        outputs,
        kernel_size,
        eps,
    )
    return scale, shift, center


@kernel()
def window_moments_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    owner_ptr,  # [pieces]: its utterance
    place_ptr,  # [pieces]: its first window in the utterance
    cu_out_ptr,  # [utterances + 1]
    moments_ptr,  # [pieces, TAPS + 1, TAPS]: sums of products of two taps' samples, last of the samples
    taps: tl.int32,
    stride: tl.int32,
    SPAN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TAPS: tl.constexpr,
):
    piece, other = tl.program_id(0), tl.program_id(1)
    utterance = tl.load(owner_ptr + piece)
    place = tl.load(place_ptr + piece)
    rows = tl.load(cu_out_ptr + utterance + 1) - tl.load(cu_out_ptr + utterance)
    end = tl.minimum(place + SPAN, rows)
    samples = waveforms_ptr + tl.load(cu_samples_ptr + utterance).to(tl.int64)
    # Measured from the first sample, so that the moments of a constant are exactly 0.
    origin = tl.load(samples).to(tl.float64)
    tap = tl.arange(0, TAPS)
    total = tl.zeros((BLOCK_M, TAPS), tl.float64)
    for start in range(place, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        there = (m < end)[:, None] & (tap < taps)[None, :]
        window = tl.load(samples + m[:, None] * stride + tap[None, :], mask=there, other=0.0).to(tl.float64)
        window = tl.where(there, window - origin, 0.0)
        factor = tl.load(samples + m * stride + other, mask=m < end * (other < taps), other=0.0)
        factor = tl.where(other < taps, factor.to(tl.float64) - origin, 1.0)
        total += window * factor[:, None]
    row = tl.where(other < taps, other, TAPS)
    tl.store(moments_ptr + (piece.to(tl.int64) * (TAPS + 1) + row) * TAPS + tap, tl.sum(total, 0))


@kernel()
def filter_statistics_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    cu_pieces_ptr,  # [utterances + 1]
    cu_out_ptr,  # [utterances + 1]
    moments_ptr,  # [pieces, TAPS + 1, TAPS]
    taps_ptr,  # [taps, N]
    norm_weight_ptr,  # [N]
    norm_bias_ptr,  # [N]
    scale_ptr,  # [utterances, N]
    shift_ptr,  # [utterances, N]
    centre_ptr,  # [utterances]
    N: tl.int32,
    taps: tl.int32,
    eps: tl.float32,
    BLOCK_N: tl.constexpr,
    TAPS: tl.constexpr,
):
    utterance = tl.program_id(0)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    tap, other = tl.arange(0, TAPS), tl.arange(0, TAPS)
    rows = tl.load(cu_out_ptr + utterance + 1) - tl.load(cu_out_ptr + utterance)
    products = tl.zeros((TAPS, TAPS), tl.float64)
    sums = tl.zeros((TAPS,), tl.float64)
    for piece in range(tl.load(cu_pieces_ptr + utterance), tl.load(cu_pieces_ptr + utterance + 1)):
        moments = moments_ptr + tl.cast(piece, tl.int64) * ((TAPS + 1) * TAPS)
        # Rows of taps that there are not were never written.
        there = (other < taps)[:, None] & (tap < TAPS)[None, :]
        products += tl.load(moments + other[:, None] * TAPS + tap[None, :], mask=there, other=0.0)
        sums += tl.load(moments + TAPS * TAPS + tap)
    count = tl.maximum(rows, 1).to(tl.float64)
    means = sums / count
    # The same means along the other dimension.
    across = tl.sum(tl.where(other[:, None] == tap[None, :], means[None, :], 0.0), 1)
    covariance = products / count - across[:, None] * means[None, :]

    origin = tl.load(waveforms_ptr + tl.load(cu_samples_ptr + utterance), mask=rows > 0, other=0.0)
    origin = origin.to(tl.float64)
    middle = (origin + tl.sum(means, 0) / taps).to(tl.float32)
    if tl.program_id(1) == 0:
        tl.store(centre_ptr + utterance, middle)
    means += tl.where(tap < taps, origin - middle.to(tl.float64), 0.0)

    # In float64: a channel that listens to high frequencies has a variance that is a small difference of
    # large sums.
    inside = (n < N)[:, None] & (tap < taps)[None, :]
    weight = tl.load(taps_ptr + tap[None, :] * N + n[:, None], mask=inside, other=0.0).to(tl.float64)
    mean = tl.sum(weight * means[None, :], 1)
    variance = tl.zeros((BLOCK_N,), tl.float64)
    for row in range(0, taps):
        single = tl.load(taps_ptr + row * N + n, mask=n < N, other=0.0).to(tl.float64)
        line = tl.sum(tl.where(other[:, None] == row, covariance, 0.0), 0)
        variance += single * tl.sum(weight * line[None, :], 1)
    scale = tl.rsqrt(tl.maximum(variance, 0.0).to(tl.float32) + eps)
    scale *= tl.load(norm_weight_ptr + n, mask=n < N, other=0.0)
    shift = tl.load(norm_bias_ptr + n, mask=n < N, other=0.0) - scale * mean.to(tl.float32)
    own = utterance.to(tl.int64) * N + n
    tl.store(scale_ptr + own, scale, mask=n < N)
    tl.store(shift_ptr + own, shift, mask=n < N)


def _declare() -> None:
    numbers = dict.fromkeys(
        ("cu_samples_ptr", "owner_ptr", "place_ptr", "cu_out_ptr", "cu_pieces_ptr"), torch.int32
    )
    wide = dict.fromkeys(
        ("taps_ptr", "scale_ptr", "shift_ptr", "centre_ptr", "norm_weight_ptr", "norm_bias_ptr"),
        torch.float32,
    )
    for architecture, dtype in product(ARCHITECTURES, DTYPES):
        pointers = numbers | wide | {"waveforms_ptr": dtype, "out_ptr": dtype, "moments_ptr": torch.float64}
        for alignment in ("aligned", "any"):
            waveform_filter_kernel.declare(
                dtype,
                alignment,
                architecture=architecture,
                pointers=pointers,
                aligned=alignment == "aligned",
                num_stages=1,
                BLOCK_M=32,
                BLOCK_N=64 if alignment == "aligned" else 32,
            )
        window_moments_kernel.declare(
            dtype,
            architecture=architecture,
            pointers=pointers,
            num_stages=1,
            SPAN=2048,
            BLOCK_M=64,
            TAPS=MOST_TAPS,
        )
        filter_statistics_kernel.declare(
            dtype,
            architecture=architecture,
            pointers=pointers,
            num_stages=1,
            BLOCK_N=32,
            TAPS=MOST_TAPS,
        )


_declare()
