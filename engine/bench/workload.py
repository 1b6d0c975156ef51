"""Recordings and texts of a measurement: the user's own, or ones that are made up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..engine import Engine

TOKENS_PER_SECOND = 3.4  # of speech
_COUNT = 8
_MIN_SECONDS, _MAX_SECONDS = 2.0, 15.0
_WORDS = (6, 160)  # of the shortest and the longest text
_SENTENCE = "The keeper of the lighthouse counted forty ships and waited for the wind to turn."


@dataclass(frozen=True, slots=True)
class Work:
    """One recording or text, with the options of its request.

    Args:
        source: input that the engine takes.
        tokens: number of tokens of a text; None for a recording, whose result has its duration.
        options: generation options.
    """

    source: Any
    tokens: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workload:
    """Recordings or texts, which are taken in turn, and their description."""

    works: Sequence[Work]
    description: str
    made_up: bool


def given_recordings(sources: Sequence[Any], options: dict[str, Any]) -> Workload:
    """Workload of a user's recordings."""
    works = [Work(source, options=options) for source in sources]
    return Workload(works, f"{len(works)} recordings of yours", False)


def given_texts(engine: Engine, texts: Sequence[str]) -> Workload:
    """Workload of a user's texts."""
    works = [Work(text, count_tokens(engine, text)) for text in texts]
    return Workload(works, f"{len(works)} texts of yours", False)


def made_up(engine: Engine, options: dict[str, Any]) -> Workload:
    """Recordings or texts of several lengths for the engine's model."""
    return _made_up_texts(engine) if engine.sampling_rate is None else _made_up_recordings(engine, options)


def count_tokens(engine: Engine, text: str) -> int:
    """Number of tokens that a classifier reads of a text."""
    return len(engine.processor(text)["input_ids"])


def _made_up_recordings(engine: Engine, options: dict[str, Any]) -> Workload:
    """Noise with the slow envelope of speech; a model that generates gives as many tokens as speech has."""
    rate = engine.sampling_rate or 0
    longest = min(_MAX_SECONDS, engine.max_seconds or _MAX_SECONDS)
    lengths = np.linspace(min(_MIN_SECONDS, longest), longest, _COUNT)
    rng = np.random.default_rng(0)
    rng.shuffle(lengths)
    works, generates = [], hasattr(engine.model, "cache_shape")
    for seconds in lengths.tolist():
        axis = np.arange(int(seconds * rate), dtype=np.float32) / rate
        envelope = 0.05 * (1.1 + np.sin(2 * np.pi * 3 * axis))
        waveform = envelope * rng.standard_normal(len(axis), dtype=np.float32)
        tokens = (
            max(min(round(TOKENS_PER_SECOND * seconds), engine.model.max_length // 2), 1) if generates else 0
        )
        own = {"max_new_tokens": tokens, "min_new_tokens": tokens} if generates else {}
        works.append(Work(waveform, options=own | options))
    pace = f", {TOKENS_PER_SECOND} tokens a second" if generates else ""
    text = f"{_COUNT} made-up recordings of {lengths.min():.0f} to {lengths.max():.0f} s{pace}"
    return Workload(works, text, True)


def _made_up_texts(engine: Engine) -> Workload:
    counts = np.geomspace(*_WORDS, _COUNT).round().astype(int)
    np.random.default_rng(0).shuffle(counts)
    works, words = [], _SENTENCE.split()
    for count in counts.tolist():
        text = " ".join((words * (count // len(words) + 1))[:count])
        works.append(Work(text, count_tokens(engine, text), {"truncate": True}))
    return Workload(works, f"{_COUNT} made-up texts of {_WORDS[0]} to {_WORDS[1]} words", True)
