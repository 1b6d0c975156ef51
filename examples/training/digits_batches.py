"""Batches for train_digits.py: strings of digits as features, labels and the spans of the digits in them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from digits_data import SAMPLING_RATE, StringMaker, Utterance
from torch import Tensor

from tritone.kernels.features.fbank import fbank
from tritone.kernels.norm.utterance_cmvn import utterance_cmvn

FRAME_SHIFT = SAMPLING_RATE // 100  # samples
FRAME_LENGTH = SAMPLING_RATE // 40  # samples
BINS = 80
FIRST_TOKEN = 4  # <s>, <pad>, </s> and <unk> come before the ten digits
EOS = 2
T = TypeVar("T")


@dataclass(frozen=True)
class Batch:
    """A padded batch, as the model's `forward` takes it."""

    features: Tensor  # [batch, frames, 80]
    mask: Tensor  # [batch, frames], int64, 1 for real frames
    labels: Tensor  # [batch, tokens], the digits and </s>, -100 after them
    target_lengths: Tensor  # [batch], without </s>
    targets: Tensor  # [sum of target_lengths], for CTC
    spans: Tensor  # [batch, tokens, 2], first frame and end of each label; -1 where unknown


def make_batch(
    strings: Sequence[Utterance], rng: np.random.Generator | None = None, strength: float = 1.0
) -> Batch:
    """Features of the strings; with a generator warped in time and frequency and partly masked."""
    waveforms = [torch.from_numpy(_at_least_one_frame(string.waveform)) for string in strings]
    offsets = torch.tensor([0, *np.cumsum([len(w) for w in waveforms])], dtype=torch.int32)
    packed, cu_frames = fbank(torch.cat(waveforms) * 32768, offsets)  # in the scale of 16-bit samples
    features = list(packed.split((cu_frames[1:] - cu_frames[:-1]).tolist()))
    digit_spans = [_frames_of(string) for string in strings]
    if rng is not None:
        for i, frames in enumerate(features):
            features[i], digit_spans[i] = _warped(frames, digit_spans[i], rng, strength)
    lengths = [len(frames) for frames in features]
    cu_frames = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    features = list(utterance_cmvn(torch.cat(features), cu_frames).split(lengths))
    if rng is not None:
        features = [_masked(frames, rng) if rng.random() < strength else frames for frames in features]
    return _padded(features, digit_spans, strings)


def training_batches(
    maker: StringMaker, size: int, steps: int, seed: int, strength: float = 1.0, ramp: bool = True
) -> Iterator[Batch]:
    """`steps` batches of `size` strings, made by a thread while the model trains on the one before.

    `strength`, 0 to 1, scales the augmentation; with `ramp` it grows from none over the first 40 % of the
    steps.
    """
    rng = np.random.default_rng(seed)

    def made() -> Iterator[Batch]:
        for step in range(steps):
            share = strength * (min(1.0, step / (0.4 * steps)) if ramp else 1.0)
            yield make_batch([maker.draw(share) for _ in range(size)], rng, share)

    return ahead(made())


def ahead(batches: Iterator[T]) -> Iterator[T]:
    """The same batches, up to three of them made ahead in a thread; its errors are raised here."""
    ready: queue.Queue[T | Exception | None] = queue.Queue(maxsize=3)

    def produce() -> None:
        try:
            for batch in batches:
                ready.put(batch)
            ready.put(None)
        except Exception as error:
            ready.put(error)

    threading.Thread(target=produce, daemon=True).start()
    while (batch := ready.get()) is not None:
        if isinstance(batch, Exception):
            raise batch
        yield batch


def _at_least_one_frame(waveform: np.ndarray) -> np.ndarray:
    return np.pad(waveform, (0, max(0, FRAME_LENGTH - len(waveform))))


def _frames_of(string: Utterance) -> np.ndarray | None:
    """First frame and end of each digit, [digits, 2]; a frame counts where its middle lies."""
    if string.spans is None:
        return None
    middles = (np.array(string.spans, dtype=np.float64).reshape(-1, 2) - FRAME_LENGTH / 2) / FRAME_SHIFT
    return np.maximum(middles, 0)


def _warped(
    frames: Tensor, digit_spans: np.ndarray | None, rng: np.random.Generator, strength: float
) -> tuple[Tensor, np.ndarray | None]:
    """Warp the tempo, changing within the string, and the vocal tract length; neither moves the pitch."""
    total = len(frames)
    if rng.random() < 0.6 * strength:
        knots = np.linspace(0, total, total // 35 + 2)
        pace = np.exp(np.interp(np.arange(total), knots, rng.uniform(-0.25, 0.25, len(knots))))
        clock = np.concatenate([[0.0], np.cumsum(pace)[:-1]])  # when each old frame comes, on the new clock
        source = np.interp(np.arange(int(clock[-1]) + 1), clock, np.arange(total))
        below = torch.from_numpy(np.floor(source).astype(np.int64))
        share = torch.from_numpy((source - np.floor(source)).astype(np.float32))[:, None]
        frames = frames[below] * (1 - share) + frames[(below + 1).clamp(max=total - 1)] * share
        digit_spans = None if digit_spans is None else np.interp(digit_spans, np.arange(total), clock)
    if rng.random() < 0.6 * strength:
        frames = frames @ _mel_warp(np.exp(rng.uniform(-0.14, 0.14)))
    return frames, digit_spans


def _mel_warp(factor: float) -> Tensor:
    """The matrix [80, 80] that moves each mel bin to `factor` times its frequency."""
    low, high = (1127 * np.log1p(f / 700) for f in (20.0, SAMPLING_RATE / 2))
    centers = 700 * np.expm1(np.linspace(low, high, BINS + 2)[1:-1] / 1127)  # Hz
    source = np.interp(centers / factor, centers, np.arange(BINS))
    below = np.minimum(source.astype(np.int64), BINS - 2)
    matrix = np.zeros((BINS, BINS), dtype=np.float32)
    matrix[below, np.arange(BINS)] = 1 - (source - below)
    matrix[below + 1, np.arange(BINS)] += source - below
    return torch.from_numpy(matrix)


def _masked(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """SpecAugment: bands and short stretches set to the mean, which is 0."""
    frames = frames.clone()
    for _ in range(2):
        width = int(rng.integers(0, 13))
        start = int(rng.integers(0, BINS - width))
        frames[:, start : start + width] = 0
    for _ in range(int(rng.integers(0, 2 + len(frames) // 100))):
        start = int(rng.integers(0, len(frames)))
        frames[start : start + int(rng.integers(0, 13))] = 0
    return frames


def _padded(
    features: list[Tensor], digit_spans: list[np.ndarray | None], strings: Sequence[Utterance]
) -> Batch:
    count, tokens = len(strings), 1 + max(len(string.digits) for string in strings)
    longest = max(len(frames) for frames in features)
    padded = torch.zeros(count, longest, BINS)
    mask = torch.zeros(count, longest, dtype=torch.int64)
    labels = torch.full((count, tokens), -100)
    spans = torch.full((count, tokens, 2), -1.0)
    for i, (frames, string) in enumerate(zip(features, strings, strict=True)):
        padded[i, : len(frames)], mask[i, : len(frames)] = frames, 1
        size = len(string.digits)
        labels[i, :size], labels[i, size] = torch.tensor(string.digits) + FIRST_TOKEN, EOS
        digit_span = digit_spans[i]
        if digit_span is not None and size:
            spans[i, :size] = torch.from_numpy(digit_span).float()
            spans[i, size, 0], spans[i, size, 1] = spans[i, size - 1, 0], len(frames)  # </s>
    targets = torch.cat([torch.tensor(string.digits, dtype=torch.int64) + FIRST_TOKEN for string in strings])
    return Batch(padded, mask, labels, torch.tensor([len(s.digits) for s in strings]), targets, spans)
