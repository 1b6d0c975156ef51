"""Model sizes, and batches of recordings with LibriSpeech's lengths."""

import random
from dataclasses import dataclass
from functools import cached_property

RATE = 16_000
MIN_SECONDS, MAX_SECONDS, MEAN_SECONDS = 1.3, 35.0, 12.3  # seconds, of LibriSpeech's recordings


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of a model."""

    name: str
    width: int  # d_model
    heads: int
    ffn: int  # width inside a feed-forward layer
    # Channels between the two convolutions of Speech2Text, before the gate; 0 for wav2vec2, whose seven
    # convolutions give 50 tokens a second.
    conv: int
    vocabulary: int

    @property
    def head_dim(self) -> int:
        return self.width // self.heads


SMALL = Model("S2T small", width=256, heads=4, ffn=2048, conv=1024, vocabulary=10_000)
LARGE = Model("S2T large", width=1024, heads=16, ffn=4096, conv=1024, vocabulary=10_000)
WAV2VEC2 = Model("wav2vec2 base", width=768, heads=12, ffn=3072, conv=0, vocabulary=32)
# For the interpreter, with awkward sizes.
TINY = Model("tiny", width=48, heads=3, ffn=80, conv=24, vocabulary=53)
TINY_WAV2VEC2 = Model("tiny wav2vec2", width=32, heads=2, ffn=48, conv=0, vocabulary=32)


@dataclass(frozen=True)
class Batch:
    """A model and the recordings of its batch."""

    model: Model
    seconds: tuple[float, ...]
    rate: float = 3.4  # text tokens a second

    @property
    def size(self) -> int:
        return len(self.seconds)

    @cached_property
    def samples(self) -> list[int]:
        return [round(second * RATE) for second in self.seconds]

    @cached_property
    def frames(self) -> list[int]:
        """Frames of 25 ms, one every 10 ms."""
        return [1 + (samples - 400) // 160 for samples in self.samples]

    @cached_property
    def halves(self) -> list[int]:
        """Lengths after the first of Speech2Text's convolutions."""
        return [(frames + 1) // 2 for frames in self.frames]

    @cached_property
    def tokens(self) -> list[int]:
        """Lengths after the encoder's convolutions."""
        if self.model.conv:
            return [(half + 1) // 2 for half in self.halves]
        lengths = self.first_layer
        for kernel in (3, 3, 3, 3, 2, 2):
            lengths = [(length - kernel) // 2 + 1 for length in lengths]
        return lengths

    @cached_property
    def first_layer(self) -> list[int]:
        """Lengths after wav2vec2's first convolution, at its group norm."""
        return [(samples - 10) // 5 + 1 for samples in self.samples]

    @cached_property
    def text(self) -> list[int]:
        """Text tokens halfway through each transcript: a decode step's average self-attention length."""
        return [max(1, round(self.rate * second / 2)) for second in self.seconds]


def durations(count: int) -> tuple[float, ...]:
    """Seconds of `count` recordings in a random but fixed order, from 1.3 to 35 with mean 12.3.

    Evenly spaced quantiles of a Kumaraswamy distribution: one hump, and a long tail to the right.
    """
    a, b = 1.6, 3.85  # the mean of this one is 0.326, where 12.3 lies between 1.3 and 35
    quantiles = [(index + 0.5) / count for index in range(count)]
    unit = [(1 - (1 - u) ** (1 / b)) ** (1 / a) for u in quantiles]
    seconds = [MIN_SECONDS + (MAX_SECONDS - MIN_SECONDS) * x for x in unit]
    seconds[0], seconds[-1] = MIN_SECONDS, MAX_SECONDS
    # Setting the ends moved the mean a little; the others move it back.
    excess = (sum(seconds) - MEAN_SECONDS * count) / max(count - 2, 1)
    seconds[1:-1] = [min(max(second - excess, MIN_SECONDS), MAX_SECONDS) for second in seconds[1:-1]]
    random.Random(0).shuffle(seconds)
    return tuple(seconds)


def real(model: Model, count: int) -> Batch:
    """A batch of LibriSpeech's lengths."""
    return Batch(model, durations(count))


def equal(model: Model, count: int) -> Batch:
    """A batch of recordings all of the mean length."""
    return Batch(model, (MEAN_SECONDS,) * count)


def tiny(model: Model) -> Batch:
    """Three short recordings, for the interpreter."""
    return Batch(model, (0.21, 0.47, 0.1), rate=150.0)
