"""Peers of the kernels: torch on padded batches, nested tensors, torchaudio."""

import math
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor


def padded(packed: Tensor, lengths: list[int]) -> Tensor:
    """Sequences end to end [tokens, ...] as [n, longest, ...], zeros behind each."""
    return torch.nn.utils.rnn.pad_sequence(list(packed.split(lengths)), batch_first=True)


def mask_of(lengths: list[int], device: torch.device) -> Tensor:
    """The attention mask of a padded batch, bool [n, longest]."""
    return torch.arange(max(lengths), device=device)[None] < torch.tensor(lengths, device=device)[:, None]


def channels_first(packed: Tensor, lengths: list[int]) -> Tensor:
    """[tokens, channels] as conv1d takes it, [n, channels, longest]."""
    return padded(packed, lengths).transpose(1, 2).contiguous()


def one_by_one(packed: Tensor, lengths: list[int]) -> list[Tensor]:
    """[tokens, channels] as a list of [1, channels, length]."""
    return [one.T[None].contiguous() for one in packed.split(lengths)]


def heads_first(packed: Tensor, lengths: list[int]) -> Tensor:
    """[tokens, heads, head_dim] as SDPA takes it, [n, heads, longest, head_dim]."""
    return channels_first(packed, lengths)


def nested(packed: Tensor, lengths: list[int]) -> Tensor:
    """[tokens, heads, head_dim] as a nested tensor [n, heads, (length), head_dim]; no copy."""
    offsets = torch.tensor([0, *lengths], device=packed.device).cumsum(0)
    return torch.nested.nested_tensor_from_jagged(
        packed, offsets, min_seqlen=min(lengths), max_seqlen=max(lengths)
    ).transpose(1, 2)


def conv_glu(frames: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Speech2Text's convolution on a padded batch [n, channels, longest]."""
    return F.glu(F.conv1d(frames, weight, bias, stride=2, padding=weight.shape[2] // 2), dim=1)


def normalized(features: Tensor, mask: Tensor) -> Tensor:
    """Mean and variance normalization of a padded batch [n, longest, bins]."""
    mask = mask[:, :, None]
    count = mask.sum(1, keepdim=True)
    mean = (features * mask).sum(1, keepdim=True) / count
    centered = (features - mean) * mask
    return centered / (centered.square().sum(1, keepdim=True) / count).sqrt()


def pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """Masked mean of a padded batch [n, longest, width], with the padding cleared in place as transformers'
    audio classifiers do."""
    return hidden.masked_fill_(~mask[:, :, None], 0.0).sum(1) / mask.sum(1, keepdim=True)


def gather_pages(pool: Tensor, positions: Tensor) -> Tensor:
    """Gather cache positions, int64 [rows, longest], as SDPA takes them: [rows, heads, longest, head_dim]."""
    return pool.flatten(0, 1)[positions].transpose(1, 2)


def batched_fbank(waveforms: Tensor) -> Tensor:
    """Kaldi's features of a padded batch [n, samples] at 16 kHz, in plain torch: [n, frames, 80]."""
    frames = waveforms.unfold(1, 400, 160)
    frames = frames - frames.mean(2, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[..., :1], frames[..., :-1]], 2)
    window, mel = _povey_and_mel(waveforms.device)
    power = torch.fft.rfft(frames * window, n=512).abs().square()
    return (power @ mel).clamp(min=torch.finfo(torch.float32).eps).log()


@cache
def _povey_and_mel(device: torch.device) -> tuple[Tensor, Tensor]:
    """Window [400] and triangles [257, 80], as Kaldi has them."""
    window = torch.hann_window(400, periodic=False, dtype=torch.float64).pow(0.85)
    edges = torch.linspace(_mel(20.0), _mel(8000.0), 82, dtype=torch.float64)
    mels = 1127.0 * torch.log1p(torch.arange(257, dtype=torch.float64) * (16_000 / 512) / 700.0)[:, None]
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    return window.float().to(device), triangles.float().to(device)


def _mel(frequency: float) -> float:
    return 1127.0 * math.log1p(frequency / 700.0)


def torchaudio_fbank() -> Callable[[Tensor], Tensor]:
    """torchaudio's Kaldi features of one waveform [samples].

    Raises:
        ImportError, OSError: torchaudio is missing, or does not fit this torch.
    """
    from torchaudio.compliance import kaldi

    return lambda waveform: kaldi.fbank(waveform[None], num_mel_bins=80, dither=0.0)
