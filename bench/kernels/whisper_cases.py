"""Cases of Whisper's own kernels: its log-mel features, and the weights of its alignment heads."""

import torch
import torch.nn.functional as F
from torch import Tensor

from tritone.kernels.attention.head_weights import head_weights, head_weights_reference
from tritone.kernels.features.log_mel import DEFAULT, FRAME, Excerpt, _mel_matrix, log_mel, log_mel_reference

from ..common.roofline import Work
from ..common.shapes import Batch
from .cases import HALF, Case, Prepared, Setup, last_alone

MEL_BINS, HOP = 80, 160
INPUT = 480_000  # samples, 30 s
ROWS = INPUT // HOP
KEYS, QUERIES, NAMED = ROWS // 2, 100, 6  # of a window: encoder positions, tokens, alignment heads of a layer
MAX_WINDOWS = 16  # that end together


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


def alignment_weights(batch: Batch) -> Case:
    model, count = batch.model, min(batch.size, MAX_WINDOWS)
    named = list(range(min(NAMED, model.heads)))

    def prepare(setup: Setup) -> Prepared:
        query = setup.random(count * QUERIES, model.heads, model.head_dim)
        key = setup.random(count * KEYS, model.heads, model.head_dim)
        cu_query, cu_key = setup.offsets([QUERIES] * count), setup.offsets([KEYS] * count)
        ends = query[0][-QUERIES:].float(), key[0][-KEYS:].float()
        alone = setup.offsets([QUERIES]), setup.offsets([KEYS])
        wanted = head_weights_reference(*ends, *alone, named, KEYS)
        scale = model.head_dim**-0.5

        def ours(i: int) -> Tensor:
            return head_weights(query[i], key[i], cu_query, cu_key, named, KEYS)

        def plain(i: int) -> Tensor:
            one = query[i][:, : len(named)].unflatten(0, (count, QUERIES)).permute(2, 0, 1, 3)
            other = key[i][:, : len(named)].unflatten(0, (count, KEYS)).permute(2, 0, 3, 1)
            return ((one @ other).float() * scale).softmax(-1).flatten(1, 2)

        def last(out: Tensor) -> Tensor:
            return out[:, -QUERIES:]

        return Prepared.of(ours, wanted, setup.error, last).beside("torch", plain)

    weights = count * len(named) * QUERIES * KEYS
    inputs = count * (QUERIES + KEYS) * len(named) * model.head_dim
    work = Work(2 * weights * model.head_dim, HALF * inputs + 4 * weights)
    shape = f"{len(named)} heads, {QUERIES} by {KEYS:,}"
    return Case("head_weights", model.name, count, shape, work, prepare)


def _padded(waveform: Tensor, samples: list[int]) -> Tensor:
    return torch.stack([F.pad(one, (0, INPUT - len(one))) for one in waveform.split(samples)])


def _batched_log_mel(waveforms: Tensor) -> Tensor:
    """Whisper's features in plain torch, as in transformers: [n, 480,000] to [n, 80, 3,000]."""
    window = torch.hann_window(FRAME, device=waveforms.device)
    power = torch.stft(waveforms, FRAME, HOP, window=window, return_complex=True)[..., :-1].abs().square()
    logs = (_mel_matrix(DEFAULT, torch.float32, waveforms.device).T @ power).clamp(min=1e-10).log10()
    return (logs.maximum(logs.amax((1, 2), keepdim=True) - 8.0) + 4.0) / 4.0
