"""First layer of wav2vec2's feature encoder: a convolution of one channel into many (arXiv 2006.11477).

Its outputs have a hundred times as many elements as the waveform. A channel's mean and variance over time
follow from moments of the waveform, so that outputs are normalized before they are written.
"""

import torch
from torch import Tensor

from ..linear.activation import activated, code_of
from ..runtime.launch import DTYPES, alignment, kernel, ready
from ..runtime.optional_triton import tl
from ..runtime.packing import cumulative, lengths_of, positions_within
from ..runtime.upload import upload_all

MAX_TAPS = 16  # largest kernel size of a convolution whose outputs are normalized


def first_layer(
    waveforms: Tensor,
    cu_samples: Tensor,
    cu_out: Tensor,
    taps: Tensor,
    shift: Tensor | None,
    *,
    stride: int,
    activation: str | None,
    scale: Tensor | None = None,
    center: Tensor | None = None,
) -> Tensor:
    """Convolve each utterance's samples: `activation(conv1d(waveforms - center) * scale + shift)`, unpadded.

    Args:
        waveforms: [samples], packed, on a GPU.
        cu_samples: int32 [n + 1], offsets of the utterances.
        cu_out: int32 [n + 1], offsets of the outputs of each utterance.
        taps: float32 [kernel, C_out], weight of the convolution.
        shift: float32 [C_out], or with a scale [n, C_out]; None for 0.
        stride: samples from one output to the next.
        activation: one of `ACTIVATIONS`, or None.
        scale, center: float32 [n, C_out] and [n], from `first_layer_statistics`; or neither.

    Returns:
        [positions, C_out], packed.
    """
    kernel_size, outputs = taps.shape
    counts = lengths_of(cu_out)
    out = waveforms.new_empty(sum(counts), outputs)
    case = first_layer_kernel.case(waveforms.device, waveforms.dtype, alignment(outputs))
    utterances, starts, _ = _chunks(counts, case.constant("BLOCK_M"), waveforms.device)
    center = taps if center is None else center  # its first element is read, and must be finite
    tensors = waveforms, cu_samples, utterances, starts, cu_out, taps, scale, shift, center, out
    terms = scale is not None, shift is not None
    grid = utterances.numel(), case.block_count("BLOCK_N", outputs)
    case.launch(grid, *tensors, outputs, kernel_size, stride, *terms, code_of(activation))
    return out


def _chunks(counts: list[int], size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Utterance and first output of each chunk of at most `size` outputs, and cu_chunks of each utterance's.

    All int32, in one copy to the device: [chunks], [chunks] and [utterances + 1].
    """
    chunks = [-(-count // size) for count in counts]
    cu_chunks = cumulative(chunks)
    utterances = torch.repeat_interleave(torch.tensor(chunks, dtype=torch.int32)).int()
    starts = positions_within(cu_chunks, utterances.numel()).int() * size
    utterances, starts, cu_chunks = upload_all([utterances, starts, cu_chunks], device)
    return utterances, starts, cu_chunks


@kernel(sizes=("N",))
def first_layer_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    chunk_utterance_ptr,  # [chunks]
    chunk_start_ptr,  # [chunks], first output within the utterance
    cu_out_ptr,  # [utterances + 1]
    taps_ptr,  # [taps, N]
    scale_ptr,  # [utterances, N]
    shift_ptr,  # [N], with a scale [utterances, N]
    center_ptr,  # [utterances]
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
    utterance = tl.load(chunk_utterance_ptr + tl.program_id(0))
    m = tl.load(chunk_start_ptr + tl.program_id(0)) + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    begin = tl.load(cu_out_ptr + utterance)
    rows = tl.load(cu_out_ptr + utterance + 1) - begin
    samples = waveforms_ptr + tl.load(cu_samples_ptr + utterance).to(tl.int64) + m * stride
    center = tl.load(center_ptr + utterance * scaled) * scaled

    # In float32, without matrix units: the ten products of an output take less time than writing it.
    values = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for tap in range(0, taps):
        sample = tl.load(samples + tap, mask=m < rows, other=0.0).to(tl.float32) - center
        weight = tl.load(taps_ptr + tap * N + n, mask=n < N, other=0.0)
        values += sample[:, None] * weight[None, :]
    own = utterance.to(tl.int64) * N * scaled + n
    scale = tl.load(scale_ptr + own, mask=n < N * scaled, other=1.0)
    shift = tl.load(shift_ptr + own, mask=n < N * has_shift, other=0.0)
    values = activated(values * scale[None, :] + shift[None, :], activation)
    offsets = (begin + m).to(tl.int64)[:, None] * N + n[None, :]
    mask = (m < rows)[:, None] & (n < N)[None, :]
    tl.store(out_ptr + offsets, values.to(out_ptr.dtype.element_ty), mask=mask)


def first_layer_statistics(
    waveforms: Tensor,
    cu_samples: Tensor,
    cu_out: Tensor,
    taps: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    *,
    stride: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scale and shift [n, C_out] and center [n], float32, by which `first_layer` normalizes its outputs.

    Each channel gets mean 0 and variance 1 over an utterance, times `norm_weight`, plus `norm_bias`. Two
    launches, in float64: moments of chunks of each utterance's windows, then statistics from the moments.

    Args:
        waveforms, cu_samples, cu_out, stride: as in `first_layer`.
        taps: float32 [kernel, C_out], of at most `MAX_TAPS` taps.
        norm_weight, norm_bias: float32 [C_out].
        eps: added to the variance.
    """
    device, (kernel_size, outputs) = waveforms.device, taps.shape
    counts = lengths_of(cu_out)
    scale, shift = map(ready, waveforms.new_empty(2, len(counts), outputs, dtype=torch.float32))
    center = waveforms.new_empty(len(counts), dtype=torch.float32)
    case = window_moments_kernel.case(device, waveforms.dtype)
    utterances, starts, cu_chunks = _chunks(counts, case.constant("SPAN"), device)
    moments = waveforms.new_empty(utterances.numel(), MAX_TAPS + 1, MAX_TAPS, dtype=torch.float64)
    tensors = waveforms, cu_samples, utterances, starts, cu_out, moments
    case.launch((utterances.numel(), kernel_size + 1), *tensors, kernel_size, stride)
    case = first_layer_statistics_kernel.case(device, waveforms.dtype)
    inputs = waveforms, cu_samples, cu_chunks, cu_out, moments, taps, norm_weight, norm_bias
    grid = len(counts), case.block_count("BLOCK_N", outputs)
    case.launch(grid, *inputs, scale, shift, center, outputs, kernel_size, eps)
    return scale, shift, center


@kernel(outputs=("moments_ptr",))
def window_moments_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    chunk_utterance_ptr,  # [chunks]
    chunk_start_ptr,  # [chunks], first window within the utterance
    cu_out_ptr,  # [utterances + 1]
    moments_ptr,  # [chunks, TAPS + 1, TAPS]: sums of products of two taps' samples; last row sums of samples
    taps: tl.int32,
    stride: tl.int32,
    SPAN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    TAPS: tl.constexpr,
):
    chunk, other = tl.program_id(0), tl.program_id(1)
    utterance = tl.load(chunk_utterance_ptr + chunk)
    begin = tl.load(chunk_start_ptr + chunk)
    rows = tl.load(cu_out_ptr + utterance + 1) - tl.load(cu_out_ptr + utterance)
    end = tl.minimum(begin + SPAN, rows)
    samples = waveforms_ptr + tl.load(cu_samples_ptr + utterance).to(tl.int64)
    # Deviations from the first sample, so that the moments of a constant are exactly 0.
    origin = tl.load(samples).to(tl.float64)
    tap = tl.arange(0, TAPS)
    total = tl.zeros((BLOCK_M, TAPS), tl.float64)
    for start in range(begin, end, BLOCK_M):
        m = start + tl.arange(0, BLOCK_M)
        mask = (m < end)[:, None] & (tap < taps)[None, :]
        window = tl.load(samples + m[:, None] * stride + tap[None, :], mask=mask, other=0.0).to(tl.float64)
        window = tl.where(mask, window - origin, 0.0)
        factor = tl.load(samples + m * stride + other, mask=m < end * (other < taps), other=0.0)
        factor = tl.where(other < taps, factor.to(tl.float64) - origin, 1.0)
        total += window * factor[:, None]
    row = tl.where(other < taps, other, TAPS)
    tl.store(moments_ptr + (chunk.to(tl.int64) * (TAPS + 1) + row) * TAPS + tap, tl.sum(total, 0))


@kernel(outputs=("scale_ptr", "shift_ptr", "center_ptr"))
def first_layer_statistics_kernel(
    waveforms_ptr,  # [samples]
    cu_samples_ptr,  # [utterances + 1]
    cu_chunks_ptr,  # [utterances + 1]
    cu_out_ptr,  # [utterances + 1]
    moments_ptr,  # [chunks, TAPS + 1, TAPS]
    taps_ptr,  # [taps, N]
    norm_weight_ptr,  # [N]
    norm_bias_ptr,  # [N]
    scale_ptr,  # [utterances, N]
    shift_ptr,  # [utterances, N]
    center_ptr,  # [utterances]
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
    for chunk in range(tl.load(cu_chunks_ptr + utterance), tl.load(cu_chunks_ptr + utterance + 1)):
        moments = moments_ptr + tl.cast(chunk, tl.int64) * ((TAPS + 1) * TAPS)
        # Rows after the last tap are not written.
        mask = (other < taps)[:, None] & (tap < TAPS)[None, :]
        products += tl.load(moments + other[:, None] * TAPS + tap[None, :], mask=mask, other=0.0)
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
        tl.store(center_ptr + utterance, middle)
    means += tl.where(tap < taps, origin - middle.to(tl.float64), 0.0)

    # In float64: the variance of a high-pass channel is a small difference of large sums.
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


_int32 = ("cu_samples_ptr", "chunk_utterance_ptr", "chunk_start_ptr", "cu_out_ptr", "cu_chunks_ptr")
_float32 = ("taps_ptr", "scale_ptr", "shift_ptr", "center_ptr", "norm_weight_ptr", "norm_bias_ptr")
_types = dict.fromkeys(_int32, torch.int32) | dict.fromkeys(_float32, torch.float32)
_types["moments_ptr"] = torch.float64
for _sizes, _outputs in (("aligned", 64), ("any", 32)):
    first_layer_kernel.declare_all(
        DTYPES, (_sizes,), pointers=_types, num_stages=1, BLOCK_M=32, BLOCK_N=_outputs
    )
window_moments_kernel.declare_all(DTYPES, pointers=_types, num_stages=1, SPAN=2048, BLOCK_M=64, TAPS=MAX_TAPS)
first_layer_statistics_kernel.declare_all(DTYPES, pointers=_types, num_stages=1, BLOCK_N=32, TAPS=MAX_TAPS)
