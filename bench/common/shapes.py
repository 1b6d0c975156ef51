"""What the kernels are timed on: models' sizes, and batches of recordings as long as LibriSpeech's."""

import math
import random
from dataclasses import dataclass
from functools import cached_property

RATE = 16_000
SHORTEST, LONGEST, MEAN = 1.3, 35.0, 12.3  # seconds, of LibriSpeech's recordings


@dataclass(frozen=True, slots=True)
class Model:
    """Sizes of a model.

    Args:
        width: d_model.
        heads: of the attention.
        ffn: width inside a feed-forward layer.
        conv: channels between the two convolutions of Speech2Text, before the gate; 0 for wav2vec2, whose
            seven convolutions give 50 tokens a second.
        vocabulary: tokens.
    """

    name: str
    width: int
    heads: int
    ffn: int
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
    """A model and the recordings that it is given.

    Args:
        rate: of the text, in tokens a second.
    """

    model: Model
    seconds: tuple[float, ...]
    rate: float = 3.4

    @property
    def size(self) -> int:
        return len(self.seconds)

    @cached_property
    def samples(self) -> list[int]:
        return [round(second * RATE) for second in self.seconds]

    @cached_property
    def frames(self) -> list[int]:
        """Of 25 ms every 10 ms."""
        return [1 + (samples - 400) // 160 for samples in self.samples]

    @cached_property
    def halves(self) -> list[int]:
        """Behind the first of Speech2Text's convolutions."""
        return [(frames + 1) // 2 for frames in self.frames]

    @cached_property
    def tokens(self) -> list[int]:
        """Of the encoder."""
        if self.model.conv:
            return [(half + 1) // 2 for half in self.halves]
        lengths = self.first_layer
        for kernel in (3, 3, 3, 3, 2, 2):
            lengths = [(length - kernel) // 2 + 1 for length in lengths]
        return lengths

    @cached_property
    def first_layer(self) -> list[int]:
        """Steps behind wav2vec2's first convolution, where its group norm is."""
        return [(samples - 10) // 5 + 1 for samples in self.samples]

    @cached_property
    def text(self) -> list[int]:
        """Text tokens, halfway through each transcript: what a decode step attends to on average."""
        return [max(1, round(self.rate * second / 2)) for second in self.seconds]


def durations(count: int) -> tuple[float, ...]:
    """Seconds of `count` recordings in a random but fixed order, from 1.3 to 35 with mean 12.3.

    Evenly spaced quantiles of a Kumaraswamy distribution: one hump, and a long tail to the right.
    """
    a, b = 1.6, 3.85  # the mean of this one is 0.326, where 12.3 lies between 1.3 and 35
    quantiles = [(place + 0.5) / count for place in range(count)]
    unit = [(1 - (1 - u) ** (1 / b)) ** (1 / a) for u in quantiles]
    seconds = [SHORTEST + (LONGEST - SHORTEST) * x for x in unit]
    seconds[0], seconds[-1] = SHORTEST, LONGEST
    # The ends have moved a little, and so has the mean: those between take it back.
    excess = (sum(seconds) - MEAN * count) / max(count - 2, 1)
    seconds[1:-1] = [min(max(second - excess, SHORTEST), LONGEST) for second in seconds[1:-1]]
    random.Random(0).shuffle(seconds)
    return tuple(seconds)


def real(model: Model, count: int) -> Batch:
    """A batch of LibriSpeech's lengths."""
    return Batch(model, durations(count))


def equal(model: Model, count: int) -> Batch:
    """A batch of recordings all of the mean length."""
    return Batch(model, (MEAN,) * count)


def tiny(model: Model) -> Batch:
    """Three recordings that the interpreter gets through."""
    return Batch(model, (0.21, 0.47, 0.1), rate=150.0)


def padding(lengths: list[int]) -> float:
    """How much longer a padded batch is than what it holds."""
    return max(lengths) * len(lengths) / math.fsum(lengths)
