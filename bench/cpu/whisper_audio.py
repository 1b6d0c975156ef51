"""Speech whose text is known, for the Whisper benchmark: joined samples of the repository, and what lies in
`../shared/data` beside it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tritone.engine.audio.reader import load_audio

from ..common.shapes import RATE

ROOT = Path(__file__).parents[2]
JFK = ROOT / "../shared/data/jfk.flac"  # public domain; not part of the repository
JFK_TEXT = (
    "And so, my fellow Americans, ask not what your country can do for you, "
    "ask what you can do for your country."
)
LONGEST_SAMPLE = 30.0  # seconds
PAUSE = 0.4  # seconds between joined samples, at least
HISS = 1e-4  # amplitude of pauses: no microphone gives zeros


@dataclass(frozen=True, slots=True)
class Spoken:
    """Recording and what is said in it."""

    waveform: np.ndarray  # float32 [samples] at 16 kHz
    text: str

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.waveform) / RATE


def short_recordings(shortest: float, longest: float, count: int) -> list[Spoken]:
    """Recordings of evenly spaced lengths in a fixed random order, of sentences with pauses."""
    rng = np.random.default_rng(0)
    lengths = np.linspace(shortest, longest, count)
    rng.shuffle(lengths)
    sentences = [one for one in samples("english") if one.seconds < LONGEST_SAMPLE]
    sentences += [Spoken(_read(JFK), JFK_TEXT)] if JFK.exists() else []
    digits = samples("digits")
    return [_fill(length, sentences, digits, rng) for length in lengths.tolist()]


def long_recording(seconds: float | None = None) -> Spoken:
    """The story of three minutes and other sentences; with `seconds` its beginning, of unknown text."""
    parts = sorted(samples("english"), key=lambda one: -one.seconds)
    story, pause, *sentences = parts
    sentences += [Spoken(_read(JFK), JFK_TEXT)] if JFK.exists() else []
    joined = _join([story, *sentences, pause], PAUSE, np.random.default_rng(0))
    return joined if seconds is None else Spoken(joined.waveform[: round(seconds * RATE)], "")


def excerpts(shortest: float, longest: float, count: int) -> list[Spoken]:
    """Excerpts of the long recording of evenly spaced lengths, from random beginnings; of unknown text."""
    rng = np.random.default_rng(0)
    whole = long_recording().waveform
    lengths = [round(seconds * RATE) for seconds in np.linspace(shortest, longest, count).tolist()]
    rng.shuffle(lengths)
    begins = [int(rng.integers(len(whole) - length)) for length in lengths]
    return [Spoken(whole[begin : begin + length], "") for begin, length in zip(begins, lengths, strict=True)]


def samples(folder: str) -> list[Spoken]:
    """The recordings of a folder of `samples/`, with their texts."""
    path = ROOT / "samples" / folder
    texts: dict[str, str] = json.loads((path / "transcripts.json").read_text())
    return [Spoken(_read(path / name), text) for name, text in texts.items()]


def _fill(
    seconds: float, sentences: Sequence[Spoken], digits: Sequence[Spoken], rng: np.random.Generator
) -> Spoken:
    """Join samples to exactly `seconds`: sentences, and where none fits digits, with pauses that fill it."""
    for candidates in (sentences, digits):
        chosen: list[Spoken] = []
        rest = seconds
        for index in rng.permutation(len(candidates)).tolist():
            if (needed := candidates[index].seconds + (PAUSE if chosen else 0)) <= rest:
                chosen.append(candidates[index])
                rest -= needed
        if chosen:
            break
    else:
        raise ValueError(f"no sample is as short as {seconds:.2f} s; the shortest recording must be longer")
    parts = len(chosen)
    pause = (seconds - sum(one.seconds for one in chosen)) / parts  # half of the last one before the first
    joined = _join(chosen, pause, rng)
    missing = round(seconds * RATE) - len(joined.waveform)
    before = _hiss(missing // 2, rng)
    return Spoken(np.concatenate([before, joined.waveform, _hiss(missing - len(before), rng)]), joined.text)


def _join(parts: Sequence[Spoken], pause: float, rng: np.random.Generator) -> Spoken:
    """Join recordings with a pause of so many seconds between them."""
    pieces = [parts[0].waveform]
    for part in parts[1:]:
        pieces += [_hiss(int(pause * RATE), rng), part.waveform]
    return Spoken(np.concatenate(pieces), " ".join(part.text for part in parts))


def _hiss(count: int, rng: np.random.Generator) -> np.ndarray:
    return HISS * rng.standard_normal(count, dtype=np.float32)


def _read(path: Path) -> np.ndarray:
    return load_audio(path, RATE).samples
