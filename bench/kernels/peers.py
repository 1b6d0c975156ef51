"""What a user would call in place of a kernel: torch on padded batches, nested tensors, torchaudio."""

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
    """Which places of a padded batch are taken: bool [n, longest]."""
    return torch.arange(max(lengths), device=device)[None] < torch.tensor(lengths, device=device)[:, None]


def heads_first(packed: Tensor, lengths: list[int]) -> Tensor:
    """[tokens, heads, head_dim] as SDPA takes it, [n, heads, longest, head_dim]."""
    return padded(packed, lengths).transpose(1, 2).contiguous()


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
    taken = mask[:, :, None]
    count = taken.sum(1, keepdim=True)
    mean = (features * taken).sum(1, keepdim=True) / count
    centered = (features - mean) * taken
    return centered / (centered.square().sum(1, keepdim=True) / count).sqrt()


def pooled(hidden: Tensor, mask: Tensor) -> Tensor:
    """The mean of each row's own tokens, of a padded batch [n, longest, width]: as transformers' classifiers
    of recordings take it, which clear the padding where it is."""
    return hidden.masked_fill_(~mask[:, :, None], 0.0).sum(1) / mask.sum(1, keepdim=True)


def gather_pages(pool: Tensor, slots: Tensor) -> Tensor:
    """Rows of pages as SDPA takes them: [rows, heads, longest, head_dim] from int64 slots [rows, longest]."""
    return pool.flatten(0, 1)[slots].transpose(1, 2)


def batched_fbank(waveforms: Tensor) -> Tensor:
    """Kaldi's features of a padded batch [n, samples] at 16 kHz, in plain torch: [n, frames, 80]."""
    frames = waveforms.unfold(1, 400, 160)
    frames = frames - frames.mean(2, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[..., :1], frames[..., :-1]], 2)
    taper, mel = _povey_and_mel(waveforms.device)
    power = torch.fft.rfft(frames * taper, n=512).abs().square()
    return (power @ mel).clamp(min=torch.finfo(torch.float32).eps).log()


@cache
def _povey_and_mel(device: torch.device) -> tuple[Tensor, Tensor]:
    """Window [400] and triangles [257, 80], as Kaldi has them."""
    taper = torch.hann_window(400, periodic=False, dtype=torch.float64).pow(0.85)
    edges = torch.linspace(_mel(20.0), _mel(8000.0), 82, dtype=torch.float64)
    mels = 1127.0 * torch.log1p(torch.arange(257, dtype=torch.float64) * (16_000 / 512) / 700.0)[:, None]
    rising = (mels - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mels) / (edges[2:] - edges[1:-1])
    triangles = torch.minimum(rising, falling).clamp(min=0.0)
    return taper.float().to(device), triangles.float().to(device)


def _mel(frequency: float) -> float:
    return 1127.0 * math.log1p(frequency / 700.0)


def torchaudio_fbank() -> Callable[[Tensor], Tensor]:
    """torchaudio's Kaldi features of one waveform [samples].

    Raises:
        ImportError, OSError: it is not there, or does not fit this torch.
    """
    from torchaudio.compliance import kaldi

    return lambda waveform: kaldi.fbank(waveform[None], num_mel_bins=80, dither=0.0)
