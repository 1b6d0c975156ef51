"""Kernels beside the filter bank of Whisper's spectrogram: its samples before, floor and scale after."""

import torch

from ..runtime.launch import kernel
from ..runtime.optional_triton import tl

TABLE_COLUMNS = 4  # of `table_ptr`: first sample, samples, sample of the first frame's begin, length


@kernel()
def frame_samples_kernel(
    waveforms_ptr,  # [samples]
    table_ptr,  # [excerpts, TABLE_COLUMNS]
    cu_framed_ptr,  # [excerpts + 1]
    out_ptr,  # [framed samples]
    BLOCK: tl.constexpr,
):
    # Reflected at both ends of the recording, 0 between the samples and its end.
    own = tl.program_id(1)
    begin, end = tl.load(cu_framed_ptr + own), tl.load(cu_framed_ptr + own + 1)
    row = table_ptr + own * 4
    samples, last = tl.load(row + 1), tl.load(row + 3) - 1
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = last - tl.abs(last - tl.abs(tl.load(row + 2) + place))
    present = (at >= 0) & (at < samples) & (place < end - begin)
    values = tl.load(waveforms_ptr + tl.load(row) + at, mask=present, other=0.0)
    tl.store(out_ptr + begin + place, values, mask=place < end - begin)


@kernel()
def log_mel_floor_kernel(
    logs_ptr,  # [frames, bins]
    peaks_ptr,  # [frames, peaks_per_frame]
    cu_frames_ptr,  # [excerpts + 1]
    cu_rows_ptr,  # [excerpts + 1]
    levels_ptr,  # [excerpts, 2]: maximum and fill, NaN for the excerpt's own maximum and that of silence
    out_ptr,  # [rows, bins]
    peaks_per_frame: tl.int32,
    bins: tl.int32,
    BLOCK: tl.constexpr,
    BLOCK_PEAKS: tl.constexpr,
):
    own = tl.program_id(1)
    begin, end = tl.load(cu_frames_ptr + own), tl.load(cu_frames_ptr + own + 1)
    row, last_row = tl.load(cu_rows_ptr + own), tl.load(cu_rows_ptr + own + 1)
    best = tl.full((BLOCK_PEAKS,), -10.0, tl.float32)
    for first in range(begin * peaks_per_frame, end * peaks_per_frame, BLOCK_PEAKS):
        index = first + tl.arange(0, BLOCK_PEAKS)
        peaks = tl.load(peaks_ptr + index, mask=index < end * peaks_per_frame, other=-10.0)
        best = tl.maximum(best, peaks)
    given, fill = tl.load(levels_ptr + 2 * own), tl.load(levels_ptr + 2 * own + 1)
    lowest = tl.where(given == given, given, tl.max(best, axis=0)) - 8.0
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    computed = element < (end - begin) * bins
    values = tl.load(logs_ptr + begin.to(tl.int64) * bins + element, mask=computed, other=-10.0)
    values = (tl.where(values < lowest, lowest, values) + 4.0) * 0.25
    values = tl.where(computed, values, tl.where(fill == fill, fill, values))
    tl.store(out_ptr + row.to(tl.int64) * bins + element, values, mask=element < (last_row - row) * bins)


_integers = dict.fromkeys(("table_ptr", "cu_framed_ptr", "cu_frames_ptr", "cu_rows_ptr"), torch.int32)
frame_samples_kernel.declare_all(pointers=_integers, BLOCK=4096, num_warps=8)
log_mel_floor_kernel.declare_all(pointers=_integers, BLOCK=4096, BLOCK_PEAKS=1024, num_warps=8)
