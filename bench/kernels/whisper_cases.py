"""Cases of Whisper's own kernels: its log-mel features."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tritone.kernels.features.log_mel import DEFAULT, FRAME, Excerpt, _mel_matrix, log_mel, log_mel_reference

from ..common.roofline import Work
from ..common.shapes import Batch
from .cases import Case, Prepared, Setup, last_alone

MEL_BINS, HOP = 80, 160
INPUT = 480_000  # samples, 30 s
ROWS = INPUT // HOP


def log_mel_features(batch: Batch) -> Case:
    samples = [min(samples, INPUT) for samples in batch.samples]
    counts = [min(-(-(one + FRAME // 2) // HOP), ROWS) for one in samples]
    excerpts = [Excerpt(frames, ROWS, length=INPUT) for frames in counts]
    # A frame's fast Fourier transform of 400 real samples and its window; power, and two triangles over each
    # of 201 lines. Or both linear steps as products with matrices.
    fast, dense = 2.5 * 400 * 8.64 + 400 + 7 * 201, 2 * 400 * 2 * 200 + 2 * 201 * MEL_BINS

    def prepare(setup: Setup) -> Prepared:
        cu_samples = setup.offsets(samples)
        waveforms = setup.random(sum(samples), dtype=torch.float32, scale=0.1)
        wanted = last_alone(log_mel_reference, waveforms[0], samples, excerpts[-1:], dtype=torch.float64)
        ours = Prepared.of(lambda i: log_mel(waveforms[i], cu_samples, excerpts)[0], wanted, 1e-4)
        if batch.size <= 256:
            many = [_padded(waveform, samples) for waveform in waveforms]
            ours.beside("torch, padded", lambda i: _batched_log_mel(many[i]), lambda out: out[-1].T)
        return ours

    frames = sum(counts)
    work = Work(frames * fast, 4 * (sum(samples) + ROWS * len(samples) * MEL_BINS), frames * dense)
    return Case("log_mel", batch.model.name, batch.size, "30 s windows", work, prepare)


def _padded(waveform: Tensor, samples: list[int]) -> Tensor:
    return torch.stack([F.pad(one, (0, INPUT - len(one))) for one in waveform.split(samples)])


def _batched_log_mel(waveforms: Tensor) -> Tensor:
    """Whisper's features in plain torch, as in transformers: [n, 480,000] to [n, 80, 3,000]."""
    window = torch.hann_window(FRAME, device=waveforms.device)
    power = torch.stft(waveforms, FRAME, HOP, window=window, return_complex=True)[..., :-1].abs().square()
    logs = (_mel_matrix(DEFAULT, torch.float32, waveforms.device).T @ power).clamp(min=1e-10).log10()
    return (logs.maximum(logs.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0
